"""The next thing is made while the last one is in use, and errors come out where they belong."""

import threading

import pytest
import torch

from msklabel.pipeline.one_ahead import one_ahead


def test_the_next_is_made_while_the_first_is_in_use() -> None:
    second = threading.Event()

    def make(item: int) -> int:
        if item == 2:
            second.set()
        return item * 10

    made = one_ahead(make, [1, 2, 3])
    assert next(made).result() == 10
    assert second.wait(5)
    assert [future.result() for future in made] == [20, 30]


def test_what_cannot_be_made_raises_in_its_turn_only() -> None:
    def make(item: int) -> float:
        return 6 / item

    first, broken, last = one_ahead(make, [1, 0, 2])
    assert first.result() == 6
    with pytest.raises(ZeroDivisionError):
        broken.result()
    assert last.result() == 3


def test_nothing_comes_of_nothing_and_whoever_stops_early_waits_for_no_more() -> None:
    assert list(one_ahead(str, [])) == []
    made = one_ahead(str, range(1000))
    next(made)
    made.close()


def test_only_the_thread_ahead_is_held_to_one_core() -> None:
    cores = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        made = one_ahead(lambda _: torch.get_num_threads(), range(2))
        assert [future.result() for future in made] == [1, 1]
        assert torch.get_num_threads() == 3
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
    finally:
        torch.set_num_threads(cores)
