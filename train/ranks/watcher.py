"""The process that watches the ranks of a run, and ends it when one of them dies, hangs or fails.

MPI waits for ever for a rank that hangs, and what a launcher says of one that died does not name its step. Rank 0
starts this file as a process of its own, outside the launcher's process group, so that it outlives every rank. Each
rank holds a connection to it (`watch.py`). The system closes the connection of a process that dies, however it dies.

The file imports nothing but the standard library, so that the process starts at once and takes little memory.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener

SILENT = 15.0
"""Seconds after which a rank that says nothing has hung: stopped, or on a host that is gone."""

PATIENCE = 60.0
"""Seconds that ranks wait for another that lives; HCNN_PATIENCE sets another number."""


@dataclass
class Peer:
    """A rank's last report: where it is, how many exchanges it has begun, and whether it waits for others in one."""

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
            for key, _ in self.selector.select(0.25):
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
        """Say which rank has hung; nothing where none has."""
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
