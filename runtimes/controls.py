"""What a run starts from and what it is held to, each made of a Plan from outside; no solver knows.

    invert       data -> noise, the ODE backwards; decode brings that noise to the same data again
    interpolate  noise along the great circle between two seeds
    edit         from alpha_t data + sigma_t noise at a t > 0 (Meng et al. 2022, SDEdit)
    inpaint      after every step the known part becomes alpha_s data + sigma_s noise

The verb returns samples like `sample.sample` and takes the same requests; its -ing form returns what
`sample.collect` runs and whose `states` may be watched.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from .choices import is_number
from .conditions import finite, one_array, spec_of
from .fitted import no_part
from .noise import noise as noise_of
from .noise import seed_rows
from .sample import Plan, Request, Sampleable, State, collect, plan
from .schedules import named
from .session import Floats
from .solvers import SOLVERS

Progress = Callable[[int, int], None] | None


def invert(
    model: Sampleable,
    data: Floats,
    *,
    batch: int | None = None,
    progress: Progress = None,
    **request: Unpack[Request],
) -> Floats:
    """The noise that `decode` takes to this data: the ODE followed from data to noise.

    data: float32 (n, *shape) or one sample. The way back lands within the solver's error: h^p in all.
    """
    todo = inverting(model, data, **request)
    return as_noise(todo, collect(todo, batch=batch, progress=progress))


def inverting(model: Sampleable, data: Floats, **request: Unpack[Request]) -> Plan:
    """See invert: the plan over the reversed grid. Its last states are sigma * noise."""
    if request.get("calls") is not None:
        no_part(())
    asked = request.get("solver")
    solver = spec_of("model", model).sampler.solver if asked is None else asked
    if isinstance(solver, str) and solver in SOLVERS and SOLVERS[solver].follows != "field":
        if asked is not None:
            known = ", ".join(name for name, one in SOLVERS.items() if one.follows == "field")
            raise ValueError(
                f"solver: expected one that follows the ODE both ways ({known}), got {solver!r}; "
                "heun is a good start"
            )
        request["solver"] = "heun"
    if request.get("cfgpp") is not None:
        raise ValueError("cfgpp: expected none backwards, got one; use guidance instead")
    data = rows("data", data, model.spec.shape)
    todo = plan(model, len(data), **request)
    back = todo.times[::-1]
    # a sample is the state at the last time, even where that is 0.999: so no noise on top, no alpha
    alpha = np.float32(named(model.spec.schedule)(back[0]).alpha)
    return replace(
        todo, times=back, tableau=todo.trace(back), data=data / alpha, source=_without_noise
    )


def as_noise(todo: Plan, states: Floats) -> Floats:
    """The last states sigma * noise of an inversion as noise."""
    sigma = named(todo.model.spec.schedule)(todo.times[-1]).sigma
    return states * np.float32(1.0 / float(sigma))


def decode(
    model: Sampleable,
    noise: Floats,
    *,
    batch: int | None = None,
    progress: Progress = None,
    **request: Unpack[Request],
) -> Floats:
    """Samples from noise of one's own, float32 (n, *shape), in place of the seeds'."""
    return collect(decoding(model, noise, **request), batch=batch, progress=progress)


def decoding(model: Sampleable, noise: Floats, **request: Unpack[Request]) -> Plan:
    """See decode. A noisy solver draws its later noise from the seeds as ever."""
    given = rows("noise", noise, spec_of("model", model).shape)
    todo = plan(model, len(given), **request)

    def source(indices: NDArray[np.int64], shape: tuple[int, ...], draw: int) -> Floats:
        return given[indices] if draw == 0 else noise_of(todo.seeds[indices], shape, draw)

    return replace(todo, seeds=np.arange(len(given)), source=source)


def interpolate(
    model: Sampleable,
    n: int,
    *,
    to: int,
    batch: int | None = None,
    progress: Progress = None,
    **request: Unpack[Request],
) -> Floats:
    """n samples from `seed` to the seed `to`, both included, along the sphere their noises lie on."""
    return collect(interpolating(model, n, to=to, **request), batch=batch, progress=progress)


def interpolating(model: Sampleable, n: int, *, to: int, **request: Unpack[Request]) -> Plan:
    """See interpolate. Every draw is interpolated, so a noisy solver has the same two ends."""
    todo = plan(model, n, **request)
    ends = np.concatenate([todo.seeds[:1], seed_rows(to, 1)])

    def source(indices: NDArray[np.int64], shape: tuple[int, ...], draw: int) -> Floats:
        a, b = noise_of(ends, shape, draw).astype(np.float64)
        return slerp(a, b, indices / max(n - 1, 1)).astype(np.float32)

    source(np.arange(1), model.spec.shape, 0)  # two seeds without a circle are refused now
    return replace(todo, seeds=np.arange(n), source=source)


def slerp(
    a: NDArray[np.float64], b: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """((1 - w) |a| + w |b|) (sin((1 - w) angle) a / |a| + sin(w angle) b / |b|) / sin(angle), one row per w.

    angle: between a and b. The direction turns at one speed (Shoemake 1985) and the length goes evenly.
    """
    lengths = [float(np.linalg.norm(one)) for one in (a, b)]
    a, b = a / lengths[0], b / lengths[1]
    angle = float(np.arccos(np.clip(np.vdot(a, b), -1.0, 1.0)))
    if np.sin(angle) < 1e-6:
        raise ValueError(
            "to: expected a seed whose noise points elsewhere, got one on the same line; "
            "choose another seed, for samples of two numbers or more"
        )
    w = np.asarray(weights, np.float64).reshape(-1, *[1] * a.ndim)
    turned = (np.sin((1.0 - w) * angle) * a + np.sin(w * angle) * b) / np.sin(angle)
    return np.asarray(turned * ((1.0 - w) * lengths[0] + w * lengths[1]))


def edit(
    model: Sampleable,
    data: Floats,
    *,
    strength: float,
    batch: int | None = None,
    progress: Progress = None,
    **request: Unpack[Request],
) -> Floats:
    """Samples that keep the large features of `data`: it is noised to t = 1 - strength, then followed on.

    strength: 0 (excluded: nothing changes) to 1 (nothing is kept).
    """
    todo = editing(model, data, strength=strength, **request)
    return collect(todo, batch=batch, progress=progress)


def editing(
    model: Sampleable, data: Floats, *, strength: float, **request: Unpack[Request]
) -> Plan:
    """See edit: the request's own grid, entered at t = 1 - strength."""
    data = rows("data", data, spec_of("model", model).shape)
    if request.get("calls") is not None:
        no_part(())
    times = plan(model, len(data), **request).times
    inside = is_number(strength) and 0.0 < strength <= 1.0
    start = max(1.0 - float(strength), times[0]) if inside else times[-1]
    if start >= times[-1]:
        raise ValueError(
            f"strength: expected a number above {1.0 - times[-1]:.3g} and at most 1, "
            f"got {strength!r}; 0.6 is a start, 1 keeps nothing"
        )
    request["grid"], request["steps"] = [start, *(t for t in times if t > start)], None
    return replace(plan(model, len(data), **request), data=data)


