"""Plans by measurements: whichever choice wins is right, it stays, and what is known of it survives the process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import re
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcnn_core import (
    _problem,
    _tuning,
    convolve,
    convolve_elu,
    convolve_elu_marginal,
    convolve_vjp_x,
    explain,
    files,
    linear_operator,
    planning,
    plans,
    wisdom,
)
from hcnn_core._engines import devices, measuring, planner
from hcnn_core._engines import wisdom as store
from hcnn_core._problem import make_problem
from hcnn_core._threads import threads_for
from hcnn_core._tuning import ChoiceFile, current_planning
from hcnn_core.backend import is_recording, seconds_on_device
from hcnn_core.convolution import convolve_cotangents
from tests.core.oracle import Problem, assert_close, noise, problems

X, W = noise(0, (3, 40, 24), "float32"), noise(1, (5, 3), "float32")
OPTIONS: Any = {"boundary": "zero"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's cache folder of the test's own, and a process that knows nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_everything()
    yield tmp_path / "hcnn"
    forget_everything()


def forget_everything() -> None:
    """Be as a new process."""
    store._known.clear()
    for kept in (planner._plan_of, planner._plan_for):
        kept.cache_clear()


@contextlib.contextmanager
def winner(choose: Callable[[list[str]], str]) -> Iterator[list[list[str]]]:
    """Races are won by whom a function chooses among the names; yields the races that there were."""
    races: list[list[str]] = []

    def race(runs: Any, clock: Any) -> dict[str, float]:
        names = list(runs)
        races.append(names)
        for run in runs.values():
            run()
        return {name: 1.0 + (name != choose(names)) for name in names}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "race", race)
        yield races


def plan() -> Any:
    return planner.make_plan(make_problem(X.shape, W.shape, (1, 2), method="measure", **OPTIONS), X)


def choice_for(x: Any = X) -> str:
    """The engine that a measured call takes."""
    convolve(x, W, (1, 2), method="measure", **OPTIONS)
    (found,) = plan()._plans.values()
    return type(found).__name__


@settings(max_examples=40)
@given(problems(method="measure"), st.data())
def test_all_choices_that_may_win_agree_with_the_definition(problem: Problem, data: Any) -> None:
    y = problem.convolution()
    of_problem = make_problem(problem.x.shape, problem.w.shape, problem.axes, **problem.options)
    found: Any = planner.make_plan(of_problem, problem.x)
    choices = list(found.choices.values()) if isinstance(found, measuring.Measured) else [None]
    choice = data.draw(st.sampled_from(choices))
    made: Any = found if choice is None else choice.make()
    assert_close(made.forward(np, problem.x, problem.w), y, problem.x, problem.w)
    g = noise(2, y.shape, problem.x.dtype.name)
    g_x, g_w, _ = made.adjoints(np, g, problem.x, problem.w)
    assert_close(g_x, problem.transpose_x(g), g, problem.w)
    assert_close(g_w, problem.transpose_w(g), g, problem.x)


class Recorder:
    """A plan that notes its calls: the method, where arrays lie, threads, and whether the result before is held."""

    def __init__(self, choice: Any, calls: list[Any]) -> None:
        self.plan, self.calls = choice.make(), calls
        self.transform = getattr(self.plan, "transform", None)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.plan, name)  # AttributeError where there is none

        def call(xp: Any, *operands: Any) -> Any:
            is_held = bool(self.calls) and self.calls[-1][-1]() is not None
            results = method(xp, *operands)
            made = next(a for a in results if a is not None) if isinstance(results, tuple) else results
            places = [(a.ctypes.data, a.strides) if isinstance(a, np.ndarray) else a for a in (*operands, None)[:4]]
            self.calls.append(((name, *places, threads_for()), is_held, weakref.ref(made)))
            return results

        return call


def laid_out(array: Any, how: str) -> Any:
    """Return equal values that lie in C order, in Fortran's, at each second place, or from the last to the first."""
    if how == "steps":
        return np.repeat(array, 2, -1)[..., ::2]
    return np.ascontiguousarray(array[::-1])[::-1] if how == "backwards" else np.array(array, order=how)


