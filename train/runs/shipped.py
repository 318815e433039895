"""Networks that ship with the package, and where any trained network lies."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import tree_map
from train.config import Config, meant
from train.data.readers import is_data_file
from train.recipes.losses import TeacherSettings
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import Checkpoint, CheckpointError, State
from train.runs.run import Run, RunError
from train.storage.files import user_path

FOLDER = Path(__file__).parents[1] / "weights"


def list_networks() -> list[str]:
    """Return the names of the networks that ship with the package.

    Returns
    -------
    list of str
        What `load` and the commands take, in order.
    """
    return sorted(path.stem for path in FOLDER.glob("*.h5"))


def find(name_or_path: str | Path) -> Path:
    """Return the file of a network: the path itself if it exists, else the network that ships by this name."""
    path = user_path(name_or_path)
    if not path.exists() and str(name_or_path) in list_networks():
        return FOLDER / f"{name_or_path}.h5"
    if not path.exists() and not path.suffix:
        raise CheckpointError(
            f"there is no checkpoint at {path}{meant(name_or_path, list_networks())}; networks that ship: "
            f"{', '.join(list_networks()) or 'none'}"
        )
    if is_data_file(path):
        raise CheckpointError(f"{path} holds data, no network; give a run's folder, a checkpoint .h5 or a name")
    return path


def open_network(name_or_path: str | Path) -> tuple[Path, Checkpoint, list[str]]:
    """Return a network's checkpoint; for a run, the latest that is whole."""
    path = find(name_or_path)
    if not path.is_dir():
        return path, checkpoints.load(path), []
    try:
        return Run(path).latest()
    except RunError as error:
        raise CheckpointError(str(error)) from error


def recorded(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a network's test figures, from its file, or from the run that the file lies in."""
    state = checkpoint.state
    if checkpoint.figures or not state.optimizer or state.step:  # a run's state at the end of an epoch has no figures
        return checkpoint.figures
    with contextlib.suppress(RunError):  # a checkpoint alone says nothing of its test
        return Run(path.parent).test_figures(state.epoch)
    return {}


def card(path: Path) -> str:
    """Return the model card of a network that ships, Markdown; "" for any other network."""
    text = path.with_suffix(".md")
    return text.read_text(encoding="utf-8") if path.parent == FOLDER and text.is_file() else ""


def bare(checkpoint: Checkpoint, figures: dict[str, Any], dtype: str = "float32") -> Checkpoint:
    """Return a checkpoint for evaluation alone: weights, or their average, running moments and statistics."""
    state = checkpoint.state
    parameters, moments = tree_map(lambda a: np.asarray(a, dtype), (state.evaluated, state.moments))
    of_teachers = (f.name for f in TeacherSettings.added())
    here = ("init_from", "teacher", *of_teachers, "backend", "data_dir")  # no other machine has these
    unset = {name: getattr(Config, name) for name in here}
    return replace(
        checkpoint,
        state=State(parameters, {}, moments, dict(np.random.default_rng(0).bit_generator.state), epoch=state.epoch),
        config=replace(checkpoint.config, dtype=dtype, **unset),
        figures=figures,
        labels=None,
    )
