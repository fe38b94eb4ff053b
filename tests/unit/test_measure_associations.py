"""Regressions recover what was planted, equal SciPy and scikit-learn, and say what cannot be computed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import UserError
from msklabel.measure.associations import associate, association_table, correlations, wide
from msklabel.measure.clinical import read_clinical, read_table

COVARIATES = ("age_years", "height_cm", "weight_kg")
PLANTED = {"linear": 0.41, "log": np.log(0.98), "logistic": np.log(1.3)}


def cohort(seed: int, cases: int = 150) -> pd.DataFrame:
    """Men whose muscle area goes with height and weight, and outcomes that depend on all of it as planted."""
    rng = np.random.default_rng(seed)
    age, height = rng.normal(73, 6, cases), rng.normal(170, 8, cases)
    weight = 70 + 0.8 * (height - 170) + rng.normal(0, 9, cases)
    muscle = 40 + 0.2 * (weight - 70) - 0.2 * (age - 73) + rng.normal(0, 4, cases)
    grip = 20 + PLANTED["linear"] * muscle - 0.3 * (age - 73) + 0.1 * (height - 170) + rng.normal(0, 5, cases)
    chair = np.exp(3 + PLANTED["log"] * muscle + 0.01 * (age - 73) + rng.normal(0, 0.15, cases))
    odds = PLANTED["logistic"] * (muscle - 40) + 0.05 * (age - 73)
    falls = (rng.random(cases) < 1 / (1 + np.exp(-odds))).astype(int)
    columns = {"age_years": age, "height_cm": height, "weight_kg": weight, "muscle": muscle}
    return pd.DataFrame({**columns, "linear": grip, "log": chair, "logistic": falls})


@pytest.mark.parametrize("kind", ["linear", "log", "logistic"])
def test_planted_effects_lie_in_the_interval_in_93_percent_of_200_cohorts(kind):
    covered = 0
    for seed in range(200):
        found = associate(cohort(seed), "muscle", kind, kind, COVARIATES)
        planted = PLANTED[kind] if kind == "linear" else np.exp(PLANTED[kind])
        covered += found.lower <= planted <= found.upper
    assert covered >= 186
    assert covered < 200  # an interval that is never wrong is too wide


def test_without_the_confounders_the_effect_is_another():
    data = cohort(0, 2000)
    adjusted = associate(data, "muscle", "linear", "linear", COVARIATES)
    assert adjusted.estimate == pytest.approx(PLANTED["linear"], abs=0.1)
    assert associate(data, "muscle", "linear").estimate > adjusted.upper


def test_an_unadjusted_line_equals_scipy():
    data = cohort(1)
    found, expected = associate(data, "muscle", "linear"), stats.linregress(data["muscle"], data["linear"])
    t = stats.t.ppf(0.975, len(data) - 2)
    assert found.estimate == pytest.approx(expected.slope)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.lower, found.upper) == pytest.approx(
        (expected.slope - t * expected.stderr, expected.slope + t * expected.stderr)
    )
    logged = associate(data, "muscle", "log", "log")
    assert logged.estimate == pytest.approx(np.exp(stats.linregress(data["muscle"], np.log(data["log"])).slope))


def test_a_line_by_hand():
    # y = 1 2 4 at x = 0 1 2, ten times over: slope 1.5 whatever the number.
    data = pd.DataFrame({"x": [0.0, 1, 2] * 10, "y": [1.0, 2, 4] * 10})
    assert associate(data, "x", "y").estimate == pytest.approx(1.5)


def test_odds_ratios_equal_scikit_learn_and_a_table_of_four():
    data = cohort(2)
    columns = ["muscle", *COVARIATES]
    scaled = (data[columns] - data[columns].mean()) / data[columns].std(ddof=0)
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(scaled, data["logistic"])
    found = associate(data, "muscle", "logistic", "logistic", COVARIATES)
    assert found.estimate == pytest.approx(np.exp(model.coef_[0, 0] / data["muscle"].std(ddof=0)), rel=1e-4)
    exposed = pd.DataFrame({"x": [1] * 30 + [0] * 30, "y": [1] * 20 + [0] * 10 + [1] * 12 + [0] * 18})
    both = associate(exposed, "x", "y", "logistic")
    assert both.estimate == pytest.approx((20 * 18) / (10 * 12))
    error = np.sqrt(1 / 20 + 1 / 10 + 1 / 12 + 1 / 18)
    assert both.upper == pytest.approx(np.exp(np.log(3) + 1.959964 * error), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "kind", "note"),
    [
        (lambda d: d.head(8), "linear", "8 cases, at least 10 needed"),
        (lambda d: d.assign(muscle=3.0), "linear", "muscle does not vary"),
        (
            lambda d: d.assign(logistic=[1, 1] + [0] * 148),
            "logistic",
            "2 cases of the rarer outcome, at least 5 needed",
        ),
        (
            lambda d: d.assign(logistic=(d["muscle"] > 40).astype(int)),
            "logistic",
            "the exposure parts the outcomes wholly",
        ),
    ],
)
def test_what_cannot_be_computed_is_said(change, kind, note):
    found = associate(change(cohort(3)), "muscle", kind, kind)
    assert found.note == note
    assert np.isnan([found.estimate, found.lower, found.upper, found.p]).all()


def test_covariates_that_say_the_same_are_said():
    data = cohort(3).assign(twice=lambda d: 2 * d["muscle"] + 1)
    assert associate(data, "muscle", "linear", "linear", ["twice"]).note == "muscle and the covariates say the same"


def test_outcomes_that_do_not_suit_are_refused():
    with pytest.raises(UserError, match="linear: a logistic model needs an outcome of 0 and 1, got"):
        associate(cohort(3), "muscle", "linear", "logistic")
    with pytest.raises(UserError, match="logistic: a logarithm needs values above 0, got 0"):
        associate(cohort(3), "muscle", "logistic", "log")


def test_gaps_are_left_out():
    data = cohort(4)
    data.loc[:9, "age_years"] = np.nan
    table = association_table(data, ["muscle"], [("linear", "linear")], ["age_years"])
    assert table["cases"].tolist() == [150, 140]
    assert table["adjusted_for"].tolist() == ["", "age_years"]


def test_correlations_by_group_by_hand():
    data = pd.DataFrame(
        {"v": [1.0, 2, 3, 4, 4, 3, 2, 1], "s": [1, 1, 0, 0, 1, 1, 0, 0], "sex": ["male"] * 4 + ["female"] * 4}
    )
    found = correlations(data, ["v"], "s").set_index("group")
    assert found.loc["male", "r"] == pytest.approx(-2 / np.sqrt(5))
    assert found.loc["female", "r"] == pytest.approx(2 / np.sqrt(5))
    assert found.loc["all", "r"] == pytest.approx(0)
    assert found.loc["male", "p"] == pytest.approx(stats.pearsonr(data["v"][:4], data["s"][:4]).pvalue)


def test_quantities_are_turned_into_columns():
    rows = pd.DataFrame(
        {
            "scan": ["a", "a", "a", "b"],
            "structure": ["m", "m", "f", "m"],
            "kind": "label",
            "side": ["both", "left", "both", "both"],
            "area_cm2": [1.0, 9, 2, 3],
        }
    )
    table = wide(rows)
    assert table.loc["a"].to_dict() == {"f:area_cm2": 2.0, "m:area_cm2": 1.0}
    with pytest.raises(UserError, match="no column kind, side; give"):
        wide(rows[["scan", "structure"]])


class TestCommand:
    def run(self, folder, *arguments):
        tables = ["--quantities", folder / "q.csv", "--clinical", folder / "c.csv", "--out", folder / "out"]
        return CliRunner().invoke(app, ["associate", *map(str, [*tables, *arguments])])

    @pytest.fixture
    def folder(self, tmp_path):
        data = cohort(5, 120)
        scans = [f"s{i}" for i in range(len(data))]
        rows = pd.DataFrame({"scan": scans, "structure": "muscle", "kind": "label", "side": "both"})
        rows.assign(voxels=1, area_cm2=data["muscle"]).to_csv(tmp_path / "q.csv", index=False)
        facts = data.drop(columns="muscle").rename(columns={"linear": "grip_kg", "log": "chair_s", "logistic": "falls"})
        rng = np.random.default_rng(0)
        smi = 7 + 0.1 * (data["muscle"] - 40) + rng.normal(0, 0.3, len(data))
        facts.assign(scan=scans, sex="male", smi_kg_per_m2=smi).to_csv(tmp_path / "c.csv", index=False)
        return tmp_path

    def test_tables_become_tables_and_a_report(self, folder):
        outcomes = ("--outcome", "grip_kg", "--outcome", "chair_s:log", "--outcome", "falls:logistic")
        result = self.run(folder, *outcomes)
        assert result.exit_code == 0, result.output
        found = pd.read_csv(folder / "out" / "associations.csv", keep_default_na=False, na_values=[""])
        assert len(found) == 6
        grip = found[(found["outcome"] == "grip_kg") & found["adjusted_for"].notna()].iloc[0]
        expected = associate(cohort(5, 120), "muscle", "linear", "linear", COVARIATES)
        assert grip["estimate"] == pytest.approx(expected.estimate)
        sarcopenia = pd.read_csv(folder / "out" / "sarcopenia.csv").set_index("group")
        assert sarcopenia.loc["male", "r"] < -0.5
        assert "<img" in (folder / "out" / "report.html").read_text()

    def test_columns_that_are_missing_or_no_numbers(self, folder):
        assert "the column speed is missing" in str(self.run(folder, "--outcome", "speed").exception)
        pd.read_csv(folder / "c.csv").assign(ward="north").to_csv(folder / "c.csv", index=False)
        assert "ward of s0 is 'north', which is no number" in str(self.run(folder, "--outcome", "ward").exception)
        assert "no model 'cox'; models: linear, log, logistic" in str(
            self.run(folder, "--outcome", "falls:cox").exception
        )
        other = ("--outcome", "grip_kg", "--exposure", "bone:area_cm2")
        assert "no exposure 'bone:area_cm2'; there are muscle:area_cm2" in str(self.run(folder, *other).exception)

    def test_sex_is_adjusted_for_as_a_number(self, folder):
        people = pd.read_csv(folder / "c.csv")
        people["sex"] = ["M" if age > 70 else "w" for age in people["age_years"]]
        people.assign(man=(people["sex"] == "M").astype(int)).to_csv(folder / "c.csv", index=False)
        found = []
        for column in ("sex", "man"):
            result = self.run(folder, "--outcome", "grip_kg", "--adjust", f"{column},height_cm")
            assert result.exit_code == 0, result.output
            found.append(pd.read_csv(folder / "out" / "associations.csv").loc[1, ["estimate", "p"]].tolist())
        assert found[0] == found[1] and np.isfinite(found[0]).all()

    def test_a_scan_that_is_there_twice_is_refused(self, folder):
        table = pd.read_csv(folder / "q.csv")
        pd.concat([table, table.iloc[:1]]).to_csv(folder / "q.csv", index=False)
        result = self.run(folder, "--outcome", "grip_kg")
        assert "muscle (both) of s0 is there twice; give each scan once" in str(result.exception)

    @pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
    def test_a_table_in_another_encoding_is_told_what_it_wants(self, folder, encoding):
        people = pd.read_csv(folder / "c.csv").assign(ward="Süd")
        people.to_csv(folder / "c.csv", index=False, encoding=encoding)
        said = str(self.run(folder, "--outcome", "grip_kg").exception)
        assert said == "c.csv: is not in UTF-8; save it as CSV UTF-8, as Excel calls it"

    def test_scans_that_are_numbered_keep_their_zeros(self, folder):
        for name in ("q.csv", "c.csv"):
            table = pd.read_csv(folder / name)
            table["scan"] = [f"{int(scan[1:]):03d}" for scan in table["scan"]]
            table.to_csv(folder / name, index=False)
        assert read_clinical(folder / "c.csv").index[:2].tolist() == ["000", "001"]
        assert wide(read_table(folder / "q.csv")).index[:2].tolist() == ["000", "001"]
        assert self.run(folder, "--outcome", "grip_kg").exit_code == 0

    def test_volumes_of_other_numbers_of_slices_are_said(self, folder):
        table = pd.read_csv(folder / "q.csv").assign(volume_slices="3 to 7")
        table["volume_cm3"] = table["area_cm2"] * 1.5
        table.loc[:9, "volume_slices"], table.loc[10, "volume_slices"] = "0 to 2", None
        table.to_csv(folder / "q.csv", index=False)
        result = self.run(folder, "--outcome", "grip_kg")
        words = "volumes of 5 slices in 109 scans, 3 slices in 10 scans, not known in 1"
        assert f"warning: Not of slabs of one height in all scans: {words}." in " ".join(result.output.split())
        notes = pd.read_csv(folder / "out" / "associations.csv").set_index("exposure")["note"]
        assert set(notes["muscle:volume_cm3"]) == {words} and notes["muscle:area_cm2"].isna().all()
        assert words in (folder / "out" / "report.html").read_text()
        table.iloc[11:].to_csv(folder / "q.csv", index=False)
        assert "warning" not in self.run(folder, "--outcome", "grip_kg").output

    def test_volumes_of_as_many_slices_of_another_thickness_are_said(self, folder):
        table = pd.read_csv(folder / "q.csv").assign(volume_slices="3 to 7", slab_mm=15.0)
        table["volume_cm3"] = table["area_cm2"] * 1.5
        table.loc[:9, "slab_mm"] = 5.0
        table.to_csv(folder / "q.csv", index=False)
        words = "volumes of 15 mm in 110 scans, 5 mm in 10 scans"
        assert words in " ".join(self.run(folder, "--outcome", "grip_kg").output.split())
        assert "muscle:slab_mm" not in set(pd.read_csv(folder / "out" / "associations.csv")["exposure"])
