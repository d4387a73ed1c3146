"""The MLX trainer is the torch trainer: same losses, same steps, same folder, opened by either."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten

import runtimes
from export import MlxModel, TorchModel, export_torch
from runtimes.solvers import SOLVERS
from toolkit import (
    checkpoints,
    data,
    ema,
    networks,
    processes_mlx,
    recipe,
    run_torch,
    train_mlx,
    train_torch,
)
from toolkit.cli.train import pick_backend
from toolkit.draws import draw, key
from toolkit.networks import NETWORKS, layers_mlx, layers_torch
from toolkit.paths import PAIRINGS
from toolkit.processes import Processes
from toolkit.processes_mlx import advice, pick_device
from toolkit.run_mlx import PARTS, State, first_state, load
from toolkit.runs import framework_of
from toolkit.train_mlx import train

from .test_train_torch import BATCH, IMAGES, ROWS, TINY, files, last


@pytest.fixture(autouse=True)
def plain():
    """No compilation but where it is tested: on a CPU each new piece costs half a second of g++."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    mx.disable_compile()
    last(train(TINY, IMAGES, folder))
    return folder


@pytest.fixture(scope="module")
def torchs(tmp_path_factory):
    """The same recipe trained by torch."""
    folder = tmp_path_factory.mktemp("torch") / "run"
    last(train_torch.train(TINY, IMAGES, folder, device="cpu"))
    return folder


DATA = {
    "label": IMAGES,
    "none": replace(IMAGES, y=None, classes=0),
    "context": replace(
        IMAGES, y=np.random.default_rng(1).standard_normal((ROWS, 3, 5), np.float32), classes=0
    ),
}


def drawn_weights(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {k: (0.3 * rng.standard_normal(v)).astype(np.float32) for k, v in shapes.items()}


def batch_of(mine, known, step):
    """(Row, x, noise, condition or None) of a step on the host; dithered and noised by numpy."""
    rng, drawn = np.random.default_rng([7, step]), draw(mine, known, step)
    x = known.x[drawn.rows]
    return drawn.row, x, rng.standard_normal(x.shape, np.float32), drawn.condition


def on(array, batch):
    """The batch as another framework's arrays."""
    row, x, noise, told = batch
    return row.to(array), array(x), array(noise), None if told is None else array(told)


# The step


@pytest.mark.parametrize("condition", DATA)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("prediction", ["velocity", "score"])
def test_the_same_first_loss_as_torch_from_the_same_numbers(network, condition, prediction):
    mine = replace(TINY, network=network, prediction=prediction, label_dropout=0.5)
    known = DATA[condition]
    module = networks.build(mine, known)
    weights = drawn_weights(layers_torch.shapes(module))
    layers_torch.fill(module, weights)
    batch = batch_of(mine, known, 0)
    wanted = train_torch.loss_at(module, mine, *on(torch.from_numpy, batch)).item()
    other = networks.build(mine, known, layers_mlx)
    arrays = {name: mx.array(array) for name, array in weights.items()}
    loss = train_mlx.loss_at(other, arrays, mine, *on(mx.array, batch)).item()
    assert loss == pytest.approx(wanted, rel=1e-5)
    zero = train_mlx.loss_at(other, layers_mlx.flat(other), mine, *on(mx.array, batch)).item()
    assert abs(loss - zero) > 1e-3  # not what a network that answers nothing has


def torch_steps(mine, known, weights, steps):
    """The weights after some steps of torch's own optimiser and clipping on `batch_of`."""
    module = networks.build(mine, known)
    layers_torch.fill(module, weights)
    optimiser = torch.optim.AdamW(module.parameters(), betas=(0.9, 0.99), weight_decay=mine.decay)
    norms = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = recipe.rate_at(mine, step)
        optimiser.zero_grad()
        train_torch.loss_at(
            module, mine, *on(torch.from_numpy, batch_of(mine, known, step))
        ).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(module.parameters(), mine.clip)))
        optimiser.step()
    return {name: weight.detach().numpy() for name, weight in module.named_parameters()}, norms


