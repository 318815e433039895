"""Networks as safetensors files: the filters and biases they fold into at evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from train.extras import require_installed
from train.networks.registry import MERGED_FILTERS, architecture_of
from train.runs.checkpoint import Checkpoint, CheckpointError
from train.runs.run import writing
from train.runs.training import restore
from train.storage.files import write_atomically


def write_safetensors(target: Path, source: Path, checkpoint: Checkpoint) -> None:
    """Write the merged weights of a checkpoint, by names such as layer03.w, with its configuration."""
    architecture = architecture_of(checkpoint.config)
    if MERGED_FILTERS in architecture.lacks:
        raise CheckpointError(f"{architecture.title} has no filters to merge: export .h5")
    if checkpoint.config.scattering:
        raise CheckpointError("this network filters scattering coefficients, which no merged filter makes: export .h5")
    require_installed("safetensors", extra="safetensors")
    from safetensors.numpy import save

    network, parameters, moments = restore(source, checkpoint, checkpoint.config, np)
    tensors = {
        f"{layer}.{name}": np.ascontiguousarray(array)
        for layer, arrays in network.merged(parameters, moments).items()
        for name, array in arrays.items()
    }
    tensors |= {"data.channel_mean": checkpoint.channel_mean, "data.channel_std": checkpoint.channel_std}
    if (targets := checkpoint.targets).mean is not None:
        tensors |= {"data.target_mean": targets.mean, "data.target_std": targets.std}
    metadata = {
        "targets": targets.kind,
        "config": json.dumps(vars(checkpoint.config)),
        "class_names": json.dumps(checkpoint.class_names),
        "convention": "convolution, not correlation; axes of w: (colours or none), u1, u2, v_{j-2}, v_{j-1}, v_j",
    }
    with writing(target):
        write_atomically(target, save(tensors, metadata=metadata))
