"""The command line: pictures and arrays out, mistakes in one line with exit code 2, nothing lost."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import runtimes
from tests.conftest import faces_bytes
from toolkit.cli import VERBS


def test_help_of_every_verb_shows_an_example(toolkit):
    code, out, _ = toolkit("--help")
    assert code == 0
    for verb, what in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(what.split()[0])}", out, re.M)
        code, text, _ = toolkit(verb, "--help")
        assert code == 0
        assert f"toolkit {verb}" in text


def test_help_is_instant_and_loads_nothing_heavy():
    program = (
        "import sys; sys.argv = ['toolkit', '--help']\n"
        "from toolkit.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'mlx', 'onnx', 'onnxruntime', 'sklearn', 'matplotlib'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("HEAVY []\n")


def test_sample_to_arrays_equals_the_python_call(toolkit, faces, tmp_path):
    code, out, _ = toolkit(
        "sample",
        faces,
        "-n",
        5,
        "--label",
        "cat,2",
        "-s",
        "rk4",
        "-k",
        3,
        "--seed",
        9,
        "-o",
        tmp_path / "a.npy",
    )
    assert code == 0
    assert "5 samples, 12 network calls each" in out
    expected = runtimes.sample(
        runtimes.load(faces), 5, label=["cat", 2], solver="rk4", steps=3, seed=9
    )
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected)
    noisy = {"solver": "stochastic_heun", "diffusion": "variance"}
    words = [word for name, value in noisy.items() for word in (f"--{name}", value)]
    path = tmp_path / "noisy.npy"
    assert toolkit("sample", faces, "-n", 2, "-l", 1, *words, "-o", path)[0] == 0
    expected = runtimes.sample(runtimes.load(faces), 2, label=1, **noisy)
    assert np.array_equal(np.load(path), expected)
    assert toolkit("sample", faces, "-n", 5, "-l", 0, "-o", tmp_path / "b.npz")[0] == 0
    with np.load(tmp_path / "b.npz") as file:
        assert np.array_equal(file["x"], runtimes.sample(runtimes.load(faces), 5, label=0))


def test_sample_to_pictures(toolkit, faces, points, tmp_path):
    assert toolkit("sample", faces, "-n", 9, "-l", "owl", "-o", tmp_path / "a.png")[0] == 0
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 100
        assert len(np.unique(np.asarray(picture))) > 20
    assert toolkit("sample", points, "-n", 9, "-o", tmp_path / "points.png")[0] == 0
    with Image.open(tmp_path / "points.png") as picture:
        assert min(picture.size) > 100


def test_trajectory_is_a_strip_or_a_film(toolkit, faces, tmp_path):
    common = ("sample", faces, "-n", 3, "-l", "cat", "-k", 6, "--show-trajectory", "-o")
    assert toolkit(*common, tmp_path / "path.gif")[0] == 0
    with Image.open(tmp_path / "path.gif") as film:
        assert film.n_frames >= 7
    assert toolkit(*common, tmp_path / "path.png")[0] == 0
    with Image.open(tmp_path / "path.png") as strip:
        assert strip.width > strip.height


def test_inspect_says_what_the_spec_says(toolkit, faces):
    code, out, _ = toolkit("inspect", faces)
    assert code == 0
    for words in (
        "(8, 8, 1)",
        "one of 3: cat, dog, owl",
        "linear schedule",
        "heun, 4 steps",
        "opset 20",
    ):
        assert words in out
    assert runtimes.load(faces).file.digest in out
    code, out, _ = toolkit("inspect", faces, "--json")
    assert json.loads(out)["spec"]["condition"]["names"] == ["cat", "dog", "owl"]


GOOD = ("-n", "2", "--label", "cat")
MISTAKES = {
    "A01 absent": (("sample", "absent.onnx", "-o", "{out}"), "absent.onnx: expected a model file"),
    "A01 folder": (("sample", "{folder}", "-o", "{out}"), "got a folder"),
    "A01 empty": (("sample", "{empty}", "-o", "{out}"), "got an empty one"),
    "A02 not ours": (("inspect", "{text}"), "expected an ONNX model file"),
    "A04 cut": (
        ("sample", "{cut}", *GOOD, "-o", "{out}"),
        "truncated or changed: SHA-256 differs",
    ),
    "B01 zero": (
        ("sample", "{model}", "-n", "0", "-l", "0", "-o", "{out}"),
        "n: expected a whole number",
    ),
    "B01 negative": (("sample", "{model}", "-n", "-1", "-l", "0", "-o", "{out}"), "n: expected"),
    "B01 half": (("sample", "{model}", "-n", "2.5", "-l", "0", "-o", "{out}"), "2.5"),
    "B01 word": (("sample", "{model}", "-n", "ten", "-l", "0", "-o", "{out}"), "ten"),
    "B01 huge": (
        ("sample", "{model}", "-n", "1000000000", "-l", "0", "-o", "{out}"),
        "n: expected",
    ),
    "threads": (
        ("sample", "{model}", *GOOD, "--threads", "every", "-o", "{out}"),
        "threads: expected 0 to 1024 or 'all', got 'every'",
    ),
    "B02 zero": (("sample", "{model}", *GOOD, "--steps", "0", "-o", "{out}"), "steps: expected"),
    "B02 huge": (
        ("sample", "{model}", *GOOD, "--steps", "1000000000", "-o", "{out}"),
        "steps: expected",
    ),
    "B03 typo": (
        ("sample", "{model}", *GOOD, "--solver", "huen", "-o", "{out}"),
        "did you mean 'heun'",
    ),
    "B03 diffusion": (
        ("sample", "{model}", *GOOD, "--diffusion", "sigmas", "-o", "{out}"),
        "did you mean 'sigma'",
    ),
    "B03 grid": (("sample", "{model}", *GOOD, "--grid", "0,0.5,0.4", "-o", "{out}"), "increasing"),
    "B04 nan": (
        ("sample", "{model}", *GOOD, "--guidance", "nan", "-o", "{out}"),
        "guidance: expected",
    ),
    "B04 inf": (
        ("sample", "{model}", *GOOD, "--guidance", "-inf", "-o", "{out}"),
        "guidance: expected",
    ),
    "B04 1e39": (
        ("sample", "{model}", *GOOD, "--guidance", "1e39", "-o", "{out}"),
        "guidance: expected",
    ),
    "B05 negative": (
        ("sample", "{model}", *GOOD, "--seed", "-1", "-o", "{out}"),
        "seed: expected",
    ),
    "B05 2^53": (
        ("sample", "{model}", *GOOD, "--seed", str(2**53), "-o", "{out}"),
        "seed: expected",
    ),
    "B05 half": (("sample", "{model}", *GOOD, "--seed", "1.5", "-o", "{out}"), "1.5"),
    "B06 label": (("sample", "{model}", "--label", "3", "-o", "{out}"), "labels are 0..2"),
    "B06 minus": (("sample", "{model}", "--label", "-1", "-o", "{out}"), "labels are 0..2"),
    "B08 none": (("sample", "{model}", "-o", "{out}"), "label: expected one for a labelled model"),
    "B08 extra": (("sample", "{points}", "--label", "1", "-o", "{out}"), "label: expected none"),
    "B17 folder": (("sample", "{model}", *GOOD, "-o", "absent/a.png"), "folder"),
    "B17 exists": (("sample", "{model}", *GOOD, "-o", "{exists}"), "--force"),
    "B17 ending": (("sample", "{model}", *GOOD, "-o", "{out}.jpeg"), ".png"),
    "D04 option": (("sample", "{model}", "--stepz", "3", "-o", "{out}"), "--stepz"),
    "D04 verb": (("smaple", "{model}"), "did you mean 'sample'"),
    "export run": (("export", "absent", "-o", "{out}.onnx"), "absent"),
    "train data": (("train", "digitz", "--out", "{out}"), "did you mean 'digits'"),
    "train key": (
        ("train", "digits", "--out", "{out}", "--schedule", "linaer"),
        "did you mean 'linear'",
    ),
    "train numbers": (
        ("train", "digits", "--out", "{out}", "--schedule", "polynomial(0)"),
        "polynomial(n=2) with numbers",
    ),
    "train prediction": (
        ("train", "digits", "--out", "{out}", "--prediction", "edn"),
        "did you mean 'edm'",
    ),
    "grid": (("sample", "{model}", *GOOD, "--grid", "karas(5)", "-o", "{out}"), "'karras'"),
    "grid numbers": (
        ("sample", "{model}", *GOOD, "--grid", "beta(1,2,3)", "-o", "{out}"),
        "beta(a=0.6, b=0.6) with numbers",
    ),
    "train steps": (("train", "digits", "--out", "{out}", "--steps", "0"), "steps: expected"),
    "train resume": (("train", "digits", "--out", "{out}", "--resume"), "expected"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_line_exit_2_and_nothing_changes(
    name, toolkit, faces, points, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for stem, content in (
        ("cut", faces.read_bytes()[:-1]),
        ("empty", b""),
        ("text", b"# not a model\n"),
        ("exists.png", b"precious"),
    ):
        (tmp_path / stem).write_bytes(content)
    places = {
        "model": faces,
        "points": points,
        "folder": tmp_path,
        "out": tmp_path / "out.png",
        "exists": tmp_path / "exists.png",
        **{stem: tmp_path / stem for stem in ("cut", "empty", "text")},
    }
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    args, message = MISTAKES[name]
    code, out, err = toolkit(*(arg.format(**places) for arg in args))
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_debug_shows_the_traceback(toolkit):
    code, _, err = toolkit("--debug", "inspect", "absent.onnx")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_network_that_returns_nan_exits_1_and_writes_nothing(toolkit, tmp_path):
    path = tmp_path / "nan.onnx"
    path.write_bytes(faces_bytes(pictures=np.full((4, 8, 8, 1), np.nan, np.float32)))
    code, out, err = toolkit("sample", path, "-l", 0, "-n", 3, "-o", tmp_path / "a.png")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: step 1 of 4, t = .*3 samples.*\n", err)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("threads", ["0", "1", "all"])
def test_threads_and_batch_change_no_sample(toolkit, faces, tmp_path, threads):
    words = ("sample", faces, "-n", "5", "-l", "owl", "--threads", threads)
    for name, more in (("a", ()), ("b", ("--batch", "2"))):
        assert toolkit(*words, *more, "-o", tmp_path / f"{name}.npy")[0] == 0
    one, two = (np.load(tmp_path / f"{name}.npy") for name in "ab")
    np.testing.assert_array_equal(one, two)


def test_sampling_needs_no_torch_process(faces, tmp_path):
    program = (
        "import sys\n"
        "for name in ('torch', 'mlx', 'onnx', 'sklearn', 'matplotlib'): sys.modules[name] = None\n"
        "from toolkit.cli import main\n"
        f"main(['sample', {str(faces)!r}, '-n', '4', '-l', 'cat', '-o', {str(tmp_path / 'a.png')!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": "/nowhere"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").exists()
