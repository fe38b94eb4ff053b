"""Exchange segmentations with the PACS from time to time, and soon after a label was submitted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from msklabel.errors import Unreachable

logger = logging.getLogger(__name__)


class Exchange:
    """A thread that calls a function until it is closed.

    Args:
        exchange: What is done each time; gives how many segmentations were sent and taken in.
        on_taken: Called when some were taken in.
        pause_s: Seconds between two times.
    """

    def __init__(self, exchange: Callable[[], tuple[int, int]], on_taken: Callable[[], None], pause_s: float) -> None:
        self._exchange, self._on_taken, self._pause_s = exchange, on_taken, pause_s
        self._wake, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="pacs-exchange", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def soon(self) -> None:
        """Do not wait for the end of the pause."""
        self._wake.set()

    def close(self) -> None:
        """End after what is being done."""
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _work(self) -> None:
        told = ""
        while not self._closed:
            try:
                sent, taken = self._exchange()
                told = ""
                if sent or taken:
                    logger.info("segmentations: %d sent to the PACS, %d taken in", sent, taken)
                if taken:
                    self._on_taken()
            except Unreachable as error:
                if str(error) != told:  # and not every few seconds while it lasts
                    logger.warning("segmentations are exchanged later: %s", error)
                told = str(error)
            except Exception:
                logger.exception("segmentations could not be exchanged")
            self._wake.wait(self._pause_s)
            self._wake.clear()
