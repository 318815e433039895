"""What makes a network's attribute the hidden circle: controls of the arm `smooth` of symmetries.py.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.circles --out benchmarks/results/circles

results/symmetries/README.md has the protocol. Each network has its own circle, samples, weights and, where the arm has
one, order of v_1. Networks of an arm are trained side by side in float32. An arm is recorded when it has ended; the
same command goes on with those that are missing.
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest, mannwhitneyu

from autodiff import elu
from autodiff.primitives import cross_entropy
from benchmarks import runner
from benchmarks.runner import Array, Row, Weights, grouped, newcombe, publish, tables
from benchmarks.symmetries import BATCH, CLASSES, ELEMENTS, RATE, SIZE, TESTED, Arm, Circle
from train.attributes.symmetry import translation_explains

SEED, DECOYS = 2, 19
ENOUGH, NEAR, RIDGE = 0.9, 0.25, 0.01
PERMITTED = 5.0  # points of accuracy
GAPS = ((3, 3), (3, 4), (3, 5), (3, 8), (4, 4), (4, 5), (5, 5))
"""From the first to the second bump and on to the third, by class: no two of them are turns of each other."""
USERS = "convolution", "convolution, no penalty", "other order", "tied", "dense", "untrained", "oracle"
RIVALS = "convolution, no penalty", "dense", "untrained"  # `convolution` is compared with each
FEW, USED = (20, 50, 200), 10

LAYERS = ("natural", "other", "tied", "dense")
SHORT = {"natural": "convolution", "other": "other order", "tied": "tied", "dense": "dense"}
Smooth = partial(Arm, smooth=1.0)
ARMS = {f"{SHORT[layer]}{labels}": Smooth(layer, not labels) for labels in ("", ", asymmetric") for layer in LAYERS}
ARMS |= {f"{name}, group": arm._replace(group=True, networks=6) for name, arm in ARMS.items()}
ARMS |= {
    "equal power": Smooth(equal_power=True),
    "equal power, group": Smooth(equal_power=True, group=True, networks=6),
    "unequal bumps": Smooth(second=0.6),
    "untrained": Smooth(steps=0),
    **{f"K = {width}": Smooth(width=width, networks=12) for width in (8, 12, 24, 32)},
    "stride 2": Smooth(stride=2, networks=12),
    **{f"{SHORT[layer]}, no penalty": Arm(layer) for layer in ("natural", "dense")},
    "convolution, asymmetric, no penalty": Arm(symmetric=False),
}
COMPARED = (
    ("convolution", "other order"), ("convolution", "tied"), ("convolution", "dense"), ("other order", "dense"),
    ("tied", "dense"), ("convolution", "equal power"), ("convolution", "convolution, asymmetric"),
)  # fmt: skip


def reflect(circle: Circle, element: int, x: Array) -> Array:
    """Reverse the circle, then turn it."""
    return np.roll((x @ circle.rotation)[:, ::-1], element, axis=-1) @ circle.rotation.T


def decoy(circle: Circle, speeds: Array, element: int, x: Array) -> Array:
    """Turn frequency k, from 1 to 7, at the speed `speeds[k - 1]`, the others as `Circle.act` does."""
    turned = np.array([0, *speeds, SIZE // 2])
    spectrum = np.fft.rfft(x @ circle.rotation, axis=-1) * np.exp(-2j * np.pi * element * turned / SIZE)
    moved: Array = np.fft.irfft(spectrum, SIZE, axis=-1) @ circle.rotation.T
    return moved


def sharing(arm: Arm, rng: np.random.Generator) -> Array:
    """Return the matrix (v_1 * v_2, coefficients) that spreads the coefficients of one network over its layer."""
    k, out = arm.width, arm.width // arm.stride
    v, v_2 = np.arange(k)[:, None], np.arange(out)
    if arm.layer == "tied":
        index = rng.permutation(np.repeat(np.arange(k), out))
    elif arm.layer == "dense":
        index = np.arange(k * out)
    else:
        order = rng.permutation(k) if arm.layer == "other" else np.arange(k)
        index = ((arm.stride * v_2 - order[v]) % k).ravel()
    return np.eye(index.max() + 1, dtype=np.float32)[index]


def spread(trained: Weights, fixed: Weights) -> tuple[Any, Any]:
    """Return the first layer (networks, 16, v_1) and its bias (networks, 1, v_1 or 1)."""
    weights = {**fixed, **trained}
    if "f" in trained:  # the circle, then translations of one filter
        many = len(trained["f"])
        filters = (fixed["turns"] @ trained["f"]).reshape(many, SIZE, SIZE)
        return fixed["rotation"] @ filters, trained["a"]
    return weights["h"], weights["a"]


def first_layer(weights: tuple[Any, Any], x: Any) -> Any:
    """Eq. (3): x_1 (networks, samples, v_1)."""
    return elu(x @ weights[0] + weights[1])


def logits(trained: Weights, fixed: Weights, x_1: Any) -> Any:
    """Eqs. (4), (5): the sum over v_2's places of ELU(x_1 * g + b), (networks, samples, classes)."""
    many, _, width = x_1.shape
    g = (fixed["sharing"] @ trained["g"]).reshape(many, width, -1)
    return elu(x_1 @ g + trained["b"] @ fixed["places"].T) @ fixed["places"]


