"""Pixels that are cut off or that nothing here decodes are refused; what was lost by compression is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from compressed import HTJ2K, write_as
from dicom_samples import enhanced, radiograph, series
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from msklabel.imaging.pixel_data import losses, lossy_sentence
from msklabel.imaging.read import read_scan
from msklabel.imaging.scan import ImageError

JPEG = "1.2.840.10008.1.2.4."


def explicit(file: Path) -> None:
    image = pydicom.dcmread(file)
    image.PixelData = image.PixelData[:-2]
    image.save_as(file)


def implicit(file: Path) -> None:
    image = pydicom.dcmread(file)
    image.PixelData = image.PixelData[:-2]
    image.file_meta.TransferSyntaxUID, image.is_implicit_VR = ImplicitVRLittleEndian, True
    image.save_as(file)


def big_endian(file: Path) -> None:
    image = pydicom.dcmread(file)
    image.PixelData = image.PixelData[:-2]
    image.file_meta.TransferSyntaxUID, image.is_little_endian = ExplicitVRBigEndian, False
    image.save_as(file)


@pytest.mark.parametrize("shorten", [explicit, implicit, big_endian])
@pytest.mark.parametrize("write", [lambda file: series(file.parent, (20, 16, 1)), enhanced, radiograph])
def test_fewer_pixels_than_the_header_says_are_refused(
    tmp_path: Path, write: Callable[[Path], object], shorten: Callable[[Path], None]
) -> None:
    write(tmp_path / "image.dcm")
    read_scan(tmp_path)
    shorten(next(tmp_path.iterdir()))
    with pytest.raises(ImageError, match=r"pixels are cut off, \d+ of \d+ bytes are there"):
        read_scan(tmp_path)


@pytest.mark.parametrize(("end", "title"), [("201", "High-Throughput JPEG 2000"), ("110", "JPEG XL"), ("100", "MPEG2")])
def test_what_nothing_decodes_is_refused_by_its_name(tmp_path: Path, end: str, title: str) -> None:
    series(tmp_path, (20, 16, 1))
    write_as(next(tmp_path.iterdir()), JPEG + end, HTJ2K)
    with pytest.raises(ImageError, match=f"compressed as {title}.*cannot be read here"):
        read_scan(tmp_path)


@pytest.mark.parametrize(
    ("end", "said", "by"),
    [
        ("50", None, "JPEG Baseline"),
        ("51", "00", "JPEG Extended"),
        ("70", None, ""),
        ("70", "01", "an earlier compression"),
        ("81", None, "JPEG-LS Lossy"),
        ("90", None, ""),
        ("91", None, "JPEG 2000"),
        ("91", "00", ""),
        ("91", "01", "JPEG 2000"),
    ],
)
def test_losses_are_said_by_syntax_or_by_the_image(end: str, said: str | None, by: str) -> None:
    image = pydicom.Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = JPEG + end
    if said:
        image.LossyImageCompression = said
    assert losses(image).startswith(by)
    assert bool(losses(image)) == bool(by)


def test_one_sentence_names_every_loss_once() -> None:
    assert lossy_sentence({""}) == ""
    assert "(A and B)" in lossy_sentence({"B", "", "A"})


def test_an_image_that_was_compressed_once_says_so(tmp_path: Path) -> None:
    for image, number in zip(series(tmp_path), range(6), strict=True):
        image.LossyImageCompression = "01" if number == 4 else "00"
        image.save_as(tmp_path / f"{6 - number:04d}.dcm", write_like_original=False)
    assert "with losses (an earlier compression)" in read_scan(tmp_path).facts["lossy"]


def change(file: Path, **attributes: object) -> None:
    image = pydicom.dcmread(file)
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    image.save_as(file)


@pytest.mark.parametrize("slopes", [(1, 0.5, 0.25), (1, 1000, 1), (0.5, 1, 2)])
def test_slices_that_are_scaled_differently_keep_their_values(tmp_path: Path, slopes: tuple[float, ...]) -> None:
    values = np.arange(20 * 16 * 3).reshape(20, 16, 3)
    series(tmp_path, (20, 16, 3), "MR", array=values)
    for file, slope, intercept in zip(sorted(tmp_path.iterdir(), reverse=True), slopes, (0, -40000, 3), strict=True):
        change(file, RescaleSlope=slope, RescaleIntercept=intercept)
    assert read_scan(tmp_path).array[0] == pytest.approx(values * np.array(slopes) + np.array([0, -40000, 3]))


def test_a_series_of_one_scale_keeps_its_type(tmp_path: Path) -> None:
    series(tmp_path, (20, 16, 3))
    assert read_scan(tmp_path).array.dtype.kind == "i"


def test_images_that_do_not_say_how_large_their_pixels_are_are_refused(tmp_path: Path) -> None:
    series(tmp_path, (20, 16, 3))
    for file in tmp_path.iterdir():
        change(file, PixelSpacing=None)
    with pytest.raises(ImageError, match=r"does not say how large its pixels are \(Pixel Spacing\)"):
        read_scan(tmp_path)


def test_a_ct_whose_values_would_be_turned_over_is_refused(tmp_path: Path) -> None:
    series(tmp_path, (20, 16, 3))
    for file in tmp_path.iterdir():
        change(file, PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(ImageError, match="a CT image as MONOCHROME1, which is read upside down; use MONOCHROME2"):
        read_scan(tmp_path)


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_single_slice_is_as_thick_as_it_says(tmp_path: Path, as_folder: bool) -> None:
    series(tmp_path, (20, 16, 1), spacing_mm=(0.8, 0.9, 3.0))
    file = next(tmp_path.iterdir())
    assert read_scan(tmp_path if as_folder else file).spacing_mm == pytest.approx((0.8, 0.9, 3.0))
    change(file, SliceThickness=None)
    assert read_scan(tmp_path if as_folder else file).spacing_mm == pytest.approx((0.8, 0.9, 1.0))


def test_slices_with_pixels_of_different_sizes_are_refused(tmp_path: Path) -> None:
    series(tmp_path, (20, 16, 3), spacing_mm=(0.8, 0.9, 3.0))
    change(min(tmp_path.iterdir()), PixelSpacing=[0.9, 0.8001])
    read_scan(tmp_path)
    change(min(tmp_path.iterdir()), PixelSpacing=[1.0, 0.8])
    with pytest.raises(ImageError, match="pixels are of different sizes in one series"):
        read_scan(tmp_path)
