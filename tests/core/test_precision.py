"""Which products a GPU may use: chosen for a block of code, in the thread that runs it."""

from __future__ import annotations

import threading

import pytest

from hcnn_core import precision
from hcnn_core.precisions import passes


def test_a_precision_holds_inside_its_block() -> None:
    assert passes("float32") == 0
    with precision("tf32"):
        assert passes("float32") == 1
        with precision("tf32x3"):
            assert passes("float32") == 3
            assert passes("float64") == 0
        assert passes("float32") == 1
    assert passes("float32") == 0


def test_an_error_ends_it_too() -> None:
    with pytest.raises(KeyError), precision("tf32"):
        raise KeyError
    assert passes("float32") == 0


def test_other_threads_are_not_affected() -> None:
    seen: list[int] = []
    with precision("tf32"):
        thread = threading.Thread(target=lambda: seen.append(passes("float32")))
        thread.start()
        thread.join()
    assert seen == [0]


def test_another_name_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="precision is 'half'; choose 'float32' or 'tf32x3' or 'tf32'"),
        precision("half"),
    ):
        pass
