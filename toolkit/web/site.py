"""A model file and the page around it: a static folder, or one HTML file that needs no server.

The page runs onnxruntime-web in a worker. Its files come from a folder of its npm package, or stay on
a public host, pinned by version and hash. They are not part of this package: 14 MB for wasm, 27 for WebGPU.
"""

import base64
import gzip
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from runtimes import modelfile, tableaus
from runtimes.files import refuse_existing, write_whole
from runtimes.modelfile import ModelError, ModelFile
from runtimes.spec import Spec, from_json

HERE = Path(__file__).parent
PAGE = ("style.css", "page.js", "worker.js", "toolkit.js")
# what is one file in the site and several here, each after those it imports
JOINED = {
    "page.js": ("page/paint.js", "page/page.js"),
    "toolkit.js": tuple(
        f"client/{name}.js"
        for name in (
            *("words", "protobuf", "sha256", "noise", "graph", "modelfile"),
            *("conditions", "tableaus", "spec", "contracts", "toolkit"),
        )
    ),
}
BETWEEN = re.compile(r'^(import|export) \{[^}]*\}( from "\./\w+\.js")?;\n', re.M)
ORT = "1.30.0"
HOST = "https://cdn.jsdelivr.net"
CDN = f"{HOST}/npm/onnxruntime-web@{ORT}/dist/"
# of the page's two backends: the script and the WebAssembly of onnxruntime-web, never its JSEP
RUNTIMES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
HASHES = {  # of version ORT
    "ort.wasm.bundle.min.mjs":
        "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
    "ort-wasm-simd-threaded.wasm":
        "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
    "ort.webgpu.bundle.min.mjs":
        "sha384-1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f",
    "ort-wasm-simd-threaded.asyncify.wasm":
        "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR",
}  # fmt: skip
MODEL = "model.onnx"


def write_folder(
    out: str | os.PathLike[str],
    model: str | os.PathLike[str],
    ort: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
) -> int:
    """Write the site into the folder `out`; its bytes. index.html comes last: half a site opens nothing.

    ort: onnxruntime-web's dist folder, whose four files are copied; None: they stay on `HOST`.
    Raises FileExistsError for a folder with something in it unless `overwrite`, else as `read`.
    """
    file, out = read(model), Path(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: expected a folder or none, got a file; give another name")
    if not overwrite and out.exists() and any(out.iterdir()):
        raise FileExistsError(
            f"{out}: expected an empty folder or none, got files; give --force or another name"
        )
    files = {name: source(name).encode() for name in PAGE} | {MODEL: file.content}
    place, policy = CDN, f"'self' {HOST}"
    if ort is not None:
        files |= {f"ort/{name}": content for name, content in dist(ort).items()}
        place, policy = "ort/", "'self'"
    runtimes = {
        backend: {
            kind: {"name": place + name, **({} if ort else {"integrity": HASHES[name]})}
            for kind, name in zip(("script", "wasm"), names, strict=True)
        }
        for backend, names in RUNTIMES.items()
    }
    files["sw.js"] = _worker(files, [part["name"] for part in runtimes["wasm"].values()])
    files["index.html"] = _page(file, runtimes, _policy("'self'", "'self'", policy)).encode()
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).parent.mkdir(exist_ok=True)
        write_whole(out / name, content)
    return sum(map(len, files.values()))


def write_page(
    out: str | os.PathLike[str],
    model: str | os.PathLike[str],
    ort: str | os.PathLike[str] | None,
    *,
    overwrite: bool = False,
) -> int:
    """Write one HTML file with everything inside, WebAssembly only; its bytes. It runs from file://.

    Raises ValueError if `ort` is None: what is to be inside has to be here. Else as `write_folder`.
    """
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise ValueError(
            f"{out}: expected a name ending in .html for one page, got another; rename it"
        )
    refuse_existing(out, overwrite)
    if ort is None:
        raise ValueError(
            "--ort: expected onnxruntime-web's dist folder for a page with everything inside, got none; "
            f"npm install --ignore-scripts onnxruntime-web@{ORT}, then node_modules/onnxruntime-web/dist"
        )
    file, script, wasm = read(model), *RUNTIMES["wasm"]
    parts = {name: content for name, content in dist(ort).items() if name in (script, wasm)}
    parts |= {name: source(name).encode() for name in ("worker.js", "toolkit.js")}
    parts[MODEL] = file.content
    runtimes = {"wasm": {"script": {"name": script}, "wasm": {"name": wasm}}}
    page = _page(file, runtimes, _policy("'unsafe-inline'", "'unsafe-inline'", ""))
    packed = "".join(
        f'<script type="text/plain" id="file:{name}">{_packed(content)}</script>\n'
        for name, content in parts.items()
    )
    style = f"<style>\n{source('style.css')}</style>"
    code = f"{packed}<script>\n{source('page.js')}</script>"
    page = _replaced(page, '<link rel="stylesheet" href="style.css">', style)
    page = _replaced(page, '<script src="page.js" defer></script>', code)
    return len(write_whole(out, page.encode(), overwrite=overwrite).read_bytes())


