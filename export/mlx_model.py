"""An MLX module that is sampled, and whose likelihood is taken, by the same call as a model file.

runtimes.sample(MlxModel(spec, module), 64, label=7, steps=20)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from runtimes.session import Floats
from runtimes.spec import Spec


@dataclass(frozen=True)
class MlxModel:
    """module(x, time[, condition]) on MLX arrays seen as prediction = network(x, t, condition) on numpy's."""

    spec: Spec
    module: Callable[..., Any]

    def network(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None = None
    ) -> Floats:
        """One call, evaluated before it returns."""
        return _array(self.module(mx.array(x), *_rest(x, t, condition)))

    def product(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None, probe: Floats
    ) -> tuple[Floats, Floats]:
        """(prediction, J probe), J = d prediction / d x of each row, by two mx.vjp.

        J^T u is linear in u, so its own vjp is J; mx.jvp knows no convolutions.
        """
        rest, at = _rest(x, t, condition), mx.array(x)

        def back(u: mx.array) -> mx.array:
            return mx.vjp(lambda x: self.module(x, *rest), [at], [u])[1][0]

        moved = mx.vjp(back, [mx.zeros_like(at)], [mx.array(probe)])[1]
        return self.network(x, t, condition), _array(moved[0])


def _rest(x: Floats, t: float | Floats, condition: NDArray[Any] | None) -> list[Any]:
    """Time, and the condition where there is one, as MLX arrays."""
    times = mx.array(np.full(len(x), t, np.float32))
    return [times] if condition is None else [times, mx.array(condition)]


def _array(value: Any) -> Floats:
    return np.array(value.astype(mx.float32))
