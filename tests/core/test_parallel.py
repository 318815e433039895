"""Work shared among threads: complete, repeatable, and the same whatever their number."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from hcnn_core import _threads as _parallel
from hcnn_core import convolve, convolve_vjp_w, convolve_vjp_x, elu, elu_vjp, marginal, patch_moments, patch_moments_vjp
from hcnn_core._threads import asked_for, parallel_for, worker_count
from hcnn_core._tuning import tuned
from hcnn_core.activations import total
from tests.core.oracle import BOUNDARIES, C, NDArray, Problem, eps, noise, norm, threads, wide


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 100, 1005])
def test_every_index_is_worked_on_once(workers: int, count: int) -> None:
    done: list[tuple[int, int]] = []
    with threads(workers):
        parallel_for(lambda begin, end: done.append((begin, end)), count)
    assert [i for part in sorted(done) for i in range(*part)] == list(range(count))
    assert len(done) == min(workers, count)
    assert count < 1000 or not any(begin % _parallel.STEP for begin, _ in done)


def test_small_work_stays_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[tuple[int, int]] = []
    with threads(2), tuned(serial_elements=100):
        parallel_for(lambda begin, end: parts.append((begin, end)), 6, elements=100)
        assert parts == [(0, 6)]
        parallel_for(lambda begin, end: parts.append((begin, end)), 6, elements=101)
    assert sorted(parts[1:]) == [(0, 3), (3, 6)]


def test_a_part_does_not_share_its_own_work() -> None:
    names: list[tuple[str, str]] = []

    def inner(begin: int, end: int) -> None:
        names.append((outer_name.value, threading.current_thread().name))

    outer_name = threading.local()

    def outer(begin: int, end: int) -> None:
        outer_name.value = threading.current_thread().name
        parallel_for(inner, 4)

    with threads(2):
        parallel_for(outer, 2)
    assert len(names) == 2 and all(a == b for a, b in names)


def test_an_error_waits_for_the_other_parts() -> None:
    finished = threading.Event()
    failed = threading.Event()

    def work(begin: int, end: int) -> None:
        if begin == 0:
            failed.set()
            raise ArithmeticError("the first part fails")
        assert failed.wait(60)
        finished.set()

    with threads(2), pytest.raises(ArithmeticError, match="the first part fails"):
        parallel_for(work, 2)
    assert finished.is_set()


def test_the_first_error_of_others_is_raised_and_keeps_nothing() -> None:
    """Arrays that a failed call worked on are free as soon as its error is."""
    array = np.zeros(1)
    freed = weakref.ref(array)

    def work(begin: int, end: int, held: NDArray, fails: int) -> None:
        if begin >= fails:
            raise ArithmeticError(f"part {begin}")

    gc.disable()
    try:
        with threads(4):
            for fails in (0, 1, 3):
                try:
                    parallel_for(partial(work, held=array, fails=fails), 4)
                except ArithmeticError as error:
                    assert str(error) == f"part {fails}"
                else:
                    raise AssertionError("no error")
        del array
        for _ in range(600):  # another thread may not have come to its next task
            if freed() is None:
                break
            time.sleep(0.05)
        assert freed() is None
    finally:
        gc.enable()


def test_while_the_interpreter_ends_the_caller_does_all_the_work() -> None:
    """Other threads have ended by then, and would be waited for forever."""
    script = """
from hcnn_core._threads import parallel_for

class Last:
    def __del__(self, share=parallel_for, write=print):
        share(lambda begin, end: write(begin, end), 4)

