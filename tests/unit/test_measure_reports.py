"""What goes with numbers: a DICOM report, what labels speak of, and what everything was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import highdicom.sr as sr
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import store_samples
from dicom_samples import series
from postgres import Cluster
from store_samples import blocks, scan, store, write
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import NotFound, Unreachable, UserError
from msklabel.imaging.read import read_scan
from msklabel.imaging.scan import LabelMap
from msklabel.imaging.write import write_labels

SHAPE = (20, 16, 6)


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """A CT series with muscle (5) and subcutaneous fat (7) on both sides."""
    hu = np.full(SHAPE, 1024 - 1000)
    labels = np.zeros(SHAPE, np.uint8)
    for side in (slice(2, 8), slice(12, 17)):
        labels[side, 4:8], labels[side, 9:12, 1:4] = 5, 7
    hu[labels == 5], hu[labels == 7] = 1024 + 55, 1024 - 100
    series(tmp_path / "images" / "hip", SHAPE, array=hu)
    grid = read_scan(tmp_path / "images" / "hip")
    (tmp_path / "labels").mkdir()
    write_labels(tmp_path / "labels" / "hip.nii.gz", LabelMap(labels, grid.affine))
    return tmp_path


def quantify(folder: Path, *more: object) -> pd.DataFrame:
    given = ["quantify", "--labels", folder / "labels", "--images", folder / "images", "--system", "hip_tissue_ct"]
    run(*given, "--out", folder / "out", "--slice", "2", *more)
    return pd.read_csv(folder / "out" / "quantities.csv")


def told(document: pydicom.Dataset) -> dict[tuple[str, str], dict[str, Any]]:
    """Numbers by structure and side, as another program would find them: value, unit and code by meaning."""
    content = sr.MeasurementReport.from_sequence([pydicom.Dataset(document)])
    found = {}
    for group in content.get_image_measurement_groups():
        [site] = group.finding_sites
        side = site.laterality.meaning if site.laterality is not None else "both"
        numbers = {m.name.meaning: (m.value, m.unit.value, m.name.value) for m in group.get_measurements()}
        found[group.finding_type.meaning, side] = numbers
    return found


def test_a_dicom_report_keeps_the_script_of_a_name(ct: Path) -> None:
    for file in (ct / "images" / "hip").glob("*.dcm"):
        image = pydicom.dcmread(file)
        image.SpecificCharacterSet, image.PatientName = "ISO_IR 192", "王^小東"
        image.save_as(file)
    quantify(ct, "--sr")
    assert str(pydicom.dcmread(ct / "out" / "hip_sr.dcm").PatientName) == "王^小東"


def test_a_dicom_report_holds_what_the_table_holds(ct: Path) -> None:
    table = quantify(ct, "--sr")
    document = pydicom.dcmread(ct / "out" / "hip_sr.dcm")
    assert (document.Modality, document.PatientID, document.VerificationFlag) == ("SR", "P1", "UNVERIFIED")
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    image = pydicom.dcmread(next((ct / "images" / "hip").glob("*.dcm")))
    assert document.StudyInstanceUID == image.StudyInstanceUID
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert len(evidence.ReferencedSOPSequence) == SHAPE[2]
    numbers = told(document)
    row = table[(table["structure"] == "muscle") & (table["side"] == "left")].iloc[0]
    muscle = numbers["Muscle", "Left"]
    assert muscle["Volume"] == (pytest.approx(row["volume_cm3"], rel=1e-5), "cm3", "118565006")
    assert muscle["Area"] == (pytest.approx(row["area_cm2"], rel=1e-5), "cm2", "42798000")
    assert muscle["Attenuation Coefficient"] == (pytest.approx(55), "[hnsf'U]", "112031")
    assert ("Muscle", "both") in numbers and ("Cortical bone", "both") not in numbers  # which is not there


def test_each_group_refers_to_the_images_that_it_was_measured_in(ct: Path) -> None:
    quantify(ct, "--sr")
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in (ct / "images" / "hip").glob("*.dcm")]
    height = {str(image.SOPInstanceUID): float(image.ImagePositionPatient[2]) for image in images}
    content = sr.MeasurementReport.from_sequence([pydicom.dcmread(ct / "out" / "hip_sr.dcm")])
    for group in content.get_image_measurement_groups():
        found = sorted(height[str(one.referenced_sop_instance_uid)] for one in group.source_images)
        fat = "adipose" in group.finding_type.meaning.lower()
        assert found == ([53.0, 56, 59] if fat else [50.0 + 3 * z for z in range(SHAPE[2])]), group.finding_type.meaning


def test_a_report_needs_dicom(ct: Path) -> None:
    image = read_scan(ct / "images" / "hip")
    (ct / "plain").mkdir()
    nib.save(nib.Nifti1Image(image.array[0].astype(np.int16), image.affine), ct / "plain" / "hip.nii.gz")
    given = ["quantify", "--labels", ct / "labels", "--system", "hip_tissue_ct", "--out", ct / "out", "--slice", "2"]
    with pytest.raises(UserError, match=r"hip.nii.gz: a DICOM report refers to DICOM images"):
        run(*given, "--images", ct / "plain", "--sr")
    with pytest.raises(UserError, match="give them by --images"):
        run(*given, "--sr")


def test_a_file_beside_the_labels_says_what_they_speak_of(ct: Path) -> None:
    beside = ct / "labels" / "hip.annotated.json"
    beside.write_text(json.dumps({"classes": ["muscle"], "slices": [1, 2], "axis": 2}))
    table = quantify(ct)
    assert set(table["structure"]) == {"muscle"}
    assert table["volume_cm3"].isna().all() and table["area_cm2"].notna().all()
    page = (ct / "out" / "report.html").read_text()
    assert "2 of 6 slices were looked at" in page and "not looked for: cortical_bone" in page

    run("evaluate", "--truth", ct / "labels", "--pred", ct / "labels", "--system", "hip_tissue_ct", "--out", ct / "e")
    cases = pd.read_csv(ct / "e" / "cases.csv")
    assert set(cases["structure"]) == {"all", "muscle"}
    assert "hip (1 labels, 2 slices)" in (ct / "e" / "report.html").read_text()
    for said, words in (("{", "is not valid JSON"), ('{"slices": [9]}', "annotated.slices: 9 is outside the scan")):
        beside.write_text(said)
        with pytest.raises(UserError, match=rf"hip.annotated.json:? {words}"):
            quantify(ct)


def test_the_store_says_what_its_labels_speak_of(tmp_path: Path) -> None:
    scan(tmp_path / "studies" / "a.nii.gz")
    data = store(tmp_path / "studies")
    file = write(tmp_path / "label.nii.gz", blocks(5))
    data.save_label("a", str(file), "final", {"client_id": "ann", "annotated": {"classes": ["muscle"]}})
    final = tmp_path / "studies" / "labels" / "final"
    given = ["quantify", "--labels", final, "--system", "hip_tissue_ct", "--slice", "none"]
    run(*given, "--out", tmp_path / "known", "--state", tmp_path / "studies" / ".msklabel")
    assert set(pd.read_csv(tmp_path / "known" / "quantities.csv")["structure"]) == {"muscle"}
    run(*given, "--out", tmp_path / "unknown")
    assert "cortical_bone" in set(pd.read_csv(tmp_path / "unknown" / "quantities.csv")["structure"])
    with pytest.raises(NotFound, match="there is no database"):
        run(*given, "--out", tmp_path / "x", "--state", tmp_path)


def test_a_store_in_postgresql_says_it_too(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    url = cluster.new_database()
    monkeypatch.setattr(store_samples, "DATABASE", url)
    scan(tmp_path / "studies" / "a.nii.gz")
    data = store(tmp_path / "studies")
    file = write(tmp_path / "label.nii.gz", blocks(5))
    data.save_label("a", str(file), "final", {"client_id": "ann", "annotated": {"classes": ["muscle"]}})
    given = ["quantify", "--labels", tmp_path / "studies" / "labels" / "final", "--system", "hip_tissue_ct"]
    run(*given, "--slice", "none", "--out", tmp_path / "known", "--database", url)
    assert set(pd.read_csv(tmp_path / "known" / "quantities.csv")["structure"]) == {"muscle"}
    with pytest.raises(NotFound, match="nothing of msklabel in this database"):
        run(*given, "--out", tmp_path / "x", "--database", cluster.new_database())
    with pytest.raises(Unreachable, match="the database does not answer"):
        run(*given, "--out", tmp_path / "x", "--database", f"postgresql://postgres@/none?host={tmp_path}")


def test_reports_name_model_labels_and_software_also_at_second_hand(ct: Path) -> None:
    version = ct / "models" / "hip_tissue_ct" / "0007"
    version.mkdir(parents=True)
    (version / "weights.safetensors").write_bytes(b"weights")
    quantify(ct, "--model", version)
    page = (ct / "out" / "report.html").read_text()
    assert "hip_tissue_ct version 0007" in page and "model&#39;s weights.safetensors" in page
    assert "labels hip.nii.gz" in page and "image hip" in page and "list of 6 files" in page
    table = ct / "out" / "quantities.csv"
    given = ["agreement", "--first", table, "--second", table, "--quantity", "volume_cm3", "--out", ct / "a"]
    run(*given)
    page = (ct / "a" / "report.html").read_text()
    assert (
        "first from model" in page and "hip_tissue_ct version 0007" in page and "first from labels hip.nii.gz" in page
    )
    table.write_text(table.read_text() + "\n")
    run(*given)
    assert "the table was changed after it was made" in (ct / "a" / "report.html").read_text()
    with pytest.raises(NotFound, match="no weights; give the folder of a version"):
        quantify(ct, "--model", ct)


def test_the_table_says_in_which_slice_areas_were_taken(ct: Path) -> None:
    table = quantify(ct)
    assert table.columns[:5].tolist() == ["scan", "structure", "kind", "side", "slice"]
    assert set(table["slice"]) == {2}
    run("quantify", "--labels", ct / "labels", "--system", "hip_tissue_ct", "--out", ct / "all", "--slice", "none")
    assert "slice" not in pd.read_csv(ct / "all" / "quantities.csv")


def test_labels_that_the_system_does_not_know_are_refused_by_the_commands(ct: Path, tmp_path: Path) -> None:
    image = read_scan(ct / "images" / "hip")
    strange = np.zeros(SHAPE, np.uint8)
    strange[3:6, 4:8] = 99
    (tmp_path / "strange").mkdir()
    write_labels(tmp_path / "strange" / "hip.nii.gz", LabelMap(strange, image.affine))
    system = ("--system", "hip_tissue_ct", "--out", tmp_path / "out")
    with pytest.raises(UserError, match=r"hip.*99.*hip_tissue_ct"):
        run("quantify", "--labels", tmp_path / "strange", *system)
    for truth, predicted in ((ct / "labels", tmp_path / "strange"), (tmp_path / "strange", ct / "labels")):
        with pytest.raises(UserError, match=r"hip.*99.*hip_tissue_ct"):
            run("evaluate", "--truth", truth, "--pred", predicted, *system)
    assert not list((tmp_path / "out").glob("*.csv"))


@pytest.mark.parametrize("empty", ["labels", "none", "both"])
def test_what_is_empty_is_evaluated_and_reported(ct: Path, empty: str) -> None:
    """``labels``: the truth is empty and the prediction is not; ``none``: the other way round."""
    image = read_scan(ct / "images" / "hip")
    (ct / "none").mkdir()
    write_labels(ct / "none" / "hip.nii.gz", LabelMap(np.zeros(SHAPE, np.uint8), image.affine))
    truth, predicted = {"labels": ("none", "labels"), "none": ("labels", "none"), "both": ("none", "none")}[empty]
    given = ("evaluate", "--truth", ct / truth, "--pred", ct / predicted, "--system", "hip_tissue_ct")
    run(*given, "--out", ct / "e", "--pdf")
    cases = pd.read_csv(ct / "e" / "cases.csv")
    muscle = cases[(cases["structure"] == "muscle") & (cases["side"] == "both")].iloc[0]
    assert np.isnan(muscle["dice"]) if empty == "both" else muscle["dice"] == 0
    assert np.isnan(muscle["assd_mm"])
    assert (ct / "e" / "report.html").is_file() and (ct / "e" / "report.pdf").is_file()
