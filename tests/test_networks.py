"""Every network on every kind of shape and condition: shapes, batches, null conditions, export."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import runtimes
from export import export_torch
from runtimes.spec import Condition, Spec
from toolkit.networks import NETWORKS, Sizes, first_weights, layers_torch
from toolkit.networks.dit import from_tokens, to_tokens

SHAPES = {"point": (2,), "points": (5, 3), "image": (8, 8, 1), "video": (4, 8, 8, 2)}
PATCHES = {"point": (), "points": (1,), "image": (2, 4), "video": (2, 4, 2)}
CONDITIONS = {
    "none": Condition(),
    "label": Condition("label", classes=3),
    "context": Condition("context", shape=(6,)),
    "sequence": Condition("context", shape=(3, 6)),
}


def built(network, shape="image", condition="label", seed=0):
    """A small network whose every weight is drawn, so that nothing is hidden behind a zero."""
    sizes = Sizes(SHAPES[shape], CONDITIONS[condition], 16, 2, 2, PATCHES[shape])
    module = NETWORKS[network](layers_torch, sizes)
    shapes = layers_torch.shapes(module)
    rng = np.random.default_rng(seed)
    drawn = {name: (0.3 * rng.standard_normal(shapes[name])).astype(np.float32) for name in shapes}
    layers_torch.fill(module, drawn)
    return module.eval(), sizes


def inputs(sizes, batch=5, seed=1):
    """x, time and a condition, the null one in the last row."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *sizes.shape)).astype(np.float32)
    time = rng.random(batch).astype(np.float32)
    condition = sizes.condition
    told = None
    if condition.kind == "label":
        told = np.arange(batch) % condition.classes
        told[-1] = condition.classes
    elif condition.kind == "context":
        told = rng.standard_normal((batch, *condition.shape)).astype(np.float32)
        told[-1] = 0.0
    return [torch.from_numpy(x), torch.from_numpy(time)] + (
        [] if told is None else [torch.from_numpy(told)]
    )


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("network", NETWORKS)
def test_shape_type_batch_and_null_condition(network, shape, condition):
    module, sizes = built(network, shape, condition)
    given = inputs(sizes)
    with torch.no_grad():
        out = module(*given)
        assert out.shape == given[0].shape
        assert out.dtype == torch.float32
        assert out.std() > 1e-3
        for row in range(5):  # a row does not see the others
            alone = module(*(part[row : row + 1] for part in given))
            torch.testing.assert_close(alone[0], out[row], atol=2e-5, rtol=1e-4)
        nothing = module(*given[:2])  # the last row was told the null condition
        torch.testing.assert_close(nothing[-1], out[-1], atol=2e-5, rtol=1e-4)
        if condition != "none":
            assert (nothing[0] - out[0]).abs().max() > 1e-3
        later = module(given[0], given[1] * 0.5, *given[2:])
        assert (later - out).abs().max() > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
def test_every_weight_is_used_and_every_input_number_matters(network):
    for shape in SHAPES:
        for condition in CONDITIONS:
            module, sizes = built(network, shape, condition)
            x, time, *told = inputs(sizes)
            x.requires_grad_()
            module(x, time, *told).square().sum().backward()
            assert (x.grad.abs() > 0).all()
            for name, weight in module.named_parameters():
                assert weight.grad is not None, name
                assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", SHAPES)
