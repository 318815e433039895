"""What documents say of results and of functions is what is on record, and what the functions do."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import autodiff
import hcnn_core
from benchmarks import circles, table1
from hcnn.__main__ import COMMANDS
from hcnn_core._problem import EXTENSIONS
from train.commands.command_line import Command
from train.config import make_config, read_toml

ROOT = Path(__file__).resolve().parents[1]
README, SPEED = ((ROOT / name).read_text("utf-8") for name in ("README.md", "benchmarks/results/speed.md"))


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table below a header."""
    table = text.split(header)[1].split("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


def test_readme_has_the_accuracies_on_record() -> None:
    found = rows(README, "| network | filter coefficients | epochs | test images | mean of six views |")
    assert [re.findall("`(.*?)`", row[0])[0] for row in found] == ["hcnn-best", "hcnn-fast", "hcnn-periodic"]
    for row in found:
        record = ROOT / re.findall(r"\]\((.*?)\)", row[0])[0]
        measured = table1.measured(record)
        last = table1.Run(record).read_metrics()[-1]
        assert measured is not None
        assert row[1:] == [
            f"{measured.coefficients:,}",
            " + ".join([*row[2].split(" + ")[:-1], str(last["epoch"])]),  # of two parts, the record is of the second
            f"{measured.accuracy:.2f} %",
            f"{100 * last['test_accuracy_of_views']:.2f} %",
        ]


def test_documents_have_the_speed_on_record() -> None:
    performance = (ROOT / "docs" / "performance.md").read_text("utf-8")
    ours_of_10, written, ours, fastest = (row[1:] for row in rows(performance, "| | periodic | zero |"))
    recorded = rows(SPEED, "| one 32x32 layer, forward and backward, ms an image | periodic | zero |")
    assert [ours, fastest] == [recorded[0][1:], recorded[6][1:]]
    scaling = (ROOT / "benchmarks" / "results" / "scaling" / "scaling.txt").read_text("utf-8")
    of_10 = [float(time) for time in re.findall(r"^ +10 +([\d.]+)", scaling, re.MULTILINE)[:2]]
    printed = [float(cell.split()[0]) for cell in recorded[2][1:]]  # compiled, in batches of 10
    assert ours_of_10 == [f"{time:.2f}" for time in of_10]
    assert written == [f"{there:.2f} ({there / here:.0f}x)" for there, here in zip(printed, of_10, strict=True)]
    first = (ROOT / "docs" / "index.rst").read_text("utf-8")
    milliseconds, ratio = re.findall(r"\*\*([\d.]+) (?:ms|times)\*\*", first)
    assert milliseconds == ours[0] and f"({ratio}x)" in fastest[0]


CALLS: dict[str, Any] = {
    "convolve": lambda x, boundary, axes: hcnn_core.convolve(x, np.ones((3,) * len(axes)), axes, boundary=boundary),
    "correlate": lambda x, boundary, axes: hcnn_core.correlate(x, np.ones((3,) * len(axes)), axes, boundary=boundary),
    "convolve_elu": lambda x, boundary, axes: hcnn_core.convolve_elu(
        x, np.ones((3,) * len(axes)), 0.0, axes, boundary=boundary
    ),
    "linear_operator": lambda x, boundary, axes: hcnn_core.linear_operator(
        np.ones((3,) * len(axes)), x.shape, axes, boundary=boundary
    ),
    "translate": lambda x, boundary, axes: hcnn_core.translate(x, 1, axes, boundary=boundary),
    "patch_moments": lambda x, boundary, axes: hcnn_core.patch_moments(x, axes, 1, boundary=boundary),
    "factored_layer": lambda x, boundary, axes: hcnn_core.factored_layer(
        x[..., None], np.ones((1,) * x.ndim + (2,)), np.zeros(2), np.ones((2, 1)), 0.0, axes, x.ndim, boundary=boundary
    ),
}


def accepts(name: str, boundary: str, axes: int) -> bool:
    """Whether a function takes a boundary along that many axes."""
    try:
        CALLS[name](np.ones((2,) * axes), boundary, tuple(range(axes)))
    except ValueError as error:
        assert "boundary" in str(error) or f"{axes} axes" in str(error)
        return False
    return True


HEADER = "| function | axes at once | boundaries | NumPy | CuPy | PyTorch | JAX |"
COVERAGE = rows((ROOT / "docs" / "coverage.md").read_text("utf-8"), HEADER)


def test_coverage_names_functions_that_exist() -> None:
    names = [name for row in COVERAGE for name in re.findall(r"`(\w+)`", row[0])]
    assert len(names) == len(set(names)) > 20
    assert set(names) <= set(hcnn_core.__all__)
    assert {name for name in names if not name.endswith("_vjp")} - set(autodiff.__all__) == {"linear_operator"}


@pytest.mark.parametrize("name", CALLS)
def test_coverage_says_which_boundaries_and_axes_a_function_takes(name: str) -> None:
    (row,) = (row for row in COVERAGE if f"`{name}`" in row[0])
    said = set(EXTENSIONS) if row[2] == "all five" else set(row[2].split(", "))
    assert said == {boundary for boundary in EXTENSIONS if accepts(name, boundary, 1)}
    assert accepts(name, "periodic", 6)
    assert accepts(name, "periodic", 7) == (row[1] == "any")


def commands_of(text: str) -> list[str]:
    """What follows `python -m hcnn`, in the blocks of a page and between its backquotes."""
    block = re.compile("^```.*?^```", re.DOTALL | re.MULTILINE)
    lines = "\n".join(block.findall(text)).replace("\\\n", " ").splitlines()
    lines += [" ".join(code.split()) for code in re.findall("`([^`]+)`", block.sub("", text))]
    return [line.partition("python -m hcnn ")[2] for line in lines if "python -m hcnn " in line]


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.stem
)
def test_commands_take_the_flags_that_pages_give_them(path: Path) -> None:
    for command in commands_of(path.read_text("utf-8")):
        name, *given = shlex.split(command.replace("NAME", "hcnn").replace("$seed", "0"), comments=True)
        if name in ("...", "COMMAND") or not given or {"...", "$@"} & {*given}:  # said of commands, not to be typed
            continue
        module = importlib.import_module(COMMANDS[name][0])
        parser = module.main.parser if isinstance(module.main, Command) else module._parser()
        parser.parse_args(given)


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "README.md",
        *(p for p in sorted([*ROOT.glob("docs/*.[mr]*"), *ROOT.glob("docs/api/*.rst")]) if p.stem != "architecture"),
        *sorted((ROOT / "examples").rglob("*.py")),
    ],
    ids=lambda path: path.stem,
)
def test_hcnn_is_the_one_public_name(path: Path) -> None:
    """Packages have other names in architecture.md alone; pytest knows a plugin by one of them."""
    text = path.read_text("utf-8").replace("hcnn_core.testing.plugin", "")
    assert not re.findall(
        r"(?<![\w.])hcnn_core\.\w+|^ *(?:from|import) (?:hcnn_core|autodiff|wavelets|train)\b", text, re.M
    )
    assert not re.findall(r"(?<![\w.`])`+(?:autodiff|wavelets|train)\.\w+|python -m train", text)


