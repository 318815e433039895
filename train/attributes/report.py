"""The explorer's report: one page, pictures as PNG, numbers as JSON and CSV."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.attributes import pictures
from train.attributes.claims import (
    Claim,
    apart,
    claims,
    conclusion,
    exact_and_aliased,
    mean_interval,
    shown_mean,
    shown_share,
)
from train.attributes.contraction import median_interval
from train.attributes.decisions import LEVEL, UNDECIDED
from train.attributes.features import boundary_of
from train.attributes.hubs import interval
from train.attributes.meaning import Finding, strongest
from train.attributes.study import EXAMINED_AT_ONCE, Exactness, Study
from train.attributes.translations import translated
from train.pages import Picture, Table, png, render, strict_json
from train.storage.files import write_atomically

__all__ = ["JSON", "PAGE", "summary", "write"]

PAGE, JSON = "explore.html", "explore.json"

INTERVAL_COLUMNS = ("", "_low", "_high")
"""Endings of the names of columns: a value, and the ends of its 95 % interval."""

ARMS = {"trained": "this network", "random order": "the axis in random order", "untrained": "untrained network"}


def write(folder: Path, study: Study, description: Mapping[str, Any], warning: str) -> None:
    """Write everything into a folder."""
    files: dict[str, bytes] = {}
    if study.matches:
        files |= _strips(study)
    if study.agreements:
        files["agreement.png"] = pictures.agreement_chart(study.agreements)
    if study.layers:
        files["layers.png"] = pictures.layers_chart(study.layers[0])
    sentences = conclusion(study) if study.agreements else []
    tables = {name: table for name, table in _tables(study).items() if table.lines}
    record = {"description": description, **{name: table.records() for name, table in tables.items()}}
    if sentences:
        record["conclusion"] = sentences
    for name, content in files.items():
        write_atomically(folder / name, content)
    for name, table in tables.items():
        write_atomically(folder / f"{name}.csv", table.csv())
    write_atomically(folder / JSON, strict_json(record))
    values = _values(study, description, warning, files, sentences)
    write_atomically(folder / PAGE, render("explore.html", **values, **_shown_tables(study, tables)).encode())


def summary(study: Study) -> list[str]:
    """Return the findings, in some lines for a terminal."""
    lines = []
    for j, matches in study.matches.items():
        if matches.distances.shape[1] == 1:  # no translation
            continue
        near = (matches.distances[:, 1:, 0] <= matches.threshold).mean()
        lines.append(
            f"depth {j:2d}: {100 * near:3.0f} % of the nearest images are closer than {matches.threshold:.3g}, "
            f"a distance that {100 * study.settings.quantile:.3g} % of random pairs reach"
        )
    all_claims = claims(study)
    undecided = sum(claim.verdict == UNDECIDED for claim in all_claims)
    if 2 * undecided > len(all_claims):
        lines.append(
            f"{undecided} of {len(all_claims)} claims cannot be decided: axes of few samples, or few images, have "
            "no small p. A network with longer axes (--width), or a larger --agreement, would do."
        )
    lines += conclusion(study) if study.agreements else []
    return [*lines, *(f"{claim.claim}: {claim.verdict} ({claim.result})" for claim in all_claims)]


def _contrasts(study: Study) -> Table:
    """Exact and aliased translations of this network and of the untrained one, by depth and in the mean."""
    lines: list[tuple[Any, ...]] = []
    for kind in study.unsmoothed:
        if (compared := exact_and_aliased(study, kind)) is not None:
            depths, contrasts, mean = compared
            for j, c in (*zip(depths, contrasts, strict=True), ("mean", mean)):
                lines.append((kind, j, c.first, c.second, c.difference, c.low, c.high, c.images))
    return Table(("kind", "j", "exact", "aliased", "difference", "low", "high", "images_found"), lines)


def _translated(study: Study) -> Table:
    """Shares over all translations and over those that share no sample."""
    lines: list[tuple[Any, ...]] = []
    for kind, of_depth in study.agreements.items():
        for j, a in of_depth.items():
            for name, taus in (("all", range(1, a.same.shape[1])), ("sharing no sample", apart(study, j))):
                lines.append((kind, j, name, a.mean(taus), *mean_interval(study, kind, j, taus)))
    header = ("kind", "j", "translations", "same_class", "low", "high")
    return Table(header, lines)


def _of(cls: type[Any], rows: Iterable[Any]) -> Table:
    """Make a table of dataclasses."""
    return Table([f.name for f in dataclasses.fields(cls)], [dataclasses.astuple(row) for row in rows])


def _organisation(study: Study) -> Table:
    measured = ("value", "random_mean", "random_deviation", "p", "smallest_p")
    lines = [
        (o.j, o.axis, o.measure, *dataclasses.astuple(o.trained), *dataclasses.astuple(o.untrained))
        for o in study.organisation
    ]
    return Table(("j", "axis", "measure", *measured, *(f"untrained_{name}" for name in measured)), lines)


def _matches(study: Study) -> Table:
    names, labels, seen = study.dataset.class_names, study.labels(), study.dataset.train_labels
    header = ("j", "image", "class", "tau", "rank", "found", "found_class", "distance")
    lines: list[tuple[Any, ...]] = []
    for j, m in study.matches.items():
        for row, tau, k in np.ndindex(m.indices.shape):
            query, index, distance = int(m.queries[row]), int(m.indices[row, tau, k]), m.distances[row, tau, k]
            line = (j, query, names[labels[query]], tau, k + 1, index, names[seen[index]], float(distance))
            lines.append((*line, float((m.random <= distance).mean()), m.threshold))
    return Table((*header, "random_pairs_as_close", "threshold"), lines)


def _tables(study: Study) -> dict[str, Table]:
    """Each CSV file."""
    agreement = [
        (kind, j, tau, len(a.same), *(float(v[tau]) for v in (a.share, *a.interval, a.close.mean(0))))
        for kind, of_depth in study.agreements.items()
        for j, a in of_depth.items()
        for tau in range(a.same.shape[1])
    ]
    header = ("kind", "j", "tau", "queries", "same_class", "low", "high", "close")
    return {
        "exactness": _of(Exactness, study.exactness),
        "matches": _matches(study),
        "agreement": Table(header, agreement),
        "findings": _of(Finding, study.findings),
        "translated": _translated(study),
        "exact_and_aliased": _contrasts(study),
        "layers": _layers(study),
        "organisation": _organisation(study),
        "claims": _of(Claim, claims(study)),
    }


def _layers(study: Study) -> Table:
    kinds = ("", "untrained_")
    ratios = [f"{kind}ratio_{of}" for kind in kinds for of in ("within", "between")]
    separation = [f"{kind}mean_distance_between_over_within" for kind in kinds]
    header = (
        *("j", *(name + end for name in ratios for end in INTERVAL_COLUMNS)),
        *("lipschitz_at_most", "lipschitz_at_least", "converged", "nearest_neighbour", "linear"),
        *("untrained_nearest_neighbour", "untrained_linear", "smallest_distance_between_classes"),
        *(name + end for name in separation for end in INTERVAL_COLUMNS),
    )
    if not study.layers:
        return Table(header, [])
    layers = study.layers[0]
    pairs = (layers.pairs, layers.untrained_pairs)
    medians = [np.stack([np.median(r, axis=0), *median_interval(r)]) for p in pairs for r in p.ratios]
    rng = np.random.default_rng(study.settings.seed)
    separations = [np.stack([p.separation, *interval(p.separation_samples(rng))]) for p in pairs]
    lines: list[tuple[Any, ...]] = []
    for j, (probes, untrained, distance) in enumerate(
        zip(layers.probes, layers.untrained_probes, layers.separation, strict=True)
    ):
        cells: tuple[Any, ...] = ("",) * (len(INTERVAL_COLUMNS) * len(ratios) + 3)
        if j:
            gain = layers.gains[j - 1]
            cells = (*(float(v) for m in medians for v in m[:, j - 1]), gain.upper, gain.local, gain.converged)
        means = (float(v) for of in separations for v in of[:, j])
        lines.append((j, *cells, *probes, *untrained, distance, *means))
    return Table(header, lines)


def _strips(study: Study) -> dict[str, bytes]:
    """Draw the paper's figures by file name: 3, two images at the last depth; 4, each image at every depth."""
    files = {}
    last, labels = study.settings.depths[-1], study.labels()
    queries = study.matches[last].queries
    for row, query in enumerate(queries):
        twin = next((r for r in range(len(queries)) if r != row and labels[queries[r]] == labels[query]), None)
        if twin is not None and "figure3.png" not in files:
            files["figure3.png"] = pictures.strips(study, [(row, last), (twin, last)])
        files[f"image-{query:05d}.png"] = pictures.strips(study, [(row, j) for j in study.settings.depths])
    return files


