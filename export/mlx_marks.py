"""Calls of MLX that arrive whole in a trace, so that nothing has to be fused again.

    out -> mx.depends(out, [arguments ..., tag])

The value is unchanged and gradients pass. The tag numbers a `Mark` with what the call was; the exporter
writes one operator from the arguments, and the steps that MLX made of the call are not needed. Code
that holds its own reference (from mlx.nn import gelu) is traced step by step: still right. The calls
are replaced where they stand, so one program is traced at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn
from mlx.nn.layers import activations, pooling

nn: Any = mlx.nn  # its stubs do not name what it imports


@dataclass(frozen=True)
class Mark:
    """A marked call: a name of the exporter's table and what is no array."""

    kind: str
    arguments: dict[str, Any]


FIRST_TAG = 1_818_321_000  # a number that nobody else's mx.depends depends on
Record = dict[int, Mark]
Call = tuple[str, dict[str, Any], list[mx.array]]  # kind, arguments, arrays


def layer_norm(x: mx.array, weight: Any, bias: Any, eps: float) -> Call:
    """mx.fast.layer_norm."""
    arrays = [a for a in (weight, bias) if a is not None]
    there = {"weight": weight is not None, "bias": bias is not None}
    return "layer_norm", {"eps": eps, **there}, [x, *arrays]


def rms_norm(x: mx.array, weight: Any, eps: float) -> Call:
    """mx.fast.rms_norm."""
    return "rms_norm", {"eps": eps}, [x] if weight is None else [x, weight]


def attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: Any = None,
    sinks: Any = None,
    **_: Any,
) -> Call | None:
    """mx.fast.scaled_dot_product_attention without sinks; heads of q may share one of k and v."""
    if sinks is not None or q.ndim != 4:
        return None
    arrays = [mask] if isinstance(mask, mx.array) else []
    causal = isinstance(mask, str)
    return "attention", {"scale": scale, "causal": causal}, [q, k, v, *arrays]


def gelu(x: mx.array) -> Call:
    """nn.gelu."""
    return "gelu", {"approximate": "none"}, [x]


def gelu_approx(x: mx.array) -> Call:
    """nn.gelu_approx."""
    return "gelu", {"approximate": "tanh"}, [x]


def gelu_layer(layer: Any, x: mx.array) -> Call | None:
    """nn.GELU; its fast form has no operator of its own."""
    words = {"none": "none", "precise": "tanh", "tanh": "tanh"}
    word = words.get(layer._approx)
    return None if word is None else ("gelu", {"approximate": word}, [x])


def group_norm(layer: Any, x: mx.array) -> Call | None:
    """nn.GroupNorm in the order of channels that ONNX knows."""
    if not layer.pytorch_compatible or x.ndim < 3:
        return None
    return "group_norm", {"groups": layer.num_groups, "eps": layer.eps}, [x, *_affine(layer)]


def instance_norm(layer: Any, x: mx.array) -> Call | None:
    """nn.InstanceNorm: every channel is a group."""
    if x.ndim < 3:
        return None
    return "group_norm", {"groups": x.shape[-1], "eps": layer.eps}, [x, *_affine(layer)]


def batch_norm(layer: Any, x: mx.array) -> Call | None:
    """nn.BatchNorm with the statistics it has kept."""
    if layer.training or not layer.track_running_stats:
        return None
    arrays = [x, layer.running_mean, layer.running_var, *_affine(layer)]
    return "batch_norm", {"eps": layer.eps}, arrays


def _affine(layer: Any) -> list[mx.array]:
    return [layer.weight, layer.bias] if "weight" in layer else []


def upsample(layer: Any, x: mx.array) -> Call | None:
    """nn.Upsample: by whole factors if nearest, without antialiasing."""
    scale, dims = layer.scale_factor, x.ndim - 2
    scales = scale if isinstance(scale, tuple) else (scale,) * dims
    whole = all(s == int(s) for s in scales)
    cubic = layer.mode == "cubic" and dims != 2
    if layer.antialias or cubic or not whole or not mx.issubdtype(x.dtype, mx.floating):
        return None
    return "upsample", {"scales": scales, "mode": layer.mode, "corners": layer.align_corners}, [x]


def pool(layer: Any, x: mx.array) -> Call | None:
    """nn.MaxPool1d ... nn.AvgPool3d."""
    if not mx.issubdtype(x.dtype, mx.floating):
        return None
    maximum = layer._padding_value != 0
    return (
        "pool",
        {
            "maximum": maximum,
            "kernel": tuple(layer._kernel_size),
            "stride": tuple(layer._stride),
            "pads": tuple(tuple(pair) for pair in layer._padding),
        },
        [x],
    )


def quantized_embedding(layer: Any, x: mx.array) -> Call:
    """nn.QuantizedEmbedding: rows of the table without its quantisation."""
    numbers = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
    table = mx.dequantize(layer.weight, layer.scales, layer.get("biases"), **numbers)
    mx.eval(table)
    return "embedding", {}, [x, table]


def contiguous(x: mx.array, allow_col_major: bool = False, *, stream: Any = None) -> mx.array:
    """mx.contiguous, which MLX cannot export: the same numbers."""
    return x


@contextmanager
def marked(record: Record | None) -> Iterator[None]:
    """The calls of `MARKS` marked and written into the record; None: unmarked."""
    before = [(owner, name, owner.__dict__[name]) for owner, name, _ in MARKS]
    before.append((mx, "contiguous", mx.contiguous))
    try:
        mx.contiguous = contiguous
        if record is not None:
            for (owner, name, call), (_, _, plain) in zip(MARKS, before, strict=False):
                setattr(owner, name, _wrapper(plain, call, record))
        yield
    finally:
        for owner, name, plain in before:
            setattr(owner, name, plain)


def _wrapper(
    plain: Callable[..., Any], call: Callable[..., Call | None], record: Record
) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        named.pop("stream", None)  # all is traced on one
        out = plain(*arguments, **named)
        seen = call(*arguments, **named)
        if seen is None:
            return out
        kind, rest, arrays = seen
        tag = FIRST_TAG + len(record)
        record[tag] = Mark(kind, rest)
        return mx.depends([out], [*arrays, mx.array(tag, mx.int32)])[0]

    return wrapped


# (where it stands, its name, what it is): every place that code looks it up at
MARKS: tuple[tuple[Any, str, Callable[..., Call | None]], ...] = (
    (mx.fast, "layer_norm", layer_norm),
    (mx.fast, "rms_norm", rms_norm),
    (mx.fast, "scaled_dot_product_attention", attention),
    (nn, "gelu", gelu),
    (nn, "gelu_approx", gelu_approx),
    (activations, "gelu", gelu),
    (activations, "gelu_approx", gelu_approx),
    (nn.GELU, "__call__", gelu_layer),
    (nn.GroupNorm, "__call__", group_norm),
    (nn.InstanceNorm, "__call__", instance_norm),
    (nn.BatchNorm, "__call__", batch_norm),
    (nn.Upsample, "__call__", upsample),
    (nn.QuantizedEmbedding, "__call__", quantized_embedding),
    (pooling._Pool, "__call__", pool),
)
