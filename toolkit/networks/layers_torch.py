"""The layers that networks are written in, on torch; layers_mlx.py has the same names on MLX.

Arrays are used by the networks with + and *, indexing and .reshape, which both frameworks have, and
with the functions here. Lists of modules and parameters carry the same names in both frameworks:
`blocks.0.first.weight`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import layer_norm, silu

from .shapes import refuse_misfit

__all__ = ["Module", "silu"]


class Linear(torch.nn.Linear):
    """W x + b on the last axis; zero until `fill`, so that building draws no random numbers."""

    def reset_parameters(self) -> None:
        """W = 0, b = 0."""
        torch.nn.init.zeros_(self.weight)
        torch.nn.init.zeros_(self.bias)


class Embedding(torch.nn.Embedding):
    """One row of a table per label; zero until `fill`."""

    def reset_parameters(self) -> None:
        """All rows 0."""
        torch.nn.init.zeros_(self.weight)


def parameters(shapes: Sequence[tuple[int, ...]]) -> torch.nn.ParameterList:
    """A list of trained arrays of these shapes."""
    return torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(shape)) for shape in shapes])


def modules(parts: Sequence[Module]) -> torch.nn.ModuleList:
    """A list of modules."""
    return torch.nn.ModuleList(parts)


def constant(values: NDArray[np.float32]) -> torch.nn.Buffer:
    """An array that moves with the module but is neither trained nor saved; name it with a `_`."""
    return torch.nn.Buffer(torch.from_numpy(values), persistent=False)


def normalise(x: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-5) over the last axis."""
    return layer_norm(x, x.shape[-1:])


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v on (B, heads, tokens, d)."""
    if torch.compiler.is_exporting():  # the fused call exports to ten nodes more, 12 % slower
        weights = torch.softmax((q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5, dim=-1)
        return weights @ v
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def swap(x: Tensor, a: int, b: int) -> Tensor:
    """x with axes a and b exchanged."""
    return x.transpose(a, b)


def split(x: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Equal parts of the last axis."""
    return x.chunk(parts, dim=-1)


def concatenate(parts: Sequence[Tensor], axis: int) -> Tensor:
    """The parts one after the other along an axis."""
    return torch.cat(list(parts), dim=axis)


def sin(x: Tensor) -> Tensor:
    """sin(x)."""
    return torch.sin(x)


def cos(x: Tensor) -> Tensor:
    """cos(x)."""
    return torch.cos(x)


def full(rows: int, shape: tuple[int, ...], value: float, like: Tensor) -> Tensor:
    """(rows, *shape) of one value, of the dtype and on the device of `like`."""
    return like.new_full((rows, *shape), value)


def labels(rows: int, value: int, like: Tensor) -> Tensor:
    """int64 (rows,) of one label, on the device of `like`."""
    return torch.full((rows,), value, dtype=torch.int64, device=like.device)


def shapes(module: Module) -> dict[str, tuple[int, ...]]:
    """The shape of every trained array by its name."""
    return {name: tuple(array.shape) for name, array in module.named_parameters()}


def fill(module: Module, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy these arrays into the module; their names must be exactly the module's."""
    refuse_misfit(shapes(module), arrays)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
