import numpy as np
import pytest

import runtimes
from runtimes.charts import CHARTS
from runtimes.flow import flow
from runtimes.integrate import integrate
from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES
from runtimes.spec import Condition, Sampler, Spec

from .problems import MIXTURE, ROUND, mixture_spec, write_onnx


class Exact:
    """A perfect network of some kind, one row at a time, in float32 at its edges like any model."""

    def __init__(self, problem=MIXTURE, schedule="linear", prediction="velocity"):
        self.spec = Spec("exact", (2,), schedule=schedule, prediction=prediction)
        self.problem, self.rows = problem, 0

    def network(self, x, t, condition=None):
        assert x.dtype == t.dtype == np.float32
        assert t.shape == (len(x),)
        self.rows += len(x)
        answer = self.problem.network(self.spec.prediction, SCHEDULES[self.spec.schedule])
        out = [answer(row[None].astype(float), float(s)) for row, s in zip(x, t, strict=True)]
        return np.concatenate(out).astype(np.float32)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return runtimes.load(
        write_onnx(tmp_path_factory.mktemp("integrate") / "mixture.onnx"), threads=1
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    path = write_onnx(tmp_path_factory.mktemp("integrate") / "labelled.onnx", labelled=True)
    return runtimes.load(path, threads=1)


def walked(model, schedule, prediction, x, times, steps=200, chart="straight"):
    """The same ODE by many steps of rk4, in float64."""
    network = model.problem.network(prediction, SCHEDULES[schedule])
    low, high = times
    *_, end = flow(
        "rk4",
        network,
        x.astype(float),
        np.linspace(low, high, steps + 1),
        schedule=schedule,
        prediction=prediction,
        chart=chart,
    )
    return end


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_conversion_leads_to_the_same_end(schedule, prediction):
    model = Exact(schedule=schedule, prediction=prediction)
    result = integrate(model, 3, times=(0.2, 0.9), rtol=1e-6, atol=1e-6, seed=1)
    end = walked(model, schedule, prediction, result.path[0], (0.2, 0.9))
    np.testing.assert_allclose(result.x, end, atol=3e-5)
    sigma = float(SCHEDULES[schedule](0.2).sigma)
    np.testing.assert_allclose(
        result.path[0], runtimes.noise.noise(np.arange(1, 4), (2,), 0) * np.float32(sigma)
    )


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_every_chart_there_and_back(chart, method):
    """The clock of the noise chart falls as t rises."""
    model = Exact(ROUND, "cosine", "data")
    options = {"method": method, "chart": chart, "rtol": 1e-5, "atol": 1e-5, "seed": 2}
    there = integrate(model, 3, times=(0.1, 0.5, 0.9), **options)
    rule = SCHEDULES["cosine"]
    for index, t in ((1, 0.5), (2, 0.9)):
        exact = ROUND.flow_map(there.path[0].astype(float), rule(0.1), rule(t))
        np.testing.assert_allclose(there.path[index], exact, atol=2e-3)
    back = integrate(model, 3, times=(0.9, 0.1), start=there.x, **options)
    np.testing.assert_allclose(back.x, there.path[0], atol=2e-3)
    assert back.times == (0.9, 0.1)


def test_ends_are_trimmed_where_the_prediction_is_singular():
    result = integrate(Exact(prediction="noise"), 2, rtol=1e-3, atol=1e-3)
    assert result.times == (0.01, 1.0)
    assert integrate(Exact(prediction="data"), 2, times=(1, 0), start=result.x).times == (0.999, 0)


# On ONNX Runtime: float32 networks


def test_onnx_agrees_with_the_exact_field(mixture):
    result = integrate(mixture, 8, rtol=1e-6, atol=1e-6, seed=5)
    end = walked(Exact(), "linear", "velocity", result.path[0], (0.0, 1.0))
    np.testing.assert_allclose(result.x, end, atol=5e-5)
    assert result.x.dtype == np.float32
    assert result.x.shape == (8, 2)


def test_bits_of_a_row_do_not_depend_on_its_batch(mixture, labelled):
    """Every split, and the sample alone by its own seed, on ONNX Runtime's CPU provider."""
    options = {"rtol": 1e-4, "atol": 1e-4, "times": (0.0, 0.4, 1.0)}
    whole = integrate(mixture, 9, seed=3, **options)
    for batch in (1, 2, 4):
        parts = integrate(mixture, 9, seed=3, batch=batch, **options)
        for word in ("path", "calls", "accepted", "rejected"):
            np.testing.assert_array_equal(getattr(whole, word), getattr(parts, word))
    alone = integrate(mixture, 1, seed=3 + 6, **options)
    np.testing.assert_array_equal(alone.path[:, 0], whole.path[:, 6])
    guided = {"guidance": 2.0, "interval": (0.2, 0.7), "label": [1, 5, 2], **options}
    pair = [integrate(labelled, 3, batch=batch, **guided).path for batch in (1, 3)]
    np.testing.assert_array_equal(*pair)


def test_rows_that_have_arrived_are_not_computed():
    model = Exact()
    result = integrate(model, 6, rtol=1e-5, atol=1e-5)
    assert model.rows == result.calls.sum()
    assert result.calls.min() < result.calls.max()


def test_conditions_guidance_and_its_interval(labelled):
    """As `sample` has it; guided in 0.3..0.6 equals three runs one after the other."""
    options = {"label": ["c"], "rtol": 1e-6, "atol": 1e-6}
    whole = integrate(labelled, 3, guidance=3.0, interval=(0.3, 0.6), **options).x
    first = integrate(labelled, 3, times=(0, 0.3), **options).x
    second = integrate(labelled, 3, times=(0.3, 0.6), start=first, guidance=3.0, **options).x
    third = integrate(labelled, 3, times=(0.6, 1), start=second, **options).x
    np.testing.assert_allclose(whole, third, atol=1e-4)
    asked = {"label": "c", "solver": "rk4", "steps": 100}
    np.testing.assert_allclose(
        integrate(labelled, 3, guidance=3.0, **options).x,
        runtimes.sample(labelled, 3, guidance=3.0, **asked),
        atol=1e-4,
    )
    plain = integrate(labelled, 3, **options).x
    assert np.abs(whole - plain).max() > 0.01
    np.testing.assert_allclose(plain, runtimes.sample(labelled, 3, **asked), atol=1e-5)


def test_recommended_guidance_is_used(tmp_path):
    spec = mixture_spec(
        condition=Condition("label", classes=8), sampler=Sampler("heun", 8, guidance=2.5)
    )
    model = runtimes.load(write_onnx(tmp_path / "a.onnx", labelled=True, spec=spec))
    said = integrate(model, 2, label=1, guidance=2.5).x
    np.testing.assert_array_equal(integrate(model, 2, label=1).x, said)
    assert not np.array_equal(integrate(model, 2, label=1, guidance=1.0).x, said)


def test_progress_counts_samples(mixture):
    seen = []
    integrate(mixture, 5, batch=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


# Mistakes


BAD = {
    "method": ({"method": "dorpi5"}, "did you mean 'dopri5'"),
    "rtol 0": ({"rtol": 0.0}, "rtol: expected 1e-12 to 1, got 0"),
    "rtol nan": ({"rtol": float("nan")}, "rtol: expected"),
    "atol 0": ({"atol": 0}, "atol: expected"),
    "atol text": ({"atol": "1"}, "atol: expected"),
    "times": ({"times": (0.0, 0.5, 0.4)}, "increasing"),
    "beyond": ({"times": (1.5, 0.0)}, r"within \[0, 1\]"),
    "no times": ({"times": 0.5}, "times: expected a list of times, got 0.5"),
    "times of words": ({"times": [None, "b"]}, "times: expected"),
    "rtol bool": ({"rtol": True}, "rtol: expected"),
    "ragged": ({"start": [[0.0], [0.0, 1.0]]}, "start: expected one array"),
    "one time": ({"times": (0.5,)}, "2 to"),
    "start shape": ({"start": np.zeros((2, 3), np.float32)}, r"start: expected float32 \(4, 2\)"),
    "start nan": ({"start": np.full((4, 2), np.nan, np.float32)}, "start: expected finite"),
    "budget 0": ({"most_calls": 0}, "most_calls: expected"),
    "label": ({"label": 1}, "label: expected none"),
    "guidance": ({"guidance": 2.0}, "guidance: expected 1"),
    "chart": ({"chart": "straigth"}, "did you mean 'straight'"),
    "closed": ({"chart": "noise"}, "chart: expected finite"),
    "n": ({"n": 0}, "n: expected"),
    "batch": ({"batch": 0}, "batch: expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistake_is_one_line_before_any_call(name):
    model, (changes, message) = Exact(), BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        integrate(model, **{"n": 4, **changes})
    assert "\n" not in str(caught.value)
    assert model.rows == 0


def test_budget_and_nan_name_step_t_and_sample(mixture):
    with pytest.raises(
        FloatingPointError, match=r"step \d+, t = 0\.\d+: .*20 network calls.*sampl"
    ):
        integrate(mixture, 5, rtol=1e-9, atol=1e-9, most_calls=20)

    class Bad(Exact):
        def network(self, x, t, condition=None):
            return np.where(t[:, None] > 0.5, np.nan, super().network(x, t)).astype(np.float32)

    with pytest.raises(
        FloatingPointError, match=r"t = 0\.5: expected finite .* NaN or infinity in sample 0;"
    ):
        integrate(Bad(), 3)


def test_sample_points_to_integrate(mixture):
    with pytest.raises(ValueError, match=r"runtimes\.integrate"):
        runtimes.sample(mixture, 2, solver="dopri5")


# Command line


def test_cli_draws_and_says_what_it_cost(tmp_path, capsys):
    from toolkit.cli import main

    path = write_onnx(tmp_path / "a.onnx")
    draw = ["sample", str(path), "-n", "4", "--solver", "dopri5", "-o", str(tmp_path / "a.npy")]
    with pytest.raises(SystemExit) as stop:
        main([*draw, "--tolerance", "1e-4"])
    assert stop.value.code == 0
    result = integrate(runtimes.load(path), 4, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), result.x)
    calls = f"{result.calls.min()} to {result.calls.max()} network calls each"
    assert calls in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*draw[:-1], str(tmp_path / "b.npz"), "--show-trajectory", "--grid", "0,0.3,1"])
    with np.load(tmp_path / "b.npz") as saved:
        assert saved["x"].shape == (3, 4, 2)
        assert saved["times"].tolist() == [0.0, 0.3, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--solver", "dopri5", "--tolerance", "0"], "error: tolerance: expected 1e-12"),
        (["--solver", "dopri5", "--tolerance", "nan"], "error: tolerance: expected 1e-12"),
        (["--solver", "dopri5", "--show-trajectory", "--steps", "0"], "steps: expected a whole"),
        (["--solver", "dopri5", "--grid", "0.5,0.2"], "start: expected the states at t = 0.5"),
        (["--solver", "dopri5", "--steps", "5"], "steps: expected none"),
        (["--solver", "dopri5", "--eta", "0.5"], "eta: expected none"),
        (["--solver", "bosh3", "--grid", "karras"], "grid: expected none"),
        (["--solver", "heun", "--tolerance", "1e-3"], "tolerance: expected none"),
    ],
)
def test_cli_mistake_is_one_line_and_no_file(tmp_path, capsys, options, message):
    from toolkit.cli import main

    path = write_onnx(tmp_path / "a.onnx")
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(path), "-o", str(tmp_path / "a.npy"), *options])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "a.npy").exists()