def mlx_steps(mine, known, weights, steps, wrap=lambda function: function):
    """The state after some steps of `advance` on the same batches."""
    module = networks.build(mine, known, layers_mlx)
    layers_mlx.fill(module, weights)
    state, norms = vars(first_state(module)), []
    step_once = wrap(partial(train_mlx.advance, module, mine, Processes()))
    for step in range(steps):
        row, x, noise, told = on(mx.array, batch_of(mine, known, step))
        batch = {"row": vars(row), "x": x, "noise": noise, "told": told}
        state, seen = step_once(state, batch, train_mlx.numbers_at(mine, step))
        mx.eval(state, seen)
        norms.append(seen[1].item())
    return State(**state), norms


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("clip", [1e-2, 1e300])
def test_steps_are_those_of_torchs_adamw(network, clip):
    """Warm-up, decay, clipping and both bias corrections, over eight steps."""
    mine = replace(TINY, network=network, clip=clip, decay=0.5, lr=1e-2, warmup=3, steps=8)
    start = drawn_weights(layers_torch.shapes(networks.build(mine, IMAGES)))
    theirs, their_norms = torch_steps(mine, IMAGES, start, 8)
    state, norms = mlx_steps(mine, IMAGES, start, 8)
    np.testing.assert_allclose(norms, their_norms, rtol=1e-4)
    for name, wanted in theirs.items():
        moved = np.abs(wanted - start[name]).max()
        assert moved > 1e-2
        # where a gradient is all round-off (a bias of the keys), Adam makes a full step of it
        size = np.sqrt(np.array(state.square[name]))
        error = np.abs(np.array(state.weights[name]) - wanted)[size > 1e-4 * size.max()]
        assert error.max() < 1e-3 * moved, name


@pytest.mark.slow  # MLX hands each piece of the step to g++
def test_a_compiled_step_is_the_plain_one():
    mine = replace(TINY, network="mlp", depth=1)
    start = drawn_weights(layers_torch.shapes(networks.build(mine, IMAGES)))
    plain_state, plain_norms = mlx_steps(mine, IMAGES, start, 3)
    mx.enable_compile()
    traced = []

    def wrap(function):
        return mx.compile(lambda *given: traced.append(1) or function(*given))

    state, norms = mlx_steps(mine, IMAGES, start, 3, wrap)
    assert len(traced) == 1  # once for all steps: the rate is an array
    np.testing.assert_allclose(norms, plain_norms, rtol=1e-6)
    for part, plain_part in zip(vars(state).values(), vars(plain_state).values(), strict=True):
        for name, array in part.items():
            np.testing.assert_allclose(np.array(array), np.array(plain_part[name]), atol=1e-6)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_first_loss_is_that_of_a_network_that_answers_nothing(pairing, tmp_path):
    """The noise of a step is MLX's own, from the key that (seed, step) gives, and paired."""
    mine = replace(TINY, steps=1, batch=ROWS, pairing=pairing)
    known = replace(IMAGES, step=None)  # no dequantisation noise to know of
    first = next(train(mine, known, tmp_path))
    drawn = draw(mine, known, 0)
    noise = np.array(mx.random.normal(known.x.shape, key=mx.random.key(key(mine, 0, "noise"))))
    noise = noise[PAIRINGS[pairing](known.x[drawn.rows], noise, drawn.groups)]
    target = drawn.row.c * known.x[drawn.rows] + drawn.row.d * noise
    assert first.loss == pytest.approx(float((drawn.row.weight * target**2).mean()), rel=1e-5)


@pytest.mark.parametrize("pairing", ["independent", "optimal_transport"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_way_to_train_lowers_the_loss(pairing, precision, tmp_path):
    mine = replace(TINY, pairing=pairing, precision=precision, steps=100, lr=1e-2)
    run = list(train(mine, IMAGES, tmp_path))
    losses, means = ([getattr(now, name) for now in run] for name in ("loss", "mean_loss"))
    assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:10])
    assert np.diff(means)[20:].std() < 0.2 * np.diff(losses)[20:].std()  # the steadier number
    assert all(w.dtype == mx.float32 for w in layers_mlx.flat(load(tmp_path)[0]).values())


