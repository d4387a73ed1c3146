import hashlib
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes.flow import flow
from runtimes.grids import trim
from runtimes.noise import noise, seed_rows
from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES, named, time_of_ratio
from runtimes.solvers import SOLVERS
from runtimes.spec import Condition, Sampler, Spec
from runtimes.stochastic import DIFFUSIONS

from .problems import MIXTURE, Mixture, image_graph, mixture_spec, write_onnx

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_onnx(folder / "mixture.onnx")
    write_onnx(folder / "labelled.onnx", labelled=True)
    write_onnx(folder / "image.onnx", spec=mixture_spec(shape=(4, 6, 3)), graph=image_graph())
    return folder


@pytest.fixture(scope="module")
def mixture(folder):
    return runtimes.load(folder / "mixture.onnx", threads=1)


@pytest.fixture(scope="module")
def labelled(folder):
    return runtimes.load(folder / "labelled.onnx", threads=1)


@pytest.fixture(scope="module")
def image(folder):
    return runtimes.load(folder / "image.onnx", threads=1)


@dataclass
class Fake:
    """A network in Python behind the same face as an opened file; notes the rows and times it saw."""

    spec: Spec
    function: object = lambda x, t, condition: -x

    def __post_init__(self):
        self.calls = []

    def network(self, x, t, condition=None):
        self.calls.append((len(x), t))
        return self.function(x, t, condition)


def fake(function=lambda x, t, condition: -x, **changes):
    return Fake(mixture_spec(**changes), function)


# What is promised about the numbers


