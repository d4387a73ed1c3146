"""h <- h + g a(norm(h) (1 + s) + b): a transformer whose (s, b, g) come from time and condition.

The diffusion transformer with adaLN-zero (Peebles & Xie 2023, section 3.2): every gate g starts at 0,
so the network starts as the identity. One design for points (N, C), images (H, W, C) and videos
(T, H, W, C): all axes but the last are cut into patches and every patch is a token with one learned
position per axis. A label or a context (D,) joins the time; a context (L, D) joins the tokens.
"""

from functools import lru_cache
from typing import Any

from .conditioning import conditioning
from .sizes import Sizes


def dit(layers: Any, sizes: Sizes) -> Any:
    """The network as a module of the framework behind `layers`."""
    return _network(layers)(sizes)


def to_tokens(layers: Any, x: Any, shape: tuple[int, ...], patch: tuple[int, ...]) -> Any:
    """(B, *shape) -> (B, tokens, patch * C), one axis at a time so that no tensor passes rank 5."""
    sizes, channels = list(shape[:-1]), shape[-1]
    for axis in reversed(range(len(sizes))):
        n, p, rest = sizes[axis] // patch[axis], patch[axis], _product(sizes[axis + 1 :])
        if p > 1 and rest > 1:
            x = layers.swap(x.reshape(-1, n, p, rest, channels), 2, 3)
        sizes[axis], channels = n, channels * p
    return x.reshape(-1, _product(sizes), channels)


def from_tokens(layers: Any, x: Any, shape: tuple[int, ...], patch: tuple[int, ...]) -> Any:
    """The inverse of `to_tokens`."""
    sizes = [n // p for n, p in zip(shape[:-1], patch, strict=True)]
    channels = shape[-1] * _product(patch)
    for axis in range(len(sizes)):
        p, rest = patch[axis], _product(sizes[axis + 1 :])
        channels //= p
        if p > 1 and rest > 1:
            x = layers.swap(x.reshape(-1, sizes[axis], rest, p, channels), 2, 3)
        sizes[axis] *= p
    return x.reshape(-1, *shape)


def _product(numbers: Any) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product


@lru_cache(maxsize=4)
def _block(layers: Any) -> Any:
    class Block(layers.Module):  # type: ignore[misc]
        """Attention and an MLP on (B, tokens, width), both scaled, shifted and gated by e (B, width)."""

        def __init__(self, sizes: Sizes) -> None:
            super().__init__()
            width = sizes.width
            self._heads = sizes.heads
            self.modulation = layers.Linear(width, 6 * width)
            self.qkv = layers.Linear(width, 3 * width)
            self.mix = layers.Linear(width, width)
            self.first = layers.Linear(width, 4 * width)
            self.second = layers.Linear(4 * width, width)

        def forward(self, h: Any, e: Any) -> Any:
            width = h.shape[-1]
            numbers = self.modulation(e).reshape(-1, 1, 6 * width)
            scale, shift, gate, scale2, shift2, gate2 = layers.split(numbers, 6)
            h = h + gate * self.attend(layers.normalise(h) * (scale + 1.0) + shift)
            inner = self.first(layers.normalise(h) * (scale2 + 1.0) + shift2)
            return h + gate2 * self.second(layers.silu(inner))

        def attend(self, h: Any) -> Any:
            """Every token looks at every other."""
            tokens, width = h.shape[1], h.shape[2]
            q, k, v = (
                layers.swap(part.reshape(-1, tokens, self._heads, width // self._heads), 1, 2)
                for part in layers.split(self.qkv(h), 3)
            )
            seen = layers.swap(layers.attention(q, k, v), 1, 2)
            return self.mix(seen.reshape(-1, tokens, width))

    return Block


@lru_cache(maxsize=4)
def _network(layers: Any) -> Any:
    class Dit(layers.Module):  # type: ignore[misc]
        """(x, time, condition) -> prediction, float32 (B, *shape)."""

        def __init__(self, sizes: Sizes) -> None:
            super().__init__()
            self._shape, self._patch, width = sizes.shape, sizes.patches, sizes.width
            self._grid = [n // p for n, p in zip(sizes.shape[:-1], self._patch, strict=True)]
            numbers = sizes.shape[-1] * _product(self._patch)
            self.conditioning = conditioning(layers)(sizes)
            self.enter = layers.Linear(numbers, width)
            self.positions = layers.parameters([(n, width) for n in self._grid])
            context = sizes.condition.shape
            self._context = len(context) == 2
            if self._context:
                self.context = layers.Linear(context[1], width)
                self.context_positions = layers.parameters([(context[0], width)])
            self.blocks = layers.modules([_block(layers)(sizes) for _ in range(sizes.depth)])
            self.modulation = layers.Linear(width, 2 * width)
            self.leave = layers.Linear(width, numbers)

        def forward(self, x: Any, time: Any, condition: Any = None) -> Any:
            condition = self.conditioning.known(time, condition)
            e = self.conditioning(time, condition)
            h = self.place(self.enter(to_tokens(layers, x, self._shape, self._patch)))
            tokens = h.shape[1]
            if self._context:
                h = layers.concatenate([h, self.context(condition) + self.context_positions[0]], 1)
            for block in self.blocks:
                h = block(h, e)
            scale, shift = layers.split(self.modulation(e).reshape(-1, 1, 2 * h.shape[2]), 2)
            h = layers.normalise(h[:, :tokens]) * (scale + 1.0) + shift
            return from_tokens(layers, self.leave(h), self._shape, self._patch)

        def place(self, h: Any) -> Any:
            """h + sum over the axes of the position along that axis."""
            if not self._grid:
                return h
            total: Any = 0.0
            for axis, table in enumerate(self.positions):
                along = [n if axis == other else 1 for other, n in enumerate(self._grid)]
                total = total + table.reshape(*along, -1)
            return h + total.reshape(1, h.shape[1], -1)

    return Dit
