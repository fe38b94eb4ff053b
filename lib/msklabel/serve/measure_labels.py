"""Has labels measured that are not measured yet: what is due follows from what is stored; a restart loses nothing."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence

from msklabel.jobs.process import AlreadyRunning, JobRunner

logger = logging.getLogger(__name__)
KIND = "quantities"
_EVERY_S = 60.0
_GATHER_S = 1.0  # labels that come at once are measured in one process
_LOOK_S = 0.5
_MOST = 50
_REST_S = 15.0
_LONGEST_REST_S = 3600.0


class MeasureLabels:
    """A thread that starts a job where a label was submitted, and now and then looks whether any is left.

    Args:
        jobs: Where jobs run.
        missing: Gives at most so many versions that are not measured yet.
    """

    def __init__(self, jobs: JobRunner, missing: Callable[[int], Sequence[int]]) -> None:
        self._jobs = jobs
        self._missing = missing
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._started = 0.0
        self._thread = threading.Thread(target=self._run, name="measure-labels", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._wake.set()
        self._thread.start()

    def due(self) -> None:
        """A label was stored, or what labels are measured by has changed; returns at once."""
        self._wake.set()

    def close(self) -> None:
        """Look no more; a running job ends with the others."""
        self._stop.set()
        self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_EVERY_S)
            self._wake.clear()
            if self._stop.wait(_GATHER_S):
                return
            try:
                while self._missing(1) and not self._resting():
                    self._started = time.monotonic()
                    self._wait_for(self._jobs.start(KIND, {"most": _MOST}).outcome.done)
            except AlreadyRunning:
                pass
            except Exception:  # the thread must outlive a database that is locked or a folder that is not there
                logger.exception("labels that are not measured yet could not be looked for")

    def _wait_for(self, done: Callable[[], bool]) -> None:
        while not done() and not self._stop.wait(_LOOK_S):
            pass

    def _resting(self) -> bool:
        """Whether the last jobs failed not long ago: after each failure in a row the rest is twice as long."""
        if self._stop.is_set():
            return True
        ended = itertools.takewhile(lambda job: job.status != "DONE", reversed(self._jobs.jobs(KIND)))
        count = sum(1 for _ in ended)
        return count > 0 and time.monotonic() - self._started < min(_LONGEST_REST_S, _REST_S * 2**count)
