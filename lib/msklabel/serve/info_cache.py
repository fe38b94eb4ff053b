"""What ``GET /info/`` answers, ready before it is asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

_FRESH_S = 1.0
_USABLE_S = 10.0


class InfoCache:
    """Keeps the last answer; refreshes it on threads that nothing else uses.

    An answer of up to ten seconds is given at once while a new one is made, unless something was stored since: then
    the request waits for the new one. Used from one event loop; only ``forget`` may be called from any thread.

    Args:
        compute: Makes the answer; may read the database, must not walk the disk for long.
    """

    def __init__(self, compute: Callable[[], dict[str, Any]]) -> None:
        self._compute = compute
        self._pool: Executor = ThreadPoolExecutor(1, "info")
        self._changes = 0
        self._value: dict[str, Any] = {}
        self._value_changes = -1
        self._made_s = 0.0
        self._refresh: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """Something was stored: the next answer must show it."""
        self._changes += 1

    async def get(self) -> dict[str, Any]:
        """The answer; not to be changed by the caller."""
        age_s = time.monotonic() - self._made_s
        if self._value_changes == self._changes and age_s < _USABLE_S:
            if age_s > _FRESH_S:
                self._start()
            return self._value
        changes = self._changes
        while self._value_changes < changes or time.monotonic() - self._made_s > _USABLE_S:
            await asyncio.shield(self._start())
        return self._value

    async def latest(self) -> dict[str, Any]:
        """The last answer, however old: for names and options of models and strategies, which stay as they are."""
        return self._value or await self.get()

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> asyncio.Task[None]:
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._make())
        return self._refresh

    async def _make(self) -> None:
        changes = self._changes
        value = await asyncio.get_running_loop().run_in_executor(self._pool, self._compute)
        self._value, self._value_changes, self._made_s = value, changes, time.monotonic()
