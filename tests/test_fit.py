"""A few fitted calls land where many do, on noise and labels that no fit has seen, or are refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

import runtimes
from export import TorchModel
from export.fitted import with_fitted
from runtimes import tableaus
from runtimes.spec import Sampler
from runtimes.tableau import MOST_SLOTS, dense, run
from runtimes.tableaus import Fit
from toolkit import fit_torch, fits
from toolkit.cli.progress import Bar
from toolkit.coefficients import LOOK, from_tableau, to_tableau
from toolkit.fit import CONTENDERS, classical, fit, judged, without_halves
from toolkit.landing import pose, traced
from toolkit.teacher import along, teach

from .problems import MIXTURE, graph, mixture_graph, mixture_spec, write_onnx
from .test_sampler import write


class Net(torch.nn.Module):
    """The mixture's exact velocity on the linear schedule; label k lets mode k through, 8 all of them."""

    def __init__(self, labelled=False):
        super().__init__()
        self.labelled = labelled
        self.means = torch.nn.Parameter(torch.tensor(MIXTURE.means).float())

    def forward(self, x, time, label=None):
        t = time[:, None]
        spread = t * t * MIXTURE.variance + (1 - t) ** 2
        logits = -0.5 * ((x[:, None] - t[:, :, None] * self.means) ** 2).sum(-1) / spread
        if self.labelled:
            other = torch.arange(8)[None] != label[:, None]
            logits = logits.masked_fill(other & (label < 8)[:, None], -1e9)
        centre = torch.softmax(logits, 1) @ self.means
        white = (x - t * centre) / spread
        return centre + t * MIXTURE.variance * white - (1 - t) * white


class Still(torch.nn.Module):
    """A field that stands still: every solver is exact."""

    def forward(self, x, time):
        return x * 0.0


class Broken(torch.nn.Module):
    """Finite, but the slope of its root at zero is not."""

    def forward(self, x, time):
        return Net()(x, time) + torch.sqrt(time * 0.0)[:, None]


class Deaf(Net):
    """It hears no label, so guidance changes nothing."""

    def forward(self, x, time, label):
        return super().forward(x, time, torch.full_like(label, 8))


def last(states):
    (*_, now) = states
    return now.fitted


@pytest.fixture(scope="module")
def problem():
    return pose(TorchModel(mixture_spec(), Net()), seed=1, n=512)


@pytest.fixture(scope="module")
def labelled():
    model = TorchModel(mixture_spec(labelled=True), Net(labelled=True))
    return pose(model, guidance=(1.0, 2.0), seed=2, n=256)


@pytest.fixture(scope="module")
def four(problem):
    return last(fit(problem, 4, module=Net(), iterations=60))


def test_four_fitted_calls_beat_fifty_of_euler_on_noise_of_their_own(problem, four):
    times = tuple(np.linspace(0, 1, 51).tolist())
    euler = problem.error(traced(problem, "euler", times), "judge")
    assert four.error < euler
    assert four.error < 0.1 * four.classical[0][2]
    assert {name for name, _, _ in four.classical} == set(CONTENDERS)
    assert (four.evaluations, four.interrupted, four.labels) == (4, False, None)
    # the same by hand, on starts that no part of the fit has seen
    noise = np.random.default_rng(99).standard_normal((512, 2)).astype(np.float32)
    model = TorchModel(mixture_spec(), Net())
    network = lambda x, t, on: model.network(x.astype(np.float32), t)  # noqa: E731
    fine = run(traced(problem, "rk4", times), network, noise)
    mine = run(to_tableau(four.table, problem.shown), network, noise)
    (*_, (_, a)), (*_, (_, b)) = fine, mine
    assert np.sqrt(((a - b) ** 2).mean()) < 2 * euler


def test_least_squares_alone_need_no_gradient(problem):
    alone = last(fit(problem, 4))
    assert alone.error < 0.1 * alone.classical[0][2]
    least = min(error for _, _, _, error in along(problem, 4, 3))
    assert problem.table_error(alone.table) == pytest.approx(least, rel=1e-3)


