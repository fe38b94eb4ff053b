"""Tissue thresholds on a real pelvis CT, against the automatic labels of TotalSegmentator (not ground truth)."""

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from msklabel.predict.tissue_threshold import segment_tissues

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = (REPOSITORY / os.environ.get("MSKLABEL_REAL_DATA", "../shared/data") / "ct_pelvis").resolve()

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="real scans not found: set MSKLABEL_REAL_DATA to their folder"),
]

SPACING_MM = (3.0, 3.0, 3.0)
FEMORA_AND_HIP_BONES = (75, 76, 77, 78)
OTHER_BONES = (*range(25, 51), *range(69, 75), 79, *range(92, 118))
GLUTEI_AND_ILIOPSOAS = (*range(80, 86), 88, 89)
URINARY_BLADDER = 21
HIP_SLICES = slice(0, 21)
TISSUE_SLICES = slice(82, 112)  # of the image; the origin in the tissue maps' headers is wrong
METAL_HU, METAL_REACH_MM = 2000.0, 15.0


def load(name: str) -> np.ndarray:
    return np.asarray(nibabel.load(FOLDER / f"{name}.nii.gz").dataobj)


def dice(found: np.ndarray, reference: np.ndarray) -> float:
    return 2.0 * np.sum(found & reference) / (np.sum(found) + np.sum(reference))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return load("image").astype(np.float32)


@pytest.fixture(scope="module")
def structures() -> np.ndarray:
    return load("totalsegmentator_labels").astype(np.int64)


@pytest.fixture(scope="module")
def tissues(image: np.ndarray) -> np.ndarray:
    return segment_tissues(image, SPACING_MM)


@pytest.fixture(scope="module")
def away_from_metal(image: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_edt(image <= METAL_HU, sampling=SPACING_MM) > METAL_REACH_MM


def test_bone_of_hips_and_femora(tissues, structures, away_from_metal):
    compared = away_from_metal & ~np.isin(structures, OTHER_BONES)
    compared[:, :, HIP_SLICES.stop :] = False
    bone = np.isin(tissues, (1, 2, 3, 4))
    assert dice(bone & compared, np.isin(structures, FEMORA_AND_HIP_BONES) & compared) >= 0.88


def test_subcutaneous_fat(tissues):
    assert dice(tissues[:, :, TISSUE_SLICES] == 7, load("subcutaneous_fat") > 0) >= 0.90


def test_hip_muscles_are_muscle(tissues, structures, away_from_metal):
    muscles = np.isin(structures, GLUTEI_AND_ILIOPSOAS) & away_from_metal
    assert np.mean(tissues[:, :, HIP_SLICES][muscles[:, :, HIP_SLICES]] == 5) >= 0.85


def test_bladder_is_mostly_no_muscle(tissues, structures):
    assert np.mean(tissues[structures == URINARY_BLADDER] == 5) <= 0.35


def test_metal_gets_no_tissue(tissues, image):
    assert not tissues[image > 2500.0].any()
