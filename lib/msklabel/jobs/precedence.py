"""Who comes first: other work waits while a lock file is held, whichever process holds it.

A lock goes with the process that holds it, so nothing is left to clean up after a crash.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

PRECEDENCE = ".precedence.lock"  # in the state folder; held while anything runs that scoring waits for
INTERACTIVE = ".interactive.lock"  # there, too; held while somebody waits for an inference, which trainings wait for
PATIENCE_OF_TRAINING = 9.0  # a tenth of the time is a training's own, however many inferences follow each other
_LOOK_S = 0.2
_PATIENCE_S = 0.1  # who looks at the lock has it for an instant


class Wait(Protocol):
    """Returns once others need not be let go first any more."""

    def __call__(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Return at the latest when ``enough`` says so."""


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
        """Let work of other processes wait."""
        with self._guard:
            if self._count == 0:
                with suppress(Timeout):  # another server of the same folder has it, to the same effect
                    self._lock.acquire(timeout=_PATIENCE_S)
            self._count += 1
        try:
            yield
        finally:
            with self._guard:
                self._count -= 1
                if self._count == 0 and self._lock.is_locked:
                    self._lock.release()


def waiter(file: Path, sleep: Callable[[float], None] = time.sleep, patience: float | None = None) -> Wait:
    """A function that returns once nobody holds the lock file, at once where nobody does.

    Args:
        file: The lock file.
        sleep: Passes the time until the next look.
        patience: How many times as long as the work since the last wait a wait may last; left out: any time.
    """
    lock = FileLock(file)
    worked_since = time.monotonic()

    def wait(enough: Callable[[], bool] = lambda: False) -> None:
        nonlocal worked_since
        began = time.monotonic()
        longest_s = math.inf if patience is None else patience * (began - worked_since)
        while not enough():
            with suppress(Timeout), lock.acquire(timeout=0):
                break
            left_s = began + longest_s - time.monotonic()
            if left_s <= 0:
                break
            sleep(min(_LOOK_S, left_s))
        worked_since = time.monotonic()

    return wait