@pytest.mark.parametrize("framework", [train_torch, train_mlx])
@pytest.mark.parametrize(("dropout", "moves"), [(0.0, [1, 1, 1, 0]), (1.0 - 1e-12, [0, 0, 0, 1])])
def test_labels_are_dropped_in_training(framework, dropout, moves, tmp_path):
    """A row of the table that no sample was told gets no gradient, and without decay it stays."""
    mine = replace(TINY, label_dropout=dropout, decay=0.0)
    last(framework.train(mine, IMAGES, tmp_path, device="cpu"))
    name = "conditioning.table.weight"
    first, end = (
        checkpoints.read(tmp_path / f"checkpoint-{step:08d}.safetensors").part("network")[name]
        for step in (0, mine.steps)
    )
    assert (first != end).any(1).tolist() == [bool(moved) for moved in moves]


def test_bf16_computes_in_bf16(tmp_path):
    """Another loss, by about the eight bits that are left."""
    start = drawn_weights(layers_torch.shapes(networks.build(TINY, IMAGES)))
    arrays = {name: mx.array(array) for name, array in start.items()}
    module, batch = (
        networks.build(TINY, IMAGES, layers_mlx),
        on(mx.array, batch_of(TINY, IMAGES, 0)),
    )
    full, half = (
        train_mlx.loss_at(module, arrays, replace(TINY, precision=precision), *batch).item()
        for precision in ("fp32", "bf16")
    )
    assert 1e-6 < abs(half / full - 1) < 0.05


def test_ema_is_the_average_of_the_weights(tmp_path):
    average = None
    for step, now in enumerate(train(replace(TINY, save_every=1), IMAGES, tmp_path)):
        saved = checkpoints.read(now.saved)
        if average is None:
            first = checkpoints.read(tmp_path / "checkpoint-00000000.safetensors")
            average = first.part("network")
        decay, weights = ema.decay_at(step, TINY.ema), saved.part("network")
        average = {k: average[k] * decay + weights[k] * (1.0 - decay) for k in weights}
        for name, array in saved.part("ema").items():
            np.testing.assert_allclose(array, average[name], rtol=1e-5, atol=1e-7)
    assert any((array != weights[name]).any() for name, array in saved.part("ema").items())


def test_a_loss_that_is_not_finite_ends_the_run_and_the_checkpoint_is_finite(tmp_path):
    wild = replace(TINY, lr=1e3, clip=1e300, warmup=0, steps=500)
    with pytest.raises(FloatingPointError, match=r"step \d+: expected a finite loss, .*lower lr"):
        last(train(wild, IMAGES, tmp_path))
    newest = checkpoints.latest(tmp_path)
    assert all(np.isfinite(array).all() for array in newest.tensors.values())


# Resume


@pytest.mark.parametrize("stops", [(1,), (5,), (4, 6, 8)])
def test_resumed_runs_end_in_the_same_bits(whole, stops, tmp_path):
    """Stopped at step 1, at an epoch's edge (5) and inside one, and three times."""
    done = 0
    for stop in stops:
        asked = iter([False] * (stop - done - 1) + [True])
        run = train(TINY, IMAGES, tmp_path, resume=done > 0, stop=lambda a=asked: next(a))
        done = last(run).step
        assert done == stop
    mx.random.seed(123)  # the framework's own generator has no say
    last(train(TINY, IMAGES, tmp_path, resume=True))
    mine, log = files(tmp_path)
    theirs, whole_log = files(whole)
    name = f"checkpoint-{TINY.steps:08d}.safetensors"
    assert mine[name] == theirs[name]
    logged = {line["step"]: line for line in log}
    assert all(logged[line["step"]] == line for line in whole_log)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"seed": 7}, "seed: expected 0 .* got 7"), ({"width": 16}, "width: expected 8 .* got 16")],
)
def test_resume_with_another_recipe_is_refused(whole, change, words):
    with pytest.raises(ValueError, match=words):
        train(replace(TINY, **change), IMAGES, whole, resume=True)


