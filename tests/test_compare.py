"""Backends that agree are found to agree, one that does not is named, and a report says what was measured."""

import base64
import io
import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import runtimes
from export import TorchModel, export_torch
from export.onnx_export import export_onnx
from runtimes import modelfile
from runtimes.session import PROVIDERS, onnxruntime
from runtimes.spec import Condition, Sampler, Spec
from runtimes.timing import interleaved, peak_of, quartiles
from toolkit import pages, reports, train_torch
from toolkit.backends import CONTRACT, FRAMEWORKS, Absent, Backend, find, program, same
from toolkit.compare import TOLERANCE, compare, timed
from toolkit.node import find_node
from toolkit.run_torch import load

from .conftest import faces_bytes
from .test_train_torch import IMAGES, TINY, last
from .test_verify import Twin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained run and what was exported from it: a file of each form, a bad one."""
    folder = tmp_path_factory.mktemp("compare")
    last(train_torch.train(TINY, IMAGES, folder / "run", device="cpu"))
    module, spec = load(folder / "run")
    network = folder / "network.onnx"
    export_torch(module, spec, network)
    plain = onnx.load_from_string(network.read_bytes())
    del plain.metadata_props[:]
    (folder / "plain.onnx").write_bytes(plain.SerializeToString())
    short = replace(spec, sampler=Sampler("euler", 3))
    for form, told in {"sampler": spec, "seeded": spec, "unrolled": short}.items():
        export_onnx(folder / "plain.onnx", told, folder / f"{form}.onnx", form=form)
    bend(network, folder / "bad.onnx")
    return folder


def bend(source, target):
    """The same sealed file, but four numbers of it, near 0.003 each, have the other sign."""
    model = onnx.load_from_string(source.read_bytes())
    (weight,) = (one for one in model.graph.initializer if one.name == "leave.bias")
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    kept = [one for one in model.metadata_props if one.key != modelfile.SEAL_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    target.write_bytes(modelfile.seal(model.SerializeToString()))


def twins(path, *errors):
    """The model in a file as the reference, and twins of it whose predictions are off by so much."""
    model = runtimes.load(path, threads=1)
    opening = f"model = runtimes.load({str(path)!r})"
    bent = [Backend(f"off by {e:g}", "", Twin(model, e), opening) for e in errors]
    return [Backend("the file", "", model, opening), *bent]


# Agreement


def test_all_backends_agree_and_their_samples_are_their_own(folder):
    files = [folder / f"{form}.onnx" for form in ("network", "sampler", "seeded")]
    backends, absent = find(folder / "run", files)
    names = [*FRAMEWORKS, *(f"{path} on cpu" for path in files)]
    assert [backend.name for backend in backends] == names
    assert {one.name for one in absent} == {f"onnxruntime on {w}" for w in PROVIDERS} - {
        f"onnxruntime on {backend.model.provider}" for backend in backends[2:]
    }
    request = {"solver": "heun", "steps": 6, "guidance": 2.0, "seed": 3}
    result = compare(backends, 5, request=request)
    assert result.outside == ()
    assert all(row.worst < 1e-5 for row in result.rows)
    for row, path in zip(result.rows[2:], files, strict=True):
        labels = [0, 1, 2, 0, 1]  # all kinds where none is asked for
        alone = runtimes.sample(runtimes.load(path), 5, label=labels, **request)
        np.testing.assert_array_equal(row.sample, alone)
    assert [row.steps for row in result.rows] == [tuple(range(7))] * 4 + [(0, 6)]


def test_the_error_is_the_one_that_theory_says(faces):
    """dx/dt = picture - x + e: the states are e (1 - exp(-t)) apart, up to the solver's own error."""
    error = 1e-2
    request = {"solver": "rk4", "steps": 8, "guidance": 1.0, "label": "cat"}
    result = compare(twins(faces, error), 4, request=request)
    (row,) = result.outside
    expected = error * (1 - np.exp(-np.array(result.plan.times)))
    np.testing.assert_allclose(row.absolute, expected, atol=1e-6)
    scales = [np.abs(s.x).max() for s in result.plan.states(0, 4)]
    np.testing.assert_allclose(row.relative, row.absolute / np.array(scales), rtol=1e-6)


