"""What something was measured on: the machine, and the versions of what took part."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runtimes import timing

PARTS = ("numpy", "onnxruntime", "torch", "diffusers", "openvino", "mlx")


def facts() -> dict[str, Any]:
    """For a reader of the numbers, as JSON takes it."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": timing.cores(),
        "versions": versions(),
    }


def processor() -> str:
    """What the processor calls itself, or nothing. On Linux platform.processor() says nothing."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """Of Python, and of everything that is loaded."""
    loaded = [name for name in PARTS if name in sys.modules]
    return {"python": platform.python_version(), **{name: _version(name) for name in loaded}}


def _version(name: str) -> str:
    """Of a module, whatever its package is called: onnxruntime-gpu is an onnxruntime too."""
    return str(getattr(sys.modules[name], "__version__", "")) or version(name)
