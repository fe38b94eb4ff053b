"""A label that cannot be right, or does not fit on the disk, leaves nothing."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import SHAPE, blocks, read, scan, store, write

from msklabel.errors import NotFound, StorageFull, Unreachable, UserError
from msklabel.imaging import ImageError
from msklabel.store.core import Store
from msklabel.store.datastore import MskDatastore


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    scan(folder / "siteA" / "scan1.nii.gz")
    scan(folder / "scan2.nrrd", seed=2)
    return folder


def save(data: MskDatastore, file: Path, array: np.ndarray, tag: str = "final", **info: Any) -> str:
    return data.save_label("siteA/scan1", str(write(file, array)), tag, info)


def stored(data: MskDatastore, tag: str = "final", system: str | None = None) -> np.ndarray:
    return read(data.get_label_uri("siteA/scan1", tag, system))


def state_files(studies: Path) -> list[str]:
    return sorted(path.name for path in (studies / ".msklabel" / "labels").iterdir())


def bad_labels() -> dict[str, tuple[Any, str]]:
    wide = np.zeros((9, 7, 5), np.uint8)
    wide[1] = 1
    return {
        "size": ((wide, {}), r"expected 8 x 7 x 5 voxels of 1 x 1.5 x 2 mm, got 9 x 7 x 5 voxels"),
        "spacing": ((blocks(1), {"spacing_mm": (1.0, 1.5, 3.0)}), r"got 8 x 7 x 5 voxels of 1 x 1.5 x 3 mm"),
        "place": ((blocks(1), {"origin_mm": (10.0, -20.0, 33.0)}), r"expected the matrix to RAS mm .* 30, got .* 33"),
        "index": (
            (blocks(1, 8, 200), {}),
            r"voxel values \[8, 200\] are no labels of hip_tissue_ct; its labels are",
        ),
        "empty": ((blocks(), {}), r"no voxel is labelled"),
        "fraction": ((blocks(1) * np.float32(0.5), {}), r"whole numbers"),
    }


@pytest.mark.parametrize("case", bad_labels())
def test_a_label_that_cannot_be_right_is_refused(studies: Path, tmp_path: Path, case: str) -> None:
    data = store(studies)
    (array, geometry), message = bad_labels()[case]
    file = write(tmp_path / "bad.nii.gz", array, **geometry)
    with pytest.raises(UserError, match=message):
        data.save_label("siteA/scan1", str(file), "final", {})
    assert state_files(studies) == []
    assert data.store.labels.history("siteA/scan1") == []
    assert not (studies / "labels").exists()


def test_half_a_file_is_refused(studies: Path, tmp_path: Path) -> None:
    data = store(studies)
    noise = np.random.default_rng(1).integers(1, 8, SHAPE).astype(np.uint8)
    whole = write(tmp_path / "whole.nii.gz", noise).read_bytes()
    half = tmp_path / "half.nii.gz"
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError):
        data.save_label("siteA/scan1", str(half), "final", {})
    assert state_files(studies) == []


@pytest.mark.parametrize("image_id", ["../scan", "/etc/passwd", "siteA/../scan2", "siteA\\scan1", "a\0b", "", ".", "x"])
def test_an_image_id_from_outside_reaches_no_path(studies: Path, tmp_path: Path, image_id: str) -> None:
    scan(studies.parent / "scan.nii.gz")
    data = store(studies)
    file = str(write(tmp_path / "label.nii.gz", blocks(1)))
    with pytest.raises(NotFound):
        data.save_label(image_id, file, "final", {})
    with pytest.raises(NotFound):
        data.get_image_uri(image_id)
    with pytest.raises(NotFound):
        data.get_label_uri(image_id, "final")


@pytest.mark.parametrize("tag", ["../x", "a/b", "", ".", "a" * 65, "final\n", "a b"])
def test_a_tag_from_outside_reaches_no_path(studies: Path, tmp_path: Path, tag: str) -> None:
    data = store(studies)
    with pytest.raises(UserError, match="label tag"):
        save(data, tmp_path / "label.nii.gz", blocks(1), tag)
    with pytest.raises(UserError, match="label tag"):
        data.get_label_uri("siteA/scan1", tag)
    assert state_files(studies) == []


@pytest.mark.parametrize("call", range(2))
def test_a_full_disk_leaves_nothing(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Whatever flush fails, of the file or of its folder: no file, no row, and the next attempt succeeds."""
    data = store(studies)
    file = write(tmp_path / "label.nii.gz", blocks(1))
    data.store.images.grid("siteA/scan1")
    calls = 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="disk is full"):
        data.save_label("siteA/scan1", str(file), "final", {})
    assert state_files(studies) == []
    assert data.store.labels.history("siteA/scan1") == []
    assert not list(studies.rglob(".writing-*"))
    monkeypatch.undo()
    data.save_label("siteA/scan1", str(file), "final", {})
    np.testing.assert_array_equal(stored(data), blocks(1))


def test_a_full_database_leaves_nothing(studies: Path, tmp_path: Path) -> None:
    data = store(studies)
    data.store.images.grid("siteA/scan1")
    with sqlite3.connect(studies / ".msklabel" / "msklabel.db") as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    with data.store._database.engine.connect() as connection:
        connection.connection.dbapi_connection.execute(f"PRAGMA max_page_count={pages}")  # type: ignore[union-attr]
    with pytest.raises(StorageFull):
        save(data, tmp_path / "label.nii.gz", blocks(1), remark="x" * 100_000)
    assert state_files(studies) == []


def test_info_must_be_an_object(studies: Path, tmp_path: Path) -> None:
    data = store(studies)
    file = str(write(tmp_path / "label.nii.gz", blocks(1)))
    for call in (
        lambda: data.save_label("siteA/scan1", file, "final", ["x"]),  # type: ignore[arg-type]
        lambda: data.update_image_info("siteA/scan1", "{}"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError, match="expected a JSON object"):
            call()
    assert state_files(studies) == []


def test_a_postgresql_that_does_not_answer_is_said_in_one_sentence(tmp_path: Path) -> None:
    store = Store(tmp_path, tmp_path / "state", {}, database="postgresql://nobody@127.0.0.1:1/x")
    with pytest.raises(Unreachable, match=r"the database does not answer: .*refused") as refused:
        store.open()
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
