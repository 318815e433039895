"""Train and evaluate hierarchical CNNs on CIFAR: `python -m train.cifar --backend cupy`."""

from train.commands.process import leave_on_interrupt, prepare, raise_on_interrupt

if __name__ == "__main__":
    leave_on_interrupt("train.cifar")
prepare()  # before NumPy is loaded

import argparse  # noqa: E402
import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator, Mapping, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from hcnn_core.backend import SPARE, array_namespace, to_numpy  # noqa: E402
from train.classifier import bare, names, open_network  # noqa: E402
from train.commands.command_line import (  # noqa: E402
    Parser,
    given_path,
    namespace,
    require_installed,
    require_named,
    run_command,
    say,
)
from train.config import Config, ConfigError, field_type, make_config, read_toml  # noqa: E402
from train.data import (  # noqa: E402
    INFO,
    Dataset,
    DatasetInfo,
    Images,
    MappedImages,
    channel_statistics,
    load_dataset,
    require_varying,
    split_validation,
    train_subset,
)
from train.networks.network import layers  # noqa: E402
from train.networks.registry import Trainable, build  # noqa: E402
from train.ranks.communicator import DistributedError, Ranks, join, launch_rank, share_processors  # noqa: E402
from train.recipes.optimizers import image_size  # noqa: E402
from train.runs import checkpoint as checkpoints  # noqa: E402
from train.runs.checkpoint import CheckpointError  # noqa: E402
from train.runs.export import write_safetensors  # noqa: E402
from train.runs.memory import available_bytes, batch_that_fits, required_bytes  # noqa: E402
from train.runs.plot import plot_learning_curve  # noqa: E402
from train.runs.report import Classified, page  # noqa: E402
from train.runs.run import BEST, Run, RunError, versions  # noqa: E402
from train.runs.step import wants_graphs  # noqa: E402
from train.runs.training import Interrupted, Result, Trainer, TrainingError, duration, evaluate, restore  # noqa: E402
from train.runs.transfer import begin_from  # noqa: E402
from train.storage.files import write_atomically  # noqa: E402

NOT_CONFIGURED = (
    "config",
    "out",
    "resume",
    "evaluate",
    "describe",
    "plot",
    "report",
    "hours",
    "export",
    "debug",
    "ranks",
)
WITH_RESUME = ("backend", "data_dir", "dataset", "epochs")
WITH_REPORT = ("backend", "data_dir", "dataset")
WITH_EVALUATE = ("backend", "batch_size", "data_dir", "dataset")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser, hint = _parser(), "a smaller --batch-size, --width or --factors may do"
    try:
        ranks = join()
        share_processors(ranks)
        ranks.be_watched(parser.module)
    except (DistributedError, OSError) as error:
        if not launch_rank():
            print(f"{parser.module}: {error}", file=sys.stderr)
        return 1
    if not ranks.writes:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives

    def act(options: argparse.Namespace) -> int:
        options.ranks = ranks
        return _act(options)

    return run_command(parser, arguments, act, hint, ranks)


def _act(options: argparse.Namespace) -> int:
    given = {k: v for k, v in vars(options).items() if k not in NOT_CONFIGURED and v is not None}
    _command(options)(options, given)
    return 0


def _command(options: argparse.Namespace) -> Callable[[argparse.Namespace, dict[str, Any]], None]:
    actions: dict[str, Callable[[argparse.Namespace, dict[str, Any]], None]] = {
        "describe": _describe,
        "plot": _plot,
        "export": _export,
        "evaluate": _evaluate,
        "report": _remake_report,
        "resume": _resume,
    }
    chosen = [name for name in actions if getattr(options, name)]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    if options.hours < math.inf and chosen not in ([], ["resume"]):
        raise ConfigError(f"--hours limits training, which --{chosen[0]} does not do: remove it")
    if options.ranks.size > 1 and chosen not in ([], ["resume"]):
        raise options.ranks.agreed(ConfigError(f"--{chosen[0]} runs in one process: start it without the launcher"))
    return actions[chosen[0]] if chosen else _train


def _settings(options: argparse.Namespace, given: dict[str, Any]) -> Config:
    """Preset, then --config, then flags."""
    settings = read_toml(options.config) if options.config else {}
    preset = given.pop("preset", None) or settings.get("preset", "hcnn")
    return make_config(preset, {**settings, **given})