def loss(trained: Weights, fixed: Weights, x: Array, targets: Array, smooth: float) -> Any:
    """Cross-entropy, mean over samples and summed over networks, and the penalty."""
    x_1 = first_layer(spread(trained, fixed), x)
    z = logits(trained, fixed, x_1)
    total = len(x) * cross_entropy(z.reshape(-1, CLASSES), targets.ravel())
    if smooth:
        between = ((x_1 @ fixed["differences"]) ** 2).sum(axis=(1, 2))
        centred = x_1 - x_1.mean(axis=1, keepdims=True)
        total = total + smooth * (between / (centred**2).sum(axis=(1, 2))).sum()
    return total


def train(arm: Arm, circles: list[Circle], rngs: list[np.random.Generator], order: Any) -> tuple[Weights, Weights]:
    """Return the trained and the fixed weights of all networks after AdamW; the first axis is theirs."""
    drawn = [one.samples(arm.samples, arm, rng) for one, rng in zip(circles, rngs, strict=True)]
    inputs, classes = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
    inputs = inputs.astype(np.float32)
    many, k, out = len(circles), arm.width, arm.width // arm.stride
    shared = np.stack([sharing(arm, rng) for rng in rngs])
    g = [rng.standard_normal((shared.shape[2], CLASSES)) / k**0.5 for rng in rngs]
    trained = {"a": np.zeros((many, 1, k)), "g": np.stack(g), "b": np.zeros((many, 1, CLASSES))}
    eye = np.eye(k, dtype=np.float32)
    fixed: Weights = {
        "sharing": shared, "places": np.tile(np.eye(CLASSES, dtype=np.float32), (out, 1)),
        "differences": np.roll(eye, -1, axis=1) - eye,
    }  # fmt: skip
    if arm.group:
        trained |= {"f": np.stack([rng.standard_normal((SIZE, 1)) / SIZE**0.5 for rng in rngs])}
        trained["a"] = np.zeros((many, 1, 1))
        v = np.arange(SIZE)
        fixed["turns"] = np.eye(SIZE, dtype=np.float32)[((v - v[:, None]) % SIZE).ravel()]
        fixed["rotation"] = np.stack([one.rotation for one in circles]).astype(np.float32)
    else:
        trained["h"] = np.stack([rng.standard_normal((SIZE, k)) / SIZE**0.5 for rng in rngs])
    return descend(arm, trained, fixed, inputs, classes, order), fixed


