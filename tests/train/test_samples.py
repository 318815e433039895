"""What a data set is: a run keeps to its own samples, whatever the disk holds now, and says what it cannot keep to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.train.commands import made_up
from tests.train.runs import SMALL, contents, edited, metrics, run_plainly
from train.data import Dataset, load_dataset, split_validation
from train.data.dataset import Samples
from train.data.description import Description, samples_of
from train.runs import checkpoint as checkpoints
from train.runs.samples import description_of, own_samples
from train.runs.shipped import open_network


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), "u1")).save(path)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty pictures of each of two classes, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for k in range(40):
        picture(Path("pics") / ("cat", "dog")[k % 2] / f"{k:02}.png", k)
    return Path("pics")


FLAGS = (*SMALL[:2], *SMALL[4:-2], "--epochs", 1, "--shift", 1)


def trained(out: str = "run", *more: object, dataset: str = "pics") -> str:
    return run_plainly((*FLAGS, "--dataset", dataset, "--out", out, *more), None).success()


def recorded(run: str = "run") -> dict[str, set[str]]:
    """Names of a run's samples by part, read as JSON."""
    rows = json.loads(Path(run, "samples.json").read_text())["samples"]
    return {part: {name for name, of, *_ in rows if of == part} for part in ("train", "held out", "test")}


def test_the_description_is_a_file_that_anyone_can_check(pictures: Path) -> None:
    said = trained()
    about = json.loads(Path("run/samples.json").read_text())
    rows = {name: (part, value) for name, part, value, label in about.pop("samples") if label == name.startswith("dog")}
    assert about["format"] == 2
    for path in pictures.rglob("*.png"):
        part, value = rows.pop(path.relative_to(pictures).as_posix())
        assert value == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        assert (part == "test") == (int(value, 16) < 2**64 / 5)
    assert not rows and about["classes"] == ["cat", "dog"] and about["shape"] == [8, 8, 3]
    counts = [about[part] for part in ("train", "held out", "test")]
    assert sum(counts) == 40 and counts[1] == (40 - counts[2]) // 10
    assert f"on {counts[0]} images of pics/ ({counts[1]} held out, {counts[2]} for the test), " in said
    checkpoint = checkpoints.load(Path("run/best.h5"))
    assert checkpoint.data == hashlib.sha256(Path("run/samples.json").read_bytes()).hexdigest()
    assert about["mean"] == checkpoint.channel_mean.tolist() and about["std"] == checkpoint.channel_std.tolist()


def test_held_out_are_those_of_the_least_hash_with_the_seed(pictures: Path) -> None:
    data = load_dataset("pics")
    assert data.samples is not None
    for seed in (0, 1):
        kept, held_out = split_validation(data, 5, seed)
        assert len(held_out) == 5 and sorted([*kept, *held_out]) == list(range(len(data.train_labels)))
        for label in (0, 1):
            own = np.flatnonzero(data.train_labels == label)
            value = {k: hashlib.sha256(f"{seed} {data.samples.hashes[k]}".encode()).hexdigest() for k in own}
            chosen = set(own) & set(held_out)
            assert chosen == set(sorted(own, key=lambda k: value[k])[: len(chosen)]) and 2 <= len(chosen) <= 3
    picture(pictures / "cat" / "new.png", 100)
    more = load_dataset("pics")
    before, after = ({d.samples.names[k] for k in split_validation(d, 5, 1)[1]} for d in (data, more) if d.samples)
    assert len(before - after) <= 2


def test_pictures_that_are_added_renamed_or_gone(pictures: Path) -> None:
    """Evaluation and resumption keep to the run's own; the negative control is what a fresh run would take."""
    trained("whole", "--epochs", 2)
    trained("run", "--epochs", 2, "--hours", 1e-9)
    own = recorded()
    for k in range(30):
        picture(pictures / ("cat", "dog")[k % 2] / f"new{k}.png", 1000 + k)
    (pictures / "cat" / "00.png").rename(pictures / "cat" / "zebra.png")
    out = run_plainly(("evaluate", "whole"), None).success()
    assert (
        f", {len(own['test'])} images" in out and "30 samples of pics/ are new since whole began, and left out" in out
    )
    assert len(load_dataset("pics").test_labels) > len(own["test"])
    out = run_plainly(("--resume", "run"), None).success()
    assert "30 samples of pics/ are new since run began, and left out" in out
    assert metrics(Path("run")) == metrics(Path("whole")) and recorded() == own
    report = run_plainly(("report", "whole"), None).success()
    assert "30 samples of pics/ are new" in report

    gone = sorted(own["test"])[0]
    (pictures / gone).rename("aside.png")
    out = run_plainly(("evaluate", "whole"), None).success()
    assert f"1 of the {len(own['test'])} test images of whole are gone or changed" in out
    assert f", {len(own['test']) - 1} images" in out
    shutil.copytree("whole", "again")
    for path in Path("again").glob("epoch0002*"):
        path.unlink()
    Path("again/best.h5").unlink()
    before = contents(Path("again"))
    run_plainly(("--resume", "again"), None).one_line(
        1, "was trained on other images than pics/ holds", "1 of its 40 samples are gone or changed, such as", gone
    )
    Path("aside.png").rename(pictures / gone)
    (pictures / (gone := sorted(own["train"])[-1])).unlink()
    run_plainly(("--resume", "again"), None).one_line(1, "1 of its 40 samples are gone or changed, such as", gone)
    assert contents(Path("again")) == before
    for name in own["test"]:
        (pictures / name).unlink(missing_ok=True)
    run_plainly(("evaluate", "whole"), None).one_line(1, "was trained on other images", "samples are gone or changed")


