"""What the exchange of segmentations asks of a PACS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from store_samples import TISSUES, blocks, scan, store, write

from msklabel.errors import Unreachable
from msklabel.store.core import Store
from msklabel.store.pacs import Pacs, Series
from msklabel.store.schema import Image, LabelVersion
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
    listing = Store(tmp_path / "s", tmp_path / "state", {TISSUES.name: TISSUES}, source=lambda *_: source)
    listing.open()
    exchange = SegmentationExchange(listing, pacs)
    for _ in range(3):
        assert exchange.take_in() == 0
    assert pacs.asked == 2
    assert exchange.outcomes() == {}
    pacs.listed = True
    listing.images.refresh()
    with pytest.raises(Unreachable):  # it would take it in now
        exchange.take_in()
    assert pacs.asked > 2


class Choosy(Pacs):
    """Takes no segmentation of label 1, and has one that it lists and never gives, and one that it gives."""

    def __init__(self) -> None:
        super().__init__("http://pacs.example.org")
        self.got: list[str] = []
        self.tried: list[str] = []

    def series(self, modalities: object) -> Iterator[Series]:
        yield from (Series("1", uid, "SEG") for uid in (["1.7", "1.9"] if modalities == ["SEG"] else []))

    def instances(self, study: str, series: str) -> list[str]:
        self.tried.append(series)
        if series == "1.7":
            raise Unreachable("it has lost that one")
        return []

    def store(self, dataset: pydicom.Dataset) -> None:
        if dataset.SeriesInstanceUID == "2.1":
            raise Unreachable("it refused the object")
        self.got.append(str(dataset.SeriesInstanceUID))


def test_what_the_pacs_does_not_take_or_give_keeps_nothing_else_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        scan(tmp_path / "s" / f"{name}.nii.gz")
    data = store(tmp_path / "s")
    for name in ("a", "b"):
        data.save_label(name, str(write(tmp_path / "l.nii.gz", blocks(3))), "final", {})
    pacs = Choosy()
    exchange = SegmentationExchange(data.store, pacs)

    def written(version: LabelVersion, image: Image) -> Dataset:
        segmentation = Dataset()
        segmentation.SeriesInstanceUID = f"2.{version.id}"
        return segmentation

    monkeypatch.setattr(exchange, "_written", written)
    for _ in range(3):
        with pytest.raises(Unreachable):
            exchange()
    assert pacs.got == ["2.2"]
    assert exchange.outcomes()["1.9"].startswith("refused")
    assert pacs.tried == ["1.7", "1.9", "1.7", "1.7"]
