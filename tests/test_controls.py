from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import runtimes
from runtimes import controls
from runtimes.noise import noise, seed_rows
from runtimes.schedules import SCHEDULES
from runtimes.solvers import SOLVERS
from runtimes.spec import Sampler, Spec

from .problems import MIXTURE, ROUND, TILTED, Gaussian, slope, starts

FIELD = [name for name, solver in SOLVERS.items() if solver.follows == "field"]
OTHERS = [name for name in SOLVERS if name not in FIELD]
UNIT = Gaussian(np.array([0.5, -1.0, 2.0]), np.eye(3))


@dataclass
class Known:
    """An exact network behind the face of a model; float64 inside, so that only solvers err."""

    problem: object
    spec: Spec
    calls: list = field(default_factory=list)

    def network(self, x, t, condition=None):
        self.calls.append(t)
        scales = SCHEDULES[self.spec.schedule](t)
        return self.problem.output(self.spec.prediction, x.astype(np.float64), scales)


def known(problem, dims=2, schedule="linear", prediction="velocity", **changes):
    return Known(problem, Spec("known", (dims,), schedule, prediction, **changes))


def ends(schedule, start=0.0, end=1.0):
    return SCHEDULES[schedule](start), SCHEDULES[schedule](end)


# Inversion


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_inversion_is_the_flow_backwards(schedule):
    model = known(ROUND, schedule=schedule)
    data = (ROUND.mean + starts(9) @ np.sqrt(ROUND.cov)).astype(np.float32)
    exact = ROUND.flow_map(data, *ends(schedule)[::-1])
    got = runtimes.invert(model, data, solver="rk4", steps=60, grid="uniform")
    np.testing.assert_allclose(got, exact, atol=2e-5)
    assert model.calls[0] == 1.0
    assert model.calls[-1] == 0.0


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_round_trip_closes_with_the_solvers_order(solver):
    model = known(MIXTURE)
    data = starts(32).astype(np.float32) * np.float32(0.7)
    steps, errors = (20, 60), []
    for n in steps:
        request = {"solver": solver, "steps": n, "grid": "uniform"}
        back = runtimes.decode(model, runtimes.invert(model, data, **request), **request)
        errors.append(np.sqrt(np.mean((back - data) ** 2)))
    assert slope(steps, errors) > SOLVERS[solver].order - 0.15
    assert errors[-1] < 0.05


@pytest.mark.parametrize(("schedule", "prediction"), [("linear", "noise"), ("vp", "data")])
def test_the_round_trip_closes_where_a_singular_end_is_left_out(schedule, prediction):
    model = known(MIXTURE, schedule=schedule, prediction=prediction)
    data = starts(8).astype(np.float32)
    request = {"solver": "rk4", "steps": 200, "grid": "karras"}
    back = runtimes.decode(model, runtimes.invert(model, data, **request), **request)
    np.testing.assert_allclose(back, data, atol=1e-3)


def test_inverting_noise_that_was_sampled_returns_it():
    model = known(TILTED, 3)
    request = {"solver": "rk4", "steps": 40, "seed": 4}
    samples = runtimes.sample(model, 6, **request)
    back = runtimes.invert(model, samples, **request)
    np.testing.assert_allclose(back, noise(seed_rows(4, 6), (3,), 0), atol=1e-4)


@pytest.mark.parametrize("solver", OTHERS)
def test_only_the_ode_can_be_inverted(solver):
    data = starts(2).astype(np.float32)
    with pytest.raises(ValueError, match=r"solver: expected one that follows the ODE both ways"):
        runtimes.invert(known(ROUND), data, solver=solver)
    own = known(ROUND, sampler=Sampler(solver, 40))
    np.testing.assert_allclose(
        runtimes.invert(own, data), runtimes.invert(known(ROUND), data, solver="heun", steps=40)
    )


# Noise of one's own, and between two seeds


@pytest.mark.parametrize("solver", SOLVERS)
def test_decode_takes_the_place_of_the_seeds_noise(solver):
    model = known(MIXTURE)
    request = {"solver": solver, "steps": 6, "seed": 11}
    given = noise(seed_rows(11, 5), (2,), 0)
    np.testing.assert_array_equal(
        runtimes.decode(model, given, batch=2, **request), runtimes.sample(model, 5, **request)
    )