def test_another_data_set_is_compared_sample_by_sample(pictures: Path) -> None:
    trained()
    own = recorded()
    shutil.copytree("pics", "moved")
    out = run_plainly(("evaluate", "run", "--dataset", "moved"), None).success()
    assert f", {len(own['test'])} images" in out and "was trained on" not in out
    for name in sorted(own["train"])[:7]:
        target = Path("other/test") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / name, target)
    for k in range(4):
        picture(Path("other/test") / ("cat", "dog")[k % 2] / f"{k}.png", 500 + k)
        picture(Path("other/train") / ("cat", "dog")[k % 2] / f"{k}.png", 600 + k)
    out = run_plainly(("evaluate", "run", "--dataset", "other"), None).success()
    assert "run/epoch0001-step000000.h5 was trained on 7 of the 11 test images of other/" in out


@pytest.mark.parametrize("flag", ["--init-from", "--teacher"])
def test_no_run_is_measured_on_what_another_network_was_trained_on(pictures: Path, flag: str) -> None:
    trained("first", "--validation-size", 4)
    refused = run_plainly(
        (*FLAGS, "--validation-size", 4, "--dataset", "pics/:12", flag, "first", "--seed", 3, "--out", "no"), None
    )
    refused.one_line(1, f"{flag} first", "of the 4 images that are held out here", "--seed 0 --validation-size 4")
    own = recorded("first")
    for part, names in (("test", own["train"]), ("train", own["train"] | own["held out"])):
        for name in names:
            target = Path("other") / part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(pictures / name, target)
    refused = run_plainly((*FLAGS, "--validation-size", 0, "--dataset", "other", flag, "first", "--out", "no"), None)
    count = len(own["train"])
    refused.one_line(1, f"was trained on {count} of the {count} images that are for the test here", "another network")
    assert not Path("no").exists()
    trained("second", "--validation-size", 4, flag, "first")


def test_a_lone_checkpoint_says_what_cannot_be_checked(pictures: Path) -> None:
    trained()
    shutil.copy("run/best.h5", "lone.h5")
    line = "whether lone.h5 was trained on some of the test images cannot be checked: it has no samples.json"
    assert line not in run_plainly(("evaluate", "lone.h5"), None).success()  # all is as it was
    picture(pictures / "cat" / "new.png", 1000)
    assert line in run_plainly(("evaluate", "lone.h5"), None).success()
    said = trained("second", "--init-from", "lone.h5", dataset="pics/:8")
    assert "--init-from lone.h5 has no description of its images" in said


def test_networks_that_ship_say_on_which_images_they_were_trained() -> None:
    path, checkpoint, _ = open_network("hcnn-fast")
    sample, found = load_dataset("sample"), list[str]()
    for name, use in (("cifar10", "test"), ("cifar10", "another"), ("sample", "another")):
        config = dataclasses.replace(checkpoint.config, dataset=name)
        own_samples(path, checkpoint, config, dataclasses.replace(sample, name=name), found.append, use)
    assert found[:2] == ["hcnn-fast was trained on CIFAR-10's training images"] * 2
    assert len(found) == 3 and "was trained on some of the test images cannot be checked" in found[2]


def test_a_run_older_than_descriptions_is_not_tested_on_what_it_was_trained_on(pictures: Path) -> None:
    trained()
    for path in Path("run").glob("*.h5"):
        with edited(path) as file:
            del file.attrs["data"]
            file.attrs["labels"] ^= 1  # of another split
    Path("run/samples.json").unlink()
    run_plainly(("evaluate", "run"), None).one_line(1, "was trained on other images than pics/ holds")


@pytest.mark.parametrize("kind", ["rows", "permuted", "grown"])
def test_rows_of_arrays_keep_their_split_and_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays: dict[str, Any] = made_up((8, 8), 2)
    np.savez("a.npz", **arrays)
    trained(dataset="a.npz")
    own, data = recorded(), load_dataset("a.npz")
    assert own["held out"] == {f"train {k}" for k in split_validation(data, 4, 0)[1]}
    order = np.random.default_rng(0).permutation(40) if kind == "permuted" else np.arange(40)
    arrays = {k: v[order] if k.endswith("train") else v for k, v in arrays.items()}
    if kind == "grown":  # rows that were trained on are test rows now
        arrays |= {
            k.replace("train", "test"): np.concatenate([arrays[k.replace("train", "test")], v])
            for k, v in arrays.items()
            if k.endswith("train")
        }
    np.savez("a.npz", **arrays)
    out = run_plainly(("evaluate", "run"), None).success()
    assert ", 12 images" in out and ("40 samples of a.npz are new" in out) == (kind == "grown")


