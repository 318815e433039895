"""Print a digest of a few steps of every preset: two commits that print the same lines train alike.

``python scripts/step_bits.py [PRESET ...]``; run it in each checkout. Weights, moments, averages and what the optimiser
keeps are compared by bits, so on one machine alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
import tempfile
from pathlib import Path

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from train import cifar
from train.config import PRESETS

FLAGS = (
    *("--dataset", "sample", "--train-size", "10", "--batch-size", "4", "--epochs", "2", "--validation-size", "0"),
    *("--no-test", "--backend", "numpy"),
)
OTHERS = {
    "affine": ("--preset", "hcnn-fast", "--rotate", "0.5", "--shear", "0.4", "--zoom", "0.3", "--cutout", "8"),
    "mixup": ("--preset", "resnet20", "--mixup", "0.4", "--label-smoothing", "0.1", "--brightness", "0.2"),
    "adamw": ("--preset", "hcnn-fast", "--optimizer", "adamw", "--average-decay", "0.9"),
    "distilled": ("--preset", "hcnn-fast", "--teacher", "hcnn-fast"),
}
"""Recipes that no preset has."""


def digest(flags: tuple[str, ...]) -> str:
    """The digest of the arrays of a run's last checkpoint, by name."""
    digest = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(f"{name} {item.dtype} {item.shape}\n".encode() + item[()].tobytes())

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        out = Path(folder) / "run"
        if status := cifar.main([*flags, *FLAGS, "--out", str(out)]):
            return f"ended with {status}"
        with h5py.File(max(out.glob("epoch*.h5"))) as file:
            file.visititems(add)
    return digest.hexdigest()[:16]


def main() -> None:
    """Print a line for each preset, or for those that are named."""
    cases = {name: ("--preset", name) for name in PRESETS} | OTHERS
    for name in sys.argv[1:] or cases:
        print(f"{name:24} {digest(cases[name])}", flush=True)


if __name__ == "__main__":
    main()
