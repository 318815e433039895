"""Several ranks take the steps of one: moments, their cotangents, gradients, order and augmentation."""

from __future__ import annotations

import functools
import itertools
import math
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autodiff
import hcnn_core
from autodiff import grad, tree_leaves, vjp
from hcnn_core import Shard, patch_moments, patch_moments_vjp
from hcnn_core._engines.cpu import normalization as compiled
from hcnn_core._tuning import tuned
from tests.train.runs import ROOT, contents
from tests.train.threads import on_ranks
from train import cifar
from train.config import make_config
from train.data import Images
from train.networks.hierarchical import hierarchy
from train.networks.registry import build
from train.ranks import communicator as distributed
from train.ranks import watch
from train.ranks.agreement import source_checksum
from train.ranks.communicator import DistributedError, launched
from train.ranks.ranks import Ranks, join, share_processors
from train.ranks.watch import start
from train.recipes.metrics import METRICS
from train.recipes.optimizers import initial_state
from train.runs import session
from train.runs.session import Session
from train.runs.step import gradient_step
from train.runs.teacher import Teacher
from train.runs.training import Result, evaluate, evaluate_views

SMALL = {"width": 4, "factors": 4, "depth": 5, "attribute_kernel": (2, 2), "strided_layers": (3,), "shift": 2}
COUNT, STEPS, RATE = 40, 20, 0.02
BATCHES = (7, 8, 2, 5)
"""No size divides by 2 and by 3; of 2 images, one of 3 ranks has none."""

PER_LAYER = 2**8
"""Roundings that one step may differ by for each layer of products, in eps of each array's largest element.

A sum of T terms of either sign differs with its order by about sqrt(T) eps / 2 of its size. Sums over a batch have at
most 8 * 8 * 8 terms here. Those of a convolution, which may be computed otherwise for fewer images, have at most
5 * 5 * 192: 35 eps. A layer passes that on forward and backward; more than three times both is allowed. Newton-Schulz
iterations (muon) multiply small singular values, and what rounding left in them, by up to 3.4445^5 = 485.
"""

PER_STEP = 4 * PER_LAYER
"""Those of the small hierarchical network."""

EPSILON = 1e-8
"""What AdamW adds to the root of the mean square.

A weight moves by rate * m / (root + EPSILON), with |m| about root: a gradient that differs by d moves it by up to
2 rate d / EPSILON otherwise, where the gradient is nothing but rounding.
"""


class Problem:
    """A small network, its images and what each step is told, alike on any number of ranks."""

    def __init__(self, preset: str = "sample", **settings: Any) -> None:
        small = SMALL if preset == "sample" else {"shift": SMALL["shift"]}
        self.config = make_config(preset, {**small, "dtype": "float64", **settings})
        self.network = build(self.config, image_size=8)
        rng = np.random.default_rng(0)
        pixels, labels = rng.integers(0, 256, (COUNT, 8, 8, 3), np.uint8), rng.integers(0, 10, COUNT)
        self.images = Images(pixels, labels, np.full(3, 120.0), np.full(3, 60.0), self.config.dtype)
        parameters = self.network.initialize(rng)
        self.arrays = {
            "parameters": parameters,
            "optimizer": initial_state(self.config, parameters),
            "moments": self.network.initial_moments(),
        }

    def inputs(self, number: int) -> dict[str, Any]:
        rng, batch = np.random.default_rng(number), BATCHES[number % len(BATCHES)]
        index = rng.integers(COUNT, size=batch)
        rows, columns = (np.arange(8) + rng.integers(-2, 3, (batch, 1)) for _ in range(2))
        return {"index": index, "rows": rows, "columns": columns, "noise": self.network.noise(rng, batch)}

    def rounding(self, steps: int) -> float:
        """How far rounding alone leads gradients apart, which ranks and one process find in some steps."""
        layers = sum(layer.multiply_adds > 0 for layer in self.network.table)
        return steps * layers * PER_LAYER * float(np.finfo(self.config.dtype).eps)

    def bound(self, steps: int, rate: float = RATE) -> float:
        """The same of all that they hold after these steps."""
        return self.rounding(steps) * (2 * rate / EPSILON if self.config.optimizer == "adamw" else 1)

    def run(self, ranks: Ranks, steps: int = STEPS) -> tuple[Any, list[float], list[int]]:
        teacher = None
        if self.config.teacher:  # any network's weights do
            weights = self.network.initialize(np.random.default_rng(1))
            teacher = Teacher(self.network, weights, self.network.initial_moments(), np.ones(3), np.zeros(3))
        step = gradient_step(self.config, self.network, self.images, ranks=ranks, teacher=teacher)
        arrays, losses, hits = self.arrays, [], []
        for number in range(steps):
            rates = {"rate": RATE / (number + 1), "step": number + 1, "moments_kept": 0.9, "moments_taken": 0.1}
            numbers = {name: np.asarray(value, self.config.dtype) for name, value in rates.items()}
            arrays, loss, found = step(arrays, ranks.part_of(self.inputs(number)) | numbers)
            losses.append(float(loss))
            hits.append(int(found["accuracy"]))
        return arrays, losses, hits


