"""Open a model file and call its network: check, choose a provider, check again, cast, call."""

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import modelfile, tableaus, work
from .choices import choose
from .contracts import match
from .limits import WATCHDOG, Limits, cancelled_after, default_limits
from .modelfile import ModelError, ModelFile
from .providers import PROVIDERS, chain
from .spec import Spec, from_json
from .tableaus import Ready
from .widen import widened

Floats = NDArray[np.float32]
_ARENA = (
    threading.Lock()
)  # ONNX Runtime has one CPU arena to hand out; a session keeps what it got


@dataclass(frozen=True)
class Model:
    """An open model: what it is (spec), where it runs (provider), and how to call it (network)."""

    spec: Spec
    file: ModelFile
    provider: str
    session: Any
    limits: Limits

    tableaus: tuple[Ready, ...] = ()

    @property
    def form(self) -> str:
        """What the graph returns: one of `modelfile.FORMS`."""
        return self.file.form

    def network(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None = None
    ) -> Floats:
        """prediction = network(x, t, condition) on B rows, at one time or one per row.

        x float32 (B, *shape); condition int64 (B,), float32 (B, *context) or None as the spec says.
        A sampler calls it by a tableau of one row that changes nothing, once per time. Raises
        ValueError for a seeded or unrolled file, whose network stands behind its solver.
        """
        if self.form in ("seeded", "unrolled"):
            raise ValueError(
                f"{self.file.path}: expected a file whose network can be called alone, got the form "
                f"{self.form!r}; export it with --form network or sampler"
            )
        if self.form == "sampler":
            return self._bare(x, t, condition)
        extra = {"probe": np.zeros_like(x)} if self.form == "likelihood" else {}
        (out,) = self._call(["prediction"], x, t, condition, extra)
        return out

    def product(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None, probe: Floats
    ) -> tuple[Floats, Floats]:
        """(prediction, J probe), J = d prediction / d x of each row: see `likelihood`.

        Raises ValueError unless the file is of the form `likelihood`.
        """
        if self.form != "likelihood":
            raise ValueError(
                f"{self.file.path}: expected a file of the form 'likelihood', got {self.form!r}; "
                "write one with toolkit export --form likelihood"
            )
        if probe.shape != x.shape or probe.dtype != np.float32:
            raise ValueError(
                f"probe: expected float32 {x.shape} like x, got {probe.dtype} {probe.shape}; convert it"
            )
        out, moved = self._call(["prediction", "product"], x, t, condition, {"probe": probe})
        return out, moved

    def _call(
        self,
        outputs: list[str],
        x: Floats,
        t: float | Floats,
        condition: NDArray[Any] | None,
        extra: dict[str, Floats],
    ) -> list[Floats]:
        """One run of the network: each output float32 like x."""
        self.check(x, condition)
        feeds: dict[str, NDArray[Any]] = {"x": x, "time": np.full(len(x), t, np.float32), **extra}
        if condition is not None:
            feeds[self.spec.condition.kind] = condition
        found: list[Floats] = self.run(outputs, feeds, len(x))
        for out in found:
            self._same_shape(out, x)
        return found

    def _same_shape(self, out: Floats, x: Floats) -> None:
        """ModelError unless it is; that it is float32 is checked when the file is opened."""
        if out.shape != x.shape:
            raise ModelError(
                f"{self.file.path}: expected predictions of shape {x.shape}, got {out.shape}; "
                "export the network again"
            )

    def _bare(self, x: Floats, t: float | Floats, condition: NDArray[Any] | None) -> Floats:
        """The rows of each time through the sampler's graph, by out = network(x, t)."""
        self.check(x, condition)
        times, out = np.full(len(x), t, np.float32), np.empty_like(x)
        for time in np.unique(times):
            rows = times == time
            row = np.array([[[1, time, 0], [0, 1, 0]]], np.float32)
            feeds: dict[str, NDArray[Any]] = {"x": x[rows][None], "tableau": row}
            if condition is not None:
                feeds[self.spec.condition.kind] = condition[rows]
            (found,) = self.run(["sample"], feeds, int(rows.sum()))
            self._same_shape(found, x[rows])
            out[rows] = found
        return out

    def run(
        self, outputs: list[str], feeds: dict[str, NDArray[Any]], rows: int, calls: int = 1
    ) -> list[Any]:
        """One run of the graph as it is, of so many network calls.

        Raises ModelError for what fails in it, named by its `rows`.
        """
        found: list[Any] = self.watched(lambda o: self.session.run(outputs, feeds, o), rows, calls)
        return found

    def watched(self, call: Callable[[Any], Any], rows: int, calls: int = 1) -> Any:
        """call(run options), ended when it takes longer than so many network calls may."""
        options = onnxruntime().RunOptions()
        options.log_severity_level = 4
        seconds = self.limits.call * calls
        WATCHDOG.begin(options, seconds)
        try:
            return call(options)
        except Exception as error:  # ONNX Runtime's errors share no base but Exception
            late = f"no end within {seconds:.0f} s" if options.terminate else ""
            raise ModelError(
                f"{self.file.path}: expected a network that runs on {rows} rows, got: "
                f"{late or _reason(error, self.limits)}; try fewer rows, or export it again"
            ) from None
        finally:
            WATCHDOG.end(options)

    def check(self, x: Floats, condition: NDArray[Any] | None) -> None:
        """What ONNX Runtime takes without a word: other byte orders, one label for all, label -1."""
        kind, classes = self.spec.condition.kind, self.spec.condition.classes
        wanted = np.int64 if kind == "label" else np.float32
        if x.dtype != np.float32 or (condition is None) != (kind == "none"):
            raise ValueError(
                f"x: expected float32 and a condition {kind!r}, got {x.dtype} and "
                f"{'none' if condition is None else 'one'}; convert x, or see the spec"
            )
        if condition is not None and (len(condition) != len(x) or condition.dtype != wanted):
            raise ValueError(
                f"{kind}: expected {np.dtype(wanted)} with {len(x)} rows, got {condition.dtype} "
                f"with {len(condition)}; give one per row of x"
            )
        # seen as uint64 a negative label is a huge one, so one comparison finds both
        if kind == "label" and len(x) and condition.view(np.uint64).max() > classes:  # type: ignore[union-attr]
            raise ValueError(
                f"label: expected 0 to {classes} ({classes} is no label), got {condition}; "
                "correct it"
            )


