"""A sampler of a stranger's: control flow where ours has it and nowhere else, inputs as they must be."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtimes
from export import forms
from runtimes import modelfile, tableaus
from runtimes.contracts import CONTRACTS
from runtimes.modelfile import FORMS, ModelError
from runtimes.spec import to_json
from runtimes.tableau import MOST_ROWS

from .problems import mixture_graph, mixture_spec, proto


def test_every_form_has_its_contract_and_its_comparison():
    from export.verify import COMPARED

    assert set(CONTRACTS) == set(COMPARED) == set(FORMS)


def grown(form="sampler", labelled=True):
    spec = mixture_spec(labelled)
    return forms.GROW[form](proto(mixture_graph(labelled), spec), spec, 1)


def save(path, model, form="sampler", labelled=True, **notes):
    """Sealed as a stranger would seal it."""
    kept = {
        modelfile.SPEC_KEY: to_json(mixture_spec(labelled)),
        modelfile.FORM_KEY: form,
        modelfile.TABLEAUS_KEY: tableaus.to_json(tableaus.kept(mixture_spec(labelled))),
        **notes,
    }
    path.write_bytes(forms.sealed(model, kept))
    return path


def body(model):
    scan = next(node for node in model.graph.node if node.op_type == "Scan")
    return next(a.g for a in scan.attribute if a.name == "body")


def second_scan(model):
    copy = onnx.NodeProto()
    copy.CopyFrom(next(node for node in model.graph.node if node.op_type == "Scan"))
    copy.output[0] = "again"
    model.graph.node.append(copy)


def scan_in_scan(model):
    inner = onnx.NodeProto()
    inner.CopyFrom(next(node for node in model.graph.node if node.op_type == "Scan"))
    inner.output[0] = "inner"
    body(model).node.append(inner)


def if_in_scan(model):
    inner = onnx.NodeProto()
    inner.CopyFrom(next(node for node in model.graph.node if node.op_type == "If"))
    inner.output[0] = "inner"
    body(model).node.append(inner)


def loop_at_the_top(model):
    for node in model.graph.node:
        if node.op_type == "Scan":
            node.op_type = "Loop"


def loop_in_the_branch(model):
    branch = next(n for n in model.graph.node if n.op_type == "If").attribute[0].g
    branch.node.append(helper.make_node("Loop", [], ["l"], body=branch))


def foreign_in_scan(model):
    body(model).node[0].domain = "com.microsoft"


def random_in_scan(model):
    body(model).node.append(helper.make_node("RandomNormal", [], ["r"], shape=[1]))


def weights_elsewhere(model):
    tensor = body(model).initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def weights_twice(model):
    body(model).initializer.add().CopyFrom(body(model).initializer[0])


def scan_of(model):
    return next(node for node in model.graph.node if node.op_type == "Scan")


def scan_over_more_rows(model):
    """A million trips where the tableau has forty."""
    many = helper.make_node("ConstantOfShape", ["size"], ["many"])
    model.graph.initializer.append(numpy_helper.from_array(np.array([10**6, 1, 2]), "size"))
    scan = scan_of(model)
    scan.input[1] = "many"
    model.graph.node.insert(0, many)


def scan_over_other_axes(model):
    scan_of(model).attribute.append(helper.make_attribute("scan_input_axes", [1, 0, 0, 0, 0]))


def scan_with_more_states(model):
    for item in scan_of(model).attribute:
        if item.name == "num_scan_inputs":
            item.i -= 1


UNSAFE = {
    change.__name__: change
    for change in (
        second_scan,
        scan_in_scan,
        if_in_scan,
        loop_at_the_top,
        loop_in_the_branch,
        foreign_in_scan,
        random_in_scan,
        weights_elsewhere,
        weights_twice,
        scan_over_more_rows,
        scan_over_other_axes,
        scan_with_more_states,
    )
}


def refused(path, words, capfd):
    with pytest.raises(ModelError, match=words) as caught:
        runtimes.load(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", UNSAFE)
def test_control_flow_elsewhere_is_refused_unopened(tmp_path, fault, capfd, monkeypatch):
    model = grown()
    UNSAFE[fault](model)
    monkeypatch.setattr(runtimes.session, "opened", lambda *a: pytest.fail("was opened"))
    refused(save(tmp_path / "a.onnx", model), "expected", capfd)


def test_a_loop_in_a_file_that_is_no_sampler_is_refused(tmp_path, capfd):
    for form in ("network", "likelihood", "unrolled"):
        refused(save(tmp_path / "a.onnx", grown(), form), "got 'If'|got 'Scan'", capfd)


def without(name):
    def change(model):
        kept = [t for t in model.graph.initializer if t.name != name]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)

    return change


def many_rows(model):
    wide = numpy_helper.from_array(np.zeros((MOST_ROWS + 1, 3, 4), np.float32), "tableau")
    next(t for t in model.graph.initializer if t.name == "tableau").CopyFrom(wide)


def fixed_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3


def other_output(model):
    model.graph.output[0].name = model.graph.node[-2].output[0] = "samples"


WRONG = {
    "tableau is required": (without("tableau"), "inputs x float .*tableau"),
    "no default weight": (without("guidance"), "expected inputs .*guidance"),
    "too many rows": (many_rows, f"tableau of 1 to {MOST_ROWS} rows, got {MOST_ROWS + 1}"),
    "fixed batch": (fixed_batch, "slots, 3, 2"),
    "another output": (other_output, "expected outputs sample"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_sampler_that_is_not_what_its_spec_says(tmp_path, fault, capfd):
    change, words = WRONG[fault]
    model = grown()
    change(model)
    refused(save(tmp_path / "a.onnx", model), words, capfd)


def test_a_sampler_of_another_condition(tmp_path, capfd):
    refused(save(tmp_path / "a.onnx", grown(labelled=True), labelled=False), "got x float", capfd)


def test_labels_that_a_sampler_looks_up_are_counted(tmp_path, capfd):
    """A table of nine rows is for eight classes and no label; a spec of five does not fit."""
    from runtimes.spec import Condition

    spec = mixture_spec(condition=Condition("label", classes=5))
    path = save(tmp_path / "a.onnx", grown(), **{modelfile.SPEC_KEY: to_json(spec)})
    refused(path, "expected a table of 5 classes", capfd)


def test_broken_ready_made_tableaus_are_refused(tmp_path, capfd):
    path = save(tmp_path / "a.onnx", grown(), **{modelfile.TABLEAUS_KEY: "[1]"})
    refused(path, "tableaus: expected a list", capfd)


def test_an_unknown_form_is_refused(tmp_path, capfd):
    path = save(tmp_path / "a.onnx", grown(), "dreamer")
    refused(path, "expected", capfd)
