"""Whole files or none: what is written here is either all on disk under its name or not there."""

import contextlib
import os
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes, *, overwrite: bool = True) -> Path:
    """Write to a temporary file beside `path`, flush it to disk, then rename it into place.

    A kill, a full disk or a power cut leaves the old file as it was. Raises FileExistsError when
    `path` exists and `overwrite` is False, FileNotFoundError when its folder does not exist.
    """
    path = Path(os.path.realpath(path))  # a link stays a link: its target is replaced
    refuse_existing(path, overwrite)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path.parent}: expected a folder to write {path.name} in, got none; create it first"
        )
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:  # mode by umask
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
    """Raise FileExistsError if there is something at `path` that may not be overwritten."""
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(
            f"{path}: expected no such file, got one; give --force or another name"
        )


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; a platform that cannot open a folder (Windows) does it by itself."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
