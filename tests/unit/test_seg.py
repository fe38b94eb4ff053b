"""DICOM Segmentations: what goes in comes out, for every kind of image, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_samples import OBLIQUE, STRAIGHT, radiograph, read_back, series
from skimage.color import lab2rgb

from msklabel.catalogue import load_catalogue
from msklabel.imaging import ImageError, LabelMap
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_scan
from msklabel.imaging.seg_read import read_seg
from msklabel.imaging.seg_write import Drawn, write_seg

SYSTEM = load_catalogue()["hip_tissue_ct"]
MODEL = Drawn("SEMIAUTOMATIC", "hip_tissue_ct", "0003", "ann", "corrected")


def sources_in(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in series_files(folder)]


def sparse_labels(shape: tuple[int, int, int], indices: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Blobs of single voxels of some labels, with whole slices left empty."""
    labels = np.random.default_rng(seed).choice([0, 0, 0, *indices], shape).astype(np.uint8)
    labels[..., 1] = 0
    return labels


@pytest.mark.parametrize(
    ("modality", "orientation"),
    [("CT", STRAIGHT), ("MR", OBLIQUE), ("CT", (-1, 0, 0, 0, 1, 0)), ("MR", (0, 1, 0, 0, 0, -1))],
)
@pytest.mark.parametrize("columns", [20, 19])
def test_labels_come_back_voxel_for_voxel(tmp_path: Path, modality: str, orientation: tuple, columns: int) -> None:
    series(tmp_path / "series", (columns, 15, 6), modality, orientation)
    sources, scan = sources_in(tmp_path / "series"), read_scan(tmp_path / "series")
    labels = LabelMap(sparse_labels(scan.shape, (1, 3, 7)), scan.affine)
    stored = read_back(tmp_path / "seg.dcm", write_seg(labels, sources, SYSTEM.labels, MODEL, SYSTEM.name))
    again = read_seg(stored, sources, scan.affine, SYSTEM.labels)
    np.testing.assert_array_equal(again.array, labels.array)
    np.testing.assert_array_equal(again.affine, scan.affine)


@pytest.mark.parametrize("kind", ["tilted", "uneven"])
def test_a_series_that_can_be_read_can_have_a_segmentation(tmp_path: Path, kind: str) -> None:
    for image in series(tmp_path / "series", (20, 16, 40), spacing_mm=(0.5, 0.5, 6.0)):
        number = image.InstanceNumber
        off_mm = (0, 0.05 * number, 0) if kind == "tilted" else (0, 0, 0.05 * (number % 2))
        place = np.add(image.ImagePositionPatient, off_mm)
        image.ImagePositionPatient = [float(value) for value in place]
        image.save_as(tmp_path / "series" / f"{41 - number:04d}.dcm", write_like_original=False)
    sources, scan = sources_in(tmp_path / "series"), read_scan(tmp_path / "series")
    labels = LabelMap(sparse_labels(scan.shape, (1, 3)), scan.affine)
    stored = read_back(tmp_path / "seg.dcm", write_seg(labels, sources, SYSTEM.labels, MODEL, SYSTEM.name))
    np.testing.assert_array_equal(read_seg(stored, sources, scan.affine, SYSTEM.labels).array, labels.array)
    flipped = LabelMap(labels.array, scan.affine @ np.diag([1.0, 1.0, -1.0, 1.0]))
    with pytest.raises(ImageError, match="does not lie"):
        write_seg(flipped, sources, SYSTEM.labels, MODEL, SYSTEM.name)


