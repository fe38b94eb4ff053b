"""Which servers use a state folder now: each holds a shared lock, which goes with its process however that ends."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PRESENCE = ".servers.lock"  # in the state folder


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
        file: The lock file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream: IO[bytes] | None = None

    def enter(self, when_alone: Callable[[], None]) -> None:
        """Be there from now on.

        Args:
            when_alone: Called first where no other server is there; none can come before it returns.

        Raises:
            OSError: If the file cannot be made.
        """
        self._stream = self._file.open("ab")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._stream, fcntl.LOCK_SH)
            return
        try:
            when_alone()
        finally:
            fcntl.flock(self._stream, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be there no more."""
        if self._stream:
            self._stream.close()
            self._stream = None