def inpaint(
    model: Sampleable,
    data: Floats,
    mask: NDArray[Any],
    *,
    batch: int | None = None,
    progress: Progress = None,
    **request: Unpack[Request],
) -> Floats:
    """Samples that agree with `data` exactly where `mask` is 1, and continue it where it is 0.

    mask: 0 or 1 (or bool), (n, *shape) or anything that broadcasts to it.
    """
    return collect(inpainting(model, data, mask, **request), batch=batch, progress=progress)


def inpainting(
    model: Sampleable, data: Floats, mask: NDArray[Any], **request: Unpack[Request]
) -> "Inpainting":
    """See inpaint."""
    data = rows("data", data, spec_of("model", model).shape)
    known = one_array("mask", mask)
    try:
        known = np.broadcast_to(known, data.shape)
    except ValueError:
        raise ValueError(
            f"mask: expected shape {data.shape} or one that broadcasts to it, got {known.shape}; "
            "1 keeps, 0 paints"
        ) from None
    if known.dtype.kind not in "biuf" or not np.isin(known, (0, 1)).all():
        raise ValueError(
            "mask: expected only 0 and 1, got other values; 1 keeps, 0 paints: mask > 0.5"
        )
    if request.get("calls") is not None:
        no_part(())
    todo = replace(plan(model, len(data), **request), data=data)
    return Inpainting(todo, data, known.astype(bool))


@dataclass(frozen=True)
class Inpainting:
    """A plan held to its data where `known`: x <- alpha_s data + sigma_s noise after every step.

    The noise is the run's own first draw, so that the known part walks its own straight path (Song et
    al. 2021, appendix I.2, draw it anew each time). Every step starts afresh from the projected
    state, so a multistep solver takes its first step every time. The projection is no part of a
    tableau of the whole run: each step has one of its own. It does not sample the exact conditional
    law: the unknown part sees the known one only through the network.
    """

    todo: Plan
    data: Floats
    known: NDArray[np.bool_]

    @property
    def model(self) -> Sampleable:
        """Whose samples they are."""
        return self.todo.model

    @property
    def seeds(self) -> NDArray[np.int64]:
        """One per sample."""
        return self.todo.seeds

    @property
    def times(self) -> tuple[float, ...]:
        """The grid."""
        return self.todo.times

    @property
    def way(self) -> str:
        """How it runs: see `Plan.way`."""
        return self.todo.way

    @property
    def calls(self) -> int:
        """Network evaluations of each sample."""
        return sum(self.todo.trace(pair).calls for pair in pairwise(self.times))

    def states(self, start: int, stop: int, pace: float = 0.0) -> Iterator[State]:
        """The states of samples start..stop-1 after each projection, the initial one first: all of them."""
        todo, known, steps = self.todo, self.known[start:stop], len(self.todo.times) - 1
        begin = todo.times[0]
        free = replace(todo, data=None).first(start, stop, begin)
        x = np.where(known, todo.first(start, stop, begin), free)
        yield State(x, 0, steps, begin)
        for step, (t, s) in enumerate(pairwise(self.times), 1):
            ((_, x),) = todo.follow(start, stop, todo.trace((t, s)), x, before=step - 1)
            path = todo.first(start, stop, s) if step < steps else self.data[start:stop]
            x = np.where(known, path, x)
            yield State(x, step, steps, s)


def rows(what: str, given: object, shape: tuple[int, ...]) -> Floats:
    """`given` as float32 (n, *shape), n >= 1; one sample alone is n = 1."""
    x = one_array(what, given)
    x = x[None] if x.shape == shape else x
    if x.shape[1:] != shape or len(x) == 0 or x.dtype.kind != "f":
        raise ValueError(
            f"{what}: expected float32 (n, {', '.join(map(str, shape))}), got {x.dtype} {x.shape}; "
            "channels last, in the model's value range"
        )
    return finite(what, x)


def _without_noise(seeds: NDArray[np.int64], shape: tuple[int, ...], draw: int) -> Floats:
    return np.zeros((len(seeds), *shape), np.float32)
