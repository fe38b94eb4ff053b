"""One network for both sides: split, mirror, join; one leg only."""

import numpy as np
import pytest
import torch
from test_engine import ByIntensity
from test_preprocess import make_system
from torch import nn

from msklabel.errors import UserError
from msklabel.imaging import Scan
from msklabel.pipeline.postprocess import postprocess
from msklabel.pipeline.preprocess import Preprocess
from msklabel.pipeline.sides import Sides
from msklabel.predict.engine import Engine


def two_legs(shape: tuple[int, int, int] = (80, 30, 10)) -> tuple[np.ndarray, np.ndarray]:
    """Two soft blocks in air, each with a dense core on its outer side, and their labels."""
    hu, labels = np.full(shape, -1000.0, np.float32), np.zeros(shape, np.uint8)
    for outer, core in (((8, 34), (9, 15)), ((46, 72), (65, 71))):
        hu[outer[0] : outer[1], 3:27, 1:9], labels[outer[0] : outer[1], 3:27, 1:9] = 50, 2
        hu[core[0] : core[1], 8:14, 3:7], labels[core[0] : core[1], 8:14, 3:7] = 600, 1
    return hu, labels


def mirrored_system(**changes: object):
    return make_system(laterality="mirror_halves", spacing_mm=[None, None, None], **changes)


@pytest.mark.parametrize("plane", [0, 3, 7, 10])
def test_split_and_join_are_inverse(plane: int) -> None:
    image = torch.arange(2 * 10 * 3 * 2.0).reshape(2, 10, 3, 2)
    sides = Sides(plane, 10)
    halves = sides.split(image)
    assert {half.shape for half in halves} == {(2, sides.half_width, 3, 2)}
    torch.testing.assert_close(sides.join(halves), image)


def test_the_left_half_is_mirrored_to_look_like_a_right_one() -> None:
    hu, _ = two_legs()
    prepared = Preprocess(mirrored_system())(Scan(hu[None], np.eye(4)))
    left, right = prepared.parts(prepared.image)
    torch.testing.assert_close(left, right)
    assert float(right[0, -1].max()) == 0
    dense = torch.nonzero((right[0] == 1).any(-1).any(-1))[:, 0]
    assert int(dense.min()) > right.shape[1] // 2


@pytest.mark.parametrize("flip", [1, -1])
def test_labels_come_back_on_the_right_side_in_any_orientation(flip: int) -> None:
    hu, labels = two_legs()
    labels[46:72][labels[46:72] == 2] = 0
    hu[46:72][hu[46:72] == 50] = -1000
    engine = Engine(mirrored_system(), ByIntensity())
    stored_hu, stored = hu[::flip], labels[::flip]
    result = engine(Scan(np.ascontiguousarray(stored_hu)[None], np.diag([flip, 1.0, 1.0, 1.0])))
    np.testing.assert_array_equal(result.labels.array, stored)


def test_the_network_sees_both_sides_in_one_batch() -> None:
    seen: list[int] = []

    class Counting(ByIntensity):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x)

    hu, _ = two_legs()
    system = mirrored_system(patch_voxels=[48, 32, 1], predict={"batch": 1000, "overlap": 0})
    Engine(system, Counting())(Scan(hu[None], np.eye(4)))
    assert len(seen) == 1


@pytest.mark.parametrize(("x_mm", "facts", "plane"), [(100, {}, 0), (-180, {}, None), (-10, {"side": "R"}, 0)])
def test_one_leg_is_told_by_its_header_or_its_place(x_mm: float, facts: dict[str, str], plane: int | None) -> None:
    hu = two_legs()[0][40:]
    affine = np.eye(4)
    affine[0, 3] = x_mm
    sides = Preprocess(mirrored_system())(Scan(hu[None], affine, facts)).sides
    assert sides is not None
    assert sides.plane == (sides.width if plane is None else plane)
    assert len(sides.split(torch.zeros(1, sides.width, 2, 2))) == 1