def difference(one: Any, other: Any) -> float:
    """The largest difference of two trees' arrays, by the largest element of each array, or 0.01 where that is more."""
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return max(float(np.abs(a - b).max() / max(1e-2, np.abs(b).max())) for a, b in pairs)


CASES = [
    {"nonlinear_factors": plus, "boundary": boundary, "optimizer": optimizer, "normalization": normalization}
    for (plus, boundary, optimizer), normalization in zip(
        itertools.product([False, True], ["zero", "periodic"], ["sgd", "muon"]),
        itertools.cycle(["factors", "both", "both", "factors"]),
        strict=False,
    )
] + [
    {"normalization": "both", "dtype": "float32"},
    {"nonlinear_factors": True, "dtype": "float32"},
    {"teacher": "another", "attention_transfer": 5.0},
    {"normalization": "both", "optimizer": "adamw"},
    {"preset": "wrn-student"},
    {"preset": "wrn-student", "optimizer": "adamw"},
    {"preset": "nin"},
]
"""ReLU and maxima decide by the sign of a difference: in float64, where rounding turns hardly one of them."""


@pytest.mark.lot
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_ranks_take_the_steps_of_one(case: dict[str, Any]) -> None:
    problem = Problem(**case)
    plain = problem.config.preset == "sample" and problem.config.optimizer != "adamw"
    steps = STEPS if plain else len(BATCHES)
    bound = problem.bound(steps)
    arrays, losses, hits = problem.run(Ranks(), steps)
    for size in (2, 3):
        found = on_ranks(size, lambda ranks: problem.run(ranks, steps))
        for other in found[1:]:
            assert all(map(np.array_equal, tree_leaves(other[0]), tree_leaves(found[0][0])))  # ranks do not drift apart
        assert difference(found[0][0], arrays) <= bound
        assert np.allclose(found[0][1], losses, rtol=bound, atol=0)
        assert found[0][2] == hits


def test_a_run_repeats_bit_for_bit_on_as_many_ranks() -> None:
    problem = Problem(normalization="both", dtype="float32")
    one, other = (on_ranks(3, lambda ranks: problem.run(ranks, 5))[0] for _ in range(2))
    assert all(map(np.array_equal, tree_leaves(one), tree_leaves(other)))


CONTROLS = [
    ({"normalization": "factors"}, 2),  # moments of two layers' inputs
    ({"normalization": "both"}, 6),  # and of four layers' outputs
    ({"normalization": "both", "optimizer": "adamw"}, 6),
    ({"preset": "wrn-student"}, 13),
]


def one_step(problem: Problem, ranks: Ranks | None, inputs: dict[str, Any]) -> Any:
    """The arrays after a step that changes everything."""
    rates = {name: np.asarray(0.1) for name in ("rate", "step", "moments_kept", "moments_taken")} | {
        "step": np.asarray(1.0)
    }
    step = gradient_step(problem.config, problem.network, problem.images, ranks=ranks)
    return step(problem.arrays, inputs | rates)[0]


