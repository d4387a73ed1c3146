"""A checkpoint is whole or it is refused, and the one before it is still there."""

import json
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import safetensors.numpy

from runtimes import files
from toolkit import checkpoints
from toolkit.checkpoints import Checkpoint, latest, read, save, tidy


def some(step, size=50):
    rng = np.random.default_rng(step)
    tensors = {
        "network/a.weight": rng.standard_normal((size, 3)).astype(np.float32),
        "network/b": np.array(2.5, np.float32),
        "ema/a.weight": rng.standard_normal((3, size)).astype(np.float32).T,  # not contiguous
        "generator/torch": rng.integers(0, 255, 16).astype(np.uint8),
    }
    return Checkpoint(step, tensors, {"words": "grün", "loss": 0.1 + step})


def same(a, b):
    return (a.step, a.facts) == (b.step, b.facts) and all(
        np.array_equal(a.tensors[key], b.tensors[key])
        and a.tensors[key].dtype == b.tensors[key].dtype
        and a.tensors[key].shape == b.tensors[key].shape
        for key in a.tensors.keys() | b.tensors.keys()
    )


def test_comes_back_as_it_was(tmp_path):
    path = save(tmp_path, some(1000))
    assert path.name == "checkpoint-00001000.safetensors"
    assert same(read(path), some(1000))
    assert same(latest(tmp_path), some(1000))
    assert set(read(path).part("network")) == {"a.weight", "b"}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_file_is_plain_safetensors_without_pickle(tmp_path):
    path = save(tmp_path, some(1))
    assert set(safetensors.numpy.load_file(path)) == set(some(1).tensors)
    program = (
        "import sys; sys.modules['pickle'] = None\n"  # importing it now fails
        "from pathlib import Path; from toolkit.checkpoints import latest\n"
        f"print(latest(Path({str(tmp_path)!r})).step)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if "pickle" in done.stderr:  # numpy itself wants it: then nothing of ours may use it
        program = program.replace(
            "sys.modules['pickle'] = None",
            "import pickle; pickle.load = pickle.loads = pickle.Unpickler = None",
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


def test_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        path = save(tmp_path, some(1))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_last_two_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        save(tmp_path, some(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-00000015.safetensors",
        "checkpoint-00000020.safetensors",
    ]


def test_nothing_is_pruned_before_the_new_one_is_safe(tmp_path, monkeypatch):
    for step in (5, 10):
        save(tmp_path, some(step))

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, some(15))
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-00000005.safetensors",
        "checkpoint-00000010.safetensors",
    ]
    assert same(latest(tmp_path), some(10))


def test_a_good_one_is_never_pruned_for_a_broken_later_one(tmp_path):
    for step in (5, 10, 15):
        path = save(tmp_path, some(step))
    path.write_bytes(b"broken")  # resumed from 10, saving 12
    save(tmp_path, some(12))
    with pytest.warns(UserWarning, match="went back to checkpoint-00000012"):
        assert latest(tmp_path).step == 12
    assert (tmp_path / "checkpoint-00000010.safetensors").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_newest_falls_back_and_says_so(tmp_path, share):
    save(tmp_path, some(1))
    newest = save(tmp_path, some(2))
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content))])
    with pytest.warns(UserWarning, match=r"00000002.*went back to checkpoint-00000001") as caught:
        assert same(latest(tmp_path), some(1))
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


def outcome(path):
    try:
        return read(path)
    except ValueError as error:
        return error


def test_every_flipped_bit_is_refused_by_name(tmp_path):
    path = save(tmp_path, some(1, size=2))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(content))[:200]:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(changed))
        got = outcome(path)
        # a space between two words of the header may become a tab: then nothing has changed
        if isinstance(got, ValueError):
            assert re.fullmatch(rf".*{path.name}.*", str(got))
        else:
            assert same(got, some(1, size=2))


def test_facts_are_sealed_too(tmp_path):
    path = save(tmp_path, some(1))
    content = path.read_bytes()
    assert content.count(b"loss") == 1
    path.write_bytes(content.replace(b"loss", b"lost"))
    with pytest.raises(ValueError, match="SHA-256 differs"):
        read(path)


