"""The page in Chromium: it draws what Python draws, says what is wrong, and needs no network once seen."""

import contextlib
import functools
import http.server
import json
import shutil
import threading

import numpy as np
import pytest

import runtimes
from export import density_graphs
from tests.javascript import ORT_WEB, TESTS, needs_chromium, run_node, write_sampler
from toolkit.web import site

needs_chromium()

SHOTS = TESTS.parent / "build" / "screenshots"  # kept, to be looked at
SWIFTSHADER = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
DRAWN = {"wait": "window.last && document.body.dataset.state === 'ready'"}
LAST = {"read": "({ ...window.last, x: [...window.last.x] })"}
AGAIN = {"evaluate": "delete window.last"}
SETTLED = {"wait": "!document.getElementById('time').disabled"}
STATE = {"read": "[document.body.dataset.state, document.getElementById('notice').innerText]"}


class Handler(http.server.SimpleHTTPRequestHandler):
    """What python -m http.server does, without a word."""

    def log_message(self, *words):
        pass


@contextlib.contextmanager
def served(folder):
    """The address of a folder on a port of its own."""
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def visit(url, *steps, **options):
    """What the steps of tests/browser.mjs read, and the page's errors."""
    seen = json.loads(
        run_node(TESTS / "browser.mjs", json.dumps({"url": url, "steps": steps, **options}))
    )
    return seen["read"], seen["errors"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """name -> (an opened network, the path of its sampler)."""
    folder = tmp_path_factory.mktemp("web")
    found = {}
    for name in ("images", "overlapping"):
        network = density_graphs.write(folder / f"{name}.onnx", name, "linear", "velocity")
        path = write_sampler(folder / f"{name}-sampler.onnx", network)
        found[name] = runtimes.load(network, provider="cpu"), path
    return found


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """The site of a model of small pictures in three colours."""
    out = tmp_path_factory.mktemp("site") / "site"
    site.write_folder(out, models["images"][1], ORT_WEB)
    return out


def assert_equal(last, model, most):
    """What the page drew is what Python draws for the same request."""
    words = ("label", "seed", "solver", "steps", "guidance")
    request = {word: last[word] for word in words if word in last}
    expected = runtimes.sample(model, last["n"], **request)
    got = np.array(last["x"], np.float32).reshape(expected.shape)
    assert np.abs(got - expected).max() <= most * max(1.0, float(np.abs(expected).max())), request
    assert last["states"] == last["steps"] + 1
    return request


def test_a_visit(models, folder):
    """Opened, used by mouse and by keys, asked for nonsense, then without a network."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    with served(folder) as url:
        (first, clicked, wrong, keyed, offline), errors = visit(
            url, DRAWN, LAST, AGAIN,
            {"click": "#keys label:nth-child(2)"}, DRAWN, AGAIN,
            {"select": ["#solver", "ancestral"]}, DRAWN, AGAIN, {"select": ["#steps", "10"]}, DRAWN, AGAIN,
            {"click": "#counts label:nth-child(2)"}, DRAWN, AGAIN, {"fill": ["#seed", "123456789012"]}, DRAWN,
            LAST, SETTLED, {"shot": str(SHOTS / "web.png")},
            {"fill": ["#seed", "1.5"]}, {"wait": "document.getElementById('status').className === 'wrong'"},
            {"read": "document.getElementById('status').textContent"},
            AGAIN, {"fill": ["#seed", "7"]}, DRAWN, {"evaluate": "document.activeElement.blur()"},
            AGAIN, {"press": "0"}, DRAWN, AGAIN, {"press": "ArrowRight"}, DRAWN, LAST,
            {"evaluate": "navigator.serviceWorker.ready.then(() => true)"},
            {"offline": True}, {"go": url}, DRAWN, LAST,
        )  # fmt: skip
    model = models["images"][0]
    best = model.spec.sampler
    assert assert_equal(first, model, 1e-5) == {
        "label": 2, "seed": 0, "solver": best.solver, "steps": best.steps, "guidance": best.guidance,
    }  # fmt: skip
    request = assert_equal(clicked, model, 1e-5)
    assert (request["label"], request["solver"], request["steps"]) == (1, "ancestral", 10)
    assert (clicked["n"], clicked["seed"], clicked["backend"]) == (4, 123456789012, "wasm")
    with pytest.raises(ValueError, match=r"^seed: expected") as error:
        runtimes.sample(model, 4, label=0, seed="1.5")
    assert wrong == str(error.value)
    request = assert_equal(keyed, model, 1e-5)
    assert (request["label"], request["seed"]) == (0, 8)
    assert_equal(offline, model, 1e-5)
    # a browser may look for a newer sw.js and say that it could not
    assert [error for error in errors if "ERR_INTERNET_DISCONNECTED" not in error] == []
    assert (SHOTS / "web.png").stat().st_size > 10_000


def test_one_file_from_the_disk(models, tmp_path):
    """Points in the plane, without labels, everything inside, on a phone at night."""
    model, path = models["overlapping"]
    site.write_page(tmp_path / "points.html", path, ORT_WEB)
    phone = {"viewport": {"width": 390, "height": 844}, "isMobile": True, "hasTouch": True}
    (last, again), errors = visit(
        (tmp_path / "points.html").as_uri(), DRAWN, LAST, AGAIN, {"click": "#after"}, DRAWN, LAST,
        SETTLED, {"shot": str(SHOTS / "phone.png")}, colorScheme="dark", **phone,
    )  # fmt: skip
    assert_equal(last, model, 1e-5)
    assert assert_equal(again, model, 1e-5)["seed"] == 1
    assert errors == []


def cut(folder):
    content = (folder / site.MODEL).read_bytes()
    (folder / site.MODEL).write_bytes(content[:-1])


def without_wasm(folder):
    (folder / "ort" / site.RUNTIMES["wasm"][1]).unlink()


def without_worker(folder):
    (folder / "worker.js").unlink()


def pinned(folder, wasm="ort-wasm-simd-threaded.wasm"):
    """As if it came from another host, with the hash of the file named `wasm` for its WebAssembly."""
    page = (folder / "index.html").read_text()
    for name in site.RUNTIMES["wasm"]:
        digest = site.HASHES[wasm if name.endswith(".wasm") else name]
        entry = f'"name": "ort/{name}"'
        assert entry in page
        page = page.replace(entry, f'{entry}, "integrity": "{digest}"')
    (folder / "index.html").write_text(page)


SITES = {  # what is done to the folder, what becomes of the page, what it says
    "cut": (cut, "broken", "images-sampler.onnx: truncated or changed: SHA-256 differs from the file's own"),
    "wasm": (without_wasm, "broken", "expected a file, got status 404; copy the whole folder"),
    "worker": (without_worker, "broken", "This page did not start"),
    "other bytes": (lambda f: pinned(f, "ort.wasm.bundle.min.mjs"), "broken", "expected a file, got"),
    "right bytes": (pinned, "ready", ""),
}  # fmt: skip


def test_a_page_that_cannot_open_its_model_says_what_to_do(models, folder, tmp_path):
    for name, (change, *_) in SITES.items():
        shutil.copytree(folder, tmp_path / name)
        change(tmp_path / name)
    disk = (folder / "index.html").as_uri()
    settled = {"wait": "['broken', 'ready'].includes(document.body.dataset.state)"}
    with served(tmp_path) as url:
        first, *others = [*(f"{url}{name}/" for name in SITES), disk]
        steps = [step for one in others for step in ({"go": one}, settled, STATE)]
        seen, _ = visit(first, settled, STATE, *steps)
    wanted = [*(what for _, *what in SITES.values()), ["broken", "python -m http.server"]]
    for (state, text), (expected, words) in zip(seen, wanted, strict=True):
        assert (state, words in text) == (expected, True), text


@pytest.mark.slow
def test_webgpu(models, folder):
    """The native WebGPU provider on a software adapter: the loop included, within 1e-3."""
    ask = "#backend=webgpu&label=1&seed=3&solver=heun&steps=5&count=1&guidance=2"
    with served(folder) as url:
        (last, noisy), errors = visit(
            url + ask, DRAWN, LAST, AGAIN, {"select": ["#solver", "ancestral"]}, DRAWN, LAST,
            flags=SWIFTSHADER,
        )  # fmt: skip
    model = models["images"][0]
    assert last["backend"] == noisy["backend"] == "webgpu"
    assert assert_equal(last, model, 1e-3)["steps"] == 5
    assert assert_equal(noisy, model, 1e-3)["solver"] == "ancestral"
    assert errors == []
