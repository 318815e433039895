"""Few samples of one's own: networks at their defaults beside an SVC, an MLP and a small CNN.

    python -m benchmarks.few run --data DIR     # every row that is not recorded yet; nothing is read twice
    python -m benchmarks.few table              # benchmarks/results/few.md

The protocol was written before the first run, and every row that it names is recorded, whatever it says.

- **Sets.** Three of pictures that this file draws: `shapes` (circle, square or triangle; 180 for training), `textures`
  (stripes, checks, dots or blobs; 120) and `counts` (one to four discs; 600), each with 1,000 fresh test pictures;
  `digits`, scikit-learn's, of which 300 rows of each seed's draw are for training and the others for the test; and
  `OSULeaf`, 200 and 242 series by its official split, from DIR/OSULeaf_TRAIN.ts and DIR/OSULeaf_TEST.ts, which aeon's
  wheel holds (`pip download --no-deps aeon`, then unzip). No network of this package has read its test part before.
- **Seeds** 0 to 4. A seed draws the training samples, but for OSULeaf, and all that is random in a method.
- **hcnn** is `HCNNClassifier(random_state=seed)`; on digits with `flip` off, as docs/train.md says of digits.
- **Rivals** have the best settings of a grid by accuracy on three stratified folds of the training samples, the first
  of equals: `svc` on standardised values, radial, C of 1, 10, 100 and gamma of 0.1, 1, 10 over the number of values;
  `mlp` on standardised values and their first 16 or 64 principal components, 100 hidden units, alpha of 1e-4, 1e-2, 1;
  `cnn` in PyTorch, three times convolution (3 taps, 9 of signals), batch normalisation, ReLU and a maximum over 2, then
  means over space and a linear layer; width 16 or 32 that doubles each time, AdamW with a one-cycle rate of at most
  0.003 or 0.01, 1,000 steps of 32 samples, shifted by up to 2 samples, and batches mirrored at random where hcnn's are.
- **Aim**: on four sets of five no rival is better than hcnn by more than one standard error of the mean difference over
  seeds. ROCKET's recorded accuracy on OSULeaf stands beside.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "few.json"
PICTURES = {"shapes": (3, 180), "textures": (4, 120), "counts": (4, 600)}
SETS = (*PICTURES, "digits", "OSULeaf")
METHODS = "hcnn", "svc", "mlp", "cnn"
SIDE, TESTED, SEEDS = 32, 1000, range(5)
ROCKET = "93.9 +- 0.4 %"
"""Of OSULeaf, benchmarks/results/signals.md."""

Array = np.ndarray[Any, Any]
Split = tuple[Array, Array, Array, Array]


def drawn(name: str, count: int, seed: int) -> tuple[Array, Array]:
    """Return pictures, float32 (N, 32, 32, 3) between 0 and 1, and their classes, as many of each."""
    rng, classes = np.random.default_rng([seed, SETS.index(name)]), PICTURES[name][0]
    labels = rng.permutation(np.arange(count) % classes)
    v, u = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    pictures = []
    for label in labels:
        angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.3)
        place = rng.uniform(-0.15, 0.15, 2)
        a, b = u - place[0], v - place[1]
        a, b = a * np.cos(angle) + b * np.sin(angle), b * np.cos(angle) - a * np.sin(angle)
        if name == "shapes":
            triangle = np.maximum(
                np.maximum(b - scale / 2, -b / 2 + 0.866 * a - scale / 2), -b / 2 - 0.866 * a - scale / 2
            )
            mask = (a**2 + b**2 < scale**2, np.maximum(abs(a), abs(b)) < 0.85 * scale, triangle < 0)[label]
        elif name == "textures":
            waves = np.sin(a * np.pi / scale * 3), np.sin(b * np.pi / scale * 3)
            dots = waves[0] + waves[1] > 1
            noise = np.fft.ifft2(
                np.fft.fft2(rng.standard_normal(u.shape))
                * (np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIDE)] * 2)) < scale / 2)
            ).real
            mask = (waves[0] > 0, waves[0] * waves[1] > 0, dots, noise > 0)[label]
        else:
            centres: list[Array] = []
            while len(centres) <= label:
                centre = rng.uniform(-0.4, 0.4, 2)
                if all(np.hypot(*(centre - other)) > 0.22 for other in centres):
                    centres.append(centre)
            mask = np.any([(u - x) ** 2 + (v - y) ** 2 < rng.uniform(0.06, 0.1) ** 2 for x, y in centres], axis=0)
        colours = rng.uniform(0, 1, (2, 3))
        while abs(colours[0].mean() - colours[1].mean()) < 0.15:
            colours = rng.uniform(0, 1, (2, 3))
        pictures.append(np.where(mask[..., None], *colours) + 0.15 * rng.standard_normal((SIDE, SIDE, 3)))
    return np.clip(pictures, 0, 1).astype(np.float32), labels


def series(path: Path) -> tuple[Array, Array]:
    """Return the series of a .ts file of one channel, (N, T), and their labels."""
    lines = path.read_text().lower().split("@data\n")[1].split()
    values, labels = zip(*(line.rsplit(":", 1) for line in lines), strict=True)
    return np.array([row.split(",") for row in values], np.float32), np.array(labels, int)


def split(name: str, seed: int, data: Path) -> Split:
    """Return samples and classes of the training part and of the test part; axes of channels are last."""
    if name in PICTURES:
        return *drawn(name, PICTURES[name][1], seed), *drawn(name, TESTED, 1000)
    if name == "OSULeaf":
        parts = [series(data / f"{name}_{part}.ts") for part in ("TRAIN", "TEST")]
        (x, y), (a, b) = ((values[..., None], labels) for values, labels in parts)
        return x, y, a, b
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = digits.images[..., None].astype(np.float32)
    x, a, y, b = train_test_split(images, digits.target, train_size=300, stratify=digits.target, random_state=seed)
    return x, y, a, b


def predictor(method: str, name: str, seed: int, settings: dict[str, Any], size: int) -> Any:
    """Return an estimator that is not fitted yet; `size` is the number of values of a sample."""
    if method == "hcnn":
        from hcnn import HCNNClassifier

        return HCNNClassifier(random_state=seed, settings={"flip": False} if name == "digits" else None)
    if method == "cnn":
        from benchmarks.few_torch import Cnn

        return Cnn(seed=seed, mirrored=name in PICTURES, **settings)
    from sklearn.decomposition import PCA
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import SVC

    first = [FunctionTransformer(_flat), StandardScaler()]
    if method == "svc":
        return make_pipeline(*first, SVC(C=settings["C"], gamma=settings["gamma"] / size, random_state=seed))
    mlp = MLPClassifier(100, alpha=settings["alpha"], max_iter=1000, random_state=seed)
    return make_pipeline(*first, PCA(settings["components"], random_state=seed), mlp)


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


GRIDS: dict[str, list[dict[str, Any]]] = {
    "hcnn": [{}],
    "svc": [{"C": c, "gamma": g} for c, g in itertools.product((1, 10, 100), (0.1, 1, 10))],
    "mlp": [{"components": n, "alpha": a} for n, a in itertools.product((16, 64), (1e-4, 1e-2, 1))],
    "cnn": [{"width": w, "rate": r} for w, r in itertools.product((16, 32), (0.003, 0.01))],
}


def row(method: str, name: str, seed: int, data: Path) -> dict[str, Any]:
    """Choose settings on the training samples, fit, and read the test samples once."""
    from sklearn.model_selection import StratifiedKFold

    x, y, a, b = split(name, seed, data)
    begin, folds = time.perf_counter(), StratifiedKFold(3, shuffle=True, random_state=seed)

    def held_out(settings: dict[str, Any]) -> float:
        parts = [
            np.mean(predictor(method, name, seed, settings, x[0].size).fit(x[i], y[i]).predict(x[k]) == y[k])
            for i, k in folds.split(np.zeros(len(x)), y)
        ]
        return float(np.mean(parts))

    grid = GRIDS[method]
    chosen = max(grid, key=held_out) if len(grid) > 1 else grid[0]
    right = float(np.mean(predictor(method, name, seed, chosen, x[0].size).fit(x, y).predict(a) == b))
    return {"accuracy": round(right, 4), "settings": chosen, "seconds": round(time.perf_counter() - begin, 1)}


def run(data: Path) -> None:
    """Measure the rows that are not recorded yet; those of PyTorch where it is installed."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for seed, name, method in itertools.product(SEEDS, SETS, METHODS):
        key = f"{name} {method} {seed}"
        if key in found or (method == "cnn" and not find_spec("torch")):
            continue
        made = row(method, name, seed, data)
        found = (json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}) | {key: made}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(key, made, flush=True)


