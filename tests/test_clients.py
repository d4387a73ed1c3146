"""What docs/clients.md tells people to do is run, and gives what the host loop gives."""

import hashlib
import re

import numpy as np
import onnx
import pytest

import runtimes
from export.sampler import sampler
from runtimes import modelfile, tableaus
from runtimes.noise import noise, seed_rows

from .conftest import faces_bytes
from .test_source import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text()
SEED, LABELS = 5, np.array([0, 2, 1])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of a picture model, as a network and as a sampler with its tableaus."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "network.onnx").write_bytes(faces_bytes())
    spec = runtimes.load(folder / "network.onnx").spec
    proto = sampler(onnx.load_model_from_string(faces_bytes()), spec)
    proto.metadata_props.add(
        key=modelfile.TABLEAUS_KEY, value=tableaus.to_json(tableaus.kept(spec))
    )
    (folder / "sampler.onnx").write_bytes(proto.SerializeToString())
    return folder


def test_the_loop_of_the_page_is_the_host_loop(files, monkeypatch):
    monkeypatch.chdir(files)
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    model = runtimes.load("network.onnx")
    start = noise(seed_rows(SEED, 3), model.spec.shape, 0)
    given = {"noise": start, "label": LABELS, "seed": np.array([SEED])}
    namespace = dict(given)
    exec(block, namespace)
    want = runtimes.sample(
        model, 3, label=LABELS.tolist(), solver="heun", steps=10, seed=SEED, guidance=1.5
    )
    assert np.abs(namespace["sample"] - want).max() <= 1e-6 * np.abs(want).max()
    whole = namespace["session"].run(
        ["sample"],
        {"x": start[None], "tableau": namespace["rows"], "label": LABELS, "seed": given["seed"]},
    )[0]
    np.testing.assert_array_equal(namespace["sample"], whole)


def test_every_key_and_file_that_the_page_names_is_there():
    keys = set(re.findall(r"`(toolkit\.[a-z0-9]+)`", PAGE))
    assert keys - {"toolkit.js"} == {
        *(modelfile.SPEC_KEY, modelfile.FORM_KEY, modelfile.TABLEAUS_KEY, modelfile.SEAL_KEY),
        modelfile.PRECISION_KEY,
    }
    for path in re.findall(r"`((?:examples|tests|runtimes)/[\w./]+)`", PAGE):
        assert (ROOT / path).is_file(), path
    for form in modelfile.FORMS:
        assert f"`{form}`" in PAGE


def test_the_seal_is_where_the_page_says():
    size, digest = map(
        int, re.search(r"last (\d+) bytes, the digest the last (\d+)", PAGE).groups()
    )
    sealed = modelfile.seal(b"anything")
    assert sealed[:-size] == b"anything"
    assert sealed[-digest:].decode() == hashlib.sha256(b"anything").hexdigest()
