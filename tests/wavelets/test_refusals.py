"""What functions of wavelets refuse: one line that says what was given. New functions add their rows here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest

import wavelets as wv
from tests.core.oracle import noise

RNG = np.random.default_rng(0)
X, WHOLE, BANK, LINE = np.zeros((8, 8)), np.zeros((8, 8), int), wv.morlet_bank((8, 8), 1, 2), wv.morlet_bank(16, 2)
LOW, HIGH = wv.rectified_transform(X, BANK, phases=4)
D, ROWS = np.eye(10, 16), noise(1, (5, 10), "float64")
PLANE = noise(0, (50, 2), "float64") @ noise(1, (2, 5), "float64")
INFINITE = np.where(np.eye(8) > 0, np.inf, noise(7, (8, 8), "float64"))


def squares(x: Any, *_: Any) -> Any:
    return np.sum(np.abs(x) ** 2)


VALUES: list[tuple[str, Callable[[], Any]]] = [
    *(
        (message, lambda make=make, given=given: make(*given))
        for make in (wv.morlet_bank, wv.steerable_bank)
        for message, given in (
            (r"shape is \(30, 32\) and scales 2: 2\^2 = 4 must divide each length", ((30, 32), 2)),
            ("wavelets have one or two axes", ((8, 8, 8), 1)),
            ("scales 64: 2.64 = 18446744073709551616 must divide", (8, np.int64(64))),
            ("scales has 0; it must be at least 1", ((8, 8), 0)),
            ("angles has 0; it must be at least 1", ((8, 8), 1, 0)),
            ("shape has 0; it must be at least 1", ((8, 0), 1)),
        )
    ),
    ("angles is 1; steerable wavelets of two axes need at least 2", lambda: wv.steerable_bank((8, 8), 1, 1)),
    (r"phi has shape \(8, 8\) and psi \(1, 8, 8\)", lambda: wv.FilterBank(X, X[None])),
    ("high has 3 phases; the inverse needs an even number", lambda: wv.from_rectified(LOW, HIGH[..., :3], BANK)),
    ("phases is 0; it must be at least 1", lambda: wv.rectified_transform(X, BANK, phases=0)),
    ("harmonics is empty", lambda: wv.harmonic_statistics(X, BANK, harmonics=())),
    ("lags is -1; it must be at least 0", lambda: wv.harmonic_statistics(X, BANK, lags=-1)),
    (r"x has shape \(8, 4\); this bank is for \(8, 8\)", lambda: wv.harmonic_statistics(X[:, :4], BANK)),
    ("moments is 11; Daubechies' filters are made for 1 to 10", lambda: wv.daubechies_filter(11)),
    (r"levels is 3 and the axes have lengths \(8, 4\): 2\^levels must divide", lambda: wv.dwt(X[:, :4], 3)),
    (r"levels is 64 and the axes have lengths \(8, 8\)", lambda: wv.dwt(X, np.int64(64))),
    (r"axes is \(0, 2\); the array has 2 axes", lambda: wv.dwt(X, 1, (0, 2))),
    (r"axes is \(\); the array has 2 axes: name one or more", lambda: wv.dwt(X, 1, ())),
    (r"have shape \(3, 4, 3\); expected \(6, 4, 3\)", lambda: wv.idwt([np.zeros((6, 4)), np.zeros((3, 4, 3))])),
    ("components is 0; the covariance of x has rank 2: give 1 to 2", lambda: wv.principal_components(PLANE, 0)),
    ("components is 3; the covariance of x has rank 2: give 1 to 2", lambda: wv.principal_components(PLANE, 3)),
    (r"x has shape \(3,\); give at least two vectors", lambda: wv.principal_components(np.ones(3), 1)),
    (r"x has shape \(3, 0\); give at least two vectors", lambda: wv.principal_components(np.ones((3, 0)), 1)),
    (r"levels is -1 and intermittency 0\.1", lambda: wv.lognormal_cascade(-1, 0.1, RNG)),
    (r"intermittency from 0 to 1\.38", lambda: wv.lognormal_cascade(3, 1.4, RNG)),
    ("n is 16, scale 9, intermittency 0", lambda: wv.multifractal_noise(16, 0, RNG, scale=9)),
    ("intermittency nan; n is at least 8", lambda: wv.multifractal_noise(16, np.nan, RNG)),
    ("intermittency inf; n is at least 8", lambda: wv.multifractal_noise(16, np.inf, RNG)),
    (r"n is 4, time 1\.5", lambda: wv.decaying_vorticity(4, RNG)),
    ("time nan, .* the others are positive and finite", lambda: wv.decaying_vorticity(16, RNG, time=np.nan)),
    ("time inf, .* the others are positive and finite", lambda: wv.decaying_vorticity(16, RNG, time=np.inf)),
    ("the flow cannot be resolved by n = 16 samples", lambda: wv.decaying_vorticity(16, RNG, speed=1e200)),
    *(
        (f"n is {n} and smoothness {width}; n is at least 2", lambda n=n, width=width: wv.random_warp(n, width, RNG))
        for n, width in ((1, 2.0), (8, 0.0), (8, 1000.0))
    ),
    (r"shape \(16,\); rotations need two axes", lambda: wv.rototranslation_scattering(X[0], LINE)),
    ("angular_scales is 0; 2.angular", lambda: wv.rototranslation_scattering(X, BANK, angular_scales=0)),
    ("must divide the 4 angles", lambda: wv.rototranslation_scattering(X, BANK, angular_scales=3)),
    ("have lengths", lambda: wv.rototranslation_scattering(X[:, :4], BANK)),
    ("order is 3; choose 0, 1 or 2", lambda: wv.scattering(X, BANK, order=3)),
    ("order is -1", lambda: wv.scattering_paths(BANK, -1)),
    ("boundary is 'zero'; choose 'periodic' or 'reflect'", lambda: wv.scattering(X, BANK, boundary="zero")),  # type: ignore[arg-type]
    ("oversampling is -1; it must be at least 0", lambda: wv.scattering(X, BANK, oversampling=-1)),
    (r"\(8, 8\); expected \(4, 4\), each up to 1 more", lambda: wv.scattering(X, BANK, boundary="reflect")),
    (
        "an axis of length 2 cannot be mirrored by 2 samples; use fewer scales",
        lambda: wv.scattering(X[:2, :2], wv.morlet_bank((6, 6), 1, 2), boundary="reflect"),
    ),
    *(
        (f"the threshold is {number}; it must be at least 0", lambda f=f, by=by: f(X, by))
        for f in (wv.soft_threshold, wv.hard_threshold)
        for number, by in (("-1", -1), (r"-1\.0", np.float32(-1)), ("-1", np.int64(-1)))
    ),
    (r"x has shape \(5, 10\) and the dictionary \(16, 10\)", lambda: wv.ista(ROWS, D.T, 0.1, iterations=1)),
    (r"\(10, 16\); this dictionary wants \(16, 10\)", lambda: wv.lista(ROWS, D, D, 0.1, iterations=1)),
    ("iterations is 0; it must be at least 1", lambda: wv.ista(ROWS, D, 0.1, iterations=0)),
    ("the dictionary is 0, and there is no longest step", lambda: wv.ista(ROWS, 0 * D, 0.1, iterations=1)),
    ("step is -1; it must be positive", lambda: wv.ista(ROWS, D, 0.0, iterations=1, step=-1)),
    (r"penalty is -0\.1; it must be at least 0", lambda: wv.ista(ROWS, D, -0.1, iterations=1)),
    ("passes is -1; it must be at least 1", lambda: wv.learn_dictionary(ROWS, D, 0.1, passes=-1)),
    ("passes is 0; it must be at least 1", lambda: wv.learn_dictionary(ROWS, D, 0.1, passes=0)),
    (r"decays is \(0\.9, 1\); both must be at least 0", lambda: wv.adam(squares, X, [0], rate=0.1, decays=(0.9, 1))),
    ("keep is 1; it must be at least 0 and below 1", lambda: wv.momentum(squares, X, [0], rate=0.2, keep=1)),
    ("row 0 of the statistics of x is constant: x has no such", lambda: wv.moment_distance(X, BANK)),
    ("x is not finite everywhere", lambda: wv.moment_distance(INFINITE, BANK)),
    ("iterations is 0 and memory 20; both must be", lambda: wv.lbfgs(squares, X, iterations=0, memory=20)),
    ("iterations is 5 and memory 0; both must be", lambda: wv.lbfgs(squares, X, iterations=5, memory=0)),
    (r"axes is \(0,\); this bank filters 2, of lengths \(8, 8\)", lambda: wv.wavelet_transform(X, BANK, 0)),
    ("give different axes of an array that has 2", lambda: wv.wavelet_transform(X, BANK, (0, 0))),
    ("give different axes of an array that has 2", lambda: wv.wavelet_transform(X, BANK, (0, 2))),
    (r"have lengths \(8, 4\); expected \(8, 8\)", lambda: wv.wavelet_transform(X[:, :4], BANK, (0, 1))),
    (
        r"high has shape \(8, 8, 2, 2\); low and the bank want \(8, 8, 1, 2\)",
        lambda: wv.inverse_wavelet_transform(X, np.zeros((8, 8, 2, 2), complex), BANK),
    ),
]

TYPES: list[tuple[str, Callable[[], Any]]] = [
    *(
        (message, lambda make=make, given=given: make(*given))
        for make in (wv.morlet_bank, wv.steerable_bank)
        for message, given in (
            ("shape has 8.0; give integers", ((8, 8.0), 1)),
            ("scales has True; give integers", ((8, 8), True)),
        )
    ),
    ("dtype is float16; choose float32 or float64", lambda: wv.morlet_bank((8, 8), 1, dtype="float16")),
    ("give the real spectra of the filters", lambda: wv.FilterBank(X + 0j, X[None, None] + 0j)),
    ("z is of float64; phase harmonics are of arrays of dtype complex64", lambda: wv.phase_harmonic(X, 2)),
    (r"k is 0\.5; give an integer", lambda: wv.phase_harmonic(X + 0j, 0.5)),  # type: ignore[arg-type]
    ("x has dtype int64; convert it", lambda: wv.dwt(WHOLE, 0)),
    ("x has dtype int64; give float32", lambda: wv.principal_components(WHOLE, 1)),
    ("x has dtype int64; give a real array of floats", lambda: wv.randomize_phases(WHOLE, RNG)),
    ("a parameter has dtype complex128; give real ones", lambda: wv.momentum(squares, X + 0j, [0], rate=0.1)),
    ("a parameter has dtype complex128; give real ones", lambda: wv.adam(squares, X + 0j, [0], rate=0.1)),
    ("start has dtype int64; L-BFGS takes float32 or float64", lambda: wv.lbfgs(squares, WHOLE, iterations=1)),
    ("x has dtype int64; this function takes NumPy and CuPy arrays of", lambda: wv.wavelet_transform(WHOLE, BANK)),
    ("x has dtype complex128", lambda: wv.wavelet_transform(X + 0j, BANK)),
    ("x has type list", lambda: wv.wavelet_transform(X.tolist(), BANK)),
    ("x has type Array; this", lambda: wv.wavelet_transform(array_api_strict.zeros((8, 8)), BANK)),
]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [(error, *row) for error, rows in ((ValueError, VALUES), (TypeError, TYPES)) for row in rows],
)
def test_wrong_arguments_are_refused_in_one_line(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with np.errstate(all="ignore"), pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
