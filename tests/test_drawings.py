"""drawings.py and `toolkit plot`: read from the Figure and, once, from the file."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import runtimes
from runtimes.schedules import SCHEDULES
from runtimes.spec import Spec
from toolkit import drawings
from toolkit.cli import main
from toolkit.cli.plot import _real
from toolkit.costs import Cost, Costs

from .conftest import faces_bytes
from .problems import MIXTURE, mixture_spec, write_onnx


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return write_onnx(tmp_path_factory.mktemp("drawings") / "a.onnx")


def costs(distances):
    rows = [Cost("euler", c, c, 1.0 / c, d) for c, d in zip((10, 50), distances, strict=True)]
    rows += [Cost("heun", 10, 20, 1 / 60, 0.1), Cost("heun", 20, 40, 1 / 200, 0.05)]
    return Costs(tuple(rows), 0.04, "held-out data")


def test_costs_are_a_line_for_each_solver_and_a_ring_around_the_recommended():
    page = drawings.cost_figure(costs((0.4, 0.2)))
    left, right = page.axes
    for axes, values in ((left, [1 / 60, 1 / 200]), (right, [0.1, 0.05])):
        (heun,) = [line for line in axes.lines if line.get_label() == "heun"]
        np.testing.assert_array_equal(heun.get_xdata(), [20, 40])
        np.testing.assert_array_equal(heun.get_ydata(), values)
        ring = axes.lines[-1]
        assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (20, values[0])
        assert axes.get_xscale() == axes.get_yscale() == "log"
    assert "heun 10 steps (20 calls)" in page.get_suptitle()
    assert {text.get_text() for text in page.legends[0].get_texts()} == {"euler", "heun"}


def test_distances_below_zero_are_shown_on_a_linear_axis():
    _, right = drawings.cost_figure(costs((0.4, -0.01))).axes
    assert right.get_yscale() == "linear"
    assert right.get_ylim()[0] < -0.01
    assert any("may take it below 0" in text.get_text() for text in right.texts)


def test_the_best_solvers_are_in_colour_and_the_rest_grey():
    rows = [Cost("euler", 50, 50, 1.0, 0.5)]
    rows += [Cost(f"solver{k}", 10, 20, 0.1 + k, 0.5) for k in range(9)]
    found = Costs(tuple(rows), 0.5, "held-out data")
    assert drawings.ranked(found)[:2] == ["solver0", "euler"]
    page = drawings.cost_figure(found)
    names = {text.get_text() for text in page.legends[0].get_texts()}
    assert names == {"euler", *(f"solver{k}" for k in range(6))}
    assert page.legends[0].get_title().get_text() == "grey: 3 others"


@pytest.mark.parametrize(("schedule", "prediction"), [("linear", "velocity"), ("cosine", "v")])
def test_arrows_are_the_exact_velocity(schedule, prediction):
    class Known:
        spec = mixture_spec(schedule=schedule, prediction=prediction)

        def network(self, x, t, condition=None):
            return MIXTURE.output(prediction, x, SCHEDULES[schedule](t))

    x = np.random.default_rng(0).standard_normal((9, 2)).astype(np.float32)
    got = drawings.velocity(Known(), x, 0.4, {})
    np.testing.assert_allclose(got, MIXTURE.velocity(x, SCHEDULES[schedule](0.4)), rtol=1e-4)


def test_a_portrait_holds_ode_and_sde_from_the_same_noise(mixture):
    model = runtimes.load(mixture)
    seen = drawings.portrait(model, {"seed": 3}, 50)
    np.testing.assert_array_equal(seen.ode[0], seen.sde[0])
    np.testing.assert_array_equal(
        seen.ode[-1], runtimes.sample(model, 50, solver="heun", steps=60, seed=3)
    )
    page = drawings.portrait_figure(model, seen, {"seed": 3})
    assert [axes.get_title() for axes in page.axes[:4]] == [
        "t = 0",
        "t = 0.4",
        "t = 0.75",
        "t = 1",
    ]
    assert [len(axes.images) for axes in page.axes] == [1, 1, 1, 1, 0, 0, 0, 0]
    path = page.axes[4].lines[2].get_xydata()
    np.testing.assert_allclose(path, seen.ode[:, 2], rtol=1e-6)
    assert "SDE" in page.axes[5].get_title()


def run(*words):
    with pytest.raises(SystemExit) as stop:
        main(["plot", *map(str, words)])
    return stop.value.code or 0


def test_plot_flow_writes_a_png(mixture, tmp_path, capfd):
    assert run("flow", mixture, "-n", "60", "--out", tmp_path / "f.png") == 0, capfd.readouterr()
    with Image.open(tmp_path / "f.png") as image:
        assert image.width > 1200
        assert np.asarray(image.convert("L")).std() > 10


def test_plot_error_prints_the_recommendation(mixture, tmp_path, capfd):
    assert run("error", mixture, "-n", "24", "--out", tmp_path / "e.png") == 0
    out = capfd.readouterr().out
    assert "same quality as euler 50; toolkit sample --solver " in out
    assert (tmp_path / "e.png").stat().st_size > 10_000


def test_mistakes_are_one_line(mixture, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces.onnx").write_bytes(faces_bytes())
    (tmp_path / "flow.png").write_text("mine")
    for words, says in {
        ("erorr", mixture): "kind: expected one of error, flow, got 'erorr'; did you mean",
        ("flow", mixture): "flow.png: expected no such file",
        ("flow", "faces.onnx", "-f"): "plot flow: expected a model of points in the plane",
        ("error", mixture, "--out", "a.jpg"): "a.jpg: expected",
        ("error", mixture, "--data", "digit"): "data (a name, or a path",
        ("error", mixture, "--data", "digits"): "data: expected held-out rows of shape (2,), got",
        ("flow", mixture, "-f", "--data", "digits"): "data: expected none for plot flow",
    }.items():
        assert run(*words) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1), err
        assert err.startswith(f"error: {says}"), err
    assert (tmp_path / "flow.png").read_text() == "mine"


def test_a_model_may_not_name_files_to_open(tmp_path, monkeypatch):
    """Only a person may, by --data."""
    monkeypatch.chdir(tmp_path)
    np.savez("private.npz", x=np.zeros((2000, 2), np.float32))
    model = SimpleNamespace(spec=Spec("a", (2,), training={"data": "private.npz"}))
    assert _real(model, {}, 4, None) is None
    assert _real(model, {}, 4, "private.npz").shape == (200, 2)
