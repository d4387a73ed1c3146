"""A training run in memory <-> its checkpoints: what is saved, restored, compared and loaded.

Nothing but the step, the weights, their average and the optimiser's moments needs to be saved, for
everything random comes from (seed, step).
"""

import hashlib
import json
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
    """Put the run where the checkpoint left it. Raises ValueError if an array is missing."""
    shapes = layers_torch.shapes(run.module)
    network, average = (_arrays(run.out, checkpoint, part, shapes) for part in ("network", "ema"))
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
    """The trained network of a run folder in eval mode, and its spec. which: ema or network."""
    choose("weights", which, ("ema", "network"))
    place = pick_device(device, Processes())
    checkpoint = checkpoints.latest(folder)
    spec = spec_from_json((folder / "spec.json").read_text(encoding="utf-8"))
    recipe = _recipe(folder, checkpoint)
    sizes = networks.sizes_of(recipe, spec.shape, spec.condition)
    with torch.device("meta"):  # a stranger's sizes cost nothing before the arrays have shown them
        shapes = layers_torch.shapes(networks.NETWORKS[recipe.network](layers_torch, sizes))
    arrays = _arrays(folder, checkpoint, which, shapes)
    module = networks.make(recipe, sizes)
    layers_torch.fill(module, arrays)
    return module.requires_grad_(False).to(place).eval(), spec


def _recipe(folder: Path, checkpoint: Checkpoint) -> Recipe:
    """The recipe a checkpoint was trained with; ValueError for one of another trainer."""
    facts = checkpoint.facts
    if not isinstance(facts.get("recipe"), dict) or not isinstance(facts.get("made_with"), dict):
        raise ValueError(
            f"{folder}: expected a checkpoint of 'toolkit train', got one without a recipe; train again"
        )
    return recipes.from_json(json.dumps(facts["recipe"]))


def _arrays(
    folder: Path, checkpoint: Checkpoint, part: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[Any]]:
    """The arrays of one part, exactly those that the network has; else ValueError names the first."""
    arrays = checkpoint.part(part)
    found = {name: array.shape for name, array in arrays.items() if array.dtype == np.float32}
    for name in (*shapes, *arrays):
        if name not in found or found[name] != shapes.get(name):
            raise ValueError(
                f"{folder}: expected {part}/{name} {shapes.get(name, 'not')} in the checkpoint, "
                f"got {found.get(name, 'none')}; train again"
            )
    return arrays


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
    different = recipes.first_difference(recipe, _recipe(out, checkpoint))
    if facts.get("framework") != "torch":
        different = ("framework", "torch", facts.get("framework"))
    elif different is None and facts.get("data") != _digest(data):
        before = str(facts.get("data"))[:12]
        different = ("data", f"rows with SHA-256 {_digest(data)[:12]}", before)
    if different is not None:
        name, mine, before = different
        raise ValueError(
            f"{name}: expected {before!r} as in {out}, got {mine!r}; "
            "resume with the same or train in another folder"
        )
    old, new = facts["made_with"], _made_with(device, ours)
    others = [f"{k} {old.get(k)} before, {v} now" for k, v in new.items() if old.get(k) != v]
    if others:
        warnings.warn(f"not bit-exact: {'; '.join(others)} ({out})", stacklevel=3)


def _made_with(device: torch.device, ours: Processes) -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processes": ours.world,
    }


def _digest(data: Data) -> str:
    digest = hashlib.sha256(f"{data.x.shape} {data.classes} {data.step}".encode())
    for array in (data.x, data.y):
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