def table() -> str:
    """Return mean accuracies with standard deviations over seeds, and how far the best rival is ahead, as Markdown."""
    found, lines = json.loads(RESULTS.read_text()), ["| set | hcnn | svc | mlp | cnn | best rival minus hcnn |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name in SETS:
        values = {m: [found[k]["accuracy"] for s in SEEDS if (k := f"{name} {m} {s}") in found] for m in METHODS}
        cells = [
            f"{100 * statistics.fmean(v):.1f} +- {100 * statistics.stdev(v):.1f} % ({len(v)})" if len(v) > 1 else ""
            for v in values.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {_lead(values)} |")
    return "\n".join([*lines, "", f"ROCKET on OSULeaf, as recorded: {ROCKET}.", ""])


def _lead(values: dict[str, list[float]]) -> str:
    """Return the largest mean difference of a rival, with its standard error over seeds; nothing before all ran."""
    if any(len(v) < len(SEEDS) for v in values.values()):
        return ""
    leads = {m: 100 * np.subtract(values[m], values["hcnn"]) for m in METHODS[1:]}
    best = max(leads, key=lambda m: float(leads[m].mean()))
    apart = leads[best]
    return f"{apart.mean():+.1f} +- {apart.std(ddof=1) / len(apart) ** 0.5:.1f} ({best})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the files of OSULeaf")
    options = parser.parse_args()
    if options.action == "run":
        run(options.data)
    else:
        RESULTS.with_suffix(".md").write_text(text := table())
        print(text)


if __name__ == "__main__":
    main()