def descend(arm: Arm, trained: Weights, fixed: Weights, inputs: Array, classes: Array, order: Any) -> Weights:
    """Return the trained weights after AdamW at a learning rate that falls to 0 as a cosine."""
    trained = {name: w.astype(np.float32) for name, w in trained.items()}

    def arguments(part: float) -> tuple[Any, ...]:
        chosen = order.integers(inputs.shape[1], size=BATCH)
        return fixed, inputs[:, chosen], classes[:, chosen], arm.smooth * (1 - part)

    return runner.descend(loss, trained, arm.steps, RATE, arguments)


def fractional(before: Array, after: Array) -> tuple[float, float]:
    """Return the largest share of `after` that a translation of `before` by t samples explains, and t.

    t goes from 0 to K in steps of 0.05; between samples arrays are interpolated by Fourier series.
    """
    k = before.shape[1]
    f, g = np.fft.fft(before, axis=1), np.fft.fft(after, axis=1)
    shifts = np.arange(20 * k) / 20
    frequency = np.fft.fftfreq(k, 1 / k)
    phases = np.exp(-2j * np.pi * shifts[:, None] * frequency / k)
    if k % 2 == 0:
        phases[:, k // 2] = np.cos(np.pi * shifts)
    cross = (f * g.conj()).sum(axis=0)
    inner = (phases @ cross).real / k
    energy = np.abs(phases) ** 2 @ (np.abs(f) ** 2).sum(axis=0) / k + (after**2).sum()
    shares = 1 - (energy - 2 * inner) / ((after - after.mean(axis=0)) ** 2).sum()
    best = int(shares.argmax())
    return float(shares[best]), float(shifts[best])


def near_group(shifts: Array, width: int) -> bool:
    """Say whether the translations, one for each s from 1 to 15, are a s K / 16 within 0.25 samples for one odd a."""
    s = np.arange(1, SIZE)
    away = [(shifts - a * s * width / SIZE + width / 2) % width - width / 2 for a in range(1, SIZE, 2)]
    return any(np.abs(one).max() <= NEAR + 1e-9 for one in away)


def recovered(first: tuple[Array, Array], circle: Circle, x: Array) -> float:
    """Return the variance of g_s x that affine maps A_t of inputs explain, from the weights and unlabelled inputs.

    A_t x is the y, near the mean, whose x_1 is nearest to L_t x_1(x) before ELU: ridge, of 0.01 mean eigenvalues.
    The score is the mean over s of the share of A_{a s}, for the odd a that is best.
    """
    h, a = (np.asarray(w, np.float64) for w in first)
    mean = x.mean(axis=0)
    gram = h @ h.T
    back = np.linalg.solve(gram + RIDGE * np.trace(gram) / SIZE * np.eye(SIZE), h)
    z = x @ h + a
    moved = [mean + (np.roll(z, t, axis=1) - a - mean @ h) @ back.T for t in range(h.shape[1])]
    shares = np.empty((SIZE, len(moved)))
    for s in range(SIZE):
        turned = circle.act(s, x)
        shares[s] = [1 - ((turned - y) ** 2).sum() / ((turned - turned.mean(axis=0)) ** 2).sum() for y in moved]
    return float(max(np.mean([shares[s, a * s % SIZE] for s in ELEMENTS]) for a in range(1, SIZE, 2)))


def order_free(before: Array, turned: list[Array]) -> float:
    """Return the share of the powers of one permutation of v_1: the best for g_1 on half of the inputs, on the rest."""
    half = len(before) // 2
    middle = before.mean(axis=(0, 1))
    inner = (turned[0][:half] - middle).T @ (before[:half] - middle)
    permutation = linear_sum_assignment(-inner)[1]
    powers, shares = np.arange(before.shape[1]), []
    for after in turned:
        powers = powers[permutation]
        rest, moved = after[half:], before[half:, powers]
        shares.append(1 - ((rest - moved) ** 2).sum() / ((rest - rest.mean(axis=0)) ** 2).sum())
    return float(np.mean(shares))


def measure(
    arm: Arm, name: str, circles: list[Circle], rngs: list[np.random.Generator], trained: Weights, fixed: Weights
) -> list[Row]:
    """Return what is recorded of each network."""
    rows, layers = [], spread(trained, fixed)
    for k, (one, rng) in enumerate(zip(circles, rngs, strict=True)):
        first = layers[0][k], layers[1][k]

        def represent(x: Array, first: tuple[Any, Any] = first) -> Array:
            return np.asarray(first_layer(first, x.astype(np.float32)), np.float64)

        x, classes = one.samples(4 * TESTED, arm, rng)
        x = x.astype(np.float32)
        own = ({key: w[k : k + 1] for key, w in trained.items()}, {**fixed, "sharing": fixed["sharing"][k : k + 1]})
        right = (logits(*own, represent(x)[None].astype(np.float32))[0].argmax(axis=1) == classes).mean()
        x = x[:TESTED].astype(np.float64)
        base = represent(x)
        centred = base - base.mean(axis=0)
        along = ((centred - centred.mean(axis=1, keepdims=True)) ** 2).sum() / (centred**2).sum()
        turned = [represent(one.act(s, x)) for s in ELEMENTS]
        row: Row = {"arm": name, "network": k, "accuracy": float(right), "along": float(along)}
        found = [fractional(base, after) for after in turned]
        shifts = np.array([t for _, t in found])
        row["odd"], row["even"] = (float(np.mean([found[s - 1][0] for s in range(b, SIZE, 2)])) for b in (1, 2))
        row["fractional"] = float(np.mean([share for share, _ in found]))
        row["near"] = int(near_group(shifts, arm.width))
        if arm.width == SIZE:
            explained = partial(translation_explains, represent, elements=ELEMENTS, axis=1, orders=0, rng=rng)
            whole = explained(one.act, x)
            row["share"], row["isomorphic"] = whole.share, int(whole.is_isomorphic(ELEMENTS, SIZE))
            speeds = [decoys(rng) for _ in range(DECOYS)]
            row["decoys"] = max(explained(partial(decoy, one, m), x).share for m in speeds)
            reflected = [best_translation(base[:, ::-1], represent(reflect(one, s, x))) for s in range(SIZE)]
            row["reflections"] = float(np.mean(reflected))
            row["order-free"] = order_free(base, turned)
            row["recovered"] = recovered(first, one, x)
            row["null"] = recovered(first, circles[(k + 1) % len(circles)], x)
        rows.append(row)
    return rows


def best_translation(before: Array, after: Array) -> float:
    """Return the largest share of `after` that a translation of `before` by whole samples explains."""
    total = ((after - after.mean(axis=0)) ** 2).sum()
    return float(max(1 - ((after - np.roll(before, t, axis=1)) ** 2).sum() / total for t in range(before.shape[1])))


def decoys(rng: np.random.Generator) -> Array:
    """Return speeds of the frequencies 1 to 7 in another order."""
    while np.array_equal(speeds := rng.permutation(np.arange(1, SIZE // 2)), np.arange(1, SIZE // 2)):
        pass
    return speeds


def trained_arm(
    name: str, many: int, seed: int = SEED
) -> tuple[list[Circle], list[np.random.Generator], Weights, Weights]:
    """Return the circles of the networks of an arm, their random numbers, and their trained and fixed weights."""
    arm, number = ARMS[name], list(ARMS).index(name)
    rngs = [np.random.default_rng([seed, number, k]) for k in range(many)]
    circles = [Circle.draw(arm, rng) for rng in rngs]
    return circles, rngs, *train(arm, circles, rngs, np.random.default_rng([seed, number]))


def run(name: str, networks: int | None = None) -> list[Row]:
    """Train the networks of an arm and return what is recorded of each."""
    return measure(ARMS[name], name, *trained_arm(name, networks or ARMS[name].networks))


def is_whole(row: Row) -> bool:
    """Say whether a network found the whole group; of K other than 16, by fractional translations."""
    if not row["share"]:
        return bool(int(row["near"])) and float(row["fractional"]) > ENOUGH
    share = float(row["share"])
    return bool(int(row["isomorphic"])) and share > ENOUGH and share > float(row["decoys"])


def table(rows: list[Row]) -> str:
    """Return the arms as a table in Markdown, their admission, and the comparisons."""
    of, shown, admitted, compared = grouped(rows, ARMS), [], [], []
    keys = "accuracy", "share", "decoys", "along", "reflections", "order-free", "recovered", "null"
    for name, some in of.items():
        medians = [f"{np.median([float(row[key]) for row in some]):.3f}" if some[0][key] else "" for key in keys]
        group = sum(int(row["isomorphic"] or row["near"]) for row in some)
        shown.append((name, len(some), group, sum(map(is_whole, some)), *medians))
        if given := of.get(f"{name}, group"):
            free, group_ = (100 * np.median([float(row["accuracy"]) for row in part]) for part in (some, given))
            verdict = "permitted" if group_ >= free - PERMITTED else "forbidden by accuracy"
            admitted.append((name, f"{free:.1f} %", f"{group_:.1f} %", verdict))
    for first, second in COMPARED:
        if first in of and second in of:
            a, b, n = sum(map(is_whole, of[first])), sum(map(is_whole, of[second])), len(of[first])
            compared.append((f"{first} - {second}", f"{a} and {b} of {n}", *newcombe(a, b, n)))
    return tables(
        (f"arm | networks | group's translations | whole | {' | '.join(keys)}", shown),
        ("arm | accuracy, free | accuracy, x_1 the group | admission", admitted),
        ("compared | whole | difference | 95 % interval", compared),
    )


def three_bumps(one: Circle, count: int, places: range, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return inputs (count, 16) with three bumps, of which the first is at one of the places, and classes of gaps."""
    place, label = rng.integers(places.start, places.stop, count), rng.integers(CLASSES, size=count)
    at = np.cumsum(np.column_stack([place, np.array(GAPS)[label]]), axis=1)
    circle = one.shape[(np.arange(SIZE) - at[:, :, None]) % SIZE].sum(axis=1)
    circle = circle + Arm().noise * rng.standard_normal((count, SIZE))
    return (circle @ one.rotation.T).astype(np.float32), label


def use(name: str, seed: int) -> list[Row]:
    """Freeze x_1 of networks of an arm; train a convolution along v_1 on few samples of half of the circle."""
    arm = "convolution" if name == "oracle" else name
    circles, rngs, trained, fixed = trained_arm(arm, USED, seed)
    whole = [is_whole(row) for row in measure(ARMS[arm], arm, circles, rngs, trained, fixed)]
    frozen = {"h": trained["h"], "a": trained["a"]}
    if name == "oracle":
        whole = [True] * USED
        frozen = {"h": np.stack([one.rotation for one in circles]).astype(np.float32), "a": np.float32(0)}
    frozen |= {"places": fixed["places"], "sharing": np.stack([sharing(Arm(), rng) for rng in rngs])}
    rows = []
    for count in FEW:
        given = [three_bumps(one, count, range(SIZE // 2), rng) for one, rng in zip(circles, rngs, strict=True)]
        inputs, classes = (np.stack(arrays) for arrays in zip(*given, strict=True))
        g = np.stack([rng.standard_normal((SIZE, CLASSES)) / SIZE**0.5 for rng in rngs])
        reader = {"g": g, "b": np.zeros((USED, 1, CLASSES))}
        reader = descend(Arm(), reader, frozen, inputs, classes, np.random.default_rng([seed, count]))
        for k, (one, rng) in enumerate(zip(circles, rngs, strict=True)):
            row = {"arm": name, "network": k, "whole": int(whole[k]), "samples": count}
            for half, places in (("seen", range(SIZE // 2)), ("unseen", range(SIZE // 2, SIZE))):
                x, labels = three_bumps(one, 4 * TESTED, places, rng)
                own = {key: w if key == "places" or np.ndim(w) == 0 else w[k : k + 1] for key, w in frozen.items()}
                read = {key: w[k : k + 1] for key, w in reader.items()}
                z = logits(read, own, first_layer(spread(read, own), x[None]))[0]
                row[half] = float((z.argmax(axis=1) == labels).mean())
            rows.append(row)
    return rows


def use_table(rows: list[Row]) -> str:
    """Return medians by arm and number of samples, and what the protocol compares."""
    shown, unseen, tests = [], {}, []
    for name, count in itertools.product(USERS, FEW):
        some = [row for row in rows if row["arm"] == name and row["samples"] == count]
        unseen[name, count] = [row["unseen"] for row in some]
        found = [row["unseen"] for row in some if row["whole"]]
        parts = [[row["seen"] for row in some], unseen[name, count], found]
        medians = [f"{100 * np.median(part):.1f} %" if part else "" for part in parts]
        shown.append((name, count, *medians[:2], f"{medians[2]} ({len(found)})"))
    for other in RIVALS:
        test = mannwhitneyu(unseen[USERS[0], FEW[1]], unseen[other, FEW[1]], alternative="greater", method="exact")
        tests.append((f"{USERS[0]} - {other}", f"{test.statistic:g} of {USED**2}", f"{test.pvalue:.2g}"))
    header = f"unseen half, {FEW[1]} samples | pairs with the larger accuracy | p"
    return tables(("x_1 of | samples | seen half | unseen half | unseen, whole networks", shown), (header, tests))


def draw(rows: list[Row], path: Path) -> None:
    """Draw the shares of the networks with the penalty, and in how many of them the whole group was found."""
    arms = [name for name in ARMS if ARMS[name].smooth and ARMS[name].width == SIZE and not ARMS[name].group]
    arms = [name for name in arms if ARMS[name].stride == 1 and ARMS[name].steps]
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", width_ratios=(3, 2), sharey=True)
    for y, name in enumerate(arms):
        some = [row for row in rows if row["arm"] == name]
        for row in some:
            axes[0].plot(float(row["share"]), y, "o", color="C2" if is_whole(row) else "C0", alpha=0.5, markersize=5)
        count = sum(map(is_whole, some))
        low, high = binomtest(count, len(some)).proportion_ci(method="wilson")
        axes[1].barh(y, count / len(some), color="C2")
        axes[1].plot([low, high], [y, y], color="black")
        axes[1].text(1.02, y, f"{count} of {len(some)}", va="center")
    axes[0].axvline(ENOUGH, color="0.7")
    axes[0].set(
        yticks=range(len(arms)),
        yticklabels=arms,
        xlabel="share that translations along $v_1$ explain",
        xlim=(-1.2, 1.1),
    )
    axes[0].invert_yaxis()
    axes[1].set(xlabel="networks that found the whole group", xlim=(0, 1.2))
    fig.savefig(path, dpi=100)


FIELDS = (
    "arm", "network", "accuracy", "share", "isomorphic", "decoys", "along", "fractional", "near", "odd", "even",
    "reflections", "order-free", "recovered", "null",
)  # fmt: skip


def main() -> None:
    options = runner.command_line(
        *(__doc__, ARMS),
        use=(False, "a use of x_1 on few samples, in place of the arms"),
        seed=(SEED, "of the networks of --use [DEFAULT]"),
    )
    if options.use:
        publish(options.out, use_table([row for name in USERS for row in use(name, options.seed)]), "use.md")
        return
    file = options.out / "networks.csv"
    runner.run(file, ("arm",), [(name,) for name in options.arms], run, fields=FIELDS)
    rows = runner.records(file, "arm", "network")
    publish(options.out, table(rows))
    draw(rows, options.out / "arms.png")


if __name__ == "__main__":
    main()
