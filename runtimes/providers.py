"""Where a network runs: a person's word for each of ONNX Runtime's providers, and the options that keep
there what is promised of a file.

Nothing but the CPU's has been run: the others follow ONNX Runtime's documentation and source.
"""

import os
from pathlib import Path

from .modelfile import ModelFile

Provider = tuple[str, dict[str, str]]  # ONNX Runtime's name and its options


def chain(word: str, file: ModelFile, version: str) -> list[Provider]:
    """The providers of a file's session: the asked one, then those that take what it leaves over.

    version: ONNX Runtime's. A session lists a provider when it could be loaded, not when it has nodes: that
    the first one is listed says that CUDA or TensorRT is installed, not that all of a graph is there.
    Raises ValueError where TensorRT's engines cannot be kept.
    """
    name, options = PROVIDERS[word]
    if word == "cuda" and file.form == "unrolled":
        # no control flow and every size known: the first run is recorded, each later one is one launch
        options = options | {"enable_cuda_graph": "1"}
    if word == "tensorrt":
        # the only way to keep TensorRT from TF32, and only before CUDA is first used in the process
        tf32 = os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        folder = str(engines() / f"{file.digest[:32]}-{version}-tf32-{tf32}")
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{folder}: expected a folder for TensorRT's engines, got {error.strerror}; "
                "set XDG_CACHE_HOME to a folder that can be written to"
            ) from None
        options = options | {"trt_engine_cache_path": folder, "trt_timing_cache_path": folder}
    return [(name, options), *(PROVIDERS[rest] for rest in RESTS.get(word, ("cpu",)))]


def engines() -> Path:
    """Where TensorRT's engines are kept: in the user's cache, a folder for each file and version.

    TensorRT names an engine by the names in a graph, not by its weights: two runs of one network would get
    one engine, and the second the first one's samples.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toolkit" / "engines"


PROVIDERS: dict[str, Provider] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": (
        "CUDAExecutionProvider",
        {
            # on by default, and then what is multiplied is rounded to 11 bits: no longer what torch computed
            "use_tf32": "0",
            # by default every algorithm is timed for every new batch, and which one wins is chance
            "cudnn_conv_algo_search": "HEURISTIC",
        },
    ),
    "tensorrt": (
        "TensorrtExecutionProvider",
        {
            # building takes minutes; an engine is built again when a batch lies outside what it has seen
            "trt_engine_cache_enable": "True",
            "trt_timing_cache_enable": "True",
        },
    ),
    "coreml": ("CoreMLExecutionProvider", {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}),
    "directml": ("DmlExecutionProvider", {}),
}
RESTS: dict[str, tuple[str, ...]] = {"cpu": (), "tensorrt": ("cuda", "cpu")}  # else the CPU
