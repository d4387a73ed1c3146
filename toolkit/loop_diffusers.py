"""diffusers' loop around a network: its schedulers make the steps, from our noise and over our times.

    sigma = 1 - t        their flow prediction = noise - data = -velocity

so of our paths they know the linear one, with a network that predicts velocity. What they return is
what our solver of the same name returns, but for rounding: tests/test_diffusers.py has every step.
"""

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import runtimes
from export.torch_model import TorchModel
from runtimes.conditions import null_condition
from runtimes.guidance import Network, guided
from runtimes.sample import Plan, Sampleable
from runtimes.session import Floats, Model
from runtimes.spec import Spec

with warnings.catch_warnings(), contextlib.redirect_stderr(None):  # of what else it could import
    warnings.simplefilter("ignore")
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler


def knows(spec: Spec) -> bool:
    """Whether their schedulers walk this path with what this network predicts."""
    return (spec.schedule, spec.prediction) == ("linear", "velocity")


def around_file(model: Model) -> Network:
    """(x, t, condition) -> velocity by a model file, torch tensors in and out as optimum does it."""

    def call(x: Tensor, t: float, condition: Tensor | None) -> Tensor:
        told = None if condition is None else condition.numpy()
        return torch.from_numpy(model.network(x.numpy(), t, told))

    return call


def around_torch(model: TorchModel) -> Network:
    """The same by a torch module, which takes and gives tensors anyway."""

    def call(x: Tensor, t: float, condition: Tensor | None) -> Tensor:
        told = () if condition is None else (condition,)
        with torch.no_grad():
            return model.module(x, torch.full((len(x),), t), *told)

    return call


def loop(
    solver: str, velocity: Callable[[Tensor, float], Tensor], x: Tensor, times: Sequence[float]
) -> Tensor:
    """The last state from x, the noise, over `times` from 0 to 1. solver: one of `SCHEDULERS`."""
    scheduler = SCHEDULERS[solver]()
    with warnings.catch_warnings():  # one of theirs hands torch tensors to numpy
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(len(times) - 1)
    scheduler.sigmas = 1.0 - torch.tensor(times)  # their own start at 0.999 or end at 0.001
    scheduler.timesteps = scheduler.config.num_train_timesteps * scheduler.sigmas[:-1]
    scheduler.set_begin_index(0)
    for t, stamp in zip(times[:-1], scheduler.timesteps, strict=True):
        x = scheduler.step(-velocity(x, t), stamp, x).prev_sample
    return x


def draw(
    model: Sampleable, network: Network, n: int, batch: int, request: Mapping[str, Any]
) -> Floats:
    """n samples as `runtimes.sample` would draw them on request: same noise, condition and guidance.

    model: whose samples they are; network: its velocity on torch tensors. request: label or context,
    guidance, seed, solver (one of `SCHEDULERS`), steps, grid.
    """
    todo = runtimes.plan(model, n, **request)
    starts = range(0, n, batch)
    parts = [slice(start, min(start + batch, n)) for start in starts]
    return np.concatenate([_part(todo, network, request["solver"], rows) for rows in parts])


def _part(todo: Plan, network: Network, solver: str, rows: slice) -> Floats:
    """Some samples of a plan, as one batch."""
    condition, null = None, null_condition(todo.model.spec, rows.stop - rows.start)
    if todo.condition is not None and null is not None:
        condition, null = torch.from_numpy(todo.condition[rows]), torch.from_numpy(null)
    call, on = guided(network, condition, null, todo.weight, torch.cat), todo.weight != 1.0
    x = torch.from_numpy(todo.first(rows.start, rows.stop, todo.times[0]))
    return np.asarray(loop(solver, lambda x, t: call(x, t, on), x, todo.times))


# our name of a solver -> their scheduler that takes the same steps
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "euler": FlowMatchEulerDiscreteScheduler,
    "dpmpp_2m": lambda: DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True
    ),
}
