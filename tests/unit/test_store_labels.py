"""Labels are stored whole, with their history."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import store_samples
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from store_samples import ABDUCTORS, SHAPE, TISSUES, blocks, read, scan, store, write

from msklabel.errors import Conflict, NotFound
from msklabel.store.datastore import MskDatastore
from msklabel.store.schema import LabelVersion

pytestmark = pytest.mark.usefixtures("any_database")


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


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_round_trip(studies: Path, tmp_path: Path, suffix: str) -> None:
    data = store(studies)
    assert save(data, tmp_path / f"label{suffix}", blocks(1, 5, 7), client_id="ann") == "siteA/scan1"
    uri = Path(data.get_label_uri("siteA/scan1", "final"))
    np.testing.assert_array_equal(read(uri), blocks(1, 5, 7))
    assert read(uri).dtype == np.uint8
    assert uri.is_absolute()
    np.testing.assert_array_equal(read(studies / "labels" / "final" / "siteA" / "scan1.nii.gz"), blocks(1, 5, 7))
    info = data.get_label_info("siteA/scan1", "final")
    assert (info["author"], info["origin"], info["system"]) == ("ann", "manual", "hip_tissue_ct")
    assert [entry["idx"] for entry in info["label_info"]] == [1, 5, 7]


def test_two_labels_written_at_once_never_look_the_same(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = store(studies).store.labels
    monkeypatch.setattr("os.fsync", lambda _: None)  # as on a fast disk

    def written(_: int) -> int:
        with labels._written(b"of one size") as file:
            return file.stat().st_mtime_ns

    times = [written(number) for number in range(100)]  # by time and size it is told which label a copy is of
    assert len(set(times)) == len(times)


def test_history_only_grows_and_the_newest_wins(studies: Path, tmp_path: Path) -> None:
    data = store(studies)
    for value in (1, 2, 3):
        save(data, tmp_path / "label.nii.gz", blocks(value))
    history = data.store.labels.history("siteA/scan1")
    assert [version.classes for version in history] == [[list(TISSUES.labels)[value - 1]] for value in (1, 2, 3)]
    for version, value in zip(history, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(read(data.store.labels.file(version)), blocks(value))
    np.testing.assert_array_equal(stored(data), blocks(3))
    np.testing.assert_array_equal(read(studies / "labels" / "final" / "siteA" / "scan1.nii.gz"), blocks(3))
    assert [pair.sha256 for pair in data.training_pairs("hip_tissue_ct")] == [history[-1].sha256]


def test_the_database_itself_refuses_to_change_or_delete_a_version(studies: Path, tmp_path: Path) -> None:
    data = store(studies)
    save(data, tmp_path / "label.nii.gz", blocks(1))
    for statement in ("DELETE FROM label_version", "UPDATE label_version SET author = 'x'"):
        with pytest.raises(DBAPIError, match="never changed or deleted"), data.store._database.write() as session:
            session.execute(text(statement))


def test_a_removed_label_is_marked_and_stays(studies: Path, tmp_path: Path) -> None:
    data = store(studies)
    save(data, tmp_path / "label.nii.gz", blocks(1))
    save(data, tmp_path / "label.nii.gz", blocks(2))
    data.remove_label("siteA/scan1", "final")
    with pytest.raises(NotFound):
        data.get_label_uri("siteA/scan1", "final")
    assert data.status()["completed"] == 0
    assert data.training_pairs("hip_tissue_ct") == []
    assert not (studies / "labels" / "final" / "siteA" / "scan1.nii.gz").exists()
    for version, value in zip(data.store.labels.history("siteA/scan1"), (1, 2), strict=True):
        assert version.withdrawn is not None
        np.testing.assert_array_equal(read(data.store.labels.file(version)), blocks(value))
    again = store(studies)
    assert again.status()["label_tags"] == {}
    with pytest.raises(NotFound):
        again.remove_label("siteA/scan1", "final")


def test_a_label_that_comes_while_one_is_removed_stays(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = store(studies)
    save(data, tmp_path / "label.nii.gz", blocks(1))
    newest = data.store.labels.newest

    def newest_then_another(*asked: str | None) -> LabelVersion:
        found = newest(*asked)
        save(data, tmp_path / "label.nii.gz", blocks(2))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(data.store.labels, "newest", newest_then_another)
        data.store.labels.withdraw("siteA/scan1", "final")
    first, second = data.store.labels.history("siteA/scan1")
    assert first.withdrawn is not None
    assert second.withdrawn is None
    np.testing.assert_array_equal(read(data.get_label_uri("siteA/scan1", "final")), blocks(2))


def test_an_id_that_no_database_could_hold_is_of_no_version(studies: Path) -> None:
    for version in (0, -1, 2**31, 2**63, 10**24):
        with pytest.raises(NotFound, match=f"there is no label version {version}"):
            store(studies).store.labels.get(version)


def test_two_systems_side_by_side(studies: Path, tmp_path: Path) -> None:
    data = store(studies, TISSUES, ABDUCTORS, models={"abductors_threshold": "hip_abductor_mr"})
    save(data, tmp_path / "a.nii.gz", blocks(5, 6), model="hip_tissue_ct")
    save(data, tmp_path / "b.nii.gz", blocks(1, 2, 3), model="abductors_threshold")
    np.testing.assert_array_equal(stored(data, system="hip_tissue_ct"), blocks(5, 6))
    np.testing.assert_array_equal(stored(data, system="hip_abductor_mr"), blocks(1, 2, 3))
    np.testing.assert_array_equal(stored(data), blocks(1, 2, 3))
    assert [read(pair.label).max() for pair in data.training_pairs("hip_tissue_ct")] == [6]
    assert data.status()["systems"] == {"hip_tissue_ct": 1, "hip_abductor_mr": 1}
    assert data.status()["completed"] == 1
    data.remove_label("siteA/scan1", "final")
    np.testing.assert_array_equal(stored(data), blocks(5, 6))
    np.testing.assert_array_equal(read(studies / "labels" / "final" / "siteA" / "scan1.nii.gz"), blocks(5, 6))


def test_origin_follows_from_what_was_there(studies: Path, tmp_path: Path) -> None:
    data = store(studies)
    save(data, tmp_path / "a.nii.gz", blocks(1), "original", model="hip_tissue_ct", params={"model_version": "7"})
    save(data, tmp_path / "a.nii.gz", blocks(2))
    automatic, corrected = data.store.labels.history("siteA/scan1")
    assert (automatic.origin, automatic.base_model) == ("automatic", "7")
    assert corrected.origin == "corrected"


def test_restart_finds_everything(studies: Path, tmp_path: Path) -> None:
    data = store(studies)
    save(data, tmp_path / "label.nii.gz", blocks(4), client_id="ann")
    save(data, tmp_path / "label.nii.gz", blocks(5), "version_1")
    data.update_image_info("siteA/scan1", {"strategy": {"random": {"ts": 1}}})
    data.update_label_info("siteA/scan1", "final", {"segmentationMeta": {"status": "approved"}})
    data.set_name("hips")
    before = data.json()
    (studies / "labels" / "final" / "siteA" / "scan1.nii.gz").unlink()
    again = store(studies)
    assert again.json() == before
    assert again.name() == "hips"
    assert again.get_label_info("siteA/scan1", "final")["segmentationMeta"] == {"status": "approved"}
    np.testing.assert_array_equal(stored(again), blocks(4))
    np.testing.assert_array_equal(read(studies / "labels" / "final" / "siteA" / "scan1.nii.gz"), blocks(4))
    assert len(again.store.labels.history("siteA/scan1")) == 2


def test_threads_share_one_store(studies: Path, tmp_path: Path) -> None:
    data = store(studies)

    def submit(author: int) -> None:
        for turn in range(1, 6):
            save(data, tmp_path / f"{author}.nii.gz", blocks(turn), client_id=str(author))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(submit, range(8)))
    history = data.store.labels.history("siteA/scan1")
    for author in range(8):
        names = [version.classes for version in history if version.author == str(author)]
        assert names == [[list(TISSUES.labels)[turn]] for turn in range(5)]


def test_of_many_who_began_with_the_same_version_one_is_stored(studies: Path, tmp_path: Path) -> None:
    data = store(studies)

    def submit(author: int) -> int | str:
        file = write(tmp_path / f"{author}.nii.gz", blocks(author))
        try:
            return data.submit("siteA/scan1", file, "final", {"client_id": f"ann{author}"}, opened=0).id
        except Conflict as error:
            return str(error)

    with ThreadPoolExecutor(5) as pool:
        said = list(pool.map(submit, range(1, 6)))
    (version,) = data.store.labels.history("siteA/scan1")
    assert version.id in said
    refused = f"{version.author} has submitted version {version.id} of this label since it was opened here"
    assert said.count(refused) == 4
    assert len(list((studies / ".msklabel").rglob("*.nii.gz"))) == 1


def _save_many(studies: Path, folder: Path, author: str, number: int, database: str | None) -> None:
    store_samples.DATABASE = database
    data = store(studies)
    for turn in range(number):
        file = write(folder / f"{author}.nii.gz", blocks(*(np.arange(turn + 1) % 7 + 1)[:6]))
        data.save_label("siteA/scan1", str(file), "final", {"client_id": author, "turn": turn})
        data.update_image_info("scan2", {f"{author}{turn}": turn})


def test_two_processes_lose_nothing(studies: Path, tmp_path: Path, any_database: str | None) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_save_many, args=(studies, tmp_path, author, 20, any_database))
        for author in ("ann", "ben")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    data = store(studies)
    history = data.store.labels.history("siteA/scan1")
    for author in ("ann", "ben"):
        assert [version.info["turn"] for version in history if version.author == author] == list(range(20))
    assert len(history) == 40
    for version in history:
        assert data.store.labels.file(version).exists()
    assert len(data.get_image_info("scan2")) == 40 + 3
    np.testing.assert_array_equal(
        read(studies / "labels" / "final" / "siteA" / "scan1.nii.gz"), read(data.store.labels.file(history[-1]))
    )


def test_a_label_of_a_single_slice_is_as_thick_as_its_scan(tmp_path: Path) -> None:
    """A viewer that knows no Slice Thickness draws on a slice of 1 mm."""
    flat = np.zeros((*SHAPE[:2], 1), np.uint8)
    write(tmp_path / "studies" / "scan1.nii.gz", flat.astype(np.int16), (1.0, 1.5, 3.0))
    flat[1:4, 1:3] = 1
    data = store(tmp_path / "studies")
    version = data.submit("scan1", write(tmp_path / "label.nii.gz", flat, (1.0, 1.5, 1.0)), "final", {})
    kept = sitk.ReadImage(str(data.store.labels.file(version)))
    np.testing.assert_allclose(kept.GetSpacing(), (1.0, 1.5, 3.0))
