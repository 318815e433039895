"""Networks of signals, images and volumes: one to three axes of space, and numbers of several kinds."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.io.wavfile

from tests.train.runs import explore_here, run_here
from train import Dataset, fit, load, predict
from train.config import ConfigError, make_config, read_toml, with_steps
from train.data import channel_statistics, resize, standardise, views
from train.data.augmentation import draw_holes, draw_sources, hide, interpolate, move
from train.data.readers import READERS, SOUND, in_units
from train.data.reading import dataset_from_arrays
from train.networks.hierarchical import hierarchy
from train.networks.registry import PRESETS, build
from train.recipes.augmentations import Position, draw_batch
from train.runs.checkpoint import Checkpoint
from train.verification.covariance import Subject, measure

SIZES = ((24,), (12, 10), (8, 6, 8))
TINY = {"width": 4, "factors": 4, "depth": 5, "attribute_kernel": (3, 5), "strided_layers": (3,), "batch_size": 8}


def subject(size: tuple[int, ...], changes: dict[str, Any]) -> Subject:
    """A network with random weights and images."""
    network = build(make_config("hcnn", {**TINY, "dtype": "float64", **changes}), size, 3, 2)
    rng = np.random.default_rng(0)
    weights, x = network.initialize(rng), rng.standard_normal((3, *size, 2))
    _, moments = network(weights, x)
    return Subject(network, weights, moments, x)


KINDS: list[dict[str, Any]] = [{}, {"nonlinear_factors": True}, {"skip": "aligned", "depth": 6}]
BOUNDARIES = "periodic", "zero", "attributes"


@pytest.mark.lot
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("nth", range(3))
def test_proposition_3_1_holds_along_any_number_of_axes(size: tuple[int, ...], nth: int) -> None:
    """Each boundary with each kind of network, and each of both at each number of axes."""
    kind, boundary = KINDS[nth], BOUNDARIES[(nth + SIZES.index(size)) % 3]
    rows = [example.row for example in measure(subject(size, {"boundary": boundary, **kind}))]
    assert {row.axis for row in rows if row.axis[0] == "u"} == {f"u{k + 1}" for k in range(len(size))}
    must = [row for row in rows if row.must_hold]
    assert len(must) > 20 and all(row.holds for row in must), [row for row in must if not row.holds]
    if boundary == "periodic":  # a negative control: translations that the strides do not keep are seen
        aliased = [row for row in rows if row.kind == "aliased" and row.axis == "u1"]
        assert aliased and max(row.largest for row in aliased) > 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_taps_and_shapes_are_those_of_the_axes(size: tuple[int, ...]) -> None:
    one = subject(size, {})
    table, count = hierarchy(one.network), len(size)
    for layer in table:
        assert layer.kernel_size[:count] == (3,) * count and layer.space == tuple(range(1, count + 1))
    for layer, (_, made, _) in zip(table, one.network.trace(one.parameters, one.images), strict=False):
        assert made.shape[1:] == layer.outputs
    assert one.parameters["layer03"]["h"].shape == (4, *(3,) * count)
    drawn = sum(array.size for weights in one.parameters.values() for array in weights.values())
    assert drawn == one.network.trainable
    logits, _ = one.network(one.parameters, one.images, one.moments)
    merged = one.network.apply_merged(one.network.merged(one.parameters, one.moments), one.images)
    np.testing.assert_allclose(merged, logits, rtol=0, atol=1e-10)


def test_an_image_of_one_row_is_a_signal() -> None:
    """An oracle in two axes: filters whose middle row alone meets data."""
    line, flat = subject((24,), {}), subject((1, 24), {})
    for name, weights in flat.parameters.items():
        of = line.parameters[name]
        if "w" in weights:
            axis = 1 if weights["w"].ndim == 4 and name == "layer01" else 0
            of["w"] = np.take(weights["w"], 1, axis)
        if "h" in weights:
            of["h"], of["g"] = weights["h"][:, 1], weights["g"]
    x = line.images
    found, _ = line.network(line.parameters, x)
    expected, _ = flat.network(flat.parameters, x[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert np.abs(found - line.network(line.parameters, x[:, ::-1])[0]).max() > 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_augmentation_along_each_axis(size: tuple[int, ...]) -> None:
    """Against slices: what is moved is what NumPy's padding and slicing give."""
    rng = np.random.default_rng(0)
    x, count = rng.standard_normal((5, *size, 2)), len(size)
    sources = draw_sources(rng, x.shape, max_shift=2, flip=False)
    moved = move(x, *sources, max_shift=2)
    padded = np.pad(x, ((0, 0), *((2, 2),) * count, (0, 0)))
    for n in range(5):
        starts = [int(source[n, 0]) + 2 for source in sources]
        place = tuple(slice(start, start + length) for start, length in zip(starts, size, strict=True))
        assert np.array_equal(moved[n], padded[n][place])
    mirrored = draw_sources(rng, x.shape, max_shift=0, flip=np.ones(5, bool))
    assert np.array_equal(move(x, *mirrored, max_shift=0), np.flip(x, count))
    chosen = draw_holes(rng, x.shape, 3)
    hidden = hide(x, *chosen)
    for n in range(5):
        inside = np.ix_(*(along[n] for along in chosen))
        expected = x[n].copy()
        expected[inside] = 0
        assert np.array_equal(hidden[n], expected)
    assert len(list(views(x, flip=True))) == 5
    smaller = resize(x, tuple(n // 2 for n in size))
    halves = x.reshape(5, *(k for n in size for k in (n // 2, 2)), 2).mean(axis=tuple(range(2, 2 * count + 1, 2)))
    np.testing.assert_allclose(smaller, halves, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_axes_are_resampled_as_numpy_interpolates(size: tuple[int, ...]) -> None:
    config = make_config("hcnn", {"resample": 0.4, "dtype": "float64", "shift": 0, "flip": False})
    rng, x = np.random.default_rng(0), np.random.default_rng(1).standard_normal((6, *size, 2))
    drawn, made, factors = draw_batch(config, rng, Position(np.arange(6), x.shape[1:], 0, 6)), x, []
    for k, (axis, length) in enumerate(zip(("rows", "columns", "slices"), size, strict=False), 1):
        first, later = drawn[f"first_{axis}"], drawn[f"later_{axis}"]
        made, place = interpolate(made, k, first, later), first + later
        centre, t = (length - 1) / 2, np.arange(length)
        inside = np.diff(place, axis=1)[:, length // 2]
        factors += (1 / inside).tolist()
        np.testing.assert_allclose(place, np.clip(centre + (t - centre) * inside[:, None], 0, length - 1), atol=1e-9)
        lines = np.moveaxis(x, k, -1)
        x = np.stack([np.apply_along_axis(lambda a, n=n: np.interp(place[n], t, a), -1, lines[n]) for n in range(6)])  # noqa: B023
        x = np.moveaxis(x, -1, k)
    np.testing.assert_allclose(made, x, atol=1e-9)
    assert min(factors) < 0.85 and max(factors) > 1.2 and max(np.abs(np.log(factors))) <= 0.4


def test_each_sample_is_standardised_by_itself_where_that_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((4, 9, 7, 2)) * rng.uniform(1, 50, (4, 1, 1, 2)) + 300).astype(np.float32)
    x[2, ..., 1] = 0.1
    mean, std = channel_statistics(x)
    for dtype, atol in (("float32", 1e-3), ("float64", 1e-4)):
        found = standardise(x, mean, std, dtype, "sample")
        own = x.astype(float)
        deviation = own.std((1, 2), keepdims=True)
        deviation[2, ..., 1] = np.inf
        np.testing.assert_allclose(found, (own - own.mean((1, 2), keepdims=True)) / deviation, atol=atol)
        assert found.dtype == dtype and not found[2, ..., 1].any()
    assert np.abs(standardise(x, mean, std) - found).max() > 1


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_statistics_of_numbers_of_any_kind(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((30, 7, 2)) * (20, 3) + (100, 50)).astype(dtype)
    mean, std = channel_statistics(x)
    np.testing.assert_allclose(mean, x.astype(float).mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(std, x.astype(float).std((0, 1)), rtol=1e-12)
    far = (x.astype(np.float64) + 1e9).astype(np.float64)
    np.testing.assert_allclose(channel_statistics(far)[1], std, rtol=1e-6)


def labelled(x: np.ndarray[Any, Any], **more: Any) -> dict[str, Any]:
    y = np.arange(len(x)) % 2
    return {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6], **more}


def test_arrays_say_what_they_are() -> None:
    rng = np.random.default_rng(0)
    floats = rng.standard_normal((8, 9, 7, 6, 5))
    pixels = np.zeros((8, 9, 7, 6, 5), np.uint8)
    for array, more, shape in (
        (floats[..., 0, 0, 0], {}, (9, 1)),
        (floats[..., 0, 0], {"space_axes": 1}, (9, 7)),
        (floats[..., 0, 0], {"space_axes": 2}, (9, 7, 1)),
        (pixels[..., 0, 0], {}, (9, 7, 1)),
        (floats[..., :3, 0], {}, (9, 7, 3)),
        (floats[..., 0], {"space_axes": 2}, (9, 7, 6)),
        (floats[..., 0], {"space_axes": 3}, (9, 7, 6, 1)),
        (floats, {}, (9, 7, 6, 5)),
    ):
        assert dataset_from_arrays("mine", labelled(array, **more)).image_shape == shape


def waves(count: int, size: tuple[int, ...], dtype: str = "float32") -> Dataset:
    """Waves of two frequencies with noise, in large units."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    t = sum(np.meshgrid(*map(np.arange, size), indexing="ij"))
    x = np.sin(t * (0.4 + 0.8 * labels.reshape(-1, *(1,) * len(size))) + 3 * rng.random((count, *(1,) * len(size))))
    x = (1000 + 100 * (x + 0.1 * rng.standard_normal(x.shape)))[..., None].astype(dtype)
    return Dataset("waves", ("low", "high"), x[:60], labels[:60], x[60:], labels[60:])


@pytest.mark.parametrize(("size", "dtype"), [((32,), "float32"), ((32,), "int16"), ((8, 8, 8), "float64")])
def test_a_network_learns_signals_and_volumes(size: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    data = waves(80, size, dtype)
    preset = "signal" if len(size) == 1 else "volume"
    config = make_config(preset, {"epochs": 6, "depth": 5, "width": 4, "strided_layers": (2, 3), "batch_size": 10})
    network = fit(config, data, out=tmp_path / "run")
    assert network.figures["test_accuracy"] > 0.9
    again = load(tmp_path / "run")
    assert again.checkpoint.values == dtype and again.checkpoint.image_shape == (*size, 1)
    logits = again(data.test_images)
    assert np.mean(logits.argmax(1) == data.test_labels) == network.figures["test_accuracy"]
    assert f"numbers in the units of its training data, which were {dtype}" in again.takes
    np.testing.assert_allclose(again(data.test_images[..., 0]), logits, atol=1e-5)
    np.testing.assert_allclose(again(data.test_images[0]), logits[0], atol=1e-4)
    assert np.abs(again(data.test_images / 1000) - logits).max() > 1  # other units are other numbers
    for bad, error, message in (
        (data.test_images[:, 1:], ValueError, "images have shape .*; give "),
        (np.ones((*size, 2)), ValueError, rf"images have shape \({', '.join(map(str, size))}, 2\); give "),
        (np.full((*size, 1), np.nan), ValueError, "floats from nan to nan; give finite numbers"),
        (np.zeros((*size, 1), np.int64), TypeError, "images have dtype int64; give uint8 or int16"),
        ("picture.png", ValueError, "the network takes no images of bytes, so no photographs; give arrays"),
    ):
        with pytest.raises(error, match=message):
            again(bad)


def test_who_takes_images_alone_refuses_others_by_name(tmp_path: Path) -> None:
    for preset in ("lenet", "resnet20"):
        with pytest.raises(ConfigError, match=r"takes images, and these are signals of 32; take a .* --preset signal"):
            build(make_config(preset), (32,), 2, 1)
    with pytest.raises(ConfigError, match="scattering is 2, for images; these data have 3 axes of space"):
        build(make_config("scattering"), (32, 32, 32), 2, 1)
    data = waves(80, (32,))
    file = tmp_path / "waves.npz"
    arrays = {"x_train": data.train_images[..., 0], "y_train": data.train_labels}
    np.savez(file, **arrays, x_test=data.test_images[..., 0], y_test=data.test_labels)
    few = ("--epochs", 1, "--depth", 4, "--width", 4, "--dataset", file)
    run_here(("--preset", "signal", *few, "--rotate", 0.1, "--out", tmp_path / "a"), None).one_line(
        2, "rotate, shear and zoom are for images, which have two axes of space; these data have 1"
    )
    run_here(("--preset", "lenet", "--dataset", file, "--out", tmp_path / "a"), None).one_line(
        2, "LeNet", "signals of 32"
    )
    alone = ("--standardize", "sample", "--noise", 0.1)
    out = run_here(("--preset", "signal", *few, *alone, "--out", tmp_path / "run"), None).success()
    network = load(tmp_path / "run")
    larger = network(7 * data.test_images + 1e4)
    np.testing.assert_allclose(larger, network(data.test_images), atol=2e-2 * np.abs(larger).max())
    assert np.mean(larger.argmax(1) == data.test_labels) == network.figures["test_accuracy"]
    tested = next(line for line in out.splitlines() if line.startswith("test: accuracy"))
    assert tested in run_here(("--evaluate", tmp_path / "run"), None).success()
    assert "report.html" in {path.name for path in (tmp_path / "run").iterdir()}
    found = explore_here(None, tmp_path / "run" / "best.h5", "--out", tmp_path / "page")
    assert found.status == 1 and "takes images of 32x1; only those of RGB" in found.err


def test_the_preset_follows_the_data_and_settles_what_they_leave_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, few = waves(80, (32,)), ("--epochs", 1, "--depth", 4, "--width", 4, "--strided-layers", 2, 3, "--no-test")
    arrays = {"y_train": data.train_labels, "y_test": data.test_labels}
    for name, channels in (("plain", 1), ("open", 6)):
        x = [np.repeat(part, channels, 2).squeeze() for part in (data.train_images, data.test_images)]
        np.savez(tmp_path / f"{name}.npz", x_train=x[0], x_test=x[1], **arrays)
    monkeypatch.chdir(tmp_path)
    Path("door_waves.py").write_text("import numpy as np\ndef data():\n    return dict(np.load('plain.npz'))\n")
    Path("settings.toml").write_text('dataset = "door_waves:data"\n')
    for k, (flags, asked) in enumerate([(("--dataset", "plain.npz"), 1), (("--config", "settings.toml"), 2)]):
        out = run_here((*few, *flags, "--out", f"run{k}"), None).success()
        said = f"{flags[1] if asked == 1 else 'door_waves:data'}: --preset signal is taken, the one for signals"
        assert said in out
        assert out.count("calling the function data of the module door_waves") == asked - 1
        assert load(f"run{k}").checkpoint.config.preset == "signal"
        assert "a tenth of the 60 training signals" in out and "signals/s" in out and "images" not in out
    out = run_here(("describe", "--dataset", "plain.npz"), None).success()
    assert "--preset signal is taken" in out
    run_here((*few, "--dataset", "open.npz"), None).one_line(1, "signals of 6 channels (1) or images of one (2)")
    out = run_here((*few, "--preset", "signal", "--dataset", "open.npz", "--out", "signals"), None).success()
    assert "open.npz: x_train, float32 of shape (60, 32, 6), is read as signals of 6 channels, since the network" in out
    assert "is read as signals of 6" in run_here(("evaluate", "signals"), None).success()
    assert "report.html" in run_here(("report", "signals"), None).success()
    run_here((*few, "--preset", "volume", "--dataset", "plain.npz"), None).one_line(
        2, "preset is 'volume', for volumes; these data are signals: take 'signal'"
    )
    small = {"epochs": 1, "depth": 4, "width": 4, "strided_layers": (2, 3), "test": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "signal", {**PRESETS["signal"], **small})
        patch.setattr("train.runs.session.with_steps", lambda config, *_: config)
        for k, dataset in enumerate((data, "plain.npz")):
            assert fit(dataset=dataset, out=f"fit{k}").checkpoint.config.preset == "signal"


@pytest.mark.parametrize(
    ("preset", "count", "expected"),  # batch size, epochs
    [
        *(("hcnn-fast", count, made) for count, made in [(60, (8, 100)), (126, (13, 100)), (600, (60, 100))]),
        *(("hcnn-fast", count, made) for count, made in [(4000, (100, 50)), (50000, (100, 50)), (5, (8, 100))]),
        *(("volume", count, made) for count, made in [(60, (8, 100)), (129, (13, 100)), (4000, (20, 20))]),
        *(("signal", count, made) for count, made in [(60, (8, 100)), (91, (11, 100)), (200, (10, 100))]),
        *(("hcnn", count, made) for count, made in [(73, (10, 240)), (1001, (48, 240))]),
    ],
)
def test_few_samples_take_a_thousand_steps_in_even_batches(preset: str, count: int, expected: tuple[int, int]) -> None:
    config = with_steps(make_config(preset), count)
    assert (config.batch_size, config.epochs) == expected
    assert count % config.batch_size != 1


def test_steps_follow_from_the_number_of_samples_where_nobody_gives_them(tmp_path: Path) -> None:
    data, few = waves(80, (8, 8)), ("--depth", 4, "--width", 4, "--strided-layers", 3, "--no-test", "--hours", 1e-9)
    arrays = {"x_train": data.train_images, "x_test": data.test_images}
    np.savez(tmp_path / "a.npz", **arrays, y_train=data.train_labels, y_test=data.test_labels)
    given = (*few, "--dataset", tmp_path / "a.npz", "--out")
    for flags, made in (((), (8, 100)), (("--preset", "hcnn-best"), (8, 120)), (("--epochs", 3), (100, 3))):
        run = tmp_path / f"run{len(flags)}{made[1]}"
        out = run_here((*given, run, *flags), None).success()
        settings = read_toml(run / "config.toml")
        assert (settings["batch_size"], settings["epochs"]) == made
        assert settings["preset"] == (flags[1] if flags[:1] == ("--preset",) else "hcnn-fast")
        assert ("at least 1,000 steps, batches alike; --epochs or --batch-size changes it" in out) == (made[0] == 8)
        steps = -(-54 // made[0])
        assert f"{made[1]} epochs of {steps} steps, {made[1] * steps:,} in all" in out


def test_signals_in_files_are_classified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = " ".join(run_here(("predict", "--help"), None).success().split())
    assert "of signals .npy, .npz, .csv, .wav; for a network of images .npy, .npz; for" in said
    data = waves(80, (32,))
    small = {"epochs": 1, "depth": 4, "width": 4, "strided_layers": (2, 3), "test": False}
    network, x = fit(make_config("signal", small), data, out="run"), data.test_images[..., 0]
    Path("many").mkdir()
    np.save("many/a.npy", x[:3])
    np.savez("many/b.npz", x_train=x[:9], x_test=x[3:5])
    np.savetxt("many/c.csv", x[5][:, None], delimiter=",", header="volt", comments="")
    np.savetxt("many/d.csv", x[6:8], delimiter=",")
    scipy.io.wavfile.write("many/e.wav", 1000, x[8])
    scipy.io.wavfile.write("many/f.wav", 1000, np.rint(x[9]).astype(np.int16))  # raw, as these floats are
    capsys.readouterr()  # what `fit` prints
    assert predict.main(["run", "many"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    names = [
        "a.npy[0]",
        "a.npy[1]",
        "a.npy[2]",
        "b.npz[0]",
        "b.npz[1]",
        "c.csv",
        "d.csv[0]",
        "d.csv[1]",
        "e.wav",
        "f.wav",
    ]
    assert [row["path"] for row in rows] == [f"many/{name}" for name in names]
    given = np.concatenate([x[:9], np.rint(x[9:10])])
    assert [row["class"] for row in rows] == network.predict(given)
    expected = np.asarray(network.probabilities(given)).max(1)
    low, high = network.checkpoint.range or (0, 0)
    assert data.train_images.min() <= low < 950 and 1050 < high <= data.train_images.max()
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected, abs=2e-6)
    np.save("short.npy", x[0, 1:])
    np.savez("two.npz", a=x, b=x)
    np.save("nan.npy", np.full(32, np.nan))
    Path("a.png").touch()
    assert predict.main(["run", "short.npy", "two.npz", "nan.npy", "a.png"]) == 1
    out, err = capsys.readouterr()
    reasons = (
        "give (N, 32, 1) or (32, 1)",
        "it holds a, b; one array is",
        "give finite numbers",
        "give arrays, .npy or",
    )
    assert out == "" and [reason in line for reason, line in zip(reasons, err.splitlines(), strict=True)] == [True] * 4


NAN = float("nan")


@pytest.mark.parametrize(
    ("text", "rows", "said"),
    [
        ("nan,1\n2,3\n", [[NAN, 1], [2, 3]], ""),
        ("inf,-Infinity\n1,2\n", [[np.inf, -np.inf], [1, 2]], ""),
        ("E0,E1\n1e3,2E4\n", [[1e3, 2e4]], ""),
        ("0,1\n2.5,3\n", [[2.5, 3]], "its first line, 0 to 1, is taken for a head"),
        ("0\n1\n2\n", [[0], [1], [2]], ""),
        ("time,0\n1,2\n", [[1, 2]], "is taken for a head, since 'time' is no number"),
        ('"a","b"\n"1","2"\n', [[1, 2]], ""),
        ("\ufeff1,2\n3,4\n", [[1, 2], [3, 4]], ""),
        ("\u6642;b\n1,5;2\n-0,25;3\n", [[1.5, 2], [-0.25, 3]], ""),
        ("1,5;2\n-0,25;3\n", [[1.5, 2], [-0.25, 3]], ""),
        ("1\t2\r\n3\t4\r\n", [[1, 2], [3, 4]], ""),
        ("# volt\n1,2\n\n3,4\n", [[1, 2], [3, 4]], ""),
        ("1,2\n3\n", None, "line 2 has 1 cells, others before it 2"),
        ("1;2\n3;4;5\n", None, "line 2 has 3 cells"),
        ("a,b\n1,x\n", None, "could not convert to a number: 'x' in the row 1, x"),
        ("a,b\n1_0,2\n", None, "could not convert to a number: '1_0'"),
        ("1,5\t2\n2,5\t3\n", None, "could not convert to a number: '2,5'"),
        ("1 2\n3 4\n", None, "could not convert to a number: '3 4'"),
        ("a,b\n", None, "it holds a head and no numbers"),
        ("", None, "it holds no row"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_tables_of_signals(tmp_path: Path, text: str, rows: Any, said: str, encoding: str) -> None:
    """Heads, delimiters, decimal commas, quotes and marks: no row vanishes and none moves."""
    path = tmp_path / "s.csv"
    path.write_bytes(text.encode(encoding))
    if rows is None:
        with pytest.raises(ValueError, match=said):
            READERS[".csv"].samples(path)
    else:
        array, notes = READERS[".csv"].samples(path)
        np.testing.assert_array_equal(array, np.array(rows, float))
        assert said in "".join(notes) and bool(notes) == bool(said)


TONE = np.array([-0.75, -0.5, 0.0, 0.25])
SOUNDS = {
    "uint8": (TONE * 128 + 128).astype(np.uint8),
    "int16": (TONE * 2**15).astype(np.int16),
    "int32": (TONE * 2**31).astype(np.int32),  # WAV of 24 bits is read so too
    "float32": TONE.astype(np.float32),
}


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize(
    ("values", "trained", "expected"),
    [
        ("float32", (-0.9, 0.8), TONE),
        ("int16", (-300.0, 300.0), SOUNDS["int16"]),
        ("float32", (-20000.0, 21000.0), SOUNDS["int16"]),  # integers that became floats
        ("float64", (-(2.0**30), 2.0**30), SOUNDS["int32"]),
        ("float32", (-(2.0**22), 2.0**22), TONE * 2**23),
        ("uint8", (0.0, 255.0), SOUNDS["uint8"]),
        ("float32", (4.0, 250.0), SOUNDS["uint8"]),
        ("float32", (-4.0, 4.0), None),  # of neither unit
    ],
)
def test_sounds_are_brought_to_the_unit_of_training(
    sound: str, values: str, trained: tuple[float, float], expected: Any
) -> None:
    given = SOUNDS[sound]
    if expected is None and sound != "float32":
        with pytest.raises(ValueError, match=f"it holds {sound} .* nothing says the unit"):
            in_units(given, SOUND, values, trained)
        return
    found, note = in_units(given, SOUND, values, trained)
    np.testing.assert_allclose(found, given if expected is None else expected)
    same = expected is not None and np.array_equal(given, expected)
    assert bool(note) != same and (same or f"from {trained[0]:.6g} to" in note)
    rounded, _ = in_units(np.array([0.005, -0.002]), SOUND, "uint8", (0.0, 255.0))
    assert rounded.tolist() == [129, 128]


def test_a_run_without_a_range_goes_by_its_deviations() -> None:
    cases = (0.01, 0.3, (-1, 1)), (0, [0.1, 3000], (-6000, 6000)), (128, 30, (68, 188)), (0, 1, (-2, 2))
    for mean, std, expected in cases:
        known: Any = SimpleNamespace(range=None, channel_mean=np.array([mean]), channel_std=np.ravel(std))
        assert Checkpoint.likely_range.fget(known) == expected  # type: ignore[attr-defined]
    known.range = (3.0, 4.0)
    assert Checkpoint.likely_range.fget(known) == (3, 4)  # type: ignore[attr-defined]
