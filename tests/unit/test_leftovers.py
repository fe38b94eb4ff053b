"""What is made among the temporary files goes again: after results, archives, and databases that were salvaged."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

import pytest
from store_samples import TISSUES, blocks, scan, store, write

import msklabel.store.archive as archive
from msklabel.errors import UserError
from msklabel.predict.ahead import Ahead, name_of_result
from msklabel.predict.task import ClassicalTask, ModelTask
from msklabel.work import Work
from msklabel_phantoms.write import write_phantoms


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """What a job works with, on one phantom."""
    list(write_phantoms(TISSUES.name, tmp_path, count=1, seed=7, shape=(48, 36, 4), spacing_mm=(8, 8, 5)))
    return Work("", str(tmp_path / "images"), {"models": TISSUES.name, "profile": "demo"})


def test_a_result_is_one_file_which_a_batch_removes(work: Work, temporary: Path) -> None:
    draft = f"{TISSUES.name}_threshold"
    (image,) = work.datastore().list_images()
    file = work.infer({"model": draft, "image": image})["file"]
    assert [str(path) for path in temporary.iterdir()] == [file]
    Path(file).unlink()
    work.batch_infer({"model": draft})
    assert not list(temporary.iterdir())


def test_a_result_that_cannot_be_stored_is_removed(work: Work, temporary: Path) -> None:
    (image,) = work.datastore().list_images()
    with pytest.raises(UserError, match="tag"):
        work.infer({"model": f"{TISSUES.name}_threshold", "image": image, "save_label": True, "label_tag": "../x"})
    assert not list(temporary.iterdir())


def test_what_is_segmented_ahead_leaves_the_kept_file_only(
    work: Work, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, drafts = work._infers[TISSUES.name], ClassicalTask(TISSUES)
    assert isinstance(task, ModelTask)
    monkeypatch.setattr(task, "segment", drafts.segment)
    task.ahead = Ahead(1)
    (image,) = work.datastore().list_images()
    request = {"image": work.datastore().get_image_uri(image)}
    task.segment_ahead(request)
    (kept,) = temporary.iterdir()
    found = task.ready(request)
    assert found
    assert name_of_result(Path(found[0])) == f"{TISSUES.name}.nii.gz"
    Path(found[0]).unlink()
    assert list(temporary.iterdir()) == [kept]


def test_archives_that_nobody_removes_do_not_pile_up(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_OPENED_S", 0.0)
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s")
    data.save_label("a", str(write(tmp_path / "l.nii.gz", blocks(3))), "final", {})
    made = [data.get_dataset_archive(None) for _ in range(3)]
    assert [str(path) for path in temporary.iterdir()] == made[-1:]
    del data
    gc.collect()
    assert not list(temporary.iterdir())


def test_the_copy_of_a_damaged_database_goes_with_its_store(tmp_path: Path, temporary: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data: Any = store(tmp_path / "s")
    data.save_label("a", str(write(tmp_path / "l.nii.gz", blocks(3))), "final", {})
    data.store._database.engine.dispose()
    (tmp_path / "s" / ".msklabel" / "msklabel.db").write_bytes(b"damaged" * 100)
    data = store(tmp_path / "s")
    assert data.store.read_only
    assert len(list(temporary.iterdir())) == 1
    del data
    gc.collect()
    assert not list(temporary.iterdir())