@pytest.mark.parametrize(
    ("written", "name"), [("ISO_IR 192", "王^小東"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")]
)
def test_names_keep_their_script(tmp_path: Path, written: str | list[str], name: str) -> None:
    for image in series(tmp_path / "series"):
        image.SpecificCharacterSet, image.PatientName = written, name
        image.save_as(tmp_path / "series" / f"{7 - image.InstanceNumber:04d}.dcm", write_like_original=False)
    sources, scan = sources_in(tmp_path / "series"), read_scan(tmp_path / "series")
    labels = LabelMap(sparse_labels(scan.shape, (1,)), scan.affine)
    drawn = Drawn("MANUAL", author="HOSPITAL\\佐藤=x")
    stored = read_back(tmp_path / "seg.dcm", write_seg(labels, sources, SYSTEM.labels, drawn, SYSTEM.name))
    assert (str(stored.PatientName), str(stored.ContentCreatorName)) == (name, "HOSPITAL 佐藤 x^")


def test_a_radiograph_has_no_place_in_the_patient_and_comes_back_too(tmp_path: Path) -> None:
    system = load_catalogue()["hip_radiograph"]
    source, scan = radiograph(tmp_path / "cr.dcm"), read_scan(tmp_path / "cr.dcm")
    labels = LabelMap(sparse_labels((*scan.shape[:2], 3), (2, 5))[..., :1], scan.affine)
    stored = read_back(tmp_path / "seg.dcm", write_seg(labels, [source], system.labels, MODEL, system.name))
    np.testing.assert_array_equal(read_seg(stored, [source], scan.affine, system.labels).array, labels.array)
    other = radiograph(tmp_path / "other.dcm")
    with pytest.raises(ImageError, match="other images"):
        read_seg(stored, [other], scan.affine, system.labels)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[pydicom.Dataset, list[pydicom.Dataset], LabelMap]:
    """A segmentation of labels 1 and 3 with its sources."""
    series(tmp_path / "series")
    sources, scan = sources_in(tmp_path / "series"), read_scan(tmp_path / "series")
    labels = LabelMap(sparse_labels(scan.shape, (1, 3)), scan.affine)
    made = write_seg(labels, sources, SYSTEM.labels, MODEL, SYSTEM.name)
    return read_back(tmp_path / "seg.dcm", made), sources, labels


def test_code_name_colour_and_algorithm_are_kept(stored: tuple) -> None:
    segments = list(stored[0].SegmentSequence)
    assert [item.SegmentNumber for item in segments] == [1, 2]
    marrow = segments[1]
    assert marrow.SegmentLabel == "Haematopoietic bone marrow"
    code = marrow.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodingSchemeDesignator, code.LongCodeValue) == ("99MSKLABEL", "HAEMATOPOIETIC_BONE_MARROW")
    assert marrow.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "85756007"
    assert marrow.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert marrow.SegmentAlgorithmName == "hip_tissue_ct"
    assert marrow.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "0003"
    lightness, a, b = marrow.RecommendedDisplayCIELabValue
    lab = [lightness / 65535 * 100, a / 65535 * 255 - 128, b / 65535 * 255 - 128]
    color = np.rint(lab2rgb(np.array(lab).reshape(1, 1, 3))[0, 0] * 255)
    np.testing.assert_allclose(color, SYSTEM.labels["haematopoietic_bone_marrow"].color, atol=1)
    assert stored[0].StudyInstanceUID == stored[1][0].StudyInstanceUID


def test_segments_of_others_are_matched_by_name_where_the_code_is_foreign(stored: tuple) -> None:
    segmentation, sources, labels = stored
    for item in segmentation.SegmentSequence:
        item.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator = "99OTHER"
    segmentation.SegmentSequence[0].SegmentLabel = "CORTICAL bone "
    again = read_seg(segmentation, sources, labels.affine, SYSTEM.labels)
    np.testing.assert_array_equal(again.array, labels.array)


def test_what_matches_nothing_is_refused_with_the_list(stored: tuple) -> None:
    segmentation, sources, labels = stored
    segmentation.SegmentSequence[1].SegmentLabel = "Spleen"
    segmentation.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].LongCodeValue = "78961009"
    with pytest.raises(ImageError, match=r"Spleen \(99MSKLABEL:78961009\); labels: cortical_bone"):
        read_seg(segmentation, sources, labels.affine, SYSTEM.labels)


def test_an_unknown_segment_without_voxels_does_no_harm(stored: tuple) -> None:
    segmentation, sources, labels = stored
    empty = pydicom.Dataset()
    empty.update(segmentation.SegmentSequence[0])
    empty.SegmentNumber, empty.SegmentLabel = 3, "Nothing"
    segmentation.SegmentSequence.append(empty)
    np.testing.assert_array_equal(read_seg(segmentation, sources, labels.affine, SYSTEM.labels).array, labels.array)


def moved(segmentation: pydicom.Dataset, x_mm: float, z_mm: float = 0.0) -> pydicom.Dataset:
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0]
        x, y, z = (float(v) for v in position.ImagePositionPatient)
        position.ImagePositionPatient = [x + x_mm, y, z + z_mm]
    return segmentation