BIAS = noise(2, (3, 1, 1), "float32")
CALLS: dict[str, Callable[..., Any]] = {
    "y": convolve,
    "y+elu": lambda x, w, axes, **options: convolve_elu(x, w, BIAS, axes, **options),
    "y+marginal1+elu": lambda x, w, axes, **options: convolve_elu_marginal(x, w, BIAS, axes, 1, **options),
    "dx": partial(convolve_cotangents, X[::-1], wanted=(True, False)),
    "dw": partial(convolve_cotangents, X[::-1], wanted=(False, True)),
    "dxdw": partial(convolve_cotangents, np.asfortranarray(X)),
    "dxdw+elu": partial(convolve_cotangents, X, ans=X),
}


@settings(max_examples=60)
@given(st.sampled_from(list(CALLS)), *[st.sampled_from(["C", "F", "steps", "backwards"])] * 2)
def test_what_is_measured_is_the_call(asked: str, of_x: Any, of_w: Any) -> None:
    """The same method of arrays at the same place, on as many threads, while the result before is held."""
    forget_everything()
    store.forget()
    x, w = laid_out(X, of_x), laid_out(W, of_w)
    calls: list[Any] = []
    measured: Any = planner.measured

    def recorded(request: Any) -> Any:
        found = measured(request)
        for name, choice in found.choices.items():
            found.choices[name] = SimpleNamespace(make=partial(Recorder, choice, calls))
        return found

    with pytest.MonkeyPatch.context() as patch, winner(lambda names: names[0]) as races:
        patch.setattr(planner, "measured", recorded)
        for _ in range(2):
            CALLS[asked](x, w, (1, 2), method="measure", **OPTIONS)
    ((tried),) = races
    assert len(tried) > 2 and len(calls) == len(tried) + 2
    assert all(call == calls[-1][0] for call, *_ in calls)
    assert all(is_held for _, is_held, _ in calls[1 : len(tried)])
    (line,) = wisdom().splitlines()[2:]
    assert line.startswith(f"{asked} float32 ")


def test_arrays_that_lie_otherwise_are_measured_apart() -> None:
    layouts = [laid_out(X, how) for how in ("C", "F", "steps")]
    orders = "", "[2, 1, 0]", "[0, 1, 2]"
    with winner(lambda names: names[-1]) as races:
        for count, (x, order) in enumerate(zip(layouts, orders, strict=True), 1):
            for again in (x, x.copy(order="K")) if count < 3 else (x,):
                convolve(again, W, (1, 2), method="measure", **OPTIONS)
                assert len(races) == count
            measured = f"with axes {order} {[*range(W.ndim)]}, (3, 40" if count > 1 else "float32 (3, 40"
            assert measured in store.sentences(plans.ASKED)
            assert "Fastest, result" in explain(x, W, (1, 2), method="measure", **OPTIONS)
        assert "Fastest" not in explain(X, np.asfortranarray(W), (1, 2), method="measure", **OPTIONS)
        for wider in (1, 2, 3):  # crops of images of several widths lie alike
            convolve(np.pad(X, [(0, 0), (0, 0), (0, wider)])[..., :-wider], W, (1, 2), method="measure", **OPTIONS)
        assert len(races) == 3


def test_the_fastest_wins_by_a_clock() -> None:
    """In calls of a fake clock, one of them with an outlier that must not throw the winner out."""
    seconds = {"close": 1.12e-3, "slow": 5e-3, "fast": 1e-3}
    calls = dict.fromkeys(seconds, 0)

    def clock(run: Callable[[], Any], repeats: int) -> float:
        name = run()
        calls[name] += repeats
        return seconds[name] * (1.9 if name == "fast" and calls[name] == 1 else 1)

    times = measuring.race({name: lambda name=name: name for name in seconds}, clock)
    assert times == seconds
    assert calls["slow"] == 1 < calls["fast"]
    assert min(times, key=times.__getitem__) == "fast"


def test_the_least_seconds_of_a_way_count() -> None:
    """Whatever disturbs later runs."""
    seconds = {"estimate": iter([1.0e-3, *[1.5e-3] * 999]), "rival": itertools.repeat(1.1e-3)}
    clock = lambda run, repeats: next(seconds[run()])  # noqa: E731
    times = measuring.race({name: lambda name=name: name for name in seconds}, clock)
    assert times == {"estimate": 1.0e-3, "rival": 1.1e-3}