def test_noise_around_the_legs_on_mr_is_not_taken_for_the_body() -> None:
    hu, _ = two_legs((80, 78, 10))
    mr = np.where(hu > -1000, 1000.0, 0) + np.abs(np.random.default_rng(0).normal(0, 15, hu.shape))
    window = {"kind": "window", "lower": 0, "upper": 4095}
    sides = Preprocess(mirrored_system(modality=["MR"], intensity=window))(Scan(mr[None], np.eye(4))).sides
    assert sides is not None
    assert 0 < sides.plane < sides.width


def test_one_leg_in_the_middle_without_a_word_is_refused() -> None:
    affine = np.eye(4)
    affine[0, 3] = -20
    with pytest.raises(UserError, match="only one leg is in this scan"):
        Preprocess(mirrored_system())(Scan(two_legs()[0][40:][None], affine))


def test_the_largest_component_is_kept_on_each_side() -> None:
    labels = np.zeros((20, 6, 1), np.uint8)
    labels[1:5, 1:5], labels[7, 1], labels[12:16, 1:5], labels[18, 1] = 1, 1, 1, 1
    system = mirrored_system(postprocess={"largest_component": ["dense"]})
    cleaned = postprocess(labels, system, plane=10)
    assert cleaned[1:5, 1:5].all()
    assert cleaned[12:16, 1:5].all()
    assert not cleaned[7, 1].any()
    assert not cleaned[18, 1].any()


class Always(nn.Module):
    """Votes for one class everywhere, with a strength."""

    def __init__(self, index: int, strength: float) -> None:
        super().__init__()
        self.index, self.strength = index, strength

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros((len(x), 3, *x.shape[2:]))
        scores[:, self.index] = self.strength
        return scores


def test_an_ensemble_votes_or_averages_as_the_system_says() -> None:
    hu, _ = two_legs()
    members = [Always(1, 1), Always(1, 1), Always(2, 50)]
    scan = Scan(hu[None], np.eye(4))
    plain = {"spacing_mm": [None, None, None]}
    voted = Engine(make_system(predict={"ensemble": "majority"}, **plain), members)(scan).labels.array
    averaged = Engine(make_system(predict={"ensemble": "mean"}, **plain), members)(scan).labels.array
    assert voted[20, 15, 5] == 1
    assert averaged[20, 15, 5] == 2


def test_mirror_axes_average_over_all_flips() -> None:
    class Leaning(ByIntensity):
        """Sees class 1 in the first half of its window only."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = torch.zeros((len(x), 3, *x.shape[2:]))
            scores[:, 1, : x.shape[2] // 2] = 4
            return scores

    hu, _ = two_legs((80, 32, 6))
    system = make_system(spacing_mm=[None, None, None], patch_voxels=[80, 32, 1], predict={"mirror_axes": [0, 1]})
    engine = Engine(system, Leaning())
    scores = engine.scores(Preprocess(system)(Scan(hu[None], np.eye(4))))
    torch.testing.assert_close(scores[1, ..., 3], torch.full_like(scores[1, ..., 3], 2.0))


@pytest.mark.parametrize("resampling", ["edge_to_edge", "from_first_voxel"])
@pytest.mark.parametrize("thickness_mm", [2.0, 10.0])
def test_a_leg_in_one_slice_is_told_as_in_many(resampling: str, thickness_mm: float) -> None:
    volume = {"dimensions": 3, "patch_voxels": [16, 16, 8], "network": {"name": "vnet"}, "resampling": resampling}
    system = make_system(laterality="mirror_halves", spacing_mm=[None, None, 2.0], **volume)
    hu = two_legs()[0][40:, :, 4:5]
    affine = np.diag([1.0, 1.0, thickness_mm, 1.0])
    affine[0, 3] = -180
    sides = Preprocess(system)(Scan(hu[None], affine)).sides
    assert sides is not None
    assert sides.plane == sides.width
    affine[0, 3] = -20
    with pytest.raises(UserError, match="only one leg is in this scan"):
        Preprocess(system)(Scan(hu[None], affine))
