"""Every peer draws what the file it stands beside draws, from the same noise, or says why it does not."""

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

import runtimes
from export import export_mlx
from toolkit import benchmark, run_mlx, starts
from toolkit.data import Data
from toolkit.floor import bare_calls, feeds_of
from toolkit.peers import PEERS, USUAL, Wanted, open_files, open_peers
from toolkit.recipe import Recipe
from toolkit.train_torch import train

from .conftest import faces_bytes
from .problems import mixture_graph, mixture_spec, write_onnx
from .test_sampler import write
from .test_train_torch import IMAGES, TINY, last

REQUEST = {"label": [0, 1, 2], "guidance": 2.0, "seed": 4}
# an average that follows its network, so that after nine steps it does something
MOVED = replace(TINY, ema=0.1, lr=0.05)
COMPILES = {"torch.compile"}


def made(folder, recipe, known):
    """(a run folder, its network as a file)."""
    last(train(recipe, known, folder / "run", device="cpu"))
    module, spec = run_mlx.load(folder / "run")
    export_mlx(module, spec, folder / f"{known.name}.onnx")
    return folder / "run", folder / f"{known.name}.onnx"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return made(tmp_path_factory.mktemp("images"), MOVED, IMAGES)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """An MLP, which compiles sooner."""
    known = Data("points", IMAGES.x.reshape(-1, 2), None)
    recipe = Recipe("points", "mlp", 16, 1, 1, steps=9, batch=16, warmup=3, ema=0.1)
    return made(tmp_path_factory.mktemp("points"), recipe, known)


def wanted(path, run=None, request=REQUEST):
    return Wanted(open_files([path], "cpu", 1), run, 1, 2, request)


def samples(contender, steps, n=5, batch=2):
    """By a solver of its own, or one of ours."""
    solver = (contender.solvers or ("heun",))[-1]
    asked = {**REQUEST, "solver": solver, "steps": steps}
    return contender.draw(n, batch, asked), asked


def same_as_the_file(contender, path):
    model = runtimes.load(path, threads=1)
    x, asked = samples(contender, 6)
    noise = runtimes.noise.noise(np.arange(4, 9), model.spec.shape, 0)
    assert np.abs(x - noise).max() > 0.5  # the network does something
    np.testing.assert_allclose(x, runtimes.sample(model, 5, **asked), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in PEERS if name not in COMPILES])
def test_a_peer_draws_what_the_file_draws(trained, name):
    if name == "openvino":
        pytest.importorskip("openvino", reason="no openvino")
    run, path = trained
    (peer,), absent = open_peers([name], wanted(path, run))
    assert name not in absent
    assert (peer.name, peer.engine, peer.precision, peer.provider) == (name, name, "fp32", "cpu")
    same_as_the_file(peer, path)