def test_the_other_framework_does_not_resume(whole, torchs):
    """Their generators differ: the rest of the run would be another one."""
    before = files(whole), files(torchs)
    with pytest.raises(ValueError, match=r"framework: expected 'mlx' .* got 'torch'; resume with"):
        train_torch.train(TINY, IMAGES, whole, device="cpu", resume=True)
    with pytest.raises(ValueError, match=r"framework: expected 'torch' .* got 'mlx'; resume with"):
        train(TINY, IMAGES, torchs, resume=True)
    assert (files(whole), files(torchs)) == before


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_without_an_array_is_not_resumed(whole, part, tmp_path):
    saved = checkpoints.latest(whole)
    kept = {k: v for k, v in saved.tensors.items() if k != f"{part}/enter.weight"}
    assert len(kept) == len(saved.tensors) - 1
    checkpoints.save(tmp_path, replace(saved, tensors=kept))
    with pytest.raises(ValueError, match=rf"expected {part}/enter.weight \(8, 4\) .* got none"):
        last(train(TINY, IMAGES, tmp_path, resume=True))


# One folder for both


@pytest.mark.parametrize("which", ["ema", "network"])
@pytest.mark.parametrize("trained", ["whole", "torchs"])
def test_either_framework_opens_what_the_other_saved(trained, which, request):
    folder = request.getfixturevalue(trained)
    saved = checkpoints.latest(folder).part(which)
    module, spec = run_torch.load(folder, which=which)
    other, same_spec = load(folder, which=which)
    assert spec == same_spec
    assert not other.training
    assert not tree_flatten(other.trainable_parameters())
    assert all(np.array_equal(np.array(w), saved[n]) for n, w in layers_mlx.flat(other).items())
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, *spec.shape), np.float32)
    time, label = rng.random(7, np.float32), np.arange(7) % 4  # 3 is the null label
    with torch.no_grad():
        wanted = module(*map(torch.from_numpy, (x, time, label))).numpy()
    assert wanted.std() > 1e-5
    np.testing.assert_allclose(
        np.array(other(*map(mx.array, (x, time, label)))), wanted, atol=1e-5 * np.abs(wanted).max()
    )


def test_both_write_the_same_files(whole, torchs):
    mine, theirs = checkpoints.latest(whole), checkpoints.latest(torchs)
    assert {k: v.shape for k, v in mine.tensors.items()} == {
        k: v.shape for k, v in theirs.tensors.items()
    }
    assert mine.facts.keys() == theirs.facts.keys()
    assert {path.name for path in whole.iterdir()} == {path.name for path in torchs.iterdir()}
    keys = [
        {tuple(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()}
        for run in (whole, torchs)
    ]
    assert keys[0] == keys[1]
    first = [checkpoints.read(run / "checkpoint-00000000.safetensors") for run in (whole, torchs)]
    assert all(
        np.array_equal(array, first[1].part("network")[name])
        for name, array in first[0].part("network").items()
    )


@pytest.fixture(scope="module")
def strong(whole, tmp_path_factory):
    """A run folder of `whole` whose weights are large enough for samples to depend on them."""
    folder = tmp_path_factory.mktemp("strong")
    saved = checkpoints.latest(whole)
    tensors = {
        name: drawn_weights({name: array.shape}, i)[name]
        for i, (name, array) in enumerate(saved.tensors.items())
    }
    checkpoints.save(folder, replace(saved, tensors=tensors))
    (folder / "spec.json").write_bytes((whole / "spec.json").read_bytes())
    return folder


@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_are_the_same_on_torch_and_mlx(strong, solver):
    models = [
        Model(spec, module)
        for Model, (module, spec) in (
            (TorchModel, run_torch.load(strong)),
            (MlxModel, load(strong)),
        )
    ]
    theirs, mine = (
        runtimes.sample(model, 6, solver=solver, steps=4, label=[0, 1, 2] * 2, guidance=1.5)
        for model in models
    )
    assert np.abs(theirs[0] - theirs[1]).max() > 1e-2
    np.testing.assert_allclose(mine, theirs, atol=1e-5 * np.abs(theirs).max())


def test_a_run_of_mlx_is_exported_through_torch(strong, tmp_path):
    module, spec = train_torch.load(strong)
    export_torch(module, spec, tmp_path / "a.onnx")
    mine = runtimes.sample(MlxModel(spec, load(strong)[0]), 4, steps=3, label=2)
    there = runtimes.sample(runtimes.load(tmp_path / "a.onnx"), 4, steps=3, label=2)
    np.testing.assert_allclose(there, mine, atol=1e-5 * np.abs(mine).max())


# The command line and its processes


@pytest.fixture
def arrays(tmp_path):
    """The images as a file a command line can read."""
    np.savez(tmp_path / "images.npz", x=IMAGES.x, y=IMAGES.y)
    return tmp_path / "images.npz"


def command(arrays, out, *options):
    words = ("--batch", BATCH, "--network", "mlp", "--backend", "mlx", "--device", "cpu")
    return [
        sys.executable,
        *map(str, ("-m", "toolkit", "train", arrays, "--out", out, *words, *options)),
    ]


def environment():
    return {**os.environ, "MLX_DISABLE_COMPILE": "1"}


def of_command(arrays, steps):
    """(recipe, data) as `command` has them."""
    known = data.load(arrays)
    default = recipe.default_recipe(known, "mlp")
    return replace(default, data=str(arrays), batch=BATCH, steps=steps), known


def free_ports(count):
    """The first of so many free neighbours, below those that the system hands out by itself."""
    while True:
        first = random.SystemRandom().randrange(20_000, 32_000)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + offset))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()


