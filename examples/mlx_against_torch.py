"""The model file of an MLX network beside that of its torch twin with the same weights.

    python examples/mlx_against_torch.py                  four networks, each at batch 1 and 8
    python examples/mlx_against_torch.py unet --rounds 20

Printed per network: the largest difference of the outputs, the nodes of either file, the seconds of
either export, and the time of ONNX Runtime on one thread, both files turn by turn, as a ratio.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn
import numpy as np
import onnx
import onnxruntime
import torch
from torch.nn import functional

from export import export_mlx, export_torch
from runtimes.spec import Condition, Spec
from toolkit.networks import NETWORKS, Sizes, layers_mlx, layers_torch

nn: Any = mlx.nn
FREQUENCIES = np.exp(np.linspace(0.0, np.log(300.0), 16)).astype(np.float32)
GROUPS, HEADS = 4, 4


class MlxBlock(nn.Module):
    """h + conv(silu(norm(conv(silu(norm(h))) + time))), channels last."""

    def __init__(self, inputs: int, outputs: int, conv: Any) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs, pytorch_compatible=True)
        self.conv1 = conv(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(32, outputs)
        self.norm2 = nn.GroupNorm(GROUPS, outputs, pytorch_compatible=True)
        self.conv2 = conv(outputs, outputs, 3, padding=1)
        self.skip = conv(inputs, outputs, 1)

    def __call__(self, x: Any, e: Any) -> Any:
        e = self.time(e).reshape(-1, *[1] * (x.ndim - 2), self.norm2.dims)
        h = self.conv1(nn.silu(self.norm1(x))) + e
        return self.skip(x) + self.conv2(nn.silu(self.norm2(h)))


class TorchBlock(torch.nn.Module):
    """The same, channels first."""

    def __init__(self, inputs: int, outputs: int, conv: Any) -> None:
        super().__init__()
        self.norm1 = torch.nn.GroupNorm(GROUPS, inputs)
        self.conv1 = conv(inputs, outputs, 3, padding=1)
        self.time = torch.nn.Linear(32, outputs)
        self.norm2 = torch.nn.GroupNorm(GROUPS, outputs)
        self.conv2 = conv(outputs, outputs, 3, padding=1)
        self.skip = conv(inputs, outputs, 1)

    def forward(self, x: Any, e: Any) -> Any:
        e = self.time(e).reshape(-1, self.norm2.num_channels, *[1] * (x.dim() - 2))
        h = self.conv1(functional.silu(self.norm1(x))) + e
        return self.skip(x) + self.conv2(functional.silu(self.norm2(h)))


class MlxAttention(nn.Module):
    """x + attention of the tokens (B, tokens, width) to each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)

    def __call__(self, x: Any) -> Any:
        _, tokens, width = x.shape
        q, k, v = (
            part.reshape(-1, tokens, HEADS, width // HEADS).swapaxes(1, 2)
            for part in mx.split(self.qkv(self.norm(x)), 3, axis=-1)
        )
        seen = mx.fast.scaled_dot_product_attention(q, k, v, scale=(width // HEADS) ** -0.5)
        return x + self.mix(seen.swapaxes(1, 2).reshape(-1, tokens, width))


class TorchAttention(torch.nn.Module):
    """The same, written out: torch's fused call exports to ten nodes more."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv = torch.nn.LayerNorm(width), torch.nn.Linear(width, 3 * width)
        self.mix = torch.nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        _, tokens, width = x.shape
        q, k, v = (
            part.reshape(-1, tokens, HEADS, width // HEADS).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, dim=-1)
        )
        seen = torch.softmax(q @ k.transpose(-1, -2) * (width // HEADS) ** -0.5, dim=-1) @ v
        return x + self.mix(seen.transpose(1, 2).reshape(-1, tokens, width))


class MlxUnet(nn.Module):
    """Three levels of images (B, H, W, C) with attention on the lowest."""

    def __init__(self, width: int, channels: int = 3) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.down1, self.down2 = (MlxBlock(width * k, width * 2, nn.Conv2d) for k in (1, 2))
        self.halve1, self.halve2 = (
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1) for _ in range(2)
        )
        self.middle = MlxBlock(2 * width, 2 * width, nn.Conv2d)
        self.attention = MlxAttention(2 * width)
        self.up2, self.up1 = (MlxBlock(4 * width, width * k, nn.Conv2d) for k in (2, 1))
        self.norm = nn.GroupNorm(GROUPS, width, pytorch_compatible=True)
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        self.larger = nn.Upsample(2)

    def __call__(self, x: Any, time: Any) -> Any:
        e = mlx_waves(time)
        first = self.down1(self.enter(x), e)
        second = self.down2(self.halve1(first), e)
        low = self.middle(self.halve2(second), e)
        b, h, w, c = low.shape
        low = self.attention(low.reshape(b, h * w, c)).reshape(b, h, w, c)
        up = self.up2(mx.concatenate([self.larger(low), second], axis=-1), e)
        up = self.up1(mx.concatenate([self.larger(up), first], axis=-1), e)
        return self.leave(nn.silu(self.norm(up)))


class TorchUnet(torch.nn.Module):
    """The same, channels first inside."""

    def __init__(self, width: int, channels: int = 3) -> None:
        super().__init__()
        conv = torch.nn.Conv2d
        self.enter = conv(channels, width, 3, padding=1)
        self.down1, self.down2 = (TorchBlock(width * k, width * 2, conv) for k in (1, 2))
        self.halve1, self.halve2 = (
            conv(2 * width, 2 * width, 3, stride=2, padding=1) for _ in range(2)
        )
        self.middle = TorchBlock(2 * width, 2 * width, conv)
        self.attention = TorchAttention(2 * width)
        self.up2, self.up1 = (TorchBlock(4 * width, width * k, conv) for k in (2, 1))
        self.norm = torch.nn.GroupNorm(GROUPS, width)
        self.leave = conv(width, channels, 3, padding=1)
        self.larger = torch.nn.Upsample(scale_factor=2)

    def forward(self, x: Any, time: Any) -> Any:
        e = torch_waves(time)
        first = self.down1(self.enter(x.permute(0, 3, 1, 2)), e)
        second = self.down2(self.halve1(first), e)
        low = self.middle(self.halve2(second), e)
        b, c, h, w = low.shape
        tokens = self.attention(low.reshape(b, c, h * w).transpose(1, 2))
        low = tokens.transpose(1, 2).reshape(b, c, h, w)
        up = self.up2(torch.cat([self.larger(low), second], dim=1), e)
        up = self.up1(torch.cat([self.larger(up), first], dim=1), e)
        return self.leave(functional.silu(self.norm(up))).permute(0, 2, 3, 1)


class MlxVideo(nn.Module):
    """Videos (B, T, H, W, C): convolutions in space and time, attention along time."""

    def __init__(self, width: int, channels: int = 3) -> None:
        super().__init__()
        self.enter = nn.Conv3d(channels, width, 3, padding=1)
        self.first, self.last = (MlxBlock(width, width, nn.Conv3d) for _ in range(2))
        self.attention = MlxAttention(width)
        self.leave = nn.Conv3d(width, channels, 3, padding=1)

    def __call__(self, x: Any, time: Any) -> Any:
        e = mlx_waves(time)
        h = self.first(self.enter(x), e)
        b, t, y, z, c = h.shape
        along = self.attention(h.transpose(0, 2, 3, 1, 4).reshape(-1, t, c))
        h = along.reshape(b, y, z, t, c).transpose(0, 3, 1, 2, 4)
        return self.leave(nn.silu(self.last(h, e)))


class TorchVideo(torch.nn.Module):
    """The same, channels first inside."""

    def __init__(self, width: int, channels: int = 3) -> None:
        super().__init__()
        conv = torch.nn.Conv3d
        self.enter = conv(channels, width, 3, padding=1)
        self.first, self.last = (TorchBlock(width, width, conv) for _ in range(2))
        self.attention = TorchAttention(width)
        self.leave = conv(width, channels, 3, padding=1)

    def forward(self, x: Any, time: Any) -> Any:
        e = torch_waves(time)
        h = self.first(self.enter(x.permute(0, 4, 1, 2, 3)), e)
        b, c, t, y, z = h.shape
        along = self.attention(h.permute(0, 3, 4, 2, 1).reshape(-1, t, c))
        h = along.reshape(b, y, z, t, c).permute(0, 4, 3, 1, 2)
        return self.leave(functional.silu(self.last(h, e))).permute(0, 2, 3, 4, 1)


def mlx_waves(time: Any) -> Any:
    """(B,) -> (B, 32)."""
    angles = time[:, None] * mx.array(FREQUENCIES)
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)


def torch_waves(time: Any) -> Any:
    """The same."""
    angles = time[:, None] * torch.from_numpy(FREQUENCIES)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def convolutional(mine: Any, theirs: Any, spec: Spec, width: int) -> tuple[Any, Any, Spec]:
    """(MLX, torch, spec) with torch's weights in both; kernels (out, in, ...) and (out, ..., in)."""
    twin, module = theirs(width), mine(width)
    weights = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    module.load_weights(
        [
            (name, mx.array(np.moveaxis(a, 1, -1).copy() if a.ndim > 3 else a))
            for name, a in weights.items()
        ]
    )
    return module, twin, spec


def ours(network: str, width: int, depth: int) -> tuple[Any, Any, Spec]:
    """(MLX, torch, spec) of a network of `toolkit.networks`, with the same drawn weights."""
    labels = Condition("label", classes=10)
    sizes = Sizes((8, 8, 1), labels, width, depth, HEADS, (2, 2))
    twins = [NETWORKS[network](layers, sizes) for layers in (layers_mlx, layers_torch)]
    rng = np.random.default_rng(0)
    arrays = {
        name: (rng.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)
        for name, shape in layers_torch.shapes(twins[1]).items()
    }
    for layers, twin in zip((layers_mlx, layers_torch), twins, strict=True):
        layers.fill(twin, arrays)
    return twins[0], twins[1], Spec(network, sizes.shape, condition=labels)


def exported(folder: Path, twins: tuple[Any, Any, Spec]) -> tuple[list[Path], list[float]]:
    """(files, seconds): MLX's and torch's."""
    module, twin, spec = twins
    files, seconds = [folder / "mlx.onnx", folder / "torch.onnx"], []
    for file, export, network in zip(
        files, (export_mlx, export_torch), (module, twin), strict=True
    ):
        start = time.perf_counter()
        export(network, spec, file)
        seconds.append(time.perf_counter() - start)
    return files, seconds


def compared(files: list[Path], spec: Spec, batch: int, rounds: int) -> tuple[float, list[float]]:
    """(largest difference of the outputs, least CPU seconds of a call of each), turn by turn.

    Every file is opened twice, first and second, because memory placed well is worth a few percent.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened: list[dict[int, Any]] = [
        {
            which: onnxruntime.InferenceSession(
                files[which], options, providers=["CPUExecutionProvider"]
            )
            for which in order
        }
        for order in ((0, 1), (1, 0))
    ]
    rng = np.random.default_rng(1)
    feeds: dict[str, Any] = {
        "x": rng.standard_normal((batch, *spec.shape)).astype(np.float32),
        "time": np.linspace(0.1, 0.9, batch).astype(np.float32),
    }
    if spec.condition.kind == "label":
        feeds["label"] = np.arange(batch) % 10
    mine, theirs = (opened[0][which].run(None, feeds)[0] for which in (0, 1))
    least = [float("inf")] * 2
    for k in range(rounds):
        for which in (0, 1) if k % 4 < 2 else (1, 0):
            start = time.process_time()
            opened[k % 2][which].run(None, feeds)
            least[which] = min(least[which], time.process_time() - start)
    return float(np.abs(mine - theirs).max()), least


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", help=", ".join(TWINS))
    parser.add_argument("--rounds", type=int, default=200, help="calls of each file and batch")
    chosen = parser.parse_args()
    for name in chosen.names or TWINS:
        twins = TWINS[name]()
        with tempfile.TemporaryDirectory() as folder:
            files, seconds = exported(Path(folder), twins)
            nodes = [len(onnx.load_model_from_string(f.read_bytes()).graph.node) for f in files]
            print(f"{name}: nodes MLX {nodes[0]}, torch {nodes[1]}; "
                  f"export {seconds[0]:.2f} s, {seconds[1]:.2f} s")  # fmt: skip
            for batch in (1, 8):
                error, (mine, theirs) = compared(files, twins[2], batch, chosen.rounds)
                print(f"  batch {batch}: difference {error:.1e}, {mine * 1e3:.2f} ms and "
                      f"{theirs * 1e3:.2f} ms, ratio {mine / theirs:.3f}")  # fmt: skip


# full sizes are a number of channels; tests use small ones
TWINS: dict[str, Callable[..., tuple[Any, Any, Spec]]] = {
    "mlp": lambda width=512, depth=4: ours("mlp", width, depth),
    "dit": lambda width=384, depth=6: ours("dit", width, depth),
    "unet": lambda width=64: convolutional(MlxUnet, TorchUnet, Spec("u", (16, 16, 3)), width),
    "video": lambda width=32: convolutional(MlxVideo, TorchVideo, Spec("v", (6, 8, 8, 3)), width),
}

if __name__ == "__main__":
    main()
