"""The benchmark says what it measured, the front holds what nothing beats, the picture shows both."""

import json

import numpy as np
import pytest
from PIL import Image

import runtimes
from runtimes import timing
from toolkit import benchmark, data, pareto, peers
from toolkit.benchmark import Result, Row, Start
from toolkit.cli import main
from toolkit.recipe import Recipe
from toolkit.train_torch import train

from .conftest import faces_bytes
from .problems import mixture_graph, mixture_spec
from .test_sampler import write

REQUEST = {"seed": 5}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The mixture as two forms of file."""
    folder = tmp_path_factory.mktemp("benchmark")
    write(folder / "plain.onnx", "network", mixture_graph(), mixture_spec())
    write(folder / "loop.onnx", "sampler", mixture_graph(), mixture_spec())
    return [folder / "plain.onnx", folder / "loop.onnx"]


@pytest.fixture(scope="module")
def result(files):
    return benchmark.measure(
        files, request=REQUEST, calls=(3, 4, 8), solvers=("euler", "heun", "rk4"), batches=(1, 3),
        threads=1, n=16, rounds=2, clock="cpu",
    )  # fmt: skip


def ours(result):
    return [row for row in result.rows if row.engine == "onnxruntime"]


def test_there_is_a_row_for_every_file_batch_and_number_of_calls(result):
    found = {(row.name, row.batch, row.calls) for row in ours(result)}
    assert found == {(f, b, c) for f in ("plain", "loop") for b in (1, 3) for c in (3, 4, 8)}
    assert len(ours(result)) == len(found)
    for row in result.rows:
        low, middle, high = row.milliseconds
        assert 0.0 < low <= middle <= high
        assert (row.precision, row.provider, row.threads) == ("fp32", "cpu", 1)


def test_errors_are_those_of_the_samples(files, result):
    model = runtimes.load(files[0])
    fine = runtimes.sample(model, 16, seed=5, solver="rk4", steps=100)
    for row in ours(result):
        x = runtimes.sample(model, 16, seed=5, solver=row.solver, steps=row.steps)
        exact = np.median(np.linalg.norm(x - fine, axis=1) / np.sqrt(2))
        assert row.error == pytest.approx(exact, rel=1e-3)


def test_the_solver_is_the_one_that_errs_least(files, result):
    model = runtimes.load(files[0])
    fine = runtimes.sample(model, 16, seed=5, solver="rk4", steps=100)
    solvers = {(row.calls, row.solver, row.steps) for row in ours(result)}
    assert len(solvers) == 3
    assert {entry for entry in solvers if entry[0] == 3} == {(3, "euler", 3)}  # the others make 4
    for calls, solver, steps in solvers:
        mine = benchmark.error_of(model, fine, solver, steps, REQUEST)
        for other, each in (("euler", 1), ("heun", 2), ("rk4", 4)):
            if calls % each == 0:
                assert mine <= benchmark.error_of(model, fine, other, calls // each, REQUEST)


def test_starts_are_processes_of_their_own(files, result):
    assert [one.size for one in result.starts] == [path.stat().st_size for path in files]
    assert [one.form for one in result.starts] == ["network", "sampler"]
    for one in result.starts:
        assert one.seconds > 0.0
        assert 20 < one.megabytes < 2000  # numpy and ONNX Runtime, and no torch


def test_what_was_not_there_is_said(result):
    assert result.absent["torch eager"] == "no run folder given: --run FOLDER"
    assert result.settings["threads"]["cpu, batch 3"] == {"threads": 1, "all / one": None}
    text = pareto.table(result)
    assert "absent: torch eager (no run folder given: --run FOLDER)" in text
    for row in result.rows:
        assert f"{row.solver:<9} {row.steps:>5} {row.calls:>5} {row.error:>10.2e}" in text


def test_torch_takes_part_where_its_run_is(files, tmp_path):
    """Two steps of training: what it draws is the run's own."""
    known = data.load("two-moons")
    points = data.Data("points", known.x, None)
    recipe = Recipe("points", "mlp", 32, 1, 1, steps=2, batch=16)
    for _ in train(recipe, points, tmp_path / "run", device="cpu"):
        pass
    mine = peers.open_files(files[:1], "cpu", 1)
    found, absent = peers.open_peers(mine, tmp_path / "run", 1)
    (peer,) = [one for one in found if one.engine == "torch eager"]
    assert "torch eager" not in absent
    assert runtimes.sample(peer.model, 3, steps=2).shape == (3, 2)
    (tmp_path / "faces.onnx").write_bytes(faces_bytes())
    with pytest.raises(ValueError, match=r"^run: expected .* of shape \(8, 8, 1\), got \(2,\)"):
        peers.open_peers(
            peers.open_files([tmp_path / "faces.onnx"], "cpu", 1), tmp_path / "run", 1
        )


