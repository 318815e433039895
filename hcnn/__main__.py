"""Every command under one name: `python -m hcnn train --preset sample`, or `hcnn train` once it is installed."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from pathlib import Path

from hcnn._siblings import claim

COMMANDS = {
    "train": ("train.cifar", "train a network, or go on with one"),
    "describe": ("train.describe", "print a network as a table of its layers"),
    "augmented": ("train.augmented", "draw images as training sees them"),
    "evaluate": ("train.evaluate", "accuracy, loss and confusion of a network on test images"),
    "predict": ("train.predict", "classify pictures in files and folders by a network"),
    "export": ("train.export", "write a network alone: .h5, .safetensors or .onnx"),
    "report": ("train.report", "write the report of a run anew"),
    "plot": ("train.plot", "draw the learning curve of a run"),
    "verify": ("train.verify", "verify Proposition 3.1 on a network"),
    "explore": ("train.explore", "show what the attributes of a network mean"),
    "compare": ("train.compare", "compare runs in a table and a picture"),
    "sweep": ("train.sweep", "train a network for each of many settings"),
    "wisdom": ("hcnn_core.plans", "show or forget which convolutions were measured"),
    "warmup": ("hcnn_core.warmup", "compile the kernels before they are needed"),
}


def main() -> int:
    """Run the command that the first argument names."""
    called = "hcnn" if Path(sys.argv[0]).stem == "hcnn" else "python -m hcnn"
    name, rest = sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[2:]
    if name in ("-h", "--help"):
        return _say(_help(called))
    if name == "--version":
        from hcnn import __version__

        return _say(f"hcnn {__version__}")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        problem = f"{name!r} is no command" if name else "no command is given"
        meant = f" (did you mean {near[0]}?)" if near else ""
        print(f"hcnn: {problem}{meant}; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    sys.argv = [f"{called} {name}", *rest]
    claim("train")
    return int(importlib.import_module("train.commands.console").run(COMMANDS[name][0]))


def _say(text: str) -> int:
    """Print a text, and return the exit status: 1 where nobody reads it any more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush when the interpreter ends
        return 1
    return 0


def _help(called: str) -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items())
    flags = f"{called} COMMAND --help lists a command's flags, {called} --version the version."
    return f"usage: {called} COMMAND ...\n\n{commands}\n\n{flags}"


if __name__ == "__main__":
    sys.exit(main())
