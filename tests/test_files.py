import os

import pytest

from runtimes.files import refuse_existing, write_whole


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a.bin"
    assert write_whole(path, b"one") == path
    write_whole(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_mode_is_by_umask(tmp_path):
    old = os.umask(0o027)
    try:
        path = write_whole(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


def test_no_overwrite(tmp_path):
    path = write_whole(tmp_path / "a", b"one")
    with pytest.raises(FileExistsError, match="expected no such file"):
        write_whole(path, b"two", overwrite=False)
    assert path.read_bytes() == b"one"
    write_whole(tmp_path / "b", b"two", overwrite=False)


def test_absent_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: expected a folder to write a\.bin in"):
        write_whole(tmp_path / "nowhere" / "a.bin", b"x")


def test_a_missing_folder_is_seen_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder to write b in, got none"):
        refuse_existing(tmp_path / "a" / "b", False)


def test_a_link_stays_a_link(tmp_path):
    real = write_whole(tmp_path / "real", b"one")
    link = tmp_path / "link"
    link.symlink_to(real)
    write_whole(link, b"two")
    assert link.is_symlink()
    assert real.read_bytes() == b"two"


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch, step, fault):
    path = write_whole(tmp_path / "a", b"old")

    def fail(*args):
        raise fault

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(fault)):
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_onto_a_folder(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match="d"):
        write_whole(tmp_path / "d", b"x")
    assert os.listdir(tmp_path) == ["d"]


def test_written_to_disk_before_the_rename(tmp_path, monkeypatch):
    """A rename of a file not yet on disk survives a power cut as an empty file."""
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, r=real: (done.append(n), r(*a))[1])
    write_whole(tmp_path / "a", b"x")
    assert done == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("kind", ["a folder", "a device or pipe"])
@pytest.mark.parametrize("linked", [False, True])
def test_only_a_plain_file_is_ever_replaced(tmp_path, kind, linked):
    """A rename onto /dev/null would leave a plain file there for everybody."""
    target = tmp_path / "target"
    target.mkdir() if kind == "a folder" else os.mkfifo(target)
    name = tmp_path / "link" if linked else target
    if linked:
        name.symlink_to(target)
    before = os.lstat(target)
    for check in (lambda: refuse_existing(name, True), lambda: write_whole(name, b"x")):
        with pytest.raises(FileExistsError, match=f"expected a plain file or none, got {kind}"):
            check()
    assert os.lstat(target) == before
    assert len(list(tmp_path.iterdir())) == 1 + linked


def test_the_temporary_file_is_written_through_no_link(tmp_path):
    """Its name can be guessed, so in a folder of many people somebody may be there first."""
    (tmp_path / "theirs").write_bytes(b"precious")
    (tmp_path / f".a.tmp-{os.getpid()}").symlink_to(tmp_path / "theirs")
    write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "theirs").read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["a", "theirs"]


@pytest.mark.parametrize("name", ["a" * 251 + ".npy", "\N{SNOWMAN}" * 84])
def test_the_longest_name_a_folder_can_hold(tmp_path, name):
    assert write_whole(tmp_path / name, b"x").read_bytes() == b"x"


def test_a_name_no_folder_can_hold_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="expected a name of at most 255 bytes"):
        refuse_existing(tmp_path / ("a" * 256), False)
