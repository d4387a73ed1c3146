"""Networks, each written once over a small namespace of layers and built for torch or for MLX.

    module = build(recipe, data)        # a torch.nn.Module with its first weights
    prediction = module(x, time, condition)

x float32 (B, *shape), channels last; time float32 (B,); condition int64 (B,) with `classes` as the null
label, float32 (B, D) or (B, L, D) with zeros as the null context, or None for the null one.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtimes.spec import Condition

from .dit import dit
from .mlp import mlp
from .sizes import Sizes

if TYPE_CHECKING:
    from toolkit.data import Data
    from toolkit.recipe import Recipe

__all__ = ["NETWORKS", "Sizes", "build", "condition_of", "first_weights", "make", "sizes_of"]

ZEROS = ("modulation", "leave")  # layers that start at zero: adaLN-zero, and no output at first


def build(recipe: "Recipe", data: "Data", layers: Any = None) -> Any:
    """The network of a recipe for that data, on torch unless another namespace of layers is given."""
    return make(recipe, sizes_of(recipe, data.shape, condition_of(data)), layers)


def make(recipe: "Recipe", sizes: Sizes, layers: Any = None) -> Any:
    """The network of that recipe with these sizes and the first weights of the recipe's seed."""
    if layers is None:
        from . import layers_torch as layers

    module = NETWORKS[recipe.network](layers, sizes)
    layers.fill(module, first_weights(layers.shapes(module), recipe.seed))
    return module


def sizes_of(recipe: "Recipe", shape: tuple[int, ...], condition: Condition) -> Sizes:
    """The sizes that a recipe asks for, checked against the shape of a sample."""
    return Sizes(shape, condition, recipe.width, recipe.depth, recipe.heads, recipe.patch)


def condition_of(data: "Data") -> Condition:
    """What a sample of that data is conditioned on."""
    if data.condition == "label":
        return Condition("label", classes=data.classes, names=data.label_names)
    if data.condition == "context" and data.y is not None:
        return Condition("context", shape=data.y.shape[1:])
    return Condition()


def first_weights(
    shapes: Mapping[str, tuple[int, ...]], seed: int
) -> dict[str, NDArray[np.float32]]:
    """Matrices U(-1, 1) sqrt(3 / inputs), tables N(0, 1) * 0.1, biases and `ZEROS` 0.

    An array depends on the seed, its name and its shape only: torch and MLX start alike.
    """
    return {name: _first(name, shape, seed) for name, shape in shapes.items()}


def _first(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    *_, layer, kind = name.split(".")
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if kind == "bias" or layer in ZEROS:
        return np.zeros(shape, np.float32)
    if kind != "weight" or layer == "table":
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    return (rng.uniform(-1.0, 1.0, shape) * np.sqrt(3.0 / shape[-1])).astype(np.float32)


NETWORKS: dict[str, Callable[[Any, Sizes], Any]] = {
    "mlp": mlp,
    "dit": dit,
}