TITLES = {
    **{"j": "depth j", "tau": "translation", "length": "samples", "multiple": "exact multiples of"},
    **{"error": "largest change, exact", "bound": "rounding explains", "change": "others, median [range]"},
    **{"classes": "images of another class", "name": "property", "unit": "unit of exchangeability"},
}
"""Names of columns in words, where it is not the name itself."""


def _shown(table: Table, label: str, *left_out: str) -> Table | None:
    """Return a table as the page shows it: intervals beside values, and where no p decides, that it does not."""
    if not table.lines:
        return None
    names = [name for name in table.header if not name.endswith(("low", "high")) and name not in left_out]
    ends = dict(zip(table.header, zip(table.header[1:], table.header[2:], strict=False), strict=False))

    def number(value: Any) -> str:
        if isinstance(value, bool | np.bool_):
            return "yes" if value else "no"
        return str(value) if not isinstance(value, float) else "-" if math.isnan(value) else f"{value:.3g}"

    def cell(record: Mapping[str, Any], name: str) -> str:
        if name in ("p", "untrained_p") and (record[name[:-1] + "smallest_p"] > LEVEL or math.isnan(record[name])):
            return "cannot be decided"
        low, high = (record[end] if end.endswith(("low", "high")) else "" for end in ends.get(name, ("", "")))
        interval = isinstance(low, float) and isinstance(high, float) and not math.isnan(low)
        return number(record[name]) + (f" [{number(low)}, {number(high)}]" if interval else "")

    lines = [[cell(record, name) for name in names] for record in table.records()]
    return Table([TITLES.get(name, name.replace("_", " ")) for name in names], lines, label)


