"""What is read of a store again: what changed, and what was written while others read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from store_samples import scan, store

from msklabel.choose.facts import Facts
from msklabel.choose.opinions import Score
from msklabel.choose.source import StoreSource
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

    def changes_between(self, first: int, last: int) -> tuple[int, int]:
        found = [image.changed_us - first for image in self.images if first < image.changed_us <= last]
        return len(found), sum(found)

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


def test_of_many_images_that_came_just_now_each_is_read_once() -> None:
    rows = Rows()
    for number in range(1000):
        rows.add(f"scan{number}", 1)
    facts = Facts(rows, {}, lambda _: (None, 0))
    for _ in range(3):
        assert len(facts.pool([], [])) == 1000
    assert rows.read == [1000, 0, 0]
    rows.images[0] = replace(rows.images[0], present=False, changed_us=time.time_ns() // 1000)
    assert [len(facts.pool([], [])) for _ in range(2)] == [999, 999]
    assert rows.read == [1000, 0, 0, 1, 0]
    rows.add("late", 2)  # stamped before, committed after
    rows.images[1] = replace(rows.images[1], present=False, changed_us=rows.images[2].changed_us + 1)  # so, too
    assert [len(facts.pool([], [])) for _ in range(2)] == [999, 999]
    assert "late" in facts.pool([], []).ids and "scan1" not in facts.pool([], []).ids


def test_changes_of_a_store_are_counted_with_their_times(tmp_path: Path) -> None:
    for number in range(3):
        scan(tmp_path / "studies" / f"scan{number}.nii.gz", number)
    images = store(tmp_path / "studies").store
    source = StoreSource(images)
    stamps = [image.changed_us for image in source.images_since(-1)]
    first, last = min(stamps) - 10, max(stamps)
    assert source.changes_between(first, last) == (3, sum(stamps) - 3 * first)
    images.images.merge_info("scan1", {"site": "north"})
    assert source.changes_between(first, last)[0] == 2
    assert [image.id for image in source.images_since(last)] == ["scan1"]
    assert source.changes_between(last, last) == (0, 0)