def test_the_second_stage_goes_on_from_the_best_of_the_first(problem, four):
    least = min(error for _, _, _, error in along(problem, 4, 1))
    assert problem.table_error(four.table) < 0.98 * least


def test_times_that_are_moved_are_better_than_those_of_a_warped_grid(problem):
    warped, moved = (
        min(error for _, _, _, error in along(problem, 3, rounds)) for rounds in (0, 3)
    )
    assert moved < 0.99 * warped


def test_adam_alone_goes_on_from_a_classical_start(problem):
    (ab2,) = [tableau for name, _, tableau in classical(problem, 4) if name == "ab2"]
    start = from_tableau(ab2, problem.shown)
    tables = {e: table for _, table, e in fit_torch.refine(problem, Net(), start, 100)}
    assert problem.table_error(tables[min(tables)], "judge") < 0.5 * problem.error(ab2, "judge")


@pytest.mark.parametrize("prediction", ["velocity", "edm"])
def test_each_classical_tableau_is_in_the_family(prediction):
    """What a solver does is what its table of keep and mix does, whatever the network says."""
    schedule = "linear" if prediction == "velocity" else "edm"
    spec = mixture_spec(
        labelled=True, schedule=schedule, prediction=prediction, sampler=Sampler("heun", 8)
    )
    model = TorchModel(spec, _Module(lambda x, t, label: torch.tanh(x + t[:, None])))
    small = pose(model, n=8)
    seen = set()
    for calls in (3, 4, 7, 12):
        for name, _, tableau in classical(small, calls):
            table = from_tableau(tableau, small.shown)
            assert table is not None
            assert (table.calls, table.evaluations) == (tableau.calls, 2 * tableau.calls)
            own, theirs = (small.end(t, "fit") for t in (to_tableau(table, small.shown), tableau))
            np.testing.assert_allclose(own, theirs, atol=1e-4 * np.abs(theirs).max())
            seen.add(name)
    assert seen == set(CONTENDERS)


class _Module(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, *arguments):
        return self.call(*arguments)


def test_a_row_looks_no_further_back_than_its_window(problem):
    table, _ = teach(problem, np.round(np.linspace(0, 50, 21)).astype(int))
    assert to_tableau(table, problem.shown).slots == LOOK
    assert np.count_nonzero(table.mix[-1]) == LOOK
    ((_, _, tableau),) = [one for one in classical(problem, 32) if one[0] == "unipc3"]
    cut = to_tableau(from_tableau(tableau, problem.shown), problem.shown)
    assert cut.slots <= MOST_SLOTS
    ends = [problem.end(one, "judge") for one in (cut, tableau)]
    np.testing.assert_allclose(*ends, atol=1e-3)


@pytest.mark.parametrize("calls", [1, 33])
def test_calls_have_a_range(problem, calls):
    with pytest.raises(ValueError, match=rf"calls: .* whole number from 2 to 32, got {calls}"):
        next(fit(problem, calls))


def test_a_fit_that_is_no_better_is_refused():
    still = pose(TorchModel(mixture_spec(), Still()), n=16)
    with pytest.raises(ValueError, match=r"expected 3 fitted calls to err less than .* got 0"):
        last(fit(still, 3, module=Still(), iterations=3))


def test_a_worse_table_is_refused_by_its_judgement(problem, four):
    spoilt = replace(four.table, keep=four.table.keep * 1.2)
    with pytest.raises(
        ValueError, match="4 fitted calls to err less than heun with 2 steps"
    ) as caught:
        judged(problem, spoilt, classical(problem, 4))
    assert "\n" not in str(caught.value)


def test_an_interrupted_fit_keeps_the_best_so_far(problem):
    asked = iter([False] * 3 + [True] * 99)
    states = list(fit(problem, 4, module=Net(), stop=lambda: next(asked)))
    assert [now.stage for now in states] == ["along the teacher"] * 4 + ["judged"]
    assert states[-1].fitted.interrupted
    assert states[-1].error == min(now.error for now in states)
    assert states[-1].fitted.error < states[-1].fitted.classical[0][2]


