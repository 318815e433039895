"""Write a network alone: `python -m hcnn export NETWORK FILE`."""

import argparse
import os
import re

from train.commands.command_line import NETWORK, Parser, command, given_path, say
from train.config import ConfigError
from train.runs import checkpoint as checkpoints
from train.runs.export import write_safetensors
from train.runs.onnx import write_onnx
from train.runs.run import RunError, versions
from train.runs.shipped import bare, recorded
from train.runs.trained import open_latest
from train.storage.files import remove_partial_files


def _arguments(parser: Parser) -> None:
    parser.add_argument("network", type=given_path, metavar="NETWORK", help=NETWORK)
    parser.add_argument("file", type=given_path, metavar="FILE", help="new file; its ending says which form")


@command(_arguments, "export a smaller network")
def main(options: argparse.Namespace) -> None:
    """Write a network alone.

    Weights and moments go to a .h5; what they fold into, merged 4D filters and biases, to a .safetensors; ordinary
    convolutions to a .onnx.
    """
    target = options.file
    path, checkpoint = open_latest(options.network, say)
    if os.path.lexists(target):
        raise RunError(f"{target} is there already; name a new file")
    remove_partial_files(target.parent, re.escape(target.name))  # of an export that was killed
    if target.suffix == ".safetensors":
        write_safetensors(target, path, checkpoint)
    elif target.suffix == ".onnx":
        write_onnx(target, path, checkpoint)
    elif target.suffix == ".h5":
        checkpoints.save(target, bare(checkpoint, recorded(path, checkpoint)), versions("numpy"))
    else:
        raise ConfigError(f"{target} ends in none of .h5 (weights, moments), .safetensors (filters) and .onnx")
    say(str(target))
