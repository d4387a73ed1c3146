"""Training is exact where it can be: the same bits after a resume, losses and averages that are known."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES
from toolkit import checkpoints, ema, networks, objectives, recipe
from toolkit.data import Data
from toolkit.draws import draw, key
from toolkit.networks import layers_torch
from toolkit.processes import Processes
from toolkit.train_torch import load, train

ROWS, BATCH = 40, 16  # an epoch is 2.5 steps: its edges fall inside and between batches
RNG = np.random.default_rng(0)
IMAGES = Data(
    "images",
    RNG.uniform(-1, 1, (ROWS, 4, 4, 1)).astype(np.float32),
    RNG.integers(0, 3, ROWS),
    classes=3,
    value_range=(-1.0, 1.0),
    step=1 / 8,
)
TINY = recipe.Recipe(
    "images", "dit", 8, 1, 2, (2, 2), steps=9, batch=BATCH, warmup=3, save_every=1000, log_every=2
)

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def last(progress):
    """The last Progress of a run."""
    *_, end = progress
    return end


def files(folder):
    """Every checkpoint by name, and the log without its clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    log = [{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines]
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}, log


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    last(train(TINY, IMAGES, folder, device="cpu"))
    return folder


# Resume


@pytest.mark.parametrize("stops", [(1,), (2, 3), (5,), (4, 6, 8)])
def test_resumed_runs_end_in_the_same_bits(whole, stops, tmp_path):
    """Stopped at step 1, inside an epoch (2.5 steps) and at its edge (5), once, twice and three times."""
    done = 0
    for stop in stops:
        asked = iter([False] * (stop - done - 1) + [True])
        run = train(
            TINY, IMAGES, tmp_path, device="cpu", resume=done > 0, stop=lambda a=asked: next(a)
        )
        done = last(run).step
        assert done == stop
    torch.manual_seed(123)  # the framework's own generator has no say
    last(train(TINY, IMAGES, tmp_path, device="cpu", resume=True))
    mine, log = files(tmp_path)
    theirs, whole_log = files(whole)
    name = f"checkpoint-{TINY.steps:08d}.safetensors"
    assert mine[name] == theirs[name]
    logged = {line["step"]: line for line in log}
    assert all(logged[line["step"]] == line for line in whole_log)
    assert len(logged) == len(log)  # no step stands there twice


@pytest.mark.parametrize(
    ("change", "data", "words"),
    [
        ({"seed": 7}, IMAGES, "seed: expected 0 .* got 7"),
        ({"width": 16}, IMAGES, "width: expected 8 .* got 16"),
        ({"lr": 0.5}, IMAGES, r"lr: expected 0\.001 .* got 0\.5"),
        ({}, replace(IMAGES, x=IMAGES.x * np.float32(0.5)), "data: expected"),
        ({}, replace(IMAGES, y=IMAGES.y[::-1].copy()), "data: expected"),
    ],
)
def test_resume_with_anything_else_is_refused_and_nothing_changes(whole, change, data, words):
    before = files(whole)
    with pytest.raises(ValueError, match=words):
        train(replace(TINY, **change), data, whole, device="cpu", resume=True)
    assert files(whole) == before


def test_resume_needs_a_run_and_a_fresh_start_an_empty_folder(whole, tmp_path):
    with pytest.raises(FileNotFoundError, match="train first"):
        train(TINY, IMAGES, tmp_path / "absent", device="cpu", resume=True)
    assert not (tmp_path / "absent").exists()
    with pytest.raises(FileExistsError, match="--resume"):
        train(TINY, IMAGES, whole, device="cpu")


