"""How ranks agree on errors: each is raised on every rank, or ends all of them.

A rank that left alone would let the others wait for it for ever. So what may fail on one rank runs in `agree` or
`from_first`, and what must be the same on all is compared by `require_same`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from autodiff import tree_leaves
from hcnn_core.backend import to_numpy
from train.ranks.communicator import Communicator, DistributedError

Result = TypeVar("Result")

SOURCE = Path(__file__).resolve().parents[2]
"""The folder of the packages."""

PACKAGES = ("autodiff", "hcnn_core", "train", "wavelets")
"""Packages whose code must be the same on all ranks: sums would hide that one computes something else."""


class Agreement(Communicator):
    """Ranks that go on together, or fail together."""

    def from_first(self, make: Callable[[], Result]) -> Result:
        """Return rank 0's result of an action; an error there is raised on every rank."""
        if self.comm is None:
            return make()
        error: BaseException | None = None
        value: Any = None
        if self.rank == 0:
            try:
                value = make()
            except Exception as raised:
                error = raised
        value, error = self.comm.bcast((value, error))
        if error is not None:
            raise self.agreed(error)
        return value

    def agree(self, action: Callable[[], Result]) -> Result:
        """Return an action's result; an error on any rank is raised on all, that of the lowest rank.

        If only some ranks failed, the message names the first of them.
        """
        if self.comm is None:
            return action()
        error: BaseException | None = None
        value: Any = None
        try:
            value = action()
        except Exception as raised:
            error = raised
        errors = self.gather(error)
        for rank, first in enumerate(errors):
            if first is not None:
                if None in errors:
                    first.args = (f"{first} (rank {rank} on {self.hosts[rank]})", *first.args[1:])
                raise self.agreed(first)
        return value

    @staticmethod
    def agreed(error: BaseException) -> BaseException:
        """Mark an error as one that every rank raises, so that rank 0 alone prints it."""
        error.agreed = True  # type: ignore[attr-defined]
        return error

    def first_to_fail(self, failed: str, unlike: str) -> str:
        """Return the first failure that any rank reports, with that rank and its host."""
        everyone = self.gather(failed)
        rank = next((rank for rank, text in enumerate(everyone) if text != unlike), 0)
        return failed if self.size == 1 else f"{everyone[rank]} on rank {rank} ({self.hosts[rank]})"

    def require_same(self, properties: Mapping[str, Any]) -> None:
        """Raise DistributedError, on every rank, if a value differs between ranks."""
        everyone = self.gather(dict(properties))
        for rank, other in enumerate(everyone):
            for name in sorted(everyone[0].keys() | other.keys()):
                value, another = (d.get(name, "none") for d in (everyone[0], other))
                if value != another:
                    raise self.agreed(
                        DistributedError(
                            f"ranks differ in {name}: {value} on rank 0 ({self.hosts[0]}), {another} on rank {rank} "
                            f"({self.hosts[rank]}); start all with the same command, packages and data"
                        )
                    )

    def require_same_bits(self, tree: Any, what: str) -> None:
        """Raise DistributedError, on every rank, unless arrays are the same on all, bit for bit."""
        if self.size > 1:
            checksums = [zlib.crc32(np.ascontiguousarray(to_numpy(leaf)).tobytes()) for leaf in tree_leaves(tree)]
            self.require_same({what: zlib.crc32(repr(checksums).encode())})


def source_checksum(root: Path = SOURCE) -> str:
    """Return a checksum of the packages' source: files of one version's number may differ all the same."""
    checksum = 0
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".cu"):
                checksum = zlib.crc32(path.relative_to(root).as_posix().encode() + path.read_bytes(), checksum)
    return f"{checksum:08x}"