@pytest.mark.parametrize(("ratio", "faster"), [(0.8, True), (1.25, False)])
def test_what_is_surely_slower_in_pairs_is_not_faster(ratio: float, faster: bool) -> None:
    rng = np.random.default_rng(0)
    clock = lambda run, repeats: float(run() * np.exp(rng.uniform(-0.05, 0.05)))  # noqa: E731
    assert measuring._is_faster(lambda: ratio * 1e-3, lambda: 1e-3, 1e-3, clock) is faster


def test_a_race_ends_in_time_but_tries_two() -> None:
    tried: list[str] = []

    def clock(run: Callable[[], Any], repeats: int) -> float:
        return {"a": 3.0, "b": 0.5, "c": 0.1}[run()]

    times = measuring.race({name: lambda name=name: tried.append(name) or name for name in "abc"}, clock)
    assert times == {"a": 3.0, "b": 0.5} and set(tried) == {"a", "b"}


@pytest.mark.parametrize(
    ("gain", "noise", "winner"),
    [(0.02, 0.2, "estimate"), (0.4, 0.2, "rival"), (0.08, 0.001, "estimate"), (0.1, 0.001, "rival")],
)
def test_the_estimate_is_left_only_for_what_is_surely_faster(gain: float, noise: float, winner: str) -> None:
    """A rival with a lucky first run is not, unless it gains more than runs differ, and a tenth."""
    rng = np.random.default_rng(0)
    lucky = iter([0.5])

    def clock(run: Callable[[], Any], repeats: int) -> float:
        name = run()
        seconds = 1e-3 * np.exp(rng.uniform(-noise, noise))
        return float(seconds if name == "estimate" else seconds * (1 - gain) * next(lucky, 1.0))

    times = measuring.race({name: lambda name=name: name for name in ("estimate", "rival", "slow")}, clock)
    assert min(times, key=times.__getitem__) == winner


def test_a_process_never_changes_its_mind(folder: Path) -> None:
    with winner(lambda names: names[-1]) as races:
        first = choice_for()
        assert len(races) == 1 and len(races[0]) > 1
    with winner(lambda names: names[0]) as races:
        assert choice_for() == first
        for kept in (planner._plan_of, planner._plan_for):
            kept.cache_clear()
        assert store.forget() == (1, [])
        assert choice_for() == first and not races


def test_another_process_knows_it_too_and_measures_what_it_does_not(folder: Path) -> None:
    with winner(lambda names: names[-1]):
        first = choice_for()
    forget_everything()
    with winner(lambda names: names[0]) as races:
        assert choice_for() == first and not races
        convolve(X.astype("float64"), W.astype("float64"), (1, 2), method="measure", **OPTIONS)
        assert len(races) == 1
        convolve_vjp_x(X, X, W, (1, 2), method="measure", **OPTIONS)
        assert len(races) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("wisdom 1", "wisdom 2"),
        lambda text: text.replace(" threads", "0 threads"),
        lambda text: text.replace(" ms", " s"),
        lambda text: text.replace("Plan", "Plum"),
        lambda text: text.replace("1000 ms", "nan ms"),
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("\t", " "),
        lambda text: "import os; os.abort()",
        lambda text: "",
        lambda text: "\n\0\x85\u2028",
    ],
)
def test_what_is_damaged_or_of_another_machine_is_measured_again(folder: Path, damage: Callable[[str], str]) -> None:
    with winner(lambda names: names[-1]):
        first = choice_for()
    (file,) = folder.iterdir()
    whole = file.read_text()
    file.write_bytes(damage(whole).encode("utf-8") + b"\xff")
    forget_everything()
    with winner(lambda names: names[-1]) as races:
        assert choice_for() == first and len(races) == 1
    assert file.read_text() == whole


def test_people_can_read_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with winner(lambda names: names[-1]):
        choice_for()
    _, machine, line = wisdom().splitlines()
    assert f"numpy {np.__version__}" in machine and " threads" in machine
    assert line.startswith("y float32 (3, 40, 24) * (5, 3), axes (1, 2), zero zero, measure measure, batch ")
    assert "CpuPlan direct direct 2000 ms" in line.split("\t")
    assert plans.main([]) == 0
    words = (
        "result, float32 (3, 40, 24) * (5, 3), axes (1, 2), zero zero: fastest FFT axis by axis 1000 ms; taps 2000 ms"
    )
    assert words in capsys.readouterr().out
    assert plans.main(["--forget"]) == 0 and capsys.readouterr().out == "1 files deleted\n"
    assert plans.main([]) == 0 and str(folder) in capsys.readouterr().out and not list(folder.iterdir())