def test_gradients_that_are_not_finite_are_refused(problem):
    with pytest.raises(FloatingPointError, match=r"expected finite gradients, got NaN .* step 1"):
        last(fit(problem, 2, module=Broken(), iterations=5))


def test_a_reference_that_is_not_finite_is_refused():
    model = TorchModel(mixture_spec(), _Module(lambda x, t: x / (t[:, None] * 0.0)))
    with pytest.raises(FloatingPointError, match="reference: expected finite states"):
        pose(model, n=8)


def test_the_gradient_is_the_slope_of_the_loss(labelled):
    """d loss / d number against a central difference, guided by weights of the samples' own."""
    table, _ = teach(labelled, np.array([0, 20, 35, 50]))
    numbers = fit_torch.Numbers(labelled, Net(labelled=True).double(), table)
    numbers._shown = lambda x, t: (x, t.expand(len(x)))  # in float64 throughout
    rows = np.arange(16)
    numbers.loss(rows).backward()
    for tensor in (numbers.times, numbers.z[1]):
        h = 1e-5
        for k in range(len(tensor)):
            with torch.no_grad():
                tensor[k] += h
                up = float(numbers.loss(rows))
                tensor[k] -= 2 * h
                down = float(numbers.loss(rows))
                tensor[k] += h
            slope = (up - down) / (2 * h)
            assert float(tensor.grad[k]) == pytest.approx(slope, rel=1e-3, abs=1e-9)


def test_times_stay_on_the_path(problem):
    table, _ = teach(problem, np.array([0, 20, 35, 50]))
    numbers = fit_torch.Numbers(problem, Net(), table)
    with torch.no_grad():
        numbers.times += torch.tensor([-5.0, 5.0])
    assert numbers.table().times.tolist() == [0.0, 0.0, 1.0]


def test_the_loss_is_of_the_run_that_the_table_makes(labelled):
    table, _ = teach(labelled, np.array([0, 20, 35, 50]))
    numbers = fit_torch.Numbers(labelled, Net(labelled=True), table)
    with torch.no_grad():
        numbers.z[1] += 0.01
        numbers.times[0] += 0.02
    rows = labelled.parts["fit"]
    apart = labelled.end(to_tableau(numbers.table(), labelled.shown), "fit")
    apart = apart - labelled.states[-1, rows]
    each = np.linalg.norm(apart.astype(np.float64), axis=1) / np.sqrt(apart.shape[1])
    loss = float(numbers.loss(np.arange(rows.start, rows.stop)).detach())
    assert loss == pytest.approx(each.mean(), rel=1e-3)


def test_one_sample_that_lands_elsewhere_does_not_decide(problem):
    """Moved as far as the data is wide, it leaves the fit to all others as good as it was."""
    (ab2,) = [tableau for name, _, tableau in classical(problem, 4) if name == "ab2"]
    start = from_tableau(ab2, problem.shown)
    states = problem.states.copy()
    states[-1, problem.parts["fit"].start] += 10.0
    fitted = (
        min(error for *_, error in fit_torch.refine(where, Net(), start, 100))
        for where in (problem, replace(problem, states=states))
    )
    one, astray = fitted
    assert one < 0.5 * problem.table_error(start)
    assert astray < 1.3 * one


def test_labels_are_held_out_and_guidance_is_within_its_range(labelled):
    parts = labelled.parts
    unseen = set(labelled.condition[parts["labels"]])
    for name in ("fit", "stop", "judge"):
        assert unseen.isdisjoint(labelled.condition[parts[name]])
    assert 1.0 <= labelled.weight.min() < 1.1
    assert 1.9 < labelled.weight.max() <= 2.0
    assert [there.guidance[0] for there in labelled.off] == [3.0, 5.0]


