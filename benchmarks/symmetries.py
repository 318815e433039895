"""Plant a symmetry, and see whether learned attributes find it; results/symmetries/README.md has the protocol.

    python -m benchmarks.symmetries --out benchmarks/results/symmetries

A cyclic group of 16 turns a hidden circle. On the circle are two bumps, whose distance is the class; a random rotation
of R^16 hides it from the network, which is Eqs. (3), (4) and (5) of arXiv:1703.04140 without space: x_1(v_1) from 16
numbers, x_2(v_1, v_2) by periodic convolutions along v_1, and the sum over v_1, so that v_2 is the class. All networks
of an arm are trained side by side, as one more axis.
"""

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import binomtest

from autodiff import elu
from benchmarks import runner
from benchmarks.runner import Array, Row, Weights, append, command_line, descend, newcombe, publish, tables
from train.attributes.symmetry import Explained, translation_explains

SIZE, CLASSES = 16, 7
ELEMENTS = range(1, SIZE)
BATCH, STEPS, RATE, TESTED, ORDERS, EQUAL = 100, 4000, 0.01, 500, 99, 5


class Arm(NamedTuple):
    """What the networks of one arm are given, here and in circles.py."""

    layer: str = "natural"  # how v_1 is filtered: "natural" order, "other" order, "tied" by chance, or "dense"
    symmetric: bool = True  # whether turning the circle keeps the class
    given: bool = False  # whether the first layer shows the circle, and is not trained
    half: bool = False  # whether training sees the first bump on half of the circle only
    noise: float = 0.1
    samples: int = 2000
    steps: int = STEPS
    smooth: float = 0.0  # weight of the differences of neighbours along v_1, falling to 0
    annealed: float = 0.0  # width, in samples, of the blur of filters along v_1, falling to 0 at half time
    moved: bool = False  # whether x_1 is translated along v_1 by chance in each step
    group: bool = False  # whether x_1 is the group: translations of one trained filter
    width: int = SIZE  # samples along v_1
    stride: int = 1
    equal_power: bool = False  # whether frequencies 1 to 5 of a bump have the same power
    second: float = 1.0  # height of the second bump
    networks: int = 30


ARMS = {
    "symmetric": Arm(),
    "asymmetric": Arm(symmetric=False),
    "dense": Arm(layer="dense"),
    "untrained": Arm(steps=0),
    "oracle": Arm(given=True),
    "half": Arm(half=True),
    "oracle, half": Arm(given=True, half=True),
    "more noise": Arm(noise=0.3),
    "fewer samples": Arm(samples=200),
    "smooth": Arm(smooth=1.0),
    "smooth, asymmetric": Arm(smooth=1.0, symmetric=False),
    "annealed": Arm(annealed=4.0),
    "annealed, asymmetric": Arm(annealed=4.0, symmetric=False),
    "dense, moved": Arm(layer="dense", moved=True),
    "dense, moved, asymmetric": Arm(layer="dense", moved=True, symmetric=False),
}