def _describe(options: argparse.Namespace, given: dict[str, Any]) -> None:
    if options.out:
        raise ConfigError("--describe makes no run: remove --out")
    config = _settings(options, given)
    info = INFO[config.dataset] if config.dataset in INFO else load_dataset(config.dataset, Path(config.data_dir)).info
    height, width, channels = info.image_shape
    say(build(config, (height, width), info.classes, channels).describe())


def _plot(options: argparse.Namespace, given: dict[str, Any]) -> None:
    run = Run(options.plot)
    _refuse("--plot", options, given, ())
    _draw(run)
    say(str(run.picture_path))


def _export(options: argparse.Namespace, given: dict[str, Any]) -> None:
    _refuse("--export", options, given, ())
    source, target = options.export
    path, checkpoint = _opened(source)
    if os.path.lexists(target):
        raise RunError(f"--export {target} is there already; name a new file")
    if target.suffix == ".safetensors":
        write_safetensors(target, path, checkpoint)
    elif target.suffix == ".h5":
        figures = dict(checkpoint.figures)
        with contextlib.suppress(RunError):  # a checkpoint alone says nothing of its test
            if checkpoint.state.velocity and not checkpoint.state.step:  # of a run, not extended since the test
                figures |= Run(path.parent).test_figures(checkpoint.state.epoch)
        checkpoints.save(target, bare(checkpoint, figures), versions("numpy"))
    else:
        raise ConfigError(f"--export {target} ends in neither .h5 (weights and moments) nor .safetensors (filters)")
    say(str(target))


def _train(options: argparse.Namespace, given: dict[str, Any]) -> None:
    require_installed()
    ranks: Ranks = options.ranks
    now = ranks.from_first(lambda: time.strftime("%Y%m%d-%H%M%S"))

    def settings() -> tuple[Config, Any, Run]:
        config = _settings(options, given)
        xp = namespace(config.backend)
        if config.precision != "float32" and xp is np:
            raise ConfigError(f"precision is {config.precision!r}, which is for --backend cupy; NumPy's is 'float32'")
        run = _run(ranks, options.out or Path("runs") / f"{config.preset}-{now}")
        run.require_new()
        return config, xp, run

    config, xp, run = ranks.agree(settings)
    source = ranks.from_first(lambda: _opened(Path(config.init_from)) if config.init_from else None)
    trainer, dataset = _start(ranks, xp, config, run)
    if source:
        anew = ranks.agree(lambda: begin_from(trainer, *source))
        say(f"weights of {source[0]}" + (f"; drawn, since its head is another: {', '.join(anew)}" if anew else ""))
    with _own(run, make=True):
        run.create(trainer.save, config, trainer.versions)
        shared = f", {ranks.size} ranks" if ranks.size > 1 else ""
        say(
            f"{run.path}: {config.preset} on {trainer.count:,} images of {config.dataset}, "
            f"{config.epochs} epochs of {trainer.steps_per_epoch} steps, {xp.__name__}, {config.dtype}{shared}"
        )
        _fit(trainer, dataset, options.hours)


def _resume(options: argparse.Namespace, given: dict[str, Any]) -> None:
    require_installed()
    _refuse("--resume", options, given, WITH_RESUME)
    ranks: Ranks = options.ranks
    run = _run(ranks, options.resume)
    ranks.from_first(run.require_resumable)
    with _own(run):
        path, checkpoint, notices = ranks.from_first(run.latest)
        config = dataclasses.replace(checkpoint.config, **given)
        state, changed = checkpoint.state, config.epochs != checkpoint.config.epochs
        for notice in notices:
            say(f"{notice}; going on from {path}")
        if checkpoint.schema < checkpoints.DIGESTED:
            say(f"{path} is of an earlier version and has no digest: nobody would notice damage to its settings")
        if changed:
            ranks.agree(lambda: _require_extensible(run, checkpoint, config.epochs))
        test = ranks.from_first(run.test_record)
        if test and test["epoch"] < config.epochs:
            if config.test:
                say(f"the test set was read after epoch {test['epoch']}; it is read again after epoch {config.epochs}")
            test = None
        if state.epoch >= config.epochs and (test or not config.test) and not changed:
            _say_finished(run, config, test)
            return
        xp = ranks.agree(lambda: namespace(config.backend))
        ranks.agree(lambda: require_named(config.dataset, "dataset" in given, f"--resume {run.path}"))
        trainer, dataset = _start(ranks, xp, config, run)
        ranks.agree(lambda: trainer.restore(checkpoint, path))
        for damaged in run.set_aside_after(checkpoint):
            say(f"what was damaged is now {damaged}")
        run.forget_metrics_after(state.epoch)
        if changed or path.name == BEST:  # before the configuration: a checkpoint's own is what counts
            trainer.save()
        if changed or not run.config_path.is_file():
            run.write_config(config, trainer.versions)
        say(f"{run.path}: going on after epoch {state.epoch}, step {state.step} of {config.epochs} epochs")
        _fit(trainer, dataset, options.hours)


