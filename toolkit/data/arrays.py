"""Your own rows: a .npz with `x` and perhaps `y`, or a .npy which is x, checked at the door.

x  (n, *shape), channels last, at least rank 2. uint8 means pixels 0..255, which become
   x / 127.5 - 1; any other number is kept as it is and stored as float32.
y  integers (n,): labels from 0, as many classes as the largest label + 1. Floats (n, D) or
   (n, L, D): contexts (text embeddings, observations, anything).

With 1,000 rows or more a fixed tenth is held out for `evaluate`; with fewer every row trains,
because so few rows held out would measure less than they could have taught.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".npz", ".npy")
ROOM, DENSEST = 256 << 20, 200  # bytes an archive may always unpack to; times its size beyond that
SPLIT_FROM = 1000  # rows; fewer are not split


def read(path: Path) -> tuple[NDArray[np.float32], NDArray[Any] | None]:
    """(x, y) of a file, x float32 and y int64 labels, float32 contexts or None."""
    arrays = arrays_in(path)
    if "x" not in arrays:
        held = ", ".join(arrays) or "nothing"
        raise ValueError(
            f"{path}: expected an array x, got {held}; save with np.savez(path, x=...)"
        )
    extra = sorted(set(arrays) - {"x", "y"})
    if extra:
        raise ValueError(
            f"{path}: expected the arrays x and perhaps y, got also {', '.join(extra)}; "
            "leave them out"
        )
    x = _rows(path, arrays["x"])
    return x, _condition(path, arrays["y"], len(x)) if "y" in arrays else None


def held_out_rows(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(train, held out) row numbers: the last tenth of a seed-0 permutation, none if n < 1000."""
    rows = np.random.default_rng(0).permutation(n)
    kept = n // 10 if n >= SPLIT_FROM else 0
    return np.sort(rows[: n - kept]), np.sort(rows[n - kept :])


def arrays_in(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays by name; a .npy is {"x": array}. No pickles: a file must not run code."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path}: expected a file ending in .npz or .npy, got {path.suffix or 'no ending'!r}; "
            "save with np.savez(path, x=...)"
        )
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or pipe"
        raise ValueError(f"{path}: expected a .npz or .npy file, got {what}; check the path")
    try:
        # opened here, because np.load leaves the file open when it is not a whole zip
        with open(path, "rb") as file:
            if file.read(2) not in (b"PK", b"\x93N"):
                raise ValueError("another kind of file")
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"x": loaded}
            bomb = _bomb(loaded.zip)
            if bomb is None:
                return {
                    name: np.lib.format.read_array(loaded.zip.open(member), allow_pickle=False)
                    for name, member in zip(loaded.files, loaded.zip.namelist(), strict=True)
                }
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: expected a .npz or .npy file, got no such file; check the path"
        ) from error
    except Exception as error:  # damaged bytes raise from zipfile, zlib, tokenize, struct, ...
        # numpy says "Object arrays cannot be loaded" or "contains pickled (object) data"
        got = "object arrays" if "bject" in str(error) else f"an unreadable one ({_line(error)})"
        raise ValueError(
            f"{path}: expected a .npz or .npy of plain numbers, got {got}; "
            "save again with np.savez(path, x=..., y=...)"
        ) from error
    raise ValueError(
        f"{path}: expected at most {DENSEST} times what is stored, got {bomb}; "
        "save it with np.savez, which does not compress"
    )


def _bomb(archive: zipfile.ZipFile) -> str | None:
    """The member that unpacks to far more than the file holds, or None; nothing is unpacked for it.

    Zeros pack 1000 to 1, so a megabyte can be a gigabyte. Masks and line drawings pack 100 to 1.
    """
    members = archive.infolist()
    if sum(member.file_size for member in members) <= ROOM:
        return None
    for member in members:
        if member.file_size > DENSEST * member.compress_size:
            return f"{member.file_size} in {member.filename} from {member.compress_size} bytes"
    return None


def _rows(path: Path, x: NDArray[Any]) -> NDArray[np.float32]:
    if x.dtype.kind not in "fiu":
        raise ValueError(f"{path}: x: expected real numbers, got {x.dtype}; convert them first")
    if x.ndim < 2:
        raise ValueError(
            f"{path}: x: expected (n, *shape), rank 2 or more, got {x.shape}; "
            "give one row per sample: x[:, None]"
        )
    if not x.size:
        raise ValueError(f"{path}: x: expected some rows, got {x.shape}, which is empty; add data")
    if x.dtype == np.uint8:
        return x.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return _finite(path, "x", x)


def _condition(path: Path, y: NDArray[Any], n: int) -> NDArray[Any]:
    if y.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: y: expected integer labels or float contexts, got {y.dtype}; "
            "convert them first"
        )
    if not y.ndim or len(y) != n:
        got = f"{len(y)}" if y.ndim else "a single number"
        raise ValueError(f"{path}: y: expected {n} rows as in x, got {got}; give one y per row")
    if y.dtype.kind == "f":
        if y.ndim not in (2, 3) or not y.size:
            raise ValueError(
                f"{path}: y: expected float contexts (n, D) or (n, L, D), got float {y.shape}; "
                "for labels use integers, for one number per row y[:, None]"
            )
        return _finite(path, "y", y)
    if y.ndim != 1:
        raise ValueError(
            f"{path}: y: expected integer labels (n,), got {y.shape}; "
            "flatten it, or use floats as contexts"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= n:  # an embedding of a million classes for a hundred rows is a mistake
        first = int(np.flatnonzero((y < 0) | (y >= n))[0])
        raise ValueError(
            f"{path}: y: expected labels 0, 1, 2, ... with at most {n} classes (one per row), "
            f"got {low}..{high}, the first at {first}; number them from 0"
        )
    return y.astype(np.int64)


def _finite(path: Path, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """As float32; NaN, Inf and what float32 cannot hold are counted and the first one is named."""
    with np.errstate(over="ignore"):  # said below, with the place
        result = np.ascontiguousarray(values, dtype=np.float32)
    bad = ~np.isfinite(result)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        raise ValueError(
            f"{path}: {name}: expected finite float32 numbers, got {int(bad.sum())} NaN or Inf, "
            f"the first at {first}; remove or repair these rows"
        )
    return result


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
