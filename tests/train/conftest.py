"""One finished run for all tests, and the command line on few images."""

from __future__ import annotations

import dataclasses
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.train.runs import SMALL, Outcome, contents, draw_nothing, explore_here, run_here
from train.data import Dataset, load_dataset

Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def few_images() -> Dataset:
    """The first images of the sample: 40 to train on, 30 to test on."""
    sample = load_dataset("sample")
    return dataclasses.replace(
        sample,
        train_images=sample.train_images[:40],
        train_labels=sample.train_labels[:40],
        test_images=sample.test_images[:30],
        test_labels=sample.test_labels[:30],
    )


@pytest.fixture
def drawing_command(few_images: Dataset) -> Command:
    """The command line on few images, in this process."""
    return lambda *arguments: run_here(arguments, few_images)


@pytest.fixture
def command(drawing_command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The same without the time that pictures take."""
    draw_nothing(monkeypatch)
    return drawing_command


@pytest.fixture(scope="session")
def first_run(few_images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """An uninterrupted run of four epochs, and what it said."""
    path = tmp_path_factory.mktemp("trained") / "run"
    return path, run_here((*SMALL, "--out", path), few_images)


@pytest.fixture
def trained(first_run: tuple[Path, Outcome]) -> Iterator[Path]:
    """The directory of that run, in which every file must be the same afterwards."""
    path, outcome = first_run
    outcome.success()
    before = contents(path)
    yield path
    assert contents(path) == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a run of the test's own is to be."""
    return tmp_path / "run"


@pytest.fixture
def copied(trained: Path, path: Path) -> Path:
    """A copy of that run, to be changed."""
    return Path(shutil.copytree(trained, path))


@pytest.fixture
def part(trained: Path, tmp_path: Path) -> Path:
    """A copy of what that run had written after its second epoch."""
    path = tmp_path / "part"
    path.mkdir()
    for name in ("config.toml", "metrics.jsonl", "epoch0002-step000000.h5"):
        shutil.copy(trained / name, path)
    return path


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt, also where the tests run in the background and have inherited that it does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def explored(
    first_run: tuple[Path, Outcome], few_images: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """Everything the explorer writes of that run's network, and what it said."""
    folder = tmp_path_factory.mktemp("explored")
    few = ("--agreement", "20", "--images", "0", "1", "7", "--cache", folder / "cache", "--out", folder / "page")
    return folder / "page", explore_here(few_images, first_run[0] / "best.h5", *few)