def test_commands_of_a_page_are_found() -> None:
    page = "`python -m hcnn verify\n--seed 1` and\n```\nmpirun -n 2 python -m hcnn train \\\n  --seed 2\nelse\n```\n"
    assert [command.split() for command in commands_of(page)] == [["train", "--seed", "2"], ["verify", "--seed", "1"]]
    assert len(commands_of(README)) > 3


def test_recipes_list_every_run_that_has_read_the_test_set() -> None:
    results = ROOT / "benchmarks" / "results"
    read = [
        f"| [{run}]({run}/metrics.jsonl) | {row['epoch']} | {100 * row['test_accuracy']:.2f} % |"
        for path in sorted(results.rglob("metrics.jsonl"))
        for row in map(json.loads, path.read_text("utf-8").splitlines())
        if "test_accuracy" in row and (run := path.parent.relative_to(results).as_posix())
    ]
    history = (results / "recipes-history.md").read_text("utf-8")
    table = history.split("<!-- read: begin -->")[1].split("<!-- read: end -->")[0].strip().splitlines()
    assert table[2:] == read
    assert f"[{len(read)} runs on record have]" in history


SYMMETRIES = ROOT / "benchmarks" / "results" / "symmetries" / "README.md"


@pytest.mark.parametrize(
    ("page", "file"),
    [
        (SYMMETRIES, "symmetries/arms.md"),
        (SYMMETRIES, "symmetries/moved/arms.md"),
        (SYMMETRIES, "circles/arms.md"),
        (SYMMETRIES, "circles/use.md"),
        (SYMMETRIES, "circles/use-again/use.md"),
        (ROOT / "docs" / "recipes.md", "attention/arms.md"),
    ],
)
def test_pages_have_the_tables_on_record(page: Path, file: str) -> None:
    record = (ROOT / "benchmarks" / "results" / file).read_text("utf-8").split("\n\n{")[0].split("\nat 32 pixels")[0]
    document = page.read_text("utf-8")
    assert all(table.strip() in document for table in record.split("\n\n"))


