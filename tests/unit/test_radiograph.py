"""Reading radiographs: DICOM CR and DX, PNG, JPEG, and their geometry."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless
from radiograph_samples import COLUMNS, ROWS, ramp, write_cr

from msklabel.imaging import ImageError, LabelMap, orientation_codes, same_grid
from msklabel.imaging.names import is_image, without_suffix
from msklabel.imaging.read import read_labels, read_scan
from msklabel.imaging.write import write_labels

REPOSITORY = Path(__file__).resolve().parents[2]
REAL = (REPOSITORY / os.environ.get("MSKLABEL_REAL_DATA", "../shared/data") / "xr_hip").resolve()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_values_come_as_stored_and_monochrome1_inverted(tmp_path: Path, bits: int) -> None:
    stored = write_cr(tmp_path / "two.dcm", bits=bits)
    write_cr(tmp_path / "one.dcm", bits=bits, PhotometricInterpretation="MONOCHROME1")
    two, one = read_scan(tmp_path / "two.dcm"), read_scan(tmp_path / "one.dcm")
    assert two.array.shape == (1, COLUMNS, ROWS, 1)
    np.testing.assert_array_equal(two.array[0, :, :, 0].T, stored)
    np.testing.assert_array_equal(one.array[0, :, :, 0].T, 2**bits - 1 - stored)
    assert two.facts == {"modality": "CR", "patient": "patient-7", "SeriesInstanceUID": "1.2.3.4"}


def test_bits_above_those_stored_do_not_count(tmp_path: Path) -> None:
    write_cr(tmp_path / "a.dcm", ramp(12) | 0x8000, bits=12)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.dcm").array[0, :, :, 0].T, ramp(12))


def test_rescaled_values_and_padding(tmp_path: Path) -> None:
    stored = ramp(12)
    stored[0] = 4095  # outside the collimator, bright in the file
    write_cr(tmp_path / "a.dcm", stored, RescaleSlope=2, RescaleIntercept=10, PixelPaddingValue=4095)
    expected = 2 * stored + 10
    expected[0] = expected[1:-1].min()
    np.testing.assert_array_equal(read_scan(tmp_path / "a.dcm").array[0, :, :-1, 0].T, expected[:-1])
    write_cr(tmp_path / "b.dcm", stored, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=4095)
    assert (read_scan(tmp_path / "b.dcm").array[0, :, 0] == (4095 - stored[1:][stored[1:] < 4095]).min()).all()


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless, JPEGBaseline8Bit])
def test_compressed_values_are_the_same(tmp_path: Path, syntax: UID) -> None:
    stored = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint16 if syntax != JPEGBaseline8Bit else np.uint8)
    stored *= 1 if syntax == JPEGBaseline8Bit else 36
    write_cr(tmp_path / "a.dcm", stored, bits=8 * stored.itemsize, transfer_syntax=syntax, Rows=64, Columns=48)
    read = read_scan(tmp_path / "a.dcm").array[0, :, :, 0].T
    np.testing.assert_allclose(read, stored, atol=3 if syntax == JPEGBaseline8Bit else 0)


# PixelSpacing, ImagerPixelSpacing (both rows, columns), magnification -> expected columns, rows
SPACINGS = {
    "pixel spacing": ([0.2, 0.1], None, None, (0.1, 0.2)),
    "detector": (None, [0.2, 0.1], None, (0.1, 0.2)),
    "detector, magnified": (None, [0.2, 0.1], 1.25, (0.08, 0.16)),
    "calibrated already": ([0.16, 0.08], [0.2, 0.1], 1.25, (0.08, 0.16)),
    "not calibrated": ([0.2, 0.1], [0.2, 0.1], 1.25, (0.08, 0.16)),
    "origin of the spacing unknown": ([0.2, 0.1], None, 1.25, (0.1, 0.2)),
}


@pytest.mark.parametrize("case", SPACINGS)
def test_spacing_in_the_patient(tmp_path: Path, case: str) -> None:
    pixel, imager, factor, expected = SPACINGS[case]
    attributes = {"PixelSpacing": pixel, "ImagerPixelSpacing": imager}
    write_cr(tmp_path / "a.dcm", **attributes, EstimatedRadiographicMagnificationFactor=factor)
    assert read_scan(tmp_path / "a.dcm").spacing_mm == pytest.approx((*expected, 1.0))


def test_film_scanner_spacing(tmp_path: Path) -> None:
    write_cr(tmp_path / "a.dcm", PixelSpacing=None, NominalScannedPixelSpacing=[0.4, 0.3], Modality="RG")
    assert read_scan(tmp_path / "a.dcm").spacing_mm == pytest.approx((0.3, 0.4, 1.0))


@pytest.mark.parametrize("name", ["a.dcm", "a.png", "a.jpg"])
def test_unknown_spacing_is_asked_for_and_taken(tmp_path: Path, name: str) -> None:
    if name == "a.dcm":
        write_cr(tmp_path / name, PixelSpacing=None)
    else:
        Image.fromarray(ramp(8)).save(tmp_path / name, dpi=(254, 254))
    with pytest.raises(ImageError, match=r'how large its pixels are; write \{"spacing_mm".* a\.json beside it'):
        read_scan(tmp_path / name)
    (tmp_path / "a.json").write_text('{"spacing_mm": [0.15, 0.175], "side": "L", "patient": "p3"}')
    scan = read_scan(tmp_path / name)
    assert scan.spacing_mm == pytest.approx((0.15, 0.175, 1.0))
    assert (scan.facts["side"], scan.facts["patient"]) == ("L", "p3")
    assert read_scan(tmp_path / name, spacing_mm=(0.3, 0.4)).spacing_mm == pytest.approx((0.3, 0.4, 1.0))


@pytest.mark.parametrize(
    ("noted", "sentence"),
    [
        ('{"spacing_mm": 0.15}', r"a\.json: the pixel spacing must be two numbers"),
        ('{"spacing_mm": [150, 150]}', r"a\.json: the pixel spacing must be two numbers from 0.01 to 10 mm"),
        ('{"spacing_mm": ["x", "y"]}', r"got \['x', 'y'\]"),
        ('{"spacing_mm": [0.1, 0.1], "side": "left"}', "side must be L or R, got 'left'"),
        ("[0.15, 0.15]", r"a\.json: expected an object"),
        ('{"spacing_mm"', r"a\.json: cannot be read as JSON"),
    ],
)
def test_a_wrong_note_is_refused(tmp_path: Path, noted: str, sentence: str) -> None:
    Image.fromarray(ramp(8)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(noted)
    with pytest.raises(ImageError, match=sentence):
        read_scan(tmp_path / "a.png")


def test_spacing_is_refused_where_the_scan_has_its_own(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.nii.gz", LabelMap(np.ones((3, 3, 3), np.uint8), np.eye(4)))
    with pytest.raises(ImageError, match="spacing_mm is for radiographs"):
        read_scan(tmp_path / "a.nii.gz", spacing_mm=(1, 1))


# PatientOrientation -> codes of array axes; axis 1 stands for superior-inferior
ORIENTATIONS = {"L\\F": "LPS", "": "LPS", "R\\F": "RPI", "L\\H": "LAI", "F\\L": "PLI", "LA\\FP": "LPS"}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_axes_follow_patient_orientation(tmp_path: Path, orientation: str) -> None:
    write_cr(tmp_path / "a.dcm", PatientOrientation=orientation.split("\\") if orientation else "")
    scan = read_scan(tmp_path / "a.dcm")
    assert orientation_codes(scan.affine) == ORIENTATIONS[orientation]
    assert np.linalg.det(scan.affine) > 0
    assert scan.spacing_mm == pytest.approx((0.1, 0.2, 1.0))


@pytest.mark.parametrize(("attribute", "side"), [("ImageLaterality", "L"), ("Laterality", "R"), ("Laterality", "B")])
def test_side_of_a_single_joint(tmp_path: Path, attribute: str, side: str) -> None:
    write_cr(tmp_path / "a.dcm", **{attribute: side})
    assert read_scan(tmp_path / "a.dcm").facts.get("side", "B") == side


@pytest.mark.parametrize("name", ["a.dcm", "a.png"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_mask_lies_on_the_pixels_that_itk_reads(tmp_path: Path, name: str, suffix: str) -> None:
    if name == "a.dcm":
        write_cr(tmp_path / name, PixelSpacing=[0.2, 0.1], ImagerPixelSpacing=[0.2, 0.1])
    else:
        image = sitk.GetImageFromArray(ramp(16))
        image.SetSpacing((0.1, 0.2))
        sitk.WriteImage(image, str(tmp_path / name))  # notes its spacing in the file
    scan = read_scan(tmp_path / name)
    write_labels(
        tmp_path / f"mask{suffix}", LabelMap((scan.array[0] > scan.array.mean()).astype(np.uint8), scan.affine)
    )
    mask, itk = sitk.ReadImage(str(tmp_path / f"mask{suffix}")), sitk.ReadImage(str(tmp_path / name))
    assert mask.GetSize()[:2] == itk.GetSize()[:2]
    np.testing.assert_allclose(mask.GetSpacing()[:2], itk.GetSpacing()[:2], rtol=1e-5)
    np.testing.assert_allclose(mask.GetOrigin(), 0, atol=1e-9)
    np.testing.assert_allclose(mask.GetDirection(), np.eye(3).ravel(), atol=1e-6)
    pixels = sitk.GetArrayFromImage(itk).reshape(ROWS, COLUMNS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask)[0], pixels > pixels.mean())
    back = read_labels(tmp_path / f"mask{suffix}")
    assert same_grid(back.array.shape, back.affine, scan.shape, scan.affine)


def test_grey_pictures_keep_their_values(tmp_path: Path) -> None:
    grey8, grey16 = ramp(8), ramp(16)
    opaque = np.full_like(grey8, 255)
    Image.fromarray(grey8).save(tmp_path / "grey.png")
    Image.fromarray(grey16).save(tmp_path / "deep.png")
    Image.fromarray(np.stack([grey8] * 3, -1)).save(tmp_path / "rgb.PNG")
    Image.fromarray(np.stack([grey8] * 3 + [opaque], -1)).save(tmp_path / "rgba.png")
    Image.fromarray(grey8).convert("P").save(tmp_path / "palette.png")
    for name, expected in {"grey.png": grey8, "deep.png": grey16, "rgb.PNG": grey8, "rgba.png": grey8}.items():
        scan = read_scan(tmp_path / name, spacing_mm=(0.1, 0.2))
        np.testing.assert_array_equal(scan.array[0, :, :, 0].T, expected)
        assert scan.array.dtype == expected.dtype
        assert orientation_codes(scan.affine) == "LPS"
    smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    for name, pixels in {"a.jpg": smooth, "b.JPEG": np.stack([smooth] * 3, -1)}.items():
        Image.fromarray(pixels).save(tmp_path / name, quality=95)
        read = read_scan(tmp_path / name, spacing_mm=(0.1, 0.1)).array[0, :, :, 0].T
        assert np.abs(read.astype(float) - smooth).max() < 8


def test_colours_transparency_and_frames_are_refused(tmp_path: Path) -> None:
    grey, red = ramp(8), np.stack([ramp(8), ramp(8) // 2, ramp(8) // 3], -1)
    Image.fromarray(red).save(tmp_path / "a.png")
    Image.fromarray(np.kron(red, np.ones((16, 16, 1), np.uint8))).save(tmp_path / "a.jpg")
    Image.fromarray(red).convert("CMYK").save(tmp_path / "c.jpg")
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    write_cr(tmp_path / "a.dcm", red, bits=8, **colour)
    write_cr(tmp_path / "grey.dcm", np.stack([grey] * 3, -1), bits=8, **colour)
    for name in ("a.png", "a.jpg", "c.jpg", "a.dcm"):
        with pytest.raises(ImageError, match=rf"{name}: a radiograph is grey, this image has colours"):
            read_scan(tmp_path / name, spacing_mm=(0.1, 0.1))
    np.testing.assert_array_equal(read_scan(tmp_path / "grey.dcm").array[0, :, :, 0].T, grey)
    Image.fromarray(np.stack([grey] * 4, -1)).save(tmp_path / "t.png")
    with pytest.raises(ImageError, match="transparent"):
        read_scan(tmp_path / "t.png", spacing_mm=(0.1, 0.1))
    write_cr(tmp_path / "f.dcm", np.stack([grey] * 2), bits=8, NumberOfFrames=2)
    with pytest.raises(ImageError, match="holds 2 frames"):
        read_scan(tmp_path / "f.dcm")


def test_a_lateral_view_is_refused(tmp_path: Path) -> None:
    write_cr(tmp_path / "a.dcm", PatientOrientation=["A", "F"])
    with pytest.raises(ImageError, match=r"only frontal views .* Patient Orientation says A/F"):
        read_scan(tmp_path / "a.dcm")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("name", ["a.dcm", "j2k.dcm", "a.png", "a.jpg"])
def test_a_file_cut_off_is_refused(tmp_path: Path, name: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 80)).astype(np.uint8)
    size = {"Rows": 96, "Columns": 80, "bits": 8}
    if name == "j2k.dcm":
        write_cr(tmp_path / name, noise, transfer_syntax=JPEG2000Lossless, **size)
    elif name == "a.dcm":
        write_cr(tmp_path / name, noise, **size)
    else:
        Image.fromarray(noise).save(tmp_path / name)
    read_scan(tmp_path / name, spacing_mm=(0.1, 0.1))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"damaged|cut off"):
        read_scan(tmp_path / name, spacing_mm=(0.1, 0.1))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.dcm"])
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"GIF89a" + bytes(200))
    with pytest.raises(ImageError, match="cannot be read"):
        read_scan(tmp_path / name)


def test_a_folder_of_one_dicom_radiograph_is_read(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    write_cr(tmp_path / "study" / "1.2.3.99", PhotometricInterpretation="MONOCHROME1")
    scan = read_scan(tmp_path / "study")
    assert scan.array[0, 0, 0, 0] == 4095
    assert scan.spacing_mm == pytest.approx((0.1, 0.2, 1.0))


def test_pictures_are_images_to_read_but_not_to_write(tmp_path: Path) -> None:
    assert is_image(Path("hip.PNG"))
    assert without_suffix("hip.left.jpeg") == "hip.left"
    with pytest.raises(ValueError, match="cannot write this format"):
        write_labels(tmp_path / "mask.png", LabelMap(np.ones((3, 3, 1), np.uint8), np.eye(4)))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="real radiograph not found: set MSKLABEL_REAL_DATA to its folder")
def test_real_computed_radiograph() -> None:
    scan = read_scan(REAL / "hip_cr_j2k.dcm")
    assert scan.array.shape == (1, 1760, 2140, 1)  # columns, rows
    assert scan.spacing_mm == pytest.approx((0.2, 0.2, 1.0))
    assert orientation_codes(scan.affine) == "LPS"
    assert scan.facts["modality"] == "CR"
    image = scan.array[0, :, :, 0].astype(float)
    bone, air = image[820:960, 800:920].mean(), image[300:700, 1700:2000].mean()  # the femoral head; beside the thigh
    assert bone > air + 300


@pytest.mark.parametrize("modality", ["CR", "DX", "RG"])
def test_several_radiographs_in_one_series_are_refused_as_what_they_are(tmp_path: Path, modality: str) -> None:
    (tmp_path / "hips").mkdir()
    for name in ("left.dcm", "right.dcm"):
        write_cr(tmp_path / "hips" / name, Modality=modality)
    sentence = "hips: 2 radiographs in one series, .* store each as a series of its own, or as a file in a folder"
    with pytest.raises(ImageError, match=sentence):
        read_scan(tmp_path / "hips")
    (tmp_path / "hips" / "right.dcm").unlink()
    assert read_scan(tmp_path / "hips").shape == (7, 5, 1)
