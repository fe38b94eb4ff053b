"""Reading, writing and geometry of scans and label maps."""

import gzip
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from msklabel.imaging import ImageError, LabelMap, orientation_codes, same_grid
from msklabel.imaging.read import read_labels, read_scan
from msklabel.imaging.write import write_labels
from msklabel.sections import Label

OBLIQUE = np.array([[0.9, -0.3, 0.1, -40], [0.3, 0.9, 0.2, 12], [-0.1, -0.2, 2.9, 700], [0, 0, 0, 1]], dtype=float)
FLIPPED = np.diag([-0.8, -0.8, 3.0, 1.0])
SIDEWAYS = np.array([[0, 0, 2, 5], [1.5, 0, 0, 6], [0, -1, 0, 7], [0, 0, 0, 1]], dtype=float)


def blocks(shape: tuple[int, int, int] = (6, 5, 4)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8)


def orthonormal(affine: np.ndarray) -> np.ndarray:
    u, _, v = np.linalg.svd(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    made = affine.copy()
    made[:3, :3] = (u @ v) * np.linalg.norm(affine[:3, :3], axis=0)
    return made


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("affine", [OBLIQUE, FLIPPED, SIDEWAYS], ids=["oblique", "flipped", "sideways"])
def test_labels_come_back_voxel_for_voxel_in_their_place(tmp_path: Path, suffix: str, affine: np.ndarray) -> None:
    labels = LabelMap(blocks(), orthonormal(affine))
    write_labels(tmp_path / f"a{suffix}", labels)
    back = read_labels(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array, labels.array)
    np.testing.assert_allclose(back.affine, labels.affine, atol=1e-4)
    assert same_grid(back.array.shape, back.affine, labels.array.shape, labels.affine)


@pytest.mark.parametrize(("affine", "codes"), [(FLIPPED, "LPS"), (SIDEWAYS, "AIR"), (np.eye(4), "RAS")])
def test_orientation_codes_name_the_direction_of_each_array_axis(affine: np.ndarray, codes: str) -> None:
    assert orientation_codes(affine) == codes


def test_same_grid_notices_a_spacing_error_that_adds_up() -> None:
    stretched = np.diag([1.001, 1, 1, 1.0])
    assert same_grid((10, 10, 10), np.eye(4), (10, 10, 10), stretched)
    assert not same_grid((400, 10, 10), np.eye(4), (400, 10, 10), stretched)


def test_nrrd_carries_segment_names_colours_and_codes(tmp_path: Path) -> None:
    scheme = {"femur": Label(index=2, code="SCT:71341001", color=(255, 0, 51))}
    write_labels(tmp_path / "a.nrrd", LabelMap(blocks(), np.eye(4)), scheme)
    header = (tmp_path / "a.nrrd").read_bytes()[:2000].decode("latin-1")
    assert "Segment0_Name:=femur" in header
    assert "Segment0_LabelValue:=2" in header
    assert "Segment0_Color:=1.000000 0.000000 0.200000" in header
    assert "SCT~71341001" in header


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_cut_off_is_refused_in_one_sentence(tmp_path: Path, suffix: str, share: float) -> None:
    rng = np.random.default_rng(0)
    write_labels(tmp_path / f"a{suffix}", LabelMap(rng.integers(0, 250, (40, 40, 40)).astype(np.uint8), np.eye(4)))
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"half{suffix}").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"half\.[a-z.]+: cannot be read as an image"):
        read_scan(tmp_path / f"half{suffix}")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused_in_scans_and_in_labels(tmp_path: Path, suffix: str, value: float) -> None:
    for dtype in (np.float32, np.float64):
        array = np.ones((7, 5, 3), dtype)
        image = sitk.GetImageFromArray(array)
        file = tmp_path / f"a{suffix}"
        sitk.WriteImage(image, str(file))
        assert read_scan(file).array.sum() == read_labels(file).array.sum() == array.size
        array[-1, -1, -1] = value
        sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
        for reader in (read_scan, read_labels):
            with pytest.raises(ImageError, match=r"finite|whole numbers"):
                reader(file)


def test_a_file_is_read_whatever_lies_beside_it(tmp_path: Path) -> None:
    for value, suffix in enumerate((".nii", ".nii.gz", ".nrrd"), start=1):
        write_labels(tmp_path / f"a{suffix}", LabelMap(np.full((4, 3, 2), value, np.uint8), np.eye(4)))
    for value, suffix in enumerate((".nii", ".nii.gz", ".nrrd"), start=1):
        assert read_labels(tmp_path / f"a{suffix}").present() == [value]
        assert read_scan(tmp_path / f"a{suffix}").array.max() == value


