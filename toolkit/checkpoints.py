"""checkpoint-00001000.safetensors: one whole file per checkpoint, no pickle, the last two kept.

A file holds named arrays (`network/...`, `ema/...`, `optimiser/...`) and, in its metadata, facts as JSON
and the SHA-256 of everything else. It is flushed to disk and renamed into place, so a kill, a full
disk or a power cut leaves the checkpoint before it as it was; only then are older ones removed.
"""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from runtimes.files import write_whole

KEPT = 2
_NAME = re.compile(r"checkpoint-([0-9]{8,})\.safetensors")
_KEY = "checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps: arrays by name, and facts that JSON can hold."""

    step: int
    tensors: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays whose names start with `name/`, without it."""
        start = f"{name}/"
        found = {key: array for key, array in self.tensors.items() if key.startswith(start)}
        return {key.removeprefix(start): array for key, array in found.items()}


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write one checkpoint; when it is safe, remove all but the last two up to its step.

    Raises FloatingPointError for numbers that are not finite: nothing could go on from them.
    """
    tensors = {name: np.array(array, order="C") for name, array in checkpoint.tensors.items()}
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(
                f"step {checkpoint.step}: expected finite numbers in {name}, got NaN or infinity; "
                "lower lr or look at the data"
            )
    facts = {"step": checkpoint.step, **checkpoint.facts}
    text = json.dumps(
        {"facts": facts, "sha256": _digest(tensors, facts)}, sort_keys=True, allow_nan=False
    )
    path = folder / f"checkpoint-{checkpoint.step:08d}.safetensors"
    write_whole(path, safetensors.numpy.save(tensors, metadata={_KEY: text}))
    older = [other for step, other in _numbered(folder) if step <= checkpoint.step]
    for other in [path for path in older if path.is_file()][KEPT:]:
        other.unlink(missing_ok=True)
    return path


def read(path: Path) -> Checkpoint:
    """The checkpoint in a file; ValueError if it is truncated, changed or not a checkpoint."""
    try:
        if not path.is_file():  # a pipe would never end
            raise ValueError
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        known = json.loads(header["__metadata__"][_KEY])
        facts, digest = known["facts"], known["sha256"]
        tensors = safetensors.numpy.load(content)
        step = facts.pop("step")
        whole = (
            type(step) is int and step >= 0 and _digest(tensors, {"step": step, **facts}) == digest
        )
    except Exception as error:  # damaged bytes raise from json, safetensors, numpy, ...
        raise ValueError(
            f"{path}: expected a whole checkpoint, got an unreadable file "
            f"({type(error).__name__}); use an older one"
        ) from None
    if not whole:
        raise ValueError(
            f"{path}: expected the checkpoint that was saved, got a changed one: SHA-256 differs; "
            "use an older one"
        )
    return Checkpoint(step, tensors, facts)


def latest(folder: Path) -> Checkpoint:
    """The checkpoint of the highest step that loads; warns about every later one that does not.

    Raises FileNotFoundError when the folder has none, ValueError when none of them loads.
    """
    found = _numbered(folder)
    if not found:
        got = "no checkpoint in it" if folder.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"{folder}: expected a run folder with a checkpoint, got {got}; train first"
        )
    problems = []
    for _, path in found:
        try:
            checkpoint = read(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}: went back to {path.name}", stacklevel=2)
        return checkpoint
    raise ValueError(problems[0])


def tidy(folder: Path) -> None:
    """Remove the temporary files of writers that are no longer alive."""
    for path in folder.glob(".*.tmp-*"):
        writer = path.name.rpartition("-")[2]
        if writer.isdecimal() and (int(writer) == os.getpid() or not _alive(int(writer))):
            path.unlink(missing_ok=True)


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every checkpoint by its name, the highest step first."""
    names = folder.iterdir() if folder.is_dir() else ()
    matches = ((_NAME.fullmatch(path.name), path) for path in names)
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _digest(tensors: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> str:
    """SHA-256 of the facts and of every array's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _alive(process: int) -> bool:
    if os.name == "nt":
        return False  # os.kill would end it there; a file that is open cannot be removed anyway
    with contextlib.suppress(PermissionError):  # somebody else's, so alive
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True
