"""Work on one thing while the next is made ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def one_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Future[Made]]:
    """What is made of each item, in order, on a thread that makes the next one while the last one is in use.

    PyTorch gives that thread one core. With a team of threads for each of its operations it would take the cores from
    those who use what it makes, a training above all.

    Args:
        make: Called once for each item, for one at a time; what it raises, ``result()`` of that item raises.
        items: Read one further than what was given.
    """
    cores = torch.get_num_threads()
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(_take_one_core).result()
        torch.set_num_threads(cores)  # of this thread again, and of threads to come
        current: Future[Made] | None = None
        for item in items:
            following = thread.submit(make, item)
            if current is not None:
                yield current
            current = following
        if current is not None:
            yield current


def _take_one_core() -> None:
    torch.get_num_threads()  # a new thread takes up the general number when it is first asked
    torch.set_num_threads(1)
