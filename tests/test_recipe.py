"""A recipe survives JSON, refuses what makes no sense, and suits the data it is the default for."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from runtimes.spec import from_json as spec_from_json
from runtimes.spec import to_json as spec_to_json
from toolkit import recipe as recipes
from toolkit.data import DATA, Data, load
from toolkit.networks import NETWORKS, condition_of, sizes_of
from toolkit.recipe import Recipe, default_recipe, first_difference, from_json, rate_at, to_json

FULL = Recipe(
    "mine",
    "mlp",
    width=30,
    heads=3,
    patch=(2, 4),
    schedule="vp",
    prediction="v",
    pairing="optimal_transport",
    times="logit_normal",
    steps=7,
    batch=3,
    lr=0.5,
    warmup=0,
    decay=0.0,
    clip=9.0,
    ema=0.5,
    label_dropout=0.0,
    seed=2**53 - 1,
    precision="bf16",
    save_every=2,
    log_every=3,
)


OWN = replace(FULL, schedule="polynomial(3)", prediction="edm")


@pytest.mark.parametrize("recipe", [Recipe("digits"), FULL, OWN])
def test_round_trip(recipe):
    assert from_json(to_json(recipe)) == recipe
    assert list(json.loads(to_json(recipe))) == [slot.name for slot in fields(Recipe)]


def test_whole_numbers_are_read_as_floats_where_a_float_is_due():
    raw = json.loads(to_json(FULL)) | {"lr": 1, "clip": 2}
    recipe = from_json(json.dumps(raw))
    assert (recipe.lr, type(recipe.lr), type(recipe.clip)) == (1.0, float, float)


BAD_TEXTS = {
    "not json": ("{", "recipe: expected JSON"),
    "list": ("[]", "recipe: expected an object"),
    "unknown": ('{"widht": 3}', "did you mean 'width'"),
    "missing": ('{"data": "digits"}', "recipe.network: expected a value"),
    "type": (to_json(FULL).replace('"steps": 7', '"steps": "7"'), "recipe.steps"),
    "float steps": (to_json(FULL).replace('"steps": 7', '"steps": 7.0'), "recipe.steps"),
    "bool": (to_json(FULL).replace('"steps": 7', '"steps": true'), "recipe.steps"),
    "patch": (to_json(FULL).replace("[\n  2,\n  4\n ]", "[2.5]"), "recipe.patch"),
    "twice": (to_json(FULL).replace('"steps": 7', '"steps": 7, "steps": 8'), "stands twice"),
    "nan": (
        to_json(FULL).replace('"lr": 0.5', '"lr": NaN'),
        "lr: expected a finite number above 0, got nan",
    ),
    "overflow": (to_json(FULL).replace('"lr": 0.5', '"lr": 1e999'), "lr: .*, got inf"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_bad_text_is_refused_by_its_key(name):
    text, message = BAD_TEXTS[name]
    with pytest.raises(ValueError, match=message) as caught:
        from_json(text)
    assert "\n" not in str(caught.value)


BAD_VALUES = [
    ("steps", 0),
    ("steps", -1),
    ("steps", 1.0),
    ("steps", True),
    ("batch", 0),
    ("lr", 0.0),
    ("lr", -1e-3),
    ("lr", float("nan")),
    ("lr", float("inf")),
    ("lr", "fast"),
    ("warmup", -1),
    ("decay", -0.1),
    ("clip", 0.0),
    ("ema", 1.0),
    ("ema", float("nan")),
    ("label_dropout", 1.0),
    ("label_dropout", -0.1),
    ("seed", -1),
    ("seed", 2**53),
    ("seed", 0.5),
    ("save_every", 0),
    ("log_every", 0),
    ("network", "dti"),
    ("schedule", "linaer"),
    ("schedule", "polynomial(-1)"),
    ("prediction", "velocty"),
    ("pairing", "optimal"),
    ("times", "uniforn"),
    ("precision", "fp23"),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_bad_value_is_one_line_with_its_key_and_what_is_expected(key, value):
    with pytest.raises(ValueError, match=f"^{key}: expected ") as caught:
        replace(FULL, **{key: value})
    assert "\n" not in str(caught.value)
    assert repr(value) in str(caught.value)


def test_every_number_of_a_recipe_has_a_range_and_every_word_a_list():
    numbers = {slot.name for slot in fields(Recipe) if slot.type in (int, float)}
    assert numbers - set(recipes.RANGES) == {"width", "depth", "heads"}  # checked by Sizes
    words = {slot.name for slot in fields(Recipe) if slot.type is str}
    assert words - set(recipes.NAMES) == {"data", "schedule"}  # checked by `schedules.named`


SHAPES = {
    (2,): ("mlp", ()),
    (30,): ("mlp", ()),
    (22, 3): ("dit", (1,)),
    (8, 8, 1): ("dit", (2, 2)),
    (28, 28, 1): ("dit", (2, 2)),
    (64, 64, 3): ("dit", (4, 4)),
    (7, 9, 1): ("dit", (1, 1)),
    (5, 8, 1): ("dit", (1, 2)),
    (8, 16, 16, 1): ("dit", (1, 4, 4)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_default_suits_the_shape(shape):
    data = Data("mine", np.zeros((50, *shape), np.float32))
    recipe = default_recipe(data)
    network, patch = SHAPES[shape]
    assert (recipe.network, recipe.data, recipe.batch) == (network, "mine", 50)
    if network == "dit":
        assert recipe.patch == patch
    assert sizes_of(recipe, data.shape, condition_of(data)).size == int(np.prod(shape))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", DATA)
def test_default_of_every_network_for_every_data_set(name, network):
    data = load(name)
    recipe = default_recipe(data, network)
    assert (recipe.data, recipe.network) == (name, network)
    assert recipe.batch <= len(data.x)
    sizes_of(recipe, data.shape, condition_of(data))
    other = replace(default_recipe(data), network=network)  # as --network does
    sizes_of(other, data.shape, condition_of(data))


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="did you mean 'dit'"):
        default_recipe(load("digits"), "ditt")


def test_rate_warms_up_to_its_peak_and_falls_to_a_hundredth():
    recipe = replace(FULL, steps=1000, warmup=10, lr=2.0)
    rates = np.array([rate_at(recipe, step) for step in range(1000)])
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == pytest.approx(rates.max(), rel=1e-3)
    assert rates.max() == pytest.approx(2.0, rel=1e-3)
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[500] == pytest.approx(1.01, rel=1e-3)
    assert rates[-1] == pytest.approx(0.02, rel=1e-3)
    assert rate_at(replace(recipe, warmup=0), 0) == 2.0


def test_first_difference_names_key_and_both_values():
    assert first_difference(FULL, FULL) is None
    assert first_difference(FULL, replace(FULL, width=60, seed=1)) == ("width", 30, 60)


def test_spec_says_what_the_data_is_and_how_it_was_trained():
    data = load("digits")
    spec = recipes.spec_of(default_recipe(data), data, parameters=9, loss=0.5)
    assert spec_from_json(spec_to_json(spec)) == spec
    assert spec.shape == (8, 8, 1)
    assert spec.value_range == (-1.0, 1.0)
    assert spec.condition.names == tuple("0123456789")
    assert spec.training["data"] == "digits"
    assert (spec.training["parameters"], spec.training["loss"]) == (9, 0.5)
