"""data ~ sum_k p_k N(means_k + context lift, axes diag(variances) axes^T): exact answers, no training.

Under x = alpha data + sigma noise everything is a closed form. In the axes' own coordinates, with the
spread S = alpha^2 variances + sigma^2, z = x - alpha (context lift) and the posterior parts
p(k | z) ~ p_k exp(-sum (z - alpha means_k)^2 / 2 S),

    white = (z - alpha sum_k p(k | z) means_k) / S         score = -white
    noise = sigma white         data = sum_k p(k | z) means_k + alpha variances white + context lift

`density_graphs` writes the same as ONNX files, and `conformance` holds the solvers against them.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.spec import Condition

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Density:
    """See above. Flattened to D = prod(shape): means (K, D), variances (D,), axes (D, D), lift (C, D).

    condition: label k lets part k alone through and the null label all; a context moves every mean.
    """

    shape: tuple[int, ...]
    means: Floats
    variances: Floats
    axes: Floats
    condition: Condition = field(default_factory=Condition)
    lift: Floats | None = None

    def priors(self, labels: NDArray[np.int64] | None) -> Floats:
        """log p_k for each row: (B, K), or (1, K) without labels."""
        parts = len(self.means)
        rows = np.vstack(
            [np.where(np.eye(parts) > 0, 0.0, -1e9), np.full(parts, -math.log(parts))]
        )
        return rows[-1:] if labels is None else rows[labels]

    def laws(
        self, x: Floats, alpha: float, sigma: float, condition: NDArray[Any] | None = None
    ) -> dict[str, Floats]:
        """The posterior means data and noise, the score (all like x) and log_density (B,), in float64."""
        rows = x.reshape(len(x), -1).astype(np.float64)
        shift = np.zeros_like(rows)
        if self.lift is not None and condition is not None:
            shift = condition.reshape(len(x), -1).astype(np.float64) @ self.lift
        z, means = (rows - alpha * shift) @ self.axes, self.means @ self.axes
        spread = alpha**2 * self.variances + sigma**2
        labels = condition if self.condition.kind == "label" else None
        logits = -0.5 * ((z[:, None] - alpha * means) ** 2 / spread).sum(-1) + self.priors(labels)
        total = np.logaddexp.reduce(logits, axis=1)
        centre = np.exp(logits - total[:, None]) @ means
        white = (z - alpha * centre) / spread
        data = (centre + alpha * self.variances * white) @ self.axes.T + shift
        white = white @ self.axes.T
        return {
            "data": data.reshape(x.shape),
            "noise": sigma * white.reshape(x.shape),
            "score": -white.reshape(x.shape),
            "log_density": total - 0.5 * np.log(2 * np.pi * spread).sum(),
        }


def _mixture(
    shape: tuple[int, ...], parts: int, reach: float, variance: float, seed: int
) -> Density:
    """`parts` modes `reach` away from the origin or so, whatever the number of dimensions."""
    size, rng = math.prod(shape), np.random.default_rng(seed)
    means = reach * rng.standard_normal((parts, size)) / math.sqrt(size / 2)
    return Density(shape, means, np.full(size, variance), np.eye(size))


def _ornstein_uhlenbeck(shape: tuple[int, int], pull: float) -> Density:
    """Paths of dX = -pull X dk + sqrt(2 pull) dW at k = 0, 1, ...: covariance exp(-pull |k - l|)."""
    steps = np.arange(shape[0])
    covariance = np.kron(np.exp(-pull * np.abs(steps[:, None] - steps)), np.eye(shape[1]))
    variances, axes = np.linalg.eigh(covariance)
    return Density(shape, np.zeros((1, len(axes))), variances, axes)


def _context(density: Density, shape: tuple[int, ...], seed: int) -> Density:
    size = math.prod(shape)
    lift = np.random.default_rng(seed).standard_normal((size, density.variances.size)) / size
    return replace(density, condition=Condition("context", shape=shape), lift=lift)


def _labels(density: Density) -> Density:
    return replace(density, condition=Condition("label", classes=len(density.means)))


_COS, _SIN = math.cos(0.5), math.sin(0.5)
DENSITIES: dict[str, Density] = {
    "gaussian": Density(
        (2,),
        np.array([[0.8, -1.2]]),
        np.array([0.09, 2.89]),
        np.array([[_COS, -_SIN], [_SIN, _COS]]),
    ),
    "overlapping": _mixture((2,), 8, 0.7, 0.15, 7),
    "separated": _mixture((2,), 5, 2.5, 0.05, 3),
    "ornstein_uhlenbeck": _ornstein_uhlenbeck((11, 3), 0.25),
    "labelled": _labels(_mixture((2,), 4, 1.0, 0.2, 1)),
    "images": _labels(_mixture((5, 7, 3), 3, 1.5, 0.3, 2)),
    "videos": _context(_mixture((4, 6, 8, 2), 2, 1.5, 0.3, 4), (5,), 5),
    "moves": _context(_mixture((11, 3), 3, 1.0, 0.2, 6), (4, 6), 8),
}