def load(
    path: str | os.PathLike[str],
    *,
    provider: str = "auto",
    threads: int | str = 0,
    rows: int = work.LARGEST_BATCH,
    limits: Limits | None = None,
) -> Model:
    """The model at `path`, ready to sample.

    provider: cpu, cuda, tensorrt, coreml or directml; auto is cuda where this onnxruntime has it, else cpu.
    A named provider that is missing is an error, never a silent fallback. threads: so many, "all", or 0 for
    one or all by the size of the network and its calls (`work`); rows: samples in a call, if they are fewer
    than `sample` takes. limits: the memory and time it may take; see `default_limits` for what None means.
    Raises FileNotFoundError, ModelError (not ours, changed, unsafe, or a graph that
    is not what its spec says) or ValueError (no such provider).
    """
    return open_file(
        modelfile.read(path), provider=provider, threads=threads, rows=rows, limits=limits
    )


def open_file(
    file: ModelFile,
    *,
    provider: str = "auto",
    threads: int | str = 0,
    rows: int = work.LARGEST_BATCH,
    limits: Limits | None = None,
) -> Model:
    """The model in a checked file; see `load`."""
    try:
        spec = from_json(file.metadata[modelfile.SPEC_KEY])
    except ValueError as error:
        raise ModelError(f"{file.path}: {error}") from None
    name = _pick(provider)
    nodes = sum(file.operators.values())
    limits = limits or default_limits(len(file.content), nodes, name)
    session = opened(file, name, work.threads(threads, file, spec, rows), limits)
    match(file, spec, session)
    return Model(spec, file, name, session, limits, _tableaus(file))