def test_descriptions_are_told_apart_by_every_part_of_them(few_images: Dataset) -> None:
    held_out = np.arange(5)
    first = Description.of(few_images, held_out, [1.0], [2.0])
    assert Description.read(first.text).text == first.text
    changed = few_images.train_images.copy()
    changed[3, 4, 5, 0] ^= 1
    others = [
        Description.of(dataclasses.replace(few_images, train_images=changed), held_out, [1.0], [2.0]),
        Description.of(few_images, np.arange(1, 6), [1.0], [2.0]),
        Description.of(few_images, held_out, [1.5], [2.0]),
        Description.of(dataclasses.replace(few_images, class_names=tuple("abcdefghij")), held_out, [1.0], [2.0]),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 5
    assert int((samples_of(few_images).hashes != others[0].hashes).sum()) == 1
    index, new = first.places(dataclasses.replace(few_images, train_images=changed))
    assert np.flatnonzero(index < 0).tolist() == [3] and new == 1
    for place in (0, -1):  # of the training set, and of the test
        part = "train_labels" if place == 0 else "test_labels"
        labels = getattr(few_images, part).copy()
        labels[place] = (labels[place] + 1) % 10
        relabelled = dataclasses.replace(few_images, **{part: labels})
        assert np.flatnonzero(first.places(relabelled)[0] < 0).tolist() == [place % len(first.hashes)]
        plain = dataclasses.replace(first, labels=None)
        assert "format" not in plain.about and (plain.places(relabelled)[0] >= 0).all()
        assert Description.read(plain.text).labels is None and first.as_in(plain.digest).text == plain.text
        assert first.as_in("").text == first.text != Description.of(relabelled, held_out, [1.0], [2.0]).text


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_other_labels_are_other_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Those of test samples too, which no checkpoint has a checksum of; of numbers, exchanged columns."""
    monkeypatch.chdir(tmp_path)
    arrays = made_up((8, 8), classes=2, train=40, test=10)
    if kind != "classes":
        for part in ("y_train", "y_test"):
            number = np.random.default_rng(3).standard_normal((len(arrays[part]), 2))
            arrays[part] = number > 0 if kind == "labels" else number
    np.savez("d.npz", **arrays)
    trained("run", "--schedule", "constant", dataset="d.npz")
    test = arrays["y_test"]
    np.savez(
        "d.npz", **{**arrays, "y_test": test[:, ::-1] if kind == "numbers" else np.logical_not(test).astype(test.dtype)}
    )
    for command in (("--resume", "run", "--epochs", 2), ("--evaluate", "run")):
        run_plainly(command, None).one_line(1, "was trained on other images than d.npz holds", "are gone or changed")
    said = run_plainly(("--evaluate", "run", "--dataset", "d.npz"), None).success()
    assert "samples of d.npz have other labels than in run" in said
    np.savez("d.npz", **arrays)
    run_plainly(("--resume", "run", "--epochs", 2), None).success()


def test_folders_whose_names_are_exchanged_are_other_classes(pictures: Path) -> None:
    trained()
    for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
        (pictures / old).rename(pictures / new)
    run_plainly(("--evaluate", "run"), None).one_line(1, "40 of its 40 samples are gone or changed")


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"format": 3, "samples": []}'])
def test_a_description_of_other_samples_is_no_description(pictures: Path, text: str) -> None:
    """Also a whole one of another run, which its digest in the checkpoint tells."""
    trained()
    path, checkpoint = Path("run/best.h5"), checkpoints.load(Path("run/best.h5"))
    own = Path("run/samples.json").read_text()
    assert description_of(path, checkpoint) is not None
    Path("run/samples.json").write_text(text or own.replace('"held out"', '"train"'))
    assert description_of(path, checkpoint) is None


def test_copies_of_one_picture_keep_their_own_labels(few_images: Dataset) -> None:
    """By their labels; in a description without them by their names."""
    images = np.repeat(few_images.train_images[:3], 2, axis=0)
    samples = Samples(tuple("abcdef"), samples_of(few_images).hashes[:3].repeat(2), None)
    parts = {"train_images": images[:4], "train_labels": np.arange(4), "test_images": images[4:]}
    few = dataclasses.replace(few_images, **parts, test_labels=np.array([4, 5]), samples=samples)
    order = np.array([1, 0, 3, 2])
    moved = dataclasses.replace(few, train_labels=few.train_labels[order], train_images=images[order])
    moved = dataclasses.replace(moved, samples=dataclasses.replace(samples, names=tuple("badcef")))
    description = Description.of(few, np.arange(1), [1.0], [2.0])
    for described in (description, dataclasses.replace(description, labels=None)):
        assert described.places(moved)[0].tolist() == [1, 0, 3, 2, 4, 5]