def test_what_many_write_at_once_is_whole_and_nothing_is_lost(folder: Path) -> None:
    book, file = ChoiceFile(str(folder / "book.txt")), store._file("machine")

    def write_and_read(number: int) -> int:
        store.keep("machine", f"problem {number}", {"b": 2.0, "a": 1.0}, ChoiceFile(book.path))
        return len(store._of_machine(file, "machine"))

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(write_and_read, range(64)))
    assert min(counts) >= 1 and len(list(folder.iterdir())) == 2
    everything = {f"problem {i}": {"a": 1.0, "b": 2.0} for i in range(64)}
    assert store._of_machine(file, "machine") == everything == store._choices_in(Path(book.path).read_text(), book)


def test_of_two_that_choose_at_once_the_first_in_the_file_holds(folder: Path) -> None:
    first, second = (ChoiceFile(str(folder / "book.txt")) for _ in range(2))
    assert store.recall("machine", "p", first) == store.recall("machine", "p", second) == {}
    assert store.keep("machine", "p", {"a": 1.0}, first) == {"a": 1.0}
    assert store.keep("machine", "p", {"b": 1.0}, second) == {"a": 1.0}
    assert store.keep("machine", "q", {"c": 1.0}, second) == {"c": 1.0}
    assert store.keep("machine", "p", {"d": 1.0}, second) == {
        "d": 1.0
    }  # it knows what the file said, and cannot use it
    assert store.recall("machine", "q", ChoiceFile(first.path)) == {"c": 1.0}
    assert Path(first.path).read_text().splitlines()[2:] == ["p\td 1000 ms", "q\tc 1000 ms"]


BOOK = f"{store.FORMAT}\na machine\nproblem\ta 1 ms\n".encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"chapter one\nchapter two\n", "no file of choices: it begins 'chapter one'"),
        (b"\x93NUMPY\x01\x00v\x00", "no file of choices"),
        (b"\xef\xbb\xbf" + BOOK, r"no file of choices: it begins '\\ufeffhcnn wisdom 1"),
        (BOOK.replace(b"wisdom 1", b"wisdom 2"), "it begins 'hcnn wisdom 2"),
        (BOOK[:-1], "line 3, is damaged"),
        (BOOK[:-4], "line 3, is damaged"),
        (BOOK + b"of another program\n", "line 4, is damaged"),
        (BOOK + b"\xff\n", "line 4, is damaged"),
        (b"\n", "it begins ''"),
    ],
)
def test_what_is_no_book_is_refused_and_stays(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    with (
        winner(lambda names: names[-1]),
        planning("measure", file=file),
        pytest.raises(ValueError, match=said) as error,
    ):
        convolve(X, W, (1, 2), **OPTIONS)
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    assert file.read_bytes() == content and [file] == [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_book_that_becomes_another_file_meanwhile_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    with winner(lambda names: names[-1]), planning("measure", file=file):
        convolve(X, W, (1, 2), **OPTIONS)
        file.write_text("chapter one\n")
        with pytest.raises(ValueError, match="no file of choices"):
            convolve(X, W[:3], (1, 2), **OPTIONS)
    assert file.read_text() == "chapter one\n"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "unreadable", "loop"])
def test_a_book_is_a_regular_file(kind: str, tmp_path: Path) -> None:
    """A pipe would wait for ever."""
    file = tmp_path / "notes.txt"
    makers: dict[str, Callable[[], Any]] = {
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "device": lambda: file.symlink_to("/dev/zero"),
        "unreadable": lambda: (file.write_bytes(BOOK), file.chmod(0)),
        "loop": lambda: file.symlink_to(file),
    }
    makers[kind]()
    if kind == "unreadable" and os.access(file, os.R_OK):
        pytest.skip("root reads everything")
    before = file.lstat()
    with planning("measure", file=file), pytest.raises(OSError, match=r"notes\.txt"):
        convolve(X, W, (1, 2), **OPTIONS)
    assert (file.lstat().st_mode, file.lstat().st_ino) == (before.st_mode, before.st_ino)


