"""The reports of the real scans hold what their anatomy allows; they show that it works, not that it is right."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bench_real_thigh import muscle_values
from real_reports import calf, pelvis, thigh

TESTS = Path(__file__).resolve().parents[1]
DATA = (TESTS.parent / os.environ.get("MSKLABEL_REAL_DATA", "../shared/data")).resolve()

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason="real scans not found: set MSKLABEL_REAL_DATA to their folder"),
]


def rows_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "quantities.csv").set_index(["structure", "side"])


def test_the_plane_parts_the_thighs_muscles_as_their_own_labels_do(tmp_path: Path) -> None:
    thigh(DATA, tmp_path)
    rows = rows_of(tmp_path)
    labels = nib.load(DATA / "mr_thigh" / "labels.nii.gz")
    voxel_cm3 = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
    values = np.asarray(labels.dataobj).astype(np.uint8)
    sides = muscle_values(DATA / "mr_thigh" / "label_names.txt", values)
    assert len(sides) >= 12
    for name, indices in sides.items():
        for side, index in zip(("left", "right"), indices, strict=True):
            expected = np.count_nonzero(values == index) * voxel_cm3
            assert rows.loc[(name, side), "volume_cm3"] == pytest.approx(expected, rel=0.01, abs=0.5), (name, side)
    assert "part inside the scan" in (tmp_path / "report.html").read_text()


def test_the_calf_has_a_fat_fraction_map_and_lean_muscle(tmp_path: Path) -> None:
    calf(DATA, tmp_path)
    fraction = nib.load(tmp_path / "scan_fat_fraction_percent.nii.gz").get_fdata()
    told = fraction[np.isfinite(fraction)]
    assert told.min() >= 0 and told.max() <= 100 and np.percentile(told, 99) > 80  # fat is there, too
    rows = rows_of(tmp_path)
    assert (rows["fat_fraction_percent"].between(0, 20)).all()
    assert rows.loc[("muscle", "both"), "volume_cm3"] > 1000


def test_the_pelvis_has_areas_and_hu_at_the_femoral_neck_and_its_metal_is_said(tmp_path: Path) -> None:
    pelvis(DATA, tmp_path)
    rows = rows_of(tmp_path)
    right = rows.xs("right", level="side")
    assert 50 < right.loc["muscle", "area_cm2"] < 200 and 0 < right.loc["muscle", "mean_hu"] < 60
    assert -120 < right.loc["subcutaneous_adipose_tissue", "mean_hu"] < -70
    assert right.loc["cortical_bone", "mean_hu"] > 300
    page = (tmp_path / "report.html").read_text()
    assert "metal, which spoils HU" in page
