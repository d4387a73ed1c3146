"""Which device, and which of the processes that torchrun started: RANK, LOCAL_RANK and WORLD_SIZE."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
import torch.distributed.nn.functional  # first imported later, it would hold a group as a default

from runtimes.choices import choose
from toolkit.processes import Processes

DEVICES = ("auto", "cpu", "cuda", "mps")


@contextmanager
def together(ours: Processes, device: torch.device) -> Iterator[None]:
    """Meet the other processes for the length of a run; nothing to do for one alone.

    A thread of gloo that still runs when Python ends aborts the process, now and then (pytorch#179291).
    They end with the last reference to the group: let go of what `wrap` returned before this ends.
    """
    mine = ours.world > 1 and not torch.distributed.is_initialized()
    if mine:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        if mine:
            torch.distributed.destroy_process_group()
            gc.collect()  # DistributedDataParallel stands in cycles


def wrap(ours: Processes, module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The module with gradients averaged over all processes."""
    if ours.world == 1:
        return module
    places = [device] if device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(module, device_ids=places)


def mean(ours: Processes, values: torch.Tensor) -> list[float]:
    """The mean over all processes of each of a few numbers."""
    if ours.world > 1:
        torch.distributed.all_reduce(values)
        values = values / ours.world
    return [float(value) for value in values.tolist()]


def anybody(ours: Processes, device: torch.device, asked: bool) -> bool:
    """Whether any of the processes was asked."""
    (share,) = mean(ours, torch.tensor([float(asked)], device=device))
    return share > 0.0


def processes() -> Processes:
    """What torchrun says about this process; one alone without it."""
    rank, local, world = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))
    )
    return Processes(rank, world, local)


def pick_device(name: str, ours: Processes) -> torch.device:
    """The device of that name; auto is cuda, else mps, else cpu. ValueError if it is not there."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    choose("device", name, DEVICES)
    name = next(one for one in there if there[one]) if name == "auto" else name
    if not there[name]:
        have = ", ".join(one for one in there if there[one])
        raise ValueError(f"device: expected one of {have} here, got {name!r}; leave it at auto")
    return torch.device(name, ours.local) if name == "cuda" else torch.device(name)
