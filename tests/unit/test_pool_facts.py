"""What is read of a store again: what changed, and what was written while others read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from msklabel.choose.facts import Facts
from msklabel.choose.opinions import Score
from msklabel.store.fit import ChangedImage

SECOND_US = 1_000_000


@dataclass
class Rows:
    """A store's table of images; notes how many rows each reading takes."""

    images: list[ChangedImage] = field(default_factory=list)
    read: list[int] = field(default_factory=list)

    def images_since(self, instant: int) -> list[ChangedImage]:
        found = [image for image in self.images if image.changed_us > instant]
        self.read.append(len(found))
        return found

    def scores_since(self, system: str, row_id: int, most: int) -> Sequence[Score]:
        return []

    def add(self, name: str, seconds_ago: float) -> None:
        changed_us = time.time_ns() // 1000 - round(seconds_ago * SECOND_US)
        self.images.append(ChangedImage(name, name, "", True, changed_us))


def test_images_that_were_written_long_ago_are_read_once() -> None:
    rows = Rows()
    for number in range(100):
        rows.add(f"scan{number}", 60)
    facts = Facts(rows, {}, lambda _: (None, 0))
    for _ in range(3):
        assert len(facts.pool([], [])) == 100
    rows.add("new", 30)
    assert len(facts.pool([], [])) == 101
    assert rows.read == [100, 0, 0, 1]


def test_an_image_whose_row_comes_later_than_a_younger_one_is_found() -> None:
    rows = Rows()
    rows.add("younger", 0.5)
    facts = Facts(rows, {}, lambda _: (None, 0))
    assert list(facts.pool([], []).ids) == ["younger"]
    rows.add("older", 2)  # stamped before, committed after
    assert list(facts.pool([], []).ids) == ["older", "younger"]