def onnxruntime() -> Any:
    """The onnxruntime module, loaded when the first model is opened.

    Since 1.29 importing it writes an identifier into the home folder and reports the models opened to
    its maker, unless this variable is set before (the second name is that of the first releases).
    """
    for name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
        os.environ.setdefault(name, "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"onnxruntime: expected it to be installed, got {error}; pip install 'toolkit[ort]', or "
            "'toolkit[cuda]' beside an NVIDIA card"
        ) from None
    return onnxruntime


def _pick(provider: str) -> str:
    present = onnxruntime().get_available_providers()
    if provider == "auto":
        return "cuda" if PROVIDERS["cuda"][0] in present else "cpu"
    name = choose("provider", provider, [*PROVIDERS, "auto"])
    if PROVIDERS[name][0] not in present:
        have = ", ".join(word for word, (long, _) in PROVIDERS.items() if long in present)
        raise ValueError(
            f"provider: expected one that this onnxruntime has ({have}), got {name!r}; "
            "install the matching onnxruntime package or use --provider auto"
        )
    return name


def opened(file: ModelFile, provider: str, threads: int, limits: Limits) -> Any:
    """The onnxruntime session of a checked file, held to these limits. Raises ModelError."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said once, in the exception
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(work.SPIN))
    # else bytes 4..7 decide, and a file that is a good .onnx to `modelfile` could be an .ort inside
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.use_env_allocators", "1")
    wanted = chain(provider, file, ort.__version__)
    few = modelfile.PRECISION_KEY in file.metadata
    try:
        content = widened(file.content) if few else file.content
        with _ARENA, cancelled_after(options, limits.load):
            _cap_memory(ort, limits.memory)
            session = ort.InferenceSession(
                content,
                options,
                providers=wanted,
                enable_fallback=0,
                # it computes outside the arena: 40 bytes of file would become gigabytes
                disabled_optimizers=["ConstantFolding"],
            )
    except Exception as error:  # ONNX Runtime's errors share no base but Exception
        raise _not_opened(file, error, limits) from None
    if session.get_providers()[0] != wanted[0][0]:
        raise ModelError(
            f"{file.path}: expected to run on {provider}, got {session.get_providers()[0]}; "
            "see onnxruntime's installation notes, or use --provider cpu"
        )
    return session


def _cap_memory(ort: Any, most: int) -> None:
    """Make the arena that the next session takes: its own, of at most so many bytes."""
    kind, place = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
    ort.create_and_register_allocator(
        ort.OrtMemoryInfo("Cpu", kind, 0, place), ort.OrtArenaCfg({"max_mem": most})
    )


def _not_opened(file: ModelFile, error: Exception, limits: Limits) -> ModelError:
    reason = _reason(error, limits)
    fix = "export it again"
    if type(error).__name__ == "ModelLoadCanceled":
        reason = f"no end of loading within {limits.load:.0f} s"
    elif "Opset" in reason or "IR version" in reason:
        fix = "made by a newer version; update onnxruntime"
    return ModelError(f"{file.path}: expected a graph ONNX Runtime opens, got: {reason}; {fix}")


def _reason(error: Exception, limits: Limits) -> str:
    """What ONNX Runtime says, in one line without its source; "no memory" in words of ours."""
    text = " ".join(str(error).split())
    if any(word in text for word in ("bfc_arena", "bad_alloc", "Failed to allocate memory")):
        return f"a need for more than its {limits.memory >> 20} MiB of memory"
    text = re.sub(
        r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+ [^(]*\([^()]*\) ", "", text
    )
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


def _tableaus(file: ModelFile) -> tuple[Ready, ...]:
    """The ready-made tableaus of a sampler, or the fitted ones of any file."""
    try:
        return tableaus.from_json(file.metadata.get(modelfile.TABLEAUS_KEY, "[]"))
    except ValueError as error:
        raise ModelError(f"{file.path}: {error}") from None
