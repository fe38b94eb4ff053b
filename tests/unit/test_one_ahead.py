"""The next thing is made while the last one is in use, and errors come out where they belong."""

import threading

import pytest

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
