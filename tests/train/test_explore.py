"""`python -m hcnn explore`: what it writes, and what it refuses in one line."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from tests.train.commands import made_up
from tests.train.runs import SMALL as TRAINED
from tests.train.runs import Outcome, explore_here, run_plainly
from tests.train.test_attribute_features import random_model
from tests.train.test_attribute_translations import CLASSES, planted
from train import explore
from train.attributes import claims, features, pictures, report
from train.attributes.meaning import Finding
from train.attributes.organisation import Comparison
from train.attributes.study import Exactness, Organisation, Settings, Study
from train.attributes.translations import trend
from train.data import Dataset

Command = Callable[..., Outcome]

SMALL = ("--agreement", "20", "--images", "0", "1", "7")


def test_it_writes_a_page_pictures_and_numbers(explored: tuple[Path, Outcome]) -> None:
    folder, outcome = explored
    assert outcome.status == 0
    assert "zero boundaries, for which Proposition 3.1 does not hold" in outcome.err
    assert str(folder / report.PAGE) in outcome.out
    names = {path.name for path in folder.iterdir()}
    assert {report.PAGE, report.JSON, "agreement.png", "layers.png"} <= names
    assert {"matches.csv", "agreement.csv", "findings.csv", "layers.csv", "organisation.csv"} <= names
    assert {"image-00000.png", "image-00007.png"} <= names
    assert not any(name.startswith(".") for name in names)
    page = (folder / report.PAGE).read_text("utf-8")
    assert "Proposition 3.1 does not hold" in page and "no translation is exact" in page
    places = [page.index(f'<section id="{name}"') for name in ("viewer", "exact", "claims", "agreement")]
    assert places == sorted(places)
    exact = page[places[1] :].split("</section>")[0]
    assert exact.index("<details>") < exact.index("<table>") and "<td>30</td>" in exact  # images, not percent
    said = page[page.index("Progressively higher") :].split("</p>")[0].replace("\n", " ")
    # in one paragraph: conclusion and caveat
    assert "chance is" in said and "At the last depth v<sub>j</sub> is the class" in said


def test_numbers_agree_with_one_another(explored: tuple[Path, Outcome], few_images: Dataset) -> None:
    folder, _ = explored
    record = json.loads((folder / report.JSON).read_text("utf-8"))
    assert record["description"]["settings"]["images"] == [0, 1, 7]
    for name in ("matches", "agreement", "translated", "findings", "claims", "layers", "organisation"):
        with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(record[name]) > 0 and list(lines[0]) == list(record[name][0])
    for match in record["matches"]:
        assert match["found_class"] == few_images.class_names[few_images.train_labels[match["found"]]]
        assert match["class"] == few_images.class_names[few_images.train_labels[match["image"]]]
        if match["tau"] == 0 and match["rank"] == 1:
            assert match["found"] == match["image"] and match["distance"] < 1e-3
    taus = {(m["j"], m["image"], m["tau"], m["rank"]) for m in record["matches"]}
    assert taus == {(j, i, tau, r) for j in (3, 4) for i in (0, 1, 7) for tau in range(2) for r in (1, 2, 3)}
    assert record["conclusion"][0].startswith('"Progressively higher probability')
    assert "Kendall's tau with depth not defined" in record["conclusion"][0]  # no sample is left apart at depth 4
    verdicts = {claim["claim"]: claim["verdict"] for claim in record["claims"]}
    compared = [verdict for claim, verdict in verdicts.items() if "keep the class more often than" in claim]
    assert {*compared} == {"cannot be decided"}  # zero boundaries; two samples, each a mean of both


def test_strips_show_the_image_and_the_images_found(explored: tuple[Path, Outcome], few_images: Dataset) -> None:
    folder, _ = explored
    matches = json.loads((folder / report.JSON).read_text("utf-8"))["matches"]
    found = {m["tau"]: m["found"] for m in matches if (m["image"], m["j"], m["rank"]) == (7, 3, 1)}
    picture = np.rint(255 * imread(folder / "image-00007.png")[..., :3]).astype(int)
    for place, index in enumerate([7, found[0], found[1]]):
        left = 60 + place * (pictures.CELL + pictures.GAP)
        cell = picture[pictures.TEXT : pictures.TEXT + pictures.CELL : 2, left : left + pictures.CELL : 2]
        assert np.array_equal(cell, few_images.train_images[index])


def test_other_axes_and_test_images(first_run: Any, few_images: Dataset, tmp_path: Path) -> None:
    outcome = explore_here(
        few_images,
        *(first_run[0] / "best.h5", "--cache", tmp_path, "--axis", "v_j"),
        *("--queries", "test", "--agreement", "9", "--images", "3", "--depths", "4", "--smooth", "1"),
        *("--skip", "meaning", "contraction", "organisation", "--out", tmp_path / "page"),
    )
    assert outcome.status == 0, outcome
    record = json.loads((tmp_path / "page" / report.JSON).read_text("utf-8"))
    assert {m["j"] for m in record["matches"]} == {4}
    assert {m["tau"] for m in record["matches"]} == set(range(10))  # v_j of the last layer is the class
    assert record["matches"][0]["class"] == few_images.class_names[few_images.test_labels[3]]


@pytest.mark.parametrize(
    ("arguments", "status", "fragments"),
    [
        (("--depths", "2"), 2, ("--depths has 2", "3 to 4")),
        (("--depths", "5"), 2, ("--depths has 5",)),
        (("--images", "40"), 2, ("--images has 40", "0 to 39")),
        (("--threshold", "1"), 2, ("--threshold is 1",)),
        (("--axis", "u1"), 2, ("v_{j-1}",)),
        (("--axis", "v_{j-2}"), 2, ("v_{j-2} has 1 sample at depth 3", "--axis")),
        (("--smooth", "0"), 2, ("at least 1",)),
        (("--train-size", "50"), 1, ("--train-size", "50", "choose 1 to 40")),
        (("--train-size", "1"), 1, ("1 image is there to be searched", "2 or more")),
        (("--dataset", "cifar"), 2, ("dataset is 'cifar' (did you mean cifar10?); choose cifar10, cifar100, sample",)),
    ],
)
def test_bad_arguments(
    first_run: Any, few_images: Dataset, tmp_path: Path, arguments: Any, status: int, fragments: Any
) -> None:
    outcome = explore_here(few_images, first_run[0], "--cache", tmp_path, "--out", tmp_path / "p", *arguments)
    assert "--debug" not in outcome.one_line(status, *fragments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_kept(first_run: Any, few_images: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    explore_here(few_images, first_run[0] / "best.h5", "--out", tmp_path).one_line(1, "is there already")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("shape", "flags", "said"),
    [
        ((16, 20), (), "takes images of 16x20x1; only those of RGB"),
        ((1, 20, 3), (), "takes images of 1x20x3; only those of RGB, 2 pixels or more a side"),
        ((16, 16, 3), ("--scattering", 1), "begins with scattering"),
    ],
)
def test_networks_of_other_images(
    few_images: Dataset, tmp_path: Path, shape: tuple[int, ...], flags: tuple[object, ...], said: str
) -> None:
    np.savez(tmp_path / "images.npz", **made_up(shape, 2))
    given = (*TRAINED, "--dataset", tmp_path / "images.npz", "--shift", 0, *flags, "--out", tmp_path / "run")
    run_plainly((*given, "--epochs", 1, "--no-test"), None).success()
    found = explore_here(few_images, tmp_path / "run" / "best.h5", "--out", tmp_path / "p")
    found.one_line(1, said)


@pytest.mark.parametrize("where", ["features", "page"])
def test_a_full_disk(
    first_run: Any, few_images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((features, "_write") if where == "features" else (report, "write_atomically")), full)
    arguments = ("--cache", tmp_path / "cache", "--out", tmp_path / "p", "--skip", *explore.ANALYSES)
    outcome = explore_here(few_images, first_run[0] / "best.h5", *arguments)
    assert outcome.status == 1 and outcome.err.splitlines()[-1].endswith("No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert len(list((tmp_path / "cache").iterdir())) == (0 if where == "features" else 2)


class Planted:
    """Arrays of classes that are translations of one another, at every depth."""

    def __init__(self, arrays: Any) -> None:
        self.of = arrays

    def arrays(self, part: str, j: int) -> Any:
        return self.of


def study_of(few_images: Dataset, arrays: Any, labels: Any, untrained: Any) -> Study:
    dataset = dataclasses.replace(
        few_images,
        train_images=np.zeros((len(labels), 32, 32, 3), np.uint8),
        train_labels=labels.astype(np.int64),
        class_names=few_images.class_names,
    )
    model, any_features = random_model(few_images), Planted(arrays)
    settings = Settings((0, 1), "train", (3, 4, 5, 6, 7), agreement=150)
    study = Study(model, model, any_features, Planted(untrained), dataset, settings)  # type: ignore[arg-type]
    study._agreement()
    return study


def test_a_planted_network_agrees_and_a_random_one_does_by_chance(few_images: Dataset) -> None:
    rng = np.random.default_rng(0)
    arrays, labels = planted(rng, 1000)
    noise = rng.standard_normal(arrays.shape).astype(np.float32)
    found = study_of(few_images, arrays, labels, noise).agreements
    for j in (3, 7):
        assert found["trained"][j].moved == 1
        low, high = found["untrained"][j].mean_interval(range(1, found["untrained"][j].same.shape[1]), rng)
        assert low - 0.05 < 1 / CLASSES < high + 0.05


def test_the_conclusion_says_what_came_out(few_images: Dataset) -> None:
    rng = np.random.default_rng(0)
    arrays, labels = planted(rng, 400)
    study = study_of(few_images, arrays, labels, arrays)
    assert "not shown of this network" in claims.conclusion(study)[0]  # the same at every depth
    trained = study.agreements["trained"]
    for place, j in enumerate(trained):
        same = rng.random(trained[j].same.shape) < 0.2 + 0.15 * place
        trained[j] = dataclasses.replace(trained[j], same=same)
    assert '"Progressively higher probability to belong to the same class": true' in claims.conclusion(study)[0]
    study.agreements["random order"][7] = dataclasses.replace(trained[7], same=np.ones_like(trained[7].same))
    verdicts = {claim.claim: claim.verdict for claim in claims.claims(study)}
    assert next(verdicts[claim] for claim in verdicts if claim.endswith("at depth 7")) == "no, less often"
    few = {kind: {j: a for j, a in found.items() if j > 5} for kind, found in study.agreements.items()}
    study.agreements = few
    assert "cannot be decided of this network" in claims.conclusion(study)[0]


def test_a_trend_that_smoothing_makes_is_none(few_images: Dataset) -> None:
    """Translations by one sample, which smoothing makes like none, keep the class the more often the deeper."""
    rng = np.random.default_rng(0)
    arrays, labels = planted(rng, 400)
    study = study_of(few_images, arrays, labels, arrays)
    trained = study.agreements["trained"]
    for place, j in enumerate(trained):
        same = rng.random(trained[j].same.shape) < 0.3
        same[:, 1] = rng.random(len(same)) < 0.2 + 0.19 * place
        trained[j] = dataclasses.replace(trained[j], same=same)
    assert "not shown of this network" in claims.conclusion(study)[0]
    assert trend([a.moved for a in trained.values()])[1] <= 0.05  # which all translations together say


@pytest.mark.parametrize(("exact", "said"), [(0.5, "yes"), (0.3, "not shown"), (0.1, "no, less often")])
def test_exact_and_aliased_translations_are_compared(few_images: Dataset, exact: float, said: str) -> None:
    rng = np.random.default_rng(0)
    arrays, labels = planted(rng, 400)
    study = study_of(few_images, arrays, labels, arrays)
    study.exactness = [Exactness(j, "v_{j-1}", 8, 1 if j == 7 else 2, 9, 0, 0, 0, 0, 0, 0) for j in range(3, 8)]
    trained = study.unsmoothed["trained"]
    for j in trained:
        same = rng.random(trained[j].same.shape) < 0.3
        same[:, ::2] = rng.random(same[:, ::2].shape) < exact
        same[:, 0] = True  # not asked for: this is no translation
        trained[j] = dataclasses.replace(trained[j], same=same)
    assert claims.claims(study)[1].verdict == said
    depths, *_ = claims.exact_and_aliased(study) or ([],)
    assert depths == [3, 4, 5, 6]  # at depth 7 all are exact


def test_an_effect_of_odd_translations_is_found_though_smoothing_would_hide_it(few_images: Dataset) -> None:
    """Classes come in pairs that an odd translation exchanges: patterns of alternating sign along the axis."""
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=600)
    patterns = rng.standard_normal((2, 8))
    signs = np.where(np.arange(8) % 2, -1.0, 1.0)[:, None]
    alternating = np.where(labels % 2, -1.0, 1.0)[:, None, None] * signs * patterns[labels // 2][:, None]
    arrays = (alternating + 0.1 * rng.standard_normal(alternating.shape)).astype(np.float32)
    noise = rng.standard_normal(arrays.shape).astype(np.float32)
    study = study_of(few_images, arrays, labels, noise)
    study.exactness = [Exactness(j, "v_{j-1}", 8, 2, 9, 0, 0, 0, 0, 0, 0) for j in range(3, 8)]
    of_exact, of_untrained = claims.claims(study)[1:3]
    assert of_exact.verdict == "yes" and "100.0 % against 0.0 %" in of_exact.result
    assert of_untrained.verdict == "not shown" and of_untrained.claim.endswith("in the untrained network")
    study.unsmoothed = study.agreements  # as it was measured before
    assert claims.claims(study)[1].verdict == "not shown"


def test_without_both_kinds_exact_translations_are_not_compared(
    few_images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays, labels = planted(np.random.default_rng(0), 400)
    study = study_of(few_images, arrays, labels, arrays)
    study.exactness = [Exactness(j, "v_{j-1}", 8, 1, 9, 0, 0, 0, 0, 0, 0) for j in range(3, 8)]  # all are exact
    assert claims.exact_and_aliased(study) is None
    study.exactness = [Exactness(j, "v_{j-1}", 8, 2, 9, 0, 0, 0, 0, 0, 0) for j in range(3, 8)]
    assert claims.exact_and_aliased(study) is not None
    monkeypatch.setattr(claims, "boundary_of", lambda model: "zero")  # at which none is
    assert claims.exact_and_aliased(study) is None


def test_what_cannot_be_decided_is_not_counted() -> None:
    def finding(axis: str, p: float) -> Finding:
        return Finding(3, axis, 1, "x", 0.5, math.nan, math.nan, math.nan, 2, p, 0.01)

    def order(measure: str, p: float, smallest: float) -> Organisation:
        return Organisation(3, "v_j", measure, Comparison(1, 0, 1, p, smallest), Comparison(1, 0, 1, 0.5, smallest))

    study: Any = SimpleNamespace(
        findings=[finding("v_j", 0.01), finding("v_j", 0.5), finding("v_j", math.nan), finding("v_{j-1}", math.nan)],
        organisation=[order("seriation", 0.01, 0.001), order("seriation", 0.34, 0.33)],
    )
    assert [claim.result for claim in claims._meaning(study)] == ["1 of 2 tests after correction", "-"]
    (of_order,) = claims._order(study)
    assert of_order.result == "1 of 1 tests after correction, untrained 0"
    table = report._shown(report._organisation(study), "")
    assert table is not None and [line[6] for line in table.lines] == ["0.01", "cannot be decided"]
    by_chance = Organisation(3, "v_j", "seriation", Comparison(1, 0, 1, 0.3, 0.001), Comparison(1, 0, 1, 0.002, 0.001))
    study.organisation = [*study.organisation, by_chance]
    (of_order,) = claims._order(study)
    assert of_order.result == "1 of 2 tests after correction, untrained 1"
