"""The explorer's findings about a network: sentences, and one table of claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.attributes.contraction import median_interval
from train.attributes.decisions import LEVEL, UNDECIDED, corrected
from train.attributes.features import boundary_of
from train.attributes.hubs import interval
from train.attributes.study import EXAMINED_AT_ONCE, Study
from train.attributes.translations import Contrast, contrast, sharing_no_sample, trend

YES, NO = "yes", "no"
NOT_SHOWN = "not shown"


@dataclass(frozen=True)
class Claim:
    """A statement about a network, and the result of its test."""

    claim: str
    unit: str  # of exchangeability: the things that the test takes for independent
    smallest_p: float  # the smallest possible p; NaN for an interval, and for a measurement without sampling
    result: str
    verdict: str


def claims(study: Study) -> list[Claim]:
    """Return all claims with their tests and results."""
    return [
        *_exactness(study),
        *(_class(study) if study.agreements else []),
        *_meaning(study),
        *_order(study),
        *(_distances(study) if study.layers else []),
    ]


def conclusion(study: Study) -> list[str]:
    """Return how often translations keep the class, and whether more often the deeper they are made, in words."""
    trained = study.agreements["trained"]
    depths = list(trained)
    first, last = depths[0], depths[-1]

    def percent(kind: str, j: int) -> str:
        return shown_mean(study, kind, j, apart(study, j))

    rise = _Rise.of(study)
    claim = {YES: "true", NOT_SHOWN: "not shown", UNDECIDED: UNDECIDED}[rise.verdict]
    return [
        f'"Progressively higher probability to belong to the same class": {claim} of this network. Over translations '
        f"that share no sample with what was translated it is {percent('trained', first)} at depth {first} and "
        f"{percent('trained', last)} at depth {last}; Kendall's tau with depth {_shown(rise.statistic, rise.p)}. "
        f"Over all translations, {_shown(*trend([trained[j].moved for j in depths]))}.",
        f"Without a translation the nearest image has the class in {shown_share(float(trained[last].share[0]))} of the "
        f"cases at depth {last}; with the axis in random order {percent('random order', last)}; in the untrained "
        f"network {percent('untrained', last)}; chance is {shown_share(1 / len(study.dataset.class_names))}.",
    ]


def _shown(statistic: float, p: float) -> str:
    return "not defined" if math.isnan(statistic) else f"{statistic:.2f}, p = {p:.2g}"


def apart(study: Study, j: int) -> list[int]:
    """Return the translations at a depth after which an array shares no sample with itself before."""
    steps = study.agreements["trained"][j].same.shape[1]
    return sharing_no_sample(steps, study.settings.width, boundary_of(study.model))


def exact_and_aliased(study: Study, kind: str = "trained") -> tuple[list[int], list[Contrast], Contrast] | None:
    """Return depths with exact and other translations, and contrasts of how both keep the class, without smoothing."""
    multiples = {e.j: e.multiple for e in study.exactness if e.axis == study.settings.axis}
    pairs = []
    for j, measured in study.unsmoothed[kind].items():
        if boundary_of(study.model) == "periodic" and j in multiples:
            moved = range(1, measured.same.shape[1])
            exact, others = ([t for t in moved if (t % multiples[j] == 0) is of] for of in (True, False))
            if exact and others:
                pairs.append(((measured, exact), (measured, others)))
    if not pairs:
        return None
    return [measured.j for (measured, _), _ in pairs], *contrast(pairs, _rng(study))


def _natural_and_random_order(study: Study) -> tuple[list[int], list[Contrast], Contrast] | None:
    """Return depths, and contrasts of how translations keep the class in natural and in random order of the axis."""
    trained, shuffled = (study.agreements[kind] for kind in ("trained", "random order"))
    depths = [j for j in trained if apart(study, j)]
    if not depths:
        return None
    pairs = [((trained[j], apart(study, j)), (shuffled[j], apart(study, j))) for j in depths]
    return depths, *contrast(pairs, _rng(study))


def mean_interval(study: Study, kind: str, j: int, taus: Sequence[int]) -> tuple[float, float]:
    """Return the interval of a mean, with the same ends at every call."""
    return study.agreements[kind][j].mean_interval(taus, _rng(study))


def shown_mean(study: Study, kind: str, j: int, taus: Sequence[int]) -> str:
    """Return a mean share of the same class as text, with its interval."""
    low, high = mean_interval(study, kind, j, taus)
    mean = shown_share(study.agreements[kind][j].mean(taus))
    return mean if math.isnan(low) else f"{mean} [{100 * low:.1f}, {100 * high:.1f}]"


def shown_share(value: float) -> str:
    """Return a share in percent."""
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


@dataclass(frozen=True)
class _Rise:
    """The trend of the class with depth, over translations that share no sample."""

    statistic: float  # Kendall's tau with depth
    p: float
    smallest_p: float  # of a perfect order
    verdict: str

    @classmethod
    def of(cls, study: Study) -> _Rise:
        """Return the trend. It is a rise only if the last share's interval lies above the first's."""
        trained = study.agreements["trained"]
        values = [trained[j].mean(apart(study, j)) for j in trained]
        statistic, p = trend(values)
        smallest = 2 / math.factorial(len(values))
        if smallest > LEVEL or any(map(math.isnan, values)):
            return cls(statistic, p, min(1.0, smallest), UNDECIDED)
        starts, ends = (mean_interval(study, "trained", j, apart(study, j)) for j in (min(trained), max(trained)))
        rises = statistic > 0 and p <= LEVEL and ends[0] > starts[1]
        return cls(statistic, p, smallest, YES if rises else NOT_SHOWN)


def _rng(study: Study) -> np.random.Generator:
    """Return the same generator for every interval, so that its ends are the same wherever it is shown."""
    return np.random.default_rng(study.settings.seed)


def _exactness(study: Study) -> list[Claim]:
    """Return the claim that exact translations change nothing; none at zero boundaries, where none is exact."""
    exact = [e for e in study.exactness if not math.isnan(e.error)]
    others = [e for e in study.exactness if not math.isnan(e.change)]
    if not exact:
        return []
    error, bound = max(e.error for e in exact), max(e.bound for e in exact)
    holds = all(e.error <= e.bound for e in exact)
    result = f"at most {error:.1e} of the largest logit of {EXAMINED_AT_ONCE} images; rounding explains {bound:.1e}"
    if others:
        low, high = min(e.low for e in others), max(e.high for e in others)
        result += f"; the strongest others change an image's logits by {low:.2g} to {high:.2g} of its largest"
    return [Claim("Exact translations leave the logits as they are", "image", math.nan, result, YES if holds else NO)]


def _class(study: Study) -> list[Claim]:
    claim = "Exact translations keep the class more often than aliased ones"
    rows = [
        _compared(claim, exact_and_aliased(study)),
        _compared(f"{claim}, in the untrained network", exact_and_aliased(study, "untrained")),
    ]
    rise = _Rise.of(study)
    result = f"Kendall's tau {rise.statistic:.2f}, p = {rise.p:.2g}"
    claim = "The deeper the translation, the more often the class stays"
    rows.append(Claim(claim, "depth", rise.smallest_p, result, rise.verdict))
    beside = _natural_and_random_order(study)
    claim = "Translations keep the class more often than the same along the axis in random order"
    rows.append(_compared(f"{claim}, in the mean of depths", beside))
    if beside is not None:
        depths, of_depth, _ = beside
        rows.append(_compared(f"{claim}, at depth {depths[-1]}", (depths, of_depth, of_depth[-1])))
    return rows


def _compared(claim: str, comparison: tuple[list[int], list[Contrast], Contrast] | None) -> Claim:
    """Make a claim of the contrast of two sets of translations."""
    unit = "query and image found"
    if comparison is None or not comparison[2].decided:
        return Claim(claim, unit, math.nan, "-", UNDECIDED)
    of = comparison[2]
    points = f"{100 * of.difference:+.1f} [{100 * of.low:+.1f}, {100 * of.high:+.1f}] points"
    result = f"{shown_share(of.first)} against {shown_share(of.second)}, {points}"
    verdict = YES if of.low > 0 else f"{NO}, less often" if of.high < 0 else NOT_SHOWN
    return Claim(claim, unit, math.nan, result, verdict)


def _meaning(study: Study) -> list[Claim]:
    rows = []
    for axis in dict.fromkeys(f.axis for f in study.findings):
        findings = [f for f in study.findings if f.axis == axis]
        decided, significant = sum(f.decided for f in findings), sum(f.significant for f in findings)
        claim = f"Images found by some translation along {axis} differ in a known property"
        result = f"{significant} of {decided} tests after correction" if decided else "-"
        verdict = UNDECIDED if not decided else YES if significant else NOT_SHOWN
        rows.append(Claim(claim, "image found", min(f.smallest_p for f in findings), result, verdict))
    return rows


def _order(study: Study) -> list[Claim]:
    """Return the claims about order, with counts and verdicts corrected for the number of tests."""
    claim = {
        "neighbouring filters": "Neighbouring filters of some layer are more alike than in random order",
        "seriation": "Seriation comes nearer to the natural order of some attribute than chance",
    }
    claims = []
    for measure in dict.fromkeys(o.measure for o in study.organisation):
        measured = [o for o in study.organisation if o.measure == measure]
        kinds = [[getattr(o, kind) for o in measured] for kind in ("trained", "untrained")]
        ps, control = (corrected([c.p for c in of], [c.smallest_p for c in of]) for of in kinds)
        hits, of_control = (sum(p <= LEVEL for p in of) for of in (ps, control))
        decided = len(ps) - sum(map(math.isnan, ps))
        result = f"{hits} of {decided} tests after correction, untrained {of_control}" if decided else "-"
        verdict = UNDECIDED if not decided else YES if hits else NOT_SHOWN
        claims.append(Claim(claim[measure], "order of the axis", min(c.smallest_p for c in kinds[0]), result, verdict))
    return claims


def _distances(study: Study) -> list[Claim]:
    """Return the claims about how layers change distances of pairs of test images."""
    layers = study.layers[0]
    stretches = [g.local for g in layers.gains]
    bound = [g.upper <= 1 and g.converged for g in layers.gains]
    verdict = NO if max(stretches) > 1 else YES if all(bound) else UNDECIDED
    least = math.floor(100 * min(stretches)) / 100
    result = f"the derivative's norm at some image is at least {least:.2f} in every layer"
    rows = [Claim("No layer stretches a distance", "-", math.nan, result, verdict)]

    ratios = np.concatenate(layers.pairs.ratios, axis=1)  # of each layer within classes, then between
    low, high = median_interval(ratios, LEVEL / ratios.shape[1])
    medians = np.median(ratios, axis=0)
    result = (
        f"{np.count_nonzero(high < 1)} of {len(medians)} medians are below 1 and {np.count_nonzero(low > 1)} above, "
        f"corrected for their number; {medians.min():.2f} to {medians.max():.2f}"
    )
    verdict = UNDECIDED if np.isnan(low).any() else YES if (high < 1).all() else NO if (low > 1).any() else NOT_SHOWN
    claim = "Every layer brings pairs of images closer in the median, within classes and between them"
    rows.append(Claim(claim, "pair of images", math.nan, result, verdict))

    separation = layers.pairs.separation
    samples = layers.pairs.separation_samples(_rng(study))
    ends = interval(samples[:, -1] - samples[:, 0])
    result = (
        f"between over within, {separation[0]:.3f} at the images and {separation[-1]:.3f} at depth "
        f"{len(separation) - 1}, {separation[-1] - separation[0]:+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}]"
    )
    verdict = YES if ends[0] > 0 else f"{NO}, less" if ends[1] < 0 else NOT_SHOWN
    claim = "Classes are further apart at the last depth than as images"
    return [*rows, Claim(claim, "pair of images", math.nan, result, verdict)]
