"""One writer per folder: a lock that the system lets go of when its process dies, however it dies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold folder/.lock, making the folder if need be, or raise FileExistsError: another process does.

    The lock is on the open file, not on its existence: after a kill -9 nothing stale is left to remove.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+b")  # noqa: SIM115  closed below
    except OSError as error:
        raise type(error)(
            f"{folder}: expected a folder to write in, got {error.strerror}; use another --out"
        ) from None
    with file:
        if not _take(file.fileno()):
            raise FileExistsError(
                f"{folder}: expected no other process training here, got one holding .lock; "
                "stop it or use another --out"
            )
        yield


def _take(handle: int) -> bool:
    """Lock an open file without waiting; False if it is locked already."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
