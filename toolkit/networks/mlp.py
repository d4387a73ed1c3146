"""h <- h + W2 silu(W1 norm(h) + E e): residual layers on the flattened sample; e is time and condition.

For points in the plane, robot actions and other short vectors; a context (L, D) is flattened.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from .conditioning import conditioning
from .sizes import Sizes


def mlp(layers: Any, sizes: Sizes) -> Any:
    """The network as a module of the framework behind `layers`."""
    return _network(layers)(sizes)


@lru_cache(maxsize=4)
def _network(layers: Any) -> Any:
    class Block(layers.Module):  # type: ignore[misc]
        """(h, e) -> h + W2 silu(W1 norm(h) + E e)."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.first = layers.Linear(width, 2 * width)
            self.condition = layers.Linear(width, 2 * width)
            self.second = layers.Linear(2 * width, width)

        def forward(self, h: Any, e: Any) -> Any:
            inner = self.first(layers.normalise(h)) + self.condition(e)
            return h + self.second(layers.silu(inner))

    class Mlp(layers.Module):  # type: ignore[misc]
        """(x, time, condition) -> prediction, float32 (B, *shape)."""

        def __init__(self, sizes: Sizes) -> None:
            super().__init__()
            self._shape, self._size, self._flat = sizes.shape, sizes.size, None
            if len(sizes.condition.shape) == 2:
                length, depth = sizes.condition.shape
                self._flat = length * depth
                flat = replace(sizes.condition, shape=(self._flat,))
            else:
                flat = sizes.condition
            self.conditioning = conditioning(layers)(replace(sizes, condition=flat))
            self.enter = layers.Linear(sizes.size, sizes.width)
            self.blocks = layers.modules([Block(sizes.width) for _ in range(sizes.depth)])
            self.leave = layers.Linear(sizes.width, sizes.size)

        def forward(self, x: Any, time: Any, condition: Any = None) -> Any:
            if self._flat is not None and condition is not None:
                condition = condition.reshape(-1, self._flat)
            e = self.conditioning(time, self.conditioning.known(time, condition))
            h = self.enter(x.reshape(-1, self._size))
            for block in self.blocks:
                h = block(h, e)
            return self.leave(layers.normalise(h)).reshape(-1, *self._shape)

    return Mlp