MADE = [
    (1.0, 5.0),
    (2.0, 4.0),
    (2.0, 6.0),  # slower and worse
    (3.0, 4.0),  # slower and no better
    (4.0, 3.99),  # better by less than a hundredth: rounding
    (5.0, 1.0),
    (5.0, 1.0),  # the same again
    (6.0, 0.5),
    (0.5, 9.0),
]


def test_the_front_holds_what_nothing_beats():
    assert pareto.front(MADE) == [8, 0, 1, 5, 7]
    assert pareto.front([]) == []
    assert pareto.front([(1.0, float("inf")), (2.0, 1.0)]) == [1]


def test_every_point_off_the_front_is_beaten_by_one_on_it():
    points = [tuple(point) for point in np.exp(np.random.default_rng(0).normal(size=(300, 2)))]
    best = pareto.front(points)
    assert best == sorted(best, key=lambda i: points[i][0])
    for i, (time, error) in enumerate(points):
        beaten = any(points[j][0] <= time and points[j][1] * 0.99 <= error for j in best)
        assert beaten or i in best
    for i in best:
        others = [points[j] for j in best if j != i]
        assert not any(a <= points[i][0] and b <= points[i][1] for a, b in others)


def made_row(name, batch, calls, time, error):
    quartiles = (0.9 * time, time, 1.2 * time)
    return Row(name, "onnxruntime", "fp32", "cpu", batch, 1, "ab2", calls, calls, quartiles, error)


ROWS = [
    made_row("a", 1, 4, 1.0, 0.1),
    made_row("a", 1, 8, 2.0, 0.05),
    made_row("b", 1, 4, 1.5, 0.1),
    made_row("b", 1, 8, 3.0, 0.01),
    made_row("a", 16, 4, 0.2, 0.1),
    made_row("b", 16, 4, 0.1, 0.1),
]


def test_the_picture_is_a_panel_for_each_batch_with_rings_on_its_front():
    page = pareto.pareto_figure(ROWS)
    assert [axes.get_title() for axes in page.axes] == ["batch 1, 1 thread", "batch 16, 1 thread"]
    left, right = page.axes
    lines = {line.get_label(): line for line in left.lines}
    np.testing.assert_array_equal(lines["a"].get_xydata(), [[1.0, 0.1], [2.0, 0.05]])
    np.testing.assert_array_equal(lines["b"].get_xydata(), [[1.5, 0.1], [3.0, 0.01]])
    rings = lines["on the front"].get_xydata()
    np.testing.assert_array_equal(rings, [[1.0, 0.1], [2.0, 0.05], [3.0, 0.01]])
    (ring,) = [line for line in right.lines if line.get_label() == "on the front"]
    np.testing.assert_array_equal(ring.get_xydata(), [[0.1, 0.1]])
    assert {axes.get_xscale() for axes in page.axes} == {axes.get_yscale() for axes in page.axes}
    assert left.get_xscale() == "log"
    assert [text.get_text() for text in left.texts] == ["ab2 4", "ab2 8", "ab2 8"][:2]
    assert {text.get_text() for text in page.legends[0].get_texts()} == {"a", "b", "on the front"}


def test_the_table_stars_the_front():
    start = Start("a", "network", "fp32", 1234, 0.5, 60.0)
    told = {"cpu, batch 1": {"threads": 1, "all / one": 1.07}}
    text = pareto.table(Result(tuple(ROWS), (start,), {}, {"threads": told, "fine": "a"}))
    starred = [line.split()[1] for line in text.splitlines() if line.startswith("  * ")][:-1]
    assert starred == ["a", "a", "b", "b"]
    assert "batch 1, cpu on 1 thread (all cores / 1: 1.07)" in text
    assert "1,234" in text


