"""Checkpoints: there and back, readable by others, whole or absent, and what a damaged one says."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.train import runs
from tests.train.runs import digest_of
from train.config import make_config
from train.networks.registry import build
from train.runs import checkpoint as checkpoint_file
from train.runs.checkpoint import (
    SCHEMA,
    Checkpoint,
    CheckpointError,
    State,
    UnreadableError,
    load,
    require_same_arrays,
    save,
)
from train.runs.run import Run, RunError
from train.storage import files as _files
from train.storage.hdf5 import read_array

GROUPS = ("parameters", "optimizer/velocity", "moments")
SCALARS = ("epoch", "step", "loss_sum", "seconds", "best")
NAMED = (("parameters", "g"), ("optimizer/velocity", "g"), ("moments", "covariance"))  # arrays of layer 3
OTHER = "not a whole checkpoint: truncated, damaged or of another program"
CLASSES = tuple(f"class {i} é" for i in range(10))


def made(seed: int = 0, dtype: str = "float32", **changes: Any) -> Checkpoint:
    """The checkpoint of a small network in the middle of an epoch, every number of it random."""
    rng = np.random.default_rng(seed)
    settings = {"width": 4, "factors": 3, "depth": 5, "dtype": dtype, "data_dir": 'a "b"\nc', **changes}
    config = make_config("sample", settings)
    network = build(config)

    def noise(tree: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {
            layer: {name: np.asarray(rng.standard_normal(np.shape(a)), dtype) for name, a in arrays.items()}
            for layer, arrays in tree.items()
        }

    parameters = network.initialize(rng)
    moments = network.initial_moments()
    state = State(noise(parameters), {"velocity": noise(parameters)}, noise(moments), dict(rng.bit_generator.state))
    numbers: dict[str, Any] = {"epoch": 3, "step": 2, "metrics": {"accuracy": 7.0}, "seconds": 0.1, "best": -1.5}
    state = dataclasses.replace(state, order=rng.permutation(50), loss_sum=rng.random(), **numbers)
    return Checkpoint(state, config, CLASSES, (32, 32, 3), rng.random(3), rng.random(3))


def tree_of(state: State, group: str) -> Any:
    """Arrays of a group by layer and name."""
    kind, _, part = group.partition("/")
    return getattr(state, kind)[part] if part else getattr(state, kind)


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    """Every number bit for bit, of the same dtype and shape."""
    for group in GROUPS:
        require_same_arrays(Path(group), tree_of(found.state, group), tree_of(expected.state, group), group)
        for layer, arrays in tree_of(expected.state, group).items():
            for name, array in arrays.items():
                assert np.asarray(tree_of(found.state, group)[layer][name]).tobytes() == array.tobytes()
    assert found.state.order.dtype == np.int64
    np.testing.assert_array_equal(found.state.order, expected.state.order)
    for name in (*SCALARS, "generator", "metrics"):
        assert getattr(found.state, name) == getattr(expected.state, name)
    assert (found.config, found.class_names, found.image_shape) == (expected.config, expected.class_names, (32, 32, 3))
    np.testing.assert_array_equal(found.channel_mean, expected.channel_mean)
    np.testing.assert_array_equal(found.channel_std, expected.channel_std)


def refused(path: Path) -> str:
    """The one line with which a checkpoint is refused; it names the file."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "whole.h5"
    save(path, made(), {"numpy": "2.4"})
    return path


@pytest.mark.parametrize(
    "changes",
    [{}, {"dtype": "float64"}, {"head": "sum"}, {"nonlinear_factors": True}, {"dataset": "cifar100", "seed": 10**30}],
    ids=str,
)
def test_there_and_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    checkpoint = made(**changes)
    between = dataclasses.replace(checkpoint.state, step=0, order=np.zeros(0, np.int64), best=float("-inf"))
    for state in (checkpoint.state, between):
        saved = dataclasses.replace(checkpoint, state=state)
        save(tmp_path / "a.h5", saved, {})
        assert_same(load(tmp_path / "a.h5"), saved)


def test_a_restored_generator_draws_the_same_numbers(saved: Path) -> None:
    expected, found = np.random.default_rng(5), np.random.default_rng(6)
    expected.bit_generator.state = made().state.generator
    found.bit_generator.state = load(saved).state.generator
    np.testing.assert_array_equal(found.random(9), expected.random(9))


