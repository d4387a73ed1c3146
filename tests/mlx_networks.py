"""MLX networks that nobody tuned the exporter for: name -> (spec, how to make the module)."""

from functools import partial

import mlx.core as mx
import mlx.nn as nn

from runtimes.spec import Condition, Sampler, Spec

from .mlx_programs import attend, drawn


def waves(time, width):
    """(B,) -> (B, width)."""
    angles = time[:, None] * mx.exp(mx.linspace(0, 4, width // 2))
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)


class Convolutional(nn.Module):
    """Somebody's small image network under every kind of condition."""

    def __init__(self, condition):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 2, 3, padding=1)
        self.label = nn.Embedding(condition.classes + 1, 8)
        self.context = nn.Linear(condition.shape[-1] if condition.shape else 1, 8)

    def __call__(self, x, time, condition=None):
        h = self.first(x) + time[:, None, None, None]
        if condition is not None and condition.dtype == mx.int64:
            h = h + self.label(condition)[:, None, None]
        elif condition is not None:
            pooled = condition if condition.ndim == 2 else condition.mean(1)
            h = h + self.context(pooled)[:, None, None]
        return self.last(nn.silu(h))


class Video(nn.Module):
    """Convolutions in space and time, one that halves and one that doubles, attention along time."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv3d(3, 8, 3, padding=1)
        self.time = nn.Linear(8, 8)
        self.norm = nn.GroupNorm(4, 8, pytorch_compatible=True)
        self.halve = nn.Conv3d(8, 8, 3, stride=(1, 2, 2), padding=1)
        self.along = nn.MultiHeadAttention(8, 2)
        self.double = nn.ConvTranspose3d(8, 8, (1, 2, 2), stride=(1, 2, 2))
        self.leave = nn.Conv3d(16, 3, 3, padding=1)

    def __call__(self, x, time):
        first = self.enter(x) + self.time(waves(time, 8))[:, None, None, None]
        low = nn.leaky_relu(self.halve(nn.silu(self.norm(first))))
        b, t, h, w, c = low.shape
        tokens = low.transpose(0, 2, 3, 1, 4).reshape(b * h * w, t, c)
        tokens = tokens + self.along(tokens, tokens, tokens)
        low = tokens.reshape(b, h, w, t, c).transpose(0, 3, 1, 2, 4)
        return self.leave(mx.concatenate([first, self.double(low)], axis=-1))


class Points(nn.Module):
    """Points that see each other where a mask of the context allows it, and their distances."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(3 + 8, 16)
        self.norms = [nn.RMSNorm(16), nn.LayerNorm(16)]
        self.qkv = nn.Linear(16, 48)
        self.mix = nn.Linear(16, 16)
        self.wide, self.narrow = nn.Linear(16, 64), nn.Linear(32, 16)
        self.leave = nn.Linear(16, 3)

    def __call__(self, x, time, context):
        there = context > 0
        e = mx.broadcast_to(waves(time, 8)[:, None], (*x.shape[:2], 8))
        h = self.enter(mx.concatenate([x, e], axis=-1))
        far = mx.sqrt(((x[:, :, None] - x[:, None]) ** 2).sum(-1) + 1e-4)
        mask = mx.where(there[:, None, None, :], -far[:, None], -1e9)
        q, k, v = mx.split(self.qkv(self.norms[0](h)), 3, axis=-1)
        q, k, v = (part.reshape(*part.shape[:2], 4, 4).swapaxes(1, 2) for part in (q, k, v))
        seen = attend(q, k, v, scale=0.5, mask=mask).swapaxes(1, 2)
        h = h + self.mix(seen.reshape(h.shape))
        h = h + self.narrow(nn.glu(self.wide(self.norms[1](h))))
        middle = (x * there[..., None]).sum(1, keepdims=True) / mx.maximum(there.sum(1), 1)[
            :, None, None
        ]
        return self.leave(h) * there[..., None] + (x - middle)  # fmt: skip


class Unet(nn.Module):
    """Two levels with GroupNorm in both orders of channels, attention, pooling and up-sampling."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(2, 8), nn.GroupNorm(4, 16, pytorch_compatible=True)
        self.down, self.time = nn.Conv2d(8, 16, 3, padding=1), nn.Linear(8, 32)
        self.pool, self.larger = nn.AvgPool2d(2), nn.Upsample(2, "linear")
        self.see = nn.MultiHeadAttention(16, 4)
        self.up, self.still = nn.Conv2d(24, 8, 3, padding=1), nn.BatchNorm(8)
        self.leave = nn.Conv2d(8, 3, 1)

    def __call__(self, x, time):
        first = nn.gelu(self.norm1(self.enter(x)))
        scale, shift = mx.split(self.time(waves(time, 8))[:, None, None], 2, axis=-1)
        low = nn.silu(self.norm2(self.down(self.pool(first))) * (1 + scale) + shift)
        b, h, w, c = low.shape
        tokens = low.reshape(b, h * w, c)
        low = (tokens + self.see(tokens, tokens, tokens)).reshape(b, h, w, c)
        up = self.up(mx.concatenate([self.larger(low), first], axis=-1))
        return self.leave(nn.relu(self.still(up)))


def fast(weight, x, time):
    """A function, no module: mx.fast, rotary positions and compiled pieces."""

    @mx.compile
    def gate(a, b):
        return nn.silu(a) * b

    @partial(mx.compile, shapeless=True)
    def shifted(x, time):
        return x + mx.cos(time)[:, None, None]

    h = mx.fast.rms_norm(shifted(x, time) @ weight, mx.ones(16), 1e-5)
    h = h.reshape(-1, 6, 2, 8).swapaxes(1, 2)
    turned = mx.fast.rope(h, 8, traditional=False, base=100.0, scale=1.0, offset=0)
    h = attend(turned, turned[:, :1], h[:, :1], scale=0.35, mask="causal").swapaxes(1, 2)
    h = mx.fast.layer_norm(h.reshape(-1, 6, 16), None, None, 1e-5)
    return gate(h, h[..., ::-1]) @ weight.T


NETWORKS = {
    "video": (Spec("video", (3, 4, 6, 3)), lambda: drawn(Video())),
    "points": (
        Spec("points", (5, 3), condition=Condition("context", shape=(5,))),
        lambda: drawn(Points()),
    ),
    "unet": (Spec("unet", (8, 6, 3)), lambda: drawn(Unet())),
    "fast": (
        Spec("fast", (6, 4)),
        lambda: partial(fast, mx.random.normal((4, 16), key=mx.random.key(1))),
    ),
}
CONDITIONS = {
    "none": Condition(),
    "label": Condition("label", classes=3, names=("a", "b", "c")),
    "context": Condition("context", shape=(5,)),
    "sequence": Condition("context", shape=(4, 5)),
}
NETWORKS |= {
    name: (
        Spec("own", (6, 4, 2), condition=condition, sampler=Sampler("heun", 4, guidance=1.5)),
        partial(lambda condition: drawn(Convolutional(condition)), condition),
    )
    for name, condition in CONDITIONS.items()
}