@pytest.mark.parametrize(
    ("one", "every", "count"),
    [
        ([1.0, 1.0, 1.0, 1.0], [0.5, 0.6, 0.5, 0.6], 4),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 0.99, 1.01, 1.0], 1),  # a tie
        ([1.0, 1.0, 1.0, 1.0], [0.97, 0.96, 0.97, 0.96], 1),  # not worth it
        ([1.0, 1.0, 1.0, 1.0], [0.5, 0.9, 1.5, 1.6], 1),  # a busy machine
    ],
)
def test_all_cores_have_to_gain_and_in_most_rounds(one, every, count, monkeypatch):
    monkeypatch.setattr(timing, "cores", lambda: 4)
    monkeypatch.setattr(timing, "interleaved", lambda runs, rounds: {"1": one, "4": every})
    found, ratio = timing.threads_for(lambda threads: lambda: None)
    assert found == count
    assert ratio == pytest.approx(np.median(np.divide(every, one)))


def test_every_contender_is_timed_once_a_round_after_one_to_warm_up():
    heard = []
    runs = {name: lambda name=name: heard.append(name) for name in "abc"}
    clock = iter(range(1000))
    seconds = timing.interleaved(timing.warmed(runs), 5, clock=lambda: next(clock))
    assert seconds == {name: [1] * 5 for name in "abc"}
    rounds = ["".join(heard[i : i + 3]) for i in range(0, len(heard), 3)]
    assert rounds[0] == "abc"
    assert len(rounds) == 6
    assert all(sorted(one) == list("abc") for one in rounds)
    assert len(set(rounds)) > 1


def test_ratios_are_within_rounds():
    assert timing.ratios([2.0, 20.0, 3.0], [1.0, 10.0, 3.0]) == (1.5, 2.0, 2.0)
    assert timing.ratios([0.0, 0.0], [0.0, 0.0]) == (1.0, 1.0, 1.0)


def test_a_program_that_fails_says_so():
    seconds, megabytes = timing.alone("x = b'x' * (100 << 20)")
    assert megabytes > 100
    assert seconds >= 0.0
    with pytest.raises(RuntimeError, match="got 1: ValueError: no"):
        timing.alone("raise ValueError('no')")


def toolkit(*words):
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *map(str, words)])
    return stop.value.code or 0


def test_the_command_writes_what_it_prints(files, tmp_path, capfd):
    options = ("--calls", "2,4", "--batch", "1", "--threads", "1", "-n", "8", "--rounds", "2")
    outs = ("--out", tmp_path / "a.png", "--json", tmp_path / "a.json")
    assert toolkit(files[0], "-s", "euler,heun", *options, *outs) == 0
    out = capfd.readouterr().out
    raw = json.loads((tmp_path / "a.json").read_text())
    assert {row["calls"] for row in raw["rows"]} == {2, 4}
    assert raw["settings"]["rounds"] == 2
    for row in raw["rows"]:
        assert f"{row['error']:.2e}" in out
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 800
        assert np.asarray(picture.convert("L")).std() > 5


def test_mistakes_are_one_line(files, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces.onnx").write_bytes(faces_bytes())
    (tmp_path / "plain.onnx").write_bytes(files[0].read_bytes())
    (tmp_path / "mine.png").write_text("mine")
    few = ("-n", "4", "--rounds", "2", "--threads", "1")
    for words, says in {
        ("absent.onnx",): "absent.onnx: expected a model file",
        (files[0], "faces.onnx"): "faces.onnx: expected samples of shape (2,) under the same",
        (files[0], "plain.onnx"): "models: expected different names, got plain, plain",
        (files[0], "--calls", "four"): "calls: expected whole numbers like 4,8, got 'four'",
        (files[0], "--calls", "0"): "calls: expected",
        (files[0], "--solver", "huen"): "solver: expected one of",
        (
            files[0],
            "--solver",
            "rk4",
            "--calls",
            "5",
            *few,
        ): "calls: expected numbers that one of rk4",
        (files[0], "--clock", "cup"): "clock: expected one of wall, cpu, got 'cup'",
        (files[0], "--rounds", "1"): "rounds: expected",
        (files[0], "--out", "a.jpg"): "a.jpg: expected",
        (files[0], "--out", "mine.png"): "mine.png: expected no such file",
        (files[0], "--json", "mine.png"): "mine.png: expected no such file",
    }.items():
        assert toolkit(*words) == 2, words
        out, err = capfd.readouterr()
        last = err.splitlines()[-1]
        assert out == ""
        assert last.startswith(f"error: {says}"), err
    assert (tmp_path / "mine.png").read_text() == "mine"


def test_a_fixed_run_cannot_be_chosen(tmp_path):
    write(tmp_path / "fixed.onnx", "unrolled", mixture_graph(), mixture_spec())
    with pytest.raises(ValueError, match="got the form 'unrolled'; benchmark the form network"):
        benchmark.measure([tmp_path / "fixed.onnx"], request={})
