"""The training loop: batches, steps, running moments, checkpoints, and what stops it."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import tree_map
from hcnn_core import precision
from hcnn_core.backend import Array, array_namespace, dtype_name, to_numpy
from train.config import Config
from train.data import INFO, Images, spread, views
from train.data.description import labels_checksum
from train.data.progress import SILENT, progress_bar
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.networks.registry import architecture_of, build
from train.ranks.ranks import Ranks
from train.recipes.augmentations import Position, batch_of, draw_batch
from train.recipes.averages import parts
from train.recipes.metrics import METRICS, metrics_of
from train.recipes.schedules import image_size, learning_rate
from train.recipes.tasks import TASKS, Task, balanced_accuracy, learned
from train.runs import checkpoint as checkpoints
from train.runs import compiling
from train.runs.calibration import tempered_loss
from train.runs.checkpoint import Checkpoint, CheckpointError, State
from train.runs.memory import require_weights
from train.runs.run import Interrupted, Run, TrainingError
from train.runs.step import GraphedStep, Inputs, gradient_step, initial_arrays
from train.runs.teacher import Teacher

EVALUATION_BATCH = 100

TRAINED = tuple(kind for kind in checkpoints.GROUPS if kind != "moments")
"""Arrays that a step changes; moments are renewed after it, and evaluation names layers where they are not finite."""


@dataclass(frozen=True)
class Result:
    """The evaluation of a network on a labelled set."""

    loss: float  # mean negative log-likelihood, in nats; of numbers the squared error, in their deviations
    accuracy: float  # the task's score: part of images or of labels that is right, or of numbers the mean R^2
    confusion: np.ndarray[Any, Any]  # images of class i (row) taken for class j (column)
    # part classified right by the mean of the logits of several views of each image, where that was asked for
    averaged: float | None
    logits: np.ndarray[Any, Any]  # of each image, in the order of the set
    details: dict[str, float] = field(default_factory=dict)  # what else is recorded of the task
    task: Task = TASKS["classes"]


def evaluate(
    network: Network, parameters: Parameters, moments: Moments, data: Images, *, ranks: Ranks | None = None
) -> Result:
    """Return mean loss, accuracy and confusion of a network on a set, with its running moments."""
    count, task, ranks = data.images.shape[0], learned(network.config, data.targets.kind), ranks or Ranks()
    loss, outputs = 0.0, np.zeros((count, network.classes), data.dtype)
    merged = network.opened(parameters, moments)
    for part in batches(_most(network, ranks), count, ranks, "evaluation"):
        x, labels = data.take(part)
        with precision(network.config.precision):
            logits, _ = merged(parameters, x, moments)
        batch_loss = float(task.evaluated(logits, labels))
        if not math.isfinite(batch_loss):
            first = first_not_finite(network, parameters, x, moments)
            raise TrainingError(f"the loss is {batch_loss} in evaluation; first not finite: {first}")
        loss += batch_loss * x.shape[0]
        outputs[part] = to_numpy(logits)
    if ranks.size > 1:
        xp = array_namespace(data.labels)
        loss = float(ranks.all_reduce(xp.asarray(np.array([loss], np.float64)))[0])
        outputs = to_numpy(ranks.all_reduce(xp.asarray(outputs)))
    labels = to_numpy(data.labels)
    score, details = task.measured(outputs, labels, data.targets.std)
    return Result(loss / count, score, task.confusion(outputs, labels), None, outputs, details, task)


def evaluate_views(
    network: Network, parameters: Parameters, moments: Moments, data: Images, result: Result, ranks: Ranks | None = None
) -> Result:
    """Return an evaluation with the accuracy of the mean of logits over several views, if there are others."""
    config, count, hits = network.config, data.images.shape[0], 0
    if not (config.flip or config.shift) or not result.task.ranks:
        return result
    ranks, merged, xp = ranks or Ranks(), network.opened(parameters, moments), array_namespace(data.labels)
    for part in batches(_most(network, ranks), count, ranks, "other views"):
        x, labels = data.take(part)
        others = views(x, flip=config.flip, shift=config.shift)
        with precision(config.precision):
            whole = xp.asarray(result.logits[part])
            logits = sum((merged(parameters, view, moments)[0] for view in others), start=whole)
        hits += int(result.task.right(logits, labels))
    if ranks.size > 1:
        hits = int(ranks.all_reduce(xp.asarray(np.array([hits], np.float64)))[0])
    return replace(result, averaged=hits / count)


def _most(network: Network, ranks: Ranks) -> int:
    """Count the images in the estimate of memory."""
    return min(EVALUATION_BATCH, -(-network.config.batch_size // ranks.size))


def batches(size: int, count: int, ranks: Ranks | None = None, title: str = "") -> Iterator[slice]:
    """Yield this rank's batches, one of nothing where there are no images; a title is that of a bar on a terminal."""
    ranks = ranks or Ranks()
    with progress_bar(count, title, delay=3) if title else nullcontext(SILENT) as bar:
        for begin in range(ranks.rank * size, max(count, 1), ranks.size * size):
            yield slice(begin, min(begin + size, count))
            bar.update(min(ranks.size * size, count - begin))


