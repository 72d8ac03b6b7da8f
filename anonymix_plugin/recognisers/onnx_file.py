"""Reads ONNX files of recognisers and frees them of what hinders running them in batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anonymix_plugin.errors import DamagedModelError
from anonymix_plugin.words import shown

if TYPE_CHECKING:
    import onnx


def read_onnx(source: Path | bytes) -> onnx.ModelProto:
    """Read a model with one input and one output, and let the batch have any size.

    Published files name their weights as inputs too, which keeps the runtime from folding them, or even
    name weights as inputs that are there in another form; and some fix the batch at one.

    Args:
        source: The content of the ONNX file, or its path; its hash has been checked.

    Returns:
        The model; its only input is the batch of crops.

    Raises:
        DamagedModelError: The file is no such model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

    try:
        model = onnx.load_model_from_string(source if isinstance(source, bytes) else source.read_bytes())
    except DecodeError as error:
        raise DamagedModelError("the file is no ONNX model", where=shown(source)) from error
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    weights = {weight.name for weight in graph.initializer}
    inputs = [item for item in graph.input if item.name in used and item.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise DamagedModelError(
            f"the graph has {len(inputs)} inputs and {len(graph.output)} outputs instead of one each",
            where=shown(source),
        )
    del graph.input[:]
    graph.input.extend(inputs)
    for item in (*graph.input, *graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "N"
    del graph.value_info[:]  # shapes of what lies between, all with the old size of the batch
    return model
