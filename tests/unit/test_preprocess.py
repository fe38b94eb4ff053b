"""The one chain: to the working grid and back."""

import numpy as np
import pytest
import torch

from msklabel.errors import UserError
from msklabel.imaging import Scan
from msklabel.pipeline.preprocess import Preprocess
from msklabel.pipeline.resample import AxisMap, axis_maps, linear_weights, resample_nearest, resample_scan
from msklabel.system import System

AFFINES = {
    "RAS": np.diag([2.0, 2.0, 3.0, 1.0]),
    "LPS": np.diag([-2.0, -2.0, 3.0, 1.0]),
    "sideways": np.array([[0, 0, 2.5, 5], [1.5, 0, 0, 6], [0, -1.2, 0, 7], [0, 0, 0, 1]], dtype=float),
    "oblique": np.array([[1.9, -0.6, 0, 0], [0.6, 1.9, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]], dtype=float),
}


def make_system(**changes: object) -> System:
    base: dict[str, object] = {
        "name": "toy",
        "title": "Toy",
        "source": "none",
        "modality": ["CT"],
        "channels": ["ct"],
        "dimensions": 2,
        "labels": {
            "dense": {"index": 1, "code": "99MSKLABEL:DENSE", "color": [1, 2, 3]},
            "soft": {"index": 2, "code": "99MSKLABEL:SOFT", "color": [4, 5, 6]},
        },
        "spacing_mm": [1.0, 1.0, None],
        "intensity": {"kind": "window", "lower": -200, "upper": 500},
        "patch_voxels": [16, 16, 1],
        "network": {"name": "dense_unet", "levels": 2, "layers_per_block": 1, "growth": 4, "first_features": 4},
        "train": {"loss": "cross_entropy", "optimizer": "adam", "learning_rate": 0.01, "batch": 4, "epochs": 3},
    }
    return System.model_validate({**base, **changes})


