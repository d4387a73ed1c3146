"""What is written twice, for nobody, or from constants alone does not stand in the model."""

from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from export.sheet import LARGEST_FOLD, Sheet
from export.sizes import Size

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])


def finished(sheet, last, kind=TensorProto.FLOAT, rank=2):
    sizes = [f"n{k}" for k in range(rank)]
    model = sheet.model([X], helper.make_tensor_value_info("y", kind, sizes), last)
    onnx.checker.check_model(model)
    return model


def run(model, batch=2):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (out,) = session.run(None, {"x": np.ones((batch, 3), np.float32)})
    return out


def test_equal_nodes_are_one_and_unneeded_ones_none():
    sheet = Sheet("x")
    first, again = (sheet.one("Add", "x", sheet.number(1.0)) for _ in range(2))
    sheet.one("Exp", first)
    other = sheet.one("Mul", first, again)
    assert first == again
    model = finished(sheet, other)
    assert [node.op_type for node in model.graph.node] == ["Add", "Mul"]
    assert (run(model) == 4.0).all()


def test_other_attributes_are_another_node():
    sheet = Sheet("x")
    names = {sheet.one("Softmax", "x", axis=axis) for axis in (0, 1)}
    assert len(names) == 2


def test_constants_are_computed_once_and_for_all():
    sheet = Sheet("x")
    table = sheet.constant(np.arange(6, dtype=np.float32).reshape(3, 2))
    turned = sheet.one("Transpose", table, perm=[1, 0])
    row = sheet.one("ReduceSum", turned, sheet.constant(np.array([0])), keepdims=0)
    model = finished(sheet, sheet.one("Add", "x", row))
    assert [node.op_type for node in model.graph.node] == ["Add"]
    assert [list(tensor.dims) for tensor in model.graph.initializer] == [[3]]
    assert run(model).tolist() == [[2.0, 6.0, 10.0]] * 2


def test_a_small_constant_is_not_blown_up():
    sheet = Sheet("x")
    size = sheet.constant(np.array([LARGEST_FOLD, 3]))
    wide = sheet.one("Expand", sheet.constant(np.ones(3, np.float32)), size)
    axes = sheet.constant(np.array([0]))
    model = finished(sheet, sheet.one("Mul", "x", sheet.one("ReduceMax", wide, axes, keepdims=0)))
    assert model.ByteSize() < 1000
    model = finished(sheet, sheet.one("ReduceMax", sheet.one("Concat", "x", wide, axis=0), axes))
    assert "Expand" in [node.op_type for node in model.graph.node]
    assert model.ByteSize() < 1000


def test_sizes_with_the_batch_are_computed_from_the_input():
    sheet = Sheet("x")
    sizes = [2, Size(Fraction(1), Fraction(2)), 4, 5, Size(Fraction(1, 2), Fraction(1, 2))]
    model = finished(sheet, sheet.sizes(sizes), TensorProto.INT64, rank=1)
    for batch in (1, 7):
        assert run(model, batch).tolist() == [2, 2 * batch + 1, 4, 5, (batch + 1) // 2]


@pytest.mark.parametrize("constant", [False, True])
def test_an_input_or_a_constant_may_be_the_answer(constant):
    sheet = Sheet("x")
    last = sheet.constant(np.ones((2, 3), np.float32)) if constant else "x"
    assert (run(finished(sheet, last)) == np.ones((2, 3))).all()