def test_a_guided_fit_is_judged_off_its_range_and_on_other_labels(labelled):
    found = last(fit(labelled, 4, module=Net(labelled=True), iterations=40))
    least = found.classical[0][2]
    assert found.error < 0.5 * least
    assert found.labels is not None
    assert found.ready.fit == Fit((1.0, 2.0), found.error, tuple(o[:2] for o in found.off))
    assert found.off[0][1] > found.error  # further from what it was fitted to
    assert found.evaluations == 4 + found.table.guided.sum()


def test_halves_that_buy_nothing_are_switched_off_and_others_stay(labelled):
    table, error = teach(labelled, np.array([0, 20, 35, 50]))
    kept, _ = without_halves(labelled, table, error)
    assert kept.guided.any()
    spec = mixture_spec(labelled=True)
    deaf = pose(TorchModel(spec, Deaf(labelled=True)), guidance=(1.0, 3.0), n=32)
    table, error = teach(deaf, np.array([0, 20, 35, 50]))
    assert table.evaluations == 6
    assert without_halves(deaf, table, error)[0].evaluations == 3


@pytest.mark.parametrize(("guidance", "each"), [((1.0, 1.0), 1), ((1.0, 2.0), 2)])
def test_a_weight_of_one_costs_no_second_half(guidance, each):
    rows = []
    module = _Module(lambda x, t, label: rows.append(len(x)) or x * 0.5)
    small = pose(TorchModel(mixture_spec(labelled=True), module), guidance=guidance, n=8)
    rows.clear()
    small.end(classical(small, 4)[0][2], "fit")
    assert rows == [8 * each] * 4


@pytest.fixture(scope="module")
def guided_four(labelled):
    table, _ = teach(labelled, np.array([0, 16, 30, 42, 50]))
    ready = judged(labelled, table, classical(labelled, 4)).ready
    some = replace(table, guided=np.array([True, False, True, True]))
    return replace(ready, tensor=dense(to_tableau(some, labelled.shown)))


@pytest.fixture(scope="module")
def files(tmp_path_factory, guided_four):
    """The labelled mixture in every form, with a fitted tableau put in afterwards."""
    folder, found = tmp_path_factory.mktemp("fitted"), {}
    spec = mixture_spec(labelled=True)
    write_onnx(folder / "network.onnx", labelled=True)
    for form in ("network", "sampler", "seeded"):
        path = folder / f"{form}.onnx"
        if form != "network":
            write(path, form, mixture_graph(True), spec)
        before = runtimes.load(path)
        with_fitted(before.file, (guided_four,), path, overwrite=True)
        again = replace(guided_four, sigma=1.0)  # takes the place of the one before
        with_fitted(runtimes.load(path).file, (again,), path, overwrite=True)
        found[form] = runtimes.load(path, threads=1)
        names = [(one.solver, one.steps) for one in before.tableaus]
        assert [(one.solver, one.steps) for one in found[form].tableaus] == [*names, ("fitted", 4)]
    return found


@pytest.mark.parametrize("weight", [1.0, 1.5])
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.5, 1.0)])
def test_it_is_the_same_run_in_every_form(files, weight, interval):
    asked = {
        "calls": 4,
        "label": [0, 3, 5],
        "guidance": weight,
        "seed": 3,
        "interval": interval,
    }
    host, *inside = (runtimes.sample(files[form], 7, **asked) for form in files)
    stepped = runtimes.sample(files["sampler"], 7, how="step", **asked)
    for x in (*inside, stepped):
        np.testing.assert_allclose(x, host, rtol=0, atol=2e-6)
    plan = runtimes.plan(files["network"], 7, **asked)
    flags = [row.guided for row in plan.tableau.rows]
    times = [row.time for row in plan.tableau.rows]
    fitted = [True, False, True, True]
    on = [f and weight != 1.0 and t >= interval[0] for f, t in zip(fitted, times, strict=True)]
    assert flags == on
    assert (plan.calls, len(plan.times)) == (4, 5)


