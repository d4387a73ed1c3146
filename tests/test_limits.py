import os
import threading
import time
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper

from runtimes import limits
from runtimes.limits import WATCHDOG, Limits, default_limits
from runtimes.modelfile import ModelError, check
from runtimes.session import load, open_file
from runtimes.spec import Spec

from .conftest import sealed

FLOAT = onnx.TensorProto.FLOAT


def made(nodes, **weights):
    inputs = [("x", FLOAT, ["batch", 2]), ("time", FLOAT, ["batch"])]
    return check("made.onnx", sealed(nodes, weights, Spec("made", (2,)), inputs))


def products(count, size):
    """x + the sum of `count` products of `size` x `size` matrices."""
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{k}", "m0"], [f"m{k + 1}"]) for k in range(count)]
    nodes += [
        helper.make_node("ReduceSum", [f"m{count}"], ["r"], keepdims=0),
        helper.make_node("Add", ["x", "r"], ["prediction"]),
    ]
    return made(nodes, s=np.array([size, size]))


def test_whoever_wants_more_ships_more():
    small, large = default_limits(10**6, 100, "cpu"), default_limits(10**8, 1000, "cpu")
    assert small.memory < 800 << 20 < large.memory
    assert (small.load, small.call) < (large.load, large.call)
    assert default_limits(1, 1, "cuda").load > 60
    built = default_limits(1, 1, "tensorrt")  # a U-Net took 384 s, by ONNX Runtime's documentation
    assert min(built.load, built.call) > 600


def test_a_call_past_its_time_is_ended_and_the_model_goes_on():
    model = open_file(products(2000, 600), provider="cpu", limits=Limits(1 << 30, 10.0, 0.5))
    x, started = np.zeros((1, 2), np.float32), time.monotonic()
    for _ in range(2):
        with pytest.raises(ModelError, match="got: no end within 0 s"):
            model.network(x, 0.5)
    assert time.monotonic() - started < 4.0
    assert WATCHDOG.calls == {}


def test_a_load_past_its_time_is_cancelled():
    names = ["x", *(f"v{k}" for k in range(9_999)), "prediction"]
    file = made([helper.make_node("Add", [a, a], [b]) for a, b in pairwise(names)])
    with pytest.raises(ModelError, match="no end of loading within 0 s"):
        open_file(file, provider="cpu", limits=Limits(1 << 30, 0.05, 5.0))


def test_memory_is_capped_per_model():
    file = products(1, 1500)  # three matrices of 9 MB
    x = np.zeros((1, 2), np.float32)
    small = open_file(file, provider="cpu", limits=Limits(16 << 20, 10.0, 10.0))
    large = open_file(file, provider="cpu", limits=Limits(256 << 20, 10.0, 10.0))
    assert np.isfinite(large.network(x, 0.5)).all()
    with pytest.raises(ModelError, match="more than its 16 MiB of memory; try fewer rows"):
        small.network(x, 0.5)


def test_threads_do_not_end_each_other(points):
    model, x = load(points, provider="cpu", threads=1), np.ones((4, 2), np.float32)
    results = []

    def work():
        results.extend(bool((model.network(x, 0.5) == -x).all()) for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 800
    assert WATCHDOG.calls == {}


def test_the_thread_ends_when_idle_and_comes_back(points, monkeypatch):
    monkeypatch.setattr(limits, "LOOK", 0.01)
    model, x = load(points, provider="cpu"), np.ones((1, 2), np.float32)
    deadline = time.monotonic() + 10
    while WATCHDOG.thread is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert WATCHDOG.thread is None
    model.network(x, 0.5)
    assert WATCHDOG.thread is not None


def test_onnxruntime_reports_to_nobody(points):
    load(points)
    assert os.environ["ORT_DISABLE_TELEMETRY"]
