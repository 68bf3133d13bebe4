"""Model weights: the table of published files, and locating, identifying and downloading them.

table       the published files: URL, size, SHA-256, licence
folder      the folder of weights
weights     the weights that a part uses: locating, identifying and reading a file
parts       what a part that runs a model declares: its weights, its device, its precision
download    downloading a published file
record      the SHA-256 of a first download, where none is published
slimming    reducing a file to its weights
hub         downloading a file from huggingface.co
__main__    python -m aot.checkpoints
"""

from aot.checkpoints.folder import FOLDER_VARIABLE, weights_folder
from aot.checkpoints.parts import (
    UsesDevice,
    UsesPrecision,
    UsesWeights,
    available_bytes,
    device_name_of,
    precisions_of,
    weights_of,
)
from aot.checkpoints.table import CHECKPOINTS, Checkpoint
from aot.checkpoints.weights import Weights, identify, read_state_dict, require_checkpoint

__all__ = [
    "CHECKPOINTS",
    "FOLDER_VARIABLE",
    "Checkpoint",
    "UsesDevice",
    "UsesPrecision",
    "UsesWeights",
    "Weights",
    "available_bytes",
    "device_name_of",
    "identify",
    "precisions_of",
    "read_state_dict",
    "require_checkpoint",
    "weights_folder",
    "weights_of",
]
