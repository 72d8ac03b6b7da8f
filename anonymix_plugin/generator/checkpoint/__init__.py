"""Reading checkpoints of other people without running any code that is in them.

A pickle is a program: whoever unpickles a checkpoint in the usual way runs what its author put in. Here it is
interpreted by a machine that knows a short list of harmless instructions and names, and that builds nothing
but numbers, texts, lists, dictionaries and descriptions of tensors. One machine serves all formats: torch's
zip files, its older files, and plain pickles as NVIDIA writes them. Nothing is imported, nothing that is
callable ever comes out of the file, and no memory is set aside for data that is not in the file.
"""

from anonymix_plugin.generator.checkpoint._files import CheckpointFile, open_checkpoint
from anonymix_plugin.generator.checkpoint._machine import shown
from anonymix_plugin.generator.checkpoint._values import Array, Module, Tensor

__all__ = ["Array", "CheckpointFile", "Module", "Tensor", "open_checkpoint", "shown"]