last = Last()
parallel_for(lambda begin, end: None, 4)
"""
    environment = os.environ | {"HCNN_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "0 4\n" and not done.stderr


def test_callers_at_once_each_have_their_own_parts() -> None:
    found: dict[int, list[int]] = {caller: [] for caller in range(8)}

    def call(caller: int) -> None:
        for _ in range(20):
            parallel_for(lambda begin, end: found[caller].extend(range(begin, end)), 5)

    with threads(3):
        callers = [threading.Thread(target=call, args=(caller,)) for caller in found]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(60)
    assert all(sorted(indices) == sorted([*range(5)] * 20) for indices in found.values())


@pytest.mark.parametrize("allowed", [0, 1])
def test_where_the_system_allows_too_few_threads_the_others_do_the_work(
    monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    parts: list[tuple[int, int]] = []
    start, started = threading.Thread.start, list[threading.Thread]()

    def refuse(thread: threading.Thread) -> None:
        if len(started) == allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    _parallel._crew.cache_clear()
    with threads(4):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            parallel_for(lambda begin, end: parts.append((begin, end)), 8)
        assert sorted(parts) == [(0, 2), (2, 4), (4, 6), (6, 8)] and len(started) == allowed
        parallel_for(lambda begin, end: parts.append((begin, end)), 8)
        assert _parallel._crew().size == 3
    assert sorted(parts) == [(n, n + 2) for n in (0, 0, 2, 2, 4, 4, 6, 6)]


def test_threads_keep_the_callers_error_state() -> None:
    states: list[str] = []
    with threads(2), np.errstate(invalid="ignore"):
        parallel_for(lambda begin, end: states.append(np.geterr()["invalid"]), 2)
    assert states == ["ignore", "ignore"] and np.geterr()["invalid"] == "warn"


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", ""])
def test_wrong_numbers_of_threads_are_refused(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with threads(1):
        monkeypatch.setenv("HCNN_NUM_THREADS", asked)
        with pytest.raises(
            ValueError, match=f"HCNN_NUM_THREADS is '{asked}'; set it to a number of threads, 1 or more"
        ):
            worker_count()


def forget() -> None:
    for cached in (worker_count, asked_for):
        cached.cache_clear()


def test_all_processors_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with threads(3):
        assert worker_count() == 3
        monkeypatch.delenv("HCNN_NUM_THREADS")
        monkeypatch.setattr(_parallel, "processors", lambda: 5)
        for given, count in (("2", 2), ("", 5), ("0", 5), ("many", 5)):
            monkeypatch.setenv("OMP_NUM_THREADS", given)
            forget()
            assert worker_count() == count


def test_what_has_threads_of_its_own_is_shared_only_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[tuple[int, int]] = []
    with threads(2):
        parallel_for(lambda begin, end: parts.append((begin, end)), 4, threaded=True)
        assert sorted(parts) == [(0, 2), (2, 4)]
        parts.clear()
        monkeypatch.delenv("HCNN_NUM_THREADS")
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        forget()
        parallel_for(lambda begin, end: parts.append((begin, end)), 4, threaded=True)
        assert parts == [(0, 4)]
        parts.clear()
        parallel_for(lambda begin, end: parts.append((begin, end)), 4)
        assert sorted(parts) == [(0, 2), (2, 4)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_of_a_process_with_threads_has_its_own() -> None:
    with threads(2):
        for _ in range(3):
            parallel_for(lambda begin, end: time.sleep(0.01), 2)
        time.sleep(0.1)  # they are idle now, which a child would rely on
        with warnings.catch_warnings(action="ignore"):  # Python's, of just this
            child = os.fork()
        if not child:
            done: list[int] = []
            parallel_for(lambda begin, end: done.append(begin), 2)
            os._exit(len(done))
        for _ in range(600):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            time.sleep(0.05)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert found and os.waitstatus_to_exitcode(status) == 2


def results() -> Iterator[tuple[NDArray, float]]:
    """Results of every function that shares work, and the product of their operands' norms."""
    for method in ("direct", ("direct", "fft"), "fft"):
        for stride, boundary in ((1, "zero"), (2, "periodic")):
            x, w = noise(0, (40, 20, 16), "float32"), noise(1, (3, 5, 4), "float32")
            problem = Problem(x, w, (1, 2), {"boundary": boundary, "stride": stride, "method": method})
            y = problem.run(convolve, x, w)
            yield y, norm(x) * norm(w)
            yield problem.run(convolve_vjp_x, y, x, w), norm(y) * norm(w)
            yield problem.run(convolve_vjp_w, y, x, w), norm(y) * norm(x)
    for boundary in BOUNDARIES:
        mean, covariance = patch_moments(x, (1, 2), (3, 3), boundary=boundary)
        yield mean, 1.0
        yield covariance, 1.0
        g = patch_moments_vjp(mean, covariance, x, (1, 2), (3, 3), boundary=boundary)
        yield g, norm(mean) + norm(covariance) * norm(x)
    many = noise(2, (5, 300, 200), "float32")
    y = elu(many, bias=many[0])
    yield y, 4.0
    yield elu_vjp(many, y), 4.0
    yield total(many, many[::-1]), 4.0
    yield marginal(many, 0), 20.0


def test_the_number_of_threads_does_not_matter() -> None:
    with threads(1):
        alone = list(results())
    with threads(2):
        pairs, again = list(results()), list(results())
    for (one, scale), (two, _), (twice, _) in zip(alone, pairs, again, strict=True):
        assert np.array_equal(two, twice)  # bit for bit, whichever thread was first
        assert one.dtype == two.dtype and one.shape == two.shape
        assert np.abs(wide(one) - wide(two)).max() <= C * eps(one.dtype) * scale


@pytest.mark.parametrize(
    ("taken", "here", "asked"),
    [
        ({3}, 2, []),
        ({2}, 2, [{1, 3}, {1, 2, 3}]),
        ({1, 2}, 2, [{3}, {1, 2, 3}]),
        ({1, 2, 3}, 2, []),
    ],
)
def test_a_thread_leaves_a_processor_that_another_part_has(
    monkeypatch: pytest.MonkeyPatch, taken: set[int], here: int, asked: list[set[int]]
) -> None:
    """And may be anywhere afterwards that it might be before."""
    calls: list[tuple[int, set[int]]] = []
    at = [here]

    def move(thread: int, allowed: set[int]) -> None:
        calls.append((thread, allowed))
        at[0] = at[0] if at[0] in allowed else min(allowed)

    monkeypatch.setattr(_parallel, "_processor", lambda: at[0])
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: {1, 2, 3})
    monkeypatch.setattr(os, "sched_setaffinity", move)
    before = set(taken)
    _parallel.keep_apart(taken)
    assert calls == [(0, allowed) for allowed in asked]
    assert taken == before | {at[0]} and (not asked or at[0] not in before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be moved here")
def test_threads_may_run_where_the_process_may() -> None:
    """Whoever was moved, and where there is no processor to move to."""
    allowed, found = os.sched_getaffinity(0), {}

    def work(begin: int, end: int) -> None:
        found[begin] = os.sched_getaffinity(0)

    with threads(len(allowed) + 2):
        for _ in range(50):
            parallel_for(work, len(allowed) + 2)
    assert len(found) == len(allowed) + 2 and set(map(frozenset, found.values())) == {frozenset(allowed)}