def test_readable_with_h5py_alone(saved: Path) -> None:
    checkpoint = made()
    with h5py.File(saved) as file:
        for group in GROUPS:
            tree = tree_of(checkpoint.state, group)
            assert file[group].keys() == tree.keys()
            for layer, arrays in tree.items():
                assert file[group][layer].keys() == arrays.keys()
                for name, array in arrays.items():
                    np.testing.assert_array_equal(file[group][layer][name][()], array)
                    assert file[group][layer][name].dtype == array.dtype
        np.testing.assert_array_equal(file["epoch/order"][...], checkpoint.state.order)
        np.testing.assert_array_equal(file["data/channel_mean"][...], checkpoint.channel_mean)
        np.testing.assert_array_equal(file["data/channel_std"][...], checkpoint.channel_std)
        assert [file.attrs[name] for name in SCALARS] == [getattr(checkpoint.state, name) for name in SCALARS]
        assert file.attrs["schema"] == SCHEMA and file.attrs["image_shape"].tolist() == [32, 32, 3]
        assert json.loads(file.attrs["generator"]) == checkpoint.state.generator
        assert json.loads(file.attrs["metrics"]) == {"accuracy": 7}
        assert json.loads(file.attrs["versions"]) == {"numpy": "2.4"}
        assert tuple(json.loads(file.attrs["class_names"])) == CLASSES
        settings = json.loads(file.attrs["config"])
        assert make_config(settings.pop("preset"), settings) == checkpoint.config
        assert file.attrs["digest"] == digest_of(file)


def test_saving_leaves_one_file_and_needs_no_other_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 makes the file in memory under a name that must not touch a file of that name in the working directory."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.h5").write_text("mine")
    monkeypatch.chdir(elsewhere)
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "a.h5", made(), {})
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["a.h5"]
    assert [(p.name, p.read_text()) for p in elsewhere.iterdir()] == [("a.h5", "mine")]


def full_disk(*arguments: Any, **options: Any) -> None:
    raise OSError(28, "No space left on device")


