"""A label that speaks of a part of its scan: the rest is neither measured nor judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.measure.evaluate import evaluate_pair
from msklabel.measure.quantify import SliceChoice, quantify
from msklabel.system import load_system
from msklabel_phantoms.write import generate

CONFIGS = Path(__file__).parents[2] / "configs"
TISSUES = load_system(CONFIGS / "hip_tissue_ct.yaml")
THIGH = load_system(CONFIGS / "thigh_ct.yaml")
AFFINE = np.diag([2.0, 1.0, 5.0, 1.0])


def row_of(found, structure: str, side: str = "both") -> dict:
    return next(row for row in found.rows if (row["structure"], row["side"]) == (structure, side))


def block() -> tuple[np.ndarray, np.ndarray]:
    """Muscle (5) in slices 0 to 3 whose HU rise from slice to slice; HBM (3) and MAT (4) in slice 1."""
    labels = np.zeros((20, 10, 4), np.uint8)
    labels[1:6, 2:6], labels[14:18, 2:6] = 5, 5
    labels[7, 2:5, 1], labels[7, 5, 1] = 3, 4
    return labels, np.broadcast_to([10.0, 20.0, 30.0, 40.0], labels.shape).copy()


@pytest.mark.parametrize("turned", [False, True])
def test_slices_that_nobody_looked_at_leave_volumes_untold_and_means_to_the_others(turned: bool):
    labels, hu = block()
    annotated = Annotated(slices=(1, 2))
    affine = AFFINE
    if turned:  # stored from the top down: slices 1 and 2 are counted from there
        labels, hu, affine = labels[..., ::-1], hu[..., ::-1], AFFINE @ np.diag([1.0, 1, -1, 1])
        annotated = Annotated(slices=(1, 2))
    found = quantify("a", labels, affine, TISSUES, {"hu": hu}, 200.0, SliceChoice("index", 1), annotated=annotated)
    muscle = row_of(found, "muscle")
    assert np.isnan(muscle["volume_cm3"])
    assert muscle["area_cm2"] == pytest.approx((5 + 4) * 4 * 2 / 100)
    assert found.notes[0] == "a: 2 of 4 slices were looked at; what needs the others is left out"
    whole = quantify("a", labels, affine, TISSUES, {"hu": hu}, 200.0, SliceChoice("none"), annotated=annotated)
    assert row_of(whole, "muscle")["mean_hu"] == pytest.approx(25.0)
    outside = quantify("a", labels, affine, TISSUES, {"hu": hu}, 200.0, SliceChoice("index", 3), annotated=annotated)
    assert np.isnan([row_of(outside, "muscle")[name] for name in ("area_cm2", "mean_hu")]).all()
    assert {row["slice"] for row in found.profile} == {1, 2}


def test_slices_across_another_axis_give_no_area_either():
    labels, hu = block()
    annotated = Annotated(slices=tuple(range(10)), slice_axis=0)
    found = quantify("a", labels, AFFINE, TISSUES, {"hu": hu}, None, SliceChoice("index", 1), annotated=annotated)
    muscle = row_of(found, "muscle")
    assert np.isnan(muscle["area_cm2"]) and np.isnan(muscle["volume_cm3"])
    assert muscle["voxels"] == 5 * 4 * 4  # of the half that was looked at


def test_voxels_of_a_slab_that_was_not_looked_at_wholly_are_not_told():
    labels, hu = block()
    found = quantify(
        "a", labels, AFFINE, TISSUES, {"hu": hu}, None, SliceChoice("none"), annotated=Annotated(slices=(1,))
    )
    muscle = row_of(found, "muscle")
    assert np.isnan(muscle["slab_voxels"]) and np.isnan(muscle["volume_cm3"]) and muscle["voxels"] > 0


def test_classes_that_nobody_looked_for_have_no_row_and_no_share():
    labels, hu = block()
    annotated = Annotated(classes=("haematopoietic_bone_marrow", "muscle"))
    found = quantify("a", labels, AFFINE, TISSUES, {"hu": hu}, None, SliceChoice("index", 1), annotated=annotated)
    assert {row["structure"] for row in found.rows} == {"haematopoietic_bone_marrow", "muscle"}
    assert np.isnan(row_of(found, "haematopoietic_bone_marrow")["marrow_share_percent"])
    assert row_of(found, "muscle")["volume_cm3"] == pytest.approx((5 + 4) * 4 * 4 * 10 / 1000)
    assert "not looked for: cortical_bone" in found.notes[0] and "marrow" in found.notes[0]


def test_a_percentage_of_a_femur_that_was_not_seen_whole_is_refused():
    phantom = generate("thigh_ct", 4, 0)
    with pytest.raises(UserError, match="of the femur cannot be told: 2 of"):
        annotated = Annotated(slices=(3, 4))
        quantify("a", phantom.labels, phantom.affine, THIGH, choice=SliceChoice("percent", 50), annotated=annotated)


def test_what_a_prediction_says_elsewhere_is_not_judged():
    truth, _ = block()
    drawn = truth.copy()
    drawn[..., [0, 3]] = 0  # nobody drew there
    predicted = np.roll(truth, 1, axis=0)
    slices = Annotated(slices=(1, 2))
    found = {(r.structure, r.side): r for r in evaluate_pair("a", drawn, predicted, AFFINE, TISSUES, "none", slices)}
    inside = {
        (r.structure, r.side): r
        for r in evaluate_pair("a", truth[..., 1:3], predicted[..., 1:3], AFFINE, TISSUES, "none")
    }
    assert found.keys() == inside.keys()
    for key, row in found.items():
        expected = inside[key].as_dict()
        assert row.as_dict() == pytest.approx(expected, nan_ok=True), key  # specificity and distances, too
    everything = {(r.structure, r.side): r for r in evaluate_pair("a", drawn, predicted, AFFINE, TISSUES, "none")}
    assert everything["muscle", "both"].dice < found["muscle", "both"].dice


def test_a_prediction_of_a_class_that_nobody_looked_for_is_not_judged():
    truth, _ = block()
    predicted = truth.copy()
    predicted[10:12, 2:6] = 1  # cortical bone, which the annotator passed over
    predicted[1, 2:6] = 1  # and some of the muscle taken for it, which is wrong
    muscle = Annotated(classes=("muscle",))
    rows = {r.structure: r for r in evaluate_pair("a", truth, predicted, AFFINE, TISSUES, "none", muscle)}
    assert set(rows) == {"all", "muscle"}
    assert rows["muscle"].sensitivity == pytest.approx(8 / 9) and rows["muscle"].specificity == 1
    assert rows["all"].generalised_dice == pytest.approx(rows["muscle"].dice)


def test_in_3d_a_cut_surface_is_none():
    phantom = generate("thigh_ct", 4, 0)
    half = Annotated(slices=tuple(range(phantom.labels.shape[2] // 2)))
    labels = phantom.labels
    rows = evaluate_pair("a", labels, np.roll(labels, 1, axis=0), phantom.affine, THIGH, "auto", half)
    assert np.isnan([row.assd_mm for row in rows]).all()
    lateral = [row for row in rows if (row.structure, row.side) == ("vastus_lateralis", "left")]
    assert 0.5 < lateral[0].dice < 1
