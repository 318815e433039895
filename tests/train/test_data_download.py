"""The download of a file, from a server on this machine that can be made to misbehave."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from train.data import DataError, cifar, load_dataset
from train.data.download import fetch, show_progress

CONTENT = np.random.default_rng(0).bytes(3_000_000)  # three blocks
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves one content, and notes what it was asked for."""

    content = CONTENT
    ranges = True  # whether it honours them
    sent = len(CONTENT)  # the most bytes it sends before it hangs up
    announces_length = True
    length = ""  # what it announces instead
    begun: threading.Event | None = None  # set when a request has come; it then waits for `goes_on`

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.goes_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if self.server.begun is not None:
            self.server.begun.set()
            self.server.goes_on.wait(20)
        if self.path != "/file.tar.gz":
            self.send_error(404)
        elif start and start >= len(self.server.content):
            self.send_error(416)
        else:
            self.send_response(206 if start else 200)
            if self.server.announces_length:
                self.send_header("Content-Length", self.server.length or str(len(self.server.content) - start))
            self.end_headers()
            self.wfile.write(self.server.content[start:][: self.server.sent])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Steps(list[tuple[str, int, int]]):
    """A progress that remembers."""

    def __call__(self, name: str, done: int, total: int) -> None:
        self.append((name, done, total))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_arrives_with_progress(server: Server, tmp_path: Path) -> None:
    steps = Steps()
    fetch(server.url, tmp_path / "new" / "file.tar.gz", MD5, progress=steps)
    assert (tmp_path / "new" / "file.tar.gz").read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["file.tar.gz"]
    assert server.asked == [None]
    done = [step[1] for step in steps]
    assert len(done) > 1 and done == sorted(set(done))
    assert {step[0] for step in steps} == {"file.tar.gz"} and {step[2] for step in steps} == {len(CONTENT)}
    assert done[-1] == len(CONTENT)


def test_stopped_download_is_kept_and_resumed(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.tar.gz"
    server.sent = 1_700_000
    with pytest.raises(DataError, match="ended after 1700000 of 3000000 bytes; try again to resume"):
        fetch(server.url, target, MD5, progress=Steps())
    assert names(tmp_path) == ["file.tar.gz.part"]
    steps = Steps()
    fetch(server.url, target, MD5, progress=steps)
    assert server.asked == [None, "bytes=1700000-"]
    assert target.read_bytes() == CONTENT and names(tmp_path) == ["file.tar.gz"]
    assert steps[0][1] > 1_700_000 and steps[-1][1:] == (len(CONTENT), len(CONTENT))


def test_server_that_ignores_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.tar.gz.part").write_bytes(CONTENT[:100_000])
    fetch(server.url, tmp_path / "file.tar.gz", MD5, progress=Steps())
    assert server.asked == ["bytes=100000-"]
    assert (tmp_path / "file.tar.gz").read_bytes() == CONTENT and names(tmp_path) == ["file.tar.gz"]


def test_server_that_hides_the_length(server: Server, tmp_path: Path) -> None:
    server.announces_length = False
    steps = Steps()
    fetch(server.url, tmp_path / "file.tar.gz", MD5, progress=steps)
    assert (tmp_path / "file.tar.gz").read_bytes() == CONTENT
    assert steps[-1][1:] == (len(CONTENT), 0)


def test_whole_part_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / "file.tar.gz.part").write_bytes(CONTENT)
    fetch("http://127.0.0.1:9/file.tar.gz", tmp_path / "file.tar.gz", MD5, progress=Steps())
    assert names(tmp_path) == ["file.tar.gz"]


def test_overlong_part_is_no_beginning(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.tar.gz.part").write_bytes(CONTENT + b"?")
    fetch(server.url, tmp_path / "file.tar.gz", MD5, progress=Steps())
    assert server.asked == ["bytes=3000001-", None]
    assert (tmp_path / "file.tar.gz").read_bytes() == CONTENT and names(tmp_path) == ["file.tar.gz"]


@pytest.mark.parametrize("part", [b"", CONTENT[:9] + b"?"])
def test_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path, part: bytes) -> None:
    if part:
        (tmp_path / "file.tar.gz.part").write_bytes(part)
    else:
        server.content = b"something else"
    with pytest.raises(DataError, match=f"has MD5 [0-9a-f]{{32}}, expected {MD5}; it is removed") as caught:
        fetch(server.url, tmp_path / "file.tar.gz", MD5, progress=Steps())
    assert names(tmp_path) == [] and "\n" not in str(caught.value)