def test_noise_of_ones_own_may_be_fitted_samples(files):
    noise = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    a, b = (
        runtimes.decode(files[form], noise, calls=4, label=1) for form in ("network", "sampler")
    )
    np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"calls": 5}, r"expected what this model was fitted for \(4\), got 5"),
        ({"calls": 1}, "whole number from 2 to 32, got 1"),
        ({"calls": 33}, "whole number from 2 to 32, got 33"),
        ({"calls": 4, "steps": 4}, "expected it alone, got steps beside it"),
        ({"calls": 4, "solver": "heun", "grid": "uniform"}, "got solver, grid beside it"),
        ({"calls": 4, "chart": "noise"}, "got chart beside it"),
        ({"calls": 4, "cfgpp": 0.5}, "got cfgpp beside it"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(files, asked, words):
    with pytest.raises(ValueError, match=words) as caught:
        runtimes.sample(files["network"], 2, label=1, **asked)
    assert "\n" not in str(caught.value)


def test_a_part_of_a_run_has_no_rows(files):
    data = np.zeros((2, 2), np.float32)
    asked = {"calls": 4, "label": 1}
    for part in (
        lambda: runtimes.edit(files["network"], data, strength=0.5, **asked),
        lambda: runtimes.invert(files["network"], data, **asked),
        lambda: runtimes.inpaint(files["network"], data, data > 1, **asked),
    ):
        with pytest.raises(ValueError, match="expected a run from noise to data"):
            part()


def test_a_model_without_any_says_how_to_get_them(points):
    with pytest.raises(ValueError, match=r"fitted for \(none\), got 4; run toolkit fit"):
        runtimes.sample(runtimes.load(points), 2, calls=4)


def test_guidance_off_the_range_is_a_warning_with_the_error_there(files, guided_four):
    (w, error) = guided_four.fit.off[0]
    with pytest.warns(UserWarning, match=rf"fitted for 1 to 2 .*at {w:g} is {error:.2g}"):
        runtimes.sample(files["sampler"], 2, calls=4, label=1, guidance=2.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runtimes.sample(files["sampler"], 2, calls=4, label=1, guidance=2.0)


def test_the_metadata_brings_back_the_fit(guided_four):
    (back,) = tableaus.from_json(tableaus.to_json((guided_four,)))
    assert back.fit == guided_four.fit
    np.testing.assert_array_equal(back.tensor, guided_four.tensor)
    for spoilt in ({"error": float("nan")}, {"guidance": [1.0]}, {"off": [[1.0]]}):
        (entry,) = json.loads(tableaus.to_json((guided_four,)))
        entry["fit"] |= spoilt
        with pytest.raises(ValueError, match="tableaus: expected a list of tableaus"):
            tableaus.from_json(json.dumps([entry]))


def test_contexts_are_drawn_from_those_given():
    spec = mixture_spec(condition=runtimes.Condition(kind="context", shape=(2,)))
    model = TorchModel(spec, _Module(lambda x, t, context: context - x))
    contexts = np.random.default_rng(0).standard_normal((10, 2)).astype(np.float32)
    drawn = pose(model, contexts=contexts, n=16)
    parts = {
        name: {row.tobytes() for row in drawn.condition[rows]}
        for name, rows in drawn.parts.items()
    }
    assert parts["labels"].isdisjoint(parts["fit"] | parts["judge"])
    assert parts["labels"] | parts["fit"] <= {row.tobytes() for row in contexts}
    with pytest.raises(
        ValueError, match=r"contexts: expected float32 \(m, \*\(2,\)\) .* got none"
    ):
        pose(model)


@pytest.mark.parametrize("guidance", [(3.0, 1.0), (1.0, 2.0)])
def test_guidance_that_has_no_meaning_is_refused(guidance):
    with pytest.raises(ValueError, match="guidance: expected"):
        pose(TorchModel(mixture_spec(), Net()), guidance=guidance)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run folder of a small network, trained for a moment."""
    from toolkit import train_torch
    from toolkit.data import load
    from toolkit.recipe import default_recipe

    folder = tmp_path_factory.mktemp("runs") / "moons"
    data = load("two-moons")
    recipe = replace(default_recipe(data), steps=40, width=16, depth=1, save_every=40)
    for _ in train_torch.train(recipe, data, folder):
        pass
    return folder


def test_from_a_run_to_samples(toolkit, tiny, tmp_path):
    code, out, _ = toolkit("fit", tiny, "--calls", "3,5", "--iterations", "5")
    assert code == 0
    assert "2 fitted tableaus" in out
    code, _, err = toolkit("fit", tiny, "--calls", "3")
    assert (code, "expected no such file" in err) == (2, True)
    file = tmp_path / "a.onnx"
    assert toolkit("export", tiny, "--out", file)[0] == 0
    assert "fitted 3, fitted 5" in toolkit("inspect", file)[1]
    code, out, _ = toolkit("sample", file, "-n", 4, "--calls", 3, "--out", tmp_path / "a.npy")
    assert code == 0
    assert "4 samples, 3 network calls each" in out
    mine = np.load(tmp_path / "a.npy")
    np.testing.assert_array_equal(mine, runtimes.sample(runtimes.load(file), 4, calls=3))
    beside = (("--steps", 3), ("-s", "dopri5"), ("--eta", 0), ("--diffusion", "zero"))
    for words in (("--calls", 4), *(("--calls", 3, *more) for more in beside)):
        code, _, err = toolkit("sample", file, *words, "--out", tmp_path / "b.npy")
        assert (code, err.count("\n")) == (2, 1)


def test_a_broken_fit_leaves_the_file_that_is_there(toolkit, tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "run")
    (folder / fits.NAME).unlink(missing_ok=True)
    file = tmp_path / "a.onnx"
    assert toolkit("export", folder, "--out", file)[0] == 0
    before = file.read_bytes()
    (folder / fits.NAME).write_text("{")
    code, _, err = toolkit("export", folder, "--out", file, "--force", "--guidance", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("export", "{file}", "--spec", "{file}", "--weights", "network", "--out", "b.onnx"),
        ("export", "{file}", "--spec", "{file}", "--backend", "mlx", "--out", "b.onnx"),
        ("export", "{run}", "--batch", 3, "--out", "b.onnx"),
        ("fit", "{file}", "--weights", "network", "--out", "b.onnx"),
        ("fit", "{file}", "--data", "two-moons", "--out", "b.onnx"),
    ],
)
def test_an_option_without_effect_is_refused(toolkit, tiny, tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.onnx"
    assert toolkit("export", tiny, "--out", file)[0] == 0
    given = [str(word).format(file=file, run=tiny) for word in words]
    code, _, err = toolkit(*given)
    assert (code, err.count("\n"), (tmp_path / "b.onnx").exists()) == (2, 1, False)


def test_other_weights_leave_a_fit_out(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "run")
    (folder / fits.NAME).unlink(missing_ok=True)
    assert fits.read(folder, "ema") == ()
    ready = tableaus.ready(mixture_spec(), "heun", 5, "uniform")
    entries = json.loads(tableaus.to_json((ready,)))
    text = {"weights": fits.digest(folder, "ema"), "tableaus": entries}
    (folder / fits.NAME).write_text(json.dumps(text))
    (own,) = fits.read(folder, "ema")
    np.testing.assert_array_equal(own.tensor, ready.tensor)
    with pytest.warns(UserWarning, match="fitted to other weights"):
        assert fits.read(folder, "network") == ()
    (folder / fits.NAME).write_text("{")
    with pytest.raises(ValueError, match="expected what toolkit fit writes"):
        fits.read(folder, "ema")


def test_an_onnx_is_fitted_without_gradients(toolkit, tmp_path):
    path, out = write_onnx(tmp_path / "a.onnx", labelled=True), tmp_path / "b.onnx"
    code, _, err = toolkit("fit", path, "--calls", "4")
    assert (code, "out: expected where to write" in err) == (2, True)
    code, text, _ = toolkit("fit", path, "--calls", "4", "--out", out)
    assert code == 0
    assert "guidance 2, off the fitted" in text
    (ready,) = runtimes.load(out).tableaus
    assert (ready.solver, ready.steps) == ("fitted", 4)


def test_ctrl_c_keeps_the_best_so_far(toolkit, tmp_path, monkeypatch):
    """A real signal, sent when the second fit has begun: the first and what the second has are written."""
    shown, sent = Bar.show, []

    def show(bar, *words):
        shown(bar, *words)
        if bar.label == "3 calls" and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))

    monkeypatch.setattr(Bar, "show", show)
    path, out = write_onnx(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    code, text, err = toolkit("fit", path, "--calls", "4,3,6", "--out", out)
    assert (code, sent) == (130, [None])
    assert "2 fitted tableaus" in text
    assert "the best so far is kept" in err
    assert [one.steps for one in runtimes.load(out).tableaus] == [4, 3]


def test_ctrl_c_before_anything_is_fitted_writes_nothing(toolkit, tmp_path, monkeypatch):
    shown, sent = Bar.show, []

    def show(bar, *words):
        shown(bar, *words)
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))

    monkeypatch.setattr(Bar, "show", show)
    path, out = write_onnx(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    code, _, err = toolkit("fit", path, "--calls", "4", "--out", out)
    assert (code, err.splitlines()[-1]) == (130, "stopped")
    assert not out.exists()


def test_a_refused_fit_is_said_and_nothing_is_written(toolkit, tmp_path):
    nodes = [helper.make_node("Sub", ["x", "x"], ["prediction"])]
    values = [("x", TensorProto.FLOAT, ["B", 2]), ("time", TensorProto.FLOAT, ["B"])]
    still = write_onnx(tmp_path / "a.onnx", graph=graph(nodes, values, ["B", 2]))
    code, _, err = toolkit("fit", still, "--calls", "3", "--out", tmp_path / "b.onnx")
    assert code == 2
    assert "expected 3 fitted calls to err less than" in err
    assert "got none of 3" in err.splitlines()[-1]
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--calls", "1"),
        ("--calls", "33"),
        ("--calls", "4,4"),
        ("--calls", "four"),
        ("--guidance", "1,2,3"),
        ("--guidance", "3,1"),
        ("--guidance", "nan"),
        ("--guidance", "1e9"),
        ("--iterations", "-1"),
        ("--seed", "-1"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(toolkit, tmp_path, words):
    path = write_onnx(tmp_path / "a.onnx", labelled=True)
    code, _, err = toolkit("fit", path, "--out", tmp_path / "b.onnx", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_the_example_judges_and_draws(files, tmp_path):
    rng, y = np.random.default_rng(0), np.arange(1600) % 8
    x = MIXTURE.means[y] + MIXTURE.variance**0.5 * rng.standard_normal((len(y), 2))
    np.savez(tmp_path / "data.npz", x=x.astype(np.float32), y=y)
    asked = ("-n", "200", "--rounds", "2", "--calls", "4", "20", "--data", "data.npz")
    script = Path(__file__).parent.parent / "examples" / "few_calls.py"
    done = subprocess.run(
        [sys.executable, script, files["network"].file.path, *asked],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^fitted +4 +0\.0", done.stdout, re.M)
    rounds = json.loads((tmp_path / "few_calls.json").read_text())["rounds"]
    assert rounds[0]["fine 400"][0] == 0.0
    for one in rounds:
        for name in ("floor 0", "Gaussian 0"):  # here each label's rows are a Gaussian
            assert (one[name][0], one[name][3] > 0.9) == (None, True)
        assert 2.0 < one["euler 20"][4] / one["euler 4"][4] < 10.0
    assert rounds[0]["fitted 4"][0] < rounds[0]["euler 20"][0] < rounds[0]["euler 4"][0]
    assert (tmp_path / "few_calls.png").stat().st_size > 5000
