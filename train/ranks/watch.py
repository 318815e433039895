"""A rank's side of being watched: its reports to the process of `watcher.py`, each step and each second.

A report says where the rank is, how many exchanges it has begun, and whether it waits for others in one.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from hcnn_core.environment import value
from train.ranks.agreement import Agreement
from train.ranks.communicator import DistributedError

SECOND = 1.0

Address = tuple[str, int]


class Watch:
    """A rank's connection to the watching process; until it begins, and after it has ended, nothing is sent."""

    def __init__(self, ranks: Agreement) -> None:
        self.process: subprocess.Popen[bytes] | None = None  # on rank 0
        self.where = "the start"
        self._ranks, self._module, self._leaving = ranks, "", False
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    @property
    def connected(self) -> bool:
        """Whether this rank is watched."""
        return self._connection is not None

    def begin(self, module: str) -> None:
        """Start the watching process on rank 0's host, and connect every rank to it.

        Where a rank cannot reach that host, one line on standard error says so, and the run is not watched.
        """
        ranks, self._module = self._ranks, module

        def begin() -> tuple[Address, bytes]:
            try:
                value("HCNN_PATIENCE")
            except ValueError as error:
                raise DistributedError(str(error)) from error
            self.process, address, key = start(module, len(set(ranks.hosts)) == 1)
            return address, key

        address, key = ranks.from_first(begin)
        refused = ""
        try:
            self._connect(address, key)
        except OSError as error:
            refused = f"rank {ranks.rank} on {ranks.host} cannot reach {address[0]}, port {address[1]} ({error})"
        refusals = [text for text in ranks.gather(refused) if text]
        if refusals:
            self.end()
            if ranks.writes:
                print(f"{module}: ranks that hang will not be noticed: {refusals[0]}", file=sys.stderr)

    def _connect(self, address: Address, key: bytes) -> None:
        self._connection = Client(address, authkey=key)
        self._send("rank", self._ranks.rank, platform.node(), os.getpid())
        threading.Thread(target=self._listen, name="hcnn_watch", daemon=True).start()

    def at(self, where: str) -> None:
        """Say which step begins."""
        self.where = where
        self._report()

    def advise(self, text: str) -> None:
        """Set the advice that is printed after a failure; one rank's is for all."""
        self._send("advice", text)

    def fail(self, text: str, status: int) -> None:
        """Have a line printed, and end every rank, this one too, with an exit status."""
        if self.connected:
            self._send("failed", text, status)
            time.sleep(10)  # the order to end comes to the other thread

    def end(self) -> None:
        """Say that this rank ends well, or with an error that all ranks know; rank 0 waits for the process to go."""
        self._leaving = True
        self._send("bye")
        self._connection = None
        if self.process is not None:
            assert self.process.stdin and self.process.stdout
            self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.process.stdout.close()
            self.process = None

    def _report(self) -> None:
        self._send("at", self.where, self._ranks.exchanges, self._ranks.waiting)

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
            if self._ranks.rank == 0:
                text = "the process that watches the ranks has died; stopping, since nobody would notice one that hangs"
                with contextlib.suppress(OSError):
                    os.write(2, f"{self._module}: {text}\n".encode())
            os.kill(os.getpid(), signal.SIGTERM)  # which saves, and which all ranks agree on


def start(module: str, one_host: bool) -> tuple[subprocess.Popen[bytes], Address, bytes]:
    """Start the watching process on this host."""
    host, key = "127.0.0.1" if one_host else socket.gethostname(), secrets.token_bytes(32)
    process = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("watcher.py")), module, "127.0.0.1" if one_host else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin and process.stdout
    process.stdin.write(key)
    process.stdin.flush()
    return process, (host, int(process.stdout.readline())), key