def test_another_thread_count_goes_on_but_says_so(whole, tmp_path):
    last(train(TINY, IMAGES, tmp_path, device="cpu", stop=lambda: True))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(UserWarning, match=f"^not bit-exact: threads {threads} before, "):
            run = train(TINY, IMAGES, tmp_path, device="cpu", resume=True)
        assert last(run).step == TINY.steps
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("ema/enter.weight", r"expected ema/enter.weight \(8, 4\) in the checkpoint, got none"),
        ("network/enter.weight", "expected network/enter.weight .* got none"),
        ("ema/", "expected ema/.* got none"),
    ],
)
def test_a_checkpoint_without_an_array_is_neither_resumed_nor_loaded(whole, lost, words, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    saved = checkpoints.latest(folder)
    kept = {name: array for name, array in saved.tensors.items() if not name.startswith(lost)}
    assert len(kept) < len(saved.tensors)
    checkpoints.save(folder, replace(saved, tensors=kept))
    before = files(folder)
    with pytest.raises(ValueError, match=words):
        load(folder, which=lost.split("/")[0])
    with pytest.raises(ValueError, match=words):
        last(train(TINY, IMAGES, folder, device="cpu", resume=True))
    assert files(folder) == before


def test_a_checkpoint_that_claims_a_huge_network_costs_nothing(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    saved = checkpoints.latest(folder)
    facts = {**saved.facts, "recipe": {**saved.facts["recipe"], "width": 2**16}}
    checkpoints.save(folder, replace(saved, facts=facts))
    with pytest.raises(ValueError, match=r"65536.* in the checkpoint, got \("):
        load(folder)


@pytest.mark.parametrize("call", range(12))
def test_a_start_that_fails_anywhere_can_be_started_or_resumed(whole, call, tmp_path, monkeypatch):
    """A disk that is full at the k-th write leaves an empty folder or one to resume, never neither."""
    left, real = [call], os.fsync

    def fsync(handle):
        left[0] -= 1
        if left[0] == -1:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with contextlib.suppress(OSError):
        last(train(TINY, IMAGES, tmp_path, device="cpu"))
    monkeypatch.undo()
    assert not list(tmp_path.glob(".*.tmp-*"))
    resume = any(tmp_path.glob("checkpoint-*"))
    list(train(TINY, IMAGES, tmp_path, device="cpu", resume=resume))
    name = f"checkpoint-{TINY.steps:08d}.safetensors"
    assert files(tmp_path)[0][name] == files(whole)[0][name]
    assert {path.name for path in tmp_path.iterdir()} >= {"recipe.json", "spec.json"}


def test_half_a_line_of_the_log_is_dropped(whole, tmp_path):
    folder = tmp_path / "run"
    last(train(TINY, IMAGES, folder, device="cpu", stop=lambda: True))
    log = folder / "metrics.jsonl"
    kept = log.read_bytes()
    log.write_bytes(kept + b'{"step": 1, "lo\n\xff\n[]\n{"step": 2')
    last(train(TINY, IMAGES, folder, device="cpu", resume=True))
    assert log.read_bytes().startswith(kept)
    assert [line["step"] for line in files(folder)[1]] == [1, 2, 4, 6, 8, 9]


def test_a_start_in_a_place_that_is_no_folder_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=f"{out}: expected a folder to write in, got"):
            last(train(TINY, IMAGES, out, device="cpu"))


# The loss


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_first_loss_is_that_of_a_network_that_answers_nothing(schedule, prediction, tmp_path):
    """New networks answer 0, so the first loss is the weighted mean square of the target."""
    mine = replace(TINY, schedule=schedule, prediction=prediction, steps=1, batch=ROWS)
    data = replace(IMAGES, step=None)  # no dequantisation noise to know of
    first = next(train(mine, data, tmp_path, device="cpu"))
    drawn = draw(mine, data, 0)
    noise = torch.empty(data.x.shape).normal_(
        generator=torch.Generator().manual_seed(key(mine, 0, "noise"))
    )
    target = drawn.row.c * data.x[drawn.rows] + drawn.row.d * noise.numpy()
    assert first.loss == pytest.approx(float((drawn.row.weight * target**2).mean()), rel=1e-5)


def test_a_gaussian_is_learned_to_the_analytic_minimum(tmp_path):
    """(pi / 2) mean s_i is the loss of the exact field: for Gaussian data it is linear."""
    spread = np.array([0.3, 1.0, 2.0], np.float32)
    x = RNG.standard_normal((20_000, 3)).astype(np.float32) * spread
    data = Data("gaussian", x)
    mine = recipe.Recipe("gaussian", "mlp", 64, 2, steps=1200, batch=512, lr=3e-3)
    losses = [now.loss for now in train(mine, data, tmp_path, device="cpu")]
    minimum = objectives.best_linear_loss(x)
    assert minimum == pytest.approx(np.pi / 2 * spread.mean(), rel=0.02)
    # 400 batches of 512 rows, three numbers each: the mean is good to about half a percent
    assert np.mean(losses[-400:]) == pytest.approx(minimum, rel=0.05)


def test_a_loss_that_is_not_finite_ends_the_run_and_the_checkpoint_is_finite(tmp_path):
    wild = replace(TINY, lr=1e3, clip=1e300, warmup=0, steps=500)
    with pytest.raises(
        FloatingPointError, match=r"step \d+: expected a finite loss, got .*lower lr"
    ):
        last(train(wild, IMAGES, tmp_path, device="cpu"))
    newest = checkpoints.latest(tmp_path)
    assert all(np.isfinite(array).all() for array in newest.tensors.values())


def test_ema_is_the_average_of_the_weights(tmp_path):
    average = None
    for step, now in enumerate(train(replace(TINY, save_every=1), IMAGES, tmp_path, device="cpu")):
        saved = checkpoints.read(now.saved)
        weights = saved.part("network")
        if average is None:
            average = checkpoints.read(tmp_path / "checkpoint-00000000.safetensors").part(
                "network"
            )
        decay = ema.decay_at(step, TINY.ema)
        average = {k: average[k] * decay + weights[k] * (1.0 - decay) for k in weights}
        for name, array in saved.part("ema").items():
            np.testing.assert_allclose(array, average[name], rtol=1e-5, atol=1e-7)
    assert any((array != weights[name]).any() for name, array in saved.part("ema").items())


def test_load_gives_the_averaged_or_the_last_network(whole):
    saved = checkpoints.latest(whole)
    for which in ("ema", "network"):
        module, spec = load(whole, which=which)
        assert not module.training
        for name, weight in module.named_parameters():
            assert np.array_equal(weight.numpy(), saved.part(which)[name])
    assert spec.shape == (4, 4, 1)
    assert spec.condition.classes == 3
    with pytest.raises(ValueError, match="did you mean 'ema'"):
        load(whole, which="emma")


@pytest.mark.parametrize("pairing", ["independent", "optimal_transport"])
@pytest.mark.parametrize("times", ["uniform", "logit_normal"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_way_to_train_lowers_the_loss(pairing, times, precision, tmp_path):
    mine = replace(TINY, pairing=pairing, times=times, precision=precision, steps=150, lr=1e-2)
    losses = [now.loss for now in train(mine, IMAGES, tmp_path, device="cpu")]
    assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:10])
    assert all(w.dtype == torch.float32 for w in load(tmp_path)[0].parameters())


# Processes


def test_a_share_of_the_batch_for_each_process():
    shares = [Processes(rank, 3).share(12) for rank in range(3)]
    assert [list(range(12)[share]) for share in shares] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    with pytest.raises(
        ValueError, match="batch: expected a multiple of the 3 processes, got 16; give 15"
    ):
        Processes(0, 3).share(16)


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """The images as a file a command line can read."""
    file = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(file, x=IMAGES.x, y=IMAGES.y)
    return file


def command(arrays, out, *options):
    return [
        "-m",
        "toolkit",
        "train",
        arrays,
        "--out",
        out,
        "--batch",
        "16",
        "--network",
        "mlp",
        *options,
    ]


def test_two_gloo_processes_train_what_one_trains(arrays, tmp_path):
    """The same rows, times and noise; only the order of sums differs."""
    options = ("--steps", "12", "--device", "cpu")
    for start, out in (([], "one"), (TORCHRUN, "two")):
        words = [sys.executable, *start, *command(arrays, tmp_path / out, *options)]
        done = subprocess.run(words, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]
    one, two = (checkpoints.latest(tmp_path / out) for out in ("one", "two"))
    assert one.step == two.step == 12
    assert two.facts["made_with"]["processes"] == 2
    start = checkpoints.Checkpoint(0, networks.first_weights(shapes_of(tmp_path / "one"), 0))
    for name, array in one.part("network").items():
        moved = np.abs(array - start.tensors[name]).max()
        np.testing.assert_allclose(two.part("network")[name], array, atol=1e-3 * moved + 1e-6)
    logs = [(tmp_path / out / "metrics.jsonl").read_text().splitlines() for out in ("one", "two")]
    assert len(logs[0]) == len(logs[1])  # written by one process only


def test_no_thread_of_gloo_outlives_a_run(tmp_path):
    """One that still runs when Python ends aborts the process, once in many runs (pytorch#179291)."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        "from tests.test_train_torch import IMAGES, TINY, train\n"
        "threads = lambda: [p.read_text() for p in Path('/proc/self/task').glob('*/comm')]\n"
        "seen = [threads() for _ in train(TINY, IMAGES, Path(sys.argv[1]), device='cpu')]\n"
        "assert any('gloo' in name for name in seen[0]), seen[0]\n"
        "assert not any('gloo' in name for name in threads()), threads()\n"
    )
    words = [sys.executable, *TORCHRUN, str(script), str(tmp_path / "run")]
    where = {**environment(), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(words, env=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]


def shapes_of(folder):
    return layers_torch.shapes(load(folder)[0])


STEPS = ("--steps", "200", "--device", "cpu")


@pytest.fixture(scope="module")
def unstopped(arrays, tmp_path_factory):
    """The last checkpoint of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("unstopped")
    words = [sys.executable, *command(arrays, out, *STEPS)]
    subprocess.run(words, env=environment(), check=True, capture_output=True)
    return out / "checkpoint-00000200.safetensors"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_continuation_is_the_whole_run(
    number, code, arrays, unstopped, tmp_path
):
    cut = tmp_path / "cut"
    words = [sys.executable, *command(arrays, cut, *STEPS)]
    with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while not (cut / "metrics.jsonl").exists() and process.poll() is None:
            pass
        process.send_signal(number)
        err = process.communicate()[1]
    assert process.returncode == code, err
    assert "stopped and saved; go on with --resume" in err
    stopped_at = checkpoints.latest(cut).step
    assert 0 < stopped_at < 200
    words = [sys.executable, *command(arrays, cut, *STEPS, "--resume")]
    subprocess.run(words, env=environment(), check=True, capture_output=True)
    assert unstopped.read_bytes() == (cut / unstopped.name).read_bytes()
