"""What the explorer measured: one page, pictures as PNG, numbers as JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.attributes import pictures
from train.attributes.features import boundary_of
from train.attributes.hubs import FEWEST, Hubness, hubness
from train.attributes.meaning import LEVEL, Finding, strongest
from train.attributes.study import Study
from train.attributes.translations import Agreement, Contrast, contrast, sharing_no_sample, translated, trend
from train.attributes.units import first_filters, patch_of, receptive_field
from train.networks.hierarchical import hierarchy
from train.pages import Picture, Scale, Table, png, render
from train.storage.files import write_atomically

__all__ = ["JSON", "PAGE", "conclusion", "summary", "write"]

PAGE, JSON = "explore.html", "explore.json"

KINDS = {"trained": "this network", "random order": "the axis in random order", "untrained": "untrained network"}


def write(folder: Path, study: Study, description: Mapping[str, Any], warning: str) -> None:
    """Write everything into a folder."""
    files: dict[str, bytes] = {}
    if study.matches:
        files |= _strips(study)
    if study.agreements:
        files["agreement.png"] = pictures.agreement_chart(study.agreements)
    if study.layers:
        files["layers.png"] = pictures.layers_chart(study.layers[0])
    if study.units:
        files["first-filters.png"] = pictures.tiles(first_filters(study.model), 8)
        for units in study.units:
            limit = float(np.abs(units.filters).max()) or 1.0
            files[f"filters-{units.j:02d}.png"] = pictures.tiles(pictures.coloured(units.filters, limit), 8)
            files[f"units-{units.j:02d}.png"] = pictures.tiles(units.images / 255, len(units.images))
    tables = {name: table for name, table in _tables(study).items() if table[1]}
    record = {"description": description, **{name: _records(*table) for name, table in tables.items()}}
    if study.agreements:
        record["conclusion"] = conclusion(study)
    for name, content in files.items():
        write_atomically(folder / name, content)
    for name, (header, lines) in tables.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *lines])
        write_atomically(folder / f"{name}.csv", text.getvalue().encode(errors="backslashreplace"))
    text_of_json = json.dumps(_plain(record), indent=1, allow_nan=False)
    write_atomically(folder / JSON, text_of_json.encode(errors="backslashreplace"))
    shown = render("explore.html", **_values(study, description, warning, files))
    write_atomically(folder / PAGE, shown.encode())


def summary(study: Study) -> list[str]:
    """Return what was found, in some lines for a terminal."""
    lines = []
    for j, found in study.matches.items():
        near = (found.distances[:, 1:, 0] <= found.threshold).mean() if found.distances.shape[1] > 1 else math.nan
        lines.append(
            f"depth {j:2d}: {100 * near:3.0f} % of the nearest images of translated arrays are within "
            f"{found.threshold:.3g}, as {100 * study.settings.quantile:.3g} % of random pairs are"
        )
    return lines + (conclusion(study) if study.agreements else []) + _verdicts(study) + _orders(study)


def conclusion(study: Study) -> list[str]:
    """Return whether translations keep the class, and more often the deeper they are made, in words."""
    trained = study.agreements["trained"]
    depths = list(trained)
    first, last = depths[0], depths[-1]

    def percent(kind: str, j: int) -> str:
        return _moved(study, kind, j, _apart(study, j))

    values = [trained[j].mean(_apart(study, j)) for j in depths]
    (statistic, p), (statistic_of_all, p_of_all) = trend(values), trend([trained[j].moved for j in depths])
    starts, ends = (_interval(study, "trained", j, _apart(study, j)) for j in (first, last))
    rises = statistic > 0 and p <= LEVEL and ends[0] > starts[1]
    # the p of perfect order
    decided = 2 / math.factorial(len(depths)) <= LEVEL and not any(map(math.isnan, values))
    claim = "cannot be decided of" if not decided else "true of" if rises else "not true of"
    lines = [
        *_exact_against_aliased(study),
        f'"Progressively higher probability to belong to the same class": {claim} this network. Over translations that '
        f"share no sample with what was translated it is {percent('trained', first)} at depth {first} and "
        f"{percent('trained', last)} at depth {last}; Kendall's tau with depth {statistic:.2f}, p = {p:.2g}. Over all "
        f"translations, {statistic_of_all:.2f}, p = {p_of_all:.2g}.",
        f"Without a translation the nearest image has the class in {100 * float(trained[last].share[0]):.1f} % of the "
        f"cases at depth {last}; with the axis in random order {percent('random order', last)}; in the untrained "
        f"network {percent('untrained', last)}; chance is {100 / len(study.dataset.class_names):.1f} %.",
    ]
    low, high = ends
    other_low, other_high = _interval(study, "random order", last, _apart(study, last))
    if math.isnan(low):
        return [
            *lines,
            f"At depth {last} every translation shares samples with what was translated; nothing is decided.",
        ]
    verdict = "more often than" if low > other_high else "less often than" if high < other_low else "about as often as"
    lines.append(
        f"At depth {last}, translations keep the class {verdict} the same steps along the axis in random order."
    )
    return lines


def _apart(study: Study, j: int) -> list[int]:
    """Translations at a depth that share no sample with what was translated."""
    steps = study.agreements["trained"][j].same.shape[1]
    return sharing_no_sample(steps, study.settings.width, boundary_of(study.model))


def _exact_and_aliased(study: Study) -> tuple[list[int], list[Contrast], Contrast] | None:
    """Depths at which some of these are exact and others not, and how both keep the class; None if there is none."""
    multiples = {e.j: e.multiple for e in study.exactness if e.axis == study.settings.axis}
    pairs: list[tuple[Agreement, list[int], list[int]]] = []
    for j, measured in study.agreements["trained"].items():
        if boundary_of(study.model) == "periodic" and j in multiples:
            exact, others = ([t for t in _apart(study, j) if (t % multiples[j] == 0) is kind] for kind in (True, False))
            if exact and others:
                pairs.append((measured, exact, others))
    if not pairs:
        return None
    return [measured.j for measured, *_ in pairs], *contrast(pairs, np.random.default_rng(study.settings.seed))


def _exact_against_aliased(study: Study) -> list[str]:
    found = _exact_and_aliased(study)
    if found is None:
        return ["Exact translations cannot be compared with aliased ones: at no depth are there both."]
    depths, _, mean = found
    verdict = "more often than" if mean.low > 0 else "less often than" if mean.high < 0 else "about as often as"
    return [
        f"Exact translations keep the class {verdict} aliased ones: in {100 * mean.first:.1f} % and "
        f"{100 * mean.second:.1f} % of the cases, a difference of {100 * mean.difference:+.1f} "
        f"[{100 * mean.low:+.1f}, {100 * mean.high:+.1f}] points, in the mean of depths "
        f"{', '.join(map(str, depths))} and over translations that share no sample with what was translated."
    ]


def _contrast_table(study: Study) -> Table | None:
    found = _exact_and_aliased(study) if study.agreements else None
    if found is None:
        return None
    depths, contrasts, mean = found
    lines = [
        [
            name,
            _percent(c.first),
            _percent(c.second),
            f"{100 * c.difference:+.1f} [{100 * c.low:+.1f}, {100 * c.high:+.1f}]",
        ]
        for name, c in (*zip(map(str, depths), contrasts, strict=True), ("mean", mean))
    ]
    return Table(
        ("depth j", "exact", "aliased", "difference, points"),
        lines,
        "Probability of the same class, by exact and by aliased translations that share no sample",
    )


def _interval(study: Study, kind: str, j: int, taus: Sequence[int]) -> tuple[float, float]:
    """The same ends wherever they are shown."""
    return study.agreements[kind][j].mean_interval(taus, np.random.default_rng(study.settings.seed))


def _moved(study: Study, kind: str, j: int, taus: Sequence[int]) -> str:
    low, high = _interval(study, kind, j, taus)
    mean = _percent(study.agreements[kind][j].mean(taus))
    return mean if math.isnan(low) else f"{mean} [{100 * low:.1f}, {100 * high:.1f}]"


def _translated_lines(study: Study) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Shares over all translations and over those that share no sample, with both intervals."""
    lines: list[tuple[Any, ...]] = []
    for kind, of_depth in study.agreements.items():
        for j, a in of_depth.items():
            for name, taus in (("all", range(1, a.same.shape[1])), ("sharing no sample", _apart(study, j))):
                alone = a.mean_interval_of_queries(taus, np.random.default_rng(study.settings.seed))
                lines.append((kind, j, name, a.mean(taus), *_interval(study, kind, j, taus), *alone))
    header = ("kind", "j", "translations", "same_class", "low", "high", "low_of_queries", "high_of_queries")
    return header, lines