def first_not_finite(network: Network, parameters: Parameters, x: Array, moments: Moments | None = None) -> str:
    """Name the first layer whose output is not finite."""
    with precision(network.config.precision):
        for layer, y, _ in network.trace(parameters, x, moments):
            if not bool(array_namespace(y).isfinite(y).all()):
                return layer.label
    return "the loss"


def restore(path: Path, checkpoint: Checkpoint, config: Config, xp: Any) -> tuple[Network, Parameters, Moments]:
    """Return a checkpoint's network with its weights and running moments on a device."""
    sizes = checkpoint.image_size, checkpoint.outputs, checkpoint.channels
    require_weights(config, *sizes)
    network, state = build(config, *sizes), checkpoint.state
    parameters = network.initialize(np.random.default_rng(0))
    checkpoints.require_same_arrays(path, state.evaluated, parameters, "parameters")
    checkpoints.require_same_arrays(path, state.moments, network.initial_moments(), "moments")
    return network, tree_map(xp.asarray, state.evaluated), tree_map(xp.asarray, state.moments)


class Trainer:
    """A run in progress."""

    def __init__(
        self,
        xp: Any,
        config: Config,
        network: Network,
        train: Images,
        held_out: Images | None,
        run: Run,
        versions: dict[str, str],
        class_names: tuple[str, ...],
        ranks: Ranks | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.ranks, self.teacher = ranks or Ranks(), teacher
        self.xp, self.config, self.network, self.run = xp, config, network, run
        self.train, self.held_out = train, held_out
        self.labels = labels_checksum([train.labels] + ([held_out.labels] if held_out else []))
        self.data = ""  # SHA-256 of the description of the samples
        self.range: tuple[float, float] | None = None  # of the values of the training part
        self.versions, self.class_names = versions, class_names
        self.task = learned(config, train.targets.kind)
        self.by_class = config.class_weights == "balanced"
        self.rng = np.random.default_rng(config.seed)
        self.count = int(train.images.shape[0])
        self.steps_per_epoch = math.ceil(self.count / config.batch_size)
        weights, (x, _) = network.initialize(self.rng), train.take(xp.asarray(spread(self.count, min(self.count, 100))))
        architecture_of(config).begin(network, weights, to_numpy(x))
        self.state = State(**initial_arrays(network, weights), generator={})
        self.record: dict[str, Any] = {}  # of the last epoch
        self._timed = 0, 0.0  # images of this epoch that this process took, and seconds
        self._first_step: float | None = None  # its seconds: it compiles kernels, or loads them
        self._graphed: tuple[tuple[int, ...], GraphedStep] | None = None
        self._seconds_per_pixel = 0.0  # of each step's images, by the last epoch
        self.to_device()

    def to_device(self) -> None:
        """Move the state's arrays to the backend."""
        for kind in checkpoints.GROUPS:
            setattr(self.state, kind, tree_map(self.xp.asarray, getattr(self.state, kind)))

    def restore(self, checkpoint: Checkpoint, where: Any) -> None:
        """Go on from a checkpoint's state, which must be of this network and these images."""
        if not checkpoint.state.optimizer:
            raise CheckpointError(f"{where} holds weights alone, so no run to go on with; --init-from begins with them")
        for kind in checkpoints.GROUPS:
            checkpoints.require_same_arrays(where, getattr(checkpoint.state, kind), getattr(self.state, kind), kind)
        ours, train, targets = checkpoint, self.train, self.train.targets
        pairs = (ours.channel_mean, train.mean), (ours.channel_std, train.std), (ours.targets.mean, targets.mean)
        same = all(np.array_equal(a, b) for a, b in pairs) and ours.targets.kind == targets.kind
        same = same and tuple(ours.class_names) == tuple(self.class_names) and ours.labels in (None, self.labels)
        if not same or len(ours.state.order) not in (0, self.count):
            raise CheckpointError(f"{where} was trained on other images than {self._images()}")
        self.state = checkpoint.state
        self.rng.bit_generator.state = checkpoint.state.generator
        self.to_device()

    @property
    def balanced(self) -> bool:
        """Whether the best epoch is that of the highest balanced accuracy: where classes count alike."""
        held_out = self.held_out is not None and self.state.best_error is not None
        return held_out and self.by_class

    def _images(self) -> str:
        """Say where the images come from, and which setting would name others."""
        if self.config.dataset in INFO:
            return f"{self.config.data_dir} holds; name theirs with --data-dir"
        return f"{self.config.dataset} holds; name theirs with --dataset"

    def fit(
        self,
        hours: float = math.inf,
        completed: Callable[[dict[str, Any]], None] = lambda record: None,
        timed: Callable[[float], None] = lambda seconds: None,
    ) -> bool:
        """Train until the last epoch is complete, or the last that fits into some hours.

        Each record is passed on, and after a process's second step the seconds that are left, where no bar shows them.
        """
        end = time.monotonic() + 3600 * hours
        several = self.ranks.size > 1
        requests = _stop_requests(
            forwarded=several,
            nothing_to_lose=lambda: self._first_step is None and not several,  # all is as it was saved
        )
        with requests if self.run.resumable else nullcontext(list[int]()) as stop:
            while self.state.epoch < self.config.epochs:
                begin, steps = time.monotonic(), self.steps_per_epoch - self.state.step
                expected = self._seconds_per_pixel * steps * math.prod(self._image_size())
                if max(self.ranks.gather(begin + expected > end)):
                    return False
                done, pixels = self.state.epoch, steps * math.prod(self._image_size())
                try:
                    begun = min(self.state.step * self.config.batch_size, self.count)
                    with progress_bar(self.count, self._title(), initial=begun) as bar:
                        self._epoch(bar, stop, timed)
                finally:
                    if self.state.epoch > done:
                        seconds = time.monotonic() - begin - self._compiled()
                        self._seconds_per_pixel = max(0.0, seconds / pixels)
                        completed(self.record)
            self._stop_if_asked(stop)
        return True

    def seconds_left(self) -> float:
        """Return how long the rest of the run takes at the speed of the last epoch."""
        state, extent = self.state, self._own_size()
        sizes = [image_size(self.config, epoch, extent) for epoch in range(state.epoch, self.config.epochs)]
        areas = [math.prod(size) for size in sizes]
        return self._seconds_per_pixel * (self.steps_per_epoch * sum(areas) - state.step * sum(areas[:1]))

    def _compiled(self) -> float:
        """Seconds by which a process's first step was longer than the others of its epoch: no later epoch has them."""
        if not (first := self.record.get("first_step_seconds")):
            return 0.0
        usual = min(self.config.batch_size, self.count) / self.record.get("images_per_second", math.inf)
        return max(0.0, first - usual)

    def _title(self) -> str:
        left = self.seconds_left()
        return f"epoch {self.state.epoch + 1}/{self.config.epochs}" + (f", all in {duration(left)}" if left else "")

    def _epoch(self, bar: Any, stop: list[int], timed: Callable[[float], None]) -> None:
        state, config = self.state, self.config
        if not len(state.order):
            state.order = self.rng.permutation(self.count)
            state.step, state.loss_sum, state.metrics, state.seconds = 0, 0.0, {}, 0.0
        self._timed = 0, 0.0
        while state.step < self.steps_per_epoch:
            started = time.perf_counter()
            self.ranks.begin_step(f"epoch {state.epoch + 1}, step {state.step + 1}", stop)
            index = state.order[state.step * config.batch_size : (state.step + 1) * config.batch_size]
            loss, numbers = self._step(index)
            state.loss_sum += loss * len(index)
            for name, number in numbers.items():
                if name in state.metrics:
                    state.metrics[name] = METRICS[name].merge(state.metrics[name], number)
                elif not state.step:  # one that is new in the middle of an epoch begins with the next
                    state.metrics[name] = number
            state.step += 1
            elapsed = max(0.0, time.perf_counter() - started)  # clocks may be set back
            state.seconds += elapsed
            if self._first_step is None:
                self._first_step = elapsed
            else:
                self._timed = self._timed[0] + len(index), self._timed[1] + elapsed
                if elapsed > 0 and not self._seconds_per_pixel:
                    self._seconds_per_pixel = elapsed / math.prod(self._image_size())
                    bar.set_description(self._title())
                    if bar is SILENT:
                        timed(self.seconds_left())
            seen = min(state.step * config.batch_size, self.count)
            right = f", accuracy {100 * state.metrics['accuracy'] / seen:.1f} %" if "accuracy" in numbers else ""
            bar.set_postfix_str(f"loss {state.loss_sum / seen:.3f}{right}", refresh=False)
            bar.update(len(index))
            if state.step < self.steps_per_epoch:
                self._stop_if_asked(stop)
        self._end_epoch()
        self._stop_if_asked(stop)

    def _stop_if_asked(self, stop: list[int]) -> None:
        """Save and raise Interrupted if a signal has come."""
        if signum := self.ranks.asked_to_stop(stop):
            raise self.ranks.agreed(Interrupted(self._saved_for(signum), signum))

    def _step(self, index: np.ndarray[Any, Any]) -> tuple[float, dict[str, float]]:
        """One gradient step; returns the batch's loss and the numbers of `METRICS`."""
        inputs = self._inputs(index)
        arrays = {kind: getattr(self.state, kind) for kind in checkpoints.GROUPS}
        arrays, value, numbers = self._take(arrays, inputs)
        loss = float(value)
        if not math.isfinite(loss):
            raise self.ranks.agreed(TrainingError(self._not_finite(loss, inputs)))
        for kind, tree in arrays.items():
            setattr(self.state, kind, tree)
        return loss, {name: float(number) for name, number in numbers.items()}

    def _own_size(self) -> tuple[int, ...]:
        """Lengths of the axes of space of the images as they are."""
        return tuple(map(int, self.train.images.shape[1:-1]))

    def _image_size(self) -> tuple[int, ...]:
        """Return the lengths of the axes of space of this epoch's training images."""
        return image_size(self.config, self.state.epoch, self._own_size())

    def _take(self, arrays: Any, inputs: Inputs) -> Any:
        """Take a step on images of this epoch's size; the graph of another size is let go."""
        size = self._image_size()
        if self._graphed is None or self._graphed[0] != size:
            step = gradient_step(self.config, self.network, self.train, size, self.ranks, self.teacher)
            self._graphed = size, GraphedStep(self.xp, step, self.config.batch_size)
            self._graphed[1].wanted &= self.ranks.size == 1  # messages cannot be recorded
        return self._graphed[1](arrays, inputs)

    def _inputs(self, index: np.ndarray[Any, Any]) -> Inputs:
        """Return a step's inputs from the host."""
        state, config = self.state, self.config
        position = Position(index, self.train.images.shape[1:], state.epoch, self.count)
        drawn = draw_batch(config, self.rng, position) | {"noise": self.network.noise(self.rng, len(index))}
        taken = state.epoch * self.steps_per_epoch + state.step
        rates = {"rate": learning_rate(config, taken, self.steps_per_epoch), "step": taken + 1, **parts(config, taken)}
        numbers = {name: np.asarray(value, config.dtype) for name, value in rates.items()}
        return self.ranks.part_of(drawn) | numbers

    def _end_epoch(self) -> None:
        """Evaluate, record and save a completed epoch."""
        state = self.state
        record: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "task": self.task.name,
            "loss": self.task.loss_of(self.config),
            "learning_rate": learning_rate(
                self.config, (state.epoch + 1) * self.steps_per_epoch - 1, self.steps_per_epoch
            ),
            "train_loss": state.loss_sum / self.count,
            **{
                f"train_{name}": of.of_epoch(held, self.steps_per_epoch if of.of_gradients else self.count)
                for name, held in state.metrics.items()
                if (of := metrics_of(self.task).get(name))  # else one that the program had before
            },
        }
        self._require_finite(*TRAINED)
        self.ranks.require_same_bits(state.parameters, "the weights after the epoch")
        self._renew_moments()
        score, deviation = -record["train_loss"] if self.held_out is None else -math.inf, 0.0
        due = (state.epoch + 1) % self.config.validation_every == 0 or state.epoch + 1 == self.config.epochs
        if self.held_out is not None and due:
            begin = time.perf_counter()
            try:
                result = evaluate(self.network, state.evaluated, state.moments, self.held_out, ranks=self.ranks)
            except TrainingError as error:
                raise TrainingError(f"after epoch {state.epoch + 1} {error}; {self._advice()}") from error
            record |= {"validation_loss": result.loss, **{f"validation_{k}": v for k, v in result.details.items()}}
            score = -record["train_loss"]
            if math.isfinite(result.accuracy):  # no R^2 where all numbers are the same
                record[f"validation_{self.task.score}"] = score = result.accuracy
                deviation = self.task.standard_error(score, result.logits, to_numpy(self.held_out.labels))
            if self.balanced:
                score, deviation = balanced_accuracy(result.confusion)
                record["validation_balanced_accuracy"] = score
            if len(result.logits) > 1 and self.task.softmax:
                record["validation_tempered_loss"] = tempered_loss(result.logits, to_numpy(self.held_out.labels))
            record["evaluation_seconds"] = max(0.0, time.perf_counter() - begin)
        self._require_finite("moments")
        images, seconds = self._timed if self._timed[0] else (self.count, state.seconds)
        if self.ranks.size > 1:
            record |= {"ranks": self.ranks.size}
        record |= {"seconds": state.seconds}
        if seconds > 0:  # by a clock that stands still there is no rate
            record |= {"images_per_second": images / seconds}
        if self._first_step:
            record["first_step_seconds"], self._first_step = self._first_step, 0.0
        self.record = record
        state.epoch += 1
        state.step, state.order = 0, np.zeros(0, np.int64)
        best = score > state.best
        if state.best_error is not None:
            state.best_error = deviation if best else state.best_error
            best = record["best"] = bool(best or -math.inf < state.best - state.best_error <= score)
        state.best = max(score, state.best)
        self.run.append_metrics(record)
        self.save(best=best)

    def _renew_moments(self) -> None:
        """Replace the running moments by those of some training images, with the weights that are evaluated.

        Running moments are of weights that change at each step: late where they change fast, and not those of weights
        that are averaged over steps.
        """
        wanted = min(self.config.moment_images, self.count)
        if not self.state.moments or not wanted:
            return
        size = min(self.config.batch_size, EVALUATION_BATCH, wanted)
        batches = -(-wanted // size)
        chosen = spread(self.count, wanted)
        sums: Any = None
        for batch in range(batches):
            part = chosen[batch::batches]
            share = len(part) / wanted
            x, _ = self.train.take(self.xp.asarray(part))
            with precision(self.config.precision):
                _, moments = self.network(self.state.evaluated, x)
            moments = tree_map(lambda a, share=share: share * a, moments)
            sums = moments if sums is None else tree_map(lambda a, b: a + b, sums, moments)
        self.state.moments = sums

    def save(self, *, best: bool = False) -> Any:
        """Write a checkpoint of the present state."""
        state = self.state
        state.generator = dict(self.rng.bit_generator.state)
        host = State(**{**vars(state), **{k: tree_map(to_numpy, getattr(state, k)) for k in checkpoints.GROUPS}})
        checkpoint = Checkpoint(
            host,
            self.config,
            self.class_names,
            self.network.image_shape,
            self.train.mean,
            self.train.std,
            labels=self.labels,
            values=dtype_name(self.train.images.dtype),
            targets=self.train.targets,
            data=self.data,
            range=self.range,
        )
        return self.run.save(checkpoint, self.versions, best=best)

    def _saved_for(self, signum: int) -> str:
        state = self.state
        if state.step:
            self._require_finite(*TRAINED)
            self._renew_moments()  # for what evaluates this checkpoint; the epoch's end renews them again
            self._require_finite("moments")
            self.save()
        where = f"epoch {state.epoch + 1}, step {state.step}" if state.step else f"the end of epoch {state.epoch}"
        return (
            f"stopped by {signal.Signals(signum).name} at {where} of {self.config.epochs} epochs, saved; "
            f"continue with --resume {self.run.path}"
        )

    def _require_finite(self, *kinds: str) -> None:
        """Raise TrainingError rather than save or evaluate arrays that are not finite."""
        state = self.state
        for kind in kinds:
            for name, array in checkpoints.flatten(getattr(state, kind)):
                if not bool(self.xp.isfinite(array).all()):
                    name = name if kind == "parameters" else f"{kind}/{name}"
                    where = f"at epoch {state.epoch + 1}, step {state.step}"
                    raise self.ranks.agreed(TrainingError(f"{name} is not finite {where}; {self._advice()}"))

    def _not_finite(self, loss: float, inputs: Inputs) -> str:
        """Name epoch, step and the first layer whose output is not finite."""
        state = self.state
        x = batch_of(self.config, self.train, tree_map(self.xp.asarray, inputs), self._image_size()).images
        first = self.ranks.first_to_fail(first_not_finite(self.network, state.parameters, x), "the loss")
        return (
            f"the loss is {loss} at epoch {state.epoch + 1}, step {state.step + 1}; first not finite: {first}; "
            f"{self._advice()}"
        )

    def _advice(self) -> str:
        return f"{self.run.last_good()}; a lower --learning-rate may help"


def summary(record: dict[str, Any], epochs: int, seconds_left: float, units: str = "images") -> str:
    """Return an epoch's record as a line; `units` is the name of the data, such as images."""
    said = f"epoch {record['epoch']}/{epochs}: loss {record['train_loss']:.3f}, "
    if "train_accuracy" in record:
        said += f"accuracy {100 * record['train_accuracy']:.1f} %, "
    if "validation_r2" in record:
        said += f"held out R^2 {record['validation_r2']:.3f}, "
    if "validation_accuracy" in record:
        said += f"held out {100 * record['validation_accuracy']:.1f} %, "
    if "validation_balanced_accuracy" in record:
        said += f"balanced {100 * record['validation_balanced_accuracy']:.1f} %, "
    if "images_per_second" not in record:
        return said.removesuffix(", ")
    said += f"{record['images_per_second']:.0f} {units}/s"
    return said + (f", {duration(seconds_left)} left" if record["epoch"] < epochs else "")


def duration(seconds: float) -> str:
    """Return the time that is left, in words, at least a second."""
    if seconds < 100:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def _stop_requests(
    *, forwarded: bool = False, nothing_to_lose: Callable[[], bool] = lambda: False
) -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP, so that the step in progress can end; a second one acts at once.

    So does the first one while kernels are compiled and there is nothing to lose.

    SIGHUP stays ignored where it was, as nohup has it. SIGUSR1 is collected too where a launcher of MPI forwards it:
    some launchers answer SIGTERM by ending all ranks before they can save.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def receive(signum: int, frame: Any) -> None:
        received.append(signum)
        signal.signal(signum, before[signum])
        compiling.answer(signum, frame, nothing_to_lose())

    signals: list[int] = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    if forwarded and hasattr(signal, "SIGUSR1"):
        signals.append(signal.SIGUSR1)
    if threading.current_thread() is not threading.main_thread():
        signals = []  # no other thread may handle signals
    for signum in signals:
        before[signum] = signal.signal(signum, receive)
    try:
        yield received
    finally:
        for stopping, handler in before.items():
            signal.signal(stopping, handler)
