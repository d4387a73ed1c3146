"""Every network on MLX is the network on torch: same names, same answers from the same arrays."""

import inspect

import mlx.core as mx
import numpy as np
import pytest
import torch

from toolkit.networks import NETWORKS, Sizes, first_weights, layers_mlx, layers_torch
from toolkit.networks.dit import from_tokens, to_tokens

from .test_networks import CONDITIONS, PATCHES, SHAPES, built, inputs


def twin(network, shape, condition):
    """(torch module, MLX module) with the same arrays, and the sizes."""
    module, sizes = built(network, shape, condition)
    other = NETWORKS[network](layers_mlx, sizes)
    assert layers_mlx.shapes(other) == layers_torch.shapes(module)
    layers_mlx.fill(other, {name: p.detach().numpy() for name, p in module.named_parameters()})
    return module, other, sizes


def as_mlx(tensors):
    return [mx.array(tensor.numpy()) for tensor in tensors]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("network", NETWORKS)
def test_answers_as_on_torch(network, shape, condition):
    module, other, sizes = twin(network, shape, condition)
    given = inputs(sizes)
    for some in (given, given[:2]):  # with a condition, and with the null one
        with torch.no_grad():
            wanted = module(*some).numpy()
        out = other(*as_mlx(some))
        assert out.dtype == mx.float32
        assert wanted.std() > 1e-2
        np.testing.assert_allclose(np.array(out), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("network", NETWORKS)
def test_arrays_go_from_mlx_to_torch_too(network):
    sizes = Sizes(SHAPES["image"], CONDITIONS["sequence"], 16, 2, 2, PATCHES["image"])
    module, other = NETWORKS[network](layers_torch, sizes), NETWORKS[network](layers_mlx, sizes)
    rng = np.random.default_rng(0)
    shapes = layers_mlx.shapes(other)
    drawn = {name: (0.3 * rng.standard_normal(shapes[name])).astype(np.float32) for name in shapes}
    layers_mlx.fill(other, drawn)
    saved = {name: np.array(array) for name, array in layers_mlx.flat(other).items()}
    assert all(np.array_equal(saved[name], drawn[name]) for name in drawn)
    layers_torch.fill(module, saved)
    given = inputs(sizes)
    with torch.no_grad():
        wanted = module(*given).numpy()
    np.testing.assert_allclose(
        np.array(other(*as_mlx(given))), wanted, atol=1e-5 * np.abs(wanted).max()
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_those_on_torch(network):
    """A gradient passes through every function of the namespace once more, backwards."""
    module, other, sizes = twin(network, "image", "label")
    given = inputs(sizes)
    module(*given).square().mean().backward()
    arrays = layers_mlx.flat(other)

    def loss(arrays):
        return layers_mlx.call(other, arrays, as_mlx(given)).square().mean()

    found = mx.grad(loss)(arrays)
    for name, weight in module.named_parameters():
        wanted = weight.grad.numpy()
        size = np.abs(wanted).max()
        np.testing.assert_allclose(np.array(found[name]), wanted, atol=2e-5 * size, err_msg=name)


def test_both_namespaces_have_the_same_names_and_arguments():
    ours, theirs = (
        {name for name, value in vars(layers).items() if callable(value) and name[0] != "_"}
        for layers in (layers_mlx, layers_torch)
    )
    shared = theirs - {"NDArray", "Mapping", "Sequence", "Tensor", "layer_norm", "refuse_misfit"}
    assert shared <= ours
    for name in sorted(shared - {"Module", "Linear", "Embedding", "silu"}):
        mine, other = (inspect.signature(getattr(m, name)) for m in (layers_mlx, layers_torch))
        assert list(mine.parameters) == list(other.parameters), name


@pytest.mark.parametrize("shape", SHAPES)
def test_patches_come_back(shape):
    sizes, patch = SHAPES[shape], PATCHES[shape]
    x = mx.arange(2 * int(np.prod(sizes)), dtype=mx.float32).reshape(2, *sizes)
    tokens = to_tokens(layers_mlx, x, sizes, patch)
    there = to_tokens(layers_torch, torch.from_numpy(np.array(x)), sizes, patch)
    assert np.array_equal(np.array(tokens), there.numpy())
    assert mx.array_equal(from_tokens(layers_mlx, tokens, sizes, patch), x)


@pytest.mark.parametrize("layers", [layers_torch, layers_mlx])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"enter.weight": None}, r"enter\.weight: expected \(16, 8\), got none; give the arrays"),
        ({"enter.weight": (8, 16)}, r"enter\.weight: expected \(16, 8\), got \(8, 16\)"),
        ({"other.weight": (3,)}, r"other\.weight: expected no such array, got \(3,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_and_nothing_changes(layers, change, words):
    sizes = Sizes(SHAPES["image"], CONDITIONS["label"], 16, 1, 2, PATCHES["image"])
    module = NETWORKS["dit"](layers, sizes)
    shapes = {**layers.shapes(module), **change}
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items() if shape}
    with pytest.raises(ValueError, match=words):
        layers.fill(module, arrays)
    x, time = inputs(sizes)[:2]
    given = (x, time) if layers is layers_torch else as_mlx((x, time))
    assert not bool((module(*given) != 0).any())


def test_building_draws_no_random_numbers_and_evaluates_nothing_of_a_strangers_sizes():
    mx.random.seed(3)
    before = np.array(mx.random.normal((4,)))
    mx.random.seed(3)
    held = mx.get_active_memory()
    sizes = Sizes(SHAPES["image"], CONDITIONS["label"], 2**20, 1, 4, PATCHES["image"])
    module = NETWORKS["dit"](layers_mlx, sizes)
    assert layers_mlx.shapes(module)["blocks.0.qkv.weight"] == (3 * 2**20, 2**20)
    assert mx.get_active_memory() - held < 2**20
    assert np.array_equal(np.array(mx.random.normal((4,))), before)


def test_first_weights_are_the_same_on_both():
    sizes = Sizes(SHAPES["video"], CONDITIONS["context"], 16, 1, 2, PATCHES["video"])
    shapes = [
        layers.shapes(NETWORKS["dit"](layers, sizes)) for layers in (layers_mlx, layers_torch)
    ]
    mine, theirs = (first_weights(one, 5) for one in shapes)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_of_bf16_make_bf16_products_and_times_stay_exact(network):
    """Time is float32 until its first layer: in bf16 the fast waves could not tell 0.98 from 0.99."""
    _, other, sizes = twin(network, "image", "label")
    given = as_mlx(inputs(sizes))
    exact = np.array(other(*given))
    half = {name: array.astype(mx.bfloat16) for name, array in layers_mlx.flat(other).items()}
    out = layers_mlx.call(other, half, given)
    assert out.dtype == mx.bfloat16
    error = np.array(out.astype(mx.float32)) - exact
    assert 0 < np.sqrt((error**2).mean()) < 0.05 * exact.std()
    assert layers_mlx.flat(other)["enter.weight"].dtype == mx.float32  # the module's own are back
