"""Memory of compiled kernels' arrays: where it begins, and what is kept of it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core import convolve
from hcnn_core._engines.cpu import allocator as _memory
from hcnn_core._engines.cpu.allocator import CACHE_LINE, Store, empty, zeros
from hcnn_core._tuning import DEFAULT

MIB = 1 << 20
LARGE = DEFAULT.kept_bytes
BYTE = np.dtype(np.uint8)


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """One of its own, with nothing in it."""
    found = Store(64 * MIB)
    monkeypatch.setattr(_memory, "_store", lambda: found)
    yield found


@pytest.mark.parametrize("make", [empty, zeros])
@pytest.mark.parametrize("size", [0, 1, 1023, 1 << 12, 5000, LARGE - 4, LARGE, LARGE + 4, 3 * MIB])
def test_arrays_begin_at_a_line(make: Any, size: int, store: Store) -> None:
    for _ in range(2):
        array = make((size // 4,), np.float32)
        assert array.shape == (size // 4,) and array.dtype == np.float32
        assert array.nbytes < 1 << 12 or address(array) % CACHE_LINE == 0
        assert make is empty or not array.any()
        array.fill(1)
        del array  # and what comes next lies there


def test_memory_is_used_again(store: Store) -> None:
    first = empty((512, 512), float)
    where = address(first)
    del first
    assert store.kept >= 2 * MIB
    second = empty((8, 256, 128), np.complex64)
    assert address(second) == where and store.kept == 0
    third = empty((512, 512), float)
    assert not np.may_share_memory(second, third)


def test_views_hold_memory(store: Store) -> None:
    view = empty((512, 512), float)[100:200, ::-1].T[3:]
    view.fill(7)
    assert store.kept == 0
    others = [empty((512, 512), float) for _ in range(3)]
    for other in others:
        other.fill(0)
    assert (view == 7).all()
    del view
    assert store.kept >= 2 * MIB


def test_results_and_what_is_made_on_the_way_come_back(store: Store) -> None:
    x, w = np.ones((300, 300)), np.ones((3, 3))
    for _ in range(3):
        y = convolve(x, w, (0, 1), boundary="zero")
    held, kept = [address(y)], store.kept
    del y
    assert store.kept > kept > 0
    y = convolve(x, w, (0, 1), boundary="zero")
    assert [address(y)] == held  # what came back last goes out first


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(LARGE, 8 * LARGE), st.booleans()), max_size=40))
def test_what_is_lent_never_overlaps_and_no_more_is_kept_than_the_limit(steps: list[tuple[int, int, bool]]) -> None:
    store = Store(12 * LARGE)
    held: dict[int, np.ndarray[Any, Any]] = {}
    for count, (place, size, clear) in enumerate(steps):
        array = store.lend(np.zeros if clear else np.empty, size, (size,), BYTE)
        assert not clear or not array.any()
        held[place] = array  # what was there before goes
        del array
        held[place].fill(count % 255 + 1)
        for i, a in held.items():
            assert (a == a[0]).all() and not any(np.may_share_memory(a, held[j]) for j in held if j != i)
        assert store.kept <= store.limit
        assert store.kept == sum(size * len(memories) for size, memories in store.free.items())
        assert len(store.lent) == len(held)
        del a
    held.clear()
    assert not store.lent and store.kept <= store.limit


def test_the_oldest_goes_first(store: Store) -> None:
    sizes = [n * MIB for n in (20, 24, 28)]
    for size in sizes:
        store.lend(np.empty, size, (size,), BYTE)
    assert [size // MIB for size in store.free] == [24, 28]


def test_threads_share_nothing() -> None:
    store, wrong = Store(20 * LARGE), []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        held: list[tuple[int, np.ndarray[Any, Any]]] = []
        for count in range(400):
            size = LARGE * int(rng.integers(1, 4))
            array = store.lend(np.empty, size, (size // 8,), np.dtype(np.int64))
            mark = seed * 1000 + count
            array.fill(mark)
            held.append((mark, array))
            del array
            if len(held) > 3:
                mark, array = held.pop(int(rng.integers(3)))
                if (array != mark).any():
                    wrong.append(mark)

    crew = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert not wrong
    assert not store.lent and store.kept <= store.limit


def test_who_finds_the_lock_taken_goes_on(store: Store) -> None:
    size = 2 * MIB
    kept = store.lend(np.empty, size, (size,), BYTE)
    other = store.lend(np.empty, size, (size,), BYTE)
    del kept
    before = store.kept
    with store.lock:  # as where an array goes while another is looked for
        array = store.lend(np.empty, size, (size,), BYTE)
        del other
        assert not store.lock.acquire(blocking=False)
    assert store.kept == before and len(store.lent) == 1
    del array
    assert store.kept == 2 * before


def test_what_is_kept_makes_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 8 * MIB
    store.lend(np.empty, size, (size,), BYTE)
    assert store.kept
    make = np.empty

    def scarce(*arguments: Any) -> Any:
        if store.kept:
            raise MemoryError
        return make(*arguments)

    def none(*arguments: Any) -> Any:
        raise MemoryError

    assert store.lend(scarce, 2 * size, (2 * size,), BYTE).nbytes == 2 * size
    with pytest.raises(MemoryError):
        store.lend(none, 3 * size, (3 * size,), BYTE)


COUNT = """
import numpy as np
from hcnn_core import convolve
from hcnn_core._engines.cpu import allocator as _memory
y = convolve(np.ones((1024, 1024)), np.ones((3, 3)), (0, 1), boundary="zero")
del y
print(_memory._store().kept >> 20)
"""


@pytest.mark.parametrize(("given", "kept"), [(None, range(8, 33)), ("9", range(8, 10)), ("3", range(3)), ("0", [0])])
def test_how_much_is_kept(given: str | None, kept: Any) -> None:
    rest = {name: value for name, value in os.environ.items() if name != "HCNN_KEEP_MIB"}
    environment = rest if given is None else rest | {"HCNN_KEEP_MIB": given}
    done = subprocess.run([sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) in kept


@pytest.mark.parametrize("given", ["", "-1", "1.5", "much"])
def test_a_wrong_amount_says_what_would_do(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCNN_KEEP_MIB", given)
    with pytest.raises(
        ValueError, match=f"^HCNN_KEEP_MIB is {given!r}; set it to how many MiB of freed memory to keep"
    ):
        _memory._store.__wrapped__()


def test_rounding_wastes_an_eighth_at_most(store: Store) -> None:
    for size in (LARGE, LARGE + 1, 100_001, 2 * MIB - 1, 2 * MIB + 1, 40_000_001):
        array = store.lend(np.empty, size, (size,), BYTE)
        (lent,) = store.lent.values()
        assert size <= len(lent.memory) - CACHE_LINE <= math.ceil(9 / 8 * size)
        del array
