"""Plant a symmetry of pitch in sounds, and see whether a network's attributes find it.

    OPENBLAS_NUM_THREADS=1 HCNN_NUM_THREADS=1 python -m benchmarks.sound --out benchmarks/results/sound

Two tones follow each other: one of pitch p, then one of pitch p + d. An octave has 8 steps, and a tone has a partial in
each of three octaves; those near the lower and the upper end are quiet, so that going up an octave changes nothing
(R. N. Shepard, 1964). The class is d, from 0 to 7. Transposing both by s steps keeps it. The network is `signal` with
K = 8 and periodic attributes without strides, so an attribute has one sample for each step. It is given the wave.
results/symmetries/README.md has the protocol, planted.py what is measured. `python -m benchmarks.sound known`
puts the statistic to filters that are given.
"""

import sys

import numpy as np

from autodiff import elu
from benchmarks.planted import BATCH, ORDERS, TESTED, TURNS, Arm, Array, Scene, Task, main
from train.attributes.symmetry import translation_explains
from train.config import make_config
from train.networks.registry import build

LENGTH, OCTAVES, LOWEST, NOISE, TAPS = 96, 3, 0.055, 0.2, 17
ARMS = {
    "intervals": Arm(),
    "labels p": Arm(of_place=True),
    "v_1 shuffled": Arm(shuffled=True),
    "untrained": Arm(steps=0),
}


def draw(new: bool, count: int, pitches: int, rng: np.random.Generator) -> Scene:
    """Return amplitudes and phases (N, tones, octaves), noise (N, LENGTH), pitches from 0 to `pitches`, intervals."""
    place, distance = rng.uniform(0, pitches, count), rng.integers(TURNS, size=count)
    shape = count, 2, OCTAVES
    amplitude, phase = rng.uniform(0.5, 1.5, shape), rng.uniform(0, 2 * np.pi, shape)
    return Scene((amplitude, phase, NOISE * rng.standard_normal((count, LENGTH))), place, distance)


def waves(scene: Scene) -> Array:
    """Return sounds (N, LENGTH, 1): two tones, and noise."""
    amplitude, phase, noise = scene.rest
    pitch = np.stack([scene.place, scene.place + scene.distance], axis=1) % TURNS / TURNS
    octave = pitch[..., None] + np.arange(OCTAVES)  # of each partial, above the lowest frequency
    loudness = amplitude * (1 - np.cos(2 * np.pi * octave / OCTAVES))
    angle = 2 * np.pi * LOWEST * 2**octave  # per sample of time
    partials = np.sin(angle[..., None] * np.arange(LENGTH // 2) + phase[..., None])
    tones = (loudness[..., None] * partials).sum(axis=2).reshape(-1, LENGTH)
    x: Array = (tones + noise)[..., None] / 1.5
    return x.astype(np.float32)


def of_tones(x: Array) -> Array:
    """Return means of x_j (N, time, ...) over the time of each tone, (N, 2, ...)."""
    x = np.asarray(x)
    return x.reshape(len(x), 2, -1, *x.shape[2:]).mean(axis=2)


def known(rng: np.random.Generator) -> str:
    """Return the statistic of a front end that is given: one filter for each step, of the partials of its tone."""
    scene, time = draw(True, TESTED, TURNS, rng), np.arange(TAPS) - TAPS // 2
    octave = np.arange(TURNS)[:, None] / TURNS + np.arange(OCTAVES)
    partials = np.cos(2 * np.pi * LOWEST * 2 ** octave[..., None] * time) * np.hanning(TAPS + 2)[1:-1]
    h = ((1 - np.cos(2 * np.pi * octave / OCTAVES))[..., None] * partials).sum(axis=1)  # (steps, taps)

    def represent(scene: Scene) -> Array:
        x_1 = np.apply_along_axis(lambda x: [np.convolve(x, one, "same") for one in h], 1, waves(scene)[..., 0])
        x_1 = (x_1 - x_1.mean(axis=(0, 2), keepdims=True)) / x_1.std(axis=(0, 2), keepdims=True)
        return of_tones(np.asarray(elu(np.moveaxis(x_1, 1, 2))))

    turns = range(1, TURNS)
    e = translation_explains(
        represent, lambda s, scene: scene.turned(s), scene, elements=turns, axis=2, orders=ORDERS, rng=rng
    )
    shifts = " ".join(map(str, e.shifts))
    return f"share {e.share:.3f}, random {np.median(e.random):.3f}, p {e.p:.2f}, translations {shifts}\n"


def task(steps: int) -> Task:
    """Return the task."""
    settings = {
        "width": TURNS, "boundary": "attributes", "attribute_stride": 1, "depth": 6, "strided_layers": (2, 3, 4, 5),
        "space_kernel": TAPS, "noise": 0.0, "resample": 0.0, "batch_size": BATCH, "epochs": max(steps, 1),
        "validation_size": 0,
    }  # fmt: skip
    config = make_config("signal", settings)
    network = build(config, (LENGTH,), TURNS, 1)
    return Task(config, network, ARMS, ("labels p", "v_1 shuffled", "untrained"), draw, waves, of_tones, paired=False)


if __name__ == "__main__":
    if sys.argv[1:] == ["known"]:
        sys.exit(print(known(np.random.default_rng(0)), end=""))
    main(__doc__ or "", task, networks=5, steps=300)
