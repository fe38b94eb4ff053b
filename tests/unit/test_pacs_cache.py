"""The series of a PACS that are kept here: whole or not there, within bounds, whoever else is at them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from msklabel.imaging.files import stamp_of
from msklabel.store.pacs import Pacs
from msklabel.store.source import PacsSource


class Hundred(Pacs):
    """Every series is one file of 100 bytes."""

    def __init__(self) -> None:
        super().__init__("http://pacs.example.org")

    def fetch(self, study: str, series: str, target: Path, progress: object = None) -> None:
        target.mkdir()
        (target / "0.dcm").write_bytes(bytes(100))


def located(source: PacsSource, uid: str, used: int) -> Path:
    """Fetch a series; it counts as used at that second."""
    folder = source.locate(uid, f"1/{uid}")
    os.utime(folder / ".used", (used, used))
    return folder


def kept(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_the_longest_unused_series_goes_when_another_is_fetched(tmp_path: Path) -> None:
    source = PacsSource(Hundred(), tmp_path, ["CT"], most_bytes=250)
    for used, uid in enumerate(("1.1", "1.2")):
        located(source, uid, used)
    located(source, "1.1", 5)
    located(source, "1.3", 6)
    assert kept(tmp_path) == ["1.1", "1.3"]


def test_a_series_that_was_used_again_is_the_same_scan(tmp_path: Path) -> None:
    source = PacsSource(Hundred(), tmp_path, ["CT"])
    before = stamp_of(located(source, "1.1", 1))
    assert stamp_of(source.locate("1.1", "1/1.1")) == before
    (tmp_path / "1.1" / "0.dcm").write_bytes(bytes(50))
    assert stamp_of(tmp_path / "1.1") != before


def test_a_series_that_somebody_is_at_stays(tmp_path: Path) -> None:
    source = PacsSource(Hundred(), tmp_path, ["CT"], most_bytes=150)
    located(source, "1.1", 1)
    located(source, "1.2", 2)
    assert kept(tmp_path) == ["1.2"]
    with FileLock(tmp_path / ".1.2.lock"):  # fetched by another process this moment, and not used yet
        located(source, "1.3", 3)
        assert kept(tmp_path) == ["1.2", "1.3"]
    located(source, "1.4", 4)
    assert kept(tmp_path) == ["1.4"]


def test_what_a_killed_process_left_is_removed_and_never_taken_for_whole(tmp_path: Path) -> None:
    for left in (".part-1.1", ".part-1.2"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "0.dcm").write_bytes(bytes(10))
    source = PacsSource(Hundred(), tmp_path, ["CT"])
    with FileLock(tmp_path / ".1.2.lock"):  # this one is being fetched
        located(source, "1.1", 1)
        assert kept(tmp_path) == [".part-1.2", "1.1"]
    assert (tmp_path / "1.1" / "0.dcm").stat().st_size == 100


def test_a_series_is_renamed_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PacsSource(Hundred(), tmp_path, ["CT"], most_bytes=150)
    located(source, "1.1", 1)
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: None)  # the process is killed as it begins
    located(source, "1.2", 2)
    assert "1.1" not in kept(tmp_path)


def test_a_series_that_is_there_costs_no_look_at_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PacsSource(Hundred(), tmp_path, ["CT"])
    located(source, "1.1", 1)
    monkeypatch.setattr("msklabel.store.source._size", lambda folder: pytest.fail(f"{folder} was looked at"))
    located(source, "1.1", 2)
