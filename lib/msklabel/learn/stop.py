"""A signal becomes a question that a training asks between steps."""

from __future__ import annotations

import signal
import threading
from typing import Any


class StopOnSignal:
    """Turn SIGTERM and SIGINT into a question, in the main thread; elsewhere nobody asks."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, lambda *_: self._event.set())

    def asked(self) -> bool:
        """Whether a signal came."""
        return self._event.is_set()

    def restore(self) -> None:
        """Put back what signals did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
