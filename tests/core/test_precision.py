"""Which products a GPU may use: chosen for a block of code, in the thread that runs it."""

from __future__ import annotations

import threading

import pytest

from hcnn_core import precision
from hcnn_core.precisions import uses_tf32


def test_a_precision_holds_inside_its_block() -> None:
    assert not uses_tf32("float32")
    with precision("tf32"):
        assert uses_tf32("float32")
        with precision("float32"):
            assert not uses_tf32("float32")
        assert uses_tf32("float32") and not uses_tf32("float64")
    assert not uses_tf32("float32")


def test_an_error_ends_it_too() -> None:
    with pytest.raises(KeyError), precision("tf32"):
        raise KeyError
    assert not uses_tf32("float32")


def test_other_threads_are_not_affected() -> None:
    seen: list[bool] = []
    with precision("tf32"):
        thread = threading.Thread(target=lambda: seen.append(uses_tf32("float32")))
        thread.start()
        thread.join()
    assert seen == [False]