def interrupt(*arguments: Any, **options: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("failure", "error"), [(full_disk, CheckpointError), (interrupt, KeyboardInterrupt)], ids=["full", "interrupted"]
)
def test_failure_at_any_point_leaves_the_older_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch, function: str, failure: Callable[..., None], error: type[Exception]
) -> None:
    monkeypatch.setattr(_files.os, function, failure)
    with pytest.raises(error):
        save(saved, made(seed=1), {})
    monkeypatch.undo()
    assert_same(load(saved), made())
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_file_is_moved_in_place_only_when_it_is_on_the_disk(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        order.append("fsync")
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        order.append("replace")
        assert_same(load(source), made(seed=1))
        assert_same(load(target), made())
        replace(source, target)

    monkeypatch.setattr(_files.os, "fsync", watched_fsync)
    monkeypatch.setattr(_files.os, "replace", watched_replace)
    save(saved, made(seed=1), {})
    assert order == ["fsync", "replace", "fsync"]  # the file, the move, the directory
    assert_same(load(saved), made(seed=1))


def test_truncated_anywhere(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    path = tmp_path / "cut.h5"
    lengths = {0, 1, 7, 8, 95, 96, len(whole) // 2, len(whole) - 1, *range(100, len(whole), len(whole) // 40)}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        assert "not a whole checkpoint" in refused(path), length


def places_of(content: bytes, checkpoint: Checkpoint, digest: str) -> list[int]:
    """Places in a file that are read: settings, names, the generator, numbers, the digest, and arrays."""
    state = checkpoint.state
    texts = [vars(checkpoint.config), checkpoint.class_names, state.generator, {"numpy": "2.4"}]
    parts = [json.dumps(text).encode() for text in texts] + [
        digest.encode(),
        b"loss_sum",
        b"image_shape",
        b"channel_std",
    ]
    parts += [struct.pack("<d", number) for number in (state.loss_sum, state.seconds, state.best)]
    parts += [tree_of(state, group)["layer03"][name].tobytes()[:300] for group, name in NAMED]
    parts += [state.order.tobytes(), checkpoint.channel_mean.tobytes()]
    starts = [content.find(part) for part in parts]
    assert -1 not in starts and all(content.count(part) == 1 for part in parts)
    return [start + k for start, part in zip(starts, parts, strict=True) for k in range(len(part))]


def test_one_flipped_bit_in_what_is_read_is_always_noticed(saved: Path, tmp_path: Path) -> None:
    """HDF5 has no checksum of long strings: one bit of them turned a weight decay of 0.0002 into 0.8002."""
    whole, path, rng = saved.read_bytes(), tmp_path / "changed.h5", np.random.default_rng(1)
    with h5py.File(saved) as file:
        places = places_of(whole, made(), file.attrs["digest"])
    for place in rng.choice(places, 200, replace=False):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        assert "not a whole checkpoint" in refused(path), place


def test_other_content_than_its_digest_says_is_refused(saved: Path, tmp_path: Path) -> None:
    """Of files that HDF5 finds nothing wrong with: each attribute and each group of arrays counts."""
    with h5py.File(saved) as file:
        attributes = dict(file.attrs)
    changes = [set_attribute(name, SCALARS.index(name) - 0.25) for name in SCALARS]
    changes += [set_attribute(name, f"{text} ") for name, text in attributes.items() if isinstance(text, str)]
    changes += [set_attribute("note", "mine")]
    changes += [lambda file, name=name: file.attrs.__delitem__(name) for name in ("digest", "versions")]
    changes += [lambda file, name=name: file.__delitem__(name) for name in ("moments/layer03", "optimizer", "epoch")]
    changes += [lambda file: file["moments"].create_dataset("layer", data=3)]
    for number, change in enumerate(changes):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(saved.read_bytes())
        assert "not a whole checkpoint: damaged or changed" in refused(edited(path, change)), number


def test_a_count_of_right_images_alone_is_a_metric(saved: Path) -> None:
    def change(file: Any) -> None:
        del file.attrs["metrics"]
        file.attrs["correct"] = 11

    assert load(signed(saved, change)).state.metrics == {"accuracy": 11}


def edited(path: Path, change: Callable[[Any], None]) -> Path:
    """The file after a change by h5py."""
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def signed(path: Path, change: Callable[[Any], None]) -> Path:
    """The file after a change, its digest that of its new content: only its values tell what is wrong with it."""
    with runs.edited(path) as file:
        change(file)
    return path


def set_attribute(name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file.attrs[name] = value

    return change


def test_hdf5_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)
    assert "not a checkpoint" in refused(path)
    assert "not a whole checkpoint" in refused(edited(path, set_attribute("schema", SCHEMA)))
    assert "not a whole checkpoint" in refused(edited(path, set_attribute("schema", "one")))
    assert "not a whole checkpoint" in refused(edited(path, set_attribute("schema", [1, 2])))


@pytest.mark.parametrize("schema", [SCHEMA + 1, 2, 1, 0])
def test_another_schema(saved: Path, schema: int) -> None:
    message = refused(edited(saved, set_attribute("schema", schema)))
    assert f"schema {schema}" in message and f"reads schema {SCHEMA}" in message


def test_a_configuration_of_another_version(saved: Path) -> None:
    settings = json.dumps({**vars(made().config), "novelty": 1})
    assert "'novelty'" in refused(signed(saved, set_attribute("config", settings)))
    settings = json.dumps({**vars(made().config), "width": 0})
    assert "width is 0" in refused(signed(saved, set_attribute("config", settings)))


@pytest.mark.parametrize(
    "change",
    [
        *(set_attribute("config", text) for text in ("", "{", "[]", "3", "null", "{}")),
        set_attribute("generator", "{"),
        set_attribute("class_names", "3"),
        set_attribute("epoch", "three"),
        lambda file: file.attrs.__delitem__("best"),
        lambda file: file.__delitem__("epoch"),
        lambda file: file.__delitem__("data/channel_std"),
    ],
)
def test_an_inconsistent_file(saved: Path, change: Callable[[Any], None]) -> None:
    assert OTHER in refused(signed(saved, change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epoch", value) for value in (-1, -(2**63), 6, 10**9)),
        *(("step", value) for value in (-1, 3, 10**9)),
        *(("best", value) for value in (float("nan"), float("inf"), 1.5)),
        *(("metrics", json.dumps({"accuracy": value})) for value in (-1, 41, float("nan"))),
        *(("loss_sum", value) for value in (float("nan"), float("inf"), -1.0)),
        *(("seconds", value) for value in (-1.0, float("nan"))),
        *(("class_names", json.dumps(value)) for value in ([], ["a", "a"], ["a", 3], ["a", ""], {"a": 1, "": 2})),
        *(
            ("image_shape", value)
            for value in ((0, 32, 3), (32, -32, 3), (10**6, 32, 3), (32, 32, 32, 32, 3), (32, 32, 0))
        ),
        *(("generator", json.dumps(value)) for value in ({}, 3, {"bit_generator": "PCG64"})),
    ],
)
def test_a_number_no_run_can_have_written(saved: Path, name: str, value: Any) -> None:
    message = refused(signed(saved, set_attribute(name, value)))
    assert "not a checkpoint that a run can have written" in message and name in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch/order", np.arange(49)[::-1] + 1),
        ("epoch/order", np.zeros(50, int)),
        ("epoch/order", np.arange(50.0)),
        ("epoch/order", np.arange(50).reshape(5, 10)),
        *(
            (f"{group.replace('/', ' ', 1)}{'/' if '/' in group else ' '}layer03/{name}", np.full((1, 2), bad))
            for group, name in NAMED
            for bad in (np.nan, -np.inf)
        ),
        ("data/channel_mean", np.zeros(4)),
        ("data/channel_mean", np.full(3, -1.0)),
        ("data/channel_std", np.full(3, 256.0)),
        ("data/channel_mean", np.full(3, np.nan)),
        ("data/channel_std", np.array([1.0, 0.0, 1.0])),
        ("data/channel_std", np.array([1.0, -1.0, 1.0])),
    ],
)
def test_an_array_no_run_can_have_written(saved: Path, name: str, value: Any) -> None:
    def change(file: Any) -> None:
        del file[name.replace(" ", "/")]
        file[name.replace(" ", "/")] = value

    assert name in refused(signed(saved, change))


def test_an_array_larger_than_its_file_is_not_read(saved: Path) -> None:
    """Chunks that were never written take no room in a file, and terabytes in memory."""

    def change(file: Any) -> None:
        del file["optimizer/velocity/layer03/h"]
        file.create_dataset("optimizer/velocity/layer03/h", (10**6, 10**6), "f4", chunks=(10, 10))

    assert OTHER in refused(edited(saved, change))
    with h5py.File(saved) as file, pytest.raises(ValueError, match="larger than its file"):
        read_array(file["optimizer/velocity/layer03/h"])


def test_arrays_larger_than_their_file_together_are_not_read(saved: Path) -> None:
    """Twenty names of one array that compression makes small, or 2^17 names of a group."""

    def arrays(file: Any) -> None:
        file.create_dataset("moments/layer03/0", data=np.zeros(2**20, np.float32), compression="gzip")
        for number in range(1, 20):
            file[f"moments/layer03/{number}"] = file["moments/layer03/0"]

    def groups(file: Any) -> None:
        group = file["moments/layer03"]
        for _ in range(17):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner

    whole = saved.read_bytes()
    for change in (arrays, groups):
        saved.write_bytes(whole)
        assert OTHER in refused(edited(saved, change))


def test_missing_or_a_directory(tmp_path: Path) -> None:
    assert "there is no checkpoint" in refused(tmp_path / "absent.h5")
    assert "such as" in refused(tmp_path) and "best.h5" in refused(tmp_path)


def test_arrays_of_another_network() -> None:
    own, path = made().state.parameters, Path("run")
    require_same_arrays(path, own, made(seed=1).state.parameters, "parameters")
    for other in (
        made(width=5),
        made(factors=4),
        made(depth=6),
        made(head="sum"),
        made(dtype="float64"),
        made(attribute_kernel=(7, 9)),
    ):
        for found, expected in ((own, other.state.parameters), (other.state.parameters, own)):
            with pytest.raises(CheckpointError, match=r"run is of another network: parameters .* this one wants"):
                require_same_arrays(path, found, expected, "parameters")


def leave_open_for_writing(path: Path) -> None:
    """What a program leaves that ends while it has a file open for writing: HDF5's mark in the file."""
    code = "import h5py, os, sys; file = h5py.File(sys.argv[1], 'r+'); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_checkpoint_that_is_open_for_writing_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "best.h5"
    save(path, made(), {})
    leave_open_for_writing(path)
    with pytest.raises(UnreadableError, match="another program has it open for writing, or ended while it had"):
        load(path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EMFILE, errno.EACCES, errno.ENOMEM])