class Circle(NamedTuple):
    """The hidden circle of one network, and its task."""

    rotation: Array  # (16, 16), from the circle to the input
    labels: Array  # (16, 7): the class by the first bump's place and the distance
    shape: Array  # (16,): the bump at place 0

    @classmethod
    def draw(cls, arm: Arm, rng: np.random.Generator) -> "Circle":
        rotation, _ = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))
        start = np.zeros(SIZE, int) if arm.symmetric else rng.integers(CLASSES, size=SIZE)
        shape = np.exp(-(((np.arange(SIZE) + SIZE // 2) % SIZE - SIZE // 2) ** 2) / 2)  # of width 1
        if arm.equal_power:
            spectrum = np.fft.rfft(shape)
            size = np.abs(spectrum[1 : EQUAL + 1])
            spectrum[1 : EQUAL + 1] *= np.sqrt(np.mean(size**2)) / size
            shape = np.fft.irfft(spectrum, SIZE)
        return cls(rotation, (start[:, None] + np.arange(CLASSES)) % CLASSES, shape)

    def samples(
        self, count: int, arm: Arm, rng: np.random.Generator, places: range = range(SIZE)
    ) -> tuple[Array, Array]:
        """Return inputs (count, 16) and classes; the first bump is at one of the places."""
        place, distance = rng.integers(places.start, places.stop, count), rng.integers(CLASSES, size=count)
        at = (np.arange(SIZE) - place[:, None]) % SIZE
        circle = self.shape[at] + arm.second * self.shape[(at - 1 - distance[:, None]) % SIZE]
        circle = circle + arm.noise * rng.standard_normal((count, SIZE))
        return circle @ self.rotation.T, self.labels[place, distance]

    def act(self, element: int, x: Array) -> Array:
        """Turn the circle."""
        return np.roll(x @ self.rotation, element, axis=-1) @ self.rotation.T


def initial(hidden: list[Circle], arm: Arm, rng: np.random.Generator) -> tuple[Weights, Weights]:
    """Return trained and fixed weights of all networks; the first axis is theirs."""
    many = len(hidden)
    h = rng.standard_normal((many, SIZE, SIZE)) / SIZE**0.5
    if arm.given:
        h = np.stack([one.rotation for one in hidden])
    shape = (many, SIZE, CLASSES) if arm.layer == "natural" else (many, SIZE, SIZE, CLASSES)
    g = rng.standard_normal(shape) / SIZE**0.5
    trained = {"h": h, "a": np.zeros((many, 1, SIZE)), "g": g, "b": np.zeros((many, 1, 1, CLASSES))}
    fixed = {name: trained.pop(name) for name in ("h", "a") if arm.given}
    return trained, fixed


def first_layer(weights: Weights, x: Array) -> Any:
    """Eq. (3): x_1 (networks, samples, v_1)."""
    return elu(x @ weights["h"] + weights["a"])


def logits(weights: Weights, x_1: Any, blur: Array | None = None) -> Any:
    """Eqs. (4), (5): the sum over v_1 of ELU(x_1 * g + b), (networks, samples, classes)."""
    g = weights["g"]
    if g.ndim == 3:
        if blur is not None:
            g = blur @ g
        v = np.arange(SIZE)
        g = g[:, (v - v[:, None]) % SIZE]  # (networks, v_1 of x_1, v_1 of x_2, classes)
    many, count = x_1.shape[:2]
    x_2 = elu((x_1 @ g.reshape(many, SIZE, -1)).reshape(many, count, SIZE, CLASSES) + weights["b"])
    return x_2.sum(axis=2)


def loss(trained: Weights, fixed: Weights, x: Array, targets: Array, extra: dict[str, Any]) -> Any:
    """Cross-entropy, mean over samples and summed over networks, and the penalty."""
    weights = {**trained, **fixed}
    x_1 = first_layer(weights, x)
    penalty = 0.0
    if extra["smooth"]:
        next_one = x_1[:, :, np.roll(np.arange(SIZE), -1)]
        between = ((next_one - x_1) ** 2).sum(axis=(1, 2)) / ((x_1 - x_1.mean(axis=1, keepdims=True)) ** 2).sum(
            axis=(1, 2)
        )
        penalty = extra["smooth"] * between.sum()
    if extra["order"] is not None:
        x_1 = x_1[:, :, extra["order"]]
    z = logits(weights, x_1, extra["blur"])
    z = z - z.max(axis=2, keepdims=True)
    return -(targets * (z - np.log(np.exp(z).sum(axis=2, keepdims=True)))).sum() / x.shape[1] + penalty


def blur_of(width: float) -> Array | None:
    """A circulant matrix that convolves with a Gaussian; the width is in samples."""
    if width < 0.1:
        return None
    v = np.arange(SIZE)
    kernel = np.exp(-(((v + SIZE // 2) % SIZE - SIZE // 2) ** 2) / (2 * width**2))
    return (kernel / kernel.sum())[(v - v[:, None]) % SIZE]


def train(hidden: list[Circle], arm: Arm, rng: np.random.Generator) -> Weights:
    """Return the weights of all networks after AdamW at a learning rate that falls to 0 as a cosine."""
    places = range(SIZE // 2 if arm.half else SIZE)
    drawn = [one.samples(arm.samples, arm, rng, places) for one in hidden]
    inputs, classes = np.stack([x for x, _ in drawn]), np.stack([c for _, c in drawn])
    trained, fixed = initial(hidden, arm, rng)

    def arguments(part: float) -> tuple[Any, ...]:
        chosen = rng.integers(arm.samples, size=BATCH)
        extra = {
            "smooth": arm.smooth * (1 - part),
            "order": np.roll(np.arange(SIZE), rng.integers(SIZE)) if arm.moved else None,
            "blur": blur_of(arm.annealed * (1 - 2 * part)),
        }
        return fixed, inputs[:, chosen], np.eye(CLASSES)[classes[:, chosen]], extra

    return {**descend(loss, trained, arm.steps, RATE, arguments), **fixed}


def measure(weights: Weights, hidden: list[Circle], arm: Arm, rng: np.random.Generator) -> list[Row]:
    """Test each network on new samples, put the statistic to its x_1, and return what of it is counted and drawn.

    A row has what `RECORDED` names, whether the translations are the group's, and two arrays (16, 16): x_1(g_s x) of
    one x for every s, and x_1(x) moved by the best translation of each.
    """
    rows = []
    for k, one in enumerate(hidden):
        own = {name: w[k : k + 1] for name, w in weights.items()}

        def represent(x: Array, own: Weights = own) -> Array:
            found: Array = first_layer(own, x[None])[0]
            return found

        def accuracy(places: range, one: Circle = one, own: Weights = own) -> float:
            x, classes = one.samples(4 * TESTED, arm, rng, places)
            return float((logits(own, first_layer(own, x[None]))[0].argmax(axis=1) == classes).mean())

        x, _ = one.samples(TESTED, arm, rng, range(SIZE))
        e = translation_explains(represent, one.act, x, elements=ELEMENTS, axis=1, orders=ORDERS, rng=rng)
        turned = np.concatenate([represent(one.act(s, x[:1])) for s in range(SIZE)])
        translated = np.stack([np.roll(turned[0], shift) for shift in (0, *e.shifts)])
        accuracies = accuracy(range(SIZE)), accuracy(range(SIZE // 2, SIZE))
        of_orders = float(e.random.mean()), float(e.random.max()), float(e.p)
        row = dict(zip(RECORDED, (*accuracies, e.share, *of_orders, " ".join(map(str, e.shifts))), strict=True))
        row["group"] = e.is_isomorphic(ELEMENTS, SIZE)
        rows.append(row | {"x_1(g_s x)": turned, "its best translation": translated})
    return rows


def table(file: Path) -> str:
    """Return the arms of a record as a table in Markdown, and what the protocol compares."""
    rows, compared = [], []
    counts, found = {}, runner.grouped(runner.records(file, "arm", "network"), ARMS)
    for name, some in found.items():
        beyond = [row for row in some if float(row["p"]) <= 1 / (1 + ORDERS) + 1e-12]
        n, above, shifts = len(some), len(beyond), [np.array(row["shifts"].split(), int) for row in beyond]
        whole = sum(Explained(1.0, a, a, a).is_isomorphic(ELEMENTS, SIZE) for a in shifts)
        counts[name] = {"above": above, "whole": whole}
        p = binomtest(above, n, 1 / (1 + ORDERS), alternative="greater").pvalue
        right, unseen, share, random = (np.median([float(row[of]) for row in some]) for of in RECORDED[:4])
        shares, accuracies = (f"{share:.3f}", f"{random:.3f}"), (f"{100 * a:.1f} %" for a in (right, unseen))
        rows.append((name, n, above, f"{p:.2g}", whole, *shares, *accuracies))
    for first, second, which in COMPARED:
        if first in found and second in found:
            a, b = (counts[name][which] for name in (first, second))
            compared.append((f"{first} - {second}", which, *newcombe(a, b, len(found[first]))))
    header = "arm | networks | above all 99 orders | p | whole group | share | random | accuracy | unseen"
    return tables((header, rows), ("compared | counted | difference | 95 % interval", compared))


RECORDED = "accuracy", "unseen", "share", "random_mean", "random_max", "p", "shifts"
COMPARED = (
    ("symmetric", "asymmetric", "above"),
    ("symmetric", "dense", "above"),
    ("smooth", "symmetric", "whole"),
    ("annealed", "symmetric", "whole"),
    ("smooth", "smooth, asymmetric", "above"),
    ("annealed", "annealed, asymmetric", "above"),
    ("dense, moved", "dense", "whole"),
    ("dense, moved", "dense, moved, asymmetric", "above"),
)


def draw(results: dict[str, list[Row]], path: Path) -> None:
    """Draw the share of each network beside the largest of its random orders."""
    fig, ax = plt.subplots(figsize=(9, 0.4 * len(results) + 1.2), layout="constrained")
    for row, (_, networks) in enumerate(results.items()):
        ax.plot([r["random_max"] for r in networks], [row + 0.18] * len(networks), "|", color="0.5")
        colours = ["C2" if r["group"] else "C0" for r in networks]
        ax.scatter([r["share"] for r in networks], [row - 0.12] * len(networks), 12, colours)
    ax.set_yticks(range(len(results)), list(results))
    ax.invert_yaxis()
    ax.set_xlabel("part of the variance of x_1(g_s x) that translations along v_1 explain\n"
                  "dots: networks (green: the whole group); lines: the largest of 99 random orders")  # fmt: skip
    fig.savefig(path, dpi=100)


def draw_actions(results: dict[str, list[Row]], path: Path) -> None:
    """Draw x_1(g_s x) beside the best translations of x_1(x), of the network of each arm with the median share."""
    fig, axes = plt.subplots(len(results), 2, figsize=(6, 3.1 * len(results)), layout="constrained", squeeze=False)
    for row, (name, networks) in zip(axes, results.items(), strict=True):
        median = sorted(networks, key=lambda r: r["share"])[len(networks) // 2]
        for ax, title in zip(row, ("x_1(g_s x)", "its best translation"), strict=True):
            ax.imshow(median[title], vmin=median["x_1(g_s x)"].min(), vmax=median["x_1(g_s x)"].max())
            ax.set(title=title, xlabel="v_1", ylabel="s", xticks=[], yticks=[])
        row[0].set_ylabel(f"{name}, share {median['share']:.2f}\ns")
    fig.savefig(path, dpi=100)


def main() -> None:
    options = command_line(
        *(__doc__, ARMS),
        networks=(30, "of each arm [DEFAULT]"),
        seed=(0, "[DEFAULT]"),
        accuracy_only=(False, "print accuracies and nothing else"),
        out=False,
    )
    found: dict[str, list[Row]] = {}
    for name in options.arms:
        arm, rng = ARMS[name], np.random.default_rng([options.seed, list(ARMS).index(name)])
        hidden = [Circle.draw(arm, rng) for _ in range(options.networks)]
        found[name] = measure(train(hidden, arm, rng), hidden, arm, rng)
        print(name, *(f"{100 * r['accuracy']:.0f}" for r in found[name]), flush=True)
    if not options.out or options.accuracy_only:
        return
    (file := options.out / "networks.csv").unlink(missing_ok=True)
    for name, results in found.items():
        recorded = [{"arm": name, "network": k} | {key: r[key] for key in RECORDED} for k, r in enumerate(results)]
        append(file, recorded)
    publish(options.out, table(file))
    draw(found, options.out / "arms.png")
    draw_actions(found, options.out / "actions.png")


if __name__ == "__main__":
    main()
