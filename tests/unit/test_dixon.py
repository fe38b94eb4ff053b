"""Water, fat and what follows from them; swaps are told by anatomy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from msklabel.errors import UserError
from msklabel.imaging.channels import named_channels, read_channels
from msklabel.pipeline.dixon import (
    detect_swapped,
    fat_fraction_percent,
    in_out_of_phase,
    mean_fat_fraction,
    select_channels,
    water_fat,
)

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = (REPOSITORY / os.environ.get("MSKLABEL_REAL_DATA", "../shared/data") / "mr_calf_dixon").resolve()
SPACING_MM = (1.5, 1.5, 6.0)


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_in_phase_adds_and_out_of_phase_cancels() -> None:
    in_phase, out_of_phase = in_out_of_phase(array(90, 20, 0), array(10, 60, 5))
    assert in_phase.tolist() == [100, 80, 5]
    assert out_of_phase.tolist() == [80, 40, 5]


def test_water_and_fat_come_back_where_it_is_known_which_is_larger() -> None:
    water, fat = array(90, 20, 0), array(10, 60, 5)
    back = water_fat(*in_out_of_phase(water, fat), fat_dominant=fat > water)
    np.testing.assert_allclose(back, (water, fat))
    assert [image.tolist() for image in water_fat(array(80, 10), array(40, 12))] == [[60, 11], [20, 0]]


def test_the_fat_fraction_is_in_percent_and_not_a_number_without_signal() -> None:
    percent = fat_fraction_percent(array(75, 0, 0, 50, -3, 1), array(25, 8, 0, 50, 6, 1), noise=2)
    np.testing.assert_allclose(percent, [25, 100, np.nan, 50, 100, np.nan])


def test_the_mean_over_a_region_leaves_out_voxels_without_signal() -> None:
    channels = {"water": array(90, 60, 0, 10), "fat": array(10, 40, 0, 90)}
    mask = np.array([True, True, True, False])
    assert mean_fat_fraction(channels, mask) == pytest.approx(25)
    assert np.isnan(mean_fat_fraction(channels, np.zeros(4, bool)))


def test_in_and_out_of_phase_alone_tell_the_mean_only_if_water_is_known_to_be_larger() -> None:
    in_phase, out_of_phase = in_out_of_phase(array(90, 60), array(10, 40))
    channels = {"in_phase": in_phase, "out_of_phase": out_of_phase}
    mask = np.ones(2, bool)
    with pytest.raises(UserError, match="add the channels water and fat"):
        mean_fat_fraction(channels, mask)
    assert mean_fat_fraction(channels, mask, water_dominant=True) == pytest.approx(25)
    with pytest.raises(UserError, match="needs the channels water and fat, got water"):
        mean_fat_fraction({"water": in_phase}, mask)


def test_channels_that_a_system_wants_are_made_from_water_and_fat() -> None:
    channels = {"water": array(90, 20), "fat": array(10, 60)}
    assert select_channels(channels, ("out_of_phase", "in_phase")).tolist() == [[80, 40], [100, 80]]
    assert select_channels(channels, ("fat",)).tolist() == [[10, 60]]
    with pytest.raises(UserError, match="missing channel in_phase; found out_of_phase"):
        select_channels({"out_of_phase": array(1)}, ("out_of_phase", "in_phase"))


def legs(ring_percent: float, core_percent: float, slices: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Water and fat of two round thighs with a layer of 10 mm under the skin; fat fractions in percent."""
    x, y = np.meshgrid(np.arange(120) * 1.5, np.arange(60) * 1.5, indexing="ij")
    radius = np.minimum(np.hypot(x - 45, y - 45), np.hypot(x - 135, y - 45))
    percent = np.where(radius < 30, core_percent, ring_percent)
    signal = 400.0 * (radius < 40) + np.abs(np.random.default_rng(0).normal(0, 4, x.shape))
    stacked = np.repeat((signal * percent / 100)[..., None], slices, 2), np.repeat(signal[..., None], slices, 2)
    return stacked[1] - stacked[0], stacked[0]


