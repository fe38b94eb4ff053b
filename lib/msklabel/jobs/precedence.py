"""Who comes first: background work waits while a lock file is held, whichever process holds it.

A lock goes with the process that holds it, so nothing is left to clean up after a crash.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PRECEDENCE = ".precedence.lock"  # in the state folder
_LOOK_S = 0.2
_PATIENCE_S = 0.1  # who looks at the lock has it for an instant


class Precedence:
    """Held while somebody waits for a result; may be held by many threads of a process at once.

    Args:
        file: The lock file.
    """

    def __init__(self, file: Path) -> None:
        self._lock = FileLock(file, thread_local=False)
        self._count = 0
        self._guard = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let background work of other processes wait."""
        with self._guard:
            if self._count == 0:
                with suppress(Timeout):  # another server of the same folder has it, which holds the background as well
                    self._lock.acquire(timeout=_PATIENCE_S)
            self._count += 1
        try:
            yield
        finally:
            with self._guard:
                self._count -= 1
                if self._count == 0 and self._lock.is_locked:
                    self._lock.release()


def waiter(file: Path, sleep: Callable[[float], None] = time.sleep) -> Callable[[], None]:
    """A function that returns once nobody holds the lock file, at once where nobody does."""
    lock = FileLock(file)

    def wait() -> None:
        while True:
            try:
                with lock.acquire(timeout=0):
                    return
            except Timeout:
                sleep(_LOOK_S)

    return wait
