"""The rows: a fault, and what must happen. Rule G: one `error:` line, nothing else, nothing changed."""

# ruff: noqa: E501  (tables: one fault a line)

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from .models import GOOD, MODELS, flips, mutants
from .run import RESIDENT, SECONDS, run

ROOT = Path(__file__).parents[2]
CAT = ("-n", "2", "--label", "cat", "-o", "a.npy")


@dataclass(frozen=True)
class Fault:
    """One row. never: one failure fails the product. check(work) raises AssertionError if it is lost.

    slow: starts torch for what another test holds already, so the default suite leaves it out.
    """

    id: str
    what: str
    check: object
    never: bool = False
    slow: bool = False


def refused(model, args, words, codes=(2,), before_onnxruntime=None, **limits):
    """Rule G for `toolkit *args` in a folder that holds `model` as m.onnx."""

    def check(work):
        (work / "here").mkdir()
        if model is not None:
            (work / "here" / "m.onnx").write_bytes(MODELS[model]())
        done = run(work, "cli", *args, **limits)
        assert done.code in codes, (done.code, done.err[:300])
        assert done.out == ""
        assert re.fullmatch(r"error: [^\n]*\n", done.err), done.err[:300]
        assert re.search(words, done.err), done.err[:300]
        assert done.seconds < SECONDS
        assert done.resident < RESIDENT, done.resident
        assert done.changed == []
        if before_onnxruntime is not None:
            assert done.used_onnxruntime is not before_onnxruntime, "ONNX Runtime was started"

    return check


def unsafe(model, words):
    """Refused by `verify` with exit 1 and by `sample`, both before ONNX Runtime is started."""

    def check(work):
        for name, args, codes in (
            ("v", ("verify", "m.onnx"), (1,)),
            ("s", ("sample", "m.onnx", *CAT), (1, 2)),
        ):
            (work / name).mkdir()
            refused(model, args, words, codes, before_onnxruntime=True)(work / name)

    return check


def bomb(model, words="MiB of memory|would require|shape|size|no end"):
    return refused(model, ("sample", "m.onnx", *CAT), words, (1, 2))


def misuse(*options, words):
    return refused("good", ("sample", "m.onnx", "-o", "a.npy", *options), words)


def verified(work):
    (work / "here").mkdir()
    (work / "here" / "m.onnx").write_bytes(GOOD)
    done = run(work, "cli", "verify", "m.onnx")
    assert (done.code, done.err, done.changed) == (0, "", [])
    assert re.match(r"sha256 [0-9a-f]{64}\n\{", done.out)
    assert '"classes": 3' in done.out


def same_bytes(work):
    found = []
    for n, threads in ((3, 1), (3, 2), (70, 1)):
        here = work / f"{n} {threads}" / "here"
        here.mkdir(parents=True)
        (here / "m.onnx").write_bytes(GOOD)
        args = ("-n", n, "-l", "0,1,2", "--threads", threads, "-o", "a.npy")
        assert run(here.parent, "cli", "sample", "m.onnx", *args).code == 0
        found.append((here / "a.npy").read_bytes()[128:][: 3 * 256])
    assert found[0] == found[1] == found[2]


def kept(*args, words, codes=(2,), **limits):
    """A file that is there already is whole after the command has failed."""

    def check(work):
        (work / "here").mkdir()
        (work / "here" / "a.npy").write_bytes(b"precious")
        refused("good", ("sample", "m.onnx", "-n", "2", "-l", "0", *args), words, codes, **limits)(
            _again(work)
        )
        assert (work / "here" / "a.npy").read_bytes() == b"precious"

    return check


def _again(work):
    """`refused` makes the folder; here it is there."""

    class There(type(work)):
        def mkdir(self, mode=0o777, parents=False, exist_ok=True):
            super().mkdir(mode, parents, exist_ok=True)

    return There(work)


def stopped(number, code, model="good"):
    """A signal during a long sampling run ends it within a second, and no file stays."""

    def check(work):
        (work / "here").mkdir()
        (work / "here" / "m.onnx").write_bytes(MODELS[model]())
        args = ("-n", "1000000", "-l", "0", "-k", "1000", "-o", "a.npy")
        done = run(work, "cli", "sample", "m.onnx", *args, send=number)
        assert done.code == code, (done.code, done.err)
        assert done.seconds < 1.0, done.seconds
        assert (done.out, done.changed) == ("", [])
        assert "Traceback" not in done.err

    return check


