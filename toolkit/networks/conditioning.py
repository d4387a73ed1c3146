"""One vector per row from its time and its condition: e = mlp(features(t)) + embedding(condition).

features(t) = [sin(w_k t), cos(w_k t)] with frequencies w_k evenly spaced in their logarithm, from slow
enough to tell 0 from 1 to fast enough to tell 0.99 from 1 (Vaswani et al. 2017, section 3.5).
"""

from functools import lru_cache
from typing import Any

import numpy as np

from .sizes import Sizes

FREQUENCIES = np.exp(np.linspace(0.0, np.log(300.0), 32)).astype(np.float32)


@lru_cache(maxsize=4)
def conditioning(layers: Any) -> Any:
    """The class of the module, over a namespace of layers."""

    class Conditioning(layers.Module):  # type: ignore[misc]
        """(time, condition) -> (B, width). A context (L, D) is left to the network: it has tokens."""

        def __init__(self, sizes: Sizes) -> None:
            super().__init__()
            self._condition = condition = sizes.condition
            self._frequencies = layers.constant(FREQUENCIES)
            self.first = layers.Linear(2 * len(FREQUENCIES), sizes.width)
            self.second = layers.Linear(sizes.width, sizes.width)
            if condition.kind == "label":
                self.table = layers.Embedding(condition.classes + 1, sizes.width)
            elif len(condition.shape) == 1:
                self.context = layers.Linear(condition.shape[0], sizes.width)

        def forward(self, time: Any, condition: Any) -> Any:
            angles = time.reshape(-1, 1) * self._frequencies
            waves = layers.concatenate([layers.sin(angles), layers.cos(angles)], 1)
            e = self.second(layers.silu(self.first(waves)))
            if self._condition.kind == "label":
                e = e + self.table(condition)
            elif len(self._condition.shape) == 1:
                e = e + self.context(condition)
            return layers.silu(e)

        def known(self, time: Any, condition: Any) -> Any:
            """The condition, or where it is None the null one: label `classes`, a context of zeros."""
            kind, shape = self._condition.kind, self._condition.shape
            if condition is not None or kind == "none":
                return condition
            if kind == "label":
                return layers.labels(time.shape[0], self._condition.classes, time)
            return layers.full(time.shape[0], shape, 0.0, time)

    return Conditioning
