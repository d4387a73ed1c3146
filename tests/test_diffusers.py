"""The same network, noise and times through diffusers' schedulers: the same trajectories, to 1e-12.

Their samplers run from sigma = sigma_t / alpha_t on a variance preserving path, or from sigma = 1 - t on
the linear one. They are given the sigmas of our grid, in float64: their own tables are float32 and
discrete, and some of their steps cast the state to float32, which `doubled` undoes. Where their
numerics differ on purpose, or by mistake, the test says how and shows that nothing else does.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import schedulers

from runtimes import exponential
from runtimes.flow import flow
from runtimes.multistep import weights
from runtimes.schedules import SCHEDULES, Scales, time_of_ratio

from .problems import MIXTURE, starts
from .test_exponential import first_step_of
from .test_exponential import measured_slope as exponential_slope

GRID = [0.1, 0.15, 0.3, 0.34, 0.5, 0.62, 0.7, 0.9]
# what is asked of the network, in our words and theirs, per path
ASKED = {
    "vp": ("noise", {"prediction_type": "epsilon"}),
    "linear": ("velocity", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}),
}
# torch tensors handed to numpy functions, in their code
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
paths = pytest.mark.parametrize("path", ASKED)


class Doubled:
    """torch, but its float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture(autouse=True)
def doubled(monkeypatch):
    for name in ("DPMSolverMultistep", "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete"):
        step = getattr(schedulers, f"{name}Scheduler").step
        monkeypatch.setitem(step.__globals__, "torch", Doubled())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sigmas_at(path, grid):
    """What their schedulers call sigma."""
    scales = SCHEDULES[path](np.asarray(grid))
    return torch.tensor(scales.sigma if path == "linear" else scales.sigma / scales.alpha)


def theirs(scheduler, path, grid, times=None, sigmas=None):
    """States of their scheduler over `grid`; times, sigmas: of its calls, where those are not the grid's."""
    kind, _ = ASKED[path]
    times = grid[:-1] if times is None else times
    scheduler.set_timesteps(len(grid) - 1)
    scheduler.sigmas = sigmas_at(path, grid) if sigmas is None else sigmas
    scheduler.timesteps = torch.arange(float(len(times)), 0, -1)
    scheduler.set_begin_index(0)
    x = torch.tensor(starts())
    for t, stamp in zip(times, scheduler.timesteps, strict=True):
        out = torch.tensor(MIXTURE.output(kind, x.numpy(), SCHEDULES[path](t)))
        # a flow prediction of theirs is noise - data
        x = scheduler.step(-out if path == "linear" else out, stamp, x).prev_sample
        assert x.dtype == torch.float64
        yield x.numpy()


def ours(solver, path, grid, **options):
    kind, _ = ASKED[path]
    network = MIXTURE.network(kind, SCHEDULES[path])
    return flow(solver, network, starts(), grid, schedule=path, prediction=kind, **options)


def same(got, want):
    got, want = list(got), list(want)
    assert len(got) == len(want) > 1
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def multistep(name, path, order, **options):
    """Their lower orders in the last steps are a choice of theirs that may be turned off, and is."""
    make = getattr(schedulers, f"{name}Scheduler")
    return make(**{"solver_order": order, "lower_order_final": False, **ASKED[path][1], **options})


@paths
@pytest.mark.parametrize("grid", [GRID, [*GRID, 1.0]], ids=["inside", "onto the data"])
def test_dpmpp_2m(path, grid):
    """Onto sigma = 0 their step is of first order too, by final_sigmas_type."""
    final = "zero" if grid[-1] == 1.0 else "sigma_min"
    scheduler = multistep("DPMSolverMultistep", path, 2, final_sigmas_type=final)
    same(ours("dpmpp_2m", path, grid), theirs(scheduler, path, grid))


def test_dpmpp_2m_from_pure_noise():
    """alpha = 0: their clock is -infinity there, their steps finite, and ours are the same."""
    grid = [0.0, *GRID, 1.0]
    scheduler = multistep("DPMSolverMultistep", "linear", 2, final_sigmas_type="zero")
    same(ours("dpmpp_2m", "linear", grid), theirs(scheduler, "linear", grid))


