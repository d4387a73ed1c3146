"""loss = mean of weight * |network(x, t) - target|^2,  target = c * data + d * noise.

x = input * (alpha * data + sigma * noise) is what the network is shown; (c, d) is the row of the
prediction that it is trained to make, and `input` stands beside it (`runtimes.predictions`).
Times are drawn and numbers computed on the host in float64 and shipped as float32; arrays are
touched only with + and * (and a mean), so torch and MLX share every line here.

Two things keep the loss finite. Where a target is infinite at an end of the path, times keep
`MARGIN` away from that end: the score at the data, the velocity of `vp` at the data. And a score is
weighted by sigma^2, which makes it the loss of the noise (Song et al. 2021, section 3.3). A velocity or
v is weighted by 1 / sigma^2 where sigma > 1: on the `edm` path, whose noise starts at 80. A prediction
`edm` is of unit variance at every time and needs no weight (Karras et al. 2022, eq. 8).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.predictions import PREDICTIONS, input_scale
from runtimes.schedules import Scales, named

MARGIN = 1e-3
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """The numbers of each row of a batch: time (B,), the others (B, 1, ...) as wide as the data.

    Float32 arrays of numpy, or of a framework after `to`.
    """

    time: Any
    alpha: Any
    sigma: Any
    c: Any
    d: Any
    weight: Any
    input: Any

    def to(self, array: Callable[[NDArray[np.float32]], Any]) -> "Row":
        """The same numbers as another framework's arrays."""
        return Row(*(array(values) for values in vars(self).values()))


def row(times: Times, schedule: str, prediction: str, rank: int) -> Row:
    """Everything a batch at these times, float64 (B,) in (0, 1), is multiplied with.

    rank: of the data with its batch axis, so that the numbers broadcast against it.
    """
    times = inside(times, schedule, prediction)
    scales = named(schedule)(times)
    c, d = PREDICTIONS[prediction](scales)
    weight = WEIGHTS.get(prediction, _one)(scales)
    wide = (len(times),) + (1,) * (rank - 1)
    each = (*scales[:2], c, d, weight, input_scale(prediction, scales))
    numbers = (np.broadcast_to(value, len(times)) for value in each)
    return Row(
        times.astype(np.float32), *(value.astype(np.float32).reshape(wide) for value in numbers)
    )


def inside(times: Times, schedule: str, prediction: str) -> Times:
    """clip(t, low, high) with low = MARGIN or high = 1 - MARGIN if the target is infinite at that end."""
    at_ends = [PREDICTIONS[prediction](named(schedule)(end)) for end in (0.0, 1.0)]
    low, high = (MARGIN * (not np.isfinite(numbers).all()) for numbers in at_ends)
    return np.clip(times, low, 1.0 - high)


def point(row: Row, data: Any, noise: Any) -> Any:
    """x = input * (alpha * data + sigma * noise): what the network is shown."""
    return row.input * (row.alpha * data + row.sigma * noise)


def target(row: Row, data: Any, noise: Any) -> Any:
    """c * data + d * noise: what it should answer."""
    return row.c * data + row.d * noise


def loss(row: Row, answer: Any, wanted: Any) -> Any:
    """mean of weight * (answer - wanted)^2 over every element of the batch."""
    error = answer + wanted * -1.0
    return (row.weight * (error * error)).mean()


def best_linear_loss(data: NDArray[np.float32]) -> float:
    """(pi / 2) mean_i s_i, with s_i^2 the eigenvalues of the data's covariance.

    The loss per dimension of the best *linear* velocity field on the linear schedule with uniform
    times, whatever the data: a network above it has not even learned mean and covariance.
    """
    flat = data.reshape(len(data), -1).astype(np.float64)
    variances = np.linalg.eigvalsh(np.atleast_2d(np.cov(flat, rowvar=False)))
    return float(0.5 * np.pi * np.sqrt(np.clip(variances, 0.0, None)).mean())


def _one(scales: Scales) -> Times:
    return np.ones_like(np.asarray(scales.alpha))


def _below_one(scales: Scales) -> Times:
    return 1.0 / np.maximum(1.0, np.asarray(scales.sigma)) ** 2


WEIGHTS: dict[str, Callable[[Scales], Times]] = {
    "velocity": _below_one,
    "v": _below_one,
    "score": lambda scales: np.asarray(scales.sigma) ** 2,
}
