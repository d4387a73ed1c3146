"""Who is measured: every file on ONNX Runtime, and the same network by others, where there are any.

Torch, OpenVINO and MLX stand behind the loop of `runtimes` on the host: what differs is the network's
call alone. diffusers brings a loop of its own, around ONNX Runtime or torch.
"""

import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runtimes
from runtimes.guidance import Network
from runtimes.modelfile import PRECISION_KEY
from runtimes.sample import Sampleable
from runtimes.session import Floats, Model
from runtimes.spec import Spec

from .backends import opening

if TYPE_CHECKING:
    from export.torch_model import TorchModel

Draw = Callable[[int, int, Mapping[str, Any]], Floats]  # (n, batch, request) -> samples
OURS = "onnxruntime"  # the engine of the files
NO_PLAIN = "no file of the form network in fp32 given"
TORCH = "import runtimes, torch\ntorch.set_num_threads(1)\n"
FIRST = "\nruntimes.sample(model, 1, **request)"


@dataclass(frozen=True)
class Contender:
    """A network that can be sampled, opened with one number of threads.

    draw: its samples, as `runtimes.sample` takes a request. solvers: those of a loop of its own; none are
    ours, all of them. first: a program that draws the first sample of `request`, for a process of its own,
    or nothing. compiling: the seconds it had to compile for, if it had to.
    """

    name: str
    engine: str
    precision: str
    provider: str
    threads: int
    model: Sampleable
    draw: Draw
    solvers: tuple[str, ...] = ()
    first: str = ""
    compiling: float | None = None


@dataclass(frozen=True)
class Wanted:
    """What a peer is opened for: the files it stands beside, its run folder, what it will be asked for."""

    files: Sequence[Contender]
    run: Path | None
    threads: int
    batch: int
    request: Mapping[str, Any]
    progress: Callable[[str], None] = lambda text: None

    @property
    def spec(self) -> Spec:
        """Of the network."""
        return self.files[0].model.spec

    @property
    def plain(self) -> Contender | None:
        """The first file of the form network in float32, which others can take."""
        return next(
            (one for one in self.files if is_network(one) and one.precision == "fp32"), None
        )


def is_network(contender: Contender) -> bool:
    """Whether it is a file of the form network."""
    return isinstance(contender.model, Model) and contender.model.form == "network"


def open_files(files: Sequence[str | Path], provider: str, threads: int) -> list[Contender]:
    """Every file on ONNX Runtime."""
    found = []
    for path in files:
        model = runtimes.load(path, provider=provider, threads=threads)
        words = (Path(path).stem, OURS, precision_of(model), provider)
        first = _lines(path, provider) + FIRST
        found.append(Contender(*words, threads, model, ours(model), first=first))
    return found


def open_peers(names: Sequence[str], wanted: Wanted) -> tuple[list[Contender], dict[str, str]]:
    """These of `PEERS`, and the reason for each that is not there."""
    found, absent = [], {}
    for name, peer in PEERS.items():
        if name not in names:
            absent[name] = "not asked for: --peers"
        elif peer.of_run and wanted.run is None:
            absent[name] = "no run folder given: --run FOLDER"
        else:
            try:
                opened = peer.opened(name, wanted)
            except ModuleNotFoundError as error:
                opened = f"not installed: pip install {error.name}"
            except ImportError as error:  # it is, but it does not open
                opened = str(error)
            if isinstance(opened, str):
                absent[name] = opened
            else:
                found.append(opened)
    return found, absent


def ours(model: Sampleable) -> Draw:
    """Its samples by the loop of `runtimes`."""
    return lambda n, batch, request: runtimes.sample(model, n, batch=batch, **request)


def precision_of(model: Any) -> str:
    """fp32, or what the file says."""
    from export.fidelity import from_json

    text = model.file.metadata.get(PRECISION_KEY)
    return "fp32" if text is None else from_json(text).precision


def _torch(name: str, wanted: Wanted) -> Contender:
    """The run's own network in torch, eager."""
    return _hosted(name, wanted, _torch_model(wanted), TORCH + opening(wanted.run, "Torch"))


def _compiled(name: str, wanted: Wanted) -> Contender | str:
    """The same by torch.compile, after the draw that makes it compile for this batch."""
    import torch

    eager = _torch_model(wanted)
    asked = {**wanted.request, "solver": "euler", "steps": 2}
    wanted.progress(f"how long {name} compiles for batch {wanted.batch}: a minute, or more")
    started = time.perf_counter()
    try:
        # its compiler imports what torch itself deprecated
        with warnings.catch_warnings(), torch.compiler.config.patch(force_disable_caches=True):
            warnings.simplefilter("ignore")
            model = replace(eager, module=torch.compile(eager.module))
            runtimes.sample(model, wanted.batch, batch=wanted.batch, **asked)
    except RuntimeError as error:  # all of its own are, that of a missing C++ compiler too
        return f"does not compile: {str(error).strip().splitlines()[0]}"
    return replace(_hosted(name, wanted, model), compiling=time.perf_counter() - started)


