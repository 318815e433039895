"""Settings: presets, TOML there and back, and every value that must be refused with one line."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.config import PRESETS, Config, ConfigError, field_type, make_config, read_toml, to_toml

ROOT = Path(__file__).resolve().parents[2]
FIELDS = dataclasses.fields(Config)


def refused(preset: Any = "hcnn", changes: dict[str, Any] | None = None) -> str:
    """The one line with which the settings are refused."""
    with pytest.raises(ConfigError) as caught:
        make_config(preset, changes)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_preset_hcnn_is_the_recipe_of_the_paper() -> None:
    config = make_config()
    assert (config.depth, config.width, config.factors, config.space_kernel) == (12, 16, 32, 3)
    assert (config.attribute_kernel, config.attribute_stride, config.strided_layers) == ((7, 11), 2, (5, 9))
    assert (config.epochs, config.batch_size, config.schedule, config.learning_rate) == (240, 50, "step", 0.25)
    assert (config.step_epochs, config.step_factor, config.momentum, config.weight_decay) == (40, 10, 0.9, 2e-4)
    assert (config.shift, config.flip, config.nesterov, config.label_smoothing) == (6, True, False, 0)
    assert (config.nonlinear_factors, make_config("hcnn-plus").nonlinear_factors) == (False, True)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_changes_what_it_says_and_nothing_else(preset: str) -> None:
    paper = vars(make_config())
    assert {k: v for k, v in vars(make_config(preset)).items() if v != paper[k] and k != "preset"} == PRESETS[preset]
    assert make_config(preset).preset == preset


def test_a_run_older_than_a_setting_has_its_default(tmp_path: Path) -> None:
    """A preset may have got new settings since; what trained the run had none."""
    path, record = tmp_path / "config.toml", ROOT / "benchmarks" / "results" / "hcnn-fast-19-epochs" / "config.toml"
    settings = read_toml(record)
    assert settings["preset"] == "hcnn-fast" and PRESETS["hcnn-fast"]["normalization"] == "both"
    config = make_config(settings.pop("preset"), settings)
    assert (config.normalization, config.image_sizes, config.epochs) == ("factors", (), 19)
    path.write_text('preset = "hcnn-fast"\nepochs = 3\n', "utf-8")  # a user's file is no record
    settings = read_toml(path)
    assert make_config(settings.pop("preset"), settings) == make_config("hcnn-fast", {"epochs": 3})


def test_numbers_may_be_numpys() -> None:
    """As those of a grid that NumPy made."""
    config = make_config("sample", {"epochs": np.int64(3), "learning_rate": np.float32(0.5)})
    assert config == make_config("sample", {"epochs": 3, "learning_rate": 0.5})
    with pytest.raises(ConfigError, match=r"epochs is 3\.0; its type is int"):
        make_config("sample", {"epochs": np.float64(3)})


def test_cifar100_has_its_own_support_unless_another_is_given() -> None:
    assert make_config("hcnn", {"dataset": "cifar100"}).attribute_kernel == (11, 11)
    assert make_config("hcnn-plus", {"dataset": "cifar100", "attribute_kernel": [7, 11]}).attribute_kernel == (7, 11)


@pytest.mark.parametrize("f", FIELDS, ids=lambda f: f.name)
def test_every_setting_is_explained_and_its_default_allowed(f: dataclasses.Field[Any]) -> None:
    help = f.metadata["help"]
    assert len(help) > 3 and "\n" not in help
    changes = {f.name: f.default} if f.name != "preset" else {}
    assert make_config("hcnn", {"made_for": make_config().made_for, **changes}) == make_config()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "sample"])
def test_toml_there_and_back(preset: str, dataset: str, tmp_path: Path) -> None:
    changes = {"dataset": dataset, "image_sizes": [32], "learning_rate": 1e-5, "flip": False}
    config = make_config(
        preset, changes | ({"strided_layers": []} if make_config(preset).architecture == "hcnn" else {})
    )
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config, {"numpy": "2.4.0", "cupy-cuda13x": "14"}), encoding="utf-8")
    settings = read_toml(path)
    assert make_config(settings.pop("preset"), settings) == config
    assert tomllib.loads(path.read_text("utf-8"))["versions"] == {"numpy": "2.4.0", "cupy-cuda13x": "14"}


@given(data_dir=st.text(), learning_rate=st.floats(0, 1e300), seed=st.integers(0, 2**200))
def test_any_text_and_number_survives_toml(
    tmp_path_factory: pytest.TempPathFactory, data_dir: str, learning_rate: float, seed: int
) -> None:
    config = make_config("hcnn", {"data_dir": data_dir, "learning_rate": learning_rate, "seed": seed})
    settings = tomllib.loads(to_toml(config, {"note": data_dir}))
    assert settings.pop("versions") == {"note": data_dir}
    assert make_config(settings.pop("preset"), settings) == config


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"widht": 8}, ["'widht'", "did you mean width?"]),
        ({"learning-rate": 0.1}, ["'learning-rate'", "did you mean learning_rate?"]),
        ({"width": 8.0}, ["width", "8.0", "int"]),
        ({"width": "8"}, ["width", "'8'", "int"]),
        ({"width": True}, ["width", "True", "int"]),
        ({"width": [8]}, ["width", "int"]),
        ({"flip": 1}, ["flip", "1", "bool"]),
        ({"learning_rate": False}, ["learning_rate", "False", "float"]),
        ({"learning_rate": float("nan")}, ["learning_rate", "nan", "finite"]),
        ({"learning_rate": float("inf")}, ["learning_rate", "inf", "finite"]),
        ({"learning_rate": 10**400}, ["learning_rate", "finite"]),
        ({"dataset": "mnist"}, ["dataset", "'mnist'", "cifar10, cifar100, sample"]),
        ({"dataset": ["cifar100"]}, ["dataset", "str"]),
        ({"data_dir": 3}, ["data_dir", "3", "str"]),
        ({"attribute_kernel": [7]}, ["attribute_kernel", "(7,)", "2"]),
        ({"attribute_kernel": 7}, ["attribute_kernel", "7", "2"]),
        ({"attribute_kernel": [7, 0]}, ["attribute_kernel", "0", "at least 1"]),
        ({"attribute_kernel": [7, "x"]}, ["attribute_kernel", "'x'", "int"]),
        ({"strided_layers": [0]}, ["strided_layers", "0", "at least 1"]),
        ({"strided_layers": 5}, ["strided_layers", "5", "any number"]),
        ({"moment_decay": 1.0}, ["moment_decay", "1", "less than 1"]),
        ({"precision": "tf32", "dtype": "float64"}, ["precision", "'tf32'", "dtype 'float32'"]),
        ({"dtype": "float16"}, ["dtype", "'float16'", "float32, float64"]),
        ({"boundary": "wrap"}, ["boundary", "'wrap'", "zero, periodic, attributes"]),
        *(({name: 10**400}, [name, "9007199254740992"]) for name in ("width", "batch_size", "train_size")),
        ({"strided_layers": [3, 10**400]}, ["strided_layers", "9007199254740992"]),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_bad_value_is_named_with_what_would_do(changes: dict[str, Any], fragments: list[str]) -> None:
    message = refused(changes=changes)
    assert [fragment for fragment in fragments if fragment not in message] == []


@pytest.mark.parametrize("preset", ["HCNN", "", 3, ["hcnn"], None, {}])
def test_bad_preset(preset: Any) -> None:
    message = refused(preset)
    assert repr(preset) in message and ", ".join(PRESETS) in message


def bounds() -> list[tuple[str, Any]]:
    """Values one step beyond the ends of each setting's range."""
    found = []
    for f in FIELDS:
        kind, count = field_type(f)
        for end, sign in (("low", -1), ("high", 1)):
            if (limit := f.metadata[end]) is not None:
                value = kind(limit) + sign * (1 if kind is int else 1e-9)
                found.append((f.name, [value] * count if count else [value] if count == 0 else value))
    return found