def test_two_at_once_wait_for_each_other(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()  # capsys would lose what a thread writes while it is read
    monkeypatch.setattr("sys.stderr", said)
    server.begun = threading.Event()
    target, errors = tmp_path / "file.tar.gz", []

    def download() -> None:
        try:
            fetch(server.url, target, MD5, progress=Steps())
        except DataError as error:
            errors.append(error)

    threads = [threading.Thread(target=download) for _ in range(2)]
    threads[0].start()
    assert server.begun.wait(20)
    threads[1].start()
    while "waiting for process" not in said.getvalue():
        assert threads[1].is_alive() and threads[0].is_alive()
    server.goes_on.set()
    for thread in threads:
        thread.join()
    assert errors == [] and server.asked == [None]
    assert target.read_bytes() == CONTENT and names(tmp_path) == ["file.tar.gz"]


def test_a_part_longer_than_the_file_is_not_resumed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.tar.gz.part").write_bytes(CONTENT + b"?")
    fetch(server.url, tmp_path / "file.tar.gz", MD5, size=len(CONTENT), progress=Steps())
    assert server.asked == [None] and (tmp_path / "file.tar.gz").read_bytes() == CONTENT


def test_what_is_longer_than_the_file_is_not_read_to_its_end(server: Server, tmp_path: Path) -> None:
    server.announces_length = False
    steps = Steps()
    with pytest.raises(DataError, match="longer than 1000000 bytes"):
        fetch(server.url, tmp_path / "file.tar.gz", MD5, size=1_000_000, progress=steps)
    assert steps == [] and names(tmp_path) == []  # the first block was enough


@pytest.mark.parametrize("length", ["many", "-1", "\u00b2"])
def test_a_length_that_is_no_number_is_not_known(server: Server, tmp_path: Path, length: str) -> None:
    server.length = length
    fetch(server.url, tmp_path / "file.tar.gz", MD5, progress=Steps())
    assert (tmp_path / "file.tar.gz").read_bytes() == CONTENT


def test_a_part_that_is_a_link_is_not_written_through(server: Server, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "file.tar.gz.part").symlink_to(elsewhere)
    fetch(server.url, tmp_path / "file.tar.gz", MD5, progress=Steps())
    assert not elsewhere.exists() and (tmp_path / "file.tar.gz").read_bytes() == CONTENT


def test_missing_page_costs_nothing_that_is_here(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.tar.gz.part").write_bytes(CONTENT[:9])
    with pytest.raises(DataError, match=r"cannot download .*404"):
        fetch(server.url + "x", tmp_path / "file.tar.gz", MD5, progress=Steps())
    assert names(tmp_path) == ["file.tar.gz.part"]


def test_progress_is_shown_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    show_progress("file", 1_500_000, 3_000_000)
    assert capsys.readouterr().err == ""  # no terminal: the last line alone
    show_progress("file", 3_000_000, 3_000_000)
    assert "file: 3.0 of 3.0 MB\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_without_network_one_line_says_what_to_put_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(cifar, "BASE_URL", "http://127.0.0.1:9")
    for download in (True, False):
        with pytest.raises(DataError) as caught:
            load_dataset(name, tmp_path / "new" / "data", download=download)
        assert list(tmp_path.iterdir()) == []
        message = str(caught.value)
        assert "\n" not in message and f"into {tmp_path / 'new' / 'data'}" in message
        assert cifar.LAYOUTS[name].archive in message and cifar.LAYOUTS[name].folder in message
        assert ("cannot download http://127.0.0.1:9/" in message) == download


def test_missing_data_set_is_downloaded_then_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = cifar.LAYOUTS["cifar100"]
    site = tmp_path / "site"
    site.mkdir()
    with tarfile.open(site / layout.archive, "w:gz") as archive:
        for name, record in (("train.bin", [1, 99]), ("test.bin", [2, 42])):
            info = tarfile.TarInfo(f"{layout.folder}/{name}")
            info.size = 3074
            archive.addfile(info, io.BytesIO(bytes(record) + bytes(3072)))
    found = hashlib.md5((site / layout.archive).read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "BASE_URL", site.as_uri())
    monkeypatch.setitem(cifar.LAYOUTS, "cifar100", dataclasses.replace(layout, md5=found))
    for download in (True, False):
        loaded = load_dataset("cifar100", tmp_path / "data", download=download, progress=Steps())
        assert loaded.train_labels.tolist() == [99] and loaded.test_labels.tolist() == [42]
    assert names(tmp_path / "data") == [layout.archive]


def test_a_folder_that_no_path_can_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="NUL"):
        load_dataset("cifar10", f"{tmp_path}/a\0b")