class OneLabel:
    """A model that is off where the label is this one."""

    def __init__(self, model, label, error):
        self.spec, self.model, self.label, self.error = model.spec, model, label, error

    def network(self, x, t, condition=None):
        wrong = (condition == self.label).reshape(-1, 1, 1, 1)
        return self.model.network(x, t, condition) + wrong * np.float32(self.error)


@pytest.mark.parametrize("label", [0, 2])
def test_the_largest_error_of_all_samples_counts(faces, label):
    """One sample of three is off: by as much as if all were."""
    (exact,) = twins(faces)
    wrong = Backend("wrong", "", OneLabel(exact.model, label, 1e-2), "")
    request = {"guidance": 1.0, "solver": "rk4", "steps": 8}
    (row,) = compare([exact, wrong], 3, request=request).outside
    assert row.absolute[-1] == pytest.approx(1e-2 * (1 - math.exp(-1)), abs=1e-6)


def test_the_tolerance_decides(faces):
    backends = twins(faces, 1e-5)
    assert not compare(backends, 2, request={}, tolerance=1e-4).outside
    assert compare(backends, 2, request={}, tolerance=1e-7).outside


def test_a_backend_that_ends_in_nan_is_outside(faces):
    result = compare(twins(faces, math.nan, 0.0), 2, request={})
    (row,) = result.outside
    assert (row.worst, row.sample) == (math.inf, None)
    assert "step 1 of 4" in row.failure
    assert row.failure in reports.table(result)
    assert json.loads(reports.to_json(result, ()))["rows"][1]["failure"] == row.failure
    again = timed(result, rounds=1)
    assert [row.rate is None for row in again.rows] == [False, True, False]
    assert row.failure in pages.html(again)


def test_a_reference_that_ends_in_nan_is_the_error(faces):
    good, bad = twins(faces, math.nan)
    with pytest.raises(FloatingPointError, match="off by nan: step 1"):
        compare([bad, good], 2, request={})


# What cannot be compared

OTHER = {
    "shape": {"shape": (8, 4, 1)},
    "schedule": {"schedule": "cosine"},
    "prediction": {"prediction": "noise"},
    "condition": {"condition": Condition("context", shape=(3,))},
    "condition.classes": {"condition": Condition("label", classes=4)},
    "condition.shape": {"condition": Condition("context", shape=(4,))},
}


@pytest.mark.parametrize("word", CONTRACT)
def test_the_first_difference_of_two_specs_is_named(word):
    condition = Condition("label", classes=3)
    if word == "condition.shape":
        condition = Condition("context", shape=(3,))
    spec = Spec("one", (8, 8, 1), condition=condition)
    ours = [Backend(name, "", TorchModel(spec, None), "") for name in ("first", "second")]
    same(ours)
    third = Backend("third", "", TorchModel(replace(spec, **OTHER[word]), None), "")
    with pytest.raises(ValueError, match=rf"^{word}: expected .* as in first, got .* in third"):
        same([*ours, third])


