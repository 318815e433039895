"""One gradient step as a function of arrays: weights, the optimiser's state and running moments, before and after it.

On a GPU a step is some thousand small kernels, whose launches one by one take longer than they do. `GraphedStep`
records them once as a CUDA graph, on memory of its own, and from then on launches them together.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Any

from autodiff import tree_leaves, tree_map, value_and_grad
from hcnn_core import precision
from hcnn_core.backend import Array, lasting_memory, record, write
from hcnn_core.updates import Term, weighted_sums
from train.config import Config
from train.data import Images, resize
from train.networks.layer import Parameters
from train.networks.network import Network
from train.ranks.ranks import Ranks
from train.recipes.augmentations import batch_of
from train.recipes.losses import loss_of, right
from train.recipes.optimizers import OPTIMIZERS, Progress
from train.runs.teacher import Teacher

__all__ = ["Arrays", "GraphedStep", "Inputs", "Step", "gradient_step", "initial_arrays", "wants_graphs"]

Arrays = dict[str, Any]
"""Trees "parameters", "optimizer", "moments" and, where weights are averaged, "average": the parts of a run's state
that are arrays."""

Inputs = dict[str, Any]
"""What a step is told by the host: what `draw_batch` draws for its images, learning "rate", the number of the "step",
"keep", the part kept of the running moments, "fresh", the part taken of the batch's, "settled", the part kept of the
averaged weights, where there are any, and "noise", random numbers by layer, where layers want some."""

Step = Callable[[Arrays, Any], tuple[Arrays, Array, Array]]
"""From arrays and inputs to arrays, loss, and how many images were classified right."""

WARM_UP = 3
"""Steps before one is recorded: tables have then been placed on the device and kernels compiled."""


def initial_arrays(network: Network, parameters: Parameters) -> Arrays:
    """Return what a step changes, before the first one."""
    arrays = {
        "parameters": parameters,
        "optimizer": OPTIMIZERS[network.config.optimizer].init(parameters),
        "moments": network.initial_moments(),
    }
    return arrays | ({"average": parameters} if network.config.average_decay else {})


def gradient_step(
    xp: Any,
    config: Config,
    network: Network,
    images: Images,
    size: tuple[int, ...] | None = None,
    ranks: Ranks | None = None,
    teacher: Teacher | None = None,
) -> Step:
    """Return the step of a network on a set of images; a teacher is given them at their own size."""
    shared = ranks is not None and ranks.size > 1

    def step(arrays: Arrays, inputs: Any) -> tuple[Arrays, Array, Array]:
        batch, taught = batch_of(config, images, inputs), None
        if teacher is not None:
            with precision(config.precision):
                taught = teacher.logits(batch.images)
        x = resize(batch.images, size or batch.images.shape[1:-1])
        whole, share = network, 1.0
        if ranks is not None and shared:
            share = float(inputs["share"])
            whole = network.on_shard(ranks.shard(share))

        def loss_and_more(parameters: Parameters) -> Any:
            logits, moments = whole(parameters, x, noise=inputs.get("noise"))
            loss = loss_of(config, logits, batch, taught)
            return (loss * share if shared else loss), (logits, moments)

        with precision(config.precision):
            (loss, (logits, moments)), gradients = value_and_grad(loss_and_more, has_aux=True)(arrays["parameters"])
        correct = right(logits, batch.labels)
        if ranks is not None and shared:
            gradients, loss, correct = ranks.sum_step(gradients, loss, correct * bool(share))
        parameters, state = OPTIMIZERS[config.optimizer].update(
            config, Progress(inputs["rate"], inputs["step"]), gradients, arrays["optimizer"], arrays["parameters"]
        )
        return {**arrays, **_averages(arrays, parameters, moments, inputs), "optimizer": state}, loss, correct

    return step


def _averages(arrays: Arrays, parameters: Parameters, moments: Any, inputs: Any) -> Arrays:
    """The weights after a step, running moments that have taken in a batch's, and averaged weights, where there are."""
    keep, fresh = inputs["keep"], inputs["fresh"]
    after = {
        "parameters": parameters,
        "moments": _sums(arrays["moments"], moments, (0.0, 1.0, keep), (0.0, 1.0, fresh)),
    }
    if arrays.get("average"):
        settled = inputs["settled"]
        after["average"] = _sums(arrays["average"], parameters, (0.0, 1.0, settled), (1.0, -1.0, settled))
    return after


