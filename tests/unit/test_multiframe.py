"""Enhanced CT and MR: every frame where the file says that it lies, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_samples import OBLIQUE, STRAIGHT, enhanced, series

from msklabel.imaging.read import read_scan
from msklabel.imaging.scan import ImageError

UP = tuple(range(6))
DOWN = UP[::-1]


@pytest.mark.parametrize("order", [UP, DOWN])
@pytest.mark.parametrize(("modality", "orientation"), [("CT", STRAIGHT), ("MR", OBLIQUE)])
def test_its_voxels_lie_where_those_of_the_same_series_lie(
    tmp_path: Path, modality: str, orientation: tuple, order: tuple
) -> None:
    values = np.random.default_rng(3).integers(900, 1200, (20, 16, 6))
    series(tmp_path / "series", modality=modality, orientation=orientation, array=values)
    enhanced(tmp_path / "one" / "image.dcm", modality=modality, orientation=orientation, order=order, array=values)
    expected, got = read_scan(tmp_path / "series"), read_scan(tmp_path / "one")
    np.testing.assert_array_equal(got.array, expected.array[..., list(order)])
    for frame, number in enumerate(order):
        voxel, same = np.array([2, 5, frame, 1]), np.array([2, 5, number, 1])
        np.testing.assert_allclose(got.affine @ voxel, expected.affine @ same, atol=1e-3)
    np.testing.assert_allclose(read_scan(tmp_path / "one" / "image.dcm").affine, got.affine)


def moved(image: pydicom.Dataset) -> None:
    image.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient[2] += 1


def standing(image: pydicom.Dataset) -> None:
    for own in image.PerFrameFunctionalGroupsSequence:
        own.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]


def tilted(image: pydicom.Dataset) -> None:
    for number, own in enumerate(image.PerFrameFunctionalGroupsSequence):
        own.PlanePositionSequence[0].ImagePositionPatient[1] += 0.5 * number


def nowhere(image: pydicom.Dataset) -> None:
    for own in image.PerFrameFunctionalGroupsSequence:
        del own.PlanePositionSequence


def rescaled(image: pydicom.Dataset) -> None:
    for number, own in enumerate(image.PerFrameFunctionalGroupsSequence):
        scale = pydicom.Dataset()
        scale.RescaleIntercept, scale.RescaleSlope, scale.RescaleType = 0, 1 + number, "US"
        own.PixelValueTransformationSequence = [scale]
    del image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (moved, "no regular stack"),
        (standing, "same place"),
        (tilted, "gantry was tilted"),
        (nowhere, "does not say where"),
        (rescaled, "scaled differently"),
    ],
)
def test_what_is_no_stack_is_refused(tmp_path: Path, change: Callable[[pydicom.Dataset], None], said: str) -> None:
    file = tmp_path / "one" / "image.dcm"
    image = enhanced(file, modality="MR")
    change(image)
    image.save_as(file)
    with pytest.raises(ImageError, match=said):
        read_scan(file.parent)


def test_frames_in_no_order_are_refused(tmp_path: Path) -> None:
    enhanced(tmp_path / "one" / "image.dcm", order=(0, 2, 1, 3, 4, 5))
    with pytest.raises(ImageError, match="no regular stack in the order of the file"):
        read_scan(tmp_path / "one")
