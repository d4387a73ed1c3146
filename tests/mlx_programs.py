"""Small MLX functions, one or a few primitives each: name -> (shape of a row, how to make it).

Every function takes x float32 (B, *shape) and returns one array; weights are drawn, so that no bias is
left at zero.
"""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

TOKENS, IMAGE, POINTS = (6, 8), (6, 6, 4), (5, 3)


def attend(q, k, v, **rest):
    """Looked up when called: a reference of one's own is not marked."""
    return mx.fast.scaled_dot_product_attention(q, k, v, **rest)


def drawn(module, seed=0):
    """The module with every array drawn and without dropout."""
    rng = np.random.default_rng(seed)

    def draw(a):
        return mx.array(
            rng.standard_normal(a.shape).astype(np.float32) / max(1, a.shape[-1]) ** 0.5
        )

    module.update(tree_map(draw, module.parameters()))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm):
            part.running_mean = draw(part.running_mean)
            part.running_var = mx.abs(draw(part.running_var)) + 0.5
    mx.eval(module.parameters())
    return module.eval()


def array(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def heads(x):
    """(B, 6, 8) -> (B, 2, 6, 4)."""
    return x.reshape(x.shape[0], 6, 2, 4).transpose(0, 2, 1, 3)


def whole(x):
    """Whole numbers 0 to 9."""
    return (mx.abs(x) * 3).astype(mx.int32) % 10


def cubed(layer, x):
    return (layer(x) ** 3).sum()


def moved(x):
    """Every layout there is on one value, whatever its type."""
    x = mx.concatenate([x, mx.roll(x, 1, axis=1)[:, ::2]], axis=1).swapaxes(1, 2)
    first, second = mx.split(mx.take(x, mx.array([0, 2, 1, 5]), axis=1), 2, axis=1)
    x = mx.stack([first, second], axis=-1)[:, :, 1:, None].reshape(x.shape[0], 2, -1)
    x = mx.take_along_axis(x, mx.broadcast_to(mx.array([[[3, 1, 0]]]), (*x.shape[:2], 3)), axis=2)
    return mx.pad(mx.repeat(x, 2, axis=1), ((0, 0), (1, 0), (0, 2))) | x[:, :1, :1]


def put(x):
    y = x * 1.0
    y[:, 1:4, ::2] = 0.5
    y[:, 0] = x[:, 5]
    return y


def quantised(bits, group):
    linear = drawn(nn.Linear(64, 32))
    return kept(nn.QuantizedLinear.from_linear(linear, group_size=group, bits=bits))


def kept(module):
    mx.eval(module.parameters())
    return module.eval()


UNARY = "abs negative exp sin cos tan sinh cosh tanh arctan arcsinh sigmoid sign floor ceil round square erf"
ACTIVATIONS = (
    "relu relu6 leaky_relu elu celu silu softplus softsign tanh sigmoid selu mish gelu gelu_approx "
    "gelu_fast_approx hardswish hard_tanh hard_shrink softshrink log_sigmoid log_softmax softmax step glu"
)
ELEMENTWISE = {
    **{name: (TOKENS, lambda name=name: getattr(mx, name)) for name in UNARY.split()},
    "log": (TOKENS, lambda: lambda x: mx.log(mx.abs(x) + 1) + mx.log2(mx.abs(x) + 1)),
    "log10": (TOKENS, lambda: lambda x: mx.log10(mx.abs(x) + 1) + mx.log1p(mx.abs(x))),
    "roots": (TOKENS, lambda: lambda x: mx.sqrt(mx.abs(x)) + mx.rsqrt(mx.abs(x) + 1)),
    "expm1": (TOKENS, lambda: mx.expm1),
    "arcs": (TOKENS, lambda: lambda x: mx.arcsin(mx.tanh(x)) + mx.arccos(mx.tanh(x))),
    "arctanh": (TOKENS, lambda: lambda x: mx.arctanh(0.9 * mx.tanh(x))),
    "arccosh": (TOKENS, lambda: lambda x: mx.arccosh(mx.abs(x) + 1.5)),
    "arctan2": (TOKENS, lambda: lambda x: mx.arctan2(x, x[:, ::-1])),
    "add": (TOKENS, lambda: lambda x: x + x[:, :1] - x[:, :, :1]),
    "multiply": (TOKENS, lambda: lambda x: x * x[:, :1] / (mx.abs(x) + 1)),
    "power": (TOKENS, lambda: lambda x: mx.power(mx.abs(x), 1.5) + x**2),
    "maximum": (TOKENS, lambda: lambda x: mx.maximum(x, x[:, ::-1]) + mx.minimum(x, 0.3)),
    "remainder": (TOKENS, lambda: lambda x: x % 0.7 + x // 0.7 + mx.divmod(x, 0.5)[1]),
    "whole remainder": (
        TOKENS,
        lambda: lambda x: (x * 10).astype(mx.int32) % 3 + (x * 10).astype(mx.int32) // 3,
    ),
    "logaddexp": (TOKENS, lambda: lambda x: mx.logaddexp(x, x[:, ::-1])),
    "clip": (TOKENS, lambda: lambda x: mx.clip(x, -1, 1)),
    "finite": (TOKENS, lambda: lambda x: mx.where(mx.isnan(x) | ~mx.isfinite(x / x[:, :1]), 0, x)),
    "comparisons": (
        TOKENS,
        lambda: lambda x: (x > 0) & (x < 1) | (x >= 1.5) | (x <= -1.0) | (x == 0) | (x != x),
    ),
    "array_equal": (TOKENS, lambda: lambda x: x + mx.array_equal(x, x, equal_nan=True)),
    "where": (TOKENS, lambda: lambda x: mx.where(x > 0, x, x * 0.1)),
    "bools": (TOKENS, lambda: lambda x: mx.maximum(mx.where(x > 0, x < 1, x > -1), x > 2)),
    "negative whole": (
        TOKENS,
        lambda: lambda x: mx.abs(-whole(x)) - mx.sign((x * 3).astype(mx.int32)),
    ),
    "choice of whole": (
        TOKENS,
        lambda: lambda x: mx.where(x > 0, whole(x), mx.minimum(whole(x), 3)) ** 2,
    ),
    "compared bools": (TOKENS, lambda: lambda x: (x > 0) < (x > -1)),
    "first true": (TOKENS, lambda: lambda x: mx.argmax(x > 0.5, 1) + mx.cumsum(x > 0, 1)[:, -1]),
    "mask moved": (TOKENS, lambda: lambda x: moved(x > 0)),
    "whole moved": (TOKENS, lambda: lambda x: moved(whole(x))),
    "bits": (TOKENS, lambda: lambda x: (whole(x) & 3) | (whole(x) << 2) | (whole(x) >> 1)),
    "bool bits": (TOKENS, lambda: lambda x: mx.logical_not(x > 0) & (x < 1) ^ (x > 2)),
    "casts": (TOKENS, lambda: lambda x: (x * 3).astype(mx.int32).astype(mx.float32) + (x > 0)),
    "halves": (TOKENS, lambda: lambda x: mx.round(x).astype(mx.float16).astype(mx.bfloat16) * 2),
    "identity": (TOKENS, lambda: lambda x: x),
    "constant": (TOKENS, lambda: lambda x: mx.zeros(x.shape) + mx.arange(8)),
    "logical_and": (TOKENS, lambda: lambda x: mx.logical_and(x > 0, x < 1)),
    "depends": (TOKENS, lambda: lambda x: sum(mx.depends([x * 2, x + 1], [x, mx.array(0)]))),
    "stop_gradient": (TOKENS, lambda: mx.stop_gradient),
    **{
        f"nn.{name}": (TOKENS, lambda name=name: getattr(nn, name)) for name in ACTIVATIONS.split()
    },
    "GELU": (TOKENS, lambda: nn.GELU()),
    "GELU precise": (TOKENS, lambda: nn.GELU("precise")),
    "GELU fast": (TOKENS, lambda: nn.GELU("fast")),
    "PReLU": (TOKENS, lambda: drawn(nn.PReLU(8))),
    "Dropout": (TOKENS, lambda: drawn(nn.Dropout(0.5))),
}
SUMS = {
    "sum": (TOKENS, lambda: lambda x: x.sum(1) + x.max(1) + x.min(1) + x.prod(1)),
    "any": (TOKENS, lambda: lambda x: mx.any(x > 1, 1) + 2.0 * mx.all(x > -1, 1)),
    "count": (TOKENS, lambda: lambda x: (x * (x > 0)).sum(1) / mx.maximum((x > 0).sum(1), 1)),
    "variance": (TOKENS, lambda: lambda x: mx.var(x, -1) + mx.std(x, -1, ddof=1) + 3 * x.mean(-1)),
    "sum of rows": (TOKENS, lambda: lambda x: x + x.sum(0)),
    "mean of rows": (TOKENS, lambda: lambda x: x - x.mean(0, keepdims=True)),
    "mean of all": (TOKENS, lambda: lambda x: x - x.mean()),
    "sum spread": (TOKENS, lambda: lambda x: mx.broadcast_to(x.sum(-1, True), x.shape) * 0.125),
    "sum spread wide": (TOKENS, lambda: lambda x: mx.broadcast_to(x.sum(-1), (2, *x.shape[:2])) * 0.125),
    "sums of whole numbers": (TOKENS, lambda: lambda x: whole(x).sum(1) + whole(x).max(1) + whole(x).prod(1)),
    "norm": (TOKENS, lambda: lambda x: x / mx.linalg.norm(x, axis=-1, keepdims=True)),
    "logsumexp": (TOKENS, lambda: lambda x: mx.logsumexp(x, -1, True) + mx.logsumexp(x, 1, True)),
    "softmax": (TOKENS, lambda: lambda x: mx.softmax(x, -1) + mx.softmax(x, 1) + mx.softmax(x, (1, 2))),
    "argmax": (TOKENS, lambda: lambda x: mx.argmax(x, 1) + mx.argmin(x, -1)[:, :1]),
    "sort": (TOKENS, lambda: lambda x: mx.sort(x, 1) + mx.sort(x, -1)),
    "argsort": (TOKENS, lambda: lambda x: mx.argsort(x, -1)),
    "topk": (TOKENS, lambda: lambda x: mx.sort(mx.topk(x, 3, axis=-1), -1)),
    "argpartition": (TOKENS, lambda: lambda x: mx.sort(mx.argpartition(x, 3, axis=1)[:, :3], 1)),
    "cumsum": (TOKENS, lambda: lambda x: 3 * mx.cumsum(x, 1)),
    "cumsum back": (TOKENS, lambda: lambda x: mx.cumsum(x, 2, reverse=True, inclusive=False)),
}  # fmt: skip
LAYOUTS = {
    "slice": (TOKENS, lambda: lambda x: x[:, 1:5:2, ::-1] + x[:, -2:, :]),
    "last row": (TOKENS, lambda: lambda x: x[-1:] + x),
    "index": (TOKENS, lambda: lambda x: x[..., None, 3] * x[:, 0][:, None, :6]),
    "dynamic slice": (
        TOKENS,
        lambda: lambda x: mx.slice(x, mx.array([1]), axes=[1], slice_size=[x.shape[0], 2, 8]),
    ),
    "pad": (TOKENS, lambda: lambda x: mx.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=2.0)),
    "pad edge": (TOKENS, lambda: lambda x: mx.pad(x, ((0, 0), (1, 2), (2, 0)), mode="edge")),
    "pad transposed": (
        IMAGE,
        lambda: lambda x: mx.pad(x.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (1, 1), (2, 0))),
    ),
    "pad bool": (TOKENS, lambda: lambda x: mx.pad(x > 0, ((0, 0), (1, 0), (0, 0)))),
    "split": (TOKENS, lambda: lambda x: mx.concatenate(mx.split(x, [2, 5], axis=-1)[::-1], axis=-1)),
    "halves of an axis": (TOKENS, lambda: lambda x: mx.concatenate(mx.split(x, 2, axis=1), 2)),
    "stack": (TOKENS, lambda: lambda x: mx.stack([x, x * 2], 1)),
    "repeat": (TOKENS, lambda: lambda x: mx.repeat(x, 2, axis=1) + mx.tile(x, (1, 2, 1))),
    "roll": (TOKENS, lambda: lambda x: mx.roll(x, 1, axis=1) + mx.tril(x) + mx.triu(x, 1)),
    "arange of rows": (TOKENS, lambda: lambda x: x + mx.arange(x.shape[0])[:, None, None]),
    "arange moved": (TOKENS, lambda: lambda x: x + mx.arange(2, 2 + 3 * x.shape[0], 3)[:, None, None]),
    "linspace": (TOKENS, lambda: lambda x: x + mx.linspace(0, 1, 8) + mx.eye(6, 8) + mx.arange(0, 4, 0.5)),
    "ones of rows": (TOKENS, lambda: lambda x: mx.concatenate([x, mx.ones((x.shape[0], 1, 8))], 1)),
    "class token": (
        TOKENS,
        lambda: lambda x: mx.concatenate([mx.broadcast_to(array(1, 1, 8), (x.shape[0], 1, 8)), x], 1),
    ),
    "flatten": (TOKENS, lambda: lambda x: mx.unflatten(x.flatten(1), 1, (8, 6)).swapaxes(1, 2)),
    "rows flattened": (TOKENS, lambda: lambda x: (x.reshape(-1, 8) * 2).reshape(-1, 6, 8)),
    "batch behind": (
        TOKENS,
        lambda: lambda x: mx.softmax(x.swapaxes(0, 1).reshape(6, -1), -1).reshape(6, -1, 8).swapaxes(0, 1),
    ),
    "squeeze": (TOKENS, lambda: lambda x: (x[:, :1].squeeze(1)[:, None, None] * x[:, None]).squeeze(1)),
    "windows": (
        TOKENS,
        lambda: lambda x: mx.as_strided(x, (x.shape[0], 4, 3, 8), (48, 8, 8, 1), 0) + x[:, :1, None],
    ),
    "pixel shuffle": (
        IMAGE,
        lambda: lambda x: x.reshape(-1, 6, 6, 2, 2, 1).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 12, 12, 1),
    ),
    "contiguous": (TOKENS, lambda: lambda x: mx.contiguous(x.swapaxes(1, 2)) * 2),
}  # fmt: skip
PLACES = {
    "take": (TOKENS, lambda: lambda x: mx.take(x, mx.array([0, 2, -1]), axis=1)),
    "take by value": (TOKENS, lambda: lambda x: array(10, 4)[whole(x)]),
    "fancy": (TOKENS, lambda: lambda x: x[:, [0, 2]] + x[:, [1, 3], 1:2]),
    "grid": (TOKENS, lambda: lambda x: x[:, mx.array([[0], [1]]), mx.array([0, 5])]),
    "take_along_axis": (TOKENS, lambda: lambda x: mx.take_along_axis(x, mx.argsort(x, 1), 1)),
    "put_along_axis": (
        TOKENS,
        lambda: lambda x: mx.put_along_axis(x, mx.argmax(x, -1, keepdims=True), mx.array(0.0), -1),
    ),
    "put": (TOKENS, lambda: put),
    "at slice": (TOKENS, lambda: lambda x: x.at[:, 1:3].add(2.0)),
    "at rows": (TOKENS, lambda: lambda x: x.at[:, mx.array([0, 0, 3])].add(1.0)),
    "at maximum": (TOKENS, lambda: lambda x: x.at[:, mx.array([0, 1])].maximum(0.5)),
    "Embedding": (TOKENS, lambda: partial(lambda table, x: table(whole(x)), drawn(nn.Embedding(10, 4)))),
    "tied": ((3, 4), lambda: drawn(nn.Embedding(10, 4)).as_linear),
    "QuantizedEmbedding": (
        TOKENS,
        lambda: partial(lambda table, x: table(whole(x)), kept(nn.QuantizedEmbedding(10, 64, 32, 4))),
    ),
    "nearest": (
        POINTS,
        lambda: lambda x: mx.take_along_axis(
            x, mx.argmin(((x[:, :, None] - x[:, None]) ** 2).sum(-1) + 9 * mx.eye(5), -1)[..., None], axis=1
        ),
    ),
}  # fmt: skip
PRODUCTS = {
    "matmul": (TOKENS, lambda: lambda x: x @ array(8, 5)),
    "matmul of values": (TOKENS, lambda: lambda x: x @ x.swapaxes(1, 2)),
    "matmul of many": (TOKENS, lambda: lambda x: x[:, None] @ array(1, 3, 8, 5)),
    "matmul of vectors": (TOKENS, lambda: lambda x: x @ array(8) + x[:, :, 0] @ array(6, 1)),
    "addmm": (TOKENS, lambda: lambda x: mx.addmm(array(5), x, array(8, 5), alpha=0.5, beta=2.0)),
    "addmm of rows": (TOKENS, lambda: lambda x: mx.addmm(x[:, 0, :5] * 2, x[:, 1], array(8, 5))),
    "addmm of all": (TOKENS, lambda: lambda x: mx.addmm((x * 2)[:, :, :5], x, array(8, 5))),
    "einsum": (TOKENS, lambda: lambda x: mx.einsum("bij,jk,bkl->bil", x, array(8, 8), x.swapaxes(1, 2))),
    "inner": (TOKENS, lambda: lambda x: mx.inner(x, array(5, 8)) + mx.tensordot(x, array(8, 5), 1)),
    "outer": (TOKENS, lambda: lambda x: x[:, :, None] * x[:, None]),
    "Linear": (TOKENS, lambda: drawn(nn.Linear(8, 5))),
    "Linear on rows": ((8,), lambda: drawn(nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 8)))),
    "Bilinear": ((8,), lambda: partial(lambda layer, x: layer(x, x[:, ::-1]), drawn(nn.Bilinear(8, 8, 5)))),
    "pairs": (POINTS, lambda: lambda x: mx.linalg.norm(x[:, :, None] - x[:, None] + 1e-3, axis=-1)),
    "cross": (POINTS, lambda: lambda x: mx.linalg.cross(x, x[:, ::-1])),
    **{
        f"QuantizedLinear {bits} bit by {group}": ((3, 64), partial(quantised, bits, group))
        for bits, group in ((4, 32), (4, 64), (8, 32), (8, 64), (2, 64), (3, 32), (6, 64))
    },
}  # fmt: skip
CONVOLUTIONS = {
    name: ((7,) * d + (4,), make)
    for d, convolve, turn in (
        (1, nn.Conv1d, nn.ConvTranspose1d),
        (2, nn.Conv2d, nn.ConvTranspose2d),
        (3, nn.Conv3d, nn.ConvTranspose3d),
    )
    for name, make in {
        f"conv{d}": lambda c=convolve: drawn(c(4, 6, 3, padding=1)),
        f"conv{d} strided": lambda c=convolve: drawn(c(4, 6, 3, stride=2, padding=1)),
        f"conv{d} dilated": lambda c=convolve: drawn(
            c(4, 6, 3, dilation=2, padding=2, bias=False)
        ),
        f"conv{d} twice": lambda c=convolve: drawn(
            nn.Sequential(c(4, 6, 3, padding=1), nn.ReLU(), c(6, 4, 1))
        ),
        f"transposed{d}": lambda t=turn: drawn(t(4, 6, 3, stride=2, padding=1)),
        f"transposed{d} output padding": lambda t=turn: drawn(
            t(4, 6, 3, stride=2, padding=1, output_padding=1)
        ),
        f"transposed{d} larger": lambda t=turn: drawn(t(4, 6, 3, stride=2, output_padding=1)),
        f"transposed{d} dilated": lambda t=turn: drawn(t(4, 6, 4, dilation=2, bias=False)),
    }.items()
} | {
    "conv1 groups": ((7, 4), lambda: drawn(nn.Conv1d(4, 6, 3, groups=2))),
    "conv2 groups": (IMAGE, lambda: drawn(nn.Conv2d(4, 6, 3, groups=2))),
    "conv2 by channel": (IMAGE, lambda: drawn(nn.Conv2d(4, 4, 3, groups=4, padding=1))),
    "conv2 uneven": (
        IMAGE,
        lambda: lambda x: mx.conv_general(x, array(6, 3, 3, 4), padding=([1, 0], [2, 1])),
    ),
    "conv2 flipped": (IMAGE, lambda: lambda x: mx.conv_general(x, array(6, 3, 2, 4), flip=True)),
    "conv2 dilated input": (
        IMAGE,
        lambda: lambda x: mx.conv_general(x, array(6, 3, 3, 4), input_dilation=2, padding=1),
    ),
    "transposed2 groups": (
        (5, 5, 4),
        lambda: lambda x: mx.conv_transpose2d(x, array(6, 3, 3, 2), stride=2, groups=2),
    ),
    "bias by value": (
        IMAGE,
        lambda: partial(
            lambda c, x: c(x) + x[:, :1, :1], drawn(nn.Conv2d(4, 4, 3, padding=1, bias=False))
        ),
    ),
    "used twice": (
        IMAGE,
        lambda: partial(
            lambda c, x: c(x) * (c(x) + array(4)), drawn(nn.Conv2d(4, 4, 3, bias=False))
        ),
    ),
    **{
        f"{kind} {mode}{' corners' if corners else ''}": (
            IMAGE,
            lambda mode=mode, corners=corners: nn.Upsample(2, mode, align_corners=corners),
        )
        for kind in ("upsample",)
        for mode in ("nearest", "linear", "cubic")
        for corners in (False, True)
    },
    "upsample 1": ((5, 2), lambda: nn.Upsample(3, "linear")),
    "upsample 3": ((3, 3, 3, 2), lambda: nn.Upsample(2, "linear")),
    "upsample uneven": (IMAGE, lambda: nn.Upsample((2, 3))),
    "upsample by 1.5": (IMAGE, lambda: nn.Upsample(1.5)),
    "upsample between by 1.5": (IMAGE, lambda: nn.Upsample(1.5, "linear")),
    "upsample antialiased": (IMAGE, lambda: nn.Upsample(2.0, "linear", antialias=True)),
    "MaxPool2d": (IMAGE, lambda: nn.MaxPool2d(2)),
    "MaxPool2d overlapping": (IMAGE, lambda: nn.MaxPool2d(3, 2, 1)),
    "MaxPool3d": ((4, 4, 4, 2), lambda: nn.MaxPool3d(2, 1)),
    "AvgPool1d": (TOKENS, lambda: nn.AvgPool1d(2)),
    "AvgPool2d": (IMAGE, lambda: nn.AvgPool2d(3, 2, 1)),
}
LAYERS = {
    "LayerNorm": (TOKENS, lambda: drawn(nn.LayerNorm(8))),
    "LayerNorm bare": (TOKENS, lambda: drawn(nn.LayerNorm(8, affine=False))),
    "LayerNorm without bias": (TOKENS, lambda: drawn(nn.LayerNorm(8, bias=False))),
    "layer_norm of a bias": (TOKENS, lambda: lambda x: mx.fast.layer_norm(x, None, array(8), 1e-5)),
    "RMSNorm": (TOKENS, lambda: drawn(nn.RMSNorm(8))),
    "rms_norm bare": (TOKENS, lambda: lambda x: mx.fast.rms_norm(x, None, 1e-5)),
    "GroupNorm": (IMAGE, lambda: drawn(nn.GroupNorm(2, 4))),
    "GroupNorm of torch": (IMAGE, lambda: drawn(nn.GroupNorm(2, 4, pytorch_compatible=True))),
    "GroupNorm of tokens": (TOKENS, lambda: drawn(nn.GroupNorm(4, 8, pytorch_compatible=True))),
    "GroupNorm of volumes": ((3, 4, 5, 4), lambda: drawn(nn.GroupNorm(2, 4, pytorch_compatible=True))),
    "GroupNorm bare": (IMAGE, lambda: nn.GroupNorm(2, 4, affine=False, pytorch_compatible=True)),
    "InstanceNorm": (IMAGE, lambda: nn.InstanceNorm(4)),
    "InstanceNorm affine": (IMAGE, lambda: drawn(nn.InstanceNorm(4, affine=True))),
    "BatchNorm": (IMAGE, lambda: drawn(nn.BatchNorm(4))),
    "BatchNorm of rows": ((4,), lambda: drawn(nn.BatchNorm(4))),
    "BatchNorm bare": ((3, 4), lambda: drawn(nn.BatchNorm(4, affine=False))),
    "attention": (TOKENS, lambda: lambda x: attend(heads(x), heads(x * 2), heads(x), scale=0.5)),
    "attention merged": (
        TOKENS,
        lambda: lambda x: attend(heads(x), heads(x * 2), heads(x), scale=0.5).swapaxes(1, 2).reshape(x.shape),
    ),
    "attention causal": (
        TOKENS,
        lambda: lambda x: attend(heads(x), heads(x * 2), heads(x), scale=0.5, mask="causal"),
    ),
    "attention behind": (
        TOKENS,
        lambda: lambda x: attend(heads(x)[:, :, 3:], heads(x), heads(x), scale=0.5, mask="causal"),
    ),
    "attention seen": (
        TOKENS,
        lambda: lambda x: attend(heads(x), heads(x), heads(x), scale=0.5, mask=mx.tril(mx.ones((6, 6))) > 0),
    ),
    "attention by row": (
        TOKENS,
        lambda: lambda x: attend(heads(x), heads(x), heads(x), scale=0.5, mask=x[:, None, None, :, 0] > 0.7),
    ),
    "attention added": (
        TOKENS,
        lambda: lambda x: attend(heads(x), heads(x), heads(x), scale=0.5, mask=array(1, 1, 6)),
    ),
    "attention shared": (
        TOKENS,
        lambda: lambda x: attend(heads(x), heads(x)[:, :1], heads(x)[:, 1:], scale=0.5),
    ),
    "attention by reference": (
        TOKENS,
        lambda: partial(
            lambda attend, x: attend(heads(x), heads(x * 2), heads(x), scale=0.5),
            mx.fast.scaled_dot_product_attention,
        ),
    ),
    "attention sinks": (
        TOKENS,
        lambda: lambda x: attend(heads(x), heads(x), heads(x), scale=0.5, sinks=array(2)),
    ),
    "MultiHeadAttention": (
        TOKENS,
        lambda: partial(lambda layer, x: layer(x, x, x), drawn(nn.MultiHeadAttention(8, 2))),
    ),
    "MultiHeadAttention causal": (
        TOKENS,
        lambda: partial(lambda layer, x: layer(
            x, x, x, nn.MultiHeadAttention.create_additive_causal_mask(6)
        ), drawn(nn.MultiHeadAttention(8, 2))),
    ),
    "TransformerEncoder": (
        TOKENS,
        lambda: partial(lambda layer, x: layer(x, None), drawn(nn.TransformerEncoder(2, 8, 2))),
    ),
    "GRU": (TOKENS, lambda: drawn(nn.GRU(8, 5))),
    "LSTM": (TOKENS, lambda: partial(lambda layer, x: layer(x)[0], drawn(nn.LSTM(8, 5)))),
    "RNN": (TOKENS, lambda: drawn(nn.RNN(8, 5))),
    "RoPE": (TOKENS, lambda: nn.RoPE(8)),
    "SinusoidalPositionalEncoding": (TOKENS, lambda: nn.SinusoidalPositionalEncoding(8)),
    "compiled": (TOKENS, lambda: mx.compile(lambda x: mx.sin(x) * x + nn.gelu(x))),
    "vmap": (TOKENS, lambda: mx.vmap(lambda row: mx.softmax(row @ array(8, 5), -1))),
    "vmap of a mark": (TOKENS, lambda: mx.vmap(nn.LayerNorm(8, affine=False))),
    "grad": (TOKENS, lambda: mx.grad(lambda x: (mx.tanh(x @ array(8, 5)) ** 2).sum())),
    "grad of a mark": (TOKENS, lambda: mx.grad(partial(cubed, drawn(nn.LayerNorm(8))))),
    "grad of a convolution": (
        IMAGE,
        lambda: mx.grad(partial(cubed, drawn(nn.Conv2d(4, 6, 3, padding=1)))),
    ),
    "grad of a strided one": (
        IMAGE,
        lambda: mx.grad(partial(cubed, drawn(nn.Conv2d(4, 6, 3, stride=2, padding=1)))),
    ),
}  # fmt: skip
PROGRAMS = ELEMENTWISE | SUMS | LAYOUTS | PLACES | PRODUCTS | CONVOLUTIONS | LAYERS