def test_a_link_stays_one_and_its_file_keeps_its_mode(tmp_path: Path) -> None:
    shared, link, flushed = tmp_path / "shared.txt", tmp_path / "mine" / "link.txt", []
    shared.touch()
    shared.chmod(0o664)
    link.parent.mkdir()
    link.symlink_to(shared)
    replace = os.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
        patch.setattr(os, "replace", lambda a, b: (flushed.index(os.stat(a).st_ino), replace(a, b)))
        with winner(lambda names: names[-1]), planning("measure", file=link):
            convolve(X, W, (1, 2), **OPTIONS)
    assert link.is_symlink() and shared.read_text().startswith(store.FORMAT)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o664 and list(link.parent.iterdir()) == [link]


def test_a_book_that_another_process_holds_is_waited_for_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    file = tmp_path / "notes.txt"
    with open(file, "w") as held, winner(lambda names: names[-1]), planning("measure", file=file):
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process holds it"):
            convolve(X, W, (1, 2), **OPTIONS)
        fcntl.flock(held, fcntl.LOCK_UN)
        convolve(X, W, (1, 2), **OPTIONS)
    assert len(file.read_text().splitlines()) == 3


def test_a_lock_counts_on_the_file_that_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While this process waited another moved a new file there, which a third process has locked."""
    fcntl = pytest.importorskip("fcntl")
    file, flock, third = tmp_path / "book.txt", fcntl.flock, []
    file.write_text("old")

    def late(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if not third:
            files.write_atomically(file, b"new")
            third.append(open(file))  # noqa: SIM115
            flock(third[0], fcntl.LOCK_EX)

    monkeypatch.setattr(files, "PATIENCE", 0.05)
    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(OSError, match="another process holds it"):
        files.rewrite(file, lambda text: f"{text} and mine")
    third[0].close()
    files.rewrite(file, lambda text: f"{text} and mine")
    assert file.read_text() == "new and mine"


def test_a_new_book_that_cannot_be_written_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    file = tmp_path / "notes.txt"
    with planning("measure", file=file), winner(lambda names: names[-1]), pytest.raises(OSError, match="No space"):
        convolve(X, W, (1, 2), **OPTIONS)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    file.touch()  # which is the user's, and stays
    with planning("measure", file=file), winner(lambda names: names[-1]), pytest.raises(OSError, match="No space"):
        convolve(X, W, (1, 2), **OPTIONS)
    assert file.read_bytes() == b""


def test_infinite_times_decide_in_a_book_alone(folder: Path) -> None:
    """They say that a choice was not measured, for want of memory."""
    with winner(lambda names: names[-1]):
        choice = choice_for()
    (file,) = folder.iterdir()
    whole = file.read_text()
    head, machine, line = whole.splitlines()
    times = "\t".join(re.sub(r"[0-9.]+ ms$", "inf ms", field) for field in line.split("\t"))
    file.write_text("\n".join([head, machine, times, "another\ta inf ms"]) + "\n")
    forget_everything()
    with winner(lambda names: names[-1]) as races:
        assert choice_for() == choice and len(races) == 1
    assert file.read_text() == whole
    with winner(lambda names: names[-1]) as races, planning("measure", file=folder / "book.txt"):
        (folder / "book.txt").write_text("\n".join([head, machine, times]) + "\n")
        choice_for()
        assert not races


def test_wisdom_passes_over_what_cannot_be_read_or_deleted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.keep("a machine", "a problem", {"a": 1.0})
    for name in ("wisdom-0.txt", "wisdom-z.txt"):
        (folder / name).mkdir()
    os.mkfifo(folder / "wisdom-1.txt")
    assert plans.main([]) == 0
    said = capsys.readouterr().out
    assert "a, problem: fastest a 1000 ms" in said and said.count("cannot be read") == 3
    assert plans.main(["--forget"]) == 1
    count, *left = capsys.readouterr().out.splitlines()
    assert count == "2 files deleted" and len(left) == 2
    assert all(line.startswith(f"cannot delete {folder}/wisdom-") for line in left)


def test_a_file_of_choices_decides_on_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own" / "choices.txt"

    def choice() -> str:
        with planning("measure", file=file):
            convolve(X, W, (1, 2), **OPTIONS)
            measured = planner.make_plan(make_problem(X.shape, W.shape, (1, 2), **OPTIONS), X)
        (plan,) = measured._plans.values()  # type: ignore[attr-defined]
        return type(plan).__name__

    with winner(lambda names: names[-1]) as races:
        first = choice()
        assert len(races) == 1
    with winner(lambda names: names[0]) as races:
        convolve(X, W, (1, 2), method="measure", **OPTIONS)
        assert not races  # measured for the file, known to all
        store.forget()
        store._known.clear()
        monkeypatch.setattr(store, "machine_of", lambda library, card="": "another machine")
        assert choice() == first and not races
        file.unlink()
        assert choice() != first and len(races) == 1  # the same process, another block
    store._known.clear()
    with winner(lambda names: names[-1]) as races:
        assert choice() != first and not races


def test_a_file_of_choices_must_be_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with planning("measure", file=tmp_path / "file" / "choices.txt"), pytest.raises(FileExistsError):
        convolve(X, W, (1, 2), **OPTIONS)
    estimated = planning("estimate", file=tmp_path / "choices.txt")
    with pytest.raises(ValueError, match=r"planning\('measure'\) chooses; planning is 'estimate'"), estimated:
        pass


def test_where_nothing_can_be_written_the_process_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with winner(lambda names: names[-1]) as races:
        assert choice_for() == choice_for() and len(races) == 1


def test_want_of_memory_leaves_it_to_the_estimate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def race(runs: Any, clock: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(measuring, "race", race)
    with pytest.warns(RuntimeWarning, match=r"too little memory to measure y float32 .*: its estimates decide"):
        y = convolve(X, W, (1, 2), method="measure", **OPTIONS)
    assert np.array_equal(y, convolve(X, W, (1, 2), **OPTIONS)) and not folder.exists()
    file = folder.parent / "choices.txt"
    with planning("measure", file=file), pytest.warns(RuntimeWarning):
        convolve(X, W, (1, 2), **OPTIONS)
    monkeypatch.undo()
    with winner(lambda names: names[-1]) as races, planning("measure", file=file):
        assert np.array_equal(y, convolve(X, W, (1, 2), **OPTIONS)) and not races  # with more memory, too


def test_blocks_say_what_auto_means() -> None:
    def methods(**options: Any) -> tuple[str, ...]:
        return make_problem((9, 9), (3, 3), (0, 1), boundary="zero", **options).method

    assert methods() == ("auto", "auto")
    with planning("measure"):
        assert methods() == ("measure", "measure")
        assert methods(method=("auto", "fft")) == ("measure", "fft")
        with planning("estimate"):
            assert methods() == ("auto", "auto")
            assert methods(method=["measure", "auto"]) == ("measure", "auto")
        assert methods() == ("measure", "measure")
        operator = linear_operator(W, X.shape, (1, 2), boundary="zero")
    assert methods() == ("auto", "auto")
    with winner(lambda names: names[-1]) as races:
        operator @ X.ravel()
    assert len(races) == 1  # the operator was made in the block


def test_blocks_hold_for_their_thread_and_task() -> None:
    seen: dict[str, str] = {}

    async def task(name: str, planned: str) -> None:
        with planning(planned):
            await asyncio.sleep(0)
            seen[name] = current_planning()
            await asyncio.sleep(0)
            assert current_planning() == planned

    async def both() -> None:
        await asyncio.gather(task("a", "measure"), task("b", "estimate"), task("c", "measure"))

    asyncio.run(both())
    with planning("measure"):
        other = threading.Thread(target=lambda: seen.update(thread=current_planning()))
        other.start()
        other.join()
    assert seen == {"a": "measure", "b": "estimate", "c": "measure", "thread": "estimate"}


def test_threads_that_meet_measure_once() -> None:
    barrier = threading.Barrier(4)

    def call(_: int) -> Any:
        barrier.wait()
        return convolve(X, W, (1, 2), method="measure", **OPTIONS)

    def slowly(names: list[str]) -> str:
        time.sleep(0.01)  # so that others come in between, if they can
        return names[-1]

    with winner(slowly) as races, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(call, range(4)))
    assert len(races) == 1 and all(np.array_equal(results[0], y) for y in results)


def test_unknown_words_name_the_two(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="planning is 'patient'; choose 'estimate' or 'measure'"), planning("patient"):
        pass
    with environment(HCNN_PLANNING="x"), pytest.raises(ValueError, match="HCNN_PLANNING is 'x'; set it to 'estimate'"):
        convolve(X, W, (1, 2), **OPTIONS)


@pytest.mark.parametrize(
    ("variables", "planned", "asked"),
    [
        ({"HCNN_PLANNING": "measure"}, "measure", "measure"),
        ({"HCNN_PLANNING": "", "HCNN_DETERMINISTIC": "0"}, "auto", "measure"),
        ({"HCNN_PLANNING": "measure", "HCNN_DETERMINISTIC": "1"}, "auto", "auto"),
    ],
)
def test_the_environment_decides(variables: dict[str, str], planned: str, asked: str) -> None:
    with environment(**variables):
        assert make_problem((9,), (3,), 0, boundary="zero").method == (planned,)
        assert make_problem((9,), (3,), 0, boundary="zero", method="measure").method == (asked,)


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Be in a process that has these variables."""
    caches = _tuning._default, _tuning.is_deterministic, _problem._known
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        for cached in caches:
            cached.cache_clear()
        yield
    for cached in caches:
        cached.cache_clear()


