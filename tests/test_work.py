"""How many threads a session really has, that none of them waits in a loop, and what a batch is worth."""

import os
import time
from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper

import runtimes
from runtimes import modelfile, work
from runtimes.sample import collect, plan
from runtimes.spec import Sampler, Spec
from runtimes.timing import CLOCKS, interleaved, quartiles, ratios, warmed

from .conftest import sealed
from .problems import mixture_graph, mixture_spec
from .test_sampler import write


def layers(width, shape=(2,), depth=1):
    """x W1 W2 ... W(depth) of 2 -> width -> ... -> width -> 2, at every place of a sample."""
    rng, sizes = np.random.default_rng(0), [shape[-1], *([width] * depth), shape[-1]]
    weights = {
        f"w{k}": (rng.standard_normal(pair) / pair[0] ** 0.5).astype(np.float32)
        for k, pair in enumerate(pairwise(sizes))
    }
    names = ["x", *(f"h{k}" for k in range(depth)), "prediction"]
    nodes = [
        helper.make_node("MatMul", [names[k], f"w{k}"], [names[k + 1]]) for k in range(depth + 1)
    ]
    values = [
        ("x", TensorProto.FLOAT, ["batch", *shape]),
        ("time", TensorProto.FLOAT, ["batch"]),
    ]
    return sealed(nodes, weights, Spec("layers", shape, sampler=Sampler("euler", 4)), values)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two of 2 numbers, small and wide, and one that works on 32 x 32 places."""
    folder = tmp_path_factory.mktemp("work")
    contents = {
        "small": layers(64, depth=2),
        "middle": layers(256, depth=2),
        "large": layers(128, (32, 32, 4), depth=2),
    }
    for name, content in contents.items():
        (folder / f"{name}.onnx").write_bytes(content)
    return {name: folder / f"{name}.onnx" for name in contents}


@pytest.mark.parametrize(
    ("name", "told", "wanted"),
    [
        ("small", {}, 1),
        ("large", {}, 8),
        ("large", {"rows": 1}, 4),  # 128 x 128 x 1024 multiplications
        ("small", {"rows": 100_000}, 1),  # in batches
        ("middle", {}, 16),
        ("middle", {"rows": 128}, 2),
        ("middle", {"rows": 64}, 1),
        ("small", {"threads": "all"}, 16),
        ("large", {"threads": 1}, 1),
        ("small", {"threads": 3}, 3),
    ],
)
@pytest.mark.parametrize("cores", [1, 2, 16])
def test_a_session_has_so_many_threads(files, name, told, wanted, cores, monkeypatch):
    monkeypatch.setattr(work, "cores", lambda: cores)
    wanted = wanted if isinstance(told.get("threads"), int) else min(wanted, cores)
    model = runtimes.load(files[name], provider="cpu", **told)
    assert model.session.get_session_options().intra_op_num_threads == wanted


def test_what_counts_is_the_largest_product(files, tmp_path):
    large = modelfile.read(files["large"])
    for rows in (1, 3):
        assert work.product(large, Spec("a", (32, 32, 4)), rows) == rows * 128 * 128 * 1024
    spec = mixture_spec(sampler=Sampler("euler", 4))
    file = write(tmp_path / "unrolled.onnx", "unrolled", mixture_graph(), spec).file
    assert work.product(file, spec, 5) == work.product(file, spec, 1) > 0  # its batch is its own


@pytest.mark.parametrize("threads", ["1", "every", 1.5, None, True, -1, 10**9])
def test_threads_are_a_number_or_all(files, threads):
    with pytest.raises(ValueError, match="threads: expected 0 to 1024 or 'all', got"):
        runtimes.load(files["small"], threads=threads)


def test_a_thread_without_work_leaves_the_core(files):
    """ONNX Runtime's own go on asking for work, which takes 20 ms of a core after every call."""
    model = runtimes.load(files["large"], provider="cpu", threads=2)
    x, used = np.zeros((4, 32, 32, 4), np.float32), []
    for _ in range(5):
        model.network(x, 0.5)
        before = time.process_time()
        time.sleep(0.05)
        used.append(time.process_time() - before)
    assert min(used) < 0.002


def test_a_batch_is_smaller_the_more_places_a_sample_has(files):
    rows = {}
    for name in files:
        model, seen = runtimes.load(files[name], provider="cpu"), []
        rows[name] = work.batch(model.spec)
        runtimes.sample(
            model, 2 * rows[name] + 1, steps=1, progress=lambda *at, s=seen: s.append(at)
        )
        assert seen[-1] == (3, 3)  # a step of each batch
    assert rows["small"] == rows["middle"] == work.LARGEST_BATCH
    assert rows["large"] == work.PLACES // 32**2
    assert work.batch(Spec("video", (16, 64, 64, 3))) == 1


@pytest.mark.slow
def test_the_chosen_batch_saves_small_calls_and_costs_large_ones_nothing(files):
    """On one thread and by CPU time. How much large calls gain depends on who else uses the caches."""
    for name, n, others, most in (("small", 8192, (16, 64), 0.95), ("large", 60, (16, 60), 1.3)):
        todo = plan(runtimes.load(files[name], provider="cpu", threads=1), n, steps=8)
        runs = {str(b): lambda b=b, t=todo: collect(t, batch=b) for b in (*others, None)}
        seconds = interleaved(warmed(runs), 9, clock=CLOCKS["cpu"])
        for b in others:
            assert ratios(seconds["None"], seconds[str(b)])[1] < most, (name, b)


@pytest.mark.slow
@pytest.mark.skipif(work.cores() == 1, reason="one core")
def test_the_chosen_number_of_threads_is_as_good_as_the_other(files):
    """By the wall's clock, so only where nothing else runs."""
    if os.getloadavg()[0] > 0.3:
        pytest.skip("the machine has other work")
    for name, rows in (("small", 1), ("small", 64), ("large", 1), ("large", 4)):
        models = {
            str(threads): runtimes.load(files[name], provider="cpu", threads=threads, rows=rows)
            for threads in (0, 1, "all")
        }
        x = np.zeros((rows, *models["0"].spec.shape), np.float32)
        runs = {
            key: lambda model=model, x=x: [model.network(x, 0.5) for _ in range(20)].clear()
            for key, model in models.items()
        }
        seconds = interleaved(warmed(runs), 31)
        best = min("1", "all", key=lambda key: quartiles(seconds[key])[1])
        assert ratios(seconds["0"], seconds[best])[0] < 1.1, (name, rows, best)