def launched(processes, words):
    start = [sys.executable, "-c", "from mlx._distributed_utils.launch import main; main()"]
    start += ["-n", str(processes), "--backend", "ring", "-p", str(free_ports(processes)), "--"]
    return subprocess.run([*start, *words], env=environment(), capture_output=True, text=True)


TWO = """
import sys
from dataclasses import replace
from pathlib import Path
import mlx.core as mx
from toolkit import data, recipe
from toolkit.train_mlx import train
known = replace(data.load(sys.argv[1]), step=1 / 8)
mine, out = recipe.from_json(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
assert len(list(train(mine, known, out / "two", device="cpu"))) == mine.steps
second, asked = mx.distributed.init().rank() == 1, iter([False, False, True])
run = train(mine, known, out / "stopped", device="cpu", stop=lambda: second and next(asked))
assert [now.step for now in run] == [1, 2, 3]
"""


def test_two_processes_of_mlx_launch_train_what_one_trains(arrays, tmp_path):
    """The same rows, times and noise; only the order of sums differs. One is asked to stop: both do."""
    mine, known = of_command(arrays, 12)
    mine = replace(mine, log_every=1)
    last(train(mine, replace(known, step=1 / 8), tmp_path / "one", device="cpu"))
    (tmp_path / "recipe.json").write_text(recipe.to_json(mine))
    words = map(str, (sys.executable, "-c", TWO, arrays, tmp_path / "recipe.json", tmp_path))
    done = launched(2, words)
    assert done.returncode == 0, done.stderr[:4000]
    assert checkpoints.latest(tmp_path / "stopped").step == 3
    one, two = (checkpoints.latest(tmp_path / out) for out in ("one", "two"))
    assert one.step == two.step == 12
    assert two.facts["made_with"]["processes"] == 2
    start = networks.first_weights(
        {name: array.shape for name, array in one.part("network").items()}, 0
    )
    for name, array in one.part("network").items():
        moved = np.abs(array - start[name]).max()
        np.testing.assert_allclose(two.part("network")[name], array, atol=1e-3 * moved + 1e-6)
    losses = [[line["loss"] for line in files(tmp_path / out)[1]] for out in ("one", "two")]
    np.testing.assert_allclose(*losses, rtol=1e-4)  # each step once: one process wrote them


def test_alone_under_mlx_launch_there_is_nobody_to_meet(arrays, tmp_path):
    words = command(arrays, tmp_path / "run", "--steps", 2)
    done = launched(1, words)
    assert done.returncode == 0, done.stderr[:4000]
    assert checkpoints.latest(tmp_path / "run").facts["made_with"]["processes"] == 1


