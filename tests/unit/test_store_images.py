"""Images are found where users put them, and never changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from store_samples import ABDUCTORS, SHAPE, TISSUES, blocks, read, scan, store, write

from msklabel.errors import NotFound, UserError
from msklabel.store.source import FolderSource


def dicom_series(folder: Path, suffix: str, slices: int = 3, patient: str = "P7") -> Path:
    """Write a small CT series."""
    folder.mkdir(parents=True)
    series = generate_uid()
    for number in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = folder / f"IM{number}{suffix}"
        data = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID = series, generate_uid()
        data.PatientID, data.Modality, data.InstitutionName = patient, "CT", "Site A"
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 4, 5, 1, "MONOCHROME2"
        data.PixelSpacing, data.SliceThickness = [1, 1], 2
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.RescaleSlope, data.RescaleIntercept = 15, 1, 1, 0
        data.PixelData = np.full((4, 5), number, np.int16).tobytes()
        pydicom.dcmwrite(file, data, write_like_original=False)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and bytes of every file outside our own folders."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".msklabel" not in path.parts
    }


def test_every_kind_of_image_is_found_and_nothing_else(tmp_path: Path) -> None:
    scan(tmp_path / "a.nii.gz")
    scan(tmp_path / "b.nii")
    scan(tmp_path / "siteA" / "deep" / "c.nrrd")
    scan(tmp_path / "siteA" / "d.mha")
    scan(tmp_path / ".hidden.nii.gz")
    scan(tmp_path / ".cache" / "e.nii.gz")
    (tmp_path / "readme.txt").write_text("no image")
    dicom_series(tmp_path / "siteB" / "ct1", ".dcm")
    dicom_series(tmp_path / "siteB" / "ct2", "")
    before = snapshot(tmp_path)
    data = store(tmp_path)
    assert data.list_images() == ["a", "b", "siteA/d", "siteA/deep/c", "siteB/ct1", "siteB/ct2"]
    assert data.get_image_uri("siteA/deep/c") == str(tmp_path / "siteA" / "deep" / "c.nrrd")
    assert data.get_image_uri("siteB/ct2") == str(tmp_path / "siteB" / "ct2")
    assert data.get_image_info("siteA/d")["name"] == "d.mha"
    assert data.status() == {"total": 6, "completed": 0, "label_tags": {}, "systems": {"hip_tissue_ct": 0}}
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["CT.{}", "{}", "HIP.CT.0002.{}.IMA", "IM{}.dicom", "IMG{}"])
def test_a_dicom_series_is_found_whatever_its_files_are_called(tmp_path: Path, name: str) -> None:
    dicom_series(tmp_path / "s" / "disc" / "ct", "")
    (tmp_path / "s" / "disc" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "s" / "disc" / "notes.2024").write_text("no image")
    for number, file in enumerate(sorted((tmp_path / "s" / "disc" / "ct").iterdir())):
        file.rename(file.with_name(name.format(f"1.2.840.{number}" if "." in name or name == "{}" else number)))
    data = store(tmp_path / "s")
    assert data.list_images() == ["disc/ct"]
    assert data.store.images.grid("disc/ct").shape == (5, 4, 3)


def test_a_dicom_series_takes_a_label_and_knows_its_patient(tmp_path: Path) -> None:
    dicom_series(tmp_path / "s" / "ct", ".dcm")
    data = store(tmp_path / "s", TISSUES, ABDUCTORS)
    label = np.zeros((5, 4, 3), np.uint8)
    label[2:4, 1, 0] = 5
    file = write(tmp_path / "label.nii.gz", label, (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
    data.save_label("ct", str(file), "final", {"model": "hip_tissue_ct"})
    (pair,) = data.training_pairs("hip_tissue_ct")
    assert (pair.patient, pair.image) == ("P7", tmp_path / "s" / "ct")
    np.testing.assert_array_equal(read(pair.label), label)


def test_patient_is_what_was_noted_else_the_image(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    scan(tmp_path / "s" / "b.nii.gz")
    data = store(tmp_path / "s")
    for image_id in ("a", "b"):
        data.save_label(image_id, str(write(tmp_path / "l.nii.gz", blocks(1))), "final", {})
    data.update_image_info("b", {"patient": "anna"})
    assert [pair.patient for pair in data.training_pairs("hip_tissue_ct")] == ["a", "anna"]


def test_an_image_disappears_and_comes_back(tmp_path: Path) -> None:
    studies = tmp_path / "s"
    file = scan(studies / "siteA" / "a.nii.gz")
    scan(studies / "b.nii.gz")
    data = store(studies)
    data.save_label("siteA/a", str(write(tmp_path / "l.nii.gz", blocks(2, 3))), "final", {})
    data.update_image_info("siteA/a", {"note": "good"})
    shutil.move(studies / "siteA", tmp_path / "away")
    data.refresh()
    assert data.list_images() == ["b"]
    assert data.training_pairs("hip_tissue_ct") == []
    with pytest.raises(NotFound, match="at present"):
        data.get_image_uri("siteA/a")
    data.save_label("siteA/a", str(write(tmp_path / "l.nii.gz", blocks(4))), "final", {})  # drawn while it was there
    shutil.move(tmp_path / "away", studies / "siteA")
    data = store(studies)
    assert data.list_images() == ["b", "siteA/a"]
    assert data.get_image_info("siteA/a")["note"] == "good"
    assert data.get_image_uri("siteA/a") == str(file)
    assert [v.classes for v in data.store.labels.history("siteA/a")] == [
        ["trabecular_bone", "haematopoietic_bone_marrow"],
        ["marrow_adipose_tissue"],
    ]


def test_a_new_image_is_noticed_without_being_asked(tmp_path: Path) -> None:
    data = store(tmp_path)
    data.store.images._glance_s = 0
    scan(tmp_path / "new" / "a.nii.gz")
    assert data.list_images() == ["new/a"]
    scan(tmp_path / "new" / "b.nii.gz")
    assert Path(data.get_image_uri("new/b")).exists()


def test_what_cannot_be_read_is_offered_to_nobody_until_its_file_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        scan(tmp_path / "s" / f"{name}.nii.gz")
    file = tmp_path / "s" / "a.nii.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    data = store(tmp_path / "s")
    for _ in range(3):
        assert data.take_next(["a", "b"], "anna") == "b"
    assert caplog.text.count("a cannot be read: a.nii.gz: ") == 1
    assert list(data.store.images.unreadable()) == ["a"]
    assert {image.id: image.present for image in data.store.changed_images(-1)} == {"a": False, "b": True}
    data.store.images.merge_info("a", {"note": "mine"})
    file.write_bytes(whole)
    os.utime(file, ns=(1, 1))
    data.store.images.refresh()
    assert data.store.images.unreadable() == {} and data.is_readable("a")
    assert data.get_image_info("a")["note"] == "mine"
    assert all(image.present for image in data.store.changed_images(-1))
    os.utime(file, ns=(2, 2))
    data.store.images.refresh()
    monkeypatch.setattr("msklabel.store.images._can_be_opened", lambda path: False)  # as on a share that is away
    file.write_bytes(b"")
    assert not data.is_readable("a") and data.store.images.unreadable() == {}


def test_a_replaced_image_is_read_again(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s")
    data.save_label("a", str(write(tmp_path / "l.nii.gz", blocks(1))), "final", {})
    write(tmp_path / "s" / "a.nii.gz", np.zeros((3, 3, 3), np.int16))
    with pytest.raises(UserError, match="expected 3 x 3 x 3"):
        data.save_label("a", str(tmp_path / "l.nii.gz"), "final", {})


def test_of_two_images_with_one_id_the_first_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scan(tmp_path / "a.nii.gz")
    scan(tmp_path / "a.nrrd")
    data = store(tmp_path)
    assert data.get_image_info("a")["name"] == "a.nii.gz"
    assert "same id" in caplog.text


def test_what_is_left_out_is_told_once_until_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scan(tmp_path / "a.nii.gz")
    scan(tmp_path / "a.nrrd")
    source = FolderSource(tmp_path)

    def told() -> int:
        caplog.clear()
        assert set(source.contents().images) == {"a"}
        return len(caplog.messages)

    assert [told(), told()] == [1, 0]
    (tmp_path / "a.nrrd").rename(tmp_path / "a.mha")
    assert [told(), told()] == [1, 0]
    (tmp_path / "a.mha").rename(tmp_path / "away")
    assert told() == 0
    (tmp_path / "away").rename(tmp_path / "a.mha")
    assert told() == 1


def test_shape_in_samples_is_that_of_the_scan(tmp_path: Path) -> None:
    scan(tmp_path / "a.nii.gz")
    data = store(tmp_path)
    grid = data.store.images.grid("a")
    assert grid.shape == SHAPE
    np.testing.assert_allclose(grid.affine, [[-1, 0, 0, -10], [0, -1.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]])
