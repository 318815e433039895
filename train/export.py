"""Write a network alone: `python -m hcnn export NETWORK FILE`."""

import argparse
import os
import re
from collections.abc import Sequence

from train.commands.command_line import NETWORK, Parser, given_path, run_command, say
from train.config import ConfigError
from train.runs import checkpoint as checkpoints
from train.runs.export import write_safetensors
from train.runs.onnx import write_onnx
from train.runs.run import RunError, versions
from train.runs.session import opened
from train.runs.shipped import bare, recorded
from train.storage.files import remove_partial_files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return run_command(_parser(), arguments, _act, "export a smaller network")


def _act(options: argparse.Namespace) -> int:
    target = options.file
    path, checkpoint = opened(options.network, say)
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
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m train.export",
        description="Write a network alone: weights and moments to a .h5, what they fold into, merged 4D filters and "
        "biases, to a .safetensors, or a .onnx of ordinary convolutions.",
    )
    parser.add_argument("network", type=given_path, metavar="NETWORK", help=NETWORK)
    parser.add_argument("file", type=given_path, metavar="FILE", help="new file; its ending says which form")
    return parser