def _hubness_lines(study: Study) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    many = len(study.dataset.train_images)
    return ("kind", "j", "tau", *(f.name for f in dataclasses.fields(Hubness))), [
        (kind, j, tau, *dataclasses.astuple(hubness(a.found[:, tau], many)))
        for kind, of_depth in study.agreements.items()
        for j, a in of_depth.items()
        for tau in range(a.found.shape[1])
    ]


def _hubness_table(study: Study) -> Table | None:
    if not study.agreements:
        return None
    many = len(study.dataset.train_images)
    lines = []
    for j in study.agreements["trained"]:
        cells = [str(j)]
        for kind in KINDS:
            still, *moved = (hubness(found, many) for found in study.agreements[kind][j].found.T)
            cells.append(f"{still.effective:.0f}")
            cells.append(
                f"{min(h.effective for h in moved):.0f} to {max(h.effective for h in moved):.0f}" if moved else "-"
            )
        lines.append(cells)
    header = ("depth j", *(cell for name in KINDS.values() for cell in (f"{name}, no translation", "translated")))
    return Table(header, lines, "Effective number of different images found")


def _tables(study: Study) -> dict[str, tuple[tuple[str, ...], list[tuple[Any, ...]]]]:
    """Header and lines of each CSV file."""
    names, labels = study.dataset.class_names, study.labels()
    found: dict[str, tuple[tuple[str, ...], list[tuple[Any, ...]]]] = {
        "exactness": (
            tuple(f.name for f in dataclasses.fields(study.exactness[0])) if study.exactness else (),
            [dataclasses.astuple(row) for row in study.exactness],
        )
    }
    lines: list[tuple[Any, ...]] = []
    for j, m in study.matches.items():
        for row, query in enumerate(m.queries):
            for tau in range(m.indices.shape[1]):
                for place, (index, distance) in enumerate(
                    zip(m.indices[row, tau], m.distances[row, tau], strict=True), 1
                ):
                    closer = float((m.random <= distance).mean())
                    own = int(m.rank[row, tau]) if m.rank is not None else ""
                    image = int(index), names[study.dataset.train_labels[index]]
                    lines.append(
                        (
                            j,
                            int(query),
                            names[labels[query]],
                            tau,
                            place,
                            *image,
                            float(distance),
                            closer,
                            m.threshold,
                            own,
                        )
                    )
    header = ("j", "image", "class", "tau", "rank", "found", "found_class", "distance")
    found["matches"] = (*header, "random_pairs_as_close", "threshold", "rank_of_image"), lines
    lines = [
        (kind, j, tau, len(a.same), *(float(v[tau]) for v in (a.share, *a.interval, a.close.mean(0), a.share_of_close)))
        for kind, of_depth in study.agreements.items()
        for j, a in of_depth.items()
        for tau in range(a.same.shape[1])
    ]
    found["agreement"] = (
        ("kind", "j", "tau", "queries", "same_class", "low", "high", "close", "same_class_of_close"),
        lines,
    )
    found["findings"] = (
        tuple(f.name for f in dataclasses.fields(Finding)),
        [dataclasses.astuple(finding) for finding in study.findings],
    )
    found["translated"] = _translated_lines(study)
    found["hubness"] = _hubness_lines(study)
    found["layers"] = _layer_lines(study)
    found["organisation"] = (
        (
            *("j", "axis", "measure", "value", "random_mean", "random_deviation", "p", "smallest_p"),
            *("untrained_value", "untrained_random_mean", "untrained_random_deviation", "untrained_p"),
            "untrained_smallest_p",
        ),
        [
            (o.j, o.axis, o.measure, *dataclasses.astuple(o.trained), *dataclasses.astuple(o.untrained))
            for o in study.organisation
        ],
    )
    return found