@pytest.mark.parametrize(("name", "value"), bounds(), ids=lambda v: str(v))
def test_a_value_just_out_of_range(name: str, value: Any) -> None:
    message = refused(changes={name: value})
    assert name in message and ("it must be at least" in message or "it must be between" in message)


def test_ends_of_the_ranges_are_allowed() -> None:
    for f in FIELDS:
        kind, count = field_type(f)
        for end in ("low", "high"):
            limit = f.metadata[end]
            if limit is None or (f.name, end) == ("moment_decay", "high"):
                continue
            value = [kind(limit)] * (count or 1) if count is not None else kind(limit)
            needed = {
                "teacher_share": {"teacher": "hcnn-best"},
                "temperature": {"teacher": "hcnn-best"},
                "attention_transfer": {"teacher": "hcnn-best"},
                "warmup": {"schedule": "one-cycle"},
                "square_decay": {"optimizer": "adamw"},
                "size": {"dataset": "pictures/"},
                "dropout": {"architecture": "nin"},
            }
            make_config("hcnn", {f.name: value, **needed.get(f.name, {})})


def test_a_folder_may_have_a_tab_in_its_name(tmp_path: Path) -> None:
    """What is refused is an escape that nobody meant, in the name of a folder that there is not."""
    (folder := tmp_path / "a\tb").mkdir()
    path = tmp_path / "own.toml"
    path.write_text(f'data_dir = "{tmp_path}/a\\tb"\n')
    assert read_toml(path) == {"data_dir": str(folder)}
    folder.rmdir()
    with pytest.raises(ConfigError, match="control character"):
        read_toml(path)


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"width = ", ["not valid TOML"]),
        (b"width = 3\nwidth = 4\n", ["not valid TOML", "line 2"]),
        (b"learning_rate = .5\n", ["not valid TOML"]),
        (b"a = " + b"[" * 100_000, ["not valid TOML"]),
        (b"seed = " + b"9" * 10_000, ["not valid TOML"]),
        (b"\xff\xfe\x00", ["not UTF-8"]),
        (b"data_dir = '\xe9'", ["not UTF-8"]),
        (rb'data_dir = "C:\data"', ["not valid TOML: Unescaped", r"in single quotes, as 'C:\tmp'"]),
        (rb'data_dir = "C:\users"', ["not valid TOML: Invalid hex", r"in single quotes, as 'C:\tmp'"]),
        (rb'data_dir = "C:\tmp"', [r"data_dir is 'C:\tmp', with a control character", "in single quotes"]),
    ],
    ids=["no value", "twice", "no digit", "too deep", "too long", "binary", "latin-1", "escape", "hex", "tab"],
)
def test_toml_that_cannot_be_read(tmp_path: Path, content: bytes, fragments: list[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    message = str(caught.value)
    assert "\n" not in message
    assert [fragment for fragment in [str(path), *fragments] if fragment not in message] == []
    assert ("single quotes" in message) == (b"\\" in content)


def test_toml_that_is_not_there_or_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        read_toml(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="directory"):
        read_toml(tmp_path)


def test_toml_of_a_run_says_versions_which_are_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("width = 4\n[versions]\nnumpy = '1'\n")
    assert make_config(changes=read_toml(path)) == Config(width=4, made_for=0)  # pixels of its own images
    assert "versions" not in read_toml(path)
    path.write_text("[training]\nwidth = 4\n")
    assert "'training'" in refused(changes=read_toml(path))