def _diffusers(name: str, wanted: Wanted) -> Contender | str:
    """diffusers' loop around the session of the first plain file."""
    from . import loop_diffusers

    if wanted.plain is None:
        return NO_PLAIN
    file, provider = wanted.plain.model, wanted.plain.provider
    lines = _lines(file.file.path, provider)
    return _looped(name, wanted, file, loop_diffusers.around_file, lines, provider)


def _diffusers_torch(name: str, wanted: Wanted) -> Contender | str:
    """And around the run's own network in torch."""
    from . import loop_diffusers

    lines = TORCH + opening(wanted.run, "Torch")
    return _looped(name, wanted, _torch_model(wanted), loop_diffusers.around_torch, lines)


def _openvino(name: str, wanted: Wanted) -> Contender | str:
    """The network of the first plain file."""
    from . import openvino_model

    if wanted.plain is None:
        return NO_PLAIN
    file = wanted.plain.model
    lines = _lines(file.file.path, "cpu") + (
        "\nfrom toolkit import openvino_model\nmodel = openvino_model.compiled(model, 1)"
    )
    return _hosted(name, wanted, openvino_model.compiled(file, wanted.threads), lines)


def _mlx(name: str, wanted: Wanted) -> Contender:
    """The run's own network in MLX, compiled. A stream of MLX on a CPU is one thread."""
    import mlx.core as mx

    from export.mlx_model import MlxModel

    from .run_mlx import load

    module, own = load(wanted.run)
    _same(own, wanted)
    place = str(mx.default_device().type).rpartition(".")[2]
    model = MlxModel(wanted.spec, mx.compile(module))
    found = _hosted(name, wanted, model, "import runtimes\n" + opening(wanted.run, "Mlx"))
    return replace(found, provider=place, threads=1)


def _hosted(name: str, wanted: Wanted, model: Sampleable, lines: str = "") -> Contender:
    """A network behind our loop. lines: of a new process that opens it, if that is to be measured."""
    first = lines and lines + FIRST
    return Contender(name, name, "fp32", "cpu", wanted.threads, model, ours(model), first=first)


def _looped(
    name: str,
    wanted: Wanted,
    model: Sampleable,
    around: Callable[[Any], Network],
    lines: str,
    provider: str = "cpu",
) -> Contender | str:
    """diffusers' loop around the network that around(model) is; lines: as `_hosted` takes them."""
    import torch

    from . import loop_diffusers as theirs

    if not theirs.knows(wanted.spec):
        path = f"{wanted.spec.schedule} and {wanted.spec.prediction}"
        return f"walks the path linear with the prediction velocity, not {path}"
    torch.set_num_threads(wanted.threads)
    solvers = tuple(theirs.SCHEDULERS)
    first = f"""{lines}
from toolkit.loop_diffusers import {around.__name__}, draw
draw(model, {around.__name__}(model), 1, 1, {{**request, "solver": {solvers[0]!r}}})"""
    return Contender(
        name, name, "fp32", provider, wanted.threads, model,
        partial(theirs.draw, model, around(model)), solvers, first,
    )  # fmt: skip


def _torch_model(wanted: Wanted) -> "TorchModel":
    """The run's network. Raises ValueError for another run than the file's."""
    import torch

    from export.torch_model import TorchModel

    from .run_torch import load

    module, own = load(wanted.run)
    _same(own, wanted)
    torch.set_num_threads(wanted.threads)
    return TorchModel(wanted.spec, module)


def _lines(path: str | Path, provider: str) -> str:
    """What opens a file in a new process."""
    return (
        f"import runtimes\nmodel = runtimes.load({str(path)!r}, provider={provider!r}, threads=1)"
    )


def _same(own: Spec, wanted: Wanted) -> None:
    """Raise ValueError unless a run makes the samples of the files."""
    spec = wanted.spec
    if (own.shape, own.condition) != (spec.shape, spec.condition):
        raise ValueError(
            f"run: expected the run of {wanted.files[0].name}, which makes samples of shape {spec.shape}, "
            f"got {own.shape} in {wanted.run}; give the folder that it was exported from"
        )


@dataclass(frozen=True)
class Peer:
    """opened(name, wanted) -> it, or why not. of_run: it needs a run folder. usual: measured unasked."""

    opened: Callable[[str, Wanted], Contender | str]
    of_run: bool = False
    usual: bool = True


PEERS = {
    "torch": Peer(_torch, of_run=True),
    "torch.compile": Peer(_compiled, of_run=True, usual=False),  # a minute for each batch
    "diffusers": Peer(_diffusers),
    "diffusers+torch": Peer(_diffusers_torch, of_run=True),
    "openvino": Peer(_openvino),
    "mlx": Peer(_mlx, of_run=True, usual=sys.platform == "darwin"),  # slow on other CPUs
}
USUAL = tuple(name for name, peer in PEERS.items() if peer.usual)