def _run(ranks: Ranks, path: Path) -> Run:
    """The run at a path, which rank 0 alone writes."""
    return Run(path, writes=ranks.writes)


def _start(ranks: Ranks, xp: Any, config: Config, run: Run) -> tuple[Trainer, Dataset]:
    """A trainer on the data of a configuration, the same on every rank."""
    ranks.use_devices(xp)

    def load() -> tuple[Dataset, dict[str, str]]:
        if ranks.size > config.batch_size:
            raise ConfigError(
                f"batch_size is {config.batch_size}, less than the {ranks.size} ranks; each takes a part of every "
                f"batch: start at most {config.batch_size}, or take a larger --batch-size"
            )
        dataset = _dataset(xp, config, ranks)
        _require_suitable(config, dataset)
        return dataset, versions(xp.__name__)

    # one rank of all, then one of each other machine, which may have a disk of its own, downloads what is not there
    turns = ranks.rank == 0, ranks.rank > 0 and ranks.local_rank == 0, ranks.local_rank > 0
    results: list[Callable[[], tuple[Dataset, dict[str, str]]]] = []
    for mine in turns:
        if mine:
            results.append(_kept(load))
        ranks.agree(lambda: None)  # whose turn is later waits
    dataset, found = ranks.agree(results[0])
    if ranks.size > 1:
        settings = {name: value for name, value in vars(config).items() if name != "data_dir"}
        ranks.require_same(settings | found | {"the images and labels": f"checksum {dataset.checksum():08x}"})
        if ranks.watch is not None:
            ranks.watch.advise(f"continue with --resume {run.path}")
    return ranks.agree(lambda: _trainer(xp, config, dataset, run, found, ranks)), dataset


def _kept(action: Callable[[], Any]) -> Callable[[], Any]:
    """A function that returns what an action did, or raises its error."""
    try:
        value = action()
    except Exception as error:
        raised = error

        def fail() -> Any:
            raise raised

        return fail
    return lambda: value


def _require_extensible(run: Run, checkpoint: checkpoints.Checkpoint, epochs: int) -> None:
    """Refuse another number of epochs where the epochs that are trained would have been others with it."""
    config, state = checkpoint.config, checkpoint.state
    if epochs < state.epoch + bool(state.step):
        raise ConfigError(f"--epochs {epochs} is less than {run.path} has trained: {state.epoch}; give more")
    spread = None
    if config.schedule in ("cosine", "one-cycle"):
        spread = f"--schedule {config.schedule} spreads its learning rates"
    elif config.image_sizes:
        spread = "--image-sizes are spread"
    if spread:
        raise ConfigError(
            f"{spread} over all {config.epochs} epochs of {run.path}, so {epochs} would be another run; begin one from "
            f"its weights with --init-from {run.path}"
        )


def _opened(name_or_path: Path) -> tuple[Path, checkpoints.Checkpoint]:
    """A network's checkpoint, of a run the latest; says which, and what is wrong with later ones."""
    path, checkpoint, notices = open_network(name_or_path)
    for notice in notices:
        say(f"{notice}; taking {path}")
    if name_or_path.is_dir():
        state = checkpoint.state
        step = f" and step {state.step} of the next" if state.step else ""
        say(f"{path}: after epoch {state.epoch} of {checkpoint.config.epochs}{step}")
    return path, checkpoint


