"""Begin a run with the weights of another network."""

from __future__ import annotations

from pathlib import Path

from autodiff import tree_map
from hcnn_core.backend import to_numpy
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import Checkpoint
from train.runs.training import Trainer


def begin_from(trainer: Trainer, path: Path, checkpoint: Checkpoint) -> list[str]:
    """Give a new run a network's weights and running moments; return the names of the layers that begin anew.

    These are the last layer and the head, where they tell other classes apart or the head is of another kind.
    CheckpointError if any other array has another shape.
    """
    config, state = trainer.config, trainer.state
    trees = {kind: tree_map(to_numpy, getattr(state, kind)) for kind in ("parameters", "moments")}
    weights = {"parameters": checkpoint.state.evaluated, "moments": checkpoint.state.moments}
    weights = tree_map(lambda a: a.astype(config.dtype), weights)
    redrawn: set[str] = set()
    own_kind = tuple(trainer.class_names), config.head, trainer.train.targets.kind
    if own_kind != (tuple(checkpoint.class_names), checkpoint.config.head, checkpoint.targets.kind):
        redrawn = {layer.name for layer in trainer.network.table if layer.tells_classes}
    for kind, tree in trees.items():
        taken = {name: arrays for name, arrays in weights[kind].items() if name not in redrawn}
        wanted = {name: arrays for name, arrays in tree.items() if name not in redrawn}
        checkpoints.require_same_arrays(path, taken, wanted, kind)
        setattr(state, kind, tree | taken)
    if config.average_decay:
        state.average = state.parameters
    trainer.to_device()
    return sorted(redrawn & trees["parameters"].keys(), key="head".__eq__)