def body_in_air(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A soft block with a dense core in air, and its labels."""
    hu, labels = np.full(shape, -1000.0, np.float32), np.zeros(shape, np.uint8)
    outer = tuple(slice(n // 5, n - n // 5) for n in shape)
    inner = tuple(slice(2 * n // 5, n - 2 * n // 5) for n in shape)
    hu[outer], labels[outer] = 50, 2
    hu[inner], labels[inner] = 600, 1
    return hu, labels


def test_linear_weights_are_averages_with_rows_that_sum_to_one() -> None:
    for size_in, size_out in [(10, 4), (4, 10), (7, 7), (100, 33)]:
        weights = linear_weights(AxisMap(size_in, size_out))
        assert weights.shape == (size_out, size_in)
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(linear_weights(AxisMap(5, 5)), np.eye(5))


def test_a_slab_of_weights_is_a_part_of_the_whole() -> None:
    np.testing.assert_array_equal(linear_weights(AxisMap(9, 31), 7, 20), linear_weights(AxisMap(9, 31))[7:20])


def test_resampling_keeps_a_ramp_where_it_is() -> None:
    ramp = torch.arange(40.0)[None, :, None, None].expand(1, 40, 4, 4)
    there = resample_scan(ramp.numpy(), (AxisMap(40, 13), AxisMap(4, 4), AxisMap(4, 4)))
    centres = (torch.arange(13) + 0.5) * 40 / 13 - 0.5
    torch.testing.assert_close(there[0, 1:-1, 0, 0], centres[1:-1], atol=0.05, rtol=0)
    back = resample_scan(there.numpy(), (AxisMap(13, 40), AxisMap(4, 4), AxisMap(4, 4)))
    torch.testing.assert_close(back[0, 4:-4], ramp[0, 4:-4], atol=0.1, rtol=0)


def test_nearest_labels_agree_with_the_voxel_that_holds_the_centre() -> None:
    labels = np.arange(6, dtype=np.uint8)[:, None, None]
    kept = AxisMap(1, 1)
    assert resample_nearest(labels, (AxisMap(6, 3), kept, kept)).ravel().tolist() == [1, 3, 5]
    finer = resample_nearest(labels, (AxisMap(6, 12), kept, kept))
    assert finer.ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_an_axis_without_a_target_is_kept() -> None:
    maps = axis_maps((100, 50, 7), (0.8, 0.8, 3.0), (1.6, 0.4, None))
    assert [one.size_out for one in maps] == [50, 100, 7]
    assert [one.keeps for one in maps] == [False, False, True]


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("spacing", [[1.0, 1.0, None], [2.6, 2.6, 2.6], [3.0, 1.1, None]])
def test_perfect_scores_come_back_as_the_labels_on_the_scans_grid(name: str, spacing: list[float | None]) -> None:
    hu, labels = body_in_air((40, 34, 20))
    preprocess = Preprocess(make_system(spacing_mm=spacing))
    prepared = preprocess(Scan(hu[None], AFFINES[name]))
    working = preprocess.labels(labels, prepared.grid)
    scores = torch.nn.functional.one_hot(working.long(), 3).movedim(-1, 0).float()
    restored = prepared.grid.deorient(preprocess.restore(scores, prepared.grid))
    assert restored.shape == labels.shape
    for index in (1, 2):
        a, b = restored == index, labels == index
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.88


@pytest.mark.parametrize("name", ["RAS", "LPS", "sideways"])
def test_without_resampling_the_way_there_and_back_is_the_identity(name: str) -> None:
    hu, labels = body_in_air((40, 34, 20))
    preprocess = Preprocess(make_system(spacing_mm=[None, None, None]))
    prepared = preprocess(Scan(hu[None], AFFINES[name]))
    scores = torch.nn.functional.one_hot(preprocess.labels(labels, prepared.grid).long(), 3).movedim(-1, 0).float()
    restored = prepared.grid.deorient(preprocess.restore(scores, prepared.grid))
    np.testing.assert_array_equal(restored, labels)


def test_image_and_labels_turn_alike() -> None:
    hu, labels = body_in_air((40, 34, 20))
    hu[8:12, 7:10, 4:7] = 600
    labels[8:12, 7:10, 4:7] = 1
    preprocess = Preprocess(make_system(spacing_mm=[None, None, None]))
    for affine in AFFINES.values():
        prepared = preprocess(Scan(hu[None], affine))
        working = preprocess.labels(labels, prepared.grid)
        assert torch.equal(prepared.image[0] == 1, working == 1)


def test_the_crop_leaves_air_out_and_the_window_is_clipped() -> None:
    hu, _ = body_in_air((60, 60, 10))
    prepared = Preprocess(make_system(spacing_mm=[None, None, None]))(Scan(hu[None], AFFINES["RAS"]))
    assert prepared.image.shape[1] < 60
    assert float(prepared.image.min()) == 0
    assert float(prepared.image.max()) == 1
    assert torch.isclose(prepared.image, torch.tensor(250 / 700)).any()


def test_zscore_and_percentile_normalise_the_foreground() -> None:
    hu, _ = body_in_air((60, 60, 10))
    mr = hu + 1000
    scan = Scan(mr[None], AFFINES["RAS"])
    scored = Preprocess(make_system(intensity={"kind": "zscore"}))(scan).image
    values = scored[scored > scored.min() + 0.5]
    assert abs(float(values.mean())) < 0.2
    spread = Preprocess(make_system(intensity={"kind": "percentile"}))(scan).image
    assert (float(spread.min()), float(spread.max())) == (0, 1)


def test_the_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(UserError, match=r"toy needs 1 channel\(s\) \(ct\), the scan has 2"):
        Preprocess(make_system())(Scan(np.zeros((2, 4, 4, 4)), np.eye(4)))


def test_a_scan_of_air_is_refused() -> None:
    with pytest.raises(UserError, match="nothing but air"):
        Preprocess(make_system())(Scan(np.full((1, 8, 8, 8), -1000.0), np.eye(4)))
