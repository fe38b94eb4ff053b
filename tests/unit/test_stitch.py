"""Stitching of overlapping stacks: hand-computed blends, exact places, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_samples import write

from msklabel.imaging import ImageError, Scan
from msklabel.imaging.channels import CHANNELS_FACT
from msklabel.imaging.read import read_scan
from msklabel.imaging.stitch import SCALES_FACT, stitch, stitch_files

STRAIGHT = np.diag([1.2, 1.2, 2.0, 1.0])


def oblique() -> np.ndarray:
    turn, _ = np.linalg.qr(np.array([[0.9, -0.3, 0.1], [0.3, 0.9, 0.2], [-0.1, -0.2, 0.9]]))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.sign(np.diag(turn)) @ np.diag([1.2, 1.2, 2.0])
    affine[:3, 3] = -40, 12, 700
    return affine


def stack(
    values: list[float] | np.ndarray,
    at: float = 0,
    affine: np.ndarray = STRAIGHT,
    dtype: type = np.float32,
    **facts: str,
) -> Scan:
    """One channel, 3 x 2 voxels in plane, each slice of one value; the first slice at position ``at``, in slices."""
    placed = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, at], [0, 0, 0, 1.0]])
    return Scan(np.broadcast_to(np.asarray(values, dtype), (1, 3, 2, len(values))).copy(), placed, facts)


def along(scan: Scan) -> list[float]:
    return scan.array[0, 1, 1].tolist()


@pytest.mark.parametrize("affine", [STRAIGHT, oblique(), np.diag([-1.2, -1.2, 2, 1.0])], ids=["RAS", "oblique", "LPS"])
@pytest.mark.parametrize("turned", [False, True])
def test_an_overlap_of_three_slices_is_blended_by_quarters(affine: np.ndarray, turned: bool) -> None:
    stacks = [stack([10] * 5, 0, affine), stack([30] * 5, 2, affine)]
    scan = stitch(stacks[::-1] if turned else stacks, match_intensity=False)
    assert along(scan) == [10, 10, 15, 20, 25, 30, 30]
    np.testing.assert_allclose(scan.affine, affine, atol=1e-12)


def test_three_stacks_make_one_ramp() -> None:
    ramp = np.arange(14.0) + 5
    scan = stitch([stack(ramp[9:14], 9), stack(ramp[0:6], 0), stack(ramp[4:11], 4)])
    np.testing.assert_allclose(along(scan), ramp, rtol=1e-6)
    assert scan.facts[SCALES_FACT] == "1 1 1"


def test_three_stacks_may_overlap_at_one_place() -> None:
    parts = [stack([8] * 4, 0), stack([16] * 4, 1), stack([24] * 4, 2)]
    # At 2 and 3 all three lie: the third takes a third of 2 and two thirds of 3, the second 2/4 and 3/4 of the rest,
    # from an overlap of three slices (1, 2, 3).
    at_1 = 8 * 3 / 4 + 16 * 1 / 4
    at_2 = (8 * 2 / 4 + 16 * 2 / 4) * 3 / 4 + 24 * 1 / 4
    at_3 = (8 * 1 / 4 + 16 * 3 / 4) * 2 / 4 + 24 * 2 / 4
    at_4 = 16 * 1 / 4 + 24 * 3 / 4
    np.testing.assert_allclose(along(stitch(parts, match_intensity=False)), [8, at_1, at_2, at_3, at_4, 24])


def test_brightness_is_matched_in_the_overlap_and_the_factors_are_told() -> None:
    ramp = np.arange(12.0) + 1
    scan = stitch([stack(ramp[:6], 0), stack(ramp[3:9] / 2, 3), stack(ramp[6:] * 3, 6)])
    np.testing.assert_allclose(along(scan), ramp, rtol=1e-6)
    assert scan.facts[SCALES_FACT] == "1 2 0.3333"
    unmatched = stitch([stack(ramp[:6], 0), stack(ramp[3:9] / 2, 3)], match_intensity=False)
    assert unmatched.array[0, 0, 0, -1] == ramp[8] / 2


def test_the_factor_is_that_of_least_squares() -> None:
    scan = stitch([stack([0, 3, 5], 0), stack([2, 2, 7], 1)])
    assert scan.facts[SCALES_FACT] == f"1 {(3 * 2 + 5 * 2) / (2 * 2 + 2 * 2):.4g}"


def test_all_channels_of_a_stack_get_one_factor() -> None:
    def pair(a: float, b: float, at: float) -> Scan:
        one, other = stack([a] * 4, at), stack([b] * 4, at)
        return Scan(np.concatenate([one.array, other.array]), one.affine, {CHANNELS_FACT: "water fat"})

    scan = stitch([pair(90, 10, 0), pair(45, 5, 2)])
    np.testing.assert_allclose(scan.array[:, 0, 0, -1], [90, 10])
    assert scan.facts[CHANNELS_FACT] == "water fat"


def test_ct_is_never_rescaled() -> None:
    scan = stitch([stack([100] * 4, 0, modality="CT"), stack([50] * 4, 2, modality="CT")])
    assert along(scan)[-1] == 50


@pytest.mark.parametrize("affine", [STRAIGHT, oblique()], ids=["straight", "oblique"])
def test_slices_between_slices_are_interpolated(affine: np.ndarray) -> None:
    ramp = np.arange(5.0)
    scan = stitch([stack(ramp, 0, affine), stack(ramp + 3.5, 3.5, affine)], match_intensity=False)
    np.testing.assert_allclose(along(scan), [0, 1, 2, 3, 4, 5, 6, 7], atol=1e-5)  # 7.5 lies beyond the last


def test_stacks_that_touch_are_joined_as_they_are() -> None:
    assert along(stitch([stack([1, 2], 0), stack([7, 8], 2)])) == [1, 2, 7, 8]
    np.testing.assert_allclose(along(stitch([stack([0, 0], 0), stack([6, 6, 6], 1.6)])), [0, 0, 6, 6])


def test_any_axis_can_be_the_common_one() -> None:
    array = np.arange(7 * 3 * 2, dtype=np.float32).reshape(1, 7, 3, 2)
    later = STRAIGHT.copy()
    later[0, 3] = 3 * 1.2
    scan = stitch([Scan(array[:, :5], STRAIGHT), Scan(array[:, 3:], later)], match_intensity=False)
    np.testing.assert_allclose(scan.array, array)


def test_whole_numbers_stay_whole_and_in_range() -> None:
    scan = stitch([stack([1, 2, 3], 0, dtype=np.uint8), stack([4, 250, 250], 2, dtype=np.uint8)], match_intensity=False)
    assert scan.array.dtype == np.uint8
    assert along(scan) == [1, 2, 4, 250, 250]  # 3.5 is rounded to even


def sheared(
    at: float, shift_mm: float = 0, degrees: float = 0, spacing_mm: tuple[float, ...] = (1.2, 1.2, 2.0)
) -> Scan:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(spacing_mm)
    affine[:3, 3] = shift_mm, 0, at * 2.0
    return Scan(np.ones((1, 40, 40, 5), np.float32), affine)


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (sheared(3, shift_mm=0.6), "B is shifted by 0.6 mm in plane against A, so they cannot be stitched"),
        (sheared(3, degrees=2), "B is rotated by 2 degrees against A, so they cannot be stitched"),
        (
            sheared(3, spacing_mm=(1.25, 1.2, 2.0)),
            "B has voxels of 1.25 x 1.2 x 2 mm, A of 1.2 x 1.2 x 2 mm, so they cannot be stitched",
        ),
        (
            sheared(3, spacing_mm=(1.2, 1.2, 3.0)),
            "B has voxels of 1.2 x 1.2 x 3 mm, A of 1.2 x 1.2 x 2 mm, so they cannot be stitched",
        ),
        (sheared(3, degrees=180), "B has its axes along LPS, A along RAS, so they cannot be stitched"),
        (sheared(7), "there is a gap of 4 mm between A and B"),
        (sheared(0), "A, B: all lie in the same place; there is nothing to stitch"),
    ],
)
def test_stacks_that_do_not_line_up_are_refused_with_the_reason(second: Scan, sentence: str) -> None:
    with pytest.raises(ImageError) as refused:
        stitch([sheared(0), second], ["A", "B"])
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("stacks", "sentence"),
    [
        ([stack([1] * 9, 0), stack([1] * 4, 2)], "stack 2 lies within stack 1 along the slices; leave it out"),
        ([stack([1] * 4, 0), stack([1] * 4, 20), stack([1] * 4, 3)], "gap of 26 mm between stack 3 and stack 2"),
        ([stack([1] * 4)], "at least two stacks, got 1"),
        ([stack([1] * 4, patient="a"), stack([1] * 4, 2, patient="b")], "stack 2 is of patient 'b', stack 1 of 'a'"),
        ([stack([1] * 4), stack([100] * 4, 2)], "multiplied by 0.01 to match stack 1"),
        (
            [stack([1] * 4, channels="water"), stack([1] * 4, 2, channels="fat")],
            "stack 2 has fat, stack 1 has water",
        ),
    ],
)
def test_stacks_that_do_not_belong_together_are_refused(stacks: list[Scan], sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        stitch(stacks)


def test_a_small_error_of_an_affine_does_no_harm() -> None:
    later = stack([30] * 5, 2 + 1e-5)
    np.testing.assert_allclose(
        along(stitch([stack([10] * 5), later], match_intensity=False)), [10, 10, 15, 20, 25, 30, 30], rtol=1e-4
    )


def test_files_of_all_channels_are_stitched_into_one_file(tmp_path: Path) -> None:
    for name, at, values in [("a", 0, (10, 90)), ("b", 4, (20, 180))]:
        for channel, value in zip(("OP", "IP"), values, strict=True):
            write(tmp_path / f"{name}_{channel}.nii.gz", np.full((4, 3, 3), value, np.int16), (1, 1, 2), (5, 6, at))
    stitched = stitch_files([tmp_path / "b", tmp_path / "a_IP.nii.gz"], tmp_path / "out.nii.gz")
    back = read_scan(tmp_path / "out.nii.gz")
    assert back.array.dtype == np.int16
    assert back.array[:, 0, 0].tolist() == [[10] * 5, [90] * 5]
    np.testing.assert_allclose(back.affine, stitched.affine, atol=1e-5)
    assert stitched.facts[SCALES_FACT] == "1 0.5"
    assert sorted(file.name for file in tmp_path.iterdir() if "out" in file.name) == ["out.nii.gz"]
    with pytest.raises(ImageError, match=r"out.nii.gz: is there already"):
        stitch_files([tmp_path / "a", tmp_path / "b"], tmp_path / "out.nii.gz")
    with pytest.raises(ImageError, match=r"out.png: a stitched scan is written as .nii.gz or .nii"):
        stitch_files([tmp_path / "a", tmp_path / "b"], tmp_path / "out.png")