def test_a_scan_whose_header_says_micrometres_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((7, 5, 3), np.int16), np.diag([0.8, 0.8, 3.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "tiny.nii.gz")
    with pytest.raises(ImageError, match=r"its voxels are said to be 0\.0008 x 0\.0008 x 0\.003 mm; mend its header"):
        read_scan(tmp_path / "tiny.nii.gz")


def test_a_scan_larger_than_any_scanner_is_refused(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((7, 5, 3), np.int16))
    image.SetSpacing((1.5, 0.05, 428.0))
    sitk.WriteImage(image, str(tmp_path / "long.nii.gz"))
    assert read_scan(tmp_path / "long.nii.gz").shape == (3, 5, 7)
    image.SetSpacing((1.5, 0.05, 429.0))
    sitk.WriteImage(image, str(tmp_path / "long.nii.gz"))
    with pytest.raises(ImageError, match=r"is 4\.5 x 0\.25 x 3003 mm large, as its voxels are said to be 1\.5 x"):
        read_scan(tmp_path / "long.nii.gz")


def test_a_small_file_of_too_many_voxels_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((4000, 4000, 4000))
    header["vox_offset"] = 352
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    for reader in (read_scan, read_labels):
        with pytest.raises(ImageError, match=r"has 6\.4e\+10 voxels, more than any scan"):
            reader(tmp_path / "bomb.nii.gz")


def test_fractional_label_values_are_refused(tmp_path: Path) -> None:
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 3, 3), 1.5, np.float32)), str(tmp_path / "a.nii.gz"))
    with pytest.raises(ImageError, match="whole numbers"):
        read_labels(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_nothing_is_left_when_the_file_does_not_fit(tmp_path: Path, suffix: str) -> None:
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from msklabel.imaging import LabelMap\n"
        "from msklabel.imaging.write import write_labels\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "noise = np.random.default_rng(0).integers(0, 250, (60, 60, 60)).astype(np.uint8)\n"
        "try:\n"
        "    write_labels(sys.argv[1], LabelMap(noise, np.eye(4)))\n"
        "except OSError as error:\n"
        "    print('refused')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / f"a{suffix}")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "refused\n"
    assert list(tmp_path.iterdir()) == []


def write_slice(folder: Path, number: int, series: str, z_mm: float, y_mm: float = 0.0, rows: int = 8) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(folder / f"{number}.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = CTImageStorage, generate_uid(), series
    data.StudyInstanceUID, data.Modality, data.PatientID = "1.2.3", "CT", "patient-7"
    data.Rows, data.Columns, data.PixelSpacing, data.SliceThickness = rows, 8, [0.7, 0.7], 3
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, y_mm, z_mm], [1, 0, 0, 0, 1, 0]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.RescaleSlope, data.RescaleIntercept, data.InstanceNumber = 1, -1024, number
    data.PixelData = np.full((rows, 8), number, np.int16).tobytes()
    pydicom.dcmwrite(folder / f"{number}.dcm", data, write_like_original=False)


def test_a_dicom_series_is_read_in_order_of_position_and_in_hu(tmp_path: Path) -> None:
    for number, z_mm in enumerate([6.0, 0.0, 3.0]):
        write_slice(tmp_path, number, "1.2.3.4", z_mm)
    scan = read_scan(tmp_path)
    assert scan.array[0, 0, 0].tolist() == [1 - 1024, 2 - 1024, 0 - 1024]
    assert scan.spacing_mm == pytest.approx((0.7, 0.7, 3.0))
    assert orientation_codes(scan.affine) == "LPS"
    assert scan.facts["patient"] == "patient-7"


@pytest.mark.parametrize(
    ("slices", "sentence"),
    [
        ([("1.1", 0.0, 0.0, 8), ("1.2", 3.0, 0.0, 8)], "2 DICOM series in one folder"),
        ([("1.1", 0.0, 0.0, 8), ("1.1", 3.0, 0.0, 8), ("1.1", 9.0, 0.0, 8)], "one is missing"),
        ([("1.1", 0.0, 0.0, 8), ("1.1", 0.0, 0.0, 8)], "two slices at the same position"),
        ([("1.1", 0.0, 0.0, 8), ("1.1", 3.0, 1.0, 8)], "gantry was tilted"),
        ([("1.1", 0.0, 0.0, 8), ("1.1", 3.0, 0.0, 9)], "slices of different sizes"),
        ([], "no DICOM files"),
    ],
)
def test_an_irregular_dicom_series_is_refused(
    tmp_path: Path, slices: list[tuple[str, float, float, int]], sentence: str
) -> None:
    for number, (series, z_mm, y_mm, rows) in enumerate(slices):
        write_slice(tmp_path, number, series, z_mm, y_mm, rows)
    with pytest.raises(ImageError, match=sentence):
        read_scan(tmp_path)


def test_values_that_occur_are_found_in_any_memory_order() -> None:
    array = np.zeros((70, 40, 30), np.uint8)
    array[3, 4, 5], array[69, 39, 29], array[10:60] = 255, 7, 2
    for one in (array, np.asfortranarray(array), array[::-2, :, 1:]):
        assert LabelMap(one, np.eye(4)).present() == [value for value in np.unique(one).tolist() if value]
    assert LabelMap(np.zeros((1, 1, 1), np.uint8), np.eye(4)).present() == []
