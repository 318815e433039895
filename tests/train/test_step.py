"""Steps by a CUDA graph, recorded on a stand-in for CuPy that refuses what a graph cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autodiff import tree_leaves, tree_map
from autodiff._rules import products as product_rules
from hcnn_core import backend
from hcnn_core._engines.cuda import matmul as _cuda_products
from hcnn_core._engines.generic import matmul as generic_matmul
from hcnn_core._tuning import tuned
from hcnn_core.backend import _device, _memory_order, get_namespace, to_numpy
from hcnn_core.precisions import uses_tf32
from tests.remote import REMOTE, NotReplayable, Remote, put, recording, rehearse_and_repeat, take
from train.config import make_config
from train.data import Images
from train.data.augmentation import draw_holes
from train.networks.network import Network
from train.networks.registry import build
from train.recipes.augmentations import AUGMENTATIONS, Position
from train.runs import step as steps
from train.runs.step import WARM_UP, GraphedStep, gradient_step, initial_arrays
from train.runs.teacher import Teacher
from train.runs.training import evaluate

BATCH, COUNT = 6, 40

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "muon": {"optimizer": "muon", "nesterov": True, "weight_decay": 0.01},
    "plus": {"nonlinear_factors": True},
    "cutout": {"cutout": 3, "resample": 0.2, "noise": 0.1},
    "taught": {"teacher": "another", "teacher_share": 0.6, "attention_transfer": 5.0},
    "smooth": {"label_smoothing": 0.1, "head": "sum", "reduction": "sum", "boundary": "periodic"},
}


@pytest.fixture
def as_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small matrices are multiplied by a kernel of one's own, and arrays joined by copies, as CuPy's are."""

    def multiply(xp: Any, a: Any, b: Any) -> Any:
        return put(np.matmul(take(a), take(b)))

    for module in (product_rules, _device, _memory_order):
        monkeypatch.setattr(module, "library_of", lambda array: "cupy" if isinstance(array, Remote) else "numpy")
    monkeypatch.setattr(_cuda_products, "multiply", multiply)
    of_library = backend.array_namespace
    kernels = SimpleNamespace(matmul=_cuda_products.matmul)
    monkeypatch.setattr(
        generic_matmul, "array_namespace", lambda a, b: kernels if isinstance(a, Remote) else of_library(a, b)
    )
    with tuned(expansion_elements=1 << 14):  # several tiles of a (+) layer
        yield


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, as_cupy: None) -> Iterator[list[int]]:
    """How many graphs were recorded."""
    recorded: list[int] = []

    def counted(work: Any) -> Any:
        launched = rehearse_and_repeat(work)
        recorded.append(1)
        return launched

    monkeypatch.setattr(steps, "record", counted)
    yield recorded


def host(array: Any) -> Any:
    return take(array) if isinstance(array, Remote) else to_numpy(array)


class Problem:
    """A small network, its images, and what a host tells its steps."""

    def __init__(self, xp: Any = REMOTE, **settings: Any) -> None:
        put = self.put = xp.asarray
        small = {"width": 4, "factors": 4, "depth": 5, "attribute_kernel": (2, 2), "strided_layers": (3,), "shift": 2}
        self.config = make_config("sample", {**small, **settings})
        self.network = build(self.config, image_size=8)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
        labels = rng.integers(0, 10, COUNT)
        self.images = Images(put(images), put(labels), np.full(3, 120.0), np.full(3, 60.0), self.config.dtype)
        self.arrays = tree_map(put, initial_arrays(self.network, self.network.initialize(rng)))
        teacher = None
        if self.config.teacher:
            network = build(make_config("sample", {**small, "width": 6}), image_size=8)
            merged = network.merged(network.initialize(rng), network.initial_moments())
            arrays = merged, {}, np.float32([2, 1, 0.5]), np.float32([0, 1, 2])
            teacher = Teacher(network.folded(), *tree_map(put, arrays))
        self.step = gradient_step(self.config, self.network, self.images, teacher=teacher)

    def inputs(self, number: int, batch: int = BATCH) -> dict[str, Any]:
        rng = np.random.default_rng(number)
        keep = min(0.9, number / (number + 1))
        numbers = {"rate": 0.1 / (number + 1), "step": number + 1, "moments_kept": keep, "moments_taken": 1 - keep}
        sources = {
            "index": rng.integers(COUNT, size=batch),
            "rows": np.arange(8) + rng.integers(-2, 3, (batch, 1)),
            "columns": np.arange(8) + rng.integers(-2, 3, (batch, 1)),
        }
        if side := self.config.cutout:
            sources["hidden_rows"], sources["hidden_columns"] = draw_holes(rng, (batch, 8, 8, 3), side)
        position = Position(sources["index"], (8, 8, 3), 0, COUNT)
        for part in (AUGMENTATIONS["resample"], AUGMENTATIONS["noise"]):
            sources |= part.draw(self.config, rng, position) if part.is_on(self.config) else {}
        return {
            **sources,
            **{name: np.asarray(value, self.config.dtype) for name, value in numbers.items()},
        }

    def graphed(self) -> GraphedStep:
        graphed = GraphedStep(REMOTE, self.step, BATCH)
        graphed.wanted = True  # as if the namespace were CuPy
        return graphed

    def run(self, step: Any, batches: list[int]) -> tuple[Any, list[float], list[int]]:
        arrays, losses, hits = self.arrays, [], []
        for number, batch in enumerate(batches):
            arrays, loss, found = step(arrays, self.inputs(number, batch))
            losses.append(float(loss))
            hits.append(int(found["accuracy"]))
        return tree_map(host, arrays), losses, hits

    def kernel_by_kernel(self, arrays: Any, inputs: Any) -> Any:
        return self.step(arrays, tree_map(self.put, inputs))