def many(contents, outcomes, at_least=1):
    """Each file opened and sampled by a child; after a crash another child goes on behind it."""

    def check(work):
        (work / "here").mkdir()
        todo = []
        for k, content in enumerate(contents()):
            todo.append(work / "here" / f"{k:03}.onnx")
            todo[-1].write_bytes(content)
        tried = len(todo)
        lost, sampled = [], 0
        while todo:
            done = run(work, "files", *todo, limit=60.0)
            lines = done.report.splitlines()
            found = dict(line.split(" ", 1) for line in lines if " " in line)
            lost += [f"{name}: {what}" for name, what in found.items() if what not in outcomes]
            sampled += list(found.values()).count("sampled")
            if (done.out, done.err, done.changed) != ("", "", []):
                lost.append(f"printed or changed: {done.out[:200]}{done.err[:200]}{done.changed}")
            if len(found) < len(todo):
                lost.append(f"{todo[len(found)].name}: exit {done.code}")
            todo = todo[max(len(found), 1) :]
        assert not lost, (len(lost), lost[:5])
        assert tried >= at_least
        assert "sampled" not in outcomes or sampled > 0

    return check


def program(text, *flags, code=0, **limits):
    """A Python program of the library's user that ends as it should and prints nothing."""

    def check(work):
        (work / "here").mkdir()
        (work / "here" / "m.onnx").write_bytes(GOOD)
        done = run(work, "python", text, flags=flags, **limits)
        assert (done.code, done.out, done.changed) == (code, "", []), done.err[-600:]
        assert done.err == "", done.err[-600:]

    return check


