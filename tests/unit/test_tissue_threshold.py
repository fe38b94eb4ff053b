"""Tissue thresholds on drawn slices: a thigh of known circles, and what must not become a tissue."""

import numpy as np
import pytest

from msklabel.predict.slice_morphology import close_mm, dilate_mm, erode_mm, fill_enclosed, open_mm, refine
from msklabel.predict.tissue_threshold import TISSUES, TissueThresholds, denoise, noise_sd_hu, segment_tissues

CORTICAL, TRABECULAR, HAEMATOPOIETIC, MARROW_FAT, MUSCLE, IMAT, SAT = range(1, 8)
SPACING_MM = (1.5, 1.5, 3.0)
SHAPE = (140, 120, 3)
CENTRE_MM = (105.0, 90.0)


def disk(radius_mm, at_mm=(0.0, 0.0)):
    """Pixels within a radius of a point given from the thigh's centre, shape (X, Y)."""
    x_mm, y_mm = np.indices(SHAPE[:2]) * 1.5
    return np.hypot(x_mm - CENTRE_MM[0] - at_mm[0], y_mm - CENTRE_MM[1] - at_mm[1]) <= radius_mm


@pytest.fixture
def thigh():
    """A thigh in HU: SAT 55–75 mm from the centre, muscle inside, a fat cleft, a femur of 16 mm with 4 mm of cortex."""
    plane = np.full(SHAPE[:2], -1000.0)
    plane[disk(78)] = 40.0  # skin
    plane[disk(75)] = -100.0
    plane[disk(55)] = 55.0
    plane[disk(5, (30, 0))] = -90.0
    plane[disk(16)] = 900.0
    plane[disk(12)] = 20.0
    plane[disk(8)] = 100.0
    plane[disk(5)] = 200.0
    return np.repeat(plane[:, :, None], SHAPE[2], axis=2)


@pytest.mark.parametrize(
    ("at_mm", "tissue"),
    [
        ((14, 0), CORTICAL),
        ((0, 0), TRABECULAR),
        ((6.5, 0), HAEMATOPOIETIC),
        ((10, 0), MARROW_FAT),
        ((0, 35), MUSCLE),
        ((30, 0), IMAT),
        ((0, 65), SAT),
        ((77, 0), 0),
        ((85, 0), 0),
    ],
)
def test_tissue_at_a_point_of_the_thigh(thigh, at_mm, tissue):
    labels = segment_tissues(thigh, SPACING_MM)
    x, y = (round((centre + offset) / 1.5) for centre, offset in zip(CENTRE_MM, at_mm, strict=True))
    assert labels[x, y].tolist() == [tissue] * SHAPE[2]


def test_tissues_are_named_in_the_order_of_their_indices():
    assert (TISSUES[CORTICAL - 1], TISSUES[MARROW_FAT - 1], TISSUES[SAT - 1]) == (
        "cortical_bone",
        "marrow_adipose_tissue",
        "subcutaneous_adipose_tissue",
    )


def test_one_slice_is_labelled_as_a_volume_is(thigh):
    np.testing.assert_array_equal(
        segment_tissues(thigh[:, :, :1], SPACING_MM), segment_tissues(thigh, SPACING_MM)[:, :, :1]
    )


def test_input_is_left_as_it_was(thigh):
    before = thigh.copy()
    segment_tissues(thigh, SPACING_MM)
    np.testing.assert_array_equal(thigh, before)


def test_fine_voxels_give_the_same_anatomy(thigh):
    fine = thigh.repeat(3, axis=0).repeat(3, axis=1)
    labels = segment_tissues(fine, (0.5, 0.5, 3.0))
    assert np.mean(labels[1::3, 1::3] == segment_tissues(thigh, SPACING_MM)) > 0.99


def test_marrow_is_found_through_a_gap_in_the_cortex(thigh):
    thigh[70:73, 60:] = np.where(thigh[70:73, 60:] == 900.0, 60.0, thigh[70:73, 60:])
    labels = segment_tissues(thigh, SPACING_MM)
    assert labels[77, 60].tolist() == [MARROW_FAT] * 3


def test_table_is_background(thigh):
    thigh[:, 2:5] = 150.0
    assert not segment_tissues(thigh, SPACING_MM)[:, :6].any()


def test_small_part_beside_the_body_is_background(thigh):
    arm = disk(14, (-92, -70))
    thigh[arm] = 50.0
    assert not segment_tissues(thigh, SPACING_MM)[arm].any()


def test_calcification_is_no_bone(thigh):
    speck = disk(3, (0, 40))
    thigh[speck] = 700.0
    assert not np.isin(segment_tissues(thigh, SPACING_MM)[speck], (1, 2, 3, 4)).any()


def test_metal_is_background_and_bone_around_it_stays(thigh):
    nail = disk(6)
    thigh[nail] = 3000.0
    labels = segment_tissues(thigh, SPACING_MM)
    assert not labels[nail].any()
    assert np.mean(labels[disk(15.5) & ~disk(12.5)] == CORTICAL) > 0.95


def test_streak_from_metal_is_cut_off_the_bone(thigh):
    thigh[disk(6)] = 3000.0
    thigh[80:88, 60] = 400.0
    assert not np.isin(segment_tissues(thigh, SPACING_MM)[84:88, 60], (1, 2, 3, 4)).any()


def test_pool_of_contrast_is_no_bone(thigh):
    pool = disk(13, (0, -37))
    thigh[pool] = 600.0
    assert not np.isin(segment_tissues(thigh, SPACING_MM)[pool], (1, 2, 3, 4)).any()


