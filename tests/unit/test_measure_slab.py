"""Volumes of a slab around a reference slice: which slices they cover, and none where the scan holds a part of them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import UserError
from msklabel.imaging.scan import LabelMap
from msklabel.imaging.write import write_labels
from msklabel.jobs.measuring import Measuring
from msklabel.measure.quantify import SliceChoice, quantify
from msklabel.measure.slab import slices_covered, span_words, volume_unit
from msklabel.measure.structured_report import _span
from msklabel.store.datastore import MskDatastore
from msklabel.store.quantities import describe, flat_rows
from msklabel.system import load_system
from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.write import generate

CONFIGS = Path(__file__).parents[2] / "configs"
TISSUES = load_system(CONFIGS / "hip_tissue_ct.yaml")
THIGH = load_system(CONFIGS / "thigh_ct.yaml")
NECK = 14  # of the phantom below


@pytest.fixture(scope="module")
def hip() -> Phantom:
    phantom = generate("hip_tissue_ct", 1, 1, (160, 120, 25), (2.6, 2.6, 3.0))
    assert quantify("a", phantom.labels, phantom.affine, TISSUES).slices["left"] == NECK
    return phantom


def muscle(rows: list[dict]) -> dict:
    return next(row for row in rows if (row["structure"], row["side"]) == ("muscle", "both"))


def cm3(labels: np.ndarray) -> float:
    return np.count_nonzero(labels == TISSUES.labels["muscle"].index) * 2.6 * 2.6 * 3 / 1000


@pytest.mark.parametrize(
    ("first", "end", "span"),
    [
        (0, 25, (NECK - 2, NECK + 2)),
        (NECK - 2, NECK + 3, (0, 4)),  # as few slices as there may be
        (NECK - 1, 25, None),
        (NECK, 25, None),
        (0, NECK + 2, None),
    ],
)
def test_a_volume_is_of_five_slices_or_there_is_none(hip: Phantom, first: int, end: int, span) -> None:
    labels = hip.labels[..., first:end]
    found = quantify("a", labels, hip.affine, TISSUES)
    row, at = muscle(found.rows), NECK - first
    assert (row["slice"], found.volume_slices) == (at, span)
    assert row["area_cm2"] == pytest.approx(cm3(labels[..., at]) * 10 / 3)
    if span is not None:
        assert row["volume_slices"] == f"{at - 2} to {at + 2}" and row["slab_mm"] == pytest.approx(15)
        assert row["volume_cm3"] == pytest.approx(cm3(hip.labels[..., NECK - 2 : NECK + 3]))
        voxel_cm3 = abs(np.linalg.det(hip.affine[:3, :3])) / 1000
        assert row["slab_voxels"] * voxel_cm3 == pytest.approx(row["volume_cm3"])
        assert row["voxels"] * voxel_cm3 == pytest.approx(cm3(labels))
        assert not [note for note in found.notes if "volume" in note]
        return
    there = min(5, min(at + 3, end - first) - max(0, at - 2))
    assert np.isnan(row["volume_cm3"]) and np.isnan(row["volume_asymmetry_percent"])
    assert not {"volume_slices", "slab_voxels"} & row.keys()
    assert f"a: no volume_cm3: it is of 5 slices around slice {at}, and {there} of them are in the scan" in found.notes
    assert _span(found) == (at, at)  # what is left is of that slice


def test_a_scan_of_one_slice_has_an_area_and_no_volume(hip: Phantom) -> None:
    found = quantify("a", hip.labels[..., [NECK]], hip.affine, TISSUES)
    row = muscle(found.rows)
    assert row["area_cm2"] == pytest.approx(cm3(hip.labels[..., NECK]) * 10 / 3) and np.isnan(row["volume_cm3"])
    assert "a: no volume_cm3: it is of 5 slices around slice 0, and 1 of them are in the scan" in found.notes


def test_a_slice_that_was_not_found_leaves_nothing_of_the_whole_scan_in_its_place(hip: Phantom) -> None:
    hu = {"hu": hip.image[0]}
    found = quantify("a", hip.labels, hip.affine, TISSUES, hu, choice=SliceChoice("unknown"))
    row = muscle(found.rows)
    assert np.isnan([row[name] for name in ("volume_cm3", "area_cm2", "mean_hu", "marrow_share_percent")]).all()
    assert row["voxels"] == np.count_nonzero(hip.labels == TISSUES.labels["muscle"].index)
    assert not {"slice", "volume_slices", "slab_mm", "slab_voxels"} & row.keys()
    assert "a: nothing but voxels: the slice that hip_tissue_ct is measured in was not found" in found.notes
    thigh = generate("thigh_ct", 4, 0)
    whole, other = (quantify("a", thigh.labels, thigh.affine, THIGH, choice=c) for c in (None, SliceChoice("unknown")))
    assert other.volume_slices is None and "volume_slices" not in other.rows[0]
    assert [row["volume_cm3"] for row in other.rows] == pytest.approx([row["volume_cm3"] for row in whole.rows])


def test_whoever_asks_for_the_whole_scan_is_told_that_it_is(hip: Phantom) -> None:
    found = quantify("a", hip.labels, hip.affine, TISSUES, choice=SliceChoice("none"))
    row = muscle(found.rows)
    assert row["volume_slices"] == "0 to 24" and row["volume_cm3"] == pytest.approx(cm3(hip.labels))


def test_words_and_numbers_of_a_slab() -> None:
    assert span_words((3, 7)) == "3 to 7" and slices_covered("3 to 7") == 5
    assert [slices_covered(cell) for cell in ("", "3", None, float("nan"), 5)] == [None] * 5
    assert volume_unit([{"volume_slices": "3 to 7"}, {}]) == "cm³ of 5 slices"
    assert volume_unit([{"volume_slices": "3 to 7", "slab_mm": 15.0}] * 2) == "cm³ of 5 slices, 15 mm"
    assert volume_unit([{}]) == volume_unit([]) == "cm³"


def test_the_store_says_which_slices_a_volume_covers(hip: Phantom, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    blank = np.zeros(hip.labels.shape, np.uint8)
    blank[10:30, 20:40], blank[100:120, 20:40] = 5, 5  # thighs, and no bone in them
    drawn = {"short": hip.labels[..., NECK:], "whole": hip.labels, "no_neck": blank}
    for name, labels in drawn.items():
        image = hip.image[0][..., -labels.shape[2] :].astype(np.int16)
        nib.save(nib.Nifti1Image(image, hip.affine), studies / f"{name}.nii.gz")
        write_labels(tmp_path / f"{name}.nii.gz", LabelMap(labels, hip.affine))
    store = MskDatastore(studies, studies / ".msklabel", {"hip_tissue_ct": TISSUES}).store
    model = {"model": "hip_tissue_ct"}
    versions = [store.submit(name, tmp_path / f"{name}.nii.gz", "final", model) for name in drawn]
    measuring = Measuring("", str(studies), {"models": "hip_tissue_ct"})
    assert measuring.quantities({"most": 5}) == {"measured": 3, "failed": 0}
    known = store.quantities.of(versions)
    short, whole, none = (describe(one) for one in known)
    assert (whole["volume_slices"], short["volume_slices"], none["volume_slices"]) == ([12, 16], None, None)
    assert muscle(none["rows"])["volume_cm3"] is None and muscle(none["rows"])["mean_hu"] is None
    assert any("no reference slice: the femoral neck is in no slice" in note for note in none["notes"])
    table = pd.DataFrame([row for row in flat_rows(known) if row["structure"] == "muscle" and row["side"] == "both"])
    assert table["slice"].tolist()[:2] == [0, NECK] and table["volume_slices"].tolist()[1] == "12 to 16"
    assert table["volume_cm3"].isna().tolist() == [True, False, True]


def test_the_table_of_a_cohort_says_which_slices_its_volumes_cover(hip: Phantom, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for name, first in (("a", NECK - 1), ("b", 0)):
        write_labels(tmp_path / "labels" / f"{name}.nii.gz", LabelMap(hip.labels[..., first:], hip.affine))
    given = ["quantify", "--labels", tmp_path / "labels", "--system", "hip_tissue_ct", "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, list(map(str, given)))
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "out" / "quantities.csv")
    assert table.columns[:6].tolist() == ["scan", "structure", "kind", "side", "slice", "volume_slices"]
    assert dict(table.groupby("scan")["slice"].first()) == {"a": 1, "b": NECK}
    assert table[table["scan"] == "a"]["volume_slices"].isna().all()
    assert set(table[table["scan"] == "b"]["volume_slices"]) == {"12 to 16"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Volumes are of these slices only, first to last: b: 12 to 16." in page
    assert "a: no volume_cm3: it is of 5 slices around slice 1, and 4 of them are in the scan" in page


def measured(folder: Path, *options: object) -> Result:
    given = ["quantify", "--labels", folder / "labels", "--out", folder / "out", *options]
    return CliRunner().invoke(app, list(map(str, given)))


def test_a_scan_without_a_neck_stays_empty_and_the_others_are_measured(hip: Phantom, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    blank = np.zeros(hip.labels.shape, np.uint8)
    blank[10:30, 20:40], blank[100:120, 20:40] = 5, 5  # thighs, and no bone in them
    for name, labels in (("a", blank), ("b", hip.labels)):
        write_labels(tmp_path / "labels" / f"{name}.nii.gz", LabelMap(labels, hip.affine))
    result = measured(tmp_path, "--system", "hip_tissue_ct")
    said = " ".join(result.output.split())
    assert result.exit_code == 1, result.output
    assert "warning: a: the femoral neck is in no slice of this side" in said
    assert "left empty for want of the slice that is measured: 1 of 2 scans, a" in said
    table = pd.read_csv(tmp_path / "out" / "quantities.csv")
    empty, whole = (table[table["scan"] == name] for name in ("a", "b"))
    assert empty[["slice", "area_cm2", "volume_cm3", "marrow_share_percent"]].isna().all(axis=None)
    assert set(empty["note"]) == {next(text for text in empty["note"])} and "femoral neck" in empty["note"].iloc[0]
    assert whole["note"].isna().all() and set(whole["slice"]) == {NECK}
    assert muscle(whole.to_dict("records"))["volume_cm3"] > 0
    assert "a: the femoral neck is in no slice" in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "labels" / "b.nii.gz").unlink()
    alone = measured(tmp_path, "--system", "hip_tissue_ct")  # nothing at all to measure is still refused
    assert isinstance(alone.exception, UserError) and "a: the femoral neck" in str(alone.exception)


def test_a_femur_that_is_cut_off_in_one_scan_leaves_its_volumes(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    phantom = generate("thigh_ct", 4, 0)
    labels = phantom.labels.copy()
    labels[..., [0, -1]] = 0
    cut = labels.copy()
    cut[cut.shape[0] // 2, cut.shape[1] // 2, 0] = THIGH.labels["femur"].index
    for name, array in (("cut", cut), ("whole", labels)):
        write_labels(tmp_path / "labels" / f"{name}.nii.gz", LabelMap(array, phantom.affine))
    result = measured(tmp_path, "--system", "thigh_ct", "--slice", "50%")
    assert result.exit_code == 1 and ": the femur is cut off" in " ".join(result.output.split())
    table = pd.read_csv(tmp_path / "out" / "quantities.csv").query("structure == 'gracilis' and side == 'both'")
    assert table["volume_cm3"].nunique() == 1 and table["volume_cm3"].notna().all()
    assert table.set_index("scan")["slice"].isna().to_dict() == {"cut": True, "whole": False}


def test_a_cohort_of_thin_and_thick_slices_is_warned_of(hip: Phantom, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    thin = hip.affine @ np.diag([1, 1, 1 / 3, 1])
    for name, affine in (("thick", hip.affine), ("thin", thin)):
        write_labels(tmp_path / "labels" / f"{name}.nii.gz", LabelMap(hip.labels, affine))
    result = measured(tmp_path, "--system", "hip_tissue_ct")
    assert result.exit_code == 0, result.output
    words = "Volumes are not of slabs of one height in all scans: 15 mm in 1 scan, 5 mm in 1 scan"
    assert f"warning: {words}" in " ".join(result.output.split())
    assert f"{words}." in (tmp_path / "out" / "report.html").read_text()
    table = pd.read_csv(tmp_path / "out" / "quantities.csv").groupby("scan")["slab_mm"].first()
    assert table.to_dict() == pytest.approx({"thick": 15, "thin": 5})