def _layer_lines(study: Study) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    header = (
        *("j", "ratio_within", "ratio_between", "untrained_ratio_within", "untrained_ratio_between"),
        *("lipschitz_at_most", "lipschitz_at_least", "converged", "nearest_neighbour", "linear"),
        *("untrained_nearest_neighbour", "untrained_linear", "smallest_distance_between_classes"),
        *("mean_distance_between_over_within", "untrained_mean_distance_between_over_within"),
    )
    if not study.layers:
        return header, []
    layers = study.layers[0]
    ratios = [np.median(r, axis=0) for p in (layers.pairs, layers.untrained_pairs) for r in p.ratios]
    lines: list[tuple[Any, ...]] = []
    for j, (probes, untrained, (distance, _)) in enumerate(
        zip(layers.probes, layers.untrained_probes, layers.separation, strict=True)
    ):
        own: tuple[Any, ...] = ("",) * 7
        if j:
            gain = layers.gains[j - 1]
            own = (*(float(r[j - 1]) for r in ratios), gain.upper, gain.local, gain.converged)
        apart = (float(p.between[:, j].mean() / p.within[:, j].mean()) for p in (layers.pairs, layers.untrained_pairs))
        lines.append((j, *own, *probes, *untrained, distance, *apart))
    return header, lines


