"""The nodes make the bits of `runtimes.noise`, which golden vectors hold: not one differs."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from export.nodes import Nodes
from export.noise_graph import normals, row_seeds
from runtimes.noise import LARGEST_SEED, noise


def session(size):
    g = Nodes("g")
    g.named("noise", normals(g, row_seeds(g, "seed", "rows"), "draws", size))
    values = [helper.make_tensor_value_info(n, TensorProto.INT64, [n]) for n in ("seed", "draws")]
    values.append(helper.make_tensor_value_info("rows", TensorProto.INT64, [1]))
    out = helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["r", "b", size])
    graph = helper.make_graph(g.nodes, "noise", values, [out], list(g.constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1001])
def test_bits_are_those_of_numpy(size):
    seeds = np.array([0, 42, 2**40 + 7, LARGEST_SEED, 1, 2**32 - 1, 2**32], np.int64)
    draws = np.array([0, 1, 3, 10_000], np.int64)
    feeds = {"seed": seeds, "draws": draws, "rows": np.array([len(seeds)])}
    (found,) = session(size).run(None, feeds)
    for draw, rows in zip(draws, found, strict=True):
        assert np.array_equal(rows, noise(seeds, (size,), int(draw)))


def test_a_single_seed_counts_on_and_several_are_taken_as_they_are():
    one = session(6)
    feeds = {"draws": np.array([2]), "rows": np.array([3])}
    (counted,) = one.run(None, {"seed": np.array([9]), **feeds})
    (given,) = one.run(None, {"seed": np.array([9, 10, 11]), **feeds})
    assert np.array_equal(counted, given)
    assert np.array_equal(given[0], noise(np.array([9, 10, 11]), (6,), 2))