def test_a_signal_saves_and_the_continuation_is_the_whole_run(arrays, tmp_path):
    """The preview is drawn by MLX; --resume alone knows that the folder is MLX's."""
    cut = tmp_path / "cut"
    words = command(arrays, cut, "--steps", 200)
    with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while not (cut / "metrics.jsonl").exists() and process.poll() is None:
            pass
        process.send_signal(signal.SIGTERM)
        err = process.communicate()[1]
    assert process.returncode == 143, err
    assert "stopped and saved; go on with --resume" in err
    assert 0 < checkpoints.latest(cut).step < 200
    resume = [*words, "--resume", "--backend", "auto"]
    done = subprocess.run(resume, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"loss.png", "preview.png"} <= {path.name for path in cut.iterdir()}
    mine, known = of_command(arrays, 200)
    last(train(mine, known, tmp_path / "whole", device="cpu"))
    name = "checkpoint-00000200.safetensors"
    assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("g++"), reason="no g++ is run")
def test_ctrl_c_at_a_terminal_also_ends_the_compiler_and_the_step_is_finished(arrays, tmp_path):
    """MLX on a CPU compiles its pieces one by one in the first step: Ctrl-C hits the second or a later."""
    where = {**os.environ, "TMPDIR": str(tmp_path)}  # none compiled before
    words = command(arrays, tmp_path / "run", "--steps", 200)
    with subprocess.Popen(
        words, env=where, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        while not list(tmp_path.glob("mlx/*/cpu/*.so")) and process.poll() is None:
            pass
        os.killpg(process.pid, signal.SIGINT)
        err = process.communicate()[1]
    assert process.returncode == 130, err
    assert checkpoints.latest(tmp_path / "run").step == 1


def test_auto_is_the_backend_of_the_run_or_torch(whole, torchs, tmp_path):
    assert framework_of(whole) == pick_backend("auto", whole, True) == "mlx"
    assert framework_of(torchs) == pick_backend("auto", torchs, True) == "torch"
    assert pick_backend("auto", tmp_path, False) == "torch"
    assert pick_backend("mlx", torchs, True) == "mlx"
    with pytest.raises(ValueError, match="backend: expected one of auto, torch, mlx, got 'mxl'"):
        pick_backend("mxl", tmp_path, False)
    with pytest.raises(FileNotFoundError, match="train first"):
        pick_backend("auto", tmp_path, True)


def test_auto_is_mlx_without_torch_and_what_is_missing_is_named(arrays, tmp_path):
    """On a Mac without torch nothing of a training run imports it."""
    run = command(arrays, tmp_path / "run", "--steps", 2, "--backend", "auto")[3:]
    text = "import sys\nfor name in {}: sys.modules[name] = None\nfrom toolkit.cli import main\nmain({})"
    for names, code, words in (
        (["torch", "onnx"], 0, ""),
        (
            ["torch", "mlx"],
            1,
            r"error: backend: expected mlx, got .*; pip install 'toolkit\[mlx\]'",
        ),
    ):
        program = [sys.executable, "-c", text.format(names, run)]
        done = subprocess.run(program, env=environment(), capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert re.search(words, done.stderr)


def test_devices_are_checked_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="device: expected one of auto, cpu, gpu, got 'cuda'"):
        train(TINY, IMAGES, tmp_path / "run", device="cuda")
    if not mx.is_available(mx.gpu):
        with pytest.raises(ValueError, match="device: expected cpu here, got 'gpu'"):
            train(TINY, IMAGES, tmp_path / "run", device="gpu")
    assert not (tmp_path / "run").exists()
    assert pick_device("cpu").type == mx.cpu


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX has a fast BLAS")
def test_advice_is_one_line_where_a_product_is_slow_and_none_where_it_is_not(monkeypatch):
    """How fast this machine's BLAS is, is not ours to say: the bar is moved instead."""
    monkeypatch.setattr(processes_mlx, "SLOW", 1e9)
    assert re.fullmatch(r"MLX multiplies .* [0-9]+% of .*LD_PRELOAD=libopenblas\S+", advice("cpu"))
    monkeypatch.setattr(processes_mlx, "SLOW", 0.0)
    assert advice("cpu") == ""
