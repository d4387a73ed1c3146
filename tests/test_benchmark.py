"""The benchmark says what it measured, the front holds what nothing beats, the picture shows both."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtimes
from export.fitted import with_fitted
from runtimes import tableaus, timing
from toolkit import benchmark, pareto, peers
from toolkit.benchmark import Result, Row
from toolkit.cli import main
from toolkit.starts import Start

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
        threads=1, peers=(), n=16, rounds=2, clock="cpu",
    )  # fmt: skip


def test_there_is_a_row_for_every_file_batch_and_number_of_calls(result):
    found = {(row.name, row.batch, row.calls) for row in result.rows}
    assert found == {(f, b, c) for f in ("plain", "loop") for b in (1, 3) for c in (3, 4, 8)}
    assert len(result.rows) == len(found)
    for row in result.rows:
        low, middle, high = row.milliseconds
        assert 0.0 < low <= middle <= high
        assert (row.precision, row.provider, row.threads) == ("fp32", "cpu", 1)


def test_every_row_stands_beside_as_many_bare_calls(result):
    """The host's loop, with its checks around each call, takes longer than they do."""
    for batch in (1, 3):
        rows = [row for row in result.rows if row.batch == batch]
        assert len({(row.calls, row.bare) for row in rows}) == 3
        for row in rows:
            assert 0.0 < row.ratio[0] <= row.ratio[1] <= row.ratio[2]
            assert row.name != "plain" or row.ratio[1] > 1.0
    assert result.settings["bare"] == "plain"


def test_without_a_network_alone_there_are_no_bare_calls(files):
    result = benchmark.measure(
        files[1:], request=REQUEST, calls=(4,), solvers=("euler",), batches=(1,), threads=1,
        peers=(), n=4, rounds=2,
    )  # fmt: skip
    assert {(row.bare, row.ratio) for row in result.rows} == {(None, None)}
    assert "bare" not in pareto.table(result).replace("/ bare  [quartiles]", "")


def test_errors_are_those_of_the_samples(files, result):
    model = runtimes.load(files[0])
    fine = runtimes.sample(model, 16, seed=5, solver="rk4", steps=100)
    for row in result.rows:
        x = runtimes.sample(model, 16, seed=5, solver=row.solver, steps=row.steps)
        exact = np.median(np.linalg.norm(x - fine, axis=1) / np.sqrt(2))
        assert row.error == pytest.approx(exact, rel=1e-3)


def error_of(model, fine, solver, steps):
    asked = {"seed": 5, "solver": solver, "steps": steps}
    return benchmark.error_of(peers.ours(model), fine, asked)


def test_a_fitted_tableau_takes_part_beside_the_solvers(files, tmp_path):
    """One that is rk4's own, so its error is known; the file without it and another loop have no such row."""
    own = tableaus.ready(mixture_spec(), "rk4", 1, "uniform")
    path, plain = tmp_path / "known.onnx", runtimes.load(files[0])
    with_fitted(plain.file, (replace(own, solver="fitted", steps=4),), path)
    mine = peers.open_files([path, files[0]], "cpu", 1)
    theirs, _ = peers.open_peers(["diffusers"], peers.Wanted(mine, None, 1, 1, REQUEST))
    mine += theirs
    runs = benchmark._runs(mine, lambda own: {4: ("euler", 4), 8: ("euler", 8)}, 1, REQUEST)
    names = [(run.name, run.solver, run.calls) for run in runs]
    assert names.count(("known, fitted", "fitted", 4)) == 1
    others = ["plain"] * 2 + ["diffusers"] * 2
    assert [name for name, *_ in names] == ["known"] * 2 + ["known, fitted", *others]
    (fit,) = [run for run in runs if run.solver == "fitted"]
    x = fit.go()
    exact = runtimes.sample(plain, 1, seed=5, solver="rk4", steps=1)
    np.testing.assert_allclose(x, exact, atol=1e-5)