def _evaluate(options: argparse.Namespace, given: dict[str, Any]) -> None:
    _refuse("--evaluate", options, given, WITH_EVALUATE)
    path, checkpoint = _opened(options.evaluate)
    config = dataclasses.replace(checkpoint.config, **given)
    xp = namespace(config.backend)
    network, parameters, moments = restore(path, checkpoint, config, xp)
    require_named(config.dataset, "dataset" in given, f"--evaluate {options.evaluate}")
    if config.dataset in INFO:
        _require_same_kind(path, checkpoint, config.dataset, INFO[config.dataset])
    dataset = load_dataset(config.dataset, Path(config.data_dir))
    _require_same_kind(path, checkpoint, config.dataset, dataset.info)
    checkpoints.require_same_classes(path, checkpoint, dataset)
    test = Images(
        xp.asarray(dataset.test_images),
        xp.asarray(dataset.test_labels),
        checkpoint.channel_mean,
        checkpoint.channel_std,
        config.dtype,
    )
    result = evaluate(xp, network, parameters, moments, test, averages=True)
    _report(_figures(result), f", {len(dataset.test_labels):,} images")
    if checkpoint.figures:
        say(f"recorded when it was trained: accuracy {100 * checkpoint.figures['test_accuracy']:.2f} %")
    say(_confusion(result, dataset.class_names))


def _require_same_kind(path: Path, checkpoint: checkpoints.Checkpoint, name: str, data: DatasetInfo) -> None:
    """Refuse images of another shape, or of another number of classes, than a network was trained on."""
    found = (checkpoint.image_shape, len(checkpoint.class_names)), (data.image_shape, data.classes)
    if found[0] != found[1]:
        kinds = ["{} classes of {}x{}x{} images".format(classes, *shape) for shape, classes in found]
        raise CheckpointError(
            f"{path} tells {kinds[0]} apart, {name} has {kinds[1]}; name the set it was trained on with --dataset"
        )


@contextlib.contextmanager
def _own(run: Run, *, make: bool = False) -> Iterator[None]:
    """Hold the run's lock; what interrupts at once says what is saved."""
    try:
        with run.lock(make=make):
            yield
    except KeyboardInterrupt as error:
        kept = (
            f"{run.last_good()}; continue with --resume {run.path}" if run.checkpoint_paths() else "nothing was saved"
        )
        raise Interrupted(f"stopped at once; {kept}") from error


def _fit(trainer: Trainer, dataset: Dataset, hours: float) -> None:
    """Train to the end, then read the test set, once, if it may be read; the curve is drawn in any case.

    The report shows the test images, or else those that were held out.
    """
    run = trainer.run
    try:
        result = _train_and_test(trainer, dataset, hours)
    except BaseException:
        with contextlib.suppress(Exception, KeyboardInterrupt):  # why it stopped is what there is to say
            _draw(run)
        raise
    if result is not None:
        _report(_figures(result), f", {len(dataset.test_labels):,} images")
    if not run.metrics_path.is_file():  # no epoch fitted into the hours
        return
    _finish(run)
    if not run.writes:
        return
    classified = None
    if result is not None:
        classified = Classified("test", dataset.test_images, dataset.test_labels, result.logits)
    elif trainer.held_out is not None:
        network, state = trainer.network, trainer.state
        classified = _classified("held-out", network, state.evaluated, trainer.moments, trainer.held_out)
    _write_report(run, trainer.network, trainer.class_names, trainer.state.evaluated, classified)


def _classified(part: str, network: Trainable, parameters: Any, moments: Any, data: Images) -> Classified:
    """Evaluate images that a report shows."""
    result = evaluate(array_namespace(data.labels), network, parameters, moments, data)
    images = data.images if isinstance(data.images, MappedImages) else to_numpy(data.images)
    return Classified(part, images, to_numpy(data.labels), result.logits)


def _write_report(
    run: Run, network: Trainable, names: Sequence[str], parameters: Any, classified: Classified | None
) -> None:
    """Write report.html, beside a learning curve that is drawn, and say where it is."""
    filters = to_numpy(parameters[network.table[0].name]["w"])
    curve = run.picture_path.read_bytes() if run.picture_path.is_file() else None
    name, again = run.path.resolve().name, f"--report {run.path} writes it"
    try:
        text = page(name, network.config, run.machine(), run.read_metrics(), names, filters, curve, classified)
        write_atomically(run.report_path, text.encode())
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted while {run.report_path} was written; all else of the run is saved; {again}"
        ) from error
    except Exception as error:  # whatever fonts, back ends and other people's metrics do
        reason = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else error
        saved = f"all else of the run is saved; once that is mended, {again}"
        raise RunError(f"cannot write {run.report_path}: {reason}; {saved}") from error
    say(str(run.report_path))


