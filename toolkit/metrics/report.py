"""figure(samples) beside figure(real data) and figure(a Gaussian), from one run and one seed.

One Euler step scores 100 % conditional accuracy, and a model that copies its training rows wins on
every distance; so each figure stands in a row of three:

    samples   the rows under test
    floor     what real data scores: training rows, each at most once, as if they were samples
    baseline  a Gaussian fitted to the training rows (one per label), as many rows as samples

Figures depend on n: the floor has n rows too, or every training row if there are fewer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.data import Data, load

from .figures import (
    Labels,
    Rows,
    classifier_accuracy,
    energy_distance,
    frechet_pixels,
    nearest_neighbour_ratio,
    per_class_gaussian,
    precision,
    recall,
    sliced_wasserstein,
    train_on_samples_accuracy,
)

AT_MOST = 5000  # held-out rows used: the work grows with the square
AT_LEAST = 10  # samples: fewer have no five neighbours worth the name


@dataclass(frozen=True)
class Row:
    """One figure: of the samples, of real data (floor) and of a Gaussian (baseline).

    better: "lower" or "higher". gate: what the samples must at least reach, None without one.
    """

    name: str
    samples: float
    floor: float
    baseline: float
    better: str
    gate: float | None = None

    @property
    def missed(self) -> bool:
        """True when there is a gate and the samples are on the wrong side of it, or NaN."""
        if self.gate is None:
            return False
        reached = (
            self.samples <= self.gate if self.better == "lower" else self.samples >= self.gate
        )
        return not reached


def evaluate(samples: Rows, labels: Labels | None, data: Data, *, seed: int = 0) -> list[Row]:
    """The rows for samples of a set from `toolkit.data.load`.

    labels: int (n,), what each sample was asked to be, or None. They are judged on digits only,
    the one set here with a judge; other labelled sets use their own labels, for the baseline.
    """
    if data.name == "digits" and data.step is not None and labels is not None:  # no digits.npz
        return evaluate_digits(samples, labels, seed=seed)
    if data.held_out is None:
        raise ValueError(
            f"{data.name}: expected rows held out, got none; give 1000 rows of data or more"
        )
    return evaluate_arrays(
        samples,
        data.held_out.x,
        data.x,
        train_labels=data.y if data.classes else None,
        step=data.step,
        value_range=data.value_range,
        seed=seed,
    )


def evaluate_arrays(
    samples: Rows,
    held_out: Rows,
    train: Rows,
    *,
    train_labels: Labels | None = None,
    step: float | None = None,
    value_range: tuple[float, float] | None = None,
    seed: int = 0,
) -> list[Row]:
    """Figures for any data, in its own units: SWD, ED2, recall, nearest-neighbour ratio.

    train_labels: int (n,) makes the baseline one Gaussian per label. step: spacing of the value
    grid, value_range its ends, else those of train; samples and baseline are clipped and rounded to them.
    At most 5,000 held-out rows are used.
    """
    _check(samples, train.shape[1:])
    drawn = np.zeros(len(train), int) if train_labels is None else train_labels
    baseline, _ = per_class_gaussian(train, drawn, len(samples), stream(seed, "baseline"))
    if step is not None and value_range is None:
        value_range = float(train.min()), float(train.max())
    samples, baseline = (on_grid(x, step, value_range) for x in (samples, baseline))
    real = held_out[some(len(held_out), AT_MOST, seed, "held out")]
    floor = train[some(len(train), len(samples), seed, "floor")]
    return _table_rows(*(_distances_to(x, real, train, seed) for x in (samples, floor, baseline)))


def evaluate_digits(samples: Rows, labels: Labels, *, seed: int = 0) -> list[Row]:
    """Figures for samples (n, 8, 8, 1) in [-1, 1] of the ten digits, in units of X / 16 in [0, 1].

    Samples and baseline are clipped and rounded to the 17 grey levels first: a judge that sees
    unrounded values tells samples from digits by the rounding alone.
    """
    data = load("digits")
    kept = data.held_out
    _check_labels(labels, len(samples), data.classes)
    _check(samples, data.shape)
    train, real, shown = ((x + 1.0) / 2 for x in (data.x, kept.x, samples))
    fake, fake_labels = per_class_gaussian(train, data.y, len(shown), stream(seed, "baseline"))
    floor = some(len(train), len(shown), seed, "floor")
    sets = (
        (on_grid(shown, 1 / 16, (0, 1)), np.asarray(labels)),
        (train[floor], data.y[floor]),
        (on_grid(fake, 1 / 16, (0, 1)), fake_labels),
    )
    columns = [
        _distances_to(x, real, train, seed)
        | {
            "FD pixels": frechet_pixels(x, real),
            "precision": precision(real, x),
            # the judge knows the training rows by heart: real data is judged on new rows
            "accuracy": classifier_accuracy(*asked, train, data.y),
            "train-on-samples accuracy": train_on_samples_accuracy(x, y, real, kept.y),
        }
        for (x, y), asked in zip(sets, (sets[0], (real, kept.y), sets[2]), strict=True)
    ]
    return _table_rows(*columns)


def table(rows: list[Row], n: int) -> str:
    """The rows as aligned text, each with its gate and whether the n samples pass it."""
    names = max(len(row.name) for row in rows)
    lines = [
        f"{n} samples; floor: real data, at most as many; baseline: a Gaussian, as many",
        f"{'':{names}}  {'samples':>8}  {'floor':>8}  {'baseline':>8}  gate",
    ]
    for row in rows:
        values = "  ".join(f"{value:8.4f}" for value in (row.samples, row.floor, row.baseline))
        sign = "<=" if row.better == "lower" else ">="
        gate = "" if row.gate is None else f"{sign} {row.gate:.4f}  "
        gate += "" if row.gate is None else ("MISSED" if row.missed else "pass")
        lines.append(f"{row.name:{names}}  {values}  {gate}".rstrip())
    return "\n".join(lines)


def _distances_to(x: Rows, real: Rows, train: Rows, seed: int) -> dict[str, float]:
    """The figures that need no labels, of x against held-out rows."""
    return {
        # the same directions for all three columns, so that they differ by the rows alone
        "SWD": sliced_wasserstein(x, real, rng=stream(seed, "directions")),
        "ED2": energy_distance(x, real),
        "recall": recall(real, x),
        "NN ratio": nearest_neighbour_ratio(x, train, real),
    }


def _table_rows(
    samples: dict[str, float], floor: dict[str, float], baseline: dict[str, float]
) -> list[Row]:
    # training rows are their own neighbours; new real data scores 1 by definition of the ratio
    floor = floor | {"NN ratio": 1.0}
    gates = GATES | {name: baseline[name] for name in BEAT_THE_BASELINE}
    return [
        Row(name, samples[name], floor[name], baseline[name], BETTER[name], gates.get(name))
        for name in samples
    ]


def on_grid(
    x: Rows, step: float | None, value_range: tuple[float, float] | None
) -> NDArray[np.float64]:
    """Clipped to the range, then the nearest multiple of step; without them left as it is."""
    x = np.asarray(x, dtype=np.float64)
    x = x if value_range is None else np.clip(x, *value_range)
    return x if step is None else np.round(x / step) * step


def some(n: int, at_most: int, seed: int, what: str) -> NDArray[np.int64]:
    """at_most different row numbers of n, in order; all of them when there are no more."""
    return np.sort(stream(seed, what).permutation(n)[:at_most])


def stream(seed: int, what: str) -> np.random.Generator:
    """Independent draws for independent things: a change of n moves no direction."""
    return np.random.default_rng([seed, STREAMS[what]])


def _check(samples: Rows, shape: tuple[int, ...]) -> None:
    if samples.shape[1:] != shape or len(samples) < AT_LEAST:
        expected = ", ".join(str(size) for size in shape)
        raise ValueError(
            f"samples: expected (n, {expected}) with n of {AT_LEAST} or more, "
            f"got {samples.shape}; draw samples of the data's shape"
        )
    bad = ~np.isfinite(samples)
    if bad.any():
        raise ValueError(
            f"samples: expected finite numbers, got {int(bad.sum())} NaN or Inf, the first in row "
            f"{int(np.argwhere(bad)[0, 0])}; the model or its sampler is broken, inspect it"
        )


def _check_labels(labels: Labels, n: int, classes: int) -> None:
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels: expected {n} integers, got {labels.dtype} {labels.shape}; "
            "give one per sample"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels: expected 0..{classes - 1}, got {labels.min()}..{labels.max()}; "
            "give the labels that the samples were drawn for"
        )


BETTER = {
    "SWD": "lower",
    "ED2": "lower",
    "recall": "higher",
    "NN ratio": "higher",
    "FD pixels": "lower",
    "precision": "higher",
    "accuracy": "higher",
    "train-on-samples accuracy": "higher",
}
GATES = {"recall": 0.60, "NN ratio": 0.60, "train-on-samples accuracy": 0.96}
BEAT_THE_BASELINE = ("SWD", "ED2")
STREAMS = {"directions": 0, "baseline": 1, "floor": 2, "held out": 3}