def test_what_the_system_refuses_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "best.h5"
    save(path, made(), {})

    def refusing(*args: Any, **options: Any) -> Any:
        raise OSError(code, "Unable to synchronously open file")

    monkeypatch.setattr(h5py, "File", refusing)
    with pytest.raises(UnreadableError, match=f"cannot read the checkpoint .*: {os.strerror(code)}$"):
        load(path)
    run = Run(tmp_path)
    with pytest.raises(RunError, match=os.strerror(code)):  # and is not set aside
        run.mend_best(0.5)
    assert path.is_file()


def test_memory_that_does_not_suffice_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.h5"
    save(path, made(), {})
    monkeypatch.setattr(checkpoint_file, "read_array", lambda item: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        load(path)


LOCKLESS = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = REFUSAL; return -1; }
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="compiles a library that stands for a file system")
@pytest.mark.parametrize("refusal", ["ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_reads_checkpoints(tmp_path: Path, refusal: str) -> None:
    """HDF5's own lock is refused as some network file systems refuse it, not Python's alone."""
    path, source, library = tmp_path / "best.h5", tmp_path / "flock.c", tmp_path / "flock.so"
    save(path, made(), {})
    source.write_text(LOCKLESS.replace("REFUSAL", refusal))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    code = "import sys, pathlib, h5py; from train.runs.checkpoint import load; load(pathlib.Path(sys.argv[1]))\n"
    code += "try: h5py.File(sys.argv[1], 'r', locking=True)\nexcept OSError: print('refused')"
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    found = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "refused\n"  # or this test would try nothing
