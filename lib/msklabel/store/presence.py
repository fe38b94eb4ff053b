"""Which servers use a state folder now: each holds locks, which go with its process however that ends."""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PRESENCE = ".servers.lock"  # in the state folder
_SERVER = ".server-"  # beside it, a file for each server

Arrive = Callable[[Collection[str], bool], None]


@contextmanager
def alone(file: Path) -> Iterator[bool]:
    """Keep servers from coming meanwhile; says whether none is there. It sees those in other containers, too."""
    with file.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class Presence:
    """One server at a state folder.

    Args:
        file: The lock file that all servers share; each has one of its own beside it.

    Attributes:
        server: What the server is called, other than any before.
    """

    def __init__(self, file: Path) -> None:
        self.server = uuid.uuid4().hex
        self._file = file
        self._streams: list[IO[bytes]] = []

    def enter(self, arrive: Arrive) -> None:
        """Be there from now on.

        Args:
            arrive: Called first with the servers that have ended since it was last called without an error, and
                whether no other server is there; if so, none can come before it returns.

        Raises:
            OSError: If the files cannot be made or locked.
        """
        self._hold_own()
        shared = self._file.open("a+b")  # also read: a shared lock over NFS asks for it
        self._streams.append(shared)
        try:
            fcntl.flock(shared, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except BlockingIOError:
            fcntl.flock(shared, fcntl.LOCK_SH)
            is_alone = False
        try:
            ended = self._ended()
            arrive(list(ended), is_alone)
            for file in ended.values():
                file.unlink(missing_ok=True)
        finally:
            fcntl.flock(shared, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be there no more; that one was is left for the next server to see."""
        for stream in self._streams:
            stream.close()
        self._streams = []

    def _hold_own(self) -> None:
        """Hold a lock on a file of this server's; it has its name only once it is held."""
        file = self._file.with_name(f"{_SERVER}{self.server}.lock")
        coming = file.with_suffix(".coming")
        own = coming.open("a+b")
        self._streams.append(own)
        fcntl.flock(own, fcntl.LOCK_EX)
        coming.rename(file)

    def _ended(self) -> dict[str, Path]:
        """Servers whose file nobody holds any more."""
        ended = {}
        for file in self._file.parent.glob(f"{_SERVER}*.lock"):
            with suppress(OSError), file.open("r+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ended[file.stem.removeprefix(_SERVER)] = file
        return ended
