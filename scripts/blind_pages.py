"""See whether a page of the gallery looks at its test set before everything is fitted and chosen.

``python scripts/blind_pages.py [PAGE ...]`` runs each page twice at its small size, the second time with noise in the
place of its test inputs and labels. Whatever is given to a fit, what comes out of it, and each chosen setting must be
the same bits. Assertions of the page are left out, since noise fails them. A page that trains on its test set, chooses
by it or takes statistics of it is named, and the status is 1. So is one whose linear classifier is tested on samples
that it was trained on, as a held-out set may be. What a result is compared with counts as a test set too: on page 10
the start of a descent must not know the series, on page 26 descents get the moments of the signal and no more of it.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import random
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.pipeline import Pipeline

import train
import train.networks.linear
import wavelets
from scripts.pages import pages

ROOT = Path(__file__).resolve().parents[1]

RESULTS = ((np.linalg, "solve"), (np.linalg, "lstsq"), (train, "fit"))
RESULTS += tuple((wavelets, name) for name in ("adam", "learn_dictionary", "momentum", "principal_components"))
"""Functions that fit, whose results are compared."""

ARGUMENTS = ((train.networks.linear, "linear_accuracy"), (Pipeline, "fit"), (wavelets, "lbfgs"))
"""Functions that fit, whose training samples and targets are compared; for lbfgs the start of its descent."""

SHARED = "linear_accuracy is tested on samples that it was trained on"


class Page(NamedTuple):
    """How one page is blinded, and what it chooses."""

    number: str
    chosen: str = "()"  # an expression, evaluated when the page has ended
    after: str = ""  # a line of the page, after which noise takes the place of what it tests on
    blind: str = ""  # by this statement. Test images of the sample are noise on every page


PAGES = (
    Page("10", "()", "    x = multifractal_noise(length, 2 * lambda2", "    x = noise(x)"),
    Page("11", "learned", "tested = draw(500)", "tested = 1e-6 * noise(tested)"),
    Page("12"),
    Page("14", "[pair[0] for runs in every.values() for found in runs for pair in found.values()]"),
    Page("20", "classifier"),
    Page("21", "tau"),
    Page("23", "()", "labels = np.tile(np.arange(len(kinds)), count)", "noise_from(4 * sizes[-1], images, labels)"),
    Page(
        *("24", "()", "z = {kind: wavelet_transform(x, bank, -1)[1][..., 0] for kind, x in signals.items()}"),
        "for a in z.values(): a[~is_known] = noise(a[~is_known])",
    ),
    Page(
        *("25", "()", "    jumps = octaves(signals(200)), octaves(signals(150))"),
        "    jumps = jumps[0], [noise(a) for a in jumps[1]]",
    ),
    Page("26", "(y, picture)", "    y = None", "    x = noise(x)"),
    Page(
        *("29", "()", "    images = np.stack([texture(kind) for kind in labels]).astype(np.float32)"),
        "    noise_from(count, images)",
    ),
    Page(
        *("40", "()", "x = density(u)"),
        "for a in (x, *energies.values()): a[:tested] = noise(a[:tested])",
    ),
    Page("41"),
)


def noise(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array of the shape, dtype and range of another that has nothing else of it."""
    rng = np.random.default_rng(x.size)
    if np.issubdtype(x.dtype, np.integer):
        return rng.integers(x.min(), x.max(), x.shape, x.dtype, endpoint=True)
    z = rng.standard_normal(x.shape) + (1j * rng.standard_normal(x.shape) if x.dtype.kind == "c" else 0)
    return z.astype(x.dtype)


def noise_from(start: int, *arrays: np.ndarray[Any, Any]) -> None:
    """Write noise over the samples of arrays from one on."""
    for x in arrays:
        x[start:] = noise(x[start:])


def shares(trained: np.ndarray[Any, Any], tested: np.ndarray[Any, Any]) -> bool:
    """Say whether samples (N, d) are among others, but for rounding, which may depend on the batch: in 8 directions."""
    directions = np.random.default_rng(0).standard_normal((trained.shape[1], 8))
    a, b = trained @ directions, tested @ directions
    return bool(cdist(a, b).min() < 1e-4 * a.std())


def leaves(value: Any) -> Iterator[bytes]:
    """Yield the bytes of the arrays and numbers in nested containers."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield np.asarray(value).tobytes()


def fits_of(path: Path, page: Page, *, blind: bool) -> list[str]:
    """Run a page; return digests of what each fit got or made, in order, and of what was chosen, and `SHARED`."""
    digests: list[str] = []

    def record(where: str, value: Any) -> None:
        if isinstance(value, train.Classifier):
            value = value.checkpoint.state.evaluated
        digests.append(f"{where} {hashlib.sha256(b''.join(leaves(value))).hexdigest()[:12]}")

    def recorded(owner: Any, name: str, takes: bool) -> Any:
        function = getattr(owner, name)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if name == "linear_accuracy" and shares(*(np.reshape(args[i], (len(args[i]), -1)) for i in (0, 2))):
                digests.append(SHARED)
            result = function(*args, **options)
            first = 1 if name == "lbfgs" else 0
            record(name, args[-2:] if owner is Pipeline else args[first:2] if takes else result)
            return result

        return patch.object(owner, name, call)

    load = train.load_dataset

    def blinded(*args: Any, **options: Any) -> Any:
        data = load(*args, **options)
        return replace(data, test_images=noise(data.test_images), test_labels=noise(data.test_labels))

    text = path.read_text("utf-8")
    assert not page.after or text.count(f"\n{page.after}") == 1, f"{path} does not have once: {page.after}"
    if blind and page.after:
        text = re.sub(rf"(\n{re.escape(page.after)}.*\n)", rf"\1{page.blind}\n", text)
    scope: dict[str, Any] = {"__name__": "__main__", "noise": noise, "noise_from": noise_from}
    with ExitStack() as stack:
        for functions, takes in ((RESULTS, False), (ARGUMENTS, True)):
            for owner, name in functions:
                stack.enter_context(recorded(owner, name, takes))
        if blind:
            stack.enter_context(warnings.catch_warnings(action="ignore"))  # of what noise looks like in a picture
            for owner in (train, train.data):
                stack.enter_context(patch.object(owner, "load_dataset", blinded))
        exec(compile(text, str(path), "exec", optimize=1), scope)  # optimised: without assertions
        plt.close("all")
        record("chosen", eval(page.chosen, scope))
    return digests


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="numbers, such as 21; all by default")
    parser.add_argument("--lot", type=int, metavar="N", help="so many pages in their place, drawn anew each day")
    options = parser.parse_args()
    day = random.Random(date.today().isoformat())
    chosen = day.sample([page.number for page in PAGES], options.lot) if options.lot else options.pages
    os.environ.setdefault("HCNN_EXAMPLES", "small")
    plt.switch_backend("Agg")
    place = tempfile.TemporaryDirectory()
    folder = pages(Path(place.name))
    status = 0
    for page in PAGES:
        if chosen and page.number not in chosen:
            continue
        (path,) = folder.glob(f"*/plot_{page.number}_*.py")
        seen, unseen = (fits_of(path, page, blind=blind) for blind in (False, True))
        differ = [a for a, b in zip(seen, unseen, strict=False) if a != b or a == SHARED] or len(seen) != len(unseen)
        status |= bool(differ)
        verdict = f"LOOKS AT ITS TEST SET: {differ}" if differ else f"{len(seen)} fits and choices are the same"
        print(f"{path.stem.removeprefix('plot_')}: {verdict}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