@pytest.mark.parametrize(
    ("ring", "core", "verdict"),
    [
        (92, 8, "correct"),
        (92, 70, "correct"),  # an end-stage muscular dystrophy
        (8, 92, "swapped"),
        (8, 30, "swapped"),
        (90, 88, "unclear"),
        (6, 8, "unclear"),
    ],
)
def test_fat_belongs_under_the_skin(ring: float, core: float, verdict: str) -> None:
    found = detect_swapped(*legs(ring, core), SPACING_MM)
    assert found.verdict == verdict
    assert (found.ring_percent, found.core_percent) == pytest.approx((ring, core), abs=1)
    assert found.pieces == 8


def test_a_swap_in_one_leg_or_some_slices_is_noticed_where_it_is() -> None:
    water, fat = legs(92, 8, slices=10)
    water[:60, :, 3:], fat[:60, :, 3:] = fat[:60, :, 3:].copy(), water[:60, :, 3:].copy()
    found = detect_swapped(water, fat, SPACING_MM)
    assert (found.verdict, found.pieces, found.swapped_pieces, found.correct_pieces) == ("partly", 20, 7, 13)
    assert found.swapped_slices == (3, 4, 5, 6, 7, 8, 9)
    assert "partly" in str(found)
    assert "7 of 20" in str(found)


def test_nothing_in_the_image_is_unclear() -> None:
    assert detect_swapped(np.zeros((8, 8, 2)), np.zeros((8, 8, 2)), SPACING_MM).verdict == "unclear"


def test_images_of_two_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"one shape expected, got \(1,\) and \(2,\)"):
        fat_fraction_percent(array(1), array(1, 2))


@pytest.mark.real
@pytest.mark.skipif(not FOLDER.is_dir(), reason="real scans not found: set MSKLABEL_REAL_DATA to their folder")
class TestCalf:
    @pytest.fixture(scope="class")
    def calf(self) -> dict[str, np.ndarray]:
        scan = read_channels(FOLDER)
        assert scan.spacing_mm == pytest.approx(SPACING_MM)
        return named_channels(scan)

    def test_muscle_is_lean_and_marrow_is_fat(self, calf: dict[str, np.ndarray]) -> None:
        percent = fat_fraction_percent(calf["water"], calf["fat"])
        told = percent[np.isfinite(percent)]
        assert told.min() >= 0
        assert told.max() <= 100
        muscle, marrow = np.zeros_like(calf["fat"], bool), np.zeros_like(calf["fat"], bool)
        muscle[85:125, 118:135] = muscle[200:235, 118:135] = True  # soleus and gastrocnemius of both legs
        marrow[101:105, 174:178, 5:15] = True  # tibia of one
        assert mean_fat_fraction(calf, muscle) < 20
        assert mean_fat_fraction(calf, marrow) > 80

    def test_water_and_fat_are_told_apart(self, calf: dict[str, np.ndarray]) -> None:
        right = detect_swapped(calf["water"], calf["fat"], SPACING_MM)
        wrong = detect_swapped(calf["fat"], calf["water"], SPACING_MM)
        assert (right.verdict, right.correct_pieces, right.pieces) == ("correct", 46, 46)
        assert (wrong.verdict, wrong.swapped_pieces, wrong.pieces) == ("swapped", 46, 46)
        assert right.ring_percent > 60
        assert right.core_percent < 20

    def test_phases_are_made_from_them_and_back(self, calf: dict[str, np.ndarray]) -> None:
        out_of_phase, in_phase = select_channels(calf, ("out_of_phase", "in_phase"))
        assert (out_of_phase <= in_phase).all()
        back = water_fat(in_phase, out_of_phase, fat_dominant=calf["fat"] > calf["water"])
        np.testing.assert_allclose(back, (calf["water"], calf["fat"]), atol=1e-3)