def test_a_gpu_is_timed_by_events_and_never_while_it_records() -> None:
    clock, stream = [0.0], SimpleNamespace(is_capturing=lambda: recording[0])
    recording = [False]

    class Event:
        def record(self) -> None:
            self.at = clock[0]

        def synchronize(self) -> None:
            assert not recording[0]

    cuda = SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda begin, end: 1e3 * (end.at - begin.at),
        get_current_stream=lambda: stream,
        runtime=SimpleNamespace(getDeviceProperties=lambda device: {"name": b"Card"}),
        get_device_id=lambda: 0,
    )
    cupy: Any = SimpleNamespace(__name__="cupy", cuda=cuda)

    def work() -> None:
        clock[0] += 2.5

    assert seconds_on_device(cupy, work, 4) == 2.5 and clock[0] == 10

    found = plan()
    found.device = devices.CUPY
    run = lambda made: clock.__setitem__(0, clock[0] + (1.0 if type(made).__name__ == "BlockPlan" else 4.0))  # noqa: E731
    recording[0] = True
    assert is_recording(cupy) and found._find(cupy, "forward", (X, W), run) == found.estimated
    recording[0] = False
    assert found._find(cupy, "forward", (X, W), run) == "BlockPlan all axes at once" != found.estimated
    assert wisdom().splitlines()[1].startswith("Card; ")
    recording[0] = True
    on_device: Any = SimpleNamespace(dtype=X.dtype, strides=X.strides, device=[0])  # CuPy's devices cannot be hashed
    assert type(found.fastest(cupy, "forward", (on_device, W), run)).__name__ == "BlockPlan"  # it is known


