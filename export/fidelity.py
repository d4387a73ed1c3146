"""The gate of a smaller precision: where its samples end, beside those of float32 from the same seeds.

    end error   median over samples of |x - x32|, relative to the median of |x32|; rms over a sample
    sliced      sqrt of the mean over directions d of W2(x . d, x32 . d)^2 (Bonneel et al. 2015), beside the
                same between float32's samples and those of other seeds

One call says little: errors of a call add up or cancel along a trajectory, and guidance enlarges them.
The median, because a sample that lands in another mode says nothing about the others; the sliced
distance, because it sees when many do. Both have to hold.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes import timing
from runtimes.noise import noise, seed_rows
from runtimes.sample import sample
from runtimes.session import Model

SAMPLES = (
    8,
    256,
)  # at least and at most; between them, what a network of so many bytes can do in a minute
WORK = 1 << 28  # bytes of weights times samples
DIRECTIONS = 128
ROUNDS = (3, 9)  # of timing, at least and at most


@dataclass(frozen=True)
class Fidelity:
    """How far a precision's samples are from float32's, and what that buys.

    size: of the file against float32's. time: of one sample against float32's, here; it is not kept.
    """

    precision: str
    samples: int
    tolerance: float
    end_error: float
    sliced: float
    other_seeds: float
    size: float
    time: float | None = None

    @property
    def passes(self) -> bool:
        """Whether the samples are near enough (NaN is not)."""
        return self.end_error <= self.tolerance and self.sliced <= self.other_seeds

    def to_json(self) -> str:
        """As the model file carries it: what does not depend on the machine's mood."""
        kept = {**asdict(self), "time": None}
        return json.dumps(kept, sort_keys=True, separators=(",", ":"))

    def table(self) -> str:
        """For people."""
        time = "" if self.time is None else f"{self.time:.2f} of the time, "
        verdict = "within" if self.passes else "BEYOND"
        return "\n".join(
            [
                f"{self.precision} against fp32, {self.samples} samples from the same seeds: "
                f"{time}{self.size:.3f} of the size",
                f"  end error            {self.end_error:.2e}, at most {self.tolerance:.0e}",
                f"  sliced Wasserstein   {self.sliced:.2e}, at most that of other seeds, "
                f"{self.other_seeds:.2e}",
                f"  {verdict} the tolerance of {self.precision}",
            ]
        )


def judge(exact: Model, small: Model, precision: str) -> Fidelity:
    """Sample both files as they recommend, labels in turn, and compare. `small` has that precision."""
    sizes = [len(model.file.content) for model in (exact, small)]
    n = int(np.clip(WORK // sizes[0], *SAMPLES))
    request = _request(exact, n)
    x, x32 = (sample(model, n, **request) for model in (small, exact))
    other = sample(exact, n, **{**request, "seed": n})
    apart = np.median(_rms(x.astype(np.float64) - x32)) / max(float(np.median(_rms(x32))), 1e-30)
    one = {key: value if key == "seed" else value[0] for key, value in request.items()}
    runs = {
        name: lambda model=model: sample(model, 1, **one)
        for name, model in (("exact", exact), ("small", small))
    }
    rounds, clock = int(np.clip(n // 16, *ROUNDS)), timing.CLOCKS["cpu"]  # others may be at work
    seconds = timing.interleaved(timing.warmed(runs), rounds, clock=clock)
    _, time, _ = timing.ratios(seconds["small"], seconds["exact"])
    return Fidelity(
        precision,
        n,
        TOLERANCES[precision],
        float(apart),
        sliced(x, x32),
        sliced(other, x32),
        sizes[1] / sizes[0],
        time,
    )


def sliced(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The sliced Wasserstein distance of as many rows in fixed directions: sorted against sorted."""
    a, b = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (a, b))
    lines = noise(seed_rows(0, DIRECTIONS), a.shape[1:], 0).T.astype(np.float64)
    lines /= np.linalg.norm(lines, axis=0)
    return float(np.sqrt(np.mean((np.sort(a @ lines, axis=0) - np.sort(b @ lines, axis=0)) ** 2)))


def from_json(text: str) -> Fidelity:
    """What a file carries. Raises ValueError for any other text."""
    try:
        raw = json.loads(text)
        found = Fidelity(**{slot.name: raw[slot.name] for slot in fields(Fidelity)})
        found.table()
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"precision: expected what toolkit export writes, got another text ({str(error)[:80]}); "
            "export again"
        ) from None
    return found


def _request(model: Model, n: int) -> dict[str, Any]:
    condition = model.spec.condition
    if condition.kind == "label":
        return {"label": list(range(condition.classes)), "seed": 0}
    if condition.kind == "context":
        return {"context": noise(seed_rows(n, n), condition.shape, 1), "seed": 0}
    return {"seed": 0}


def _rms(x: NDArray[Any]) -> Any:
    flat = x.reshape(len(x), -1).astype(np.float64)
    return np.linalg.norm(flat, axis=1) / np.sqrt(flat.shape[1])


# precision -> the largest end error: 4 to 10 times what the digits network shows, unguided; w4: twice
TOLERANCES = {"fp16": 2e-3, "bf16": 1e-2, "int8": 5e-2, "uint8": 5e-2, "w8": 2e-2, "w4": 1e-1}