def _records(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(header, line, strict=True)) for line in lines]


def _plain(value: Any) -> Any:
    """What strict JSON can say of a value; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _strips(study: Study) -> dict[str, bytes]:
    """The paper's figures by file name: Figure 3, two images at the last depth; Figure 4, each image at every depth."""
    files = {}
    last, labels = study.settings.depths[-1], study.labels()
    queries = study.matches[last].queries
    for row, query in enumerate(queries):
        twin = next((r for r in range(len(queries)) if r != row and labels[queries[r]] == labels[query]), None)
        if twin is not None and "figure3.png" not in files:
            files["figure3.png"] = pictures.strips(study, [(row, last), (twin, last)])
        files[f"image-{query:05d}.png"] = pictures.strips(study, [(row, j) for j in study.settings.depths])
    return files


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def _scientific(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1e}"


def _values(study: Study, description: Mapping[str, Any], warning: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """What the page shows."""
    names = study.dataset.class_names
    return {
        "axis": study.settings.axis,
        "warning": warning if boundary_of(study.model) == "zero" else "",
        "boundary": boundary_of(study.model),
        "description": description,
        "settings": study.settings,
        "exactness": Table(
            (
                "depth j",
                "axis",
                "samples",
                "exact multiples of",
                "largest change, exact",
                "rounding explains",
                "largest change, others",
                "other class",
            ),
            [
                (
                    str(e.j),
                    e.axis,
                    str(e.length),
                    str(e.multiple) if boundary_of(study.model) == "periodic" else "-",
                    *map(_scientific, (e.error, e.bound, e.change)),
                    _percent(e.classes),
                )
                for e in study.exactness
            ],
            "Which translations are exact, and the largest relative change of the logits",
        ),
        "viewer": _viewer(study) if study.matches else None,
        "figure3": _picture(files, "figure3.png", _strip_alt(study)),
        "conclusion": conclusion(study) if study.agreements else [],
        "agreement": _picture(files, "agreement.png", " ".join(conclusion(study)) if study.agreements else ""),
        "agreement_table": _agreement_table(study),
        "contrast": _contrast_table(study),
        "hubness": _hubness_table(study),
        "fewest": FEWEST,
        "findings": _finding_table(study),
        "verdicts": _verdicts(study),
        "layers": _picture(
            files,
            "layers.png",
            "Ratios of distances and accuracies of probes over depth; the table below has the numbers.",
        ),
        "layers_table": _layers_table(study),
        "organisation": _organisation_table(study),
        "orders": _orders(study),
        "first_filters": _picture(
            files,
            "first-filters.png",
            f"The {hierarchy(study.model.network)[0].filters} filters of the first layer in colour.",
        ),
        "units": [
            {
                "j": units.j,
                "field": receptive_field(hierarchy(study.model.network), units.j)[0],
                "filters": _picture(
                    files,
                    f"filters-{units.j:02d}.png",
                    f"The {len(units.filters)} filters of layer {units.j} along v_{{j-2}} (down) and v_{{j-1}} "
                    f"(across), {units.filters.shape[1]} by {units.filters.shape[2]} taps.",
                ),
                "scale": Scale.of(
                    "RdBu_r",
                    "filter coefficient",
                    [f"{v:.2g}" for v in np.linspace(-1, 1, 3) * np.abs(units.filters).max()],
                ),
                "made": [
                    Picture(png(image), f"Image made to excite the unit {unit} of depth {units.j}.", f"{value:.3g}")
                    for image, unit, value in zip(units.images, units.units, units.activations, strict=True)
                ],
                "found": [
                    [
                        Picture(
                            png(
                                patch_of(
                                    study.dataset.train_images[i],
                                    hierarchy(study.model.network),
                                    units.j,
                                    study.settings.position,
                                )
                            ),
                            f"{names[study.dataset.train_labels[i]]}, training image {i}",
                            f"{names[study.dataset.train_labels[i]]}, {value:.3g}",
                        )
                        for i, value in zip(found, values, strict=True)
                    ]
                    for found, values in zip(units.found, units.found_activations, strict=True)
                ],
                "column": units.units[0][1],
            }
            for units in study.units
        ],
    }


def _picture(files: Mapping[str, bytes], name: str, alt: str) -> Picture | None:
    return Picture(files[name], alt) if name in files else None


def _strip_alt(study: Study) -> str:
    if not study.matches:
        return ""
    names, last = study.dataset.class_names, study.settings.depths[-1]
    found = study.matches[last]
    lines = [
        f"{names[study.labels()[q]]} {q}: "
        + ", ".join(names[study.dataset.train_labels[i]] for i in found.indices[row, :, 0])
        for row, q in enumerate(found.queries[:2])
    ]
    return f"Images found by translations at depth {last}. " + ". ".join(lines) + "."


def _viewer(study: Study) -> dict[str, Any]:
    """What the script of the page needs: pictures as data URIs, and for each image, depth and tau what was found."""
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
                    "rank": int(m.rank[row, tau]) if m.rank is not None else None,
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
    for j, own in study.agreements["trained"].items():
        cells = [str(j), _percent(float(own.share[0]))]
        cells += [_moved(study, kind, j, _apart(study, j)) for kind in KINDS]
        cells.append(_moved(study, "trained", j, range(1, own.same.shape[1])))
        cells.append(_percent(float(own.close[:, 1:].mean()) if own.close.shape[1] > 1 else math.nan))
        lines.append(cells)
    header = (
        *("depth j", "no translation", *(f"translated, {name}" for name in KINDS.values())),
        *("all translations, this network", "small distance"),
    )
    return Table(header, lines, "Probability of the same class, by depth")


def _finding_table(study: Study) -> Table | None:
    if not study.findings:
        return None
    lines = [
        (
            *(f.question, str(f.j), f.axis, str(f.tau), f.name),
            f"{f.effect:+.3f}" + ("" if math.isnan(f.low) else f" [{f.low:+.3f}, {f.high:+.3f}]"),
            "-" if math.isnan(f.images) else f"{f.images:.0f}",
            f"{f.score:+.1f}",
            _p(f.p, f.decided),
            f"{f.smallest_p:.2g}",
        )
        for f in strongest(study.findings)
    ]
    header = (
        *("question", "depth j", "axis", "translation", "property or change", "effect", "images", "score"),
        *("corrected p", "smallest possible p"),
    )
    return Table(header, lines, "The strongest relation of each depth and axis")


def _p(p: float, decided: bool) -> str:
    return f"{p:.2g}" if decided else "cannot be decided"


def _verdicts(study: Study) -> list[str]:
    """How many tests of properties found something, of those that could."""
    lines = []
    for question, axis in dict.fromkeys((f.question, f.axis) for f in study.findings):
        own = [f for f in study.findings if (f.question, f.axis) == (question, axis)]
        decided, significant = sum(f.decided for f in own), sum(f.significant for f in own)
        found = f"{significant} of {decided} tests are significant after correction"
        lines.append(f"{question.capitalize()}, {axis}: {_counted(found, decided, len(own))}")
    return lines


def _counted(found: str, decided: int, tried: int) -> str:
    """What tests found, and how many could not."""
    if not decided:
        return f"none of {tried} tests can be decided."
    return found + (f"; {tried - decided} more cannot be decided." if decided < tried else ".")


def _layers_table(study: Study) -> Table | None:
    header, lines = _layer_lines(study)
    if not lines:
        return None

    def cell(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return Table(
        [name.replace("_", " ") for name in header], [[cell(v) for v in line] for line in lines], "Layer by layer"
    )


def _orders(study: Study) -> list[str]:
    """How many measures of order found something, of those that could."""
    lines = []
    for measure in dict.fromkeys(o.measure for o in study.organisation):
        own = [o for o in study.organisation if o.measure == measure]
        decided = [o for o in own if o.trained.smallest_p <= LEVEL]
        trained, untrained = (sum(getattr(o, kind).p <= LEVEL for o in decided) for kind in ("trained", "untrained"))
        found = f"{trained} of {len(decided)} are more organised than chance at p <= 0.05, untrained {untrained}"
        lines.append(f"{measure.capitalize()}: {_counted(found, len(decided), len(own))}")
    return lines


def _organisation_table(study: Study) -> Table | None:
    if not study.organisation:
        return None
    lines = [
        (str(o.j), o.axis, o.measure, *(cell for c in (o.trained, o.untrained) for cell in (
            f"{c.value:.3f}", f"{c.mean:.3f} ± {c.deviation:.3f}", _p(c.p, c.smallest_p <= LEVEL))))
        for o in study.organisation
    ]  # fmt: skip
    header = ("depth j", "axis", "measure", "value", "in random order", "p", "untrained", "in random order", "p")
    return Table(header, lines, "Order along the attributes")
