"""A level along a femur that is cut off by the field of view is left out with the reason, on that side only."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from test_measure_quantify import AFFINE, THIGH, long_thigh, row_of, with_quantities
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import UserError
from msklabel.measure.quantify import Quantified, SliceChoice, quantify

SYSTEM = with_quantities(THIGH, "area_cm2", "volume_cm3", "mean_hu")
FEMUR = THIGH.labels["femur"].index
END, EDGE = "cut off by the end of the scan", "cut off by the edge of the field of view"


def cut_by_the_end() -> np.ndarray:
    """The left femur goes on below the scan."""
    labels = long_thigh()
    labels[9:12, 6:9, :3] = FEMUR
    return labels


def cut_by_the_edge() -> np.ndarray:
    """The left femur, from slice 1 to 11 too, bends out of the field of view to the left below slice 5."""
    labels = long_thigh()
    labels[9:12, 6:9, :6] = 0
    for z, first in ((5, 6), (4, 3), (3, 0)):
        labels[first : first + 3, 11:14, z] = FEMUR
    return labels


def measured(labels: np.ndarray, sides: str = "auto") -> Quantified:
    hu = {"hu": np.random.default_rng(0).integers(0, 90, labels.shape)}
    return quantify("a", labels, AFFINE, SYSTEM, hu, None, SliceChoice("percent", 25), sides)


@pytest.mark.parametrize(("labels", "reason"), [(cut_by_the_end(), END), (cut_by_the_edge(), EDGE)])
def test_the_side_that_is_cut_off_has_nothing_of_a_slice_and_the_other_one_all(labels: np.ndarray, reason: str) -> None:
    found, whole = measured(labels), measured(long_thigh())
    assert found.slices == {"right": whole.slices["right"]}
    right, left, both = (row_of(found, "vastus_lateralis", side) for side in ("right", "left", "both"))
    assert right == {**row_of(whole, "vastus_lateralis", "right"), "mean_hu": right["mean_hu"]}
    assert right["mean_hu"] > 0 and "note" not in right
    for row in (left, both):
        assert np.isnan(row["area_cm2"]) and np.isnan(row["mean_hu"]) and "slice" not in row
        assert reason in row["note"] and row["volume_cm3"] > 0
    assert [note for note in found.notes if "left" in note and reason in note]
    profile = pd.DataFrame(found.profile).groupby("side")["femur_percent"].count()
    assert profile["right"] > 0 and profile["left"] == profile["both"] == 0


def test_where_no_side_has_the_level_the_scan_is_refused() -> None:
    labels = cut_by_the_edge()
    labels[28:31, 6:9, 0] = FEMUR
    with pytest.raises(UserError, match=EDGE):
        measured(labels)
    with pytest.raises(UserError, match=END):
        measured(cut_by_the_end(), "none")


def test_a_cohort_says_which_side_is_left_empty(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for name, labels in (("cut", cut_by_the_end()), ("whole", long_thigh())):
        nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path / "labels" / f"{name}.nii.gz")
    command = ["quantify", "--labels", tmp_path / "labels", "--system", "thigh_ct", "--slice", "25%"]
    ended = CliRunner().invoke(app, [*map(str, command), "--out", str(tmp_path / "out")])
    said = " ".join(ended.output.split())
    assert ended.exit_code == 1, said
    assert "left empty on one side for want of the slice that is measured: 1 of 2 scans, cut" in said
    assert f"warning: cut, left: the femur is {END}" in said
    rows = pd.read_csv(tmp_path / "out" / "quantities.csv").set_index(["scan", "structure", "side"]).sort_index()
    assert rows.loc[("cut", "vastus_lateralis"), "slice"].notna().to_dict() == {
        "both": False,
        "left": False,
        "right": True,
    }
    assert rows.loc[("cut", "vastus_lateralis", "left"), "note"].endswith("so that no percentage of it can be told")
    assert rows.loc["whole", "note"].isna().all() and rows.loc["whole", "slice"].notna().any()