def test_nothing_that_loads_is_an_error_with_the_newest_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="got no such folder"):
        latest(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="got no checkpoint"):
        latest(tmp_path)
    for step in (1, 2):
        save(tmp_path, some(step)).write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="checkpoint-00000002"):
        latest(tmp_path)
    (tmp_path / "checkpoint-00000003.safetensors").write_bytes(
        safetensors.numpy.save({"a": np.zeros(2)})
    )
    with pytest.raises(ValueError, match="checkpoint-00000003"):
        latest(tmp_path)


def test_leftovers_of_dead_writers_go_and_those_of_live_ones_stay(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        names = {
            "dead": f".checkpoint-00000007.safetensors.tmp-{2**22 + 1}",
            "mine": f".checkpoint-00000007.safetensors.tmp-{os.getpid()}",
            "alive": f".checkpoint-00000007.safetensors.tmp-{other.pid}",
            "foreign": ".notes.tmp-old",
            "data": "checkpoint-00000006.safetensors",
        }
        for name in names.values():
            (tmp_path / name).write_bytes(b"x")
        tidy(tmp_path)
        left = {p.name for p in tmp_path.iterdir()}
        other.kill()
    assert left == {names["alive"], names["foreign"], names["data"]}


def test_not_a_number_in_the_facts_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path, Checkpoint(1, {}, {"loss": float("nan")}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_never_saved(tmp_path, bad):
    save(tmp_path, some(1))
    with pytest.raises(FloatingPointError, match="step 2: expected finite numbers in ema/a"):
        save(tmp_path, Checkpoint(2, {"ema/a": np.array([1.0, bad], np.float32)}))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-00000001.safetensors"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda p: os.symlink("/dev/zero", p)])
def test_what_is_no_file_is_passed_over_and_stays(tmp_path, make):
    save(tmp_path, some(1))
    make(tmp_path / "checkpoint-00000009.safetensors")
    with pytest.warns(UserWarning, match="00000009.*went back to checkpoint-00000001"):
        assert latest(tmp_path).step == 1
    for step in (10, 11, 12):
        save(tmp_path, some(step))
    assert {p.name[17:19] for p in tmp_path.iterdir()} == {"09", "11", "12"}


@pytest.mark.parametrize("facts", [{"step": "7"}, {"step": -1}, {"step": True}, {}, [], None])
def test_a_sealed_file_with_other_facts_is_no_checkpoint(tmp_path, facts):
    text = json.dumps({"facts": facts, "sha256": checkpoints._digest({}, facts)})
    path = tmp_path / "checkpoint-00000007.safetensors"
    path.write_bytes(safetensors.numpy.save({}, metadata={"checkpoint": text}))
    with pytest.raises(ValueError, match="expected"):
        read(path)


SAVER = """
import sys, numpy as np; from pathlib import Path
from toolkit.checkpoints import Checkpoint, save
for step in range(1, 10**6):
    save(Path(sys.argv[1]), Checkpoint(step, {"a": np.full(500_000, step, np.float32)}, {}))
    print(step, flush=True)
"""


def test_kill_at_a_random_moment_leaves_the_last_reported_one(tmp_path):
    rng = np.random.default_rng(0)
    for trial in range(5):
        folder = tmp_path / str(trial)
        folder.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", SAVER, folder], stdout=subprocess.PIPE, text=True
        ) as writer:
            writer.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(rng.uniform(0.0, 0.2))
            writer.kill()
            reported = [int(line) for line in writer.stdout.read().split()] or [1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = latest(folder)
        assert found.step >= reported[-1]
        assert (found.tensors["a"] == found.step).all()
        tidy(folder)
        assert not list(folder.glob(".*"))


def test_digest_knows_names_types_and_shapes():
    zeros = np.zeros((2, 3), np.float32)
    seen = {
        checkpoints._digest({name: array}, facts)
        for name in ("a", "b")
        for array in (zeros, zeros.reshape(3, 2), zeros.view(np.int32))
        for facts in ({}, {"step": 1})
    }
    assert len(seen) == 12
    assert json.dumps(sorted(seen))  # plain text, fit for a header