def _shown_tables(study: Study, tables: Mapping[str, Table]) -> dict[str, Table | None]:
    """Return the tables of the page that show what a CSV file holds."""
    nothing = Table([], [])
    exactness, contrast, claimed = (tables.get(name, nothing) for name in ("exactness", "exact_and_aliased", "claims"))
    contrast = Table(contrast.header, [line for line in contrast.lines if line[0] == "trained"])
    changes = "Which translations are exact, and the largest relative change of the logits"
    same = "Probability of the same class, by exact and by aliased translations of arrays that are not smoothed"
    said = "What was claimed, what a test takes for independent, and what came of it"
    strong = _of(Finding, strongest(study.findings))
    periodic = boundary_of(study.model) == "periodic"
    return {
        "exactness": _shown(exactness, changes, *(() if periodic else ("multiple",))) or nothing,
        "claims": _shown(claimed, said),
        "contrast": _shown(contrast, same, "kind"),
        "findings": _shown(strong, "The strongest relation of each depth and axis"),
        "layers_table": _shown(tables.get("layers", nothing), "Layer by layer"),
        "organisation": _shown(tables.get("organisation", nothing), "Order along the attributes"),
    }


def _values(
    study: Study, description: Mapping[str, Any], warning: str, files: Mapping[str, bytes], sentences: Sequence[str]
) -> dict[str, Any]:
    """Return the values that the page shows."""
    return {
        "axis": study.settings.axis,
        "warning": warning if boundary_of(study.model) == "zero" else "",
        "boundary": boundary_of(study.model),
        "description": description,
        "settings": study.settings,
        "examined": max((e.images for e in study.exactness), default=0),
        "at_once": EXAMINED_AT_ONCE,
        "viewer": _viewer(study) if study.matches else None,
        "figure3": _picture(files, "figure3.png", _strip_alt(study)),
        "conclusion": sentences,
        "classes_at_last": study.settings.axis == "v_{j-1}" and study.settings.depths[-1] == study.model.depths[-1],
        "agreement": _picture(files, "agreement.png", " ".join(sentences)),
        "agreement_table": _agreement_table(study),
        "layers": _picture(files, "layers.png", "Ratios of distances and accuracies of probes over depth, as below."),
    }