def test_what_is_not_installed_is_said(tmp_path, monkeypatch):
    """Wherever the test runs: None in sys.modules is Python's own word for it."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "toolkit.openvino_model", raising=False)
    monkeypatch.delattr("toolkit.openvino_model", raising=False)
    found, absent = open_peers(["openvino"], wanted(write_onnx(tmp_path / "mixture.onnx")))
    assert (found, absent["openvino"]) == ([], "not installed: pip install openvino")


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("steps", [4, 20])
def test_diffusers_solvers_are_ours_of_that_name(tmp_path, labelled, guidance, steps):
    path = write_onnx(tmp_path / "mixture.onnx", labelled=labelled)
    (peer,), _ = open_peers(["diffusers"], wanted(path))
    request = {"seed": 3, **({"label": [1, 5], "guidance": guidance} if labelled else {})}
    model = runtimes.load(path, threads=1)
    assert set(peer.solvers) == {"euler", "dpmpp_2m"}
    for solver in peer.solvers:
        asked = {**request, "solver": solver, "steps": steps}
        x = peer.draw(7, 3, asked)
        # after 4 guided steps some samples are far out
        np.testing.assert_allclose(x, runtimes.sample(model, 7, **asked), rtol=1e-4, atol=1e-4)


def test_a_path_of_which_diffusers_knows_nothing(tmp_path):
    spec = mixture_spec(schedule="cosine")
    path = write_onnx(tmp_path / "cosine.onnx", spec=spec)
    found, absent = open_peers(["diffusers"], wanted(path, request={}))
    assert found == []
    assert absent["diffusers"].endswith(
        "linear with the prediction velocity, not cosine and velocity"
    )


@pytest.mark.skipif(find_spec("openvino") is None, reason="no openvino")
@pytest.mark.parametrize("labelled", [False, True])
def test_openvino_takes_no_loop(tmp_path, labelled):
    from toolkit import openvino_model

    graph, spec = mixture_graph(labelled), mixture_spec(labelled)
    loop = write(tmp_path / "loop.onnx", "sampler", graph, spec)
    with pytest.raises(RuntimeError, match="Scan"):
        openvino_model.compiled(loop, 1)


def test_what_is_missing_is_said(tmp_path):
    """A file that is no network alone, and no run folder."""
    write(tmp_path / "loop.onnx", "sampler", mixture_graph(), mixture_spec())
    found, absent = open_peers(list(PEERS), wanted(tmp_path / "loop.onnx", request={}))
    assert found == []
    for name, peer in PEERS.items():
        if peer.of_run:
            assert absent[name] == "no run folder given: --run FOLDER"
    assert absent["diffusers"] == "no file of the form network in fp32 given"
    _, absent = open_peers([], wanted(tmp_path / "loop.onnx", request={}))
    assert set(absent.values()) == {"not asked for: --peers"}
    assert "torch.compile" not in USUAL


def test_a_run_of_another_network_is_refused(trained, tmp_path):
    run, _ = trained
    (tmp_path / "faces.onnx").write_bytes(faces_bytes())
    for name in ("torch", "mlx", "diffusers+torch"):
        with pytest.raises(ValueError, match=r"^run: expected .* \(8, 8, 1\), got \(4, 4, 1\) in"):
            open_peers([name], wanted(tmp_path / "faces.onnx", run))


class Heard:
    """A model that remembers what its network was called with."""

    def __init__(self, model):
        self.model, self.spec, self.calls = model, model.spec, []

    def network(self, x, t, condition=None):
        self.calls.append((x, t, condition))
        return self.model.network(x, t, condition)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_bare_calls_are_of_the_rows_that_a_run_calls_with(tmp_path, guidance):
    path = write_onnx(tmp_path / "mixture.onnx", labelled=True)
    heard = Heard(runtimes.load(path, threads=1))
    request = {"label": [3, 1], "guidance": guidance, "seed": 2}
    runtimes.sample(heard, 3, **request, solver="euler", steps=4)
    x, _, label = heard.calls[0]
    feeds = feeds_of(heard, 3, request)
    assert len(x) == (3 if guidance == 1.0 else 6)
    np.testing.assert_array_equal(feeds["x"], x)
    np.testing.assert_array_equal(feeds["label"], label)
    assert feeds["time"].tolist() == [0.0] * len(x)


def test_there_are_as_many_bare_calls_as_said(tmp_path):
    """Counted at the session, by what it runs in the end."""
    path = write_onnx(tmp_path / "mixture.onnx")
    (plain,) = open_files([path], "cpu", 1)
    session, calls = plain.model.session, []

    class Counted:
        def run(self, *arguments):
            calls.append(session.run(*arguments))

    counted = replace(plain, model=replace(plain.model, session=Counted()))
    runs = bare_calls([counted], 3, {}, [5, 2, 5])
    assert list(runs) == [2, 5]
    runs[5]()
    assert len(calls) == 5
    assert {out.shape for (out,) in calls} == {(3, 2)}
    write(tmp_path / "loop.onnx", "sampler", mixture_graph(), mixture_spec())
    assert bare_calls(open_files([tmp_path / "loop.onnx"], "cpu", 1), 3, {}, [5]) == {}


@pytest.mark.slow
def test_all_peers_in_one_run(points):
    """torch.compile among them: it compiles before it is timed, and a process of its own starts the rest."""
    run, path = points
    said = []
    result = benchmark.measure(
        [path], request={"seed": 4}, calls=(4,), batches=(2,), threads=1, run=run, peers=list(PEERS),
        n=4, rounds=3, progress=said.append,
    )  # fmt: skip
    there = set(PEERS) - set(result.absent)
    assert set(result.absent) <= {"openvino"}
    rows = {row.name: row for row in result.rows}
    assert set(rows) == {*there, "points"}
    assert len(result.rows) == len(rows)
    # the times are those of what is compiled already
    (seconds,) = result.compiling.values()
    assert list(result.compiling) == ["torch.compile, batch 2"]
    assert seconds > 100 * rows["torch.compile"].milliseconds[2] * 2 / 1e3
    assert "how long torch.compile compiles for batch 2: a minute, or more" in said
    # behind our loop they err as the file does; diffusers' two do alike
    for one, other in (("torch.compile", "points"), ("diffusers", "diffusers+torch")):
        assert rows[one].error == pytest.approx(rows[other].error, rel=1e-3)
    started = {one.name: one for one in result.starts}
    assert set(started) == {*there, "points"} - COMPILES
    assert started["torch"].megabytes > 1.5 * started["points"].megabytes
    assert {one.size for one in result.starts} == {path.stat().st_size, None}


@pytest.mark.slow
def test_without_a_compiler_torch_compile_is_absent(points, tmp_path):
    """In a process of its own: torch looks for one once."""
    run, path = points
    script = f"""
from pathlib import Path
from toolkit.peers import Wanted, open_files, open_peers
files = open_files([{str(path)!r}], "cpu", 1)
wanted = Wanted(files, Path({str(run)!r}), 1, 2, {{}})
print(open_peers(["torch.compile"], wanted)[1]["torch.compile"])
"""
    environment = {**os.environ, "CXX": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stdout.startswith("does not compile: InvalidCxxCompiler: No working"), done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_process_of_its_own_draws_the_sample_that_was_asked_for(trained):
    """What `starts` runs, but with its last line printed."""
    run, path = trained
    (file,) = open_files([path], "cpu", 1)
    (torch,), _ = open_peers(["torch"], wanted(path, run))
    asked = starts.one_of({**REQUEST, "label": [2, 1]})
    assert asked == {**REQUEST, "label": 2}
    want = runtimes.sample(file.model, 1, **asked)
    for contender in (file, torch):
        *lines, last_line = contender.first.splitlines()
        space = {"request": asked}
        exec("\n".join(lines), space)
        np.testing.assert_allclose(eval(last_line, space), want, atol=1e-5)
