"""Whole files or none: what is written here is either all on disk under its name or not there."""

import contextlib
import os
from pathlib import Path

LONGEST_NAME = 255  # bytes: what file systems hold


def write_whole(path: str | os.PathLike[str], content: bytes, *, overwrite: bool = True) -> Path:
    """Write to a temporary file beside `path`, flush it to disk, then rename it into place.

    A kill, a full disk or a power cut leaves the old file as it was. Raises FileExistsError when
    `path` exists and `overwrite` is False or it is no plain file (a folder, a device), and
    FileNotFoundError when its folder does not exist.
    """
    path = Path(os.path.realpath(path))  # a link stays a link: its target is replaced
    refuse_existing(path, overwrite)
    # cut, so that every name a folder can hold has a temporary one it can hold too
    temporary = path.with_name(f".{path.name[:50]}.tmp-{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)  # of a dead process that had our number
        with open(temporary, "xb") as file:  # mode by umask; x: through no link of a stranger's
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise type(error)(
            f"{path}: expected to write {len(content)} bytes, got {error.strerror or error}; "
            "nothing was changed; make room or choose another place"
        ) from None
    _sync_folder(path.parent)
    return path


def refuse_existing(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise FileExistsError if there is something at `path` that may not be overwritten.

    And FileNotFoundError if its folder does not exist: called first, it saves work that has no place to go.
    A folder, a device or a pipe never may: a rename would put a plain file in the place of /dev/null.
    """
    if len(os.fsencode(os.path.basename(path))) > LONGEST_NAME:
        raise ValueError(
            f"{os.fspath(path)[:80]}...: expected a name of at most {LONGEST_NAME} bytes; shorten it"
        )
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "a device or pipe"
        raise FileExistsError(f"{path}: expected a plain file or none, got {what}; give a name")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(
            f"{path}: expected no such file, got one; give --force or another name"
        )
    real = Path(os.path.realpath(path))
    if not real.parent.is_dir():
        raise FileNotFoundError(
            f"{real.parent}: expected a folder to write {real.name} in, got none; create it first"
        )


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; a platform that cannot open a folder (Windows) does it by itself."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
