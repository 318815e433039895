"""Translations that change what they should not, or cannot help changing, with all that is needed to see it again.

An HDF5 file, readable with h5py alone: /networks/N holds a network's configuration, weights and moments, /cases/N
the array x_j, the logits (or x_{j+1}) found and expected, and as attributes the row of the verification's table.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hcnn_core._backend import to_numpy
from train._files import write_atomically
from train.checkpoint import CheckpointError
from train.config import ConfigError, make_config
from train.covariance import ComplexNetwork, Example, Row, Subject
from train.network import Network

SCHEMA = 1


def save(path: Path, cases: Sequence[tuple[Subject, Example]]) -> None:
    """Write counterexamples.

    Parameters
    ----------
    path : Path
        HDF5 file to write.
    cases : sequence of (Subject, Example)
        What was measured, of which network; a network that several share is written once.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    import h5py

    subjects: list[Subject] = []
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
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
                case.create_dataset(name, data=array)
        file.flush()
        image = file.id.get_file_image()
    write_atomically(path, image)


def load(path: Path, xp: Any) -> Iterator[tuple[Subject, Row, Any]]:
    """Read counterexamples, one after another.

    Parameters
    ----------
    path : Path
        A file written by `save`.
    xp : module
        Namespace of the arrays.

    Yields
    ------
    tuple
        (network with weights, row as it was measured, x_j).

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or holds no counterexamples.
    """
    import h5py

    if not path.is_file():
        raise CheckpointError(f"there is no file of counterexamples at {path}")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("counterexamples") != SCHEMA:
                raise CheckpointError(f"{path} holds no counterexamples that this version of train.verify wrote")
            subjects = [_read_subject(file[f"networks/{i}"], xp) for i in range(len(file.get("networks", ())))]
            cases = [
                (subjects[case.attrs["network"]], _row(json.loads(case.attrs["row"])), xp.asarray(case["x"][...]))
                for case in file.get("cases", {}).values()
            ]
    except (CheckpointError, ConfigError):
        raise
    except Exception as error:  # h5py and what reads a damaged file fail in many ways
        raise CheckpointError(
            f"{path} is no whole file of counterexamples: truncated, damaged or of another program"
        ) from error
    yield from cases


def _row(values: dict[str, Any]) -> Row:
    """A row from JSON, which has lists for tuples."""
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Row(**fields)


def _write_subject(group: Any, subject: Subject) -> None:
    network = subject.network
    group.attrs["config"] = json.dumps(vars(network.config))
    group.attrs["image_size"] = network.table[0].inputs[0]
    group.attrs["classes"] = network.classes
    group.attrs["complex"] = isinstance(network, ComplexNetwork)
    for layer, arrays in subject.parameters.items():
        for name, array in arrays.items():
            group[f"parameters/{layer}/{name}"] = to_numpy(array)
    for layer, (mean, covariance) in subject.moments.items():
        group[f"moments/{layer}/mean"] = to_numpy(mean)
        group[f"moments/{layer}/covariance"] = to_numpy(covariance)
    group["images"] = to_numpy(subject.images)


def _read_subject(group: Any, xp: Any) -> Subject:
    config = json.loads(group.attrs["config"])
    kind = ComplexNetwork if group.attrs["complex"] else Network
    return Subject(
        kind(make_config(config.pop("preset"), config), int(group.attrs["image_size"]), int(group.attrs["classes"])),
        {
            la: {n: xp.asarray(np.asarray(a[()])) for n, a in arrays.items()}
            for la, arrays in group["parameters"].items()
        },
        {
            layer: (xp.asarray(m["mean"][...]), xp.asarray(m["covariance"][...]))
            for layer, m in group.get("moments", {}).items()
        },
        xp.asarray(group["images"][...]),
    )
