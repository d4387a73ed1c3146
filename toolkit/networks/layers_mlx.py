"""The layers that networks are written in, on MLX; layers_torch.py has the same names on torch.

An mlx.nn.Module keeps lists as they are, so a list of modules or of arrays is a plain list here and
its arrays have the names that torch's lists give them: `blocks.0.first.weight`.
"""

from collections.abc import Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.nn import silu
from mlx.utils import tree_flatten, tree_unflatten
from numpy.typing import NDArray

from .shapes import refuse_misfit

__all__ = ["silu"]


class Module(nn.Module):
    """An mlx.nn.Module that is called through `forward`, as torch's are."""

    def __call__(self, *given: mx.array) -> mx.array:
        """forward(*given)."""
        answer: mx.array = self.forward(*given)
        return answer


class Linear(nn.Linear):
    """W x + b on the last axis; zero until `fill`, so that building draws no random numbers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        nn.Module.__init__(self)
        self.weight = mx.zeros((outputs, inputs))
        self.bias = mx.zeros((outputs,))

    def __call__(self, x: mx.array) -> mx.array:
        """In the type of the weights, as under torch's autocast: x float32 would make all of it so."""
        return super().__call__(x.astype(self.weight.dtype))


class Embedding(nn.Embedding):
    """One row of a table per label; zero until `fill`."""

    def __init__(self, rows: int, width: int) -> None:
        nn.Module.__init__(self)
        self.weight = mx.zeros((rows, width))


def parameters(shapes: Sequence[tuple[int, ...]]) -> list[mx.array]:
    """A list of trained arrays of these shapes."""
    return [mx.zeros(shape) for shape in shapes]


def modules(parts: Sequence[nn.Module]) -> list[nn.Module]:
    """A list of modules."""
    return list(parts)


def constant(values: NDArray[np.float32]) -> mx.array:
    """An array that is neither trained nor saved, once it is named with a `_`."""
    return mx.array(values)


def normalise(x: mx.array) -> mx.array:
    """(x - mean) / sqrt(variance + 1e-5) over the last axis."""
    return mx.fast.layer_norm(x, None, None, 1e-5)


def attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """softmax(q k^T / sqrt(d)) v on (B, heads, tokens, d)."""
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5)


def swap(x: mx.array, a: int, b: int) -> mx.array:
    """x with axes a and b exchanged."""
    return mx.swapaxes(x, a, b)


def split(x: mx.array, parts: int) -> tuple[mx.array, ...]:
    """Equal parts of the last axis."""
    return tuple(mx.split(x, parts, axis=-1))


def concatenate(parts: Sequence[mx.array], axis: int) -> mx.array:
    """The parts one after the other along an axis."""
    return mx.concatenate(list(parts), axis=axis)


def sin(x: mx.array) -> mx.array:
    """sin(x)."""
    return mx.sin(x)


def cos(x: mx.array) -> mx.array:
    """cos(x)."""
    return mx.cos(x)


def full(rows: int, shape: tuple[int, ...], value: float, like: mx.array) -> mx.array:
    """(rows, *shape) of one value, of the dtype of `like`."""
    return mx.full((rows, *shape), value, like.dtype)


def labels(rows: int, value: int, like: mx.array) -> mx.array:
    """int64 (rows,) of one label; `like` says on which device in torch, MLX's memory is shared."""
    return mx.full((rows,), value, mx.int64)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every trained array by its name."""
    return {name: tuple(array.shape) for name, array in flat(module).items()}


def fill(module: nn.Module, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy these arrays into the module; their names must be exactly the module's."""
    refuse_misfit(shapes(module), arrays)
    module.load_weights([(name, mx.array(array)) for name, array in arrays.items()])


def flat(module: nn.Module) -> dict[str, mx.array]:
    """Every trained array by its name."""
    return dict(tree_flatten(module.parameters()))


def call(module: nn.Module, arrays: Mapping[str, mx.array], given: Sequence[mx.array]) -> mx.array:
    """module(*given) with these arrays for its own, as torch.func.functional_call has it."""
    own = flat(module)
    try:
        module.update(tree_unflatten(list(arrays.items())))
        return module(*given)
    finally:
        module.update(tree_unflatten(list(own.items())))