def test_the_solver_is_the_one_that_errs_least(files, result):
    model = runtimes.load(files[0])
    fine = runtimes.sample(model, 16, seed=5, solver="rk4", steps=100)
    solvers = {(row.calls, row.solver, row.steps) for row in result.rows}
    assert len(solvers) == 3
    assert {entry for entry in solvers if entry[0] == 3} == {(3, "euler", 3)}  # the others make 4
    for calls, solver, steps in solvers:
        mine = error_of(model, fine, solver, steps)
        for other, each in (("euler", 1), ("heun", 2), ("rk4", 4)):
            if calls % each == 0:
                assert mine <= error_of(model, fine, other, calls // each)


def test_starts_are_processes_of_their_own(files, result):
    assert [one.size for one in result.starts] == [path.stat().st_size for path in files]
    assert [one.form for one in result.starts] == ["network", "sampler"]
    for one in result.starts:
        assert one.seconds > 0.0
        assert 20 < one.megabytes < 2000  # numpy and ONNX Runtime, and no torch


def test_what_was_not_there_is_said(result):
    assert set(result.absent) == set(peers.PEERS)
    assert result.settings["threads"]["cpu, batch 3"] == {"threads": 1, "all / one": None}
    text = pareto.table(result)
    assert f"absent: {', '.join(peers.PEERS)} (not asked for: --peers)" in text
    for row in result.rows:
        (line,) = [
            line for line in text.split(f"batch {row.batch},")[1].split("\n\n")[0].splitlines()
            if f" {row.calls}  {row.name} " in line
        ]  # fmt: skip
        assert f" {row.solver} {row.steps} " in line
        assert f" {row.error:.2e} " in line
        assert f" {row.ratio[1]:.2f} " in line
    assert text.count("bare calls  ") == 2 * 3
    assert max(map(len, text.splitlines())) <= 100


def test_the_numbers_say_what_they_were_measured_on(result):
    told = result.settings
    assert told["versions"]["numpy"] == np.__version__
    assert told["versions"]["onnxruntime"] == runtimes.session.onnxruntime().__version__
    assert told["versions"]["python"] == sys.version.split()[0]
    assert told["cores"] >= 1
    assert told["processor"] or not Path("/proc/cpuinfo").exists()


def test_a_loop_of_its_own_has_the_best_of_its_own_solvers(files):
    """diffusers knows two of the solvers that are tried; its error is that of what it returns."""
    result = benchmark.measure(
        files[:1], request=REQUEST, calls=(4, 8), solvers=("rk4",), batches=(2,), threads=1,
        peers=("diffusers",), n=16, rounds=2, clock="cpu",
    )  # fmt: skip
    model = runtimes.load(files[0])
    fine = runtimes.sample(model, 16, seed=5, solver="rk4", steps=100)
    assert {row.solver for row in result.rows if row.name == "plain"} == {"rk4"}
    theirs = [row for row in result.rows if row.name == "diffusers"]
    assert [row.calls for row in theirs] == [4, 8]
    for row in theirs:
        errors = {s: error_of(model, fine, s, row.calls) for s in ("euler", "dpmpp_2m")}
        assert row.solver == min(errors, key=errors.get)
        assert row.error == pytest.approx(errors[row.solver], rel=1e-3)
    assert "diffusers" in result.settings["versions"]


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


def made_row(name, batch, calls, time, error, engine="onnxruntime"):
    quartiles = (0.9 * time, time, 1.2 * time)
    words = (name, engine, "fp32", "cpu", batch, 1, "ab2", calls, calls)
    return Row(*words, quartiles, (0.4, 0.5, 0.6), (1.8 * time, 2 * time, 2.4 * time), error)


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
    assert [text.get_text() for text in left.texts] == ["ab2 4", "ab2 8", "ab2 8"]
    near = [*ROWS, made_row("c", 1, 4, 0.5, 0.11), made_row("d", 1, 4, 0.7, 0.108)]
    words = [text.get_text() for text in pareto.pareto_figure(near).axes[0].texts]
    assert words == [
        "ab2 4",
        "ab2 8",
        "ab2 8",
    ]  # three of the front make the same 4 calls, as well
    assert {text.get_text() for text in page.legends[0].get_texts()} == {"a", "b", "on the front"}


def test_errors_that_differ_by_a_rounding_lie_on_one_height():
    rows = [made_row("a", 1, 4, 1.0, 0.1), made_row("b", 1, 4, 1.1, 0.1 + 1e-9)]
    page = pareto.pareto_figure(rows)
    page.draw_without_rendering()
    (axes,) = page.axes
    low, high = axes.transData.transform([(1.0, rows[0].error), (1.1, rows[1].error)])
    assert abs(low[1] - high[1]) < 0.1  # of a pixel
    for axis, (least, most) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        assert sum(least <= tick <= most for tick in axis.get_majorticklocs()) >= 2


def test_a_peer_is_dashed_and_no_two_lines_look_alike():
    """Even where there are more of them than colours."""
    names = [f"file {k}" for k in range(6)] + [f"peer {k}" for k in range(6)]
    rows = [
        made_row(name, 1, 4, 1.0 + k, 0.1, name.split()[0].replace("file", "onnxruntime"))
        for k, name in enumerate(names)
    ]
    (axes,) = pareto.pareto_figure(rows).axes
    lines = {line.get_label(): line for line in axes.lines}
    looks = {(lines[name].get_color(), lines[name].get_linestyle()) for name in names}
    assert len(looks) == 12
    assert {lines[name].get_linestyle() for name in names[:6]} == {"-"}
    assert {lines[name].get_linestyle() for name in names[6:]} == {"--"}


def test_the_table_stars_the_front():
    start = Start("a", "network", "fp32", 1234, 0.5, 60.0)
    other = Start("torch", "", "fp32", None, 1.25, 240.0)
    told = {
        "threads": {"cpu, batch 1": {"threads": 1, "all / one": 1.07}},
        "fine": "a",
        "bare": "a",
    }
    absent = {"openvino": "not there", "mlx": "not there", "torch": "else"}
    compiling = {"torch.compile, batch 1": 61.4}
    text = pareto.table(Result(tuple(ROWS), (start, other), compiling, absent, told))
    assert "absent: openvino, mlx (not there)\n  absent: torch (else)\n" in text
    assert "torch.compile, batch 1: compiled for 61 s" in text
    assert re.search(r"^  torch +fp32 +1\.25 +240$", text, re.M)
    starred = [line.split()[2] for line in text.splitlines() if line.startswith("  * ")][:-1]
    assert starred == ["a", "a", "b", "b"]
    assert "as many bare calls of a" in text
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
    options += ("--peers", "none")
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
        (files[0], "--peers", "torhc"): "peers: expected one of usual, all, none, torch,",
        (files[0], "--peers", "none,torch"): "peers: expected none alone, got 'none,torch'",
        (files[0], "--peers", "usual,torch"): "peers: expected a run beside torch, got none; give",
        (files[0], "--peers", "none", "--run", "nothere"): "nothere: expected a run folder with a",
        (files[0], "--peers", "none", "--run", "."): ".: expected a run folder with a checkpoint",
        (files[0], "--threads", "-1"): "threads: expected a whole number from 0 to 1024, got -1",
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
        assert "a fine solution" not in err or "rk4" in words
    assert (tmp_path / "mine.png").read_text() == "mine"


def test_a_fixed_run_cannot_be_chosen(tmp_path):
    write(tmp_path / "fixed.onnx", "unrolled", mixture_graph(), mixture_spec())
    with pytest.raises(ValueError, match="got the form 'unrolled'; benchmark the form network"):
        benchmark.measure([tmp_path / "fixed.onnx"], request={})
