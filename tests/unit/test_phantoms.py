"""The synthetic scans are reproducible, complete and physiologically plausible."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msklabel_phantoms.__main__ import main
from msklabel_phantoms.generators import GENERATORS
from msklabel_phantoms.hip_ct import LABELS, generate_hip_ct
from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.random_fields import SmoothField
from msklabel_phantoms.write import generate, write_phantoms

SEEDS = (0, 1, 2, 3)
# Mean HU of the voxels of each label: within the thresholds of Imani et al. 2025 and plausible.
MEAN_HU = {
    "cortical_bone": (330, 1200),
    "trabecular_bone": (150, 300),
    "haematopoietic_bone_marrow": (50, 150),
    "marrow_adipose_tissue": (-100, 50),
    "muscle": (35, 65),
    "intermuscular_adipose_tissue": (-115, -45),
    "subcutaneous_adipose_tissue": (-125, -75),
}


@pytest.fixture(scope="module")
def hips() -> dict[int, Phantom]:
    return {seed: generate("hip_tissue_ct", seed, 0) for seed in SEEDS}


@pytest.mark.parametrize("system", sorted(GENERATORS))
def test_same_seed_same_phantom(system: str) -> None:
    first, again, other = (generate(system, seed, 0) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.facts == again.facts
    assert first.facts["patient_id"] != other.facts["patient_id"]
    assert (first.labels != other.labels).mean() > 0.05


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LABELS)
def test_tissue_has_its_density_on_both_sides(hips: dict[int, Phantom], seed: int, name: str) -> None:
    phantom = hips[seed]
    tissue = phantom.labels == LABELS[name]
    middle = tissue.shape[0] // 2
    assert tissue[:middle].sum() > 50
    assert tissue[middle:].sum() > 50
    lower, upper = MEAN_HU[name]
    assert lower < phantom.image[0][tissue].mean() < upper


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_agree_with_facts(hips: dict[int, Phantom], seed: int) -> None:
    phantom = hips[seed]
    voxel_cm3 = np.prod(phantom.spacing_mm) / 1000
    for name, label in LABELS.items():
        assert phantom.facts[f"{name}_cm3"] == pytest.approx((phantom.labels == label).sum() * voxel_cm3, abs=0.01)
    measured_hu = phantom.image[0][phantom.labels == LABELS["muscle"]].mean()
    assert measured_hu == pytest.approx(phantom.facts["muscle_mean_hu"] + phantom.facts["hu_offset"], abs=1.0)


def test_air_surrounds_the_patient(hips: dict[int, Phantom]) -> None:
    for phantom in hips.values():
        assert phantom.image[0, :, -3:].mean() == pytest.approx(-1000, abs=10)
        assert not phantom.labels[:, -3:].any()


def test_volumes_do_not_depend_on_the_voxels() -> None:
    coarse = generate_hip_ct(np.random.default_rng(3), shape=(160, 120, 8), spacing_mm=(2.6, 2.6, 3.0), metal=False)
    fine = generate_hip_ct(np.random.default_rng(3), shape=(320, 240, 8), spacing_mm=(1.3, 1.3, 3.0), metal=False)
    assert fine.labels.shape == (320, 240, 8)
    # Coarse voxels share thin cortex and thin streaks of fat with their neighbours, so parts may shift a little more.
    groups = {"bone": (1, 2, 3, 4), "deep to the fascia": (5, 6), "under the skin": (7,)}
    for group, labels in groups.items():
        coarse_mm3, fine_mm3 = (np.isin(p.labels, labels).sum() * np.prod(p.spacing_mm) for p in (coarse, fine))
        assert fine_mm3 == pytest.approx(coarse_mm3, rel=0.05), group
    for name in LABELS:
        assert fine.facts[f"{name}_cm3"] == pytest.approx(coarse.facts[f"{name}_cm3"], rel=0.35), name


def test_neighbouring_slices_show_the_same_anatomy(hips: dict[int, Phantom]) -> None:
    for phantom in hips.values():
        bone = np.isin(phantom.labels, (1, 2, 3, 4))
        overlap = (
            2 * (bone[..., 1:] & bone[..., :-1]).sum((0, 1)) / (bone[..., 1:].sum((0, 1)) + bone[..., :-1].sum((0, 1)))
        )
        assert overlap.min() > 0.8


def test_affine_puts_the_patient_in_ras_mm(hips: dict[int, Phantom]) -> None:
    phantom = hips[0]
    np.testing.assert_allclose(np.diag(phantom.affine), (2.6, 2.6, 3.0, 1))
    np.testing.assert_allclose(phantom.affine[:2, 3], (-79.5 * 2.6, -59.5 * 2.6))
    # The buttocks, thick muscle, lie posterior: more muscle at low y than at high y.
    profile = (phantom.labels == LABELS["muscle"]).sum(axis=(0, 2))
    bone = np.isin(phantom.labels, (1, 2, 3, 4)).sum(axis=(0, 2))
    rows = np.arange(len(profile))
    assert (profile * rows).sum() / profile.sum() < (bone * rows).sum() / bone.sum()


def test_metal_is_bright_and_background() -> None:
    with_metal = generate_hip_ct(np.random.default_rng(4), metal=True)
    without = generate_hip_ct(np.random.default_rng(4), metal=False)
    metal = with_metal.image[0] > 2000
    assert metal.sum() > 20
    assert (with_metal.labels[metal] == 0).mean() > 0.5
    assert without.image.max() < 2000
    assert (with_metal.facts["metal"], without.facts["metal"]) in {("left", "none"), ("right", "none")}


def test_sites_and_noise_vary() -> None:
    facts = [generate_hip_ct(np.random.default_rng(seed), shape=(16, 12, 1)).facts for seed in range(12)]
    assert {fact["site"] for fact in facts} == {"site_a", "site_b"}
    noise = [float(fact["noise_sd_hu"]) for fact in facts]
    assert min(noise) >= 6
    assert max(noise) <= 20
    assert max(noise) - min(noise) > 4


def test_impossible_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"three positive .* \(0, 5, 5\)"):
        generate_hip_ct(np.random.default_rng(0), shape=(0, 5, 5))


def test_smooth_field_is_standardised_and_independent_of_the_grid() -> None:
    field = SmoothField(np.random.default_rng(0), (6, 6, 6))
    axis = np.linspace(-150, 150, 101, dtype=np.float32)
    values = field.on_grid(axis, axis, axis)
    assert values.mean() == pytest.approx(0, abs=0.05)
    assert values.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(values[::2, ::2, ::2], field.on_grid(axis[::2], axis[::2], axis[::2]), atol=1e-4)


def test_written_files_are_complete_and_do_not_depend_on_count(tmp_path: Path) -> None:
    small = {"shape": (40, 30, 2), "spacing_mm": (10.4, 10.4, 3.0)}
    few, many = tmp_path / "few", tmp_path / "many"
    assert len(list(write_phantoms("hip_tissue_ct", few, count=1, seed=7, **small))) == 1
    paths = list(write_phantoms("hip_tissue_ct", many, count=3, seed=7, **small))
    assert [path.name for path in paths] == [f"hip_tissue_ct_7_{index:03d}.nii.gz" for index in range(3)]
    for folder in ("images", "truth"):
        name = f"{folder}/hip_tissue_ct_7_000.nii.gz"
        assert (few / name).read_bytes() == (many / name).read_bytes()

    phantom = generate("hip_tissue_ct", 7, 2, **small)
    image, truth = nib.load(paths[2]), nib.load(many / "truth" / paths[2].name)
    np.testing.assert_array_equal(image.get_fdata(), phantom.image[0])
    np.testing.assert_array_equal(truth.get_fdata(), phantom.labels)
    np.testing.assert_allclose(image.affine, phantom.affine, atol=1e-4)
    assert truth.get_data_dtype() == np.uint8
    with (many / "facts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [path.name for path in paths]
    assert rows[2]["patient_id"] == phantom.facts["patient_id"]
    assert not list(many.glob("**/.partial*"))


def test_later_runs_add_to_the_facts(tmp_path: Path) -> None:
    for seed in (1, 2, 2):
        list(write_phantoms("hip_tissue_ct", tmp_path, count=1, seed=seed, shape=(16, 12, 1)))
    with (tmp_path / "facts.csv").open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1", "2"]


def test_command_line_writes_and_names_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--count", "1", "--shape", "16", "12", "1", "--spacing-mm", "26", "26", "3", "--out", str(tmp_path)]
    assert main(["hip_tissue_ct", *small]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "images" / "hip_tissue_ct_0_000.nii.gz")
    assert main(["knee_mr", *small]) == 2
    assert "'knee_mr'; there are: hip_abductor_mr, hip_radiograph, hip_tissue_ct" in capsys.readouterr().err
