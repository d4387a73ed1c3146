"""Whether Qualcomm's compiler takes a model file for the NPU whole, on a Linux x86-64 without one.

    python -m venv npu && npu/bin/pip install onnxruntime onnx
    npu/bin/pip install --no-deps onnxruntime-qnn==2.7.0        # 243 MB
    npu/bin/python examples/npu.py digits-unrolled.onnx digits-npu.onnx

The compiler's parts become EPContext nodes in the second file. One part and nothing else is what the
form unrolled is for. This shows that it compiles, not how fast or how exactly it runs: the NPU
computes in float16.
"""

import sys
from pathlib import Path

import onnx
import onnxruntime
import onnxruntime_qnn

TARGET = {"htp_arch": "75", "soc_model": "57", "enable_htp_fp16_precision": "1"}


def compiled(model: Path, out: Path) -> None:
    """Write `model` with what the compiler takes of it compiled."""
    library = Path(onnxruntime_qnn.get_library_path())
    onnxruntime.register_execution_provider_library("qnn", str(library))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == "qnn"]
    backend = {"backend_path": str(library.parent / "libQnnHtp.so"), **TARGET}
    options.add_provider_for_devices(devices[:1], backend)
    for key, value in (("enable", "1"), ("embed_mode", "1"), ("file_path", str(out))):
        options.add_session_config_entry(f"ep.context_{key}", value)
    onnxruntime.InferenceSession(str(model), options)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    compiled(source, target)
    if not target.exists():
        sys.exit(
            f"error: {source}: expected nodes that the compiler takes, got none; fix its sizes"
        )
    nodes = onnx.load_model_from_string(target.read_bytes()).graph.node
    parts = sum(node.op_type == "EPContext" for node in nodes)
    print(f"{target}: {parts} compiled parts, {len(nodes) - parts} nodes left to the CPU")