@pytest.mark.parametrize("solver", ["heun", "ancestral"])
def test_interpolation_starts_and_ends_at_the_two_seeds(solver):
    model = known(MIXTURE)
    request = {"solver": solver, "steps": 6}
    path = runtimes.interpolate(model, 5, to=77, seed=3, batch=2, **request)
    for row, seed in ((0, 3), (-1, 77)):
        alone = runtimes.sample(model, 1, seed=seed, **request)[0]
        np.testing.assert_allclose(path[row], alone, atol=1e-6)


def test_interpolated_samples_turn_at_one_speed():
    """Data N(mean, I): the flow is noise + mean, so the samples show the noise itself."""
    samples = runtimes.interpolate(known(UNIT, 3), 9, to=8, seed=1, solver="rk4", steps=50)
    rows = (samples - UNIT.mean).astype(np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    turns = np.arccos(np.sum(units[1:] * units[:-1], axis=1))
    whole = np.arccos(units[0] @ units[-1])
    np.testing.assert_allclose(turns, whole / 8, atol=1e-4)


def test_slerp_turns_in_the_plane_and_lengthens_evenly():
    a, b, w = np.array([3.0, 0.0, 0.0]), np.array([0.0, 0.0, -5.0]), np.linspace(0, 1, 7)
    circle = np.stack([np.cos(w * np.pi / 2), 0 * w, -np.sin(w * np.pi / 2)], 1)
    np.testing.assert_allclose(controls.slerp(a, b, w), (3 + 2 * w)[:, None] * circle, atol=1e-14)


@pytest.mark.parametrize(("dims", "to"), [(2, 5), (1, 6)])
def test_seeds_on_one_line_span_no_circle(dims, to):
    model = known(Gaussian(np.zeros(dims), np.eye(dims)), dims)
    with pytest.raises(ValueError, match=r"to: expected a seed whose noise points elsewhere"):
        runtimes.interpolate(model, 3, to=to, seed=5)


# Image to image


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("strength", [0.3, 0.75])
def test_edit_follows_the_flow_from_the_noised_data(schedule, strength):
    model = known(ROUND, schedule=schedule)
    data = starts(7, seed=8).astype(np.float32)
    start, end = ends(schedule, 1 - strength)
    x = float(start.alpha) * data + float(start.sigma) * noise(seed_rows(2, 7), (2,), 0)
    got = runtimes.edit(model, data, strength=strength, solver="rk4", steps=100, seed=2)
    np.testing.assert_allclose(got, ROUND.flow_map(x, start, end), atol=2e-5)
    assert min(model.calls) == pytest.approx(1 - strength, abs=1e-12)


def test_edit_enters_the_requests_own_grid():
    model = known(MIXTURE)
    runtimes.edit(model, starts(2).astype(np.float32), strength=0.35, solver="euler", steps=10)
    np.testing.assert_allclose(model.calls, [0.65, 0.7, 0.8, 0.9])


def test_full_strength_keeps_nothing():
    model, data = known(MIXTURE), 9 * starts(3).astype(np.float32)
    np.testing.assert_array_equal(
        runtimes.edit(model, data, strength=1.0, seed=4, batch=2),
        runtimes.sample(model, 3, seed=4),
    )


# Inpainting

MASK = np.array([1, 0])


def test_an_independent_part_does_not_feel_the_projection():
    """The axes of ROUND are independent: the free one is that of a plain sample."""
    model, data = known(ROUND), 3 * starts(6).astype(np.float32)
    request = {"solver": "heun", "steps": 15, "seed": 5}
    got = runtimes.inpaint(model, data, MASK, **request)
    np.testing.assert_array_equal(got[:, 0], data[:, 0])
    np.testing.assert_allclose(got[:, 1], runtimes.sample(model, 6, **request)[:, 1], atol=1e-6)


def test_a_dependent_part_follows_the_known_one():
    """Many steps: the free axes solve the ODE in which the known one walks alpha data + sigma noise."""
    mask, model = np.array([True, False, False]), known(TILTED, 3)
    data = starts(1, 3, seed=9).astype(np.float32)
    (start,) = noise(seed_rows(6, 1), (3,), 0).astype(np.float64)

    def rate(t, free):
        x = np.array([[t * data[0, 0] + (1 - t) * start[0], *free]])
        return TILTED.velocity(x, SCHEDULES["linear"](t))[0, 1:]

    exact = solve_ivp(rate, (0, 1), start[1:], rtol=1e-9, atol=1e-9).y[:, -1]
    errors = []
    for n in (40, 80):
        got = runtimes.inpaint(model, data, mask, solver="rk4", steps=n, seed=6, grid="uniform")
        errors.append(np.abs(got[0, 1:] - exact).max())
    # projecting between steps splits the flow, which is a first-order scheme
    assert slope((40, 80), errors) == pytest.approx(1.0, abs=0.1)
    assert errors[-1] < 0.01
    assert np.abs(exact - runtimes.sample(model, 1, seed=6)[0, 1:]).max() > 0.1


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_known_part_is_on_its_path_at_every_step(solver):
    model, data = known(MIXTURE, schedule="cosine", prediction="v"), starts(4).astype(np.float32)
    run = controls.inpainting(model, data, MASK, solver=solver, steps=7, seed=1)
    first = noise(seed_rows(1, 4), (2,), 0)
    states = list(run.states(0, 4))
    assert [state.step for state in states] == list(range(8))
    for state in states:
        scales = SCHEDULES["cosine"](state.t)
        path = float(scales.alpha) * data + float(scales.sigma) * first
        np.testing.assert_allclose(state.x[:, 0], path[:, 0], atol=1e-6)


@pytest.mark.parametrize("solver", ["heun", "ancestral"])
def test_a_mask_of_zeros_is_plain_sampling(solver):
    """vp starts with alpha > 0: what is to be painted must not know the data even then."""
    model, data = known(MIXTURE, schedule="vp", prediction="v"), 99 * starts(5).astype(np.float32)
    request = {"solver": solver, "steps": 5, "seed": 2}
    got = runtimes.inpaint(model, data, np.zeros(2), batch=2, **request)
    np.testing.assert_allclose(got, runtimes.sample(model, 5, **request), rtol=1e-5, atol=1e-6)


def test_each_row_may_have_its_own_mask_and_depends_on_nothing_else():
    model, data = known(MIXTURE), starts(3).astype(np.float32)
    mask = np.array([[1, 0], [0, 1], [1, 1]])
    whole = runtimes.inpaint(model, data, mask, steps=5)
    np.testing.assert_array_equal(whole[mask == 1], data[mask == 1])
    np.testing.assert_array_equal(whole, runtimes.inpaint(model, data, mask, steps=5, batch=1))
    np.testing.assert_array_equal(
        whole[2:], runtimes.inpaint(model, data[2:], mask[2:], steps=5, seed=2)
    )


# Mistakes

GOOD = starts(3).astype(np.float32)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: runtimes.invert(known(ROUND), x),
        lambda x: runtimes.decode(known(ROUND), x),
        lambda x: runtimes.edit(known(ROUND), x, strength=0.5),
        lambda x: runtimes.inpaint(known(ROUND), x, MASK),
    ],
)
@pytest.mark.parametrize(
    "given",
    [GOOD[:, :1], GOOD[:0], GOOD.astype(int), [[1.0, 2.0], [3.0]], "ab", GOOD * np.nan, GOOD[..., None]],
)  # fmt: skip
def test_bad_arrays(call, given):
    with pytest.raises(ValueError, match=r"^(data|noise): expected "):
        call(given)


