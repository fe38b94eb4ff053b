"""Windows, blending and post-processing."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_preprocess import body_in_air, make_system
from torch import nn

from msklabel.imaging import Scan
from msklabel.pipeline.postprocess import postprocess
from msklabel.pipeline.windows import blend_weights, plan_windows, window_slices
from msklabel.predict.engine import Engine, dice


class ByIntensity(nn.Module):
    """Scores that say which label each normalised intensity is; needs no training, sees no neighbours."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = x[:, 0]
        return torch.stack((0.05 - value, value - 0.9, 0.3 - (value - 0.35).abs()), 1) * 10


@pytest.mark.parametrize("shape", [(16, 16, 3), (17, 40, 1), (100, 33, 2)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_windows_cover_every_voxel(shape: tuple[int, int, int], overlap: float) -> None:
    seen = np.zeros(shape, int)
    for start in plan_windows(shape, (16, 16, 1), overlap):
        seen[window_slices(start, (16, 16, 1))] += 1
    assert seen.min() >= 1


def test_windows_over_nothing_are_left_out() -> None:
    occupied = torch.zeros((64, 64, 4), dtype=torch.bool)
    occupied[3, 3, 2] = True
    assert plan_windows((64, 64, 4), (16, 16, 1), 0, occupied) == [(0, 0, 2)]


def test_gaussian_weights_peak_in_the_middle_and_never_vanish() -> None:
    weights = blend_weights((9, 9, 5), "gaussian")
    assert weights.argmax() == weights.numel() // 2
    assert float(weights.min()) >= 1e-3
    assert blend_weights((4, 4, 1), "constant").unique().tolist() == [1]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_engine_labels_a_scan_on_its_own_grid(dimensions: int) -> None:
    changes = {} if dimensions == 2 else {"dimensions": 3, "patch_voxels": [16, 16, 8], "network": {"name": "vnet"}}
    hu, labels = body_in_air((44, 38, 12))
    affine = np.diag([-1.0, 1.0, -2.0, 1.0])
    done: list[tuple[int, int]] = []
    engine = Engine(make_system(spacing_mm=[None, None, None], **changes), ByIntensity())
    result = engine(Scan(hu[None], affine), lambda *progress: done.append(progress))
    np.testing.assert_array_equal(result.labels.array, labels)
    np.testing.assert_array_equal(result.labels.affine, affine)
    assert done[-1][0] == done[-1][1] > 0


def test_a_scan_smaller_than_a_patch_is_padded() -> None:
    hu, labels = body_in_air((10, 9, 3))
    engine = Engine(make_system(spacing_mm=[None, None, None], patch_voxels=[32, 32, 1]), ByIntensity())
    np.testing.assert_array_equal(engine(Scan(hu[None], np.eye(4))).labels.array, labels)


def test_postprocess_keeps_the_largest_part_and_fills_only_background() -> None:
    labels = np.zeros((20, 20, 1), np.uint8)
    labels[2:10, 2:10] = 1
    labels[4, 4] = 0
    labels[6, 6] = 2
    labels[15:17, 15:17] = 1
    cleaned = postprocess(labels, make_system(postprocess={"largest_component": ["dense"], "fill_holes": ["dense"]}))
    assert cleaned[4, 4, 0] == 1
    assert cleaned[6, 6, 0] == 2
    assert not cleaned[15:17, 15:17].any()
    assert labels[15, 15, 0] == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_voxels_in_one_row_with_a_gap_are_cleaned(axis: int) -> None:
    labels = np.zeros((5, 5, 5), np.uint8)
    row = np.moveaxis(labels, axis, 0)[:, 2, 2]
    row[[1, 3]] = 1

    cleaned = postprocess(labels, make_system(postprocess={"largest_component": ["dense"]}))

    assert cleaned.sum() == 1


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("shape", [(30, 25, 12), (9, 1, 7), (2, 2, 2)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_holes_are_those_of_scipy(dimensions: int, share: float, shape: tuple[int, int, int], order: str) -> None:
    random = np.random.default_rng(4).random(shape)
    labels = np.asarray(np.where(random < share, 1, np.where(random > 0.95, 2, 0)), np.uint8, order=order)
    volume = {} if dimensions == 2 else {"dimensions": 3, "patch_voxels": [16, 16, 8], "network": {"name": "vnet"}}
    cleaned = postprocess(labels, make_system(postprocess={"fill_holes": ["dense"]}, **volume))
    faces = ndimage.generate_binary_structure(3, 1)
    if dimensions == 2:
        faces[..., [0, 2]] = False
    holes = ndimage.binary_fill_holes(labels == 1, faces) & (labels == 0)
    np.testing.assert_array_equal(cleaned, np.where(holes, 1, labels))


def test_dice_by_hand() -> None:
    a, b = np.array([1, 1, 0, 3]), np.array([1, 0, 0, 3])
    assert dice(a, b, 1) == pytest.approx(2 / 3)
    assert dice(a, b, 3) == 1
    assert np.isnan(dice(a, b, 2))