def _sums(one: Any, other: Any, *factors: tuple[Any, ...]) -> Any:
    """A tree of weighted sums of the leaves of two, all in one call."""
    pairs = [[Term(array, *of) for array, of in zip(pair, factors, strict=True)] for pair in _pairs(one, other)]
    found = iter(weighted_sums(pairs))
    return tree_map(lambda _: next(found), one)


def wants_graphs(xp: Any) -> bool:
    """Whether steps on arrays of a namespace are to be recorded: those of CuPy, unless HCNN_CUDA_GRAPH is 0."""
    return xp.__name__ == "cupy" and os.environ.get("HCNN_CUDA_GRAPH", "1") != "0"


class GraphedStep:
    """A step by a CUDA graph, where there is CuPy and every call of the step can be recorded.

    The graph changes its arrays only where the loss is finite. Before it is used its first step is compared with the
    same step launched kernel by kernel: they must be equal.
    """

    def __init__(self, xp: Any, step: Step, batch_size: int) -> None:
        self.xp, self.step, self.batch_size = xp, step, batch_size
        self.wanted = wants_graphs(xp)
        self.taken = 0
        self.launch: Callable[[], None] | None = None
        self.arrays: Arrays = {}
        self.inputs: dict[str, Array] = {}
        self.results: tuple[Array, ...] = ()

    def __call__(self, arrays: Arrays, inputs: Inputs) -> tuple[Arrays, Array, Array]:
        """Take a step."""
        self.taken += 1
        if not self.wanted or len(inputs["index"]) != self.batch_size or self.taken <= WARM_UP:
            return self._kernel_by_kernel(arrays, inputs)
        if self.launch is None:
            return self._begin(arrays, inputs)
        tree_map(_assign, self.arrays, arrays)
        tree_map(write, self.inputs, inputs)
        self.launch()
        loss, correct = self.results
        return self.arrays, loss, correct

    def _kernel_by_kernel(self, arrays: Arrays, inputs: Inputs) -> tuple[Arrays, Array, Array]:
        after = self.step(arrays, tree_map(self.xp.asarray, inputs))
        if not self.wanted:
            return after
        with lasting_memory(self.xp):  # what the step itself allocated is given back before it is recorded
            return tree_map(self._copied, after)

    def _begin(self, arrays: Arrays, inputs: Inputs) -> tuple[Arrays, Array, Array]:
        """Take a step kernel by kernel, and record and check the graph that takes the next ones."""
        expected = self._kernel_by_kernel(arrays, inputs)
        if not bool(self.xp.isfinite(expected[1])):  # nothing that could be compared
            return expected
        try:
            self._record(arrays, inputs)
            assert self.launch
            self.launch()
            same = tree_map(lambda a, b: bool((a == b).all()), (self.arrays, *self.results), expected)
            if not all(tree_leaves(same)):
                raise RuntimeError("its first step has other results")
        except Exception as error:  # whatever CuPy, the driver or the card cannot record
            self.wanted = False
            self._drop()
            line = " ".join(str(error).split())
            print(f"steps are launched kernel by kernel, without a CUDA graph: {line}", file=sys.stderr)
        return expected

    def _record(self, arrays: Arrays, inputs: Inputs) -> None:
        xp = self.xp
        with lasting_memory(xp):
            self.arrays = held = tree_map(self._copied, arrays)
            self.inputs = told = tree_map(xp.asarray, inputs)

        def work() -> tuple[Array, Array]:
            after, loss, correct = self.step(held, told)  # which a replay reads, whatever `self` holds then
            finite = xp.isfinite(loss)
            pairs = _pairs(held, after)
            weighted_sums([[Term(new, 1.0)] for _, new in pairs], out=[held for held, _ in pairs], where=finite)
            return loss, correct

        self.launch, self.results = record(work)
        tree_map(_assign, self.arrays, arrays)  # what the rehearsal changed

    def _copied(self, array: Array) -> Array:
        return self.xp.asarray(array, copy=True)

    def _drop(self) -> None:
        """Give back what a graph keeps: its results first, since what they lie in is given back with the launch."""
        self.arrays, self.inputs, self.results = {}, {}, ()
        gc.collect()  # arrays of the tape, which is a cycle
        self.launch = None


def _pairs(one: Any, other: Any) -> list[tuple[Array, Array]]:
    """The leaves of two trees of one structure, side by side."""
    pairs: list[tuple[Array, Array]] = []
    tree_map(lambda a, b: pairs.append((a, b)), one, other)
    return pairs


def _assign(held: Array, given: Array) -> None:
    if held is not given:
        held[...] = given