def test_patches_are_the_blocks_of_the_sample_and_come_back(shape):
    sizes, patch = SHAPES[shape], PATCHES[shape]
    x = torch.arange(2 * int(np.prod(sizes)), dtype=torch.float32).reshape(2, *sizes)
    tokens = to_tokens(layers_torch, x, sizes, patch)
    counts = [n // p for n, p in zip(sizes[:-1], patch, strict=True)]
    assert tokens.shape == (2, int(np.prod(counts)), int(np.prod(patch)) * sizes[-1])
    assert torch.equal(from_tokens(layers_torch, tokens, sizes, patch), x)
    for token, where in enumerate(np.ndindex(*counts)):
        cut = tuple(slice(i * p, (i + 1) * p) for i, p in zip(where, patch, strict=True))
        block = x[(slice(None), *cut)].reshape(2, -1)
        assert torch.equal(tokens[:, token].sort().values, block.sort().values)


def test_positions_tell_tokens_apart():
    """Without them a transformer could not know where in the picture a patch belongs."""
    module, sizes = built("dit", "image", "none")
    x, time = inputs(sizes)
    with torch.no_grad():
        shifted = module(x.roll((2, 4), (1, 2)), time)
        moved = module(x, time).roll((2, 4), (1, 2))
    assert (shifted - moved).abs().max() > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_no_tensor_passes_rank_5(network, shape, condition):
    module, sizes = built(network, shape, condition)
    graph = torch.export.export(module, tuple(inputs(sizes))).graph
    ranks = [
        node.meta["val"].ndim
        for node in graph.nodes
        if isinstance(node.meta.get("val"), torch.Tensor)
    ]
    assert len(ranks) > 20
    assert max(ranks) <= 5


@pytest.mark.parametrize(
    ("network", "shape", "condition"),
    [
        ("dit", "image", "label"),
        ("dit", "video", "sequence"),
        ("dit", "points", "none"),
        ("mlp", "point", "context"),
        ("mlp", "image", "sequence"),
    ],
)
def test_exports_with_a_free_batch(network, shape, condition, tmp_path):
    """The parity gate inside compares batches 1 and 7 with torch."""
    module, sizes = built(network, shape, condition)
    spec = Spec("net", sizes.shape, condition=sizes.condition)
    report = export_torch(module, spec, tmp_path / "net.onnx")
    assert report.worst.relative < 1e-5
    operators = runtimes.load(tmp_path / "net.onnx").file.operators
    assert "Einsum" not in operators
    assert sum(operators.values()) < 130


@pytest.mark.parametrize("network", NETWORKS)
def test_first_weights_depend_on_seed_and_name_only_and_answer_nothing(network):
    sizes = Sizes((8, 8, 1), CONDITIONS["label"], 16, 2, 2, (2, 2))
    state = torch.random.get_rng_state()
    module = NETWORKS[network](layers_torch, sizes)
    shapes = layers_torch.shapes(module)
    mine, again = first_weights(shapes, 3), first_weights(dict(reversed(shapes.items())), 3)
    other = first_weights(shapes, 4)
    assert all(np.array_equal(mine[name], again[name]) for name in shapes)
    assert any(not np.array_equal(mine[name], other[name]) for name in shapes)
    layers_torch.fill(module, mine)
    assert not module(*inputs(sizes)).any()
    wide = first_weights({"first.weight": (400, 100), "table.weight": (400, 100)}, 0)
    assert wide["first.weight"].std() == pytest.approx(0.1, rel=0.02)  # 1 / sqrt(100)
    assert wide["table.weight"].std() == pytest.approx(0.1, rel=0.02)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_sizes_round_trip_through_json(condition):
    sizes = Sizes((4, 8, 8, 2), CONDITIONS[condition], 24, 5, 3, (2, 4, 8))
    assert Sizes.from_json(sizes.to_json()) == sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width: expected a whole number"),
        ({"depth": 1.5}, "depth: expected"),
        ({"heads": 3}, "width: expected a multiple of the 3 heads, got 16; give 15"),
        ({"patch": (3, 2)}, r"patch: expected a divisor of each of the sizes \(8, 8\)"),
        ({"patch": (2,)}, "patch: expected"),
        ({"patch": (0, 2)}, "patch: expected"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    sizes = Sizes((8, 8, 1), Condition(), 16, 2, 2, (2, 2))
    with pytest.raises(ValueError, match=message):
        replace(sizes, **changes)