def _remake_report(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """Write the report of a run anew: of its test images only if the run has read them."""
    require_installed()
    _refuse("--report", options, given, WITH_REPORT)
    run = Run(options.report)
    if not run.path.is_dir():
        raise RunError(f"{run.path} holds no run: it is no directory")
    path, checkpoint = _opened(run.path)
    config = dataclasses.replace(checkpoint.config, **given)
    xp = namespace(config.backend)
    network, parameters, moments = restore(path, checkpoint, config, xp)
    require_named(config.dataset, "dataset" in given, f"--report {run.path}")
    test, state, classified = run.test_record(), checkpoint.state, None
    tested = test and (test["epoch"], 0) == (state.epoch, state.step)
    if tested or config.validation_size:
        dataset = _dataset(xp, config, options.ranks)
        _require_same_kind(path, checkpoint, config.dataset, dataset.info)
        checkpoints.require_same_classes(path, checkpoint, dataset)
        if tested:
            part, images, labels = "test", dataset.test_images, dataset.test_labels
        else:
            _, held_out = split_validation(dataset, config.validation_size, config.seed)
            part, images, labels = "held-out", dataset.train_images[held_out], dataset.train_labels[held_out]
        statistics = checkpoint.channel_mean, checkpoint.channel_std, config.dtype
        data = Images(_placed(xp, images), xp.asarray(labels), *statistics)
        classified = _classified(part, network, parameters, moments, data)
    with _own(run):
        _write_report(run, network, checkpoint.class_names, parameters, classified)


def _say_finished(run: Run, config: Config, test: dict[str, Any] | None) -> None:
    """Report a run of which nothing is left to compute, and draw its curve again."""
    say(f"{run.path} is finished: all {config.epochs} epochs are trained")
    if test:
        _report(test)
    if not run.config_path.is_file():
        run.write_config(config, versions(config.backend))
    _finish(run)
    if not run.report_path.exists():
        say(f"there is no {run.report_path}; --report {run.path} writes it")


def _finish(run: Run) -> None:
    """Draw the curve of a run, and say where it is."""
    if not run.writes:
        return
    rest = f"all else of the run is saved; --plot {run.path} draws it"
    try:
        _draw(run)
    except RunError as error:
        raise RunError(f"{error}; {rest}") from error
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted while {run.picture_path} was drawn; {rest}") from error
    say(str(run.picture_path))
    if (run.path / BEST).exists():  # not if it stopped before held-out images were first read
        say(str(run.path / BEST))


def _train_and_test(trainer: Trainer, dataset: Dataset, hours: float) -> Result | None:
    run, xp, train = trainer.run, trainer.xp, trainer.train
    try:
        if not trainer.fit(hours, say):
            done, rest = trainer.state.epoch, trainer.seconds_left()
            left = f"about {duration(rest)} are left: " if rest else ""  # nobody knows before the first epoch
            say(
                f"stopped after epoch {done} of {trainer.config.epochs}, since no other fits into {hours:g} hours; "
                f"{left}continue with --resume {run.path}"
            )
            return None
        if not trainer.config.test:
            return None
        labels = xp.asarray(dataset.test_labels)
        test = Images(_placed(xp, dataset.test_images), labels, train.mean, train.std, train.dtype)
        network, state, ranks = trainer.network, trainer.state, trainer.ranks
        begin = time.perf_counter()
        result = evaluate(xp, network, state.evaluated, trainer.moments, test, averages=True, ranks=ranks)
    except MemoryError as error:
        size = trainer.config.batch_size
        raise TrainingError(f"not enough memory for a batch of {size}; {_smaller(size // 2)}") from error
    seconds = time.perf_counter() - begin
    run.append_metrics({"epoch": trainer.state.epoch, **_figures(result), "seconds": seconds})
    return result


def _trainer(xp: Any, config: Config, dataset: Dataset, run: Run, found: dict[str, str], ranks: Ranks) -> Trainer:
    """Split, standardise by the training part's statistics, and move everything to the device."""
    kept, held_out = np.arange(len(dataset.train_labels)), None
    if config.validation_size:
        try:
            kept, held_out = split_validation(dataset, config.validation_size, config.seed)
        except ValueError as error:
            raise ConfigError(f"--validation-size: {error}") from error
    mean, std = channel_statistics(dataset.train_images[kept])
    require_varying(config.dataset, mean, std)

    def images(index: np.ndarray[Any, Any]) -> Images:
        return Images(
            _placed(xp, dataset.train_images[index]), xp.asarray(dataset.train_labels[index]), mean, std, config.dtype
        )

    network = build(config, dataset.image_shape[:2], len(dataset.class_names), dataset.image_shape[2])
    validation = None if held_out is None else images(held_out)
    return Trainer(xp, config, network, images(kept), validation, run, found, dataset.class_names, ranks)


def _placed(xp: Any, images: Any) -> Any:
    """Images on the device, unless they stay in their files."""
    return images if isinstance(images, MappedImages) else xp.asarray(images)


def _dataset(xp: Any, config: Config, ranks: Ranks) -> Dataset:
    """Load the images, and refuse a batch that cannot fit: before that, where their number and size are known."""
    if config.dataset in INFO:
        _require_memory(xp, config, INFO[config.dataset], ranks)
    options: dict[str, Any] = {"mapped": True} if ranks.size > 1 else {}
    dataset = load_dataset(config.dataset, Path(config.data_dir), **options)
    if config.dataset not in INFO:
        _require_memory(xp, config, dataset.info, ranks)
    if not config.train_size:
        return dataset
    try:
        return train_subset(dataset, config.train_size)
    except ValueError as error:
        raise ConfigError(f"--train-size: {error}") from error


def _require_suitable(config: Config, dataset: Dataset) -> None:
    """Refuse shifts that move images out of sight, and periodic axes that a stride does not divide.

    There a subsampled axis is no longer periodic, and Proposition 3.1 does not hold.
    """
    height, width, channels = dataset.image_shape
    if config.scattering and (height != width or height % 2**config.scattering):
        raise ConfigError(
            f"scattering is {config.scattering}, for square images of a multiple of {2**config.scattering} pixels a "
            f"side; these have {height}x{width}"
        )
    if config.shift >= min(height, width):
        raise ConfigError(f"shift is {config.shift}; images of {height}x{width} allow 0 to {min(height, width) - 1}")
    if config.cutout >= min(height, width):
        raise ConfigError(f"cutout is {config.cutout}; images of {height}x{width} allow 0 to {min(height, width) - 1}")
    sizes = {(height, width), *(image_size(config, epoch, (height, width)) for epoch in range(config.epochs))}
    for size in sorted(sizes):
        build(config, size, len(dataset.class_names), channels)  # refuses a size that it does not take
        for layer in layers(config, size, len(dataset.class_names), channels) if config.boundary != "zero" else []:
            along = zip(layer.inputs, layer.stride, layer.boundary, strict=False)
            for axis, (length, stride, boundary) in enumerate(along):
                if boundary == "periodic" and length > 1 and length % stride:
                    what = f"images of {size[0]}x{size[1]}" if axis < 2 else f"--width {config.width}"
                    raise ConfigError(
                        f"{what} cannot be periodic: layer {layer.j} subsamples an axis of {length} by {stride}, which "
                        f"does not divide it; take another {'size' if axis < 2 else 'width'}, or --boundary zero"
                    )


def _require_memory(xp: Any, config: Config, data: DatasetInfo, ranks: Ranks) -> None:
    """Refuse a batch that cannot fit before the system ends the process for it."""
    available = available_bytes(xp)
    if available is not None and xp is np:
        available //= ranks.local_size
    recorded = wants_graphs(xp) and ranks.size == 1
    steps = 2 + SPARE if recorded else 1  # what a graph records takes its own memory
    needed = steps * required_bytes(config, data, -(-config.batch_size // ranks.size))
    if available is not None and needed > available:
        fits = ranks.size * batch_that_fits(config, data, int(available / steps))
        raise TrainingError(
            f"a batch of {config.batch_size} needs about {needed / 2**30:.1f} GiB "
            f"and {available / 2**30:.1f} GiB are free; {_smaller(fits)}"
        )


def _smaller(fits: int) -> str:
    if fits:
        return f"--batch-size {fits} would fit"
    return "not even one image fits: take a smaller --width or --factors"


def _draw(run: Run) -> None:
    if not run.writes:
        return
    records = run.read_metrics()
    try:
        plot_learning_curve(records, run.picture_path, run.path.resolve().name)
    except Exception as error:  # whatever fonts, back ends and other people's metrics do
        raise RunError(f"cannot draw {run.picture_path}: {error}") from error


def _figures(result: Result) -> dict[str, float]:
    """What is recorded of a test."""
    views = {} if result.averaged is None else {"test_accuracy_of_views": result.averaged}
    return {"test_loss": result.loss, "test_accuracy": result.accuracy, **views}


def _report(test: Mapping[str, Any], images: str = "") -> None:
    say(f"test: accuracy {100 * test['test_accuracy']:.2f} %, loss {test['test_loss']:.4f} nats{images}")
    if "test_accuracy_of_views" in test:
        views = 100 * test["test_accuracy_of_views"]
        say(f"test: accuracy {views:.2f} % by the mean of six views (shifts of a pixel, mirrored)")


def _confusion(result: Result, names: Sequence[str]) -> str:
    """Rows are true classes, columns what the network said."""
    width = max(len(str(int(result.confusion.max()))), 4)
    label = max(map(len, names))
    lines = [" " * label + " " + " ".join(name[:width].rjust(width) for name in names)]
    for name, row in zip(names, result.confusion, strict=True):
        lines.append(name.rjust(label) + " " + " ".join(str(int(n)).rjust(width) for n in row))
    return "rows: true class; columns: predicted\n" + "\n".join(lines)


def _refuse(action: str, options: argparse.Namespace, given: dict[str, Any], allowed: Sequence[str]) -> None:
    """Settings contradict an action that takes them from a file."""
    more = [name for name in ("config", "out") if getattr(options, name)]
    names = [f"no_{name}" if given.get(name) is False else name for name in (*given, *more) if name not in allowed]
    flags = [f"--{name.replace('_', '-')}" for name in names]
    if flags:
        raise ConfigError(f"{action} takes its settings from the run: remove {', '.join(flags)}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m train.cifar",
        description="Train a hierarchical attribute CNN (arXiv:1703.04140) on CIFAR-10 or CIFAR-100, or evaluate one.",
        epilog="Exit status: 0; 1 it failed; 2 the command line or the configuration is wrong; 128 and the number "
        "of the signal that stopped it, such as 130 for Ctrl-C.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=given_path, metavar="FILE", help="TOML file of settings; flags override it")
    parser.add_argument("--out", type=given_path, metavar="DIR", help="new run directory (default: runs/PRESET-TIME)")
    parser.add_argument(
        "--resume",
        type=given_path,
        metavar="DIR",
        help="continue a run, bit for bit on the same backend; --epochs extends it where its schedule allows",
    )
    parser.add_argument(
        "--evaluate",
        type=given_path,
        metavar="CHECKPOINT",
        help="accuracy, loss and confusion on the test set: of a checkpoint, of a run's latest, or of a network that "
        f"ships: {', '.join(names()) or 'none'}",
    )
    parser.add_argument(
        "--hours", type=_hours, default=math.inf, help="stop after the last epoch that fits; --resume continues"
    )
    parser.add_argument(
        "--export",
        nargs=2,
        metavar=("CHECKPOINT", "FILE"),
        type=given_path,
        help="write a network alone: weights and moments to a .h5, or what they fold into, merged 4D filters and "
        "biases, to a .safetensors",
    )
    parser.add_argument("--describe", action="store_true", help="print the network as a table and stop")
    parser.add_argument("--plot", type=given_path, metavar="DIR", help="draw a run's learning curve and stop")
    parser.add_argument("--report", type=given_path, metavar="DIR", help="write a run's report.html anew and stop")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    settings = parser.add_argument_group("settings (defaults are the preset's)")
    for f in dataclasses.fields(Config):
        kind, count = field_type(f)
        options: dict[str, Any] = {
            "default": None,
            "help": f"{f.metadata['help']} [{_shown(f.default)}]".replace("%", "%%"),
        }
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": kind, "metavar": kind.__name__.upper()}
            if f.metadata["choices"]:
                named = "{" + ",".join(f.metadata["choices"]) + "}"
                options |= {"choices": f.metadata["choices"], "metavar": named if len(named) <= 60 else "NAME"}
                if len(named) > 60:  # argparse does not break a line inside it
                    options["help"] += f"; choose {', '.join(f.metadata['choices'])}"
            if count is not None:
                options |= {"nargs": count or "*"}
        settings.add_argument(f"--{f.name.replace('_', '-')}", **options)
    return parser


def _hours(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text} is no time; give hours, more than 0")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    raise_on_interrupt()
    sys.exit(main())