@pytest.mark.parametrize("solver", SOLVERS)
def test_same_seed_same_bytes(mixture, solver):
    one, two = (runtimes.sample(mixture, 5, solver=solver, steps=4, seed=9) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert one.dtype == np.float32
    assert one.shape == (5, 2)
    assert one.tobytes() != runtimes.sample(mixture, 5, solver=solver, steps=4, seed=99).tobytes()


@pytest.mark.parametrize("solver", ["heun", "ancestral"])
@pytest.mark.parametrize("kind", ["mixture", "labelled", "image"])
def test_a_sample_depends_on_its_seed_and_label_alone(request, kind, solver):
    """Bitwise: any n, any batch, any place in the batch."""
    model = request.getfixturevalue(kind)
    options = {"solver": solver, "steps": 3}
    if kind == "labelled":
        options |= {"label": [1, 4, "none"], "guidance": 2.0, "interval": (0.2, 0.8)}
    many = runtimes.sample(model, 9, seed=5, **options)
    for batch in (1, 4, 9, 100):
        np.testing.assert_array_equal(
            runtimes.sample(model, 9, seed=5, batch=batch, **options), many
        )
    np.testing.assert_array_equal(runtimes.sample(model, 4, seed=5, **options), many[:4])
    if kind != "labelled":
        np.testing.assert_array_equal(runtimes.sample(model, 1, seed=12, **options), many[7:8])


def test_two_processes_agree(folder):
    script = (
        "import sys, hashlib, runtimes; m = runtimes.load(sys.argv[1]); "
        "print(hashlib.sha256(runtimes.sample(m, 7, solver='ancestral', seed=3).tobytes()).hexdigest())"
    )
    path = folder / "mixture.onnx"
    out = subprocess.run(
        [sys.executable, "-c", script, path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    here = runtimes.sample(runtimes.load(path), 7, solver="ancestral", seed=3)
    assert out.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()


@pytest.mark.parametrize("solver", ["euler_maruyama", "stochastic_heun"])
def test_the_diffusion_reaches_the_solver(mixture, solver):
    options = {"solver": solver, "steps": 8, "seed": 4}
    samples = {
        name: runtimes.sample(mixture, 3, diffusion=name, **options).tobytes()
        for name in DIFFUSIONS
    }
    assert len(set(samples.values())) == len(DIFFUSIONS)
    assert samples["sigma"] == runtimes.sample(mixture, 3, **options).tobytes()
    assert samples["zero"] == runtimes.sample(mixture, 3, eta=0.0, **options).tobytes()


@pytest.mark.parametrize("solver", SOLVERS)
def test_agrees_with_the_exact_field_in_float64(mixture, solver):
    """The same noise through the mixture's closed form."""
    seeds = seed_rows(21, 40)
    *_, exact = flow(
        solver,
        MIXTURE.network("velocity", SCHEDULES["linear"]),
        noise(seeds, (2,), 0).astype(np.float64),
        np.linspace(0, 1, 11),
        draw=lambda k: noise(seeds, (2,), k + 1).astype(np.float64),
    )
    got = runtimes.sample(mixture, 40, solver=solver, steps=10, grid="uniform", seed=21)
    np.testing.assert_allclose(got, exact, atol=1e-5)


def test_samples_have_the_moments_of_the_data(mixture):
    n = 4000
    x = runtimes.sample(mixture, n, steps=12, batch=2000, seed=10**6).astype(np.float64)
    mean, cov = MIXTURE.moments()
    np.testing.assert_allclose(x.mean(0), mean, atol=4 * np.sqrt(cov.max() / n))
    np.testing.assert_allclose(np.cov(x.T), cov, atol=6 * cov.max() / np.sqrt(n))
    # and the modes their equal shares, measured by the exact responsibilities
    shares = MIXTURE._parts(x, 1.0, 0.0)[0].mean(0)
    np.testing.assert_allclose(shares, 1 / 8, atol=4 / np.sqrt(8 * n))


def test_a_label_picks_its_mode(labelled):
    n = 500
    x = runtimes.sample(labelled, n, label="c", steps=10).astype(np.float64)
    np.testing.assert_allclose(x.mean(0), MIXTURE.means[2], atol=4 * np.sqrt(0.15 / n))
    assert np.allclose(x.var(0), 0.15, rtol=0.35)


def test_the_null_label_is_the_whole_mixture(labelled, mixture):
    np.testing.assert_allclose(
        runtimes.sample(labelled, 8, label="none"), runtimes.sample(mixture, 8), atol=1e-6
    )


def test_guidance_is_the_linear_combination_of_two_fields(labelled):
    linear = SCHEDULES["linear"]
    part = Mixture(MIXTURE.means[4:5])

    def network(x, t):
        cond, uncond = (p.velocity(x, linear(t)) for p in (part, MIXTURE))
        return uncond + (2.5 if 0.3 <= t <= 0.7 else 1.0) * (cond - uncond)

    def off(x, t):
        return network(x, t) if 0.3 <= t <= 0.7 else part.velocity(x, linear(t))

    x = noise(seed_rows(0, 6), (2,), 0).astype(np.float64)
    *_, exact = flow("heun", off, x, np.linspace(0, 1, 9))
    got = runtimes.sample(labelled, 6, label=4, guidance=2.5, interval=[0.3, 0.7], steps=8)
    np.testing.assert_allclose(got, exact, atol=1e-5)


def test_rows_outside_the_interval_cost_one_call():
    model = fake(condition=Condition("label", classes=8))
    runtimes.sample(model, 3, label=1, guidance=3.0, interval=(0.2, 0.6), solver="euler", steps=4)
    assert [rows for rows, _ in model.calls] == [3, 6, 6, 3]
    model.calls.clear()
    runtimes.sample(model, 3, label=1, guidance=1.0, solver="euler", steps=4)
    assert [rows for rows, _ in model.calls] == [3, 3, 3, 3]


# Streams, batches, progress


def test_the_last_state_of_a_stream_is_the_sample(mixture):
    for solver in SOLVERS:
        states = list(runtimes.stream(mixture, 6, solver=solver, steps=5, seed=2))
        assert len(states) == 5
        end = runtimes.sample(mixture, 6, solver=solver, steps=5, seed=2)
        np.testing.assert_array_equal(states[-1], end)


def test_a_stream_checks_first_and_stops_early():
    model = fake()
    with pytest.raises(ValueError, match="steps"):
        runtimes.stream(model, 3, steps=0)
    states = runtimes.stream(model, 3, steps=10, solver="euler")
    assert not model.calls
    next(states)
    next(states)
    states.close()
    assert len(model.calls) == 2


def test_earlier_states_are_not_overwritten(mixture):
    states = list(runtimes.stream(mixture, 4, steps=6, solver="euler"))
    copies = [x.copy() for x in runtimes.stream(mixture, 4, steps=6, solver="euler")]
    np.testing.assert_array_equal(states, copies)


def test_batches_and_progress():
    model, seen = fake(), []
    runtimes.sample(
        model, 7, batch=3, steps=2, solver="euler", progress=lambda *at: seen.append(at)
    )
    assert [rows for rows, _ in model.calls] == [3, 3, 3, 3, 1, 1]
    done = [at for at, _ in seen]
    assert done == sorted(done)
    assert (seen[-1], {total for _, total in seen}) == ((6, 6), {6})


def test_states_of_a_plan(mixture):
    todo = runtimes.plan(mixture, 3, steps=4, seed=1)
    states = list(todo.states(0, 3))
    assert [state.step for state in states] == [0, 1, 2, 3, 4]
    assert [state.t for state in states] == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_array_equal(states[0].x, noise(seed_rows(1, 3), (2,), 0))


def test_defaults_are_the_recommendation():
    best = Sampler("midpoint", 3, grid="shifted", guidance=1.0)
    model = fake(sampler=best)
    by_name = fake(sampler=Sampler("euler", 9))
    np.testing.assert_array_equal(
        runtimes.sample(model, 2),
        runtimes.sample(by_name, 2, solver="midpoint", steps=3, grid="shifted"),
    )
    assert len(model.calls) == 6


def test_a_recommended_guidance_is_used():
    condition = Condition("label", classes=8)
    model = fake(condition=condition, sampler=Sampler("euler", 2, guidance=2.0))
    runtimes.sample(model, 3, label=0)
    assert [rows for rows, _ in model.calls] == [6, 6]
    plain = fake(sampler=Sampler("euler", 2, guidance=2.0))  # nothing to guide
    runtimes.sample(plain, 3)
    assert [rows for rows, _ in plain.calls] == [3, 3]


@pytest.mark.parametrize(
    ("prediction", "schedule", "first", "last"),
    [
        ("velocity", "linear", 0.0, 1.0),
        ("noise", "linear", 0.01, 1.0),
        ("data", "cosine", 0.0, 0.999),
        ("score", "linear", 0.01, 0.999),
        ("velocity", "vp", 0.0, 0.999),
        ("v", "vp", 0.0, 1.0),
        ("edm", "edm", 0.0, 1.0),
        ("edm", "linear", 0.0, 1.0),
        ("velocity", "shifted(5)", 0.0, 1.0),
        ("velocity", "stable_diffusion", 0.0, 0.999),
        ("noise", "edm", 0.0, 1.0),
        ("noise", "polynomial(1)", 0.01, 1.0),
    ],
)
def test_times_keep_off_singular_ends(prediction, schedule, first, last):
    model = fake(prediction=prediction, schedule=schedule)
    todo = runtimes.plan(model, 2, solver="heun", steps=4)
    assert (todo.times[0], todo.times[-1]) == pytest.approx((first, last), abs=1e-12)
    states = list(todo.states(0, 2))
    scale = 80.0 if schedule == "edm" else float(named(schedule)(first).sigma)
    np.testing.assert_allclose(states[0].x, scale * noise(seed_rows(0, 2), (2,), 0), rtol=1e-6)
    assert all(first - 1e-12 <= t <= last + 1e-12 for _, t in model.calls)


OWN = ["polynomial(3)", "shifted(0.5)", "discrete(0.02, 0.05, 0.2, 0.5, 0.7)"]


@pytest.mark.parametrize("schedule", [*SCHEDULES, *OWN])
def test_the_same_noise_becomes_the_same_samples_on_every_path(schedule):
    """In the straight chart all paths are one, and what a prediction leaves out at its ends is small.

    From (alpha, sigma) at the start the ODE knows only x / (alpha + sigma), where noise alone begins.
    """
    rule = named(schedule)

    def samples(prediction, rule, name, **options):
        exact = MIXTURE.network(prediction, rule)
        model = fake(
            lambda x, t, condition: exact(x.astype(np.float64), t).astype(np.float32),
            prediction=prediction,
            schedule=name,
        )
        return runtimes.sample(model, 64, solver="heun", seed=1, **options)

    linear = SCHEDULES["linear"]
    first = rule(0.0)
    start = float(first.alpha / (first.alpha + first.sigma))
    steps = np.linspace(start, 1.0, 65)
    flat = samples("velocity", linear, "linear", grid=steps)
    # `flat` starts from (1 - start) noise, as this schedule does but for its factor alpha + sigma
    grid = [0.0, *time_of_ratio(rule, steps[1:-1] / (1 - steps[1:-1])), 1.0]
    for prediction in PREDICTIONS:
        apart = samples(prediction, rule, schedule, grid=grid) - flat
        kept = trim(np.array([0.0, 1.0]), rule, prediction).tolist() == [0.0, 1.0]
        assert np.sqrt(np.mean(apart**2)) < (1e-5 if kept else 0.03), prediction


def test_own_times():
    model = fake()
    runtimes.sample(model, 2, grid=[0.0, 0.1, 0.7, 1.0], solver="euler")
    assert [t for _, t in model.calls] == [0.0, 0.1, 0.7]
    inside = fake(prediction="score")
    runtimes.sample(inside, 2, grid=np.array([0.2, 0.5, 0.8]), solver="euler")
    assert [t for _, t in inside.calls] == [0.2, 0.5]


# Conditions

PETS = Condition("label", classes=3, names=("cat", "dog", "owl"))


@pytest.mark.parametrize(
    ("label", "rows"),
    [
        (2, [2, 2, 2, 2, 2]),
        ("dog", [1, 1, 1, 1, 1]),
        ([0, "owl"], [0, 2, 0, 2, 0]),
        (("cat", "none", 1), [0, 3, 1, 0, 3]),
        (np.array([2, 0]), [2, 0, 2, 0, 2]),
        (np.int64(1), [1, 1, 1, 1, 1]),
        (range(3), [0, 1, 2, 0, 1]),
        ("none", [3, 3, 3, 3, 3]),
    ],
)
def test_labels(label, rows):
    plan = runtimes.plan(fake(condition=PETS), 5, label=label)
    assert plan.condition.dtype == np.int64
    assert plan.condition.tolist() == rows


def test_labels_reach_their_rows_in_every_batch():
    model = fake(condition=Condition("label", classes=8))
    got = []
    model.function = lambda x, t, label: (got.append(label.tolist()), -x)[1]
    runtimes.sample(model, 5, label=[0, 1, 2], batch=2, solver="euler", steps=1)
    assert got == [[0, 1], [2, 0], [1]]


def test_contexts():
    model = fake(condition=Condition("context", shape=(2, 3)))
    one = np.arange(6, dtype=np.float32).reshape(2, 3)
    plan = runtimes.plan(model, 4, context=one)
    assert plan.condition.shape == (4, 2, 3)
    many = np.stack([one, one + 1, one + 2, one + 3])
    np.testing.assert_array_equal(
        runtimes.plan(model, 4, context=many.astype(np.float64)).condition, many
    )


def test_the_null_context_is_zero():
    model, got = fake(condition=Condition("context", shape=(3,))), []
    model.function = lambda x, t, given: (got.append(given), -x)[1]
    context = np.ones((2, 3), np.float32)
    runtimes.sample(model, 2, context=context, guidance=2.0, solver="euler", steps=1)
    np.testing.assert_array_equal(got[0], np.vstack([context, np.zeros((2, 3))]))


# Bad arguments: ValueError with the argument's name

BAD = [
    *[({"n": n}, "n: expected") for n in (0, -1, 2.5, "ten", 10**9, True, None, float("nan"))],
    *[({"steps": s}, "steps: expected") for s in (0, -1, 10**9, 2.5, "ten", True)],
    *[({"batch": b}, "batch: expected") for b in (0, -1, 2.5, "ten")],
    *[
        ({"guidance": w, "label": 1}, "guidance: expected")
        for w in (float("nan"), float("inf"), -float("inf"), 1e39, "2", [1])
    ],
    *[
        ({"seed": s}, "seed: expected")
        for s in (-1, 2**53, 2**53 - 1, 2**64, 1.5, True, None, "1")
    ],
    *[
        ({"label": x}, "label: .*labels are 0..7")
        for x in (8, -1, 2**40, 1.5, True, [1, 8], [], "z", "")
    ],
    ({"label": [[1]]}, "label: .*labels are 0..7"),
    ({"label": [None]}, "label: .*labels are 0..7"),
    ({"label": None}, "label: expected one for a labelled model, got none; labels are 0..7"),
    ({"context": np.zeros(3, np.float32)}, "context: expected none"),
    *[
        ({"interval": i, "guidance": 2}, "interval: expected")
        for i in ((1, 0), (0,), None, (0, 2))
    ],
    *[({"eta": e}, "eta: expected") for e in (-0.1, float("nan"), float("inf"), 11, "1", None)],
    ({"solver": "huen"}, "solver: .*did you mean 'heun'"),
    ({"solver": 3}, "solver: expected"),
    ({"solver": ["heun"]}, "solver: expected"),
    ({"solver": "dopri"}, "solver: .*did you mean 'dopri5'"),
    ({"guide": "worse.onnx", "guidance": 2}, "guide: expected an opened model, got 'worse.onnx'"),
    ({"model": "a.onnx"}, "model: expected an opened model, got 'a.onnx'"),
    ({"diffusion": "sigme"}, "diffusion: .*did you mean 'sigma'"),
    ({"diffusion": None}, "diffusion: expected one of zero, constant"),
    ({"grid": "unifrom"}, "grid: .*did you mean 'uniform'"),
    ({"grid": [0, float("nan"), 1]}, "grid: expected strictly increasing"),
    ({"grid": [1.0, 0.0]}, "grid: expected strictly increasing"),
    ({"grid": [0, 0.5, 1], "steps": 2}, "steps: expected none beside your own grid"),
    ({"chart": "strait"}, "chart: .*did you mean 'straight'"),
    ({"chart": "noise"}, "chart: expected finite"),
    ({"chart": ["noise"]}, "chart: expected one of"),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=range(len(BAD)))
def test_bad_arguments(bad, message):
    model = fake(condition=Condition("label", classes=8))
    with pytest.raises(ValueError, match=message) as error:
        runtimes.sample(**{"model": model, "n": 2, "label": 0, **bad})
    assert "\n" not in str(error.value)
    assert not model.calls


def test_conditions_that_a_model_does_not_have():
    for bad in ({"label": 1}, {"context": np.zeros(3)}, {"guidance": 2.0}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}: expected"):
            runtimes.sample(fake(), 2, **bad)


@pytest.mark.parametrize(
    "context",
    [
        None,
        np.zeros(4, np.float32),
        np.zeros((3, 3), np.float32),
        np.zeros(3, np.int64),
        np.array([0, np.nan, 0]),
        np.array([0, 1e39, 0]),
        "abc",
        [[1.0, 2.0], [1.0]],
        np.float32(1),
    ],
)
def test_bad_contexts(context):
    with pytest.raises(ValueError, match="context: expected"):
        runtimes.sample(fake(condition=Condition("context", shape=(3,))), 2, context=context)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_run_is_longer_than_what_its_solver_looks_back_on(mixture, solver):
    past = SOLVERS[solver].past
    assert np.isfinite(runtimes.sample(mixture, 2, solver=solver, steps=past + 1)).all()
    for steps in range(1, past + 1):
        with pytest.raises(
            ValueError, match=f"steps: expected {past + 1} or more .* got {steps};"
        ):
            runtimes.sample(mixture, 2, solver=solver, steps=steps)


def test_unknown_arguments():
    with pytest.raises(TypeError, match="stepps"):
        runtimes.sample(fake(), 2, stepps=3)


def test_refusals_do_not_need_asserts(folder):
    """The same under python -O, which drops assert statements."""
    script = """
import sys, numpy as np, runtimes
assert False, "-O is off"
model = runtimes.load(sys.argv[1])
bad = [dict(n=0), dict(steps=0), dict(seed=-1), dict(label=8), dict(guidance=float("nan")),
       dict(grid=[0, float("nan"), 1]), dict(eta=-1), dict(batch=0), dict(interval=(1, 0))]
for one in bad:
    try:
        runtimes.sample(model, **{"n": 2, "label": 0, **one})
    except ValueError as error:
        if next(iter(one)) not in str(error): raise SystemExit(f"{one}: {error}")
    else:
        raise SystemExit(f"{one} was accepted")
print("refused", len(bad))
"""
    out = subprocess.run(
        [sys.executable, "-O", "-W", "error", "-c", script, folder / "labelled.onnx"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (out.stdout, out.stderr, out.returncode) == ("refused 9\n", "", 0)


# Numbers that are not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("solver", ["euler", "heun", "ab2"])
def test_a_state_that_is_not_finite_stops_the_run(value, solver):
    def network(x, t, condition):
        out = -x
        if t > 0.5:
            out[[1, 3]] = value if solver != "ab2" or t < 0.8 else -value
        return out * (10 if value == 3e38 else 1)

    with np.errstate(over="ignore"), pytest.raises(FloatingPointError) as error:
        runtimes.sample(fake(network), 5, solver=solver, steps=10, seed=3)
    text = str(error.value)
    assert "\n" not in text
    assert "of 10, t = 0." in text
    assert "2 samples" in text
    assert "[1, 3]" in text


def test_rows_are_counted_over_all_batches():
    def network(x, t, condition):
        return np.full_like(x, np.nan) if len(x) == 1 else -x

    with pytest.raises(FloatingPointError, match=r"step 1 of 4, t = 0.25: .*1 samples \(\[6\]"):
        runtimes.sample(fake(network), 7, batch=3, solver="euler", steps=4)


def test_a_plan_leaves_the_spec_alone():
    model = fake()
    before = replace(model.spec)
    runtimes.sample(model, 2)
    assert model.spec == before
