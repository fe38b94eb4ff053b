"""Keeps scores up to date while nobody waits: what is due is computed from what is stored; a restart loses nothing."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from msklabel.jobs.precedence import Precedence
from msklabel.jobs.process import AlreadyRunning, JobRunner

logger = logging.getLogger(__name__)
_LOOK_S = 1.0
_REPORT_S = 5.0
_REST_S = 15.0
_LONGEST_REST_S = 3600.0
_PART = 50  # scans in one job, after which it is looked again what is most promising
_FIRST = ("train", "batch_infer", "scoring")


class BackgroundScoring:
    """A thread that starts a scoring job where scores are stale and the server has been idle for a while.

    Args:
        jobs: Where jobs run.
        precedence: Held while a training or a batch inference runs, so that scoring waits.
        progress: Says how many scans of each system are judged; may read the database.
        waiting: Says whether an inference runs or waits.
        delay_s: Seconds without other work before scoring begins; 0 never begins by itself.
    """

    def __init__(
        self,
        jobs: JobRunner,
        precedence: Precedence,
        progress: Callable[[], dict[str, dict[str, Any]]],
        waiting: Callable[[], bool],
        delay_s: float,
    ) -> None:
        self.report: dict[str, dict[str, Any]] = {}
        self._jobs = jobs
        self._precedence = precedence
        self._progress = progress
        self._waiting = waiting
        self._delay_s = delay_s
        self._started = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="background-scoring", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; its job ends with the others."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        idle_since = looked = time.monotonic()
        held = ExitStack()
        holding = False
        while not self._stop.wait(min(_LOOK_S, self._delay_s or _LOOK_S)):
            first = any(self._jobs.running(kind) for kind in ("train", "batch_infer"))
            if first and not holding:
                held.enter_context(self._precedence.held())
            elif holding and not first:
                held.close()
            holding = first
            now = time.monotonic()
            if any(self._jobs.running(kind) for kind in _FIRST) or self._waiting():
                idle_since = now
            if now - looked >= min(_REPORT_S, self._delay_s or _REPORT_S):
                self._look(bool(self._delay_s) and now - idle_since >= self._delay_s)
                looked = time.monotonic()
        held.close()

    def _look(self, idle: bool) -> None:
        """See how far the scores are, and start a job if there is time for it."""
        try:
            self.report = self._progress()
            due = [name for name, said in self.report.items() if is_due(said)]
            if due and idle and not self._resting() and not self._jobs.running("background"):
                self._started = time.monotonic()
                self._jobs.start("background", {"systems": ",".join(due), "limit": _PART})
        except AlreadyRunning:
            pass
        except Exception:  # the thread must outlive a database that is locked or a folder that is not there
            logger.exception("background scoring could not look for what is due")

    def _resting(self) -> bool:
        """Whether the last jobs failed not long ago: after each failure in a row the rest is twice as long."""
        failures = itertools.takewhile(lambda job: job.status == "ERROR", reversed(self._jobs.jobs("background")))
        count = sum(1 for _ in failures)
        return count > 0 and time.monotonic() - self._started < min(_LONGEST_REST_S, _REST_S * 2**count)


def is_due(said: dict[str, Any]) -> bool:
    """Whether scans of a system are to be judged, or without a model to be described."""
    return bool(said["stale"] + said["unscored"]) if said["version"] else bool(said["undescribed"])