def read(path: str | os.PathLike[str]) -> ModelFile:
    """The checked model file, if the page can sample it and show what it draws; else ModelError.

    The form is `sampler`, not `seeded`: only the first hands its state back, and a run in pieces is what
    shows every step and can be stopped.
    """
    file = modelfile.read(path)
    if file.form != "sampler":
        raise ModelError(
            f"{path}: expected a file of the form 'sampler', got {file.form!r}; "
            "write one with toolkit export --form sampler"
        )
    try:
        spec = from_json(file.metadata[modelfile.SPEC_KEY])
        if not tableaus.from_json(file.metadata.get(modelfile.TABLEAUS_KEY, "")):
            raise ValueError("tableaus: expected a list of tableaus, got none; export again")
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None
    if not _is_shown(spec):
        raise ModelError(
            f"{path}: expected images (H, W, 1 or 3) or points (2,), by label or without a condition, "
            f"got {spec.shape} by {spec.condition.kind}; write a page of your own around toolkit.js"
        )
    return file


def source(name: str) -> str:
    """The text of a file of the site. One that is several here is them joined, the imports between left out.

    Their names differ, so they can share a scope. page.js runs as a plain script, in a block of its own:
    from file:// a browser loads no modules, and the page could not even say so.
    """
    texts = [(HERE / part).read_text("utf-8") for part in JOINED.get(name, (f"page/{name}",))]
    text = "\n".join(BETWEEN.sub("", text) for text in texts)
    if name != "page.js":
        return text
    return '"use strict";\n{\n' + re.sub(r"^export ", "", text, flags=re.M) + "}\n"


def dist(folder: str | os.PathLike[str]) -> dict[str, bytes]:
    """The four files of onnxruntime-web by name. Raises FileNotFoundError."""
    found = {}
    for name in (name for names in RUNTIMES.values() for name in names):
        path = Path(folder) / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder}: expected onnxruntime-web's dist folder, got none with {name}; "
                f"npm install --ignore-scripts onnxruntime-web@{ORT}, then node_modules/onnxruntime-web/dist"
            )
        found[name] = path.read_bytes()
    return found


def _is_shown(spec: Spec) -> bool:
    images = len(spec.shape) == 3 and spec.shape[-1] in (1, 3)
    return (images or spec.shape == (2,)) and spec.condition.kind != "context"


def _policy(script: str, style: str, connect: str) -> str:
    """The browser is told what the page may load: its own files, and nothing from anywhere else."""
    return (
        f"default-src 'none'; script-src {script} blob: 'wasm-unsafe-eval'; worker-src {script} blob:; "
        f"connect-src {connect} blob:; style-src {style}; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _page(file: ModelFile, runtimes: Mapping[str, object], policy: str) -> str:
    name = os.fsencode(file.path.name).decode(errors="replace")
    config = {"name": name, "model": MODEL, "runtimes": runtimes}
    config["offline"] = "unsafe-inline" not in policy
    words = {
        "POLICY": policy,
        "NAME": html.escape(name),
        # < as an escape: a name can end no element then
        "CONFIG": json.dumps(config).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words[found[1]], source("index.html"))


def _worker(files: Mapping[str, bytes], remote: list[str]) -> bytes:
    """sw.js with the names of what is kept, and a digest that changes when any of it does."""
    kept = ["./", *PAGE, MODEL, *remote]
    digest = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()[:16]
    code = _replaced(source("sw.js"), "/*FILES*/ []", json.dumps(kept))
    return _replaced(code, '/*DIGEST*/ ""', json.dumps(digest)).encode()


def _replaced(text: str, old: str, new: str) -> str:
    before, after = text.split(old)  # stands there once
    return before + new + after


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