@pytest.mark.parametrize("strength", [0, -0.1, 1.5, float("nan"), "0.5", True, None])
def test_bad_strengths(strength):
    with pytest.raises(ValueError, match=r"^strength: expected a number above 0 and at most 1"):
        runtimes.edit(known(ROUND), GOOD, strength=strength)


def test_a_strength_within_the_end_left_out():
    with pytest.raises(ValueError, match=r"^strength: expected a number above 0.001 "):
        runtimes.edit(known(ROUND, prediction="score"), GOOD, strength=0.0005)


def test_a_strength_of_numpys():
    model = known(ROUND)
    got = runtimes.edit(model, GOOD, strength=np.float32(0.5))
    np.testing.assert_array_equal(got, runtimes.edit(model, GOOD, strength=0.5))


@pytest.mark.parametrize("solver", [["heun"], np.array(["heun", "rk4"]), ""])
def test_inversion_by_what_is_no_solver(solver):
    with pytest.raises(ValueError, match=r"^solver: expected one of euler"):
        runtimes.invert(known(ROUND), GOOD, solver=solver)


@pytest.mark.parametrize("mask", [np.ones(3), np.array([0.5, 1]), np.array(["a", "b"]), [2, 0]])
def test_bad_masks(mask):
    with pytest.raises(ValueError, match=r"^mask: expected"):
        runtimes.inpaint(known(ROUND), GOOD, mask)


def test_cfgpp_has_no_way_back():
    with pytest.raises(ValueError, match=r"^cfgpp: expected none backwards"):
        runtimes.invert(known(ROUND), GOOD, cfgpp=0.5)
