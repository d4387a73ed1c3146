"""What ONNX Runtime is told for each provider; that it does as it is told shows on such a device only."""

import os
from pathlib import Path

import numpy as np
import pytest

from runtimes import modelfile
from runtimes.providers import PROVIDERS, RESTS, chain
from runtimes.spec import Sampler

from .conftest import faces_bytes
from .problems import mixture_graph, mixture_spec, write_onnx
from .test_sampler import write


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One of each form that a session treats as its own."""
    folder = tmp_path_factory.mktemp("providers")
    spec = mixture_spec(sampler=Sampler("heun", 4))
    forms = {form: folder / f"{form}.onnx" for form in ("network", "sampler", "unrolled")}
    write_onnx(forms["network"])
    for form in ("sampler", "unrolled"):
        write(forms[form], form, mixture_graph(), spec)
    return {form: modelfile.read(path) for form, path in forms.items()}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # so that what stood there comes back
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")


@pytest.mark.parametrize("word", PROVIDERS)
def test_what_a_provider_leaves_over_has_somewhere_to_go(files, word):
    names = [name for name, _ in chain(word, files["network"], "1.0")]
    assert names[0] == PROVIDERS[word][0]
    assert names[-1] == "CPUExecutionProvider"
    assert len(set(names)) == len(names)
    assert set(RESTS) <= set(PROVIDERS)


@pytest.mark.parametrize("word", ["cuda", "tensorrt"])
def test_nowhere_in_a_chain_are_products_rounded_to_tf32(files, word):
    options = dict(chain(word, files["network"], "1.0"))
    assert options[PROVIDERS["cuda"][0]]["use_tf32"] == "0"  # TensorRT leaves nodes over for CUDA
    if word == "tensorrt":
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
        assert "trt_fp16_enable" not in options[PROVIDERS["tensorrt"][0]]


def test_only_a_graph_without_a_loop_is_recorded(files):
    """ONNX Runtime does not open a file with control flow when it is asked to."""
    for form, file in files.items():
        (_, options), *_ = chain("cuda", file, "1.0")
        assert options.get("enable_cuda_graph", "0") == ("1" if form == "unrolled" else "0")
        assert ("Scan" in file.operators) == (form == "sampler")
    assert "enable_cuda_graph" not in PROVIDERS["cuda"][1]


def folder_of(file, version="1.0"):
    (_, options), *_ = chain("tensorrt", file, version)
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o77 == 0
    assert options["trt_timing_cache_path"] == str(folder)
    return folder


def test_the_same_network_with_other_weights_has_engines_of_its_own(tmp_path, monkeypatch):
    one, two = (
        modelfile.check(tmp_path / "a.onnx", faces_bytes(pictures=np.full((4, 8, 8, 1), w, "f")))
        for w in (0.0, 1.0)
    )
    assert one.operators == two.operators
    folders = [folder_of(one), folder_of(two), folder_of(one, "1.1")]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")  # whoever wants it has engines for it
    folders.append(folder_of(one))
    assert len(set(folders)) == 4
    assert all(folder.is_relative_to(tmp_path) for folder in folders)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    assert folder_of(one) == folders[0]


def test_engines_that_cannot_be_kept_are_said_in_one_line(files, tmp_path, monkeypatch):
    """Below a file no folder can be made, whoever asks."""
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    with pytest.raises(ValueError, match=r"taken.*: expected .*; set XDG_CACHE_HOME to") as e:
        chain("tensorrt", files["network"], "1.0")
    assert "\n" not in str(e.value)