def _picture(files: Mapping[str, bytes], name: str, alt: str) -> Picture | None:
    return Picture(files[name], alt) if name in files else None


def _strip_alt(study: Study) -> str:
    if not study.matches:
        return ""
    names, last = study.dataset.class_names, study.settings.depths[-1]
    matches = study.matches[last]
    lines = [
        f"{names[study.labels()[q]]} {q}: "
        + ", ".join(names[study.dataset.train_labels[i]] for i in matches.indices[row, :, 0])
        for row, q in enumerate(matches.queries[:2])
    ]
    return f"Images found by translations at depth {last}. " + ". ".join(lines) + "."


def _viewer(study: Study) -> dict[str, Any]:
    """Return the data of the page's script: pictures as data URIs, and the images found by image, depth and tau."""
    data, names, labels = study.dataset, study.dataset.class_names, study.labels()
    shown = sorted({int(i) for m in study.matches.values() for i in m.indices[:, :, 0].ravel()})
    queries: list[dict[str, Any]] = [
        {"index": int(q), "label": names[labels[q]], "image": Picture(png(study.images()[q]), "").uri, "depths": {}}
        for q in study.settings.images
    ]
    scales = {}
    for j, m in study.matches.items():
        low, high = pictures.limits(m)
        scales[j] = [f"{low:.3g}", f"{high:.3g}"]

        def array(values: np.ndarray[Any, Any], low: float = low, high: float = high) -> str:
            return Picture(png(values, low=low, high=high), "").uri

        moved = translated(m.arrays, boundary_of(study.model))
        for row, query in enumerate(queries):
            query["depths"][j] = [
                {
                    "moved": array(moved[row, tau]),
                    "array": array(m.found_arrays[row, tau]),
                    "small": bool(m.distances[row, tau, 0] <= m.threshold),
                    "closer": f"{100 * (m.random <= m.distances[row, tau, 0]).mean():.3g}",
                    "found": [
                        [int(i), names[data.train_labels[i]], f"{d:.3g}"]
                        for i, d in zip(m.indices[row, tau], m.distances[row, tau], strict=True)
                    ],
                }
                for tau in range(m.indices.shape[1])
            ]
    return {
        "queries": queries,
        "images": {i: Picture(png(data.train_images[i]), "").uri for i in shown},
        "depths": list(study.matches),
        "scales": scales,
        "set": "training" if study.settings.queries == "train" else "test",
    }


def _agreement_table(study: Study) -> Table | None:
    if not study.agreements:
        return None
    lines = []
    for j, agreement in study.agreements["trained"].items():
        cells = [str(j), shown_share(float(agreement.share[0]))]
        cells += [shown_mean(study, kind, j, apart(study, j)) for kind in ARMS]
        cells.append(shown_mean(study, "trained", j, range(1, agreement.same.shape[1])))
        cells.append(shown_share(float(agreement.close[:, 1:].mean()) if agreement.close.shape[1] > 1 else math.nan))
        lines.append(cells)
    header = (
        *("depth j", "no translation", *(f"translated, {name}" for name in ARMS.values())),
        *("all translations, this network", "small distance"),
    )
    return Table(header, lines, "Probability of the same class, by depth")
