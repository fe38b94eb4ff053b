"""``msklabel relaxometry`` from files to R and p maps: the planted cluster is where it was planted."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from test_registration import AFFINE
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import UserError
from msklabel.imaging.scan import LabelMap
from msklabel.imaging.write import write_labels

SHAPE = (28, 24, 12)
CLUSTER = (slice(10, 14), slice(9, 13), slice(4, 7))
PATIENTS = 40


def save(file: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    file.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), file)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty knees whose T1rho rises with the fat fraction in one place; each lies some voxels off, and by how much."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(7)
    mask = np.zeros(SHAPE, np.uint8)
    mask[6:20, 7:16, 3:9] = 1
    write_labels(folder / "mask.nii.gz", LabelMap(mask, AFFINE))
    save(folder / "reference.nii.gz", 100 * mask + rng.normal(0, 5, SHAPE))
    (folder / "transforms").mkdir()
    age, fat = rng.normal(50, 10, PATIENTS), rng.normal(10, 3, PATIENTS)
    rows = ["scan,age_years,fat_fraction_percent,group"]
    for n in range(PATIENTS):
        values = 40 + 0.2 * (age[n] - 50) + rng.normal(0, 3, SHAPE)
        values[CLUSTER] += 1.5 * (fat[n] - 10)
        shift = rng.integers(-2, 3, 3)
        save(folder / "maps" / f"knee{n:02d}.nii.gz", np.roll(np.where(mask, values, 0), shift, (0, 1, 2)))
        save(folder / "aligned" / f"knee{n:02d}.nii.gz", np.where(mask, values, 0))
        lps_mm = shift * np.diag(AFFINE)[:3] * [-1, -1, 1]
        file = folder / "transforms" / f"knee{n:02d}.tfm"
        sitk.WriteTransform(sitk.TranslationTransform(3, lps_mm.tolist()), str(file))
        rows.append(f"knee{n:02d},{age[n]:.2f},{fat[n]:.3f},{'early OA' if n % 8 else 'FAI'}")
    (folder / "people.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(study: Path, out: Path, *more: str, maps: str = "maps") -> pd.DataFrame:
    given = ["relaxometry", "--maps", study / maps, "--reference", study / "reference.nii.gz"]
    given += ["--mask", study / "mask.nii.gz", "--clinical", study / "people.csv", "--out", out]
    given += ["--exposure", "fat_fraction_percent", *more]
    result = CliRunner().invoke(app, [str(word) for word in given], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return pd.read_csv(out / "relaxometry.csv")


def test_the_cluster_is_found_through_given_transforms_in_each_cohort(study: Path, tmp_path: Path) -> None:
    more = ["--transforms", str(study / "transforms"), "--adjust", "age_years", "--cohort", "group"]
    table = run(study, tmp_path, *more).set_index("cohort")
    r, p = (nib.load(tmp_path / f"all_fat_fraction_percent_{name}.nii.gz").get_fdata() for name in "rp")
    cluster = np.zeros(SHAPE, bool)
    cluster[CLUSTER] = True
    mask = nib.load(study / "mask.nii.gz").get_fdata() > 0
    assert np.nanmean(p[cluster] < 0.05) > 0.9 and np.nanmean(r[cluster]) > 0.5
    assert np.isnan(r[~mask]).all() and 0.02 < np.nanmean(p[mask & ~cluster] < 0.05) < 0.09
    assert table.loc["all", "psv_percent"] == pytest.approx(100 * (p[mask] < 0.05).mean())
    assert table.loc["all", "mean_r"] == pytest.approx(r[mask].mean(), abs=1e-6)
    assert table["cases"].to_dict() == {"all": 40, "FAI": 5, "early OA": 35}
    assert "at least 6 needed" in table.loc["FAI", "note"] and np.isnan(table.loc["FAI", "psv_percent"])
    assert (tmp_path / "early_OA_fat_fraction_percent_r.nii.gz").exists()
    page = (tmp_path / "report.html").read_text()
    assert "sha256" in page and "itk-elastix" in page and "data:image/png" in page
    likeness = pd.read_csv(tmp_path / "registration.csv")
    assert (likeness["mask_told_percent"] > 99).all() and len(likeness) == PATIENTS


def test_who_is_in_no_cohort_is_with_all_and_makes_none(study: Path, tmp_path: Path) -> None:
    people = pd.read_csv(study / "people.csv")
    people.loc[3, "group"] = None
    people.to_csv(tmp_path / "some.csv", index=False)
    more = ["--register", "none", "--cohort", "group", "--clinical", str(tmp_path / "some.csv")]
    table = run(study, tmp_path, *more, maps="aligned")
    assert dict(zip(table["cohort"], table["cases"], strict=True)) == {"all": 40, "FAI": 5, "early OA": 34}
    assert "no group is known of knee03" in (tmp_path / "report.html").read_text()


def test_no_cohort_is_called_as_all_together_are(study: Path, tmp_path: Path) -> None:
    people = pd.read_csv(study / "people.csv")
    people.loc[3, "group"] = "all"
    people.to_csv(tmp_path / "some.csv", index=False)
    with pytest.raises(UserError, match="no cohort can be 'all', as all together are called"):
        run(study, tmp_path, "--register", "none", "--cohort", "group", "--clinical", str(tmp_path / "some.csv"))


def test_cohorts_whose_names_differ_in_signs_only_have_maps_of_their_own(study: Path, tmp_path: Path) -> None:
    people = pd.read_csv(study / "people.csv")
    people["group"] = ["<60" if n < 20 else ">60" for n in range(PATIENTS)]
    people.to_csv(tmp_path / "some.csv", index=False)
    more = ["--register", "none", "--cohort", "group", "--clinical", str(tmp_path / "some.csv")]
    table = run(study, tmp_path, *more, maps="aligned").set_index("cohort")
    for cohort in ("all", "<60", ">60"):
        r = nib.load(tmp_path / f"{table.loc[cohort, 'maps']}_r.nii.gz").get_fdata()
        assert np.nanmean(r) == pytest.approx(table.loc[cohort, "mean_r"], abs=1e-6)


def test_maps_that_lie_right_already_and_the_false_discovery_rate(study: Path, tmp_path: Path) -> None:
    table = run(study, tmp_path, "--register", "none", "--fdr", "--adjust", "age_years", maps="aligned")
    p = nib.load(tmp_path / "all_fat_fraction_percent_p.nii.gz").get_fdata()
    cluster = np.zeros(SHAPE, bool)
    cluster[CLUSTER] = True
    significant = p < 0.05
    assert significant[cluster].mean() > 0.9
    assert significant[~cluster].sum() <= 0.1 * significant.sum()
    assert bool(table.loc[0, "p_adjusted"]) is True


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--register", "affine"], "--register: expected one of rigid, bspline, none, got 'affine'"),
        (["--transforms", "{study}/maps"], "no transform of knee00, such as knee00.tfm"),
        (["--exposure", "grip"], "there is no exposure 'grip' in the tables"),
        (["--cohort", "sex"], "sex"),
    ],
)
def test_what_does_not_fit_is_named(study: Path, tmp_path: Path, more: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        run(study, tmp_path, *(word.format(study=study) for word in more))


def test_another_grid_is_refused(study: Path, tmp_path: Path) -> None:
    for file in (study / "aligned").glob("*.nii.gz"):
        image = nib.load(file)
        save(tmp_path / "other" / file.name, image.get_fdata(), AFFINE @ np.diag([1, 1, 1.5, 1.0]))
    with pytest.raises(UserError, match=r"knee00: the map has voxels of .* --register bspline brings it"):
        run(study, tmp_path, "--register", "none", maps=str(tmp_path / "other"))