TRAPS = """
import itertools
import numpy as np, runtimes
model = runtimes.load("m.onnx", provider="cpu")
f32, nan = np.float32, float("nan")
wrong = {
    "n": [0, -1, 2.5, True, None, "3", 10**9, np.array(3), 1e3, 10**30],
    "label": [None, -1, 3, 1.0, True, "dog ", [], [0, -1], [[0], [1]], np.array([0.0]), b"\\x01", "7",
              np.array(["cat"], object)[:0], 2**64, np.zeros((2, 2), int), {0}],
    "seed": [-1, 2**53, 2**64, 1.5, True, None, "0", nan, np.array(0)],
    "steps": [0, -1, 10**9, 2.0, True, "4", nan],
    "guidance": [nan, float("inf"), -float("inf"), 1e39, "2", True, 10**40, np.array(1.0), 1j],
    "eta": [nan, -1, 11, "1", True, None, 10**30],
    "interval": [(nan, 1), (0, nan), (0.5, 0.2), (0,), 1, (0, 2), ("0", "1"), (True, True)],
    "grid": ["unifrom", [0, 0.5, 0.5, 1], [0, nan, 1], [1, 0], [[0, 1]], [0, 2], [0], 3, [0, "a"], [None, 1]],
    "chart": ["strait", 3, None], "solver": ["huen", 3, ["heun"]],
    "context": [np.zeros(3, f32)],
}
for name, values in wrong.items():
    for value in values:
        given = {"n": 2, "label": 0, **{name: value}}
        n = given.pop("n")
        for call in (runtimes.sample, lambda *a, **k: list(runtimes.stream(*a, **k))):
            try:
                call(model, n, **given)
            except ValueError as error:
                if "\\n" in str(error):
                    raise RuntimeError(f"{name} {value!r}: more than a line")
            else:
                raise RuntimeError(f"{name} = {value!r} was accepted")
x = np.zeros((2, 8, 8, 1), f32)
labels = np.zeros(2, np.int64)
for bad in ((x.astype(">f4"), labels), (x.astype(float), labels), (x.astype(np.float16), labels),
            (x.astype(object), labels), (x, labels[:1]), (x, labels - 1), (x, labels + 4),
            (x, labels.astype(np.int32)), (x, labels.astype(">i8")), (x, None), (x[:, :4], labels)):
    try:
        model.network(bad[0], 0.5, bad[1])
    except ValueError:
        continue
    raise RuntimeError(f"network took {bad[0].dtype} {bad[0].shape}, {bad[1]}")
fortran = np.asfortranarray(np.random.default_rng(0).standard_normal(x.shape).astype(f32))
same = np.array_equal(model.network(fortran, 0.5, labels), model.network(np.ascontiguousarray(fortran), 0.5, labels))
if not same:  # no assert: this runs under -O too
    raise RuntimeError("Fortran order changed the numbers")
"""
ALONE = """
import sys
def deny(event, given):
    if event.startswith("socket."):
        raise RuntimeError("the network was used: " + event)
sys.addaudithook(deny)
import runtimes
runtimes.sample(runtimes.load("m.onnx"), 2, label=0)
allowed = {"runtimes", "numpy", "onnxruntime", *sys.stdlib_module_names, *sys.builtin_module_names}
loaded = {name.split(".")[0] for name in sys.modules if sys.modules[name] is not None}
extra = {name for name in loaded - allowed if not name.startswith(("_", "mkl"))}
if extra & {"torch", "mlx", "onnx", "click", "toolkit", "export", "scipy", "PIL", "sklearn"}:
    raise RuntimeError(f"loaded {sorted(extra)}")
"""
NAN = ("sample", "m.onnx", *CAT)
ROWS = [
    Fault("A01", "absent", refused(None, NAN, "m.onnx: expected a model file")),
    Fault("A01b", "absent, verify", refused(None, ("verify", "m.onnx"), "m.onnx: expected")),
    Fault("A01c", "empty", refused("empty", NAN, "empty")),
    Fault("A01d", "empty, verify", refused("empty", ("verify", "m.onnx"), "empty")),
    Fault("A01e", "a folder", refused(None, ("sample", ".", *CAT), "folder")),
    Fault("A01f", "a device", refused(None, ("sample", "/dev/zero", *CAT), "no file")),
    Fault("A02", "plain .onnx", unsafe("plain", "toolkit export")),
    Fault("A02b", "spec is no JSON", refused("not json", NAN, "spec: expected JSON")),
    Fault("A02c", "spec with NaN", refused("nan json", NAN, "spec: expected JSON")),
    Fault("A02d", "spec nested 100,000 deep", refused("deep json", NAN, "spec: expected JSON")),
    Fault("A03", "a web page", unsafe("html", "expected an ONNX model file")),
    Fault("A03b", "a git-lfs pointer", unsafe("lfs", "expected an ONNX model file")),
    Fault("A04", "half of it", unsafe("half", "truncated or changed: SHA-256 differs")),
    Fault("A04b", "last byte missing", unsafe("cut", "truncated or changed: SHA-256 differs")),
    Fault("A05", "200 single bit flips", many(lambda: flips(200), {"refused"}, 200), never=True),
    Fault("A06", "500 mutants of structure", many(lambda: mutants(500), {"refused", "sampled"}, 500), never=True),
    Fault("A07", "another shape", refused("shape", NAN, r"8, 9, 1.*8, 8, 1")),
    Fault("A07b", "another class count", refused("classes", NAN, r"9 classes.*4 rows")),
    Fault("A07c", "another input name", refused("name", NAN, r"\bx float.*\by float")),
    Fault("A07d", "another dtype", refused("dtype", NAN, "float.*double|Type", (1, 2))),
    Fault("A08", "spec version 999", refused("version", NAN, "made by a newer version")),
    Fault("A08b", "opset 999", refused("opset", NAN, "made by a newer version")),
    Fault("A08c", "IR 999", refused("ir", NAN, "made by a newer version")),
    *(
        Fault(f"A09{letter}", name, unsafe(name, "stored in another file|sparse|'If'"), never=True)
        for letter, name in zip(
            ("", "b", "c", "d", "e"),
            [name for name in MODELS if name.startswith("external")], strict=True,
        )
    ),
    Fault("A10", "raw_data and float_data", unsafe("both data", "raw_data and float_data")),
    Fault("A11", "dims of more than the data", unsafe("dims", "expected 1280 bytes.*got 1024")),
    Fault("A11b", "dims 2^40", unsafe("dims huge", "axes")),
    Fault("A11c", "dims that overflow", unsafe("dims overflow", "axes")),
    Fault("A11d", "dims below 0", unsafe("dims negative", "axes")),
    Fault("A12", "text as weights", unsafe("string weight", "expected numbers")),
    Fault("A13", "another domain", unsafe("domain", "com.microsoft.Sub")),
    Fault("A13b", "another domain imported", unsafe("domain import", "evil")),
    Fault("A13c", "Python operator", unsafe("python op", "ai.onnx.contrib.PyOp")),
    Fault("A14", "Loop of 2^62", unsafe("loop", "'Loop'")),
    Fault("A14b", "If", unsafe("if", "'If'")),
    Fault("A14c", "Scan", unsafe("scan", "'Scan'")),
    Fault("A14d", "a graph inside Relu", unsafe("nested", "Relu")),
    Fault("A15", "functions, 4^9 calls", unsafe("function fan", "no model functions")),
    Fault("A15b", "training graphs", unsafe("training", "no model functions")),
    Fault("A16", "random draws", unsafe("random", "'RandomNormal'")),
    Fault("A17", "20,002 nodes", unsafe("nodes", "at most 20000 nodes")),
    Fault("A18", "40,000^2 constant", bomb("fold")),
    Fault("A18b", "15,000^2 twice", bomb("fold 15000")),
    Fault("A19", "30 doublings", bomb("doublings")),
    Fault("A20", "Pad 2^40", bomb("pad")),
    Fault("A20b", "Tile 2^40", bomb("tile")),
    Fault("A20c", "Expand 10^6", bomb("expand")),
    Fault("A20d", "Range 10^12", bomb("range")),
    Fault("A20e", "Resize 10^5 squared", bomb("resize")),
    Fault("A21", "unknown field", unsafe("unknown field", "not expected")),
    Fault("A21b", "doubled field", unsafe("doubled field", "stands twice")),
    Fault("A22", "cycle", refused("cycle", NAN, "m.onnx: expected", (1, 2))),
    Fault("A23", "prediction is NaN", refused("nan", NAN, r"step 1 of 4, t = ", (1,)), never=True),
    Fault("A24", "prediction overflows", refused("huge", (*NAN, "-g", "1e4"), r"step \d", (1,)), never=True),
    Fault("A25", "control characters in the spec", refused("controls", ("sample", "m.onnx", *CAT, "-l", "x"), "label")),
    Fault("A27", "good file verifies", verified),
    *(
        Fault(f"B01 {n}", f"n = {n}", misuse("-l", "0", "-n", n, words=re.escape(n)))
        for n in ("0", "-1", "2.5", "ten", "1000000000", "10000000000000000000000")
    ),
    *(
        Fault(f"B02 {k}", f"steps = {k}", misuse("-l", "0", "-k", k, words=re.escape(k)))
        for k in ("0", "-1", "1000000000")
    ),
    Fault("B03", "grid with NaN", misuse("-l", "0", "--grid", "0,nan,1", words="grid")),
    *(
        Fault(f"B04 {w}", f"guidance = {w}", misuse("-l", "0", "-g", w, words="guidance"), never=True)
        for w in ("nan", "inf", "-inf", "1e39")
    ),
    *(
        Fault(f"B05 {s}", f"seed = {s}", misuse("-l", "0", "--seed", s, words="seed|true|null|1.5"))
        for s in ("-1", str(2**53), str(2**64), "1.5", "true", "null")
    ),
    Fault("B06", "label = number of classes", misuse("-l", "3", words=r"labels are 0\.\.2")),
    Fault("B06b", "label -1", misuse("-l", "-1", words=r"labels are 0\.\.2")),
    Fault("B08", "no label", misuse(words="label: expected one for a labelled model")),
    Fault("B09", "eta NaN", misuse("-l", "0", "--eta", "nan", words="eta")),
    Fault("B10", "batch 0", misuse("-l", "0", "--batch", "0", words="batch")),
    Fault("B11", "context that is a pickle or absent", misuse("-l", "0", "--context", "m.onnx", words="context")),
    Fault("B12", "every type trap, in Python", program(TRAPS)),
    Fault("B13", "the same under python -O", program(TRAPS, "-O")),
    Fault("B14", "same bytes: processes, threads, n", same_bytes, never=True),
    Fault("B15", "Ctrl-C while sampling", stopped(signal.SIGINT, 130), never=True),
    Fault("B15b", "Ctrl-C inside one long operator", stopped(signal.SIGINT, 130, "stuck")),
    Fault("B16", "SIGTERM while sampling", stopped(signal.SIGTERM, 143), never=True),
    Fault("B17", "output folder absent", misuse("-l", "0", "-o", "no/a.npy", words="folder")),
    Fault("B17b", "output under a file", misuse("-l", "0", "-o", "m.onnx/a.npy", words="m.onnx")),
    Fault("B17c", "output exists", kept("-o", "a.npy", words="--force"), never=True),
    Fault("B17d", "file size limit", kept("-o", "a.npy", "--force", words="a.npy: expected to write .*File too large", codes=(1,), largest_file=500), never=True),
    Fault("F01", "no network, no home, numpy and ORT only", program(ALONE)),
]  # fmt: skip
