"""How long a contender takes to its first sample, and how much memory, in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes import timing
from runtimes.session import Model

from .peers import Contender

ROUNDS = 3  # of a file; of a peer one, for some take seconds


@dataclass(frozen=True)
class Start:
    """From a process's start to its first sample: CPU seconds (median) and peak memory (largest).

    form, size: of a file, in bytes; of a peer none.
    """

    name: str
    form: str
    precision: str
    size: int | None
    seconds: float
    megabytes: float


def cold_start(contender: Contender, request: Mapping[str, Any]) -> Start:
    """A few processes, one after the other, which load it on one thread and draw one sample."""
    program = f"request = {one_of(request)!r}\n{contender.first}"
    file = (
        contender.model if isinstance(contender.model, Model) and not contender.solvers else None
    )
    took = [timing.alone(program) for _ in range(1 if file is None else ROUNDS)]
    return Start(
        contender.name,
        "" if file is None else file.form,
        contender.precision,
        None if file is None else len(file.file.content),
        float(np.median([seconds for seconds, _ in took])),
        max(megabytes for _, megabytes in took),
    )


def one_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request of a single sample, in words that Python reads back."""
    labels = request.get("label")
    return {**request, **({"label": labels[0]} if isinstance(labels, list) else {})}
