"""A training run in memory <-> its checkpoints: what is saved, restored, compared and loaded.

Nothing but the step, the weights, their average and the optimiser's moments needs to be saved, for
everything random comes from (seed, step).
"""

import hashlib
import json
import warnings
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtimes.choices import choose
from runtimes.spec import Spec
from runtimes.spec import from_json as spec_from_json
from toolkit import checkpoints, networks
from toolkit import recipe as recipes
from toolkit.checkpoints import Checkpoint
from toolkit.data import Data
from toolkit.networks import layers_torch
from toolkit.processes_torch import Processes, pick_device
from toolkit.recipe import Recipe

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Run:
    """A training run in memory: what a checkpoint restores, and where it runs."""

    recipe: Recipe
    data: Data
    out: Path
    device: torch.device
    ours: Processes
    module: torch.nn.Module
    network: torch.nn.Module  # the module, or DistributedDataParallel around it
    average: dict[str, Tensor]
    optimiser: torch.optim.AdamW
    step: int = 0
    mean_loss: float = 0.0
    clock: deque[float] = field(default_factory=lambda: deque(maxlen=50))


def snapshot(run: Run) -> Checkpoint:
    """The run as it is now."""
    tensors = {}
    for name, weight in run.module.named_parameters():
        moments = run.optimiser.state[weight]
        tensors[f"network/{name}"] = weight.detach()
        tensors[f"ema/{name}"] = run.average[name]
        tensors |= {f"optimiser/{k}/{name}": moments[k] for k in MOMENTS if k in moments}
    facts = {"framework": "torch", "recipe": asdict(run.recipe), "data": _digest(run.data)}
    facts |= {"mean_loss": run.mean_loss, "made_with": _made_with(run.device, run.ours)}
    return Checkpoint(
        run.step, {name: tensor.cpu().numpy() for name, tensor in tensors.items()}, facts
    )


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put the run where the checkpoint left it."""
    layers_torch.fill(run.module, checkpoint.part("network"))
    average, moments = checkpoint.part("ema"), checkpoint.part("optimiser")
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
    """The trained network of a run folder in eval mode, and its spec. which: ema or network."""
    choose("weights", which, ("ema", "network"))
    place = pick_device(device, Processes())
    checkpoint = checkpoints.latest(folder)
    spec = spec_from_json((folder / "spec.json").read_text(encoding="utf-8"))
    recipe = recipes.from_json(json.dumps(checkpoint.facts["recipe"]))
    sizes = networks.sizes_of(recipe, spec.shape, spec.condition)
    module, arrays = networks.make(recipe, sizes), checkpoint.part(which)
    found = {name: array.shape for name, array in arrays.items()}
    for name, shape in layers_torch.shapes(module).items():
        if found.get(name) != shape:
            raise ValueError(
                f"{folder}: expected {which}/{name} {shape} in the checkpoint, "
                f"got {found.get(name, 'none')}; train again"
            )
    layers_torch.fill(module, arrays)
    return module.requires_grad_(False).to(place).eval(), spec


def check_same(
    recipe: Recipe,
    data: Data,
    out: Path,
    checkpoint: Checkpoint,
    device: torch.device,
    ours: Processes,
) -> None:
    """ValueError for another framework, recipe or data; a warning for another machine."""
    facts = checkpoint.facts
    theirs = recipes.from_json(json.dumps(facts["recipe"]))
    different = recipes.first_difference(recipe, theirs)
    if facts["framework"] != "torch":
        different = ("framework", "torch", facts["framework"])
    elif different is None and facts["data"] != _digest(data):
        different = ("data", f"rows with SHA-256 {_digest(data)[:12]}", facts["data"][:12])
    if different is not None:
        name, mine, before = different
        raise ValueError(
            f"{name}: expected {before!r} as in {out}, got {mine!r}; "
            "resume with the same or train in another folder"
        )
    for name, mine in _made_with(device, ours).items():
        before = facts["made_with"].get(name)
        if before != mine:
            warnings.warn(
                f"{out}: expected {name} {before} as before, got {mine}; "
                "it goes on, but not bit for bit",
                stacklevel=3,
            )


def _made_with(device: torch.device, ours: Processes) -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processes": ours.world,
    }


def _digest(data: Data) -> str:
    digest = hashlib.sha256(f"{data.x.shape} {data.classes} {data.step}".encode())
    for array in (data.x, data.y):
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