def test_a_table_explains(capsys: pytest.CaptureFixture[str]) -> None:
    options = {**OPTIONS, "method": "measure"}
    before = explain(X, W, (1, 2), **options)
    assert "measured" not in before.lower().replace("measure measure", "")
    with winner(lambda names: next(name for name in names if "once" in name)):
        convolve(X, W, (1, 2), **options)
    head, titles, *rows, estimate, measured = explain(X, W, (1, 2), **options).splitlines()
    assert head.startswith("float32 (3, 40, 24) * (5, 3)") and titles.split() == ["milliseconds", "estimate", "result"]
    assert len(rows) == 6 and "FFT by blocks" in "".join(rows) and "1000.000" in "".join(rows)
    assert estimate.startswith("The estimate chooses taps:")
    assert measured == "Fastest, result: FFT by blocks."
    assert plans.main([]) == 0
    out = capsys.readouterr().out
    assert "result, float32 (3, 40, 24) * (5, 3), axes (1, 2), zero zero: fastest FFT by blocks 1000 ms; " in out
    assert "\t" not in out and "Plan direct" not in out
    assert explain(X, W, (1, 2), boundary="zero", method="direct").endswith("There is one choice.")
    assert "circles" in explain(X, W, (1, 2), boundary="mirror")
    assert "nothing is summed" in explain(X[:0], W, (1, 2), **OPTIONS)


def test_choices_of_a_problem_have_names_of_their_own() -> None:
    for shape, axes in (((6, 6, 6), (0, 1, 2)), ((40, 7, 24), (0, 2)), ((64,), 0)):
        for device in devices.DEVICES:
            problem = make_problem(shape, (3,) * np.size(axes), axes, boundary="periodic", stride=2)
            request = devices.Request(problem, True, ((), ()), device, planner.current())
            names = [choice.name for choice in device.choices(request)]
            assert len(set(names)) == len(names)