@pytest.mark.parametrize("task", ["hue", "sound"])
def test_symmetries_has_what_is_on_record_of_the_first_layer(task: str) -> None:
    record = (ROOT / "benchmarks" / "results" / task / "arms.md").read_text("utf-8")
    document = SYMMETRIES.read_text("utf-8").partition(f"## What was found for {task}")[2]
    accuracies, places, compared = (
        [line.strip("| ").split(" | ") for line in table.splitlines()[2:]] for table in record.split("\n\n")[:3]
    )
    first = [row[2:] for row in places if row[1] == "x_1 along v_1"]
    rows = [[arm, right, unseen, *rest] for (arm, _, right, unseen), rest in zip(accuracies, first, strict=True)]
    rows += [[arms, *rest] for arms, j, *rest in compared if j == "1"]
    shown = [line.strip("| ").split(" | ") for line in document.split("\n\n## ")[0].splitlines() if line[:2] == "| "]
    shown = [row for row in shown if row[0] not in ("arm", "compared", "---")]
    if task == "sound":  # its document leaves two columns out
        rows = [row[:2] + row[3:] if len(row) == 7 else row[:3] for row in rows]
    assert shown == rows


def results(path: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / "results" / path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_recipes_has_the_gains_of_scattering_before_resnet20() -> None:
    rows, recipes = results("scattering-resnet20/results.csv"), (ROOT / "docs" / "recipes.md").read_text("utf-8")

    def cells(name: str, count: int) -> str:
        of, pixels = (
            [100 * float(row["validation_accuracy"]) for row in rows if row["variant"] == f"{variant}, {count}"]
            for variant in (name, "pixels")
        )
        gains = np.subtract(of, pixels)
        half = stats.t.ppf(0.975, 2) * gains.std(ddof=1) / 3**0.5
        gain = f"{gains.mean():+.1f} [{gains.mean() - half:+.1f}, {gains.mean() + half:+.1f}]"
        return f"{np.mean(of):.1f} % | {gain if name != 'pixels' else ''}".strip()

    for name in ("pixels", "one octave", "two octaves"):
        assert f"| {name} | {cells(name, 500)} | {cells(name, 5000)} |" in recipes


def test_recipes_has_the_runs_that_say_how_the_error_falls_with_length() -> None:
    recipes = " ".join((ROOT / "docs" / "recipes.md").read_text("utf-8").split())
    runs = {}
    for name, epochs, seed in itertools.product(("base", "blur"), (20, 80), (0, 1)):
        path = f"benchmarks/results/table1-length/{name}-{epochs}-epochs-seed-{seed}"
        if (ROOT / path).exists():
            last = json.loads((ROOT / path / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
            runs[name, epochs, seed] = 1 - last["validation_accuracy"], last["validation_tempered_loss"]
            right = f"{100 * last['validation_accuracy']:.1f} % | {last['validation_tempered_loss']:.3f} |"
            assert last["epoch"] == epochs
            assert f"| {name}, {epochs} epochs, [seed {seed}](../{path}) | {right}" in recipes
    zero, one = (runs["base", 20, seed][1] - runs["blur", 20, seed][1] for seed in (0, 1))
    assert f"lower by {zero:.3f} and by {one:.3f} nats, {(zero + one) / 2:.3f} in the mean" in recipes

    errors = {
        key: [runs[*key, seed][0] for seed in (0, 1) if (*key, seed) in runs]
        for key in itertools.product(("base", "blur"), (20, 80))
    }
    of_seeds = np.mean([np.var(np.log(pair), ddof=1) for pair in errors.values() if len(pair) == 2])
    short, long = errors["base", 20], errors["base", 80]
    exponent = np.log(np.mean(short) / np.mean(long)) / np.log(4)
    variance = sum((1 - np.mean(e)) / (1e4 * np.mean(e)) + of_seeds / len(e) for e in (short, long))
    pairs = sum(len(pair) == 2 for pair in errors.values())
    freedom = variance**2 * pairs / (of_seeds * (1 / len(short) + 1 / len(long))) ** 2  # Welch and Satterthwaite
    bounds = exponent + np.sqrt(variance) / np.log(4) * stats.t.ppf([0.025, 0.975], freedom)
    assert f"a = {exponent:.2f} [{bounds[0]:.2f}, {bounds[1]:.2f}]" in recipes
    assert f"leaves {freedom:.1f} degrees of freedom" in recipes

    first = "hcnn-paper-strides", "hcnn-best-second-part"
    runs_of = first[:1], (*first, "hcnn-best-third-part"), (*first, "table1-run/a", "hcnn-best")
    for name, parts in zip(("after the first part", "after three parts", "as it ships"), runs_of, strict=True):
        epochs = updates = 0.0
        for run in (table1.Run(ROOT / "benchmarks" / "results" / part) for part in parts):
            config = read_toml(run.config_path)
            length = 53 + 330 / 490 if run.path.name == "a" else config["epochs"]  # it was stopped on the way to 69
            epochs += length * float(np.mean(np.square(np.array(config["image_sizes"]) / 32)))
            updates += length * (50_000 - config["validation_size"]) / config["batch_size"]
        error = 100 * (1 - run.read_metrics()[-1]["test_accuracy"])
        few, many = (error * (1 - times ** -np.array([exponent, *bounds])) for times in (240 / epochs, 240e3 / updates))
        points = f"{few[0]:.1f} to {many[0]:.1f} [{few[1]:.1f}, {many[2]:.1f}]"
        assert f"| {name} | {epochs:.0f}, {updates:,.0f} | {error - 8.57:.2f} points | {points} |" in recipes


def test_symmetries_counts_networks_that_fit_and_not_only_fit_best() -> None:
    page = SYMMETRIES.read_text("utf-8")
    counts: dict[str, list[float]] = {}
    odd = [a * np.arange(1, 16) % 16 for a in range(1, 16, 2)]
    for row in results("symmetries/networks.csv"):
        if any(np.array_equal(np.array(row["shifts"].split(), int) % 16, shifts) for shifts in odd):
            counts.setdefault(row["arm"], []).append(float(row["share"]))
    smooth, moved = (np.array(counts[arm]) for arm in ("smooth", "dense, moved"))
    few = smooth[smooth <= 0.9]
    assert f"{sum(smooth > 0.9)} of the {len(smooth)} networks of `smooth` are left" in page
    assert f"(the other {'five' if len(few) == 5 else few} have {few.min():.2f} to {few.max():.2f})" in page
    assert f"{sum(moved > 0.9)} of the {len(moved)} of `dense, moved`" in page
    hue = [row for row in results("hue/networks.csv") if row["x_1 v_1 whole"] == "1"]
    assert f"({' and '.join(format(float(row['x_1 v_1 share']), '.2f') for row in hue)})" in page


def test_symmetries_has_the_medians_of_the_controls() -> None:
    page, networks = (ROOT / "docs" / "symmetries.md").read_text("utf-8"), results("circles/networks.csv")
    record = " ".join(SYMMETRIES.read_text("utf-8").split())

    def median(arm: str, key: str, whole: bool = False) -> float:
        rows = [row for row in networks if row["arm"] == arm and (circles.is_whole(row) or not whole)]
        return float(np.median([float(row[key]) for row in rows]))

    one, unequal, other, tied = "convolution", "unequal bumps", "other order", "tied"
    recovered, null = (median(one, key, whole=True) for key in ("recovered", "null"))
    page = " ".join(page.split())
    assert f"{recovered:.2f} of their variance, against {null:.2f} for another network's circle" in page
    reflections = f"{median(one, 'reflections', True):.2f} in the median of the whole networks of `convolution`, "
    assert f"{reflections}{median(unequal, 'reflections', True):.2f} in those of `unequal bumps`" in record
    assert f"{median(other, 'recovered', True):.2f}, of `tied` {median(tied, 'recovered', True):.2f}" in record
    odd, even = (median("stride 2", key) for key in ("odd", "even"))
    assert f"Medians of odd and even s are {odd:.3f} and {even:.3f}" in record
    counts = [sum(circles.is_whole(row) for row in networks if row["arm"] == f"K = {k}") for k in (8, 12, 24, 32)]
    assert "{}, {}, {} and {} of 12 for K = 8, 12, 24 and 32".format(*counts) in record
    found = [sum(circles.is_whole(row) for row in networks if row["arm"] == arm) for arm in (one, other, tied)]
    again = (ROOT / "benchmarks/results/circles/use-again/use.md").read_text("utf-8")
    new = [int(re.search(rf"\| {arm} \| 50 .*\((\d+)\)", again)[1]) for arm in (one, other, tied)]  # type: ignore[index]

    def compared(a: int, b: int, c: int, each: int) -> float:
        """Fisher's test of the two arms with a convolution beside the one with tied weights."""
        return float(stats.fisher_exact([[a + b, 2 * each - a - b], [c, each - c]]).pvalue)

    first, both = compared(*found, 30), compared(*np.add(found, new), 40)
    assert f"({sum(found[:2])} of 60) beside 33 % ({found[2]} of 30), p = {first:.3f}" in page
    assert f"{sum(new[:2])} of 20 beside {new[2]} of 10, together {sum(found[:2] + new[:2])} of 80 beside" in page
    assert f"beside {found[2] + new[2]} of 40, p = {both:.3f}" in page
    assert f"{len(networks)} networks ([protocol]" in page


def test_recipes_compares_its_first_part_with_the_paper() -> None:
    config = make_config("hcnn-best")
    epochs = 240 / (config.epochs * np.mean(np.square(config.image_shares)))
    updates = 240 * 50_000 / 50 / (config.epochs * 49_000 / config.batch_size)
    recipes = " ".join((ROOT / "docs" / "recipes.md").read_text("utf-8").split())
    assert f"is {epochs:.1f} times our first part in epochs of full size, and {updates:.1f} times in updates" in recipes


def test_trials_say_how_little_they_show() -> None:
    folder = ROOT / "benchmarks" / "results" / "table1-trials"

    def loss(run: str) -> float:
        return float(table1.Run(folder / run).read_metrics()[-1]["validation_tempered_loss"])

    changes = {
        name: [loss(f"{name}{seed}") - loss(f"base{seed}") for seed in ("", "-seed-1")]
        for name in ("affine-half", "decay-of-scales")
    }
    deviation = np.sqrt(np.mean([np.var(pair, ddof=1) for pair in changes.values()]))
    page = " ".join((folder / "README.md").read_text("utf-8").split())
    assert f"standard deviation of a paired difference of one seed is {deviation:.3f} nats" in page
    blur, decay = ((loss("base") - loss(name)) / deviation for name in ("blur", "weight-decay-0.03"))
    assert f"blur stands at {blur:.0f} of them, and the weight decay at {decay:.1f}" in page


def test_weights_that_claims_rest_on_are_kept_and_small() -> None:
    history = (ROOT / "benchmarks" / "results" / "recipes-history.md").read_text("utf-8")
    table = history.split("<!-- kept: begin -->")[1].split("<!-- kept: end -->")[0]
    listed = {ROOT / path for path in re.findall(r"\| \[(.*?)\]", table)}
    assert listed == {*ROOT.glob("train/weights/*.h5"), *ROOT.glob("benchmarks/results/**/*.h5")}
    assert sum(path.stat().st_size for path in listed) < 10e6


def test_aliasing_says_what_translations_of_attributes_change() -> None:
    page = (ROOT / "docs" / "aliasing.md").read_text("utf-8")
    said = re.findall(r"by (\d+) to (\d+) % in the mean, single shifts by up to (\d+) %", page)[0]
    aliased = [
        row
        for row in results("aliasing/trained-periodic.csv")
        if (row["statement"], row["kind"], row["mode"]) == ("invariance", "aliased", "evaluation")
        and row["axis"][0] == "v"
    ]
    depths: dict[tuple[str, str], list[float]] = {}
    for row in aliased:
        depths.setdefault((row["j"], row["axis"]), []).append(100 * float(row["mean"]))
    means = [np.mean(values) for values in depths.values()]
    largest = max(100 * float(row["largest"]) for row in aliased)
    assert said == tuple(f"{value:.0f}" for value in (min(means), max(means), largest))


def test_gpu_page_says_how_much_faster_others_were() -> None:
    record = (ROOT / "benchmarks" / "results" / "gpu-h200" / "peers.md").read_text("utf-8")
    page = " ".join((ROOT / "docs" / "gpu.md").read_text("utf-8").split())
    best, *_, resnet20 = rows(record, "| step, ms | float32 | tf32 | PyTorch float32 | tf32 | bf16 |")
    ratios = [float(best[2]) / float(time) for time in best[4].split(" to ")] + [
        float(resnet20[1]) / float(resnet20[3])
    ]
    assert f"PyTorch was {min(ratios):.1f} to {max(ratios):.1f} times as fast in these steps at equal precision" in page
    few = [
        row for row in rows(record, "| convolution, ms | here | cupyx | PyTorch float32 | tf32 |") if row[0][0] in "123"
    ]
    slower = [float(row[1]) / float(time) for row in few for time in re.findall(r"\d+\.\d+", " ".join(row[2:4]))]
    assert len(few) == 6 and f"took up to {max(slower):.0f} times as long" in page


def test_performance_has_the_tables_on_record() -> None:
    assert SPEED in (ROOT / "docs" / "performance.md").read_text("utf-8")


@pytest.mark.slow
def test_a_network_of_the_hidden_circle_is_made_again_by_its_seed() -> None:
    """The others differ by rounding alone, which 4,000 steps may enlarge."""
    (untrained,), (group,) = (circles.run(name, networks=1) for name in ("untrained", "convolution, group"))
    record = {(row["arm"], row["network"]): row for row in results("circles/networks.csv")}
    for key in ("accuracy", "along", "share", "decoys", "reflections", "order-free", "recovered"):
        assert untrained[key] == pytest.approx(float(record["untrained", "0"][key]), abs=2e-3)
    assert group["accuracy"] == pytest.approx(float(record["convolution, group", "0"]["accuracy"]), abs=0.02)
    assert circles.is_whole(group)


EXPLORER = (ROOT / "docs" / "explorer.md").read_text("utf-8")
NO_LONGER = "The same, as a cross-check", "Some change of the image", "Haar coefficients"
"""How claims begin that are on record and no longer measured; removed.md beside the record has them."""


def test_explorer_has_the_claims_on_record() -> None:
    claims = [row for row in results("explorer/claims.csv") if not row["claim"].startswith(NO_LONGER)]
    p = ["-" if row["smallest_p"] == "nan" else f"{float(row['smallest_p']):.2g}" for row in claims]
    assert rows(EXPLORER, "| claim | unit of exchangeability | smallest p | result | verdict |") == [
        [row["claim"], row["unit"], of, row["result"], row["verdict"]] for row, of in zip(claims, p, strict=True)
    ]


def test_explorer_has_the_shares_on_record() -> None:
    shares = {(row["kind"], row["translations"], row["j"]): row for row in results("explorer/translated.csv")}
    apart = next(translations for _, translations, _ in shares if translations != "all")
    agreement = results("explorer/agreement.csv")
    unmoved = {row["j"]: row["same_class"] for row in agreement if (row["kind"], row["tau"]) == ("trained", "0")}

    def shown(kind: str, translations: str, j: str) -> str:
        share, low, high = (100 * float(shares[kind, translations, j][name]) for name in ("same_class", "low", "high"))
        return f"{share:.1f} % [{low:.1f}, {high:.1f}]"

    columns = ("trained", apart), ("random order", apart), ("untrained", apart), ("trained", "all")
    header = "| depth | no translation | translated | axis in random order | untrained, translated | all translations |"
    assert rows(EXPLORER, header) == [
        [j, f"{100 * float(share):.1f} %", *(shown(*column, j) for column in columns)] for j, share in unmoved.items()
    ]
