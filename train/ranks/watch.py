"""What ends a run of several ranks when one of them dies, hangs or fails, and says so in one line.

MPI waits for ever for a rank that hangs, and what a launcher says of one that died does not name its step. Rank 0
starts this file as a process of its own, outside the launcher's process group, so that it outlives every rank. Each
rank holds a connection to it. It tells it each step and, from a thread, each second whether it waits for the others.
The system closes the connection of a process that dies, however it dies.

The file imports nothing but the standard library, so that the process starts at once and takes little memory.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

SECOND = 1.0
SILENT = 15.0
"""Seconds after which a rank that says nothing has hung: stopped, or on a host that is gone."""

PATIENCE = 60.0
"""Seconds that ranks wait for another that lives; HCNN_PATIENCE sets another number."""

Address = tuple[str, int]


@dataclass
class Peer:
    """What a rank last said: where it is, how many exchanges it has begun, and whether it waits for others in one."""

    rank: int
    host: str
    pid: int
    where: str = "the start"
    exchanges: int = 0
    waiting: bool = False
    heard: float = 0.0
    late_since: float = 0.0

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (process {self.pid})"


class Watch:
    """A rank's connection to the watching process."""

    def __init__(self, address: Address, key: bytes, rank: int, module: str) -> None:
        self.where, self.exchanges, self.waiting = "the start", 0, False
        self._rank, self._module, self._leaving = rank, module, False
        self._lock = threading.Lock()
        self._connection: Connection | None = Client(address, authkey=key)
        self._send("rank", rank, platform.node(), os.getpid())
        threading.Thread(target=self._listen, name="hcnn_watch", daemon=True).start()

    def at(self, where: str) -> None:
        """Say which step begins."""
        self.where = where
        self._report()

    def advise(self, text: str) -> None:
        """Say how to go on after a failure; what one rank says is said for all."""
        self._send("advice", text)

    def fail(self, text: str, status: int) -> None:
        """Have a line printed, and end every rank, this one too, with an exit status."""
        self._send("failed", text, status)
        time.sleep(10)  # the order to end comes to the other thread

    def close(self) -> None:
        """Say that this rank ends well."""
        self._leaving = True
        self._send("bye")
        self._connection = None

    def _report(self) -> None:
        self._send("at", self.where, self.exchanges, self.waiting)

    def _send(self, *message: Any) -> None:
        with self._lock, contextlib.suppress(OSError):  # without the process a run goes on, unwatched
            if self._connection is not None:
                self._connection.send(message)

    def _listen(self) -> None:
        """Report each second, end this process when told to, and stop it when the watching process has died."""
        connection = self._connection
        assert connection is not None
        try:
            while self._connection is not None:
                if connection.poll(SECOND):
                    os._exit(connection.recv())
                self._report()
        except (OSError, EOFError):
            if self._leaving:
                return
            if self._rank == 0:
                text = "the process that watches the ranks has died; stopping, since nobody would notice one that hangs"
                with contextlib.suppress(OSError):
                    os.write(2, f"{self._module}: {text}\n".encode())
            os.kill(os.getpid(), signal.SIGTERM)  # which saves, and which all ranks agree on


def start(module: str, one_host: bool) -> tuple[subprocess.Popen[bytes], Address, bytes]:
    """Start the watching process on this host."""
    host, key = "127.0.0.1" if one_host else socket.gethostname(), secrets.token_bytes(32)
    process = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__)), module, "127.0.0.1" if one_host else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    process.stdin.write(key)
    process.stdin.flush()
    return process, (host, int(process.stdout.readline())), key


class Watcher:
    """The watching process."""

    def __init__(self, module: str, patience: float) -> None:
        self.module, self.patience = module, patience
        self.peers: dict[Connection, Peer] = {}
        self.advice = ""
        self.selector = selectors.DefaultSelector()  # epoll reports in the order in which connections became ready

    def serve(self, listener: Listener) -> None:
        """Watch until every rank has gone well or one has not."""
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select(SECOND / 4):
                if key.fileobj is sys.stdin:
                    self.selector.unregister(sys.stdin)
                    if not self.peers:
                        return  # rank 0 has ended before it began
                elif self._hear(key.fileobj):  # type: ignore[arg-type]
                    return
            if late := self.late(time.monotonic()):
                self.end(late, 1)
                return

    def _accept(self, listener: Listener) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError, AuthenticationError):
                connection = listener.accept()
                _, rank, host, pid = connection.recv()
                self.peers[connection] = Peer(rank, host, pid, heard=time.monotonic())
                self.selector.register(connection, selectors.EVENT_READ)

    def _hear(self, connection: Connection) -> bool:
        """Take one message; whether there is nothing left to watch."""
        peer = self.peers[connection]
        try:
            kind, *said = connection.recv()
        except (OSError, EOFError):
            self.end(f"{peer} died at {peer.where}", 1)
            return True
        peer.heard = time.monotonic()
        if kind == "at":
            peer.where, peer.exchanges, peer.waiting = said
        elif kind == "advice":
            (self.advice,) = said
        elif kind == "failed":
            self.end(f"{said[0]} ({peer}, at {peer.where})", said[1], advise=False)
            return True
        elif kind == "bye":
            self.selector.unregister(connection)
            del self.peers[connection]
        return not self.peers

    def late(self, now: float) -> str:
        """What is to be said of a rank that has hung; nothing where none has."""
        peers = list(self.peers.values())
        for peer in peers:
            if now - peer.heard > min(SILENT, self.patience):
                return f"{peer} has said nothing for {now - peer.heard:.0f} s at {peer.where}"
        for peer in peers:
            # in training, others wait in an exchange that this one has not come to
            behind = peer.exchanges and any(p.waiting and p.exchanges > peer.exchanges for p in peers)
            peer.late_since = (peer.late_since or now) if behind and not peer.waiting else 0.0
            if peer.late_since and now - peer.late_since > self.patience:
                return f"{peer} kept the others waiting for {now - peer.late_since:.0f} s at {peer.where}"
        return ""

    def end(self, text: str, status: int, *, advise: bool = True) -> None:
        """Print the line and end every rank."""
        rest = f"; {self.advice}" if advise and self.advice else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{self.module}: {text}{rest}\n".encode(errors="backslashreplace"))
        for connection in self.peers:
            with contextlib.suppress(OSError):
                connection.send(status)


def main() -> None:
    """Be the watching process: the key comes by standard input, the port goes to standard output."""
    module, host = sys.argv[1:]
    key = os.read(0, 32)
    patience = float(os.environ.get("HCNN_PATIENCE", PATIENCE))
    with Listener((host, 0), backlog=1024, authkey=key) as listener:
        os.write(1, b"%d\n" % listener.address[1])
        os.close(1)
        Watcher(module, patience).serve(listener)


if __name__ == "__main__":
    main()