@pytest.mark.parametrize(
    ("case", "forward"),
    CONTROLS,
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("missing", ["each", "each of the way back", "the last"])
def test_a_message_that_is_left_out_is_noticed(case: dict[str, Any], forward: int, missing: str) -> None:
    """Negative controls: moments of a rank's own images, or their cotangents, or one message less."""
    problem = Problem(**case)
    first = {"each": 0, "each of the way back": forward, "the last": 2 * forward - 1}[missing]

    def taken(ranks: Ranks, first: int) -> Any:
        calls = itertools.count()
        ranks.shard = lambda share: Shard(  # type: ignore[method-assign]
            share, lambda a: ranks.all_reduce(a) if next(calls) < first else a / share
        )
        arrays = one_step(problem, ranks, ranks.part_of(problem.inputs(1)))
        assert next(calls) == 2 * forward
        return arrays

    expected, bound = one_step(problem, None, problem.inputs(1)), problem.bound(1, rate=0.1)
    found = on_ranks(2, lambda ranks: taken(ranks, 2 * forward))[0]
    assert difference(found, expected) <= bound
    assert difference(found["optimizer"], expected["optimizer"]) <= problem.rounding(1)  # a first step's gradients
    assert difference(on_ranks(2, lambda ranks: taken(ranks, first))[0], expected) > 1e3 * bound


def split(array: Any, sizes: tuple[int, ...]) -> list[Any]:
    return np.split(array, np.cumsum(sizes)[:-1])


def shards(ranks: Ranks, sizes: tuple[int, ...]) -> Shard:
    return ranks.shard(sizes[ranks.rank] / sum(sizes))


SIZES = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)


