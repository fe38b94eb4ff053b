"""Inferences wait for their device here, one at a time on each, and never on the threads that answer other requests."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from msklabel.errors import UserError

Result = TypeVar("Result")
_NICER = 8  # the share of a processor that requests leave it is then a seventh, where both want it


class QueueFull(UserError):
    """More inferences wait already than anybody would wait for."""

    status = 429


class _Lane(Generic[Result]):
    """One device: a thread of its own, and what waits for it."""

    def __init__(self, device: str) -> None:
        self.executor = ThreadPoolExecutor(1, f"infer-{device}", initializer=let_others_first)
        self.pending: set[Future[Result]] = set()


class InferenceQueue(Generic[Result]):
    """Run inferences one after the other on each device, in the order in which they came.

    Args:
        infer: Runs one inference.
        devices: A lane for each; a request names one with ``device``, else the shortest lane takes it.
        most_waiting: Refuse more than this many waiting in one lane.
    """

    def __init__(
        self,
        infer: Callable[[Mapping[str, Any]], Result],
        devices: Sequence[str] = ("cpu",),
        most_waiting: int = 64,
    ) -> None:
        self._infer = infer
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane[Result]] = {device: _Lane(device) for device in devices}

    def submit(self, request: Mapping[str, Any]) -> Future[Result]:
        """Queue an inference; cancelling the future while it waits takes it out again.

        Raises:
            QueueFull: If too many wait already.
        """
        with self._lock:
            shortest = min(self._lanes, key=lambda device: len(self._lanes[device].pending))
            lane = self._lanes.get(str(request.get("device")), self._lanes[shortest])
            if len(lane.pending) > self._most_waiting:
                raise QueueFull(f"{self._most_waiting} inferences are waiting already; try again later")
            future = lane.executor.submit(self._infer, request)
            lane.pending.add(future)
        future.add_done_callback(lambda done: self._forget(lane, done))
        return future

    def lengths(self) -> dict[str, dict[str, int]]:
        """For each device how many inferences run (0 or 1) and how many wait."""
        with self._lock:
            running = {device: sum(f.running() for f in lane.pending) for device, lane in self._lanes.items()}
            return {
                device: {"running": running[device], "waiting": len(lane.pending) - running[device]}
                for device, lane in self._lanes.items()
            }

    def close(self) -> bool:
        """Drop what waits; returns whether nothing runs any more."""
        for lane in self._lanes.values():
            lane.executor.shutdown(wait=False, cancel_futures=True)
        return not any(length["running"] for length in self.lengths().values())

    def _forget(self, lane: _Lane[Result], future: Future[Result]) -> None:
        with self._lock:
            lane.pending.discard(future)


def let_others_first() -> None:
    """Linux has a priority for each thread, and the ones that PyTorch starts from this one inherit it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICER)