def half_curved(h, offsets):
    """`exponential.exact` as their third order has it: D2 = h^2 data'' / 2 where phi_3 wants h^2 data''."""
    halves = [1.0, 0.5][: len(offsets)]
    moments = exponential.moments(h, len(offsets))[1:]
    return weights([u / h for u in offsets], [m * f for m, f in zip(moments, halves, strict=True)])


@paths
def test_dpmpp_3m_but_for_the_factor_they_lack(path, monkeypatch):
    """Two equal steps, then their parabolas are half as curved: with ours bent so, all steps agree."""
    scheduler = multistep("DPMSolverMultistep", path, 3, final_sigmas_type="sigma_min")
    want = list(theirs(scheduler, path, GRID))
    got = list(ours("dpmpp_3m", path, GRID))
    same(got[:2], want[:2])
    assert np.abs(got[2] - want[2]).max() > 1e-6
    monkeypatch.setattr(exponential, "exact", half_curved)
    same(ours("dpmpp_3m", path, GRID), want)


def test_the_factor_they_lack_costs_an_order(monkeypatch):
    """After a start too good to matter theirs is of order 2; ours, in test_exponential.py, of order 3."""
    monkeypatch.setattr(exponential, "exact", half_curved)
    got = exponential_slope("dpmpp_3m", "linear", lambda n: first_step_of(0.5 / n**2, n))
    assert got == pytest.approx(2, abs=0.1)


@paths
@pytest.mark.parametrize("grid", [GRID, [*GRID, 1.0]], ids=["inside", "onto the data"])
def test_dpmpp_2s(path, grid):
    """Their half steps are points of their grid: orders 1 and 2 in turn, the second over both."""
    rule, final = SCHEDULES[path], grid[-1] == 1.0
    inner = grid[:-1] if final else grid
    ratios = [float(rule(t).alpha / rule(t).sigma) for t in inner]
    halves = [float(time_of_ratio(rule, np.sqrt(a * b))) for a, b in pairwise(ratios)]
    times = [t for pair in zip(inner, halves, strict=False) for t in pair] + [inner[-1]]
    times += [1.0] if final else []
    scheduler = multistep(
        "DPMSolverSinglestep",
        path,
        2,
        lower_order_final=final,
        final_sigmas_type="zero" if final else "sigma_min",
    )
    states = list(theirs(scheduler, path, times))
    whole = states[1::2] + states[-1:] if final else states[1::2]
    same(ours("dpmpp_2s", path, grid), whole)


@paths
@pytest.mark.parametrize("order", [2, 3])
def test_unipc(path, order):
    scheduler = multistep("UniPCMultistep", path, order, solver_type="bh2")
    same(ours(f"unipc{order}", path, GRID), theirs(scheduler, path, GRID))


@paths
def test_unipc_onto_the_data(path):
    """With lower_order_final their last step is of first order; of order 3 the last but one would be, too."""
    grid = [*GRID, 1.0]
    scheduler = multistep(
        "UniPCMultistep", path, 2, lower_order_final=True, final_sigmas_type="zero"
    )
    same(ours("unipc2", path, grid), theirs(scheduler, path, grid))


@paths
@pytest.mark.parametrize("order", [2, 3])
def test_deis(path, order):
    """Onto sigma = 0 theirs is 0 * infinity; ours is `straight` there."""
    scheduler = multistep("DEISMultistep", path, order)
    same(ours(f"deis{order}", path, GRID), theirs(scheduler, path, GRID))


def test_edm_heun_is_their_heun():
    """Their state is x / alpha, so it goes in and comes out scaled; both stop correcting at sigma = 0."""
    grid, rule = [*GRID, 1.0], SCHEDULES["vp"]
    scheduler = schedulers.HeunDiscreteScheduler(prediction_type="epsilon")
    scheduler.set_timesteps(len(grid) - 1)
    sigmas = sigmas_at("vp", grid)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    times = [grid[0], *np.repeat(grid[1:-1], 2)]
    scheduler.set_begin_index(0)
    y, states = torch.tensor(starts() / rule(grid[0]).alpha), []
    for t, stamp in zip(times, scheduler.timesteps, strict=True):
        x = y.numpy() * rule(t).alpha
        y = scheduler.step(torch.tensor(MIXTURE.output("noise", x, rule(t))), stamp, y).prev_sample
        states.append(y.numpy())
    ends = [state * rule(t).alpha for state, t in zip(states[1::2], grid[1:], strict=False)]
    same(ours("edm_heun", "vp", grid), [*ends, states[-1]])


