"""Crops are changed as the recipe says, image and labels alike."""

import numpy as np
import pytest
import torch

from msklabel.pipeline.augment import RandDeformd, build_augmentation
from msklabel.sections import Augment

EVERYTHING = Augment(
    rotate_degrees=20,
    scale_fraction=0.2,
    shift_voxels=3,
    deform_voxels=2,
    noise_sd=0.1,
    contrast_fraction=0.2,
    gamma_fraction=0.3,
    shading=0.3,
    probability=1,
)


def crop(dimensions: int) -> dict[str, torch.Tensor]:
    """Stripes whose brightness is their label; the third axis, where there is one, changes nothing."""
    stripes = (torch.arange(64) // 8 % 4).float().expand(48, 64)
    space = stripes if dimensions == 2 else stripes[..., None].expand(48, 64, 6)
    return {"image": space[None].clone(), "labels": space[None].clone()}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_bending_moves_image_and_labels_alike_and_keeps_slices_apart(dimensions: int) -> None:
    before = crop(dimensions)
    bend = RandDeformd(["image", "labels"], prob=1, sd_voxels=2)
    bend.set_random_state(0)
    after = bend(before)
    assert after["labels"].shape == before["labels"].shape
    assert set(after["labels"].unique().tolist()) <= {0, 1, 2, 3}
    moved = (after["labels"] != before["labels"]).float().mean()
    assert 0.05 < moved < 0.6
    assert ((after["image"] - after["labels"]).abs() < 1.6).float().mean() > 0.97
    if dimensions == 3:
        assert all(torch.equal(after["labels"][..., z], after["labels"][..., 0]) for z in range(6))


def test_by_how_much_it_bends_is_what_was_asked_for() -> None:
    bend = RandDeformd(["image"], prob=1, sd_voxels=2)
    bend.set_random_state(1)
    fields = torch.cat([bend._field(torch.Size((64, 96, 4))) for _ in range(50)])
    assert float(fields[:, 2].abs().max()) == 0
    assert 1 < float(fields[:, :2].std()) < 2.4  # splines average between knots
    steps = fields[:, :2].diff(dim=2)
    assert float(steps.abs().max()) < 1  # no voxel passes another


@pytest.mark.parametrize("dimensions", [2, 3])
def test_same_seed_same_changes_and_unknown_voxels_stay_unknown(dimensions: int) -> None:
    before = crop(dimensions)
    before["labels"][:, :10] = 255
    first, again = (build_augmentation(EVERYTHING, dimensions, seed=3)(dict(before)) for _ in range(2))
    other = build_augmentation(EVERYTHING, dimensions, seed=4)(dict(before))
    for key in before:
        torch.testing.assert_close(torch.as_tensor(first[key]), torch.as_tensor(again[key]))
        assert not torch.equal(torch.as_tensor(first[key]), torch.as_tensor(other[key]))
    assert set(np.unique(first["labels"])) <= {0, 1, 2, 3, 255}
    assert np.isfinite(np.asarray(first["image"])).all()


def test_a_recipe_without_changes_changes_nothing() -> None:
    before = crop(3)
    after = build_augmentation(Augment(), 3, seed=0)(dict(before))
    assert all(torch.equal(after[key], before[key]) for key in before)
