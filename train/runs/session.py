"""Training from its data to its report, as the command line and `train.fit` do it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from hcnn_core.backend import SPARE
from train.config import IN_STEPS, Config, ConfigError, is_own, resolved, with_steps
from train.data import INFO, UNNAMED, Dataset, DatasetInfo, load, train_subset
from train.data.augmentation import other_pixels, value_range
from train.data.dataset import HowRead, class_notes, require_varying_numbers
from train.data.description import Description
from train.data.labels import TEST
from train.networks.registry import architecture_of
from train.ranks.ranks import Ranks
from train.recipes.schedules import SCHEDULES
from train.recipes.tasks import TASKS, task_of
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import Checkpoint, State
from train.runs.fit import namespace, on_device, prepared, require_suitable, size_notes, trainer_on
from train.runs.memory import available_bytes, batch_that_fits, required_bytes
from train.runs.plot import draw
from train.runs.report import Classified, classified, write_report
from train.runs.run import BEST, Interrupted, Run, RunError, TrainingError, best_epoch, take_name, versions
from train.runs.samples import Say, own_samples, split
from train.runs.scores import calibration_lines, figures, test_lines
from train.runs.shipped import bare
from train.runs.step import wants_graphs
from train.runs.teacher import is_taught, network_of, require_same_task, require_unseen
from train.runs.trained import open_latest, require_named
from train.runs.training import Result, Trainer, duration, evaluate, evaluate_views, summary
from train.runs.transfer import begin_from
from train.storage.files import user_path


class Session:
    """The training of a run: alone or as one of several ranks, silent or not."""

    def __init__(
        self,
        ranks: Ranks | None = None,
        *,
        say: Say = lambda line: None,
        on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
        dataset: Dataset | None = None,
    ) -> None:
        self.ranks, self.on_epoch = ranks or Ranks(), on_epoch
        # tell: of sizes and parts of the data, and how they are read; warn: of what is left out, missing or mirrored
        self.say = self.tell = self.warn = say
        self.given = dataset  # images that no name leads to
        self.free = False  # whether batches and epochs of one's own data follow from their number
        self.teacher: tuple[Path, Checkpoint] | None = None
        self.own: tuple[Path, Checkpoint] | None = None  # what a run goes on from
        self.described = ""  # the samples, as `Description.text`
        self.others: dict[str, tuple[Path, Checkpoint]] = {}  # networks that this one learns from, by their flags

    def begin(self, settings: Callable[[], Config], out: Path | None, hours: float = math.inf) -> Run:
        """Train a new run, in a directory of its preset's name and the time where none is given."""
        ranks, out = self.ranks, out and user_path(out)
        now = ranks.from_first(lambda: time.strftime("%Y%m%d-%H%M%S"))

        def checked() -> tuple[Config, Any, Run]:
            config = settings()
            xp = namespace(config.backend, config.precision)
            run = self.run(out or Path("runs") / f"{config.preset}-{now}")
            if out is not None:
                run.require_new()
            return config, xp, run

        config, xp, run = ranks.agree(checked)
        source = ranks.from_first(lambda: open_latest(Path(config.init_from), self.say) if config.init_from else None)
        # what rank 0 is told decides here: that the others are told the same is compared at the start
        teacher = ranks.from_first(lambda: open_latest(Path(config.teacher), self.say) if is_taught(config) else None)
        self.teacher = teacher and (teacher[0], bare(teacher[1], teacher[1].figures))
        self.others = {flag: one for flag, one in (("--init-from", source), ("--teacher", teacher)) if one}
        trainer, dataset = self._start(xp, config, run)
        if source:
            redrawn = ranks.agree(lambda: begin_from(trainer, *source))
            drawn = f"; drawn, since its head is another: {', '.join(redrawn)}" if redrawn else ""
            self.say(f"weights of {source[0]}{drawn}")
        if self.teacher:
            self.say(f"taught by {self.teacher[0]}")
        if out is None:
            run.path = ranks.from_first(lambda: take_name(run.path, run))
            if ranks.size > 1:
                ranks.watch.advise(f"continue with --resume {run.path}")
        with locked(run, make=True):
            config = trainer.config
            run.create(trainer.save, config, trainer.versions, self.teacher and self.teacher[1], self.described)
            shared = f", {ranks.size} ranks" if ranks.size > 1 else ""
            others = f"{len(trainer.held_out.labels):,} held out, " if trainer.held_out else ""
            others += f"{len(dataset.test_labels):,} for the test"
            for note in trainer.network.fallbacks:
                self.tell(note)
            named = "" if config.dataset == UNNAMED else f" of {config.dataset}"
            self.tell(
                f"{run.path}: {config.preset} on {trainer.count:,} {dataset.units}{named} ({others}), "
                f"{config.epochs} epoch{'s' * (config.epochs > 1)} of {trainer.steps_per_epoch} steps, "
                f"{config.epochs * trainer.steps_per_epoch:,} in all, {xp.__name__}, {config.dtype}{shared}"
            )
            self._fit(trainer, dataset, hours)
        return run

    def go_on(self, path: Path, changes: Mapping[str, Any], hours: float = math.inf) -> None:
        """Continue a run from its latest checkpoint, with some settings changed that allow it."""
        ranks, run = self.ranks, self.run(user_path(path))
        # what is exchanged next depends on them
        ranks.require_same({f"--{k.replace('_', '-')}": value for k, value in changes.items() if k != "data_dir"})
        ranks.from_first(run.require_resumable)
        with locked(run):
            path, checkpoint, notices = ranks.from_first(run.latest)
            ranks.from_first(lambda: run.require_unedited(checkpoint.config))
            config = dataclasses.replace(checkpoint.config, **changes)
            state, changed = checkpoint.state, config.epochs != checkpoint.config.epochs
            for notice in notices:
                self.say(f"{notice}; going on from {path}")
            if lost := ranks.from_first(lambda: run.unrecorded(state.epoch)):
                self.say(lost)
            if changed:
                ranks.agree(lambda: _require_extensible(run, checkpoint, config.epochs))
            test = ranks.from_first(run.test_record)
            if test and test["epoch"] < config.epochs:
                if config.test:
                    self.say(
                        f"the test set was read after epoch {test['epoch']}; it is read again after epoch "
                        f"{config.epochs}"
                    )
                test = None
            if state.epoch >= config.epochs and (test or not config.test) and not changed:
                ranks.from_first(lambda: self._mend_best(run, state, ""))
                self._say_finished(run, config, test)
                return
            xp = ranks.agree(lambda: namespace(config.backend))
            named = "dataset" in changes or self.given is not None
            ranks.agree(lambda: require_named(config.dataset, named, f"--resume {run.path}"))
            if is_taught(config):
                self.teacher = ranks.from_first(lambda: (run.teacher_path, checkpoints.load(run.teacher_path)))
            self.own = path, checkpoint
            trainer, dataset = self._start(xp, config, run)
            ranks.agree(lambda: trainer.restore(checkpoint, path))
            run.write_data(self.described)
            for damaged in run.set_aside_after(checkpoint):
                self.say(f"the damaged one is now {damaged}")
            best, hope = state.best, "; the best epoch from here on takes its place"
            state.best = ranks.from_first(lambda: self._mend_best(run, state, hope))
            run.forget_metrics_after(state.epoch)
            # before the configuration: a checkpoint's own is what counts
            if changed or best != state.best or path.name == BEST:
                trainer.save()
            if run.recorded("epochs") != config.epochs:  # which an extension that was killed has not written
                run.write_config(config, trainer.versions)
            self.say(f"{run.path}: going on after epoch {state.epoch}, step {state.step} of {config.epochs} epochs")
            self._fit(trainer, dataset, hours)

    def _mend_best(self, run: Run, state: State, hope: str) -> float:
        """Mend the best checkpoint of a run, and return the score to beat; where it is lost, print `hope`."""
        line, lost = run.mend_best(state.best)
        if line:
            self.say(f"{line}{hope if lost else ''}")
        return -math.inf if lost else state.best

    def run(self, path: Path) -> Run:
        """Return the run at a path, which rank 0 alone writes."""
        return Run(path, writes=self.ranks.writes)

    def load(self, xp: Any, config: Config) -> Dataset:
        """Return the images, or refuse a batch that cannot fit: before they are read, where their size is known."""
        if config.dataset in INFO and self.given is None:
            self._require_memory(xp, config, INFO[config.dataset])
        reading = self.own[1].reading(config) if self.own else config.reading
        dataset = self.given or load(config.dataset, reading, config.data_dir, mapped=self.ranks.size > 1)
        if config.dataset not in INFO or self.given is not None:
            self._require_memory(xp, config, dataset.info)
        for note in dataset.notes:
            (self.tell if isinstance(note, HowRead) else self.warn)(note)
        if self.own:
            return own_samples(*self.own, config, dataset, self.warn)
        whole = dataset
        try:
            dataset = train_subset(whole, config.train_size) if config.train_size else whole
        except ValueError as error:
            raise ConfigError(f"--train-size: {error}") from error
        for flag, (path, other) in self.others.items():
            for line in require_unseen(flag, path, other, whole, dataset, config):
                self.warn(line)
        return dataset

    def _start(self, xp: Any, config: Config, run: Run) -> tuple[Trainer, Dataset]:
        """Return a trainer on the data of a configuration, the same on every rank."""
        ranks = self.ranks
        ranks.require_same({"the array library": xp.__name__})  # which "auto" finds on each host
        ranks.use_devices(xp)

        def load() -> tuple[Config, Dataset, dict[str, str]]:
            if ranks.size > config.batch_size:
                raise ConfigError(
                    f"batch_size is {config.batch_size}, less than the {ranks.size} ranks; each takes a part of every "
                    f"batch: start at most {config.batch_size}, or take a larger --batch-size"
                )
            dataset, chosen = self.load(xp, config), config
            if self.free and is_own(config.dataset):
                chosen = with_steps(config, len(split(dataset, config)[0]), max(8, ranks.size))
            require_suitable(resolved(chosen, dataset.image_shape[:-1], dataset.task, dataset.name), dataset.info)
            if self.teacher:
                require_same_task(*self.teacher, dataset, config)
            return chosen, dataset, versions(xp.__name__)

        # one rank of all, then one of each other machine, which may have a disk of its own, downloads what is not there
        turns = ranks.rank == 0, ranks.rank > 0 and ranks.local_rank == 0, ranks.local_rank > 0
        results: list[Callable[[], tuple[Config, Dataset, dict[str, str]]]] = []
        for mine in turns:
            if mine:
                results.append(_kept(load))
            ranks.agree(lambda: None)  # whose turn is later waits
        chosen, dataset, packages = ranks.agree(results[0])
        if any(getattr(chosen, name) != getattr(config, name) for name in IN_STEPS):
            self.tell(
                f"batches of {chosen.batch_size} (preset: {config.batch_size}), {chosen.epochs} epochs "
                f"({config.epochs}): at least 1,000 steps, batches alike; --epochs or --batch-size changes it"
            )
        preset, config = chosen, resolved(chosen, dataset.image_shape[:-1], dataset.task, dataset.name)
        for line in size_notes(preset, config, dataset):
            self.tell(line)
        if config.flip and dataset.name not in INFO and not self.own:
            cure = "--no-flip, in Python flip=False, where that makes another class, as of digits"
            self.warn(f"half of the training {dataset.units} are mirrored; {cure}")
        if ranks.size > 1:
            settings = {name: value for name, value in vars(config).items() if name != "data_dir"}
            ranks.require_same(settings | packages)
            ranks.watch.advise(f"continue with --resume {run.path}")
        trainer = ranks.agree(lambda: self._trainer(xp, config, dataset, run, packages))
        checksum = f"checksum {trainer.data[:16]} and {trainer.labels:08x}"
        ranks.require_same({"the images and labels": checksum})
        return trainer, dataset

    def _trainer(self, xp: Any, config: Config, dataset: Dataset, run: Run, packages: dict[str, str]) -> Trainer:
        """Split the data, print notes about the parts, and return the trainer."""
        total, (index, held_out) = len(dataset.train_labels), split(dataset, config)
        count, left = len(held_out), len(index)
        data = prepared(dataset, index, held_out)
        require_varying_numbers(dataset, data.targets)
        if count and config.validation_size < 0 and (dataset.samples is None or dataset.samples.held_out is None):
            measure = TASKS[config.task].title
            self.tell(
                f"a tenth of the {total:,} training {dataset.units}, {count:,}, is held out to measure {measure} on, "
                f"and {left:,} are left to train on; --validation-size {2 * count} holds out twice as many, 0 none"
            )
        for line in class_notes(dataset, index, config.class_weights):
            self.warn(line)
        trainer = trainer_on(xp, config, data, run, packages, self.ranks, self.teacher)
        described = Description.of(dataset, held_out, *data.statistics).as_in(self.own[1].data if self.own else "")
        self.described, trainer.data = described.text, described.digest
        trainer.range = value_range(dataset.train_images[index])
        tests = described.hashes[described.parts == TEST]
        if config.dataset not in INFO and (seen := described.seen(tests)):
            self.warn(f"{seen:,} of the {len(tests):,} test {dataset.units} are copies of some that are trained on")
        if trainer.range and (said := other_pixels(trainer.range, value_range(dataset.test_images))):
            self.warn(f"test {dataset.units}: {said}")
        return trainer

    def _require_memory(self, xp: Any, config: Config, data: DatasetInfo) -> None:
        """Refuse a batch that cannot fit before the system ends the process for it."""
        ranks, available = self.ranks, available_bytes(xp)
        if available is not None and xp is np:
            available //= ranks.local_size
        recorded = wants_graphs(xp) and ranks.size == 1
        steps = 2 + SPARE if recorded else 1  # what a graph records takes its own memory
        teacher = self.teacher and network_of(self.teacher[1], config)
        needed = steps * required_bytes(config, data, -(-config.batch_size // ranks.size), teacher)
        if available is not None and needed > available:
            fits = ranks.size * batch_that_fits(config, data, int(available / steps), teacher)
            fits -= fits // 8  # a moment later less is free
            raise TrainingError(
                f"a batch of {config.batch_size} needs about {needed / 2**30:.1f} GiB "
                f"and {available / 2**30:.1f} GiB are free; {_smaller(config, fits)}"
            )

    def _fit(self, trainer: Trainer, dataset: Dataset, hours: float) -> None:
        """Train to the end, then read the test set, once, if it may be read; the curve is drawn in any case.

        The report shows the test images, or else those that were held out.
        """
        run = trainer.run
        if trainer.balanced:
            self.tell(f"classes count alike, so {BEST} goes by balanced accuracy, the mean over classes")
        try:
            result = self._train_and_test(trainer, dataset, hours)
        except BaseException:
            with contextlib.suppress(Exception, KeyboardInterrupt):  # why it stopped is what there is to say
                draw(run)
            raise
        if result is not None:
            said = f", {len(dataset.test_labels):,} {dataset.units}"
            for line in (
                *test_lines(trainer.task, figures(result), trainer.config, said, dataset.class_names),
                *calibration_lines(result, dataset.test_labels),
            ):
                self.say(line)
        if not run.metrics_path.is_file():  # no epoch fitted into the hours
            return
        judge = "training loss"
        if held_out := trainer.held_out:
            judge = f"{'balanced accuracy of ' * trainer.balanced}{len(held_out.labels):,} {dataset.units}"
        self._finish(run, f", by {judge}")
        if not run.writes:
            return
        shown, task = None, trainer.task
        if task.softmax and result is not None:
            shown = Classified("test", dataset.test_images, dataset.test_labels, result.logits)
        elif task.softmax and trainer.held_out is not None:
            network, state = trainer.network, trainer.state
            shown = classified("held-out", network, state.evaluated, state.moments, trainer.held_out)
        names, weights = trainer.class_names, trainer.state.evaluated
        page = write_report(run, trainer.network, names, weights, shown, trainer.train, task)
        self.say(f"{page}: open it in a browser; hcnn.load({str(run.path)!r}) gives the network to Python")

    def _train_and_test(self, trainer: Trainer, dataset: Dataset, hours: float) -> Result | None:
        run, xp, train, config = trainer.run, trainer.xp, trainer.train, trainer.config

        def completed(record: dict[str, Any]) -> None:
            self.say(summary(record, config.epochs, trainer.seconds_left(), dataset.units))
            self.on_epoch(record)

        try:
            if not trainer.fit(hours, completed, lambda seconds: self.say(f"about {duration(seconds)} left")):
                done, rest = trainer.state.epoch, trainer.seconds_left()
                left = f"about {duration(rest)} are left: " if rest else ""  # nobody knows before the first epoch
                self.say(
                    f"stopped after epoch {done} of {config.epochs}, since no other fits into {hours:g} hours; "
                    f"{left}continue with --resume {run.path}"
                )
                return None
            if not config.test:
                return None
            labels = xp.asarray(train.targets.taught(dataset.test_labels, config.dtype))
            test = dataclasses.replace(train, images=on_device(xp, dataset.test_images), labels=labels)
            network, state, ranks = trainer.network, trainer.state, trainer.ranks
            begin = time.perf_counter()
            subject = network, state.evaluated, state.moments, test
            result = evaluate_views(*subject, evaluate(*subject, ranks=ranks), ranks)
        except MemoryError as error:
            size = config.batch_size
            raise TrainingError(f"not enough memory for a batch of {size}; {_smaller(config, size // 2)}") from error
        seconds = max(0.0, time.perf_counter() - begin)
        record = {"epoch": trainer.state.epoch, "task": trainer.task.name, **figures(result), "seconds": seconds}
        run.append_metrics(record)
        return result

    def _say_finished(self, run: Run, config: Config, test: dict[str, Any] | None) -> None:
        """Report a finished run, and draw its curve again."""
        self.say(f"{run.path} is finished: all {config.epochs} epochs are trained")
        for line in test_lines(task_of([test]), test, config) if test else ():
            self.say(line)
        if run.recorded("epochs") != config.epochs:
            run.write_config(config, versions(config.backend))
        self._finish(run)
        if not run.report_path.exists():
            self.say(f"there is no {run.report_path}; python -m hcnn report {run.path} writes it")

    def _finish(self, run: Run, judge: str = "") -> None:
        """Draw the curve of a run, and say where it is, and of which epochs its networks are."""
        if not run.writes:
            return
        rest = f"all else of the run is saved; python -m hcnn plot {run.path} draws it"
        try:
            draw(run)
        except RunError as error:
            raise RunError(f"{error}; {rest}") from error
        except KeyboardInterrupt as error:
            raise Interrupted(f"interrupted while {run.picture_path} was drawn; {rest}") from error
        self.say(str(run.picture_path))
        if (run.path / BEST).exists():  # not if it stopped before held-out images were first read
            epoch, last = best_epoch(run.read_metrics()), run.checkpoint_paths()[-1:]
            others = "".join(f"; {path.name}: epoch {int(path.name[5:9])}" for path in last)
            self.say(f"{run.path / BEST}{f': epoch {epoch}{judge}' if epoch else ''}{others}")


@contextlib.contextmanager
def locked(run: Run, *, make: bool = False) -> Iterator[None]:
    """Hold the run's lock; an immediate interrupt says what is saved."""
    try:
        with run.lock(make=make):
            yield
    except KeyboardInterrupt as error:
        saved = (
            f"{run.last_good()}; continue with --resume {run.path}" if run.checkpoint_paths() else "nothing was saved"
        )
        raise Interrupted(f"stopped at once; {saved}", *error.args[:1]) from error


def _kept(action: Callable[[], Any]) -> Callable[[], Any]:
    """Act, and return a function that returns the result, or raises the error."""
    outcome: Future[Any] = Future()
    try:
        outcome.set_result(action())
    except Exception as error:
        outcome.set_exception(error)
    return outcome.result


def _require_extensible(run: Run, checkpoint: Checkpoint, epochs: int) -> None:
    """Refuse another number of epochs where the finished epochs would have been different with it."""
    config, state = checkpoint.config, checkpoint.state
    extensible, begun = SCHEDULES[config.schedule].extensible, state.epoch + bool(state.step)
    if epochs < begun:
        raise ConfigError(f"--epochs {epochs} is less than {run.path} has trained: {state.epoch}; give more")
    spread = None
    if not (extensible(config, begun) and extensible(dataclasses.replace(config, epochs=epochs), begun)):
        spread = f"--schedule {config.schedule} spreads its learning rates"
    elif len(config.image_sizes or config.image_shares) > 1:
        spread = f"--image-{'sizes' if config.image_sizes else 'shares'} are spread"
    if spread:
        raise ConfigError(
            f"{spread} over all {config.epochs} epochs of {run.path}, so {epochs} would be another run; begin one from "
            f"its weights with --init-from {run.path}"
        )


def _smaller(config: Config, fits: int) -> str:
    if fits:
        return f"--batch-size {fits} would fit"
    names = (f.name for section in architecture_of(config).sections for f in section.added())
    sizes = [f"--{name}" for name in names if name in ("width", "factors")]
    return f"not even one image fits: take a smaller {' or '.join(sizes) or 'network'}"