def test_flow_matching_euler():
    grid = [0.0, *GRID, 1.0]
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler()
    same(ours("euler", "linear", grid), theirs(scheduler, "linear", grid))


def test_flow_matching_heun():
    """Theirs ends with an Euler step, as EDM's does; ours calls the field at t = 1 as well."""
    grid = [0.0, *GRID, 1.0]
    sigmas = sigmas_at("linear", grid)
    sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    times = [grid[0], *np.repeat(grid[1:-1], 2).tolist()]
    scheduler = schedulers.FlowMatchHeunDiscreteScheduler()
    states = list(theirs(scheduler, "linear", grid, times, sigmas))
    got = list(ours("heun", "linear", grid[:-1]))
    same(got, states[1::2])
    t, x = grid[-2], got[-1]
    last = x + (1.0 - t) * MIXTURE.output("velocity", x, SCHEDULES["linear"](t))
    np.testing.assert_allclose(states[-1], last, rtol=0, atol=1e-12)


# The thousand betas


def tabled(table):
    """Their table as a schedule: index i of it is t = 1 - (i + 1) / 1000, and t = 1 no noise at all."""
    squares = np.append(table.numpy()[::-1], 1.0)

    def schedule(t):
        square = squares[np.rint(np.asarray(t) * 1000).astype(int)]
        nothing = 0.0 * square  # no solver here asks for rates
        return Scales(np.sqrt(square), np.sqrt(1.0 - square), nothing, nothing)

    return schedule


def discrete(scheduler, monkeypatch, count=20):
    """Their table in float64 as our schedule "vp", and their times as our grid."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(count)
    monkeypatch.setitem(SCHEDULES, "vp", tabled(scheduler.alphas_cumprod))
    return [1.0 - (int(i) + 1) / 1000 for i in scheduler.timesteps] + [1.0]


def stepped(scheduler, grid, **options):
    x = torch.tensor(starts())
    for k, (t, stamp) in enumerate(zip(grid[:-1], scheduler.timesteps, strict=True)):
        out = torch.tensor(MIXTURE.output("noise", x.numpy(), SCHEDULES["vp"](t)))
        words = {name: value(k) for name, value in options.items()}
        x = scheduler.step(out, int(stamp), x, **words).prev_sample
        yield x.numpy()


@pytest.mark.parametrize("chart", ["straight", "noise"])
def test_ddim_is_euler(monkeypatch, chart):
    """clip_sample off: they clip data to [-1, 1] by default, which fits images and nothing else."""
    scheduler = schedulers.DDIMScheduler(clip_sample=False)
    grid = discrete(scheduler, monkeypatch)
    same(ours("euler", "vp", grid, chart=chart), stepped(scheduler, grid))


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_noise_is_ancestral(monkeypatch, eta):
    scheduler = schedulers.DDIMScheduler(clip_sample=False)
    grid = discrete(scheduler, monkeypatch)
    want = stepped(
        scheduler,
        grid,
        eta=lambda k: eta,
        variance_noise=lambda k: torch.tensor(starts(seed=k)),
    )
    same(ours("ancestral", "vp", grid, eta=eta, draw=lambda k: starts(seed=k)), want)


def test_ddpm_is_ancestral(monkeypatch):
    """Their noise comes from inside the step: the k-th draw is made ours. No clipping, as above."""
    scheduler = schedulers.DDPMScheduler(clip_sample=False)
    grid, drawn = discrete(scheduler, monkeypatch), []

    def randn(shape, **words):
        drawn.append(shape)
        return torch.tensor(starts(seed=len(drawn) - 1))

    monkeypatch.setitem(type(scheduler).step.__globals__, "randn_tensor", randn)
    want = list(stepped(scheduler, grid))
    assert len(drawn) == len(grid) - 2  # none onto the data
    same(ours("ancestral", "vp", grid, draw=lambda k: starts(seed=k)), want)