def test_septum_in_subcutaneous_fat_is_no_muscle(thigh):
    thigh[108:118, 60] = 20.0
    labels = segment_tissues(thigh, SPACING_MM)
    assert not labels[110:118, 60].any()
    assert (labels[112, 62] == SAT).all()


def test_limits_can_be_set(thigh):
    thigh[disk(55) & ~disk(16)] = -45.0
    limits = TissueThresholds(muscle_lower_hu=-50.0, fat_upper_hu=-50.0)
    assert (segment_tissues(thigh, SPACING_MM, limits)[70, 85] == MUSCLE).all()


def test_pelvic_organ_between_the_hip_bones_is_no_muscle():
    x_mm, y_mm = (np.indices((160, 110)) - np.array([80, 55])[:, None, None]) * 2.0
    plane = np.full((160, 110), -1000.0)
    plane[(x_mm / 150) ** 2 + (y_mm / 100) ** 2 <= 1] = -100.0
    plane[(x_mm / 130) ** 2 + (y_mm / 80) ** 2 <= 1] = 55.0
    ring = (x_mm / 80) ** 2 + (y_mm / 60) ** 2
    plane[(ring <= 1) & (np.abs(x_mm) > 20) & (np.abs(y_mm) < 45)] = 250.0
    plane[(ring <= 1) & (y_mm < -40) & (np.abs(x_mm) < 15)] = 250.0
    plane[(x_mm / 65) ** 2 + (y_mm / 45) ** 2 <= 1] = 30.0
    plane[(ring > 0.9) & (ring <= 1.1) & (np.abs(y_mm) < 40)] = 500.0
    labels = segment_tissues(plane[:, :, None], (2.0, 2.0, 3.0))
    assert labels[80, 55, 0] == 0
    assert labels[80 + 57, 55, 0] == MUSCLE


def test_air_gives_an_empty_map():
    assert not segment_tissues(np.full((20, 20, 2), -1000.0), SPACING_MM).any()


@pytest.mark.parametrize("fill_hu", [-1024.0, 50.0, -100.0, 1000.0, 3000.0, np.nan])
def test_uniform_image_that_has_no_border_is_taken(fill_hu):
    assert segment_tissues(np.full((20, 30, 2), fill_hu), SPACING_MM).shape == (20, 30, 2)


def test_image_that_is_not_3d_is_refused():
    with pytest.raises(ValueError, match=r"shape \(X, Y, Z\), got shape \(4, 4\)"):
        segment_tissues(np.zeros((4, 4)), SPACING_MM)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, np.nan, 1.0)])
def test_bad_spacing_is_refused(spacing_mm):
    with pytest.raises(ValueError, match="three positive numbers"):
        segment_tissues(np.zeros((4, 4, 4)), spacing_mm)


def test_limits_that_cross_are_refused():
    with pytest.raises(ValueError, match="marrow_lower_hu < trabecular_lower_hu"):
        TissueThresholds(marrow_lower_hu=200.0)


def test_noise_is_measured_and_reduced_without_blurring_an_edge():
    rng = np.random.default_rng(0)
    step = np.repeat(np.where(np.arange(40) < 20, -100.0, 300.0)[:, None], 40, axis=1)[:, :, None]
    noisy = (step + rng.normal(0.0, 20.0, step.shape)).astype(np.float32)
    sd_hu = noise_sd_hu(noisy, np.ones(noisy.shape, bool))
    assert sd_hu == pytest.approx(20.0, rel=0.15)
    assert np.std(denoise(noisy, sd_hu) - step) < 0.65 * 20.0


def test_quiet_image_is_not_denoised():
    quiet = np.random.default_rng(0).normal(0.0, 5.0, (10, 10, 1)).astype(np.float32)
    assert denoise(quiet, 5.0) is quiet


@pytest.mark.parametrize(("radius_mm", "area"), [(0.9, 1), (1.0, 3), (2.0, 7), (2.3, 11)])
def test_dilation_is_a_disk_in_mm(radius_mm, area):
    point = np.zeros((9, 9, 2), bool)
    point[4, 4, 0] = True
    dilated = dilate_mm(point, radius_mm, (1.0, 2.0, 5.0))
    assert (dilated[:, :, 0].sum(), dilated[:, :, 1].sum()) == (area, 0)


def test_opening_removes_and_closing_bridges_what_is_thinner_than_the_disk():
    comb = np.zeros((20, 20, 1), bool)
    comb[2:8, 2:18] = comb[9:15, 2:18] = True
    assert close_mm(comb, 1.0, (1, 1, 1))[8, 5, 0]
    assert not open_mm(~comb, 1.0, (1, 1, 1))[8, 10, 0]


def test_erosion_counts_the_image_border_as_inside():
    assert erode_mm(np.ones((5, 5, 1), bool), 2.0, (1, 1, 1)).all()


@pytest.mark.parametrize(("largest_cm2", "filled"), [(np.inf, True), (0.16, True), (0.15, False)])
def test_hole_is_filled_up_to_its_largest_area(largest_cm2, filled):
    ring = np.zeros((8, 8, 1), bool)
    ring[1:7, 1:7] = True
    ring[2:6, 2:6] = False
    assert fill_enclosed(ring, largest_cm2, (1, 1, 1))[3, 3, 0] == filled


def test_refining_redraws_only_the_outline():
    coarse = np.zeros((8, 8, 1), bool)
    coarse[2:6, 2:6] = True
    belongs = np.zeros((16, 16, 1), bool)
    belongs[3:13, 3:13] = True
    belongs[0, 0] = True
    expected = belongs.copy()
    expected[0, 0] = False
    np.testing.assert_array_equal(refine(coarse, (2, 2), belongs), expected)
