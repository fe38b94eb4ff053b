"""Work on one thing while the next is made ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def one_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Future[Made]]:
    """What is made of each item, in order, on a thread that makes the next one while the last one is in use.

    Args:
        make: Called once for each item, for one at a time; what it raises, ``result()`` of that item raises.
        items: Read one further than what was given.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        current: Future[Made] | None = None
        for item in items:
            following = thread.submit(make, item)
            if current is not None:
                yield current
            current = following
        if current is not None:
            yield current