@pytest.mark.parametrize(
    ("x_mm", "z_mm", "words"),
    [(0.3, 0, "between the voxels"), (0.8, 0, "beyond the image"), (0, 1.4, "between"), (0, 60, "beyond")],
)
def test_a_segmentation_that_was_moved_is_refused(stored: tuple, x_mm: float, z_mm: float, words: str) -> None:
    segmentation, sources, labels = stored
    with pytest.raises(ImageError, match=words):
        read_seg(moved(segmentation, x_mm, z_mm), sources, labels.affine, SYSTEM.labels)


def test_a_segmentation_stored_upside_down_lands_on_its_voxels(stored: tuple) -> None:
    segmentation, sources, labels = stored
    rows, columns = segmentation.Rows, segmentation.Columns
    frames = segmentation.pixel_array[:, ::-1]
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0]
        x, y, z = (float(v) for v in position.ImagePositionPatient)
        position.ImagePositionPatient = [x, y + (rows - 1) * 0.9, z]
    segmentation.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    assert frames.shape[1:] == (rows, columns)
    np.testing.assert_array_equal(read_seg(segmentation, sources, labels.affine, SYSTEM.labels).array, labels.array)


def test_pixels_of_another_size_are_refused(stored: tuple) -> None:
    segmentation, sources, labels = stored
    segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.45, 0.4]
    with pytest.raises(ImageError, match="another size or direction"):
        read_seg(segmentation, sources, labels.affine, SYSTEM.labels)


def test_overlapping_segments_are_refused(stored: tuple) -> None:
    segmentation, sources, labels = stored
    segmentation.PixelData = b"\xff" * len(segmentation.PixelData)
    with pytest.raises(ImageError, match="overlap"):
        read_seg(segmentation, sources, labels.affine, SYSTEM.labels)


def test_a_label_of_other_images_is_not_written(stored: tuple, tmp_path: Path) -> None:
    _, sources, labels = stored
    shifted = LabelMap(labels.array, labels.affine @ np.diag([1, 1, 1.1, 1]))
    with pytest.raises(ImageError, match="does not lie on"):
        write_seg(shifted, sources, SYSTEM.labels, MODEL, SYSTEM.name)
    with pytest.raises(ImageError, match="empty"):
        write_seg(LabelMap(labels.array * 0, labels.affine), sources, SYSTEM.labels, MODEL, SYSTEM.name)


def test_a_cut_off_and_a_fractional_segmentation_are_refused(stored: tuple) -> None:
    segmentation, sources, labels = stored
    whole = segmentation.PixelData
    segmentation.PixelData = whole[: len(whole) // 2]
    with pytest.raises(ImageError, match="cut off"):
        read_seg(segmentation, sources, labels.affine, SYSTEM.labels)
    segmentation.PixelData, segmentation.SegmentationType = whole, "FRACTIONAL"
    with pytest.raises(ImageError, match="fractional"):
        read_seg(segmentation, sources, labels.affine, SYSTEM.labels)


def test_a_label_map_segmentation_without_pixels_is_refused(stored: tuple) -> None:
    segmentation, sources, labels = stored
    segmentation.SegmentationType = "LABELMAP"
    del segmentation.PixelData
    with pytest.raises(ImageError, match="damaged, cut off or not described whole"):
        read_seg(segmentation, sources, labels.affine, SYSTEM.labels)


def test_a_label_map_segmentation_is_read(stored: tuple) -> None:
    segmentation, sources, labels = stored
    numbers = np.zeros((labels.array.shape[2], segmentation.Rows, segmentation.Columns), np.uint8)
    numbers[labels.array.transpose(2, 1, 0) == 1], numbers[labels.array.transpose(2, 1, 0) == 3] = 1, 2
    frame = segmentation.PerFrameFunctionalGroupsSequence[0]
    frames = []
    for source in sources:
        own = pydicom.Dataset()
        own.update(frame)
        position = pydicom.Dataset()
        position.ImagePositionPatient = source.ImagePositionPatient
        own.PlanePositionSequence = [position]
        frames.append(own)
    segmentation.PerFrameFunctionalGroupsSequence = frames
    segmentation.SegmentationType, segmentation.NumberOfFrames = "LABELMAP", len(frames)
    segmentation.BitsAllocated = segmentation.BitsStored = 8
    segmentation.HighBit = 7
    segmentation.PixelData = numbers.tobytes()
    np.testing.assert_array_equal(read_seg(segmentation, sources, labels.affine, SYSTEM.labels).array, labels.array)
