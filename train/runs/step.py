"""One gradient step as a function of arrays: weights, the optimiser's state and running moments, before and after it.

On a GPU a step is some thousand small kernels, whose launches one by one take longer than they do. `GraphedStep`
records them once as a CUDA graph, on memory of its own, and from then on launches them together.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable
from typing import Any, Literal

from autodiff import tree_leaves, tree_map, value_and_grad
from hcnn_core import precision
from hcnn_core.backend import Array, lasting_memory, record, write
from hcnn_core.environment import is_on
from hcnn_core.updates import Term, weighted_sums
from train.config import Config
from train.data import Images, resize
from train.networks.layer import Parameters
from train.networks.network import Network
from train.ranks.ranks import Ranks
from train.recipes.augmentations import batch_of
from train.recipes.averages import averaged, pairs
from train.recipes.losses import LOSSES, attention_distance, with_teacher
from train.recipes.metrics import metrics_of
from train.recipes.optimizers import Parameter, Progress, direction, initial_state, updated
from train.recipes.tasks import learned
from train.runs.teacher import Teacher

Arrays = dict[str, Any]
"""Trees "parameters", "optimizer", "moments" and, where weights are averaged, "average": the parts of a run's state
that are arrays."""

Inputs = dict[str, Any]
"""A step's inputs from the host: the numbers of `draw_batch`, the learning "rate", the number of the "step", the
parts that averages keep (`averages.parts`), and the random numbers of layers, "noise" (`Network.noise`)."""

StepFunction = Callable[[Arrays, Any], tuple[Arrays, Array, dict[str, Array]]]
"""From arrays and inputs to arrays, loss, and the numbers of `METRICS`."""

WARM_UP = 3
"""Steps before one is recorded: tables have then been placed on the device and kernels compiled."""


def initial_arrays(network: Network, parameters: Parameters) -> Arrays:
    """Return the arrays that a step changes, before the first one."""
    state = initial_state(network.config, parameters)
    arrays = {"parameters": parameters, "optimizer": state, "moments": network.initial_moments()}
    return arrays | ({"average": parameters} if network.config.average_decay else {})


def gradient_step(
    config: Config,
    network: Network,
    images: Images,
    size: tuple[int, ...] | None = None,
    ranks: Ranks | None = None,
    teacher: Teacher | None = None,
) -> StepFunction:
    """Return the step of a network on a set of images, of another size if given; a teacher sees them at their own."""
    ranks = ranks or Ranks()
    shared = teacher.shared(network) if teacher is not None and config.attention_transfer else []
    names, of_teacher = ([pair[i] for pair in shared] for i in (0, 1))
    task = learned(config, images.targets.kind)
    loss_of = LOSSES[task.loss_of(config)].mean
    metrics = metrics_of(task)

    def step(arrays: Arrays, inputs: Any) -> tuple[Arrays, Array, dict[str, Array]]:
        weights, share = arrays["parameters"], float(inputs["share"]) if ranks.size > 1 else None
        batch = batch_of(config, images, inputs)
        x = batch.images if size is None else resize(batch.images, size)
        part = network.in_step(None if share is None else ranks.shard(share), inputs.get("noise", {}))
        with precision(config.precision):
            teacher_logits, attended = (None, []) if teacher is None else teacher(batch.images, of_teacher)

            def loss_and_more(weights: Parameters) -> Any:
                logits, moments, maps = part.with_maps(weights, x, at=names)
                loss = loss_of(config, logits, batch)
                if teacher_logits is not None:
                    loss = with_teacher(config, loss, logits, teacher_logits)
                if maps:
                    loss = loss + config.attention_transfer * attention_distance(maps, attended)
                return (loss if share is None else loss * share), (logits, moments)

            (loss, (logits, moments)), gradients = value_and_grad(loss_and_more, has_aux=True)(weights)
        numbers = {name: of.of_step(task, logits, batch) for name, of in metrics.items() if of.of_step}
        if share is not None:
            gradients, loss, numbers = ranks.sum_step(gradients, loss, numbers, share, metrics)
        for name, metric in metrics.items():
            if metric.of_gradients:
                numbers[name] = metric.of_gradients(gradients, direction(config, arrays["optimizer"]))
        progress = Progress(inputs["rate"], inputs["step"])
        weights, state = updated(config, progress, parameters_of(network, weights), gradients, arrays["optimizer"])
        averages = averaged(arrays, weights, moments, inputs)
        return {**arrays, "parameters": weights, "optimizer": state, **averages}, loss, numbers

    return step


def parameters_of(network: Network, weights: Parameters) -> dict[str, dict[str, Parameter]]:
    """Return weights as `Parameter`s for optimisers: arrays with several axes are filters, others scales or biases."""

    def kind(name: str, a: Array) -> Literal["filter", "scale", "bias"]:
        return "filter" if a.ndim > 1 else "scale" if name.endswith("scale") else "bias"

    return {
        layer: {name: Parameter(a, kind(name, a), network[layer].row_axes.get(name)) for name, a in arrays.items()}
        for layer, arrays in weights.items()
    }


def wants_graphs(xp: Any) -> bool:
    """Whether steps on arrays of a namespace are to be recorded: those of CuPy, unless HCNN_CUDA_GRAPH is 0."""
    return xp.__name__ == "cupy" and is_on("HCNN_CUDA_GRAPH")


class GraphedStep:
    """A step by a CUDA graph, where there is CuPy and every call of the step can be recorded.

    The graph changes its arrays only where the loss is finite. Before it is used its first step is compared with the
    same step launched kernel by kernel: they must be equal.
    """

    def __init__(self, xp: Any, step: StepFunction, batch_size: int) -> None:
        self.xp, self.step, self.batch_size = xp, step, batch_size
        self.wanted = wants_graphs(xp)
        self.taken = 0
        self.launch: Callable[[], None] | None = None
        self.arrays: Arrays = {}
        self.inputs: dict[str, Array] = {}
        self.results: tuple[Any, ...] = ()

    def __call__(self, arrays: Arrays, inputs: Inputs) -> tuple[Arrays, Array, dict[str, Array]]:
        """Take a step."""
        self.taken += 1
        if not self.wanted or len(inputs["index"]) != self.batch_size or self.taken <= WARM_UP:
            return self._kernel_by_kernel(arrays, inputs)
        if self.launch is None:
            return self._begin(arrays, inputs)
        tree_map(_assign, self.arrays, arrays)
        tree_map(write, self.inputs, inputs)
        self.launch()
        loss, numbers = self.results
        return self.arrays, loss, numbers

    def _kernel_by_kernel(self, arrays: Arrays, inputs: Inputs) -> tuple[Arrays, Array, dict[str, Array]]:
        after = self.step(arrays, tree_map(self.xp.asarray, inputs))
        if not self.wanted:
            return after
        with lasting_memory(self.xp):  # what the step itself allocated is given back before it is recorded
            return tree_map(self._copied, after)

    def _begin(self, arrays: Arrays, inputs: Inputs) -> tuple[Arrays, Array, dict[str, Array]]:
        """Take a step kernel by kernel, and record and check the graph that takes the next ones."""
        expected = self._kernel_by_kernel(arrays, inputs)
        if not bool(self.xp.isfinite(expected[1])):  # nothing that could be compared
            return expected
        try:
            self._record(arrays, inputs, expected[2])
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

    def _record(self, arrays: Arrays, inputs: Inputs, names: Iterable[str]) -> None:
        xp = self.xp
        with lasting_memory(xp):
            self.arrays = held = tree_map(self._copied, arrays)
            self.inputs = inputs_held = tree_map(xp.asarray, inputs)

        def work() -> tuple[Array, ...]:
            after, loss, numbers = self.step(held, inputs_held)  # which a replay reads, whatever `self` holds then
            finite = xp.isfinite(loss)
            both = pairs(held, after)
            weighted_sums([[Term(new, 1.0)] for _, new in both], out=[held for held, _ in both], where=finite)
            return loss, *numbers.values()

        self.launch, (loss, *numbers) = record(work)
        self.results = loss, dict(zip(names, numbers, strict=True))
        tree_map(_assign, self.arrays, arrays)  # what the rehearsal changed

    def _copied(self, array: Array) -> Array:
        return self.xp.asarray(array, copy=True)

    def _drop(self) -> None:
        """Give back a graph's memory: its results first, since their memory is given back with the launch."""
        self.arrays, self.inputs, self.results = {}, {}, ()
        gc.collect()  # arrays of the tape, which is a cycle
        self.launch = None


def _assign(held: Array, value: Array) -> None:
    if held is not value:
        held[...] = value
