"""What ``/info/`` answers: who needs all of it waits for what is new, who needs names alone does not."""

from __future__ import annotations

import asyncio
import threading

from msklabel.serve.info_cache import InfoCache


def test_names_are_given_at_once_while_a_new_answer_is_made() -> None:
    async def look() -> tuple[int, int, int]:
        first = (await cache.latest())["made"]  # nothing is there yet: it waits
        may_go.clear()
        cache.forget()
        meanwhile = asyncio.create_task(cache.get())
        at_once = (await asyncio.wait_for(cache.latest(), 5))["made"]
        may_go.set()
        return first, at_once, (await meanwhile)["made"]

    def compute() -> dict[str, int]:
        may_go.wait(30)
        made.append(len(made) + 1)
        return {"made": made[-1]}

    may_go, made = threading.Event(), []
    may_go.set()
    cache = InfoCache(compute)
    try:
        assert asyncio.run(look()) == (1, 1, 2)
    finally:
        may_go.set()
        cache.close()
