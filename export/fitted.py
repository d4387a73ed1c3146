"""Fitted tableaus into a model file that is there already: the same graph and notes, sealed anew."""

import os
from pathlib import Path

import onnx

from runtimes import modelfile, tableaus
from runtimes.files import refuse_existing, write_whole
from runtimes.tableaus import FITTED, Ready

from .forms import sealed


def with_fitted(
    file: modelfile.ModelFile,
    fitted: tuple[Ready, ...],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the model file with these tableaus beside its own; those of as many calls are replaced.

    The network is not touched, so its parity report stands. Raises FileExistsError.
    """
    refuse_existing(path, overwrite)
    calls = {one.steps for one in fitted}
    kept = [
        one
        for one in tableaus.from_json(file.metadata.get(modelfile.TABLEAUS_KEY, "[]"))
        if one.solver != FITTED or one.steps not in calls
    ]
    proto = onnx.ModelProto()
    proto.ParseFromString(file.content)
    notes = {key: text for key, text in file.metadata.items() if key != modelfile.SEAL_KEY}
    notes[modelfile.TABLEAUS_KEY] = tableaus.to_json((*kept, *fitted))
    return write_whole(path, sealed(proto, notes), overwrite=overwrite)
