"""What the exchange of segmentations asks of a PACS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from store_samples import TISSUES

from msklabel.errors import Unreachable
from msklabel.store.core import Store
from msklabel.store.pacs import Pacs, Series
from msklabel.store.segmentations import SegmentationExchange
from msklabel.store.source import PacsSource


class Elsewhere(Pacs):
    """Holds one segmentation, of a series that is listed once ``listed`` says so; counts what is asked."""

    def __init__(self) -> None:
        super().__init__("http://pacs.example.org")
        self.listed = False
        self.asked = 0

    def series(self, modalities: object) -> Iterator[Series]:
        if modalities == ["SEG"]:
            yield Series("1", "1.9", "SEG")
        elif self.listed:
            yield Series("1", "1.2", "CT")

    def instances(self, study: str, series: str) -> list[str]:
        self.asked += 1
        return ["1.9.1"]

    def get(self, study: str, series: str, instance: str) -> pydicom.Dataset:
        self.asked += 1
        segmentation, referenced = Dataset(), Dataset()
        referenced.SeriesInstanceUID = "1.2"
        segmentation.ReferencedSeriesSequence = [referenced]
        return segmentation

    def fetch(self, study: str, series: str, target: Path, progress: object = None) -> None:
        raise Unreachable("it is down")


def test_a_segmentation_of_a_scan_that_is_not_listed_is_fetched_once_until_it_is(tmp_path: Path) -> None:
    pacs = Elsewhere()
    source = PacsSource(pacs, tmp_path / "s", ["CT"])
    store = Store(tmp_path / "s", tmp_path / "state", {TISSUES.name: TISSUES}, source=lambda *_: source)
    store.open()
    exchange = SegmentationExchange(store, pacs)
    for _ in range(3):
        assert exchange.take_in() == 0
    assert pacs.asked == 2
    assert exchange.outcomes() == {}
    pacs.listed = True
    store.images.refresh()
    with pytest.raises(Unreachable):  # it would take it in now
        exchange.take_in()
    assert pacs.asked > 2
