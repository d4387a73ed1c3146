"""`toolkit sample --from, --mask, --invert, --noise, --interpolate`: the Python calls, by name."""

import numpy as np
import pytest

import runtimes
from toolkit.cli import main

from .problems import write_onnx

ROWS = np.random.default_rng(2).standard_normal((3, 2)).astype(np.float32)
STEPS = {"solver": "heun", "steps": 5, "seed": 7}
WORDS = ["-s", "heun", "-k", "5", "--seed", "7"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_onnx(tmp_path / "a.onnx")
    write_onnx(tmp_path / "b.onnx", labelled=True)
    np.save("rows.npy", ROWS)
    np.save("mask.npy", np.array([1, 0]))
    np.savez("two.npz", a=ROWS, b=ROWS)
    (tmp_path / "no.npy").write_text("no array")
    return tmp_path


def sampled(capfd, *words, model="a.onnx"):
    with pytest.raises(SystemExit) as stop:
        main(["sample", model, "--out", "out.npy", "--force", *WORDS, *words])
    out, err = capfd.readouterr()
    assert (stop.value.code or 0) == 0, err
    return np.load("out.npy"), out


def test_each_option_is_the_python_call(folder, capfd):
    model = runtimes.load("a.onnx")
    calls = {
        "--from rows.npy --strength 0.4": runtimes.edit(model, ROWS, strength=0.4, **STEPS),
        "--from rows.npy": runtimes.edit(model, ROWS, strength=0.6, **STEPS),
        "--from rows.npy --mask mask.npy": runtimes.inpaint(model, ROWS, [1, 0], **STEPS),
        "--from rows.npy --invert": runtimes.invert(model, ROWS, **STEPS),
        "--noise rows.npy": runtimes.decode(model, ROWS, **STEPS),
        "--interpolate 9 -n 4": runtimes.interpolate(model, 4, to=9, **STEPS),
        "--guide a.onnx -g 2": runtimes.sample(model, 16, **STEPS),  # away from itself: nowhere
    }
    for words, expected in calls.items():
        got, out = sampled(capfd, *words.split())
        np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=words)
        assert f"{len(expected)} samples, " in out


def test_guidance_variants_on_a_labelled_model(folder, capfd):
    model = runtimes.load("b.onnx")
    for words, request in {
        "--cfgpp 0.6": {"cfgpp": 0.6},
        "-g 3 --rescale 0.7": {"guidance": 3.0, "rescale": 0.7},
    }.items():
        got, _ = sampled(capfd, "-l", "a", *words.split(), model="b.onnx")
        expected = runtimes.sample(model, 16, label="a", **request, **STEPS)
        np.testing.assert_array_equal(got, expected)


def test_n_repeats_the_rows_with_their_own_seeds(folder, capfd):
    got, _ = sampled(capfd, "--from", "rows.npy", "-n", "4")
    assert len(got) == 4
    np.testing.assert_array_equal(
        got, runtimes.edit(runtimes.load("a.onnx"), ROWS[[0, 1, 2, 0]], strength=0.6, **STEPS)
    )
    assert not np.array_equal(got[0], got[3])


def test_calls_are_counted(folder, capfd):
    """Euler's 5 steps: an edit from t = 0.4 has 3 left, an inpainting all of them."""
    words = ["--from", "rows.npy", "-s", "euler", "--grid", "uniform"]
    assert "3 samples, 3 network calls each" in sampled(capfd, *words)[1]
    assert "3 samples, 5 network calls each" in sampled(capfd, *words, "--mask", "mask.npy")[1]


def test_a_trajectory_of_an_inpainting(folder, capfd):
    words = "--from rows.npy --mask mask.npy -k 3"
    with pytest.raises(SystemExit) as stop:
        main(["sample", "a.onnx", "--out", "p.gif", "--show-trajectory", *words.split()])
    assert (stop.value.code or 0) == 0, capfd.readouterr().err
    assert (folder / "p.gif").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--strength 0.5", "strength: expected --from FILE.npy beside it, got none"),
        ("--mask mask.npy", "mask: expected --from FILE.npy"),
        ("--invert", "invert: expected --from FILE.npy"),
        ("--from rows.npy --mask mask.npy --strength 0.5", "strength: expected it alone"),
        ("--from rows.npy --noise rows.npy", "noise: expected one start, got --noise and --from"),
        ("--from no.npy", "from: expected a .npy file of one array, got no.npy"),
        ("--from two.npz", "from: expected a .npy file of one array, got 2 in two.npz"),
        (
            "--interval 0,1,2",
            "interval: expected 2 numbers with commas between, got '0,1,2'; like 0,0.8",
        ),
        ("--from mask.npy", "from: expected float32 (n, 2)"),
        ("--from missing.npy", "from: expected a .npy file of one array, got missing.npy"),
        ("--from rows.npy --mask no.npy", "mask: expected a .npy file"),
        ("--from rows.npy --mask rows.npy", "mask: expected only 0 and 1"),
        ("--from rows.npy --strength 1.5", "strength: expected a number above 0 and at most 1"),
        ("--from rows.npy -n 0", "n: expected a whole number from 1"),
        ("--interpolate 7", "to: expected a seed whose noise points elsewhere"),
        ("--interpolate -1", "seed: expected 0 to"),
        ("--cfgpp 0.5", "cfgpp: expected none for a model without conditions"),
        ("--rescale 2", "rescale: expected a number from 0 to 1"),
        ("--guide b.onnx -g 2", "guide: expected a model of condition"),
        ("--from rows.npy --invert --show-trajectory", "show-trajectory: expected none beside"),
    ],
)
def test_mistakes_are_one_line(folder, capfd, words, says):
    with pytest.raises(SystemExit) as stop:
        main(["sample", "a.onnx", "--out", "out.npy", *WORDS, *words.split()])
    out, err = capfd.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"error: {says}")
    assert not (folder / "out.npy").exists()