MISTAKES = {
    "nothing": ([], "compare: expected two backends or more, got nothing alone"),
    "one file": (["{faces}"], "faces.onnx on cpu alone"),
    "two folders": (["a", "b"], "compare: expected one run folder at most, got a and b"),
    "no such file": (["none.onnx", "{faces}"], "none.onnx"),
    "no such folder": (["nowhere", "{faces}"], "nowhere"),
    "another model": (["{faces}", "{points}"], "shape: expected (8, 8, 1) as in"),
    "a label that is none": (["{faces}", "{twin}", "--label", "cow"], "label: expected one of"),
    "no samples": (["{faces}", "{twin}", "-n", "0"], "n: expected a whole number from 1"),
    "no tolerance": (["{faces}", "{twin}", "--tolerance", "0"], "tolerance: expected a number"),
    "no rounds": (["{faces}", "{twin}", "--rounds", "0"], "rounds: expected a whole number"),
    "an ending": (["{faces}", "{twin}", "--out", "a.png"], "expected a name ending in .html"),
    "there already": (["{faces}", "{twin}", "--json", "{twin}"], "expected no such file, got one"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(toolkit, mistake, faces, points, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    twin = tmp_path / "twin.onnx"
    twin.write_bytes(faces.read_bytes())
    args, says = MISTAKES[mistake]
    names = {"faces": faces, "points": points, "twin": twin}
    code, out, err = toolkit("compare", *(arg.format(**names) for arg in args))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert says in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["twin.onnx"]


def test_a_run_that_a_file_cannot_do_names_the_file(folder):
    """Three Euler steps are built into it: those it does, and shows their end."""
    files = [folder / "network.onnx", folder / "unrolled.onnx"]
    backends, _ = find(None, files)
    request = {"solver": "euler", "steps": 3, "guidance": 1.0}
    result = compare(backends, 3, request=request)
    assert (result.outside, result.rows[1].steps) == ((), (0, 3))
    with pytest.raises(
        ValueError, match=r"unrolled.onnx on cpu: how: expected euler with 3 steps"
    ):
        compare(backends, 2, request={**request, "steps": 7})


# The command


def test_a_changed_weight_is_exit_1_and_named(folder, toolkit, tmp_path):
    out = tmp_path / "found.json"
    args = ("compare", folder / "run", folder / "network.onnx", folder / "bad.onnx", "--no-speed")
    code, text, _ = toolkit(*args, "--json", out)
    assert code == 1
    assert text.splitlines()[-1] == f"outside the tolerance of 1e-4: {folder / 'bad.onnx'} on cpu"
    found = json.loads(out.read_text())
    outside = [row["name"] for row in found["rows"] if not row["within"]]
    assert (outside, found["within"]) == ([f"{folder / 'bad.onnx'} on cpu"], False)


def test_a_changed_byte_is_exit_1_and_named(folder, toolkit, tmp_path):
    content = bytearray((folder / "network.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(content)
    code, out, err = toolkit("compare", folder / "run", changed, "--no-speed")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "changed.onnx: truncated or changed" in err


def test_the_command_measures_speed_and_writes_everything(folder, toolkit, tmp_path):
    page, numbers = tmp_path / "report.html", tmp_path / "numbers.json"
    args = ("compare", folder / "run", folder / "network.onnx", "-n", 3, "--rounds", 1)
    code, text, _ = toolkit(*args, "--out", page, "--json", numbers)
    assert code == 0
    assert "all 3 within the tolerance of 1e-4" in text
    found = json.loads(numbers.read_text())
    names = [*FRAMEWORKS, f"{folder / 'network.onnx'} on cpu"]
    assert [row["name"] for row in found["rows"]] == names
    for row in found["rows"]:
        assert min(row["samples_per_second"]) > 0
        assert row["cold_start_seconds"] > 0
        assert row["peak_megabytes"] > 20  # Python and numpy alone
        assert row["name"] in text
    for one in found["absent"]:
        assert re.search(rf"^{one['name']} +absent: {re.escape(one['reason'])}$", text, re.M)
    assert page.read_text().startswith("<!doctype html>")


def test_json_to_stdout_is_nothing_but_json(folder, toolkit):
    args = (folder / "network.onnx", folder / "sampler.onnx", "--no-speed", "--json", "-")
    code, out, _ = toolkit("compare", *args, "--steps", 3, "--label", "1,none", "-n", 2)
    found = json.loads(out)
    assert code == 0
    assert (len(found["times"]), found["request"]["label"]) == (4, [1, "none"])
    assert {one["name"] for one in found["absent"]} >= set(FRAMEWORKS)
    assert all(len(row["absolute"]) == 4 for row in found["rows"])


@pytest.mark.parametrize("missing", FRAMEWORKS)
def test_a_framework_that_is_not_installed_is_listed_with_the_reason(folder, missing):
    """In a process where its import fails."""
    text = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from toolkit.cli import main\n"
        f"main(['compare', {str(folder / 'run')!r}, {str(folder / 'network.onnx')!r}, '--no-speed'])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(
        rf"^{missing} +absent: .*{missing}.*pip install 'toolkit\[{missing}\]'$", done.stdout, re.M
    )
    assert "all 2 within" in done.stdout


def test_without_files_torch_and_mlx_are_compared(folder):
    backends, absent = find(folder / "run")
    assert [backend.name for backend in backends] == list(FRAMEWORKS)
    assert absent == [Absent("onnxruntime", "no .onnx was given")]
    assert not compare(backends, 2, request={"steps": 3}).outside


def test_node_is_absent_with_the_reason(folder, tmp_path, monkeypatch):
    backends, _ = find(None, [folder / "network.onnx"])
    assert find_node(None, backends) == (
        [],
        [Absent("node", "not asked for; give --node examples/node")],
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_node(tmp_path, backends)[1] == [Absent("node", "no node on the PATH")]
    (tmp_path / "node").touch(mode=0o755)
    assert find_node(tmp_path, backends)[1][0].reason.startswith(f"{tmp_path} has no states.mjs")


def test_every_file_runs_on_every_provider(faces, points, monkeypatch):
    """With a second one that the wheels for Linux have; it leaves all nodes to the CPU."""
    other = "AzureExecutionProvider"
    if other not in onnxruntime().get_available_providers():
        pytest.skip(f"providers: expected {other}, got none")
    monkeypatch.setitem(PROVIDERS, "azure", (other, {}))
    backends, absent = find(None, [faces, points, faces])
    wanted = [(path, word) for word in ("cpu", "azure") for path in (faces, points)]
    assert [backend.name for backend in backends] == [f"{path} on {word}" for path, word in wanted]
    assert [backend.model.provider for backend in backends] == [word for _, word in wanted]
    assert "onnxruntime on azure" not in {one.name for one in absent}


# Time and memory


@pytest.mark.parametrize("label", [1, "none", [2, 0]])
def test_the_program_of_a_cold_start_draws_the_first_sample(folder, label):
    backends, _ = find(folder / "run", [folder / "network.onnx"])
    result = compare(
        backends, 2, request={"label": label, "solver": "euler", "steps": 3, "seed": 5}
    )
    text = program(backends[-1], result.plan, result.request).replace(
        "runtimes.sample", "x = runtimes.sample"
    )
    text += "\nprint(x[0].tolist())"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), result.rows[-1].sample[0], atol=1e-6)


def test_contexts_reach_that_program_too(tmp_path):
    spec = Spec("told", (2,), condition=Condition("context", shape=(3,)))

    class Told:
        def __init__(self, spec):
            self.spec = spec

        def network(self, x, t, condition=None):
            return condition[:, :2] - x

    backends = [Backend(name, "", Told(spec), "") for name in "ab"]
    result = compare(backends, 3, request={"guidance": 1.0})
    assert len(np.unique(result.plan.condition, axis=0)) == 3
    text = program(backends[0], result.plan, result.request)
    first = re.search(r"context = numpy.array\((.*), numpy", text)[1]
    np.testing.assert_array_equal(np.float32(json.loads(first)), result.plan.condition[0])
    assert "sample(model, 1, context=context, " in text


def test_a_rate_is_samples_and_a_start_seconds(faces, monkeypatch):
    """By a clock that ticks twice a second, once each time it is looked at."""
    ticks = itertools.count(0.0, 0.5)
    result = compare(twins(faces, 0.0), 6, request={"steps": 2})
    with monkeypatch.context() as patch:
        patch.setattr("runtimes.timing.time.perf_counter", lambda: next(ticks))
        told = []
        result = timed(result, rounds=2, progress=lambda *words: told.append(words))
    assert [(row.rate, row.cold) for row in result.rows] == [((12.0, 12.0, 12.0), 0.5)] * 2
    assert told[3] == (4, 4, "runs")
    assert told[-1] == (4, 4, "processes")


def test_what_the_model_recommends_is_what_all_do(faces):
    result = compare(twins(faces, 0.0), 3, request={"seed": 7, "solver": None})
    recommended = {"solver": "heun", "steps": 4, "grid": "uniform", "guidance": 1.5}
    assert result.request == recommended | {"seed": 7, "label": [0, 1, 2]}
    assert (result.plan.calls, result.plan.weight) == (8, 1.5)
    own = compare(twins(faces, 0.0), 3, request={"grid": [0.0, 0.4, 1.0]})
    assert own.plan.times == (0.0, 0.4, 1.0)


def test_everyone_takes_a_turn_in_each_round():
    turns, told = [], []
    contenders = {name: lambda name=name: turns.append(name) for name in "abc"}
    seconds = interleaved(contenders, 4, lambda done, total: told.append((done, total)))
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys("abc", 4)
    assert [sorted(turns[k : k + 3]) for k in range(0, 12, 3)] == [["a", "b", "c"]] * 4
    assert told == [(k, 12) for k in range(1, 13)]
    assert len({tuple(turns[k : k + 3]) for k in range(0, 12, 3)}) > 1


def test_quartiles_are_those_of_the_values():
    assert quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == (2.0, 3.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_the_peak_is_the_childs_own_and_falls_behind_nothing():
    held = np.ones(50 << 20, np.uint8)  # of this process: a child must not be charged with it
    small = peak_of("x = 1")
    assert small < 50
    assert peak_of("x = b'1' * (100 << 20); del x") > small + 90
    assert held.all()
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        peak_of("1 / 0")


# The report


class Page(HTMLParser):
    """Every tag closed in its turn; what it links to."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "srcset", "href", "data", "action")]
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text):
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


@pytest.mark.parametrize("model", ["faces", "points"])
def test_the_report_is_one_file_with_its_pictures_inside(model, request):
    backends = twins(request.getfixturevalue(model), 1e-6, 1e-2)
    result = compare(backends, 12, request={"steps": 3})
    text = pages.html(result, [Absent("node", "not asked for")])
    assert not re.search(
        r"https?:|//|@import|url\(|<script|<link", re.sub(r"base64,[\w+/=]+", "", text)
    )
    page = read(text)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    sizes = set()
    for link in page.links:
        with Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))) as picture:
            sizes.add(picture.size)
    assert len(page.links) >= 4
    assert ((8, 8) in sizes) == (model == "faces")
    assert "prefers-color-scheme: dark" in text
    assert "not asked for" in text
    assert text.count('badge bad">outside') == 1


def test_the_strip_shows_each_backends_own_samples(faces):
    result = compare(twins(faces, 0.5), 3, request={"guidance": 1.0})
    pictures = [link for link in read(pages.html(result)).links if len(link) < 2000]
    assert len(pictures) == 9  # the reference's, the other's, their difference
    arrays = []
    for link in pictures:
        with Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))) as picture:
            arrays.append(np.asarray(picture).astype(float) / 255)
    theirs, mine, apart = np.array(arrays).reshape(3, 3, 8, 8)
    samples = [np.clip((row.sample[..., 0] + 1) / 2, 0, 1) for row in result.rows]
    np.testing.assert_allclose(theirs, samples[0], atol=1 / 255)
    np.testing.assert_allclose(mine, samples[1], atol=1 / 255)
    assert apart.max() == 1.0


def test_a_strangers_name_cannot_write_into_the_page(tmp_path):
    path = tmp_path / "a.onnx"
    spec = replace(runtimes.load(_written(path)).spec, name="<script>alert(1)</script>")
    path.write_bytes(faces_bytes(spec))
    text = pages.html(compare(twins(path, 0.0), 2, request={}))
    assert "<script" not in text
    assert "&lt;script&gt;alert" in text


def _written(path):
    path.write_bytes(faces_bytes())
    return path


def test_the_drawing_has_a_line_for_each_and_a_floor_where_bits_are_equal(faces):
    result = compare(twins(faces, 0.0, 1e-2), 2, request={})
    (axes,) = pages.error_figure(result).axes
    lines = {line.get_label(): np.array(line.get_ydata()) for line in axes.lines}
    _, equal, off = result.rows
    assert equal.worst == 0.0
    np.testing.assert_allclose(lines["off by 0.01"], off.relative[1:])
    assert len(set(lines["off by 0"])) == 1
    assert 0.0 < lines["off by 0"][0] < min(TOLERANCE, *off.relative[1:])
    assert axes.get_yscale() == "log"
