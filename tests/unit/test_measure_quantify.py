"""Quantities by hand, from phantoms with a known truth, and through the command."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import UserError
from msklabel.imaging.scan import ImageError, LabelMap
from msklabel.imaging.write import write_labels
from msklabel.measure.quantify import SliceChoice, quantify
from msklabel.measure.quantify_folder import quantify_folder
from msklabel.measure.quantities import asymmetry_percent, quantities_of
from msklabel.measure.reference_slice import slice_at_percent
from msklabel.measure.sarcopenia import awgs2019, skeletal_muscle_index, with_sarcopenia
from msklabel.pipeline.dixon import fat_fraction_percent
from msklabel.system import ConfigError, System, load_system
from msklabel_phantoms.thigh_dixon import dixon_water_fat
from msklabel_phantoms.write import generate

CONFIGS = Path(__file__).parents[2] / "configs"
TISSUES = load_system(CONFIGS / "hip_tissue_ct.yaml")
THIGH = load_system(CONFIGS / "thigh_ct.yaml")
DIXON = load_system(CONFIGS / "thigh_dixon.yaml")
AFFINE = np.diag([2.0, 1.0, 5.0, 1.0])


def row_of(found, structure: str, side: str = "both") -> dict:
    return next(row for row in found.rows if (row["structure"], row["side"]) == (structure, side))


def with_quantities(system: System, *names: str) -> System:
    return system.model_copy(update={"quantities": names})


def tissue_block() -> tuple[np.ndarray, np.ndarray]:
    """Muscle (5) on both sides, more on the left; marrow 3 and 4; HU that differ from slice to slice."""
    labels = np.zeros((20, 10, 4), np.uint8)
    labels[1:6, 2:6] = 5
    labels[14:18, 2:6] = 5
    labels[7, 2:5, 1], labels[7, 5, 1] = 3, 4
    hu = np.full(labels.shape, -1000.0)
    hu[labels == 5] = np.broadcast_to([10.0, 20.0, 30.0, 40.0], labels.shape)[labels == 5]
    return labels, hu


def test_areas_means_and_shares_by_hand():
    labels, hu = tissue_block()
    found = quantify("a", labels, AFFINE, TISSUES, {"hu": hu}, 200.0, SliceChoice("index", 1))
    muscle = row_of(found, "muscle")
    assert muscle["area_cm2"] == pytest.approx((5 + 4) * 4 * 2 / 100)
    assert muscle["volume_cm3"] == pytest.approx((5 + 4) * 4 * 4 * 10 / 1000)
    assert (muscle["mean_hu"], muscle["mean_hu_per_height2_hu_per_m2"]) == pytest.approx((20.0, 5.0))
    assert row_of(found, "muscle", "left")["area_cm2"] == pytest.approx(0.4)
    assert muscle["area_asymmetry_percent"] == pytest.approx(100 * (5 - 4) / 4.5)
    assert row_of(found, "haematopoietic_bone_marrow")["marrow_share_percent"] == pytest.approx(75)
    assert row_of(found, "marrow_adipose_tissue")["marrow_share_percent"] == pytest.approx(25)
    assert np.isnan(row_of(found, "muscle")["marrow_share_percent"])


def test_without_a_slice_means_are_of_the_whole_scan_and_there_is_no_area():
    labels, hu = tissue_block()
    found = quantify("a", labels, AFFINE, TISSUES, {"hu": hu}, choice=SliceChoice("none"))
    assert row_of(found, "muscle")["mean_hu"] == pytest.approx(25)
    assert np.isnan(row_of(found, "muscle")["area_cm2"])
    assert found.notes == [
        "a: no area_cm2: no slice was chosen",
        "a: no mean_hu_per_height2: the height is not known",
        "a: in the first or last slice, so that volumes are of the part inside the scan: muscle",
    ]


def test_metal_in_the_measured_slice_is_said():
    labels, hu = tissue_block()
    hu[2:6, 3:6, 1] = 3071
    found = quantify("a", labels, AFFINE, TISSUES, {"hu": hu}, 170.0, SliceChoice("index", 1))
    assert found.notes[-1] == ("a: 12 voxels above 2500 HU in slice 1: metal, which spoils HU and thresholds around it")
    beside = quantify("a", labels, AFFINE, TISSUES, {"hu": hu}, 170.0, SliceChoice("index", 2))
    assert not [note for note in beside.notes if "metal" in note]


def test_turned_arrays_give_the_same_numbers():
    labels, hu = tissue_block()
    affine = np.array([[0, 0, -2.0, 38], [0, 1.0, 0, 0], [-5.0, 0, 0, 15], [0, 0, 0, 1]])
    affine = affine[[0, 1, 2, 3]]
    turned = [np.ascontiguousarray(a[::-1, :, ::-1].transpose(2, 1, 0)) for a in (labels, hu)]
    choice = SliceChoice("index", 1)
    straight = quantify("a", labels, AFFINE, TISSUES, {"hu": hu}, 170.0, choice)
    other = quantify("a", turned[0], affine, TISSUES, {"hu": turned[1]}, 170.0, choice)
    for first, second in zip(straight.rows, other.rows, strict=True):
        assert first.pop("side") == second.pop("side")
        assert list(first.values())[3:] == pytest.approx(list(second.values())[3:], nan_ok=True)


def test_a_thigh_phantom_has_the_volumes_and_the_height_that_were_put_in():
    phantom = generate("thigh_ct", 4, 0)
    found = quantify("a", phantom.labels, phantom.affine, THIGH, height_cm=float(phantom.facts["height_cm"]))
    for name in THIGH.labels:
        row = row_of(found, name)
        assert row["volume_cm3"] == pytest.approx(phantom.facts[f"{name}_cm3"], rel=0.01)
        per_height2 = row["volume_cm3"] * 1000 / (phantom.facts["height_cm"] / 100) ** 2
        assert row["volume_per_height2_mm3_per_m2"] == pytest.approx(per_height2)
        halves = [row_of(found, name, side)["volume_cm3"] for side in ("left", "right")]
        assert sum(halves) == pytest.approx(row["volume_cm3"])
        if name in THIGH.groups["anterior"]:
            assert min(halves) > 0.3 * row["volume_cm3"]
    group = row_of(found, "anterior")["volume_cm3"]
    assert group == pytest.approx(sum(row_of(found, name)["volume_cm3"] for name in THIGH.groups["anterior"]))


@pytest.mark.parametrize("stage", ["low", "high"])
def test_a_dixon_phantom_has_the_fat_fractions_that_were_put_in(stage):
    phantom = dixon_water_fat(np.random.default_rng(6), stage=stage)
    images = {"fat_fraction_percent": fat_fraction_percent(phantom.image[0], phantom.image[1])}
    found = quantify("a", phantom.labels, phantom.affine, DIXON, images)
    for name in DIXON.labels:
        expected = phantom.facts[f"{name}_fat_fraction_percent"]
        assert row_of(found, name)["fat_fraction_percent"] == pytest.approx(expected, abs=0.5)


def test_a_hip_phantom_has_the_mean_hu_that_was_put_in():
    for index in range(3):
        phantom = generate("hip_tissue_ct", 2, index)
        found = quantify(
            "a", phantom.labels, phantom.affine, TISSUES, {"hu": phantom.image[0]}, choice=SliceChoice("none")
        )
        expected = phantom.facts["muscle_mean_hu"] + phantom.facts["hu_offset"]
        assert row_of(found, "muscle")["mean_hu"] == pytest.approx(expected, abs=1)
        assert row_of(found, "muscle")["volume_cm3"] == pytest.approx(phantom.facts["muscle_cm3"], rel=0.01)


@pytest.mark.parametrize("index", range(3))
def test_the_reference_slice_is_at_the_femoral_neck(index):
    phantom = generate("hip_tissue_ct", 1, index, (160, 120, 25), (2.6, 2.6, 3.0))
    found = quantify("a", phantom.labels, phantom.affine, TISSUES, {"hu": phantom.image[0]})
    height_over_neck_mm = (np.arange(25) - 12) * 3.0 + phantom.facts["slab_centre_mm"]
    at = found.slices["left"]
    assert abs(height_over_neck_mm[at]) <= 6
    muscle = row_of(found, "muscle")
    assert muscle["area_cm2"] == pytest.approx((phantom.labels[..., at] == 5).sum() * 2.6**2 / 100)
    five = phantom.labels[..., at - 2 : at + 3] == 5
    assert muscle["volume_cm3"] == pytest.approx(five.sum() * 2.6**2 * 3 / 1000)
    assert found.volume_slices == (at - 2, at + 2)
    turned = quantify("a", phantom.labels[::-1, ::-1], phantom.affine @ np.diag([-1.0, -1, 1, 1]), TISSUES)
    assert turned.slices == found.slices


def long_thigh() -> np.ndarray:
    """Both femora (28) from slice 1 to 11, the left one from 3, with vastus lateralis (3) that narrows downwards."""
    labels = np.zeros((40, 16, 13), np.uint8)
    femur, muscle = THIGH.labels["femur"].index, THIGH.labels["vastus_lateralis"].index
    labels[28:31, 6:9, 1:12], labels[9:12, 6:9, 3:12] = femur, femur
    for z in range(1, 12):
        labels[32 : 33 + z // 2, 4:10, z] = muscle
        labels[2 : 4 + z // 3, 4:10, z] = muscle
    return labels


def test_areas_at_a_percentage_of_each_femur():
    labels, muscle = long_thigh(), THIGH.labels["vastus_lateralis"].index
    system = with_quantities(THIGH, "area_cm2")
    found = quantify("a", labels, AFFINE, system, choice=SliceChoice("percent", 25))
    assert found.slices == {"left": 9, "right": 8, "both": 8}  # the array's first half is the patient's left
    for side, half, at in (("left", slice(0, 20), 9), ("right", slice(20, 40), 8)):
        expected = np.count_nonzero(labels[half, :, at] == muscle) * 2 / 100
        assert row_of(found, "vastus_lateralis", side)["area_cm2"] == pytest.approx(expected)


@pytest.mark.parametrize(("side", "at"), [("left", 9), ("right", 8)])
def test_areas_at_a_percentage_of_the_one_femur_that_is_there(side, at):
    labels = long_thigh()
    labels[slice(20, 40) if side == "left" else slice(0, 20)] = 0
    system = with_quantities(THIGH, "area_cm2")
    found = quantify("a", labels, AFFINE, system, choice=SliceChoice("percent", 25), sides=side)
    assert found.slices == {side: at, "both": at}
    areas = [row_of(found, "vastus_lateralis", which)["area_cm2"] for which in (side, "both")]
    assert areas[0] == areas[1] > 0


def test_the_profile_says_where_along_the_femur_each_slice_lies():
    profile = pd.DataFrame(quantify("a", long_thigh(), AFFINE, THIGH).profile)
    one = profile[profile["structure"] == "vastus_lateralis"].set_index(["side", "slice"])["femur_percent"]
    assert [one["right", z] for z in (1, 6, 11)] == [100, 50, 0]
    assert [one["left", z] for z in (3, 7, 11)] == [100, 50, 0]


def test_no_neck_no_reference_slice():
    labels, _ = tissue_block()
    with pytest.raises(UserError, match="the femoral neck is in no slice of this side"):
        quantify("a", labels, AFFINE, TISSUES)


def test_a_percentage_of_the_femur():
    profile = np.array([0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0])
    assert [slice_at_percent(profile, percent) for percent in (0, 50, 100)] == [11, 6, 1]
    with pytest.raises(UserError, match="cut off by the end of the scan"):
        slice_at_percent(profile[1:], 50)
    with pytest.raises(UserError, match="0 to 100, got 120"):
        slice_at_percent(profile, 120)
    with pytest.raises(UserError, match="hip_tissue_ct has no label femur"):
        quantify("a", tissue_block()[0], AFFINE, TISSUES, choice=SliceChoice("percent", 50))
    with pytest.raises(UserError, match="slice 9: the scan has the slices 0 to 3"):
        quantify("a", tissue_block()[0], AFFINE, TISSUES, choice=SliceChoice("index", 9))


def test_the_profile_adds_up_to_the_volume():
    phantom = generate("thigh_ct", 4, 1)
    found = quantify("a", phantom.labels, phantom.affine, THIGH)
    profile = pd.DataFrame(found.profile)
    one = profile[(profile["structure"] == "vastus_lateralis") & (profile["side"] == "left")]
    volume = one["area_cm2"].sum() * phantom.spacing_mm[2] / 10
    assert volume == pytest.approx(row_of(found, "vastus_lateralis", "left")["volume_cm3"])


def test_voxels_without_signal_are_left_out_and_said():
    labels = np.zeros((4, 4, 2), np.uint8)
    labels[:2] = 1
    water, fat = np.full(labels.shape, 90.0), np.full(labels.shape, 10.0)
    water[0, 0], fat[0, 0] = 0, 0
    images = {"fat_fraction_percent": fat_fraction_percent(water, fat)}
    found = quantify("a", labels, np.eye(4), DIXON, images)
    assert row_of(found, "rectus_femoris")["fat_fraction_percent"] == pytest.approx(10)
    assert "a: fat_fraction_percent of rectus_femoris leaves out 2 of 16 voxels without signal" in found.notes


def test_a_height_of_zero_is_refused():
    with pytest.raises(UserError, match="a height must be above 0 cm, got 0"):
        quantify("a", tissue_block()[0], AFFINE, TISSUES, height_cm=0, choice=SliceChoice("none"))


def test_a_quantity_that_is_not_known_is_named():
    with pytest.raises(ConfigError, match="hip_tissue_ct: quantities: 'weight' is not known; known: volume_cm3"):
        quantities_of(with_quantities(TISSUES, "weight"))


def test_asymmetry_by_hand():
    assert asymmetry_percent(6, 4) == pytest.approx(40)
    assert np.isnan(asymmetry_percent(0, 0))


@pytest.mark.parametrize(
    ("sex", "smi", "grip", "gait", "chair", "expected"),
    [
        ("male", 7.0, 20, 0.5, 15, "none"),
        ("male", 6.99, 30, 1.2, 10, "low muscle mass"),
        ("female", 5.3, np.nan, np.nan, np.nan, "low muscle mass"),
        ("female", 5.5, 10, 0.5, 20, "none"),
        ("male", 6.0, 27.9, 1.0, 11.9, "sarcopenia"),
        ("male", 6.0, 28.0, 0.99, np.nan, "sarcopenia"),
        ("female", 5.0, 17, 1.2, 12, "severe sarcopenia"),
        ("male", np.nan, 20, 1, 1, ""),
    ],
)
def test_the_classes_of_awgs_2019(sex, smi, grip, gait, chair, expected):
    assert awgs2019(sex, smi, grip, gait, chair) == expected


def test_the_skeletal_muscle_index():
    assert skeletal_muscle_index(20.0, 160.0) == pytest.approx(7.8125)
    assert np.isnan(skeletal_muscle_index(20.0, np.nan)) and np.isnan(skeletal_muscle_index(np.nan, 160.0))
    with pytest.raises(UserError, match="a height must be above 0 cm, got 0"):
        skeletal_muscle_index(20.0, 0.0)


def test_a_height_that_is_not_known_leaves_the_others_their_index():
    people = pd.DataFrame(
        {"sex": ["male"] * 3, "appendicular_lean_kg": [20.0, 20.0, np.nan], "height_cm": [160.0, np.nan, 160.0]},
        index=["a", "b", "c"],
    )
    found = with_sarcopenia(people)
    assert found["smi_kg_per_m2"].tolist() == pytest.approx([7.8125, np.nan, np.nan], nan_ok=True)
    assert found["awgs2019"].tolist() == ["none", "", ""] and found["low_muscle_mass"].tolist() == [False, None, None]
    with pytest.raises(UserError, match="height_cm of b: a height must be above 0 cm, got -1"):
        with_sarcopenia(people.assign(height_cm=[160.0, -1.0, 160.0]))


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        labels, hu = tissue_block()
        for name in ("labels", "images"):
            (tmp_path / name).mkdir()
        for scan in ("a", "b"):
            write_labels(tmp_path / "labels" / f"{scan}.nii.gz", LabelMap(labels, AFFINE))
            nib.save(nib.Nifti1Image(hu.astype(np.float32), AFFINE), tmp_path / "images" / f"{scan}.nii.gz")
        (tmp_path / "people.csv").write_text(
            "scan,sex,height_cm,appendicular_lean_kg,grip_kg\na,M,200,24,30\nb,female,150,13.5,16\n"
        )
        return tmp_path

    def run(self, folder: Path, *arguments: object, images: bool = True):
        given = ["--labels", folder / "labels", *(["--images", folder / "images"] if images else [])]
        options = [*given, "--system", "hip_tissue_ct", "--out", folder / "out", *arguments]
        return CliRunner().invoke(app, ["quantify", *map(str, options)])

    def test_a_cohort_becomes_tables_and_a_report(self, folder):
        result = self.run(folder, "--clinical", folder / "people.csv", "--slice", "1", "--pdf")
        assert result.exit_code == 0, result.output
        rows = pd.read_csv(folder / "out" / "quantities.csv").set_index(["scan", "structure", "side"])
        assert rows.loc[("a", "muscle", "both"), "mean_hu_per_height2_hu_per_m2"] == pytest.approx(5)
        assert rows.loc[("b", "muscle", "both"), "mean_hu_per_height2_hu_per_m2"] == pytest.approx(20 / 1.5**2)
        cases = pd.read_csv(folder / "out" / "cases.csv").set_index("scan", drop=True)
        assert cases["smi_kg_per_m2"].tolist() == pytest.approx([6.0, 6.0])
        assert cases["awgs2019"].tolist() == ["low muscle mass", "none"]
        page = (folder / "out" / "report.html").read_text()
        assert page.count("<img") >= 3
        assert "sha256" in page

    def test_maps_that_cannot_be_written_are_said(self, folder):
        result = self.run(folder, "--slice", "1", "--maps")
        said = " ".join(result.output.split())
        assert "warning: --maps: there is no map of a, b, for want of water and fat images" in said
        assert "--maps" not in self.run(folder, "--slice", "1").output

    def test_an_error_names_its_scan(self, folder):
        for name in ("labels", "images"):
            (folder / name / "b.nii.gz").unlink()
        system = ["--system", "thigh_ct", "--slice", "150%"]
        assert str(self.run(folder, *system).exception) == "a: a percentage of the femur is 0 to 100, got 150"

    def test_an_empty_height_in_a_cohort(self, folder):
        table = "scan,sex,height_cm,appendicular_lean_kg\na,M,,24\nb,female,150,13.5\n"
        (folder / "people.csv").write_text(table)
        result = self.run(folder, "--clinical", folder / "people.csv", "--slice", "1")
        assert result.exit_code == 0, result.output
        cases = pd.read_csv(folder / "out" / "cases.csv")
        assert cases["smi_kg_per_m2"].tolist() == pytest.approx([np.nan, 6.0], nan_ok=True)

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("scan,height_cm\na,170\n", "no row for b"),
            ("scan,height_cm\na,0\nb,170\n", "height_cm of a is 0, expected 100 to 230"),
            ("scan,height_cm\na,1.7\nb,170\n", "height_cm of a is 1.7, expected 100 to 230"),
            ("scan,height_cm\na,tall\nb,170\n", "height_cm of a is 'tall', which is no number"),
            ("scan,appendicular_lean_kg\na,24\nb,13500\n", "appendicular_lean_kg of b is 13500, expected 3 to 60"),
            ("scan,grip_kg\na,28 kg\nb,20\n", "grip_kg of a is '28 kg', which is no number"),
            ("scan,sex\na,x\nb,m\n", "sex of a is 'x', expected male or female"),
            ("name,sex\na,m\n", "the column scan is missing; it has name, sex"),
            ("scan,sex\na,m\na,m\n", "a is there twice"),
            ("scan,sex,sex\na,m,f\n", "the column sex is there twice"),
            ("scan\n", "there is no row below the header"),
        ],
    )
    def test_clinical_tables_that_cannot_be_used(self, folder, table, message):
        (folder / "bad.csv").write_text(table)
        assert message in str(self.run(folder, "--clinical", folder / "bad.csv", "--slice", "1").exception)

    def test_an_image_that_is_missing_or_on_another_grid(self, folder):
        image = folder / "images" / "b.nii.gz"
        nib.save(nib.Nifti1Image(np.zeros((20, 10, 5), np.float32), AFFINE), image)
        assert "b: the label map has 20 x 10 x 4 voxels, the image has" in str(
            self.run(folder, "--slice", "1").exception
        )
        assert self.run(folder, "--slice", "1", "--resample").exit_code == 0
        image.unlink()
        assert "no image of the name b" in str(self.run(folder, "--slice", "1").exception)
        assert "--slice: expected default" in str(self.run(folder, "--slice", "thick").exception)


@pytest.mark.parametrize("moved_mm", [0, 4])
def test_water_and_fat_lie_beside_an_image_of_another_contrast(tmp_path, moved_mm):
    system = load_system(CONFIGS / "hip_abductor_mr.yaml")
    phantom = dixon_water_fat(np.random.default_rng(6), stage="low")
    labels = np.where(phantom.labels == DIXON.labels["gluteus_medius"].index, 1, 0).astype(np.uint8)
    moved = phantom.affine.copy()
    moved[0, 3] += moved_mm
    for folder in ("labels", "images"):
        (tmp_path / folder).mkdir()
    write_labels(tmp_path / "labels" / "p1.nii.gz", LabelMap(labels, phantom.affine))
    images = {"p1": (phantom.image.sum(axis=0), phantom.affine)}
    images |= {f"p1_{name}": (phantom.image[i], moved) for i, name in enumerate(("water", "fat"))}
    for name, (array, affine) in images.items():
        nib.save(nib.Nifti1Image(array.astype(np.float32), affine), tmp_path / "images" / f"{name}.nii.gz")
    if moved_mm:
        with pytest.raises(ImageError, match=r"shifted by 4 mm against p1\.nii\.gz; a fat fraction needs them on one"):
            quantify_folder(system, tmp_path / "labels", tmp_path / "images")
        return
    found = quantify_folder(system, tmp_path / "labels", tmp_path / "images")
    row = found.quantities.query("structure == 'gluteus_medius' and side == 'both'").iloc[0]
    assert row["fat_fraction_percent"] == pytest.approx(phantom.facts["gluteus_medius_fat_fraction_percent"], abs=0.5)
    assert any("p1_fat.nii.gz" in name for name, _ in found.report.provenance)
