"""Inferences wait in order, one runs on each device, and what nobody waits for any more is not run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from msklabel.jobs.inference_queue import InferenceQueue, QueueFull


class Recorder:
    """Runs until it is let go; knows what ran, and how much at once."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started = threading.Event()
        self.ran: list[Any] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.started.set()
        self.go.wait(10)
        with self._lock:
            self.ran.append(request["n"])
            self.at_once -= 1
        return {"n": request["n"]}


def test_one_at_a_time_in_order() -> None:
    infer = Recorder()
    queue = InferenceQueue(infer)
    futures = [queue.submit({"n": n}) for n in range(5)]
    infer.started.wait(5)
    assert queue.lengths() == {"cpu": {"running": 1, "waiting": 4}}
    infer.go.set()
    assert [future.result(5)["n"] for future in futures] == [0, 1, 2, 3, 4]
    assert infer.ran == [0, 1, 2, 3, 4]
    assert infer.most_at_once == 1
    assert queue.close()


def test_a_device_each() -> None:
    infer = Recorder()
    queue = InferenceQueue(infer, ("cuda:0", "cuda:1"))
    named = [queue.submit({"n": n, "device": "cuda:1"}) for n in range(2)]
    shortest = queue.submit({"n": 9})
    assert {device: sum(length.values()) for device, length in queue.lengths().items()} == {"cuda:0": 1, "cuda:1": 2}
    infer.go.set()
    for future in (*named, shortest):
        future.result(5)
    assert infer.most_at_once == 2


def test_a_cancelled_one_is_not_run() -> None:
    infer = Recorder()
    queue = InferenceQueue(infer)
    first, second, third = (queue.submit({"n": n}) for n in range(3))
    infer.started.wait(5)
    assert second.cancel()
    assert not first.cancel()
    assert queue.lengths()["cpu"] == {"running": 1, "waiting": 1}
    infer.go.set()
    third.result(5)
    assert infer.ran == [0, 2]


def test_a_full_queue_refuses() -> None:
    infer = Recorder()
    queue = InferenceQueue(infer, most_waiting=2)
    for n in range(3):
        queue.submit({"n": n})
    with pytest.raises(QueueFull, match="2 inferences are waiting") as refused:
        queue.submit({"n": 3})
    assert refused.value.status == 429
    infer.go.set()


def test_an_error_is_the_callers() -> None:
    def infer(request: Mapping[str, Any]) -> None:
        raise ValueError("no")

    queue = InferenceQueue(infer)
    with pytest.raises(ValueError, match="no"):
        queue.submit({}).result(5)
    assert queue.lengths()["cpu"] == {"running": 0, "waiting": 0}