@given(SIZES, st.sampled_from(["zero", "periodic"]), st.sampled_from(["float32", "float64"]), st.integers(0, 99))
def test_moments_of_shards_are_those_of_the_batch(sizes: tuple[int, ...], boundary: Any, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, g, h = ((rng.standard_normal(n) + 1).astype(dtype) for n in ((sum(sizes), 5, 4, 2), (9,), (9, 9)))
    options: dict[str, Any] = {"axes": (1, 2), "kernel_size": 3, "boundary": boundary}

    def work(ranks: Ranks) -> Any:
        part, shard = split(x, sizes)[ranks.rank], shards(ranks, sizes)
        mine = g * (ranks.rank == 0), h * (ranks.rank == 0)  # cotangents add up, wherever they come from
        mean, covariance = patch_moments(part, **options, shard=shard)
        plain = patch_moments_vjp(*mine, part, **options, shard=shard)
        _, pullback = vjp(lambda x: autodiff.patch_moments(x, **options, shard=shard), part)
        return mean, covariance, plain, pullback(mine)[0]

    found = on_ranks(len(sizes), work)
    expected = patch_moments(x, **options)
    tolerance = 50 * float(np.finfo(dtype).eps)
    for one in found:
        assert np.abs(one[0] - expected[0]).max() <= tolerance and np.abs(one[1] - expected[1]).max() <= 8 * tolerance
    whole = patch_moments_vjp(g, h, x, **options)
    for cotangent in (np.concatenate([one[i] for one in found]) for i in (2, 3)):
        assert cotangent.dtype == x.dtype
        assert np.abs(cotangent - whole).max() <= tolerance * 9 * np.abs(h).max() * np.abs(x).max() / sum(sizes)


@given(
    SIZES,
    st.sampled_from([1, 1 << 30]),
    st.sampled_from(["float32", "float64"]),
    st.integers(0, 99),
    st.sampled_from(["normalize_elu", "batch_normalize"]),
)
def test_outputs_of_shards_are_normalised_as_the_batch_is(
    sizes: tuple[int, ...], least: int, dtype: str, seed: int, name: str
) -> None:
    """By compiled kernels and without."""
    rng = np.random.default_rng(seed)
    shape = (sum(sizes), 5, 4, 3, 3)
    drawn = (1 + rng.standard_normal((shape[0], 3, *shape[1:-1])).astype(dtype) for _ in range(2))
    y, g = (np.moveaxis(array, 1, -1) for array in drawn)  # values of the last axis lie far apart, as a layer has them
    shift, scale, bias, g_mean, g_variance = (rng.standard_normal(3).astype(dtype) for _ in range(5))
    others = (shift, scale, bias) if name == "normalize_elu" else (scale, bias)
    plain, on_tape = (functools.partial(getattr(module, name), epsilon=1e-3) for module in (hcnn_core, autodiff))

    def work(ranks: Ranks) -> Any:
        part, cotangent, shard = split(y, sizes)[ranks.rank], split(g, sizes)[ranks.rank], shards(ranks, sizes)
        of_moments = [a * (ranks.rank == 0) for a in (g_mean, g_variance)]
        with tuned(elementwise_elements=least):
            assert compiled.lines_of(shift, part, cotangent)
            ans, pullback = vjp(functools.partial(on_tape, shard=shard), part, *others)
            found = pullback((cotangent, *of_moments))
            assert all(map(np.array_equal, plain(part, *others, shard=shard), ans))
        return (*ans, *found)

    found = on_ranks(len(sizes), work)
    ans, pullback = vjp(on_tape, y, *others)
    expected = pullback((g, g_mean, g_variance))
    tolerance = 200 * float(np.finfo(dtype).eps)
    for one in found:
        for actual, exact in zip(one[1:3], ans[1:], strict=True):
            assert np.abs(actual - exact).max() <= tolerance * max(1, np.abs(exact).max())
    joined = [np.concatenate([one[i] for one in found]) for i in (0, 3)]
    added = [sum(one[4 + i] for one in found) for i in range(len(others))]
    for actual, exact in zip([*joined, *added], [ans[0], *expected], strict=True):
        scale_of = math.sqrt(y.size) if actual.ndim == 1 else 1
        assert np.abs(actual - exact).max() <= tolerance * scale_of * max(1, np.abs(exact).max())


def test_second_derivatives_of_shards_are_refused() -> None:
    def work(ranks: Ranks) -> None:
        shard = ranks.shard(0.5)
        first = grad(lambda x: np.sum(autodiff.patch_moments(x, 1, 3, boundary="zero", shard=shard)[1] ** 2))
        with pytest.raises(TypeError, match="first derivatives only"):
            grad(lambda x: np.sum(first(x) ** 2))(np.ones((2, 5)))

    on_ranks(2, work)


@given(st.integers(1, 9), st.integers(1, 40))
def test_every_image_of_a_batch_is_on_one_rank(size: int, count: int) -> None:
    """In order, and what a step is told of it too; shares add up to 1, and no rank has two images more than another."""
    inputs = {"index": np.arange(count), "rows": np.arange(3 * count).reshape(count, 3)}
    told = []
    for rank in range(size):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        told.append(ranks.part_of(inputs))
        assert len(told[-1]["index"]) >= 1
    mine = [one for one in told if size == 1 or one["share"] > 0]
    for name, array in inputs.items():
        assert np.array_equal(np.concatenate([one[name] for one in mine]), array)
    assert max(len(one["index"]) for one in mine) - min(len(one["index"]) for one in mine) <= 1
    assert size == 1 or sum(one["share"] for one in told) == pytest.approx(1)


def test_one_message_holds_all_gradients_and_one_each_layers_moments() -> None:
    problem = Problem(normalization="both")

    def work(ranks: Ranks) -> list[int]:
        problem.run(ranks, 1)
        return [*ranks.comm.messages]

    weights = sum(leaf.size for leaf in tree_leaves(problem.arrays["parameters"]))
    patches = 9 + 9 * 9
    filters = [layer.filters for layer in hierarchy(problem.network)]
    f = [3 * n for n in filters]  # mean, its square, variance
    b = [4 * n for n in filters]  # cotangents of bias, scale, mean and variance
    forward, backward = [f[0], f[1], patches, f[2], patches, f[3]], [b[3], patches, b[2], patches, b[1], b[0]]
    assert on_ranks(2, work)[1] == [
        8 * n for n in (*forward, *backward, weights + 2 + 2 * 2)
    ]  # loss, signal; metric and share of each rank


def test_evaluation_on_ranks_is_that_of_one() -> None:
    problem = Problem()
    parameters, moments = problem.arrays["parameters"], problem.arrays["moments"]
    arguments = problem.network, parameters, moments, problem.images

    def evaluated(ranks: Ranks) -> Result:
        return evaluate_views(*arguments, evaluate(*arguments, ranks=ranks), ranks)

    one = evaluated(Ranks())
    for size in (2, 3):
        for found in on_ranks(size, evaluated):
            assert np.array_equal(found.confusion, one.confusion) and found.averaged == one.averaged
            assert found.loss == pytest.approx(one.loss, rel=1e-13)


def test_ranks_that_differ_are_told_apart() -> None:
    def work(ranks: Ranks) -> None:
        ranks.require_same({"numpy": "2.3"})
        ranks.require_same_bits({"w": np.arange(3)}, "weights")
        with pytest.raises(DistributedError, match=r"differ in numpy: 2\.0 on rank 0 .*, 2\.1 on rank 1 "):
            ranks.require_same({"a": 1, "numpy": f"2.{ranks.rank}"})
        differing = np.nextafter(np.ones(3), ranks.rank)
        for weights in ({"w": differing}, {"v": np.ones(2), "w": differing}, {"w": differing, "x": np.ones(2)}):
            with pytest.raises(DistributedError, match="differ in weights"):
                ranks.require_same_bits(weights, "weights")

    def last(ranks: Ranks) -> None:
        with pytest.raises(DistributedError, match=r"differ in numpy: 2\.0 on rank 0 .*, 2\.1 on rank 2 "):
            ranks.require_same({"numpy": f"2.{ranks.rank // 2}"})

    on_ranks(2, work)
    on_ranks(3, last)


def test_ranks_that_are_to_do_different_things_are_refused(tmp_path: Path) -> None:
    """Each would wait for the other, in another exchange."""

    def work(ranks: Ranks) -> None:
        options = cifar._parser().parse_args(["--resume", str(tmp_path)] if ranks.rank else ["--out", str(tmp_path)])
        with pytest.raises(DistributedError, match=r"differ in --resume: none on rank 0 .*, .* on rank 1 "):
            cifar._act(ranks, options)

    on_ranks(2, work)


def test_ranks_that_are_to_resume_with_different_flags_are_refused(trained: Path) -> None:
    """A rank that extends a run asks the others whether that can be, and they had gone on."""

    def work(ranks: Ranks) -> None:
        flags = ({"epochs": 5, "data_dir": "here"}, {"data_dir": "there"})[ranks.rank]
        with pytest.raises(DistributedError, match=r"differ in --epochs: 5 on rank 0 .*, none on rank 1 "):
            Session(ranks).go_on(trained, flags)

    before = contents(trained)
    on_ranks(2, work)
    assert contents(trained) == before


def test_ranks_with_and_without_a_gpu_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the backend is "auto", those with one tell the others its number, which they do not wait for."""
    libraries = {"hcnn_0": np, "hcnn_1": SimpleNamespace(__name__="cupy")}
    monkeypatch.setattr(session, "namespace", lambda *backend: libraries[threading.current_thread().name])

    def work(ranks: Ranks) -> None:
        threading.current_thread().name = f"hcnn_{ranks.rank}"
        with pytest.raises(DistributedError, match=r"differ in the array library: numpy on rank 0 .*, cupy on rank 1 "):
            Session(ranks).begin(lambda: make_config("sample", {}), tmp_path / "run")

    on_ranks(2, work)
    assert not (tmp_path / "run").exists()


def test_the_checksum_of_the_source_is_that_of_every_file(tmp_path: Path) -> None:
    assert source_checksum() == source_checksum(ROOT) != source_checksum(tmp_path)
    for name in ("train/a.py", "train/ranks/b.py", "hcnn_core/c.cu"):
        before, path = source_checksum(tmp_path), tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
        first = source_checksum(tmp_path)
        path.write_text("x = 2\n")
        assert len({before, first, source_checksum(tmp_path)}) == 3
    before = source_checksum(tmp_path)
    (tmp_path / "train" / "a.pyc").touch()
    (tmp_path / "mine.py").touch()
    assert source_checksum(tmp_path) == before


def test_an_error_of_one_rank_reaches_all() -> None:
    def work(ranks: Ranks) -> None:
        with pytest.raises(ValueError, match=r"of rank 1 \(rank 1 on ") as caught:
            ranks.agree(lambda: _fail(ranks.rank))
        assert caught.value.agreed  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="of rank 0"):
            ranks.from_first(lambda: _fail(1, "of rank 0"))
        assert ranks.from_first(lambda: ranks.rank) == 0

    on_ranks(3, work)


def _fail(rank: int, text: str = "of rank 1") -> None:
    if rank == 1:
        raise ValueError(text)


@pytest.mark.parametrize("variables", [{}, {"OMPI_COMM_WORLD_SIZE": "1"}, {"PMI_SIZE": "1", "PMI_RANK": "0"}])
def test_one_process_imports_no_mpi(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in (*distributed.SIZES, *distributed.RANKS):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert launched() == 0 and join().size == 1


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"])
def test_a_launcher_without_mpi4py_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Else every process would train by itself, and write to one directory."""
    monkeypatch.setenv(variable, "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(DistributedError, match=r"pip install .*\[mpi\].*, besides an MPI"):
        join()


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_what_all_ranks_lack_is_said_by_one(
    rank: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", rank)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert cifar.main(["--describe"]) == 1
    assert capsys.readouterr().err.count("besides an MPI") == lines


@pytest.mark.parametrize(
    ("mine", "others", "threads"),
    [
        ({0, 1, 2, 3}, [("here", {0, 1, 2, 3})], 2),
        ({0, 1}, [("here", {2, 3})], 2),  # bound to processors of its own
        ({0, 1, 2}, [("there", {0, 1, 2})], 3),  # on another host
        ({0}, [("here", {0}), ("here", {0})], 1),
    ],
)
def test_ranks_share_the_processors_of_their_host(
    mine: set[int], others: list[Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: mine, raising=False)
    for name in ("HCNN_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    ranks = Ranks()
    ranks.host = "here"
    monkeypatch.setattr(ranks, "gather", lambda value: [value, *others])
    share_processors(ranks)
    assert os.environ.pop("HCNN_NUM_THREADS") == str(threads)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    share_processors(ranks)
    assert "HCNN_NUM_THREADS" not in os.environ  # what the user has set stays


def test_ranks_that_cannot_be_watched_say_so_and_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []

    def nowhere(module: str, one_host: bool) -> Any:
        process, (host, _), key = start(module, one_host)
        started.append(process)
        return process, (host, 1), key

    monkeypatch.setattr(watch, "start", nowhere)

    def work(ranks: Ranks) -> bool:
        ranks.be_watched("train.cifar")
        return ranks.watch.connected

    assert on_ranks(2, work) == [False, False]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ranks that hang will not be noticed: rank 0 on " in said
    assert started[0].returncode == 0  # the watching process has gone


def test_ranks_that_end_well_let_the_watching_process_end() -> None:
    def work(ranks: Ranks) -> Any:
        ranks.be_watched("train.cifar")
        process = ranks.watch.process
        assert ranks.watch.connected
        ranks.gather(None)
        ranks.leave()
        return process

    assert on_ranks(2, work)[0].returncode == 0


def test_a_signal_stops_all_ranks_after_the_step_that_all_know_of_it_in() -> None:
    """Not those that received it, at once: the others would wait for them."""

    def work(ranks: Ranks) -> list[int]:
        stops = []
        for received in ([], [signal.SIGTERM] if ranks.rank == 1 else [], []):
            ranks.begin_step("a step", [])
            stops.append(ranks.asked_to_stop(received))  # which has come since
            ranks.begin_step("a step", received)
            ranks.sum_step({"w": np.ones(2)}, np.zeros(()), {"accuracy": np.zeros((), int)}, 0.5, METRICS)
            stops.append(ranks.asked_to_stop([]))
        return stops

    assert on_ranks(2, work) == [[0, 0, 0, signal.SIGTERM, 0, 0]] * 2


def test_ranks_stop_with_a_line_when_the_watching_process_dies(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A rank that hung later would hang the others for ever."""
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    of_system = SimpleNamespace(**{name: getattr(os, name) for name in ("_exit", "environ", "getpid", "write")})
    of_system.kill = lambda process, signum: asked.put(signum)
    monkeypatch.setattr(watch, "os", of_system)

    def work(ranks: Ranks) -> None:
        ranks.be_watched("train.cifar")
        ranks.gather(None)
        if ranks.watch.process is not None:
            ranks.watch.process.kill()
        assert asked.get(timeout=60) == signal.SIGTERM
        ranks.gather(None)
        ranks.leave()

    on_ranks(2, work)
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("train.cifar: the process that watches the ranks has died")


@pytest.mark.parametrize("patience", ["soon", "0", "-3", "1.5.2", "inf"])
def test_patience_that_is_no_number_is_refused(patience: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCNN_PATIENCE", patience)

    def work(ranks: Ranks) -> None:
        with pytest.raises(DistributedError, match=r"HCNN_PATIENCE is .*; set it to seconds"):
            ranks.be_watched("train.cifar")

    on_ranks(2, work)