@pytest.mark.gpu
@pytest.mark.parametrize("name", SETTINGS)
def test_graph_on_a_gpu(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """As below, by CuPy itself."""
    cupy = get_namespace("cupy")
    problem = Problem(cupy, **SETTINGS[name])
    graphed = GraphedStep(cupy, problem.step, BATCH)
    batches = [BATCH] * (WARM_UP + 3) + [BATCH - 2] + [BATCH] * 3
    expected, found = problem.run(problem.kernel_by_kernel, batches), problem.run(graphed, batches)
    assert capsys.readouterr().err == "" and graphed.launch
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.lot
@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_graph_takes_the_same_steps(record: list[int], capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Bit for bit, batches of another size and what the host says anew at each step among them."""
    problem = Problem(**SETTINGS[name])
    batches = [BATCH] * WARM_UP + [BATCH - 2] + [BATCH] * 3 + [BATCH - 2] + [BATCH] * 3
    expected, found = problem.run(problem.kernel_by_kernel, batches), problem.run(problem.graphed(), batches)
    assert capsys.readouterr().err == ""
    assert len(record) == 1
    assert len(set(expected[1])) == len(batches)
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert np.array_equal(one, other)


def test_the_precision_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """In steps and in evaluation, and not beyond."""
    seen: list[bool] = []
    call = Network.__call__

    def spying(self: Network, *arguments: Any, **options: Any) -> Any:
        seen.append(uses_tf32("float32"))
        return call(self, *arguments, **options)

    monkeypatch.setattr(Network, "__call__", spying)
    problem = Problem(np, precision="tf32")
    problem.run(problem.kernel_by_kernel, [BATCH])
    evaluate(problem.network, problem.arrays["parameters"], problem.arrays["moments"], problem.images)
    assert set(seen) == {True} and len(seen) > 1
    assert not uses_tf32("float32")


def test_loss_that_is_not_finite_leaves_the_arrays_alone(record: list[int]) -> None:
    problem = Problem()
    graphed = problem.graphed()
    arrays = problem.arrays
    for number in range(WARM_UP + 2):
        arrays, _, _ = graphed(arrays, problem.inputs(number))
    before = tree_map(np.array, take(arrays))
    arrays, loss, _ = graphed(arrays, {**problem.inputs(9), "rate": np.asarray(np.nan, "float32")})
    assert np.isfinite(float(loss))  # the rate comes after the loss
    assert all(np.isnan(a).all() for a in tree_leaves(take(arrays["parameters"])))
    arrays, loss, _ = graphed(tree_map(put, before), problem.inputs(10))
    assert np.isfinite(float(loss))
    arrays["parameters"]["layer01"]["w"][...] = np.nan
    poisoned = tree_map(np.array, take(arrays))
    arrays, loss, _ = graphed(arrays, problem.inputs(11))
    assert np.isnan(float(loss))
    for one, other in zip(tree_leaves(take(arrays)), tree_leaves(poisoned), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def test_a_replay_reads_what_was_written_not_what_was_bound_anew(
    monkeypatch: pytest.MonkeyPatch, record: list[int]
) -> None:
    monkeypatch.setattr(steps, "write", lambda held, given: given)
    problem = Problem()
    batches = [BATCH] * (WARM_UP + 3)
    _, expected, _ = problem.run(problem.kernel_by_kernel, batches)
    _, found, _ = problem.run(problem.graphed(), batches)
    assert record == [1] and found[: WARM_UP + 1] == expected[: WARM_UP + 1] and found != expected


def refused(work: Any) -> Any:
    raise NotReplayable("cuBLAS\n  cannot be recorded")


def other_results(work: Any) -> Any:
    launch, results = rehearse_and_repeat(work)

    def wrong() -> None:
        launch()
        results[0][...] = results[0] * 2

    return wrong, results


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [(refused, "cuBLAS cannot be recorded"), (other_results, "its first step has other results")],
)
def test_steps_go_on_without_a_graph(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_cupy: None,
    recorder: Any,
    reason: str,
) -> None:
    """In one line, once, and no step is lost or taken twice."""
    monkeypatch.setattr(steps, "record", recorder)
    problem = Problem()
    batches = [BATCH] * (WARM_UP + 3)
    expected, found = problem.run(problem.kernel_by_kernel, batches), problem.run(problem.graphed(), batches)
    assert capsys.readouterr().err == f"steps are launched kernel by kernel, without a CUDA graph: {reason}\n"
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert np.array_equal(one, other)


def test_the_stand_in_refuses_what_a_graph_cannot_hold() -> None:
    x = put(np.ones((2, 2)))
    attempts = [
        lambda: x @ x,
        lambda: np.concatenate([x, x]),
        lambda: float(REMOTE.sum(x)),
        lambda: bool(REMOTE.sum(x)),
        lambda: REMOTE.asarray(np.ones(2)),
        lambda: REMOTE.asarray([1.0]),
    ]
    for attempt in attempts:
        attempt()
        with recording(), pytest.raises(NotReplayable):
            attempt()


@pytest.mark.parametrize(("value", "wanted"), [(None, True), ("1", True), ("0", False)])
def test_graphs_are_for_cupy_and_can_be_done_without(
    monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: bool
) -> None:
    monkeypatch.delenv("HCNN_CUDA_GRAPH", raising=False)
    if value is not None:
        monkeypatch.setenv("HCNN_CUDA_GRAPH", value)
    cupy = SimpleNamespace(__name__="cupy")
    assert GraphedStep(cupy, lambda arrays, inputs: (arrays, 0, {}), 1).wanted is wanted
    assert not GraphedStep(np, lambda arrays, inputs: (arrays, 0, {}), 1).wanted
