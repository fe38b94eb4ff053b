"""Label maps on other grids: the nearest voxel, up to the outer faces of the map."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from msklabel.imaging.regrid import labels_on_grid
from msklabel.imaging.scan import LabelMap


def test_a_structure_keeps_its_volume_to_the_very_ends_of_the_map() -> None:
    coarse = LabelMap(np.ones((4, 4, 4), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    fine = np.eye(4)
    fine[:3, 3] = -0.5  # the outer faces of both lie at -1 and 7 mm
    assert (labels_on_grid(coarse, (8, 8, 8), fine).array == 1).all()
    wider = fine.copy()
    wider[:3, 3] -= 1
    assert labels_on_grid(coarse, (10, 10, 10), wider).array.sum() == 8**3


@pytest.mark.parametrize("seed", range(3))
def test_any_orientation_takes_the_nearest_voxel_and_nothing_outside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    affines = []
    for _ in range(2):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.random(random_state=rng).as_matrix() @ np.diag(rng.uniform(0.5, 2, 3))
        affine[:3, 3] = rng.uniform(-4, 4, 3)
        affines.append(affine)
    labels = rng.integers(1, 200, (9, 7, 5)).astype(np.uint8)
    found = labels_on_grid(LabelMap(labels, affines[0]), (8, 9, 10), affines[1]).array
    for voxel in np.ndindex(found.shape):
        there = np.linalg.inv(affines[0]) @ affines[1] @ [*voxel, 1]
        nearest = np.floor(there[:3] + 0.5).astype(int)
        inside = (nearest >= 0).all() and (nearest < labels.shape).all()
        assert found[voxel] == (labels[tuple(nearest)] if inside else 0)
