"""A torch run in memory <-> its checkpoints: what is saved, restored and loaded.

Nothing but the step, the weights, their average and the optimiser's moments needs to be saved, for
everything random comes from (seed, step).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtimes.spec import Spec
from toolkit import networks, runs
from toolkit.checkpoints import Checkpoint
from toolkit.networks import Sizes, layers_torch
from toolkit.processes import Processes
from toolkit.processes_torch import pick_device
from toolkit.recipe import Recipe

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(kw_only=True)
class Run(runs.Run):
    """A training run in memory: what a checkpoint restores, and where it runs."""

    device: torch.device
    module: torch.nn.Module
    network: torch.nn.Module  # the module, or DistributedDataParallel around it
    average: dict[str, Tensor]
    optimiser: torch.optim.AdamW


def arrays_of(run: Run) -> dict[str, NDArray[Any]]:
    """The arrays of the run as it is now."""
    tensors = {}
    for name, weight in run.module.named_parameters():
        moments = run.optimiser.state[weight]
        tensors[f"network/{name}"] = weight.detach()
        tensors[f"ema/{name}"] = run.average[name]
        tensors |= {f"optimiser/{k}/{name}": moments[k] for k in MOMENTS if k in moments}
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put the run where the checkpoint left it. Raises ValueError if an array is missing."""
    shapes = layers_torch.shapes(run.module)
    network, average = (
        runs.arrays_in(run.out, checkpoint, part, shapes) for part in ("network", "ema")
    )
    moments = checkpoint.part("optimiser")
    layers_torch.fill(run.module, network)
    run.average = {name: torch.from_numpy(average[name]).to(run.device) for name in run.average}
    run.step, run.mean_loss = checkpoint.step, checkpoint.facts["mean_loss"]
    for name, weight in run.module.named_parameters():
        state: dict[str, Any] = {
            moment: torch.from_numpy(moments[f"{moment}/{name}"]).to(run.device)
            for moment in MOMENTS
            if f"{moment}/{name}" in moments
        }
        if state:  # at step 0 there is none yet
            place = run.device if run.optimiser.defaults["fused"] else "cpu"
            state["step"] = torch.tensor(float(run.step), device=place)
            run.optimiser.state[weight] = state


def load(folder: Path, *, which: str = "ema", device: str = "cpu") -> tuple[torch.nn.Module, Spec]:
    """The trained network of a run folder in eval mode, and its spec. which: ema or network.

    Whether torch or MLX trained it: the arrays have the same names.
    """
    place = pick_device(device, Processes())
    recipe, sizes, spec, arrays = runs.open_run(folder, which, _shapes)
    module = networks.make(recipe, sizes)
    layers_torch.fill(module, arrays)
    return module.requires_grad_(False).to(place).eval(), spec


def made_with(device: torch.device, ours: Processes) -> dict[str, Any]:
    """What the bits of a run depend on beside its recipe and data."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processes": ours.world,
    }


def _shapes(recipe: Recipe, sizes: Sizes) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):  # no memory
        return layers_torch.shapes(networks.NETWORKS[recipe.network](layers_torch, sizes))
