"""Translations that change what they should not, or cannot help changing, with all that is needed to see it again.

An HDF5 file, readable with h5py alone: /networks/N holds a network's configuration, weights and moments, /cases/N
the array x_j, the logits (or x_{j+1}) found and expected, and as attributes the row of the verification's table.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import tree_map
from hcnn_core.backend import to_numpy
from train.config import ConfigError, make_config, with_defaults
from train.networks.registry import build
from train.runs.checkpoint import CheckpointError, require_same_arrays
from train.runs.memory import require_weights
from train.storage.files import write_atomically
from train.storage.hdf5 import LIBVER, opened, read_array, unreadable, write_array
from train.verification.complex import ComplexNetwork, build_complex
from train.verification.covariance import KINDS, MODES, STATEMENTS, Example, Row, Subject, axes

SCHEMA = 1


def save(path: Path, cases: Sequence[tuple[Subject, Example]]) -> None:
    """Write counterexamples."""
    import h5py

    subjects: list[Subject] = []
    image = io.BytesIO()
    with h5py.File(image, "w", libver=LIBVER) as file:
        file.attrs["counterexamples"] = SCHEMA
        for number, (subject, example) in enumerate(cases):
            if not any(subject is known for known in subjects):
                _write_subject(file.create_group(f"networks/{len(subjects)}"), subject)
                subjects.append(subject)
            case = file.create_group(f"cases/{number:03d}")
            case.attrs["network"] = next(i for i, known in enumerate(subjects) if known is subject)
            case.attrs["row"] = json.dumps(dataclasses.asdict(example.row))
            arrays = {"x": to_numpy(example.x), "found": example.found, "expected": example.expected}
            for name, array in arrays.items():
                write_array(case, name, array)
    write_atomically(path, image.getvalue())


def load(path: Path, xp: Any) -> Iterator[tuple[Subject, Row, Any]]:
    """Read counterexamples, one after another."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory; name the file of counterexamples in it")
    if not path.is_file():
        raise CheckpointError(f"there is no file of counterexamples at {path}")
    try:
        with opened(path) as file:
            if file.attrs.get("counterexamples") != SCHEMA:
                raise CheckpointError(f"{path} holds no counterexamples that this version of train.verify wrote")
            subjects = [_read_subject(path, file[f"networks/{i}"], xp) for i in range(len(file["networks"]))]
            cases = [_read_case(path, case, subjects, xp) for case in file["cases"].values()]
    except (CheckpointError, ConfigError, MemoryError):
        raise
    except Exception as error:  # h5py and what reads a damaged file fail in many ways
        if why := unreadable(error):
            raise CheckpointError(f"cannot read {path}: {why}") from error
        raise CheckpointError(
            f"{path} is no whole file of counterexamples: truncated, damaged or of another program"
        ) from error
    yield from cases


def _read_case(path: Path, case: Any, subjects: Sequence[Subject], xp: Any) -> tuple[Subject, Row, Any]:
    """One case, refused unless its row is one of its network and x_j has the shape of that layer."""
    subject, x = subjects[case.attrs["network"]], read_array(case["x"])
    row, table = Row.from_json(json.loads(case.attrs["row"])), subject.table
    shape = table[0].inputs if row.j == 0 else table[row.j - 1].outputs
    known = row.statement in STATEMENTS and row.mode in MODES and row.kind in KINDS and len(row.errors) == 1
    if not known or row.axis not in [axis.name for axis in axes(table, row.j)] or x.shape[1:] != shape:
        raise CheckpointError(f"{path}: {case.name} is no row of its network, or its x is not x_{row.j}")
    return subject, row, xp.asarray(x)


def _write_subject(group: Any, subject: Subject) -> None:
    network = subject.network
    group.attrs["config"] = json.dumps(vars(network.config))
    group.attrs["image_shape"] = network.image_shape
    group.attrs["classes"] = network.classes
    group.attrs["complex"] = isinstance(network, ComplexNetwork)
    for layer, arrays in subject.parameters.items():
        for name, array in arrays.items():
            write_array(group, f"parameters/{layer}/{name}", to_numpy(array))
    for layer, arrays in subject.moments.items():
        for name, array in arrays.items():
            write_array(group, f"moments/{layer}/{name}", to_numpy(array))
    write_array(group, "images", to_numpy(subject.images))


def _read_subject(path: Path, group: Any, xp: Any) -> Subject:
    config = json.loads(group.attrs["config"])
    kind = build_complex if group.attrs["complex"] else build
    settings = make_config(config.pop("preset"), with_defaults(config))
    if "image_shape" in group.attrs:
        *lengths, channels = map(int, group.attrs["image_shape"])
    else:  # of a file that is older than networks for other images
        *lengths, channels = 2 * (int(group.attrs["image_size"]),) + (3,)
    table = settings, tuple(lengths), int(group.attrs["classes"]), channels
    require_weights(*table)
    network = kind(*table)
    parameters, moments = (
        {
            layer: {name: np.asarray(read_array(a)) for name, a in arrays.items()}
            for layer, arrays in group[tree].items()
        }
        for tree in ("parameters", "moments")
    )
    require_same_arrays(path, parameters, network.initialize(np.random.default_rng(0)), "parameters")
    require_same_arrays(path, moments, network.initial_moments(), "moments")
    return Subject(
        network,
        {layer: {name: xp.asarray(a) for name, a in arrays.items()} for layer, arrays in parameters.items()},
        tree_map(xp.asarray, moments),
        xp.asarray(read_array(group["images"])),
    )
