"""What `toolkit web` writes: whole, pinned, the same every time; and what it refuses."""

import base64
import hashlib
import json
import os
import re
import sys

import onnx
import pytest

from export import density_graphs
from runtimes import modelfile
from tests.javascript import ORT_WEB, sampler_bytes, write_sampler
from toolkit.cli import main
from toolkit.web import site


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    network = density_graphs.write(folder / "images.onnx", "images", "linear", "velocity")
    return write_sampler(folder / "images-sampler.onnx", network)


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder like onnxruntime-web's, of a few bytes."""
    folder = tmp_path_factory.mktemp("dist")
    for name in site.HASHES:
        (folder / name).write_bytes(name.encode() * 3)
    return folder


def config_of(page):
    return json.loads(re.search(r'id="config">(.*?)</script>', page)[1])


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_folder_with_everything_in_it(sampler, dist, tmp_path):
    size = site.write_folder(tmp_path / "site", sampler, dist)
    files = contents(tmp_path / "site")
    assert set(files) == {
        "index.html", "sw.js", *site.PAGE, site.MODEL, *(f"ort/{name}" for name in site.HASHES),
    }  # fmt: skip
    assert sum(map(len, files.values())) == size
    assert files[site.MODEL] == sampler.read_bytes()
    page = files["index.html"].decode()
    assert "{{" not in page
    for runtime in config_of(page)["runtimes"].values():
        assert all(part["name"] in files and "integrity" not in part for part in runtime.values())
    kept = json.loads(re.search(r"FILES = (\[.*?\]);", files["sw.js"].decode())[1])
    assert set(kept) - {"./"} <= set(files)
    assert set(kept) >= {*site.PAGE, site.MODEL, f"ort/{site.RUNTIMES['wasm'][1]}"}


def test_nothing_is_loaded_from_elsewhere(sampler, dist, tmp_path):
    """The page's own policy forbids it, and no file asks for it."""
    site.write_folder(tmp_path / "site", sampler, dist)
    for name, content in contents(tmp_path / "site").items():
        if name != site.MODEL and not name.startswith("ort/"):
            hosts = set(re.findall(r"https?://([\w.-]+)", content.decode()))
            assert hosts <= {"localhost", "www.w3.org"}, name
    page = (tmp_path / "site" / "index.html").read_text()
    policy = re.search(r'Policy" content="(.*?)"', page)[1]
    assert "default-src 'none'" in policy
    assert "connect-src 'self' blob:;" in policy
    assert "unsafe-inline" not in policy


def test_without_ort_it_stays_on_a_host_pinned_by_version_and_hash(sampler, tmp_path):
    site.write_folder(tmp_path / "site", sampler)
    assert not (tmp_path / "site" / "ort").exists()
    page = (tmp_path / "site" / "index.html").read_text()
    for runtime, names in site.RUNTIMES.items():
        for part, name in zip(config_of(page)["runtimes"][runtime].values(), names, strict=True):
            host = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{site.ORT}"
            assert part["name"] == f"{host}/dist/{name}"
            assert part["integrity"] == site.HASHES[name]
    assert "connect-src 'self' https://cdn.jsdelivr.net blob:;" in page


def test_the_pinned_hashes_are_those_of_the_package():
    if not ORT_WEB.is_dir():
        pytest.skip("npm: expected examples/node/node_modules; npm ci there")
    version = json.loads((ORT_WEB.parent / "package.json").read_text())["version"]
    assert version == site.ORT
    for name, content in site.dist(ORT_WEB).items():
        digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
        assert site.HASHES[name] == f"sha384-{digest}"


def test_the_same_files_every_time_and_another_cache_for_another_model(sampler, dist, tmp_path):
    for name in ("a", "b"):
        site.write_folder(tmp_path / name, sampler, dist)
        site.write_page(tmp_path / f"{name}.html", sampler, dist)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    network = density_graphs.write(tmp_path / "other.onnx", "images", "cosine", "velocity")
    site.write_folder(tmp_path / "c", write_sampler(tmp_path / "o.onnx", network), dist)
    assert (tmp_path / "a" / "sw.js").read_bytes() != (tmp_path / "c" / "sw.js").read_bytes()


def test_a_name_is_no_markup(sampler, dist, tmp_path):
    evil = tmp_path / '{{CONFIG}}"><img src=x onerror=alert(1)><script>.onnx'
    evil.write_bytes(sampler.read_bytes())
    site.write_page(tmp_path / "page.html", evil, dist)
    page = (tmp_path / "page.html").read_text()
    assert "<img" not in page
    assert config_of(page)["name"] == evil.name


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(sampler, dist, tmp_path):
    odd = tmp_path / os.fsdecode(b"m\xff.onnx")
    odd.write_bytes(sampler.read_bytes())
    site.write_page(tmp_path / "page.html", odd, dist)
    assert config_of((tmp_path / "page.html").read_text())["name"] == "m\ufffd.onnx"


def unshown(path, name):
    """A sampler of a shape or a condition that no page shows."""
    network = density_graphs.write(path, name, "linear", "velocity")
    proto = onnx.ModelProto.FromString(modelfile.read(network).content)
    path.write_bytes(sampler_bytes(proto, density_graphs.spec_of(name, "linear", "velocity")))


MISTAKES = {  # what is wrong: (the arguments, the words)
    "network": (("network.onnx", "-o", "new"), "expected a file of the form 'sampler', got 'network'"),
    "absent": (("absent.onnx", "-o", "new"), "absent.onnx: expected a model file, got nothing there"),
    "context": (("moves.onnx", "-o", "new"), "got (11, 3) by context; write a page of your own"),
    "paths": (("ornstein_uhlenbeck.onnx", "-o", "new"), "got (11, 3) by none"),
    "full folder": (("good.onnx", "-o", "full"), "full: expected an empty folder or none, got files"),
    "a file": (("good.onnx", "-o", "good.onnx"), "good.onnx: expected a folder or none"),
    "no dist": (("good.onnx", "-o", "new", "--ort", "full"), "full: expected onnxruntime-web's dist folder"),
    "inline name": (("good.onnx", "-o", "new", "--inline"), "new: expected a name ending in .html"),
    "inline ort": (("good.onnx", "-o", "a.html", "--inline"), "--ort: expected onnxruntime-web's dist"),
    "exists": (("good.onnx", "-o", "there.html", "--inline", "--ort", "dist"), "there.html: expected no"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(
    name, sampler, dist, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.onnx").write_bytes(sampler.read_bytes())
    (tmp_path / "there.html").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "index.html").write_text("precious")
    (tmp_path / "dist").symlink_to(dist)
    density_graphs.write(tmp_path / "network.onnx", "images", "linear", "velocity")
    for density in ("moves", "ornstein_uhlenbeck"):
        unshown(tmp_path / f"{density}.onnx", density)
    before = contents(tmp_path)
    args, words = MISTAKES[name]
    with pytest.raises(SystemExit) as stop:
        main(["web", *args])
    out, err = capfd.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert contents(tmp_path) == before


def test_the_command_says_what_to_do_next(sampler, dist, tmp_path, capfd):
    for args in (["-o", str(tmp_path / "s")], ["-o", str(tmp_path / "s"), "--force"]):
        with pytest.raises(SystemExit) as stop:
            main(["web", str(sampler), "--ort", str(dist), *args])
        assert not stop.value.code
        assert f"python -m http.server -d {tmp_path / 's'}" in capfd.readouterr().out
