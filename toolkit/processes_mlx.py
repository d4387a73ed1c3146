"""Which device, and which of the processes that mlx.launch started; one alone without it."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from runtimes.choices import choose
from toolkit.processes import Processes

DEVICES = ("auto", "cpu", "gpu")
# how mlx.launch says where the others are, beside MLX_HOSTFILE: jaccl, nccl, mpi
LAUNCHED = ("MLX_IBV_DEVICES", "MLX_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE")
SLOW = 0.2  # of numpy's speed at a product of two matrices


def processes() -> Processes:
    """What mlx.launch says about this process; only then are the others met, once and for good."""
    hosts = os.environ.get("MLX_HOSTFILE")
    ring = hosts is not None and Path(hosts).read_text().strip()  # empty for one alone
    if not ring and not any(os.environ.get(name) for name in LAUNCHED):
        return Processes()
    group = mx.distributed.init(strict=True)  # not strict, each would train alone
    return Processes(group.rank(), group.size(), group.rank())


def pick_device(name: str) -> mx.Device:
    """The device of that name; auto is gpu where there is one. ValueError if it is not there."""
    choose("device", name, DEVICES)
    there = mx.is_available(mx.gpu)
    if name == "gpu" and not there:
        raise ValueError("device: expected cpu here, got 'gpu'; leave it at auto")
    return mx.Device(mx.gpu if there and name != "cpu" else mx.cpu, 0)


def average(ours: Processes, gradients: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Each gradient's mean over all processes."""
    if ours.world == 1:
        return dict(gradients)
    return dict(tree_flatten(nn.average_gradients(dict(gradients))))  # it cuts names at their dots


def anybody(ours: Processes, asked: bool) -> bool:
    """Whether any of the processes was asked."""
    return asked if ours.world == 1 else bool(mx.distributed.all_sum(mx.array(float(asked))) > 0.0)


def advice(device: str) -> str:
    """What to do where MLX multiplies matrices at less than SLOW of numpy's speed, or nothing.

    MLX for Linux brings the reference BLAS, one to four GFLOP/s; any other in its place is faster.
    """
    if sys.platform != "linux" or pick_device(device).type != mx.cpu or not processes().first:
        return ""
    a = np.ones((256, 256), np.float32)
    with mx.stream(mx.cpu):
        b = mx.array(a)
        mine, numpys = _seconds(lambda: mx.eval(b @ b)), _seconds(lambda: a @ a)
    if numpys > SLOW * mine:
        return ""
    return (
        f"MLX multiplies matrices at {numpys / mine:.0%} of numpy's speed here: apt-get install "
        "libopenblas0 and start with LD_PRELOAD=libopenblas.so.0"
    )


def _seconds(multiply: Callable[[], object]) -> float:
    """The best of three, for the first one loads what it needs."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - started)
    return min(times)
