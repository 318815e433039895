"""Weights in the layout of the authors' program: the network computes what theirs does, written out by plain sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from train.import_keras import EPSILON, import_keras, main
from train.networks.network import Network
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import CheckpointError
from train.runs.training import restore

Array = np.ndarray[Any, Any]


def write_keras(path: Path, width: int = 4, factors: int = 8, depth: int = 12, taps: tuple[int, int] = (7, 11)) -> Any:
    """Random weights in the layout of Keras 1's save_weights, by layer in order, and the same as lists of arrays."""
    rng = np.random.default_rng(0)

    def normalization(count: int) -> list[Array]:
        gamma, beta, mean = rng.uniform(0.5, 1.5, count), *rng.standard_normal((2, count)) * 0.3
        return [gamma, beta, mean, rng.uniform(0.5, 1.5, count)]

    def filters(*shape: int) -> list[Array]:
        return [rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))]

    layers = [filters(3, 3, 3, width), normalization(width), filters(3, 3, taps[1], 1, width), normalization(width)]
    for _ in range(3, depth):
        layers += [filters(3, 3, 1, factors), normalization(factors)]
        layers += [filters(*taps, factors, width), normalization(width)]
    layers.append([*filters(width, 10), rng.standard_normal(10)])
    layers = [[a.astype(np.float32) for a in arrays] for arrays in layers]
    names = []
    with h5py.File(path, "w") as file:
        for index, arrays in enumerate([[], *layers]):
            kind = "input" if not arrays else "dense" if len(arrays) == 2 else "layer"
            names.append(f"{kind}_{index}".encode())
            group = file.create_group(names[-1])
            group.attrs["weight_names"] = [f"{kind}_{index}_{n}:0".encode() for n in range(len(arrays))]
            for name, array in zip(group.attrs["weight_names"], arrays, strict=True):
                group[name] = array
        file.attrs["layer_names"] = names
    return layers


def same(x: Array, w: Array, axes: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """TensorFlow's correlation, padding "same", of x (..., in) along axes by w (*taps, in, out)."""
    starts = []
    for axis, n, r in zip(axes, w.shape, strides, strict=False):
        more = max((-(-x.shape[axis] // r) - 1) * r + n - x.shape[axis], 0)
        x = np.pad(x, [(more // 2, more - more // 2) if a == axis else (0, 0) for a in range(x.ndim)])
        starts.append(range(0, x.shape[axis] - n + 1, r))
    result: Any = 0
    for tap in np.ndindex(*w.shape[: len(axes)]):
        part = x
        for axis, t, places in zip(axes, tap, starts, strict=True):
            part = np.take(part, [p + t for p in places], axis)
        result = result + part @ w[tap]
    return np.asarray(result)


def normalized(y: Array, arrays: list[Array]) -> Array:
    gamma, beta, mean, variance = (a.astype(float) for a in arrays)
    y = (y - mean) / np.sqrt(variance + EPSILON) * gamma + beta
    return np.where(y > 0, y, np.expm1(np.minimum(y, 0)))


def oracle(x: Array, layers: list[list[Array]]) -> Array:
    """The authors' network in evaluation, in double precision."""
    wide = [[a.astype(float) for a in arrays] for arrays in layers]
    x = normalized(same(x, wide[0][0], (1, 2), (1, 1)), wide[1])
    x = normalized(same(x[..., None], wide[2][0], (1, 2, 3), (1, 1, 2)), wide[3])
    for j, index in enumerate(range(4, len(wide) - 1, 4), start=3):
        space = (2, 2) if j in (4, 8) else (1, 1)
        x = normalized(same(x[..., None], wide[index][0], (1, 2), space), wide[index + 1])
        x = normalized(same(x, wide[index + 2][0], (3, 4), (2, 2)), wide[index + 3])
        x = x.mean(axis=3)
    w, bias = wide[-1]
    return np.asarray(x.mean(axis=(1, 2, 3)) @ w + bias)


@pytest.mark.parametrize("changes", [{}, {"taps": (3, 5), "depth": 6}], ids=["as released", "smaller"])
def test_network_computes_what_theirs_does(tmp_path: Path, changes: Any) -> None:
    layers = write_keras(tmp_path / "theirs.h5", **changes)
    checkpoint = import_keras(tmp_path / "theirs.h5")
    network, parameters, moments = restore(tmp_path, checkpoint, checkpoint.config, np)
    x = np.random.default_rng(1).standard_normal((2, 32, 32, 3)).astype(np.float32)
    found, expected = network(parameters, x, moments)[0], oracle(x.astype(float), layers)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert expected.std() > 0.1


def test_released_network_has_as_many_numbers(tmp_path: Path) -> None:
    layers = write_keras(tmp_path / "theirs.h5", width=16, factors=32)
    kept = [arrays[:2] if len(arrays) == 4 else arrays for arrays in layers]  # Keras trains no means and variances
    assert sum(a.size for arrays in kept for a in arrays) == 360_522
    assert import_keras(tmp_path / "theirs.h5").config.preset == "released"
    from train.config import make_config
    from train.networks.registry import build

    assert "360,522" in build(make_config("released"), 32, 10).describe()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_keras(tmp_path / "theirs.h5", depth=5)
    out = tmp_path / "ours.h5"
    assert main([str(tmp_path / "theirs.h5"), str(out)]) == 0
    assert isinstance(restore(out, checkpoints.load(out), checkpoints.load(out).config, np)[0], Network)
    assert main([str(tmp_path / "theirs.h5"), str(out)]) == 1
    assert "is there already" in capsys.readouterr().err


def damaged(path: Path, kind: str) -> None:
    write_keras(path, depth=5, width=6 if kind == "width 6" else 4)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:3000])
        return
    if kind == "text":
        path.write_text("weights")
        return
    with h5py.File(path, "r+") as file:
        names = list(file.attrs["layer_names"])
        match kind:
            case "no names":
                del file.attrs["layer_names"]
            case "a layer less":
                file.attrs["layer_names"] = file.attrs["layer_names"][:-1]
            case "two layers less":
                file.attrs["layer_names"] = names[:3] + names[5:]
            case "missing group":
                del file[names[3]]
            case "not finite":
                group = file[names[1]]
                group[group.attrs["weight_names"][0]][...] = np.nan
            case "text for numbers":
                group = file[names[1]]
                name = group.attrs["weight_names"][0]
                del group[name]
                group[name] = b"abc"
            case "a number for filters":
                group = file[names[-1]]
                name = group.attrs["weight_names"][0]
                del group[name]
                group[name] = 1.0


@pytest.mark.parametrize(
    "kind, words",
    [
        ("cut", "truncated"),
        ("text", "not a whole file of weights"),
        ("no names", "save_weights"),
        ("a layer less", "another network"),
        ("width 6", "width 6, no multiple of 4"),
        ("two layers less", "another network"),
        ("missing group", "not a whole file"),
        ("not finite", "not finite"),
        ("text for numbers", "not a whole file"),
        ("a number for filters", "another network"),
    ],
)
def test_what_cannot_be_read_is_refused_by_one_line(tmp_path: Path, kind: str, words: str) -> None:
    damaged(tmp_path / "theirs.h5", kind)
    with pytest.raises(CheckpointError, match=words) as caught:
        import_keras(tmp_path / "theirs.h5")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        import_keras(Path("nowhere.h5"))
