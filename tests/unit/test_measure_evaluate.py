"""Rows, summaries and agreement by hand and against pingouin, SciPy and MONAI; folders through the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pingouin
import pytest
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import UserError
from msklabel.imaging.scan import LabelMap
from msklabel.imaging.write import write_labels
from msklabel.measure.agreement import bland_altman, icc, pearson
from msklabel.measure.evaluate import evaluate_pair
from msklabel.measure.pairs import find_pairs
from msklabel.measure.structures import find_plane
from msklabel.measure.summary import (
    KEYS,
    compare_models,
    empty_cases,
    holm,
    rater_agreement,
    summarise,
    summarise_folds,
    volume_agreement,
)
from msklabel.system import load_system

CONFIGS = Path(__file__).parents[2] / "configs"
ABDUCTORS = load_system(CONFIGS / "hip_abductor_mr.yaml")
TISSUES = load_system(CONFIGS / "hip_tissue_ct.yaml")
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def two_legs(shift: int = 0) -> np.ndarray:
    """Label 1 in both legs, label 2 in the left one; the right leg's box moved forward by some voxels."""
    labels = np.zeros((40, 20, 6), np.uint8)
    labels[4:12, 5:13, 1:5] = 1
    labels[28:36, 5 + shift : 13 + shift, 1:5] = 1
    labels[14:17, 5:9, 2:4] = 2
    return labels


def by_key(rows) -> dict:
    return {(row.structure, row.side): row for row in rows}


def test_rows_by_side_and_group():
    rows = by_key(evaluate_pair("a", two_legs(), two_legs(2), AFFINE, ABDUCTORS))
    whole, left, right = (rows["gluteus_medius", side] for side in ("both", "left", "right"))
    assert (left.dice, right.dice) == (1.0, pytest.approx(0.75))
    assert whole.dice == pytest.approx((1 + 0.75) / 2)
    assert whole.truth_cm3 == pytest.approx(2 * 8 * 8 * 4 * 12 / 1000)
    assert left.truth_cm3 == pytest.approx(whole.truth_cm3 / 2)
    assert (left.hd_mm, right.hd_mm, whole.hd_mm) == (0, 4.0, 4.0)
    assert rows["gluteus_minimus", "right"].state == "absent"
    assert rows["gluteus_minimus", "left"].state == "both"
    assert rows["tensor_fasciae_latae", "both"].state == "absent"
    group = rows["abductors", "both"]
    assert group.kind == "group"
    overlap, size = 256 + 192 + 24, 256 * 2 + 24
    assert group.dice == pytest.approx(overlap / size)
    assert rows["all", "both"].generalised_dice == pytest.approx(overlap / size)


def test_the_sides_do_not_depend_on_how_the_array_lies():
    mirrored = AFFINE.copy()
    mirrored[0] = [-2.0, 0, 0, 78.0]
    straight = by_key(evaluate_pair("a", two_legs(), two_legs(2), AFFINE, ABDUCTORS))
    flipped = by_key(evaluate_pair("a", two_legs()[::-1], two_legs(2)[::-1], mirrored, ABDUCTORS))
    assert straight.keys() == flipped.keys()
    for key, row in straight.items():
        assert flipped[key].dice == pytest.approx(row.dice, nan_ok=True)
        assert flipped[key].assd_mm == pytest.approx(row.assd_mm, nan_ok=True)


def test_a_side_that_was_missed_has_no_distance_instead_of_one_to_the_other_leg():
    predicted = two_legs()
    predicted[28:] = 0
    right = by_key(evaluate_pair("a", two_legs(), predicted, AFFINE, ABDUCTORS))["gluteus_medius", "right"]
    assert (right.state, right.dice, right.sensitivity, right.ravd_percent) == ("missed", 0, 0, -100)
    assert np.isnan(right.hd_mm)


def test_labels_of_one_leg_have_no_sides_unless_told():
    one = two_legs()[:13]
    assert find_plane(one, AFFINE) is None
    assert {row.side for row in evaluate_pair("a", one, one, AFFINE, ABDUCTORS)} == {"both"}
    told = evaluate_pair("a", one, one, AFFINE, ABDUCTORS, sides="right")
    assert {row.side for row in told} == {"both", "right"}
    with pytest.raises(UserError, match="expected auto, none, left or right, got 'top'"):
        evaluate_pair("a", one, one, AFFINE, ABDUCTORS, sides="top")


def test_labels_that_say_their_side_are_one_structure():
    label = {"index": 1, "code": "99MSKLABEL:A", "color": (1, 2, 3)}
    other = {"index": 2, "code": "99MSKLABEL:B", "color": (1, 2, 3)}
    data = ABDUCTORS.model_dump(exclude_unset=True)
    data |= {"labels": {"thigh_left": label, "thigh_right": other}, "groups": {}}
    sided = type(ABDUCTORS).model_validate(data)
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0], labels[2] = 1, 2
    rows = by_key(evaluate_pair("a", labels, np.where(labels == 2, 2, 0).astype(np.uint8), np.eye(4), sided))
    assert [rows["thigh", side].state for side in ("both", "left", "right")] == ["both", "missed", "both"]
    assert rows["thigh", "both"].dice == pytest.approx(2 / 3)


def test_a_value_that_the_system_does_not_have_is_named():
    wrong = two_legs()
    wrong[0, 0, 0] = 9
    with pytest.raises(UserError, match=r"a: the prediction holds \[9\], but hip_abductor_mr has the labels 1 to 3"):
        evaluate_pair("a", two_legs(), wrong, AFFINE, ABDUCTORS)


def rows_of(values: dict[str, list[float]], metric: str = "dice") -> pd.DataFrame:
    keys = {"kind": "label", "side": "both", "state": "both", "truth_cm3": 1.0, "predicted_cm3": 1.0}
    columns = ("dice", "generalised_dice", "sensitivity", "specificity", "ravd_percent", "assd_mm", "hd_mm", "hd95_mm")
    empty = dict.fromkeys(columns, np.nan)
    return pd.DataFrame(
        [
            {"scan": f"s{i}", "structure": name, **keys, **empty, metric: value}
            for name, row in values.items()
            for i, value in enumerate(row)
        ]
    )


def test_a_summary_by_hand():
    found = summarise(rows_of({"a": [0.8, 0.9, np.nan, 1.0], "b": [0.5]})).set_index("structure")
    assert found.loc["a", ["cases", "mean", "median", "minimum", "maximum"]].tolist() == [3, 0.9, 0.9, 0.8, 1.0]
    assert found.loc["a", "sd"] == pytest.approx(0.1)
    assert np.isnan(found.loc["b", "sd"])


def test_folds_average_the_means_of_folds():
    rows = rows_of({"a": [0.8, 0.9, 0.4]})
    found = summarise_folds(rows, {"s0": "1", "s1": "1", "s2": "2"}).iloc[0]
    assert (found["folds"], found["mean"]) == (2, pytest.approx((0.85 + 0.4) / 2))
    with pytest.raises(UserError, match="no fold is given for s2"):
        summarise_folds(rows, {"s0": "1", "s1": "1"})


def test_empty_cases_are_counted():
    rows = rows_of({"a": [1, 1, 1, 1]})
    rows["state"] = ["both", "missed", "missed", "absent"]
    assert empty_cases(rows).iloc[0][["both", "missed", "false_alarm", "absent"]].tolist() == [1, 2, 0, 1]


def test_volume_agreement_names_what_is_too_few():
    rows = rows_of({"a": [1, 1]})
    found = volume_agreement(rows).iloc[0]
    assert np.isnan(found["volume_r"])
    assert found["note"] == "2 cases, at least 3 needed"


def test_models_are_compared_by_wilcoxon_and_holm():
    rng = np.random.default_rng(1)
    first = {"a": rng.uniform(0.7, 0.9, 12).tolist(), "b": rng.uniform(0.7, 0.9, 12).tolist(), "c": [0.5] * 12}
    second = {"a": [v + 0.05 for v in first["a"]], "b": rng.uniform(0.7, 0.9, 12).tolist(), "c": [0.5] * 12}
    found = compare_models(rows_of(first), rows_of(second)).set_index("structure")
    for name in "ab":
        expected = pingouin.wilcoxon(first[name], second[name]).iloc[0]
        assert found.loc[name, "p"] == pytest.approx(expected.filter(like="p").iloc[0])
    assert found.loc["a", "p_holm"] == pytest.approx(2 * found.loc["a", "p"])
    assert np.isnan(found.loc["c", "p"])
    assert found.loc["c", "note"] == "0 scans differ, at least 6 needed"


def test_holm_is_over_structures_and_not_over_their_sides_and_groups():
    rng = np.random.default_rng(2)
    first = rows_of({"a": rng.uniform(0.7, 0.9, 12).tolist(), "b": rng.uniform(0.7, 0.9, 12).tolist()})
    first = pd.concat([first, first.assign(side="left"), first.assign(kind="group")], ignore_index=True)
    second = first.assign(dice=first["dice"] + rng.normal(0.02, 0.02, 36 * 2))
    found = compare_models(first, second)
    assert len(found) == 6
    for _, family in found.groupby(["kind", "side"]):
        low, high = family["p"].min(), family["p"].max()
        assert family["p_holm"].min() == pytest.approx(min(2 * low, 1))
        assert family["p_holm"].max() == pytest.approx(max(high, min(2 * low, 1)))


def test_raters_who_all_see_nothing_do_not_agree_the_better_for_it():
    volumes = {"ann": [10.0, 20, 30, 0, 0], "bob": [14.0, 19, 27, 0, 0]}
    keys = {"structure": "psoas", "kind": "label", "side": "both"}
    tables = {
        rater: pd.DataFrame({"scan": [f"s{i}" for i in range(5)], **keys, "cm3": values})
        for rater, values in volumes.items()
    }
    found = rater_agreement(tables).set_index(KEYS).loc[("psoas", "label", "both")]
    expected = icc(np.column_stack([values[:3] for values in volumes.values()]))
    assert (found["cases"], found["icc"]) == (3, pytest.approx(expected.value))
    assert (found["icc_lower"], found["icc_upper"]) == pytest.approx((expected.lower, expected.upper))


def test_volumes_of_each_structure_have_bias_and_limits():
    truth, predicted = [10.0, 20, 30, 40], [11.0, 21, 33, 41]
    rows = pd.DataFrame({"truth_cm3": truth, "predicted_cm3": predicted, "structure": "a", "kind": "label"})
    found = volume_agreement(rows.assign(side="both", state="both")).iloc[0]
    assert (found["bias_cm3"], found["lower_limit_cm3"], found["upper_limit_cm3"]) == pytest.approx((1.5, -0.46, 3.46))


def test_holm_by_hand():
    assert holm(np.array([0.01, np.nan, 0.04, 0.03])) == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)


@pytest.mark.parametrize("ratings", [[[1, 2], [1, 2], [1, 2]], [[1, 3], [2, 2], [3, 1]]])
def test_cases_that_do_not_differ_have_an_icc_without_an_interval(ratings):
    found = icc(np.array(ratings, float))
    assert found.value <= 0 and np.isnan([found.lower, found.upper]).all() and found.cases == 3


def test_readers_who_agree_but_for_rounding_have_an_icc_of_one():
    volumes = 0.1 * np.array([3.0, 7, 11, 13, 17, 19, 23])
    found = icc(np.column_stack([volumes, volumes + 1e-16, volumes / 3 * 3]))
    assert (found.value, found.lower, found.upper) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("seed", range(3))
def test_icc_equals_pingouin(seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(50, 10, 14)
    table = np.column_stack([truth, truth + rng.normal(1, 3, 14), truth * 1.05 + rng.normal(0, 2, 14)])
    long = pd.DataFrame(table).melt(ignore_index=False).reset_index()
    expected = pingouin.intraclass_corr(long, "index", "variable", "value").set_index("Type").loc["ICC(A,1)"]
    found = icc(table)
    assert found.value == pytest.approx(expected["ICC"])
    assert (round(found.lower, 2), round(found.upper, 2)) == pytest.approx(tuple(expected["CI95"]))


def test_icc_of_the_classic_example():
    # Shrout and Fleiss 1979, table 2: six targets, four judges; ICC(2,1) = 0.29.
    table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    found = icc(table)
    assert found.value == pytest.approx(0.2898, abs=1e-4)
    assert (found.lower, found.upper) == pytest.approx((0.0188, 0.7611), abs=1e-4)


def test_bland_altman_by_hand():
    found = bland_altman([10, 20, 30, 40], [11, 21, 33, 41])
    assert found.bias.value == 1.5
    assert found.sd == 1.0
    assert (found.lower.value, found.upper.value) == pytest.approx((-0.46, 3.46))
    t = 3.182446305
    assert found.bias.lower == pytest.approx(1.5 - t / 2)
    assert found.upper.upper == pytest.approx(3.46 + t * np.sqrt(3 / 4))
    assert bland_altman([1, 2], [1, 2]).bias.note == "2 cases, at least 3 needed"


def test_correlation_by_hand():
    assert pearson([1, 2, 3], [2, 4, 7]).value == pytest.approx(5 / np.sqrt(2 * 38 / 3))
    assert pearson([1, 1, 1], [1, 2, 3]).note == "one of the two does not vary"


class TestCommand:
    def write(self, folder: Path, **maps: np.ndarray) -> Path:
        folder.mkdir(exist_ok=True)
        for name, labels in maps.items():
            write_labels(folder / f"{name}.nii.gz", LabelMap(labels, AFFINE))
        return folder

    def run(self, *arguments: object):
        return CliRunner().invoke(app, ["evaluate", "--system", "hip_abductor_mr", *map(str, arguments)])

    def test_folders_become_tables_and_a_report(self, tmp_path):
        scans = {f"s{i}": two_legs(i % 3) for i in range(7)}
        truth = self.write(tmp_path / "truth", **scans)
        good = self.write(tmp_path / "good", **scans)
        bad = self.write(tmp_path / "bad", **{name: two_legs(4) for name in scans})
        (tmp_path / "folds.csv").write_text("scan,fold\n" + "".join(f"s{i},{i % 2}\n" for i in range(7)))
        out = tmp_path / "out"
        options = ("--truth", truth, "--pred", good, "--pred", f"moved={bad}", "--folds", tmp_path / "folds.csv")
        result = self.run(*options, "--out", out, "--pdf")
        assert result.exit_code == 0, result.output
        cases = pd.read_csv(out / "cases.csv").set_index(["model", "scan", "structure", "side"])
        assert len(cases) == 2 * 7 * 13
        assert cases.loc[("good", "s3", "gluteus_medius", "both"), "dice"] == 1
        moved = cases.loc[("moved", "s0", "gluteus_medius", "right")]
        assert (moved["dice"], moved["hd_mm"]) == (0.5, 8.0)
        summary = pd.read_csv(out / "summary.csv").set_index(["model", "structure", "side", "metric"])
        assert summary.loc[("moved", "gluteus_medius", "right", "dice"), "mean"] == pytest.approx(
            np.mean([1 - abs(4 - i % 3) / 8 for i in range(7)])
        )
        tests = pd.read_csv(out / "wilcoxon.csv").set_index(["metric", "structure", "side"])
        for row in (("dice", "gluteus_medius", "both"), ("generalised_dice", "all", "both")):
            assert tests.loc[row, "p"] == pytest.approx(2 / 2**7)
        muscles = tests.loc[("dice", ["gluteus_medius", "gluteus_minimus"], "both"), :]
        assert muscles.loc[("dice", "gluteus_medius", "both"), "p_holm"] == pytest.approx(2 / 2**7)  # the only one told
        assert "ASSD" in (out / "report.html").read_text() and "assd_mm" in tests.index.get_level_values("metric")
        over_folds = pd.read_csv(out / "folds.csv").set_index(["model", "structure", "side", "metric"])
        by_fold = [np.mean([1 - abs(4 - i % 3) / 8 for i in range(7) if i % 2 == fold]) for fold in (0, 1)]
        row = over_folds.loc[("moved", "gluteus_medius", "right", "dice")]
        assert (row["folds"], row["mean"], row["sd"]) == pytest.approx((2, np.mean(by_fold), np.std(by_fold, ddof=1)))
        raters = pd.read_csv(out / "icc.csv").set_index(["structure", "side"]).loc[("gluteus_medius", "both")]
        assert raters["raters"] == 3
        assert {f.name for f in out.iterdir()} >= {"icc.csv", "folds.csv", "empty.csv", "volumes.csv", "report.pdf"}
        page = (out / "report.html").read_text()
        assert page.count("<img") >= 10
        assert "not clinically validated" in page
        assert "moved, worst case s0" in page
        assert "http" not in page.split("</style>")[1].replace("https://www.w3.org", "").split("<img")[0]
        assert (out / "report.pdf").read_bytes().startswith(b"%PDF")

    def test_each_prediction_names_the_version_that_made_it(self, tmp_path):
        truth = self.write(tmp_path / "truth", a=two_legs())
        versions = [tmp_path / "models" / "hip_abductor_mr" / number for number in ("0001", "0002")]
        for number, version in enumerate(versions):
            version.mkdir(parents=True)
            (version / "weights.safetensors").write_bytes(bytes([number]))
        two = ("--truth", truth, "--pred", f"old={truth}", "--pred", f"new={truth}", "--out", tmp_path / "out")
        result = self.run(*two, "--model", f"old={versions[0]}", "--model", f"new={versions[1]}")
        assert result.exit_code == 0, result.output
        page = (tmp_path / "out" / "report.html").read_text()
        for name, number in (("old", "0001"), ("new", "0002")):
            assert f'<th>{name}: model</th><td class="wrap">hip_abductor_mr version {number}</td>' in page
        assert "expected NAME=DIR once for each prediction: old, new" in str(
            self.run(*two, "--model", versions[0]).exception
        )
        assert self.run("--truth", truth, "--pred", truth, "--out", tmp_path, "--model", versions[0]).exit_code == 0

    def test_files_without_partner_are_refused_or_left_out(self, tmp_path):
        truth = self.write(tmp_path / "truth", a=two_legs(), b=two_legs())
        pred = self.write(tmp_path / "pred", a=two_legs(), c=two_legs())
        refused = self.run("--truth", truth, "--pred", pred, "--out", tmp_path / "out")
        assert "pred has no labels for b; --paired-only leaves them out" in str(refused.exception)
        pairs, left_out = find_pairs(truth, pred, paired_only=True)
        assert ([pair.scan for pair in pairs], left_out) == (["a"], ["b", "c"])

    def test_another_grid_is_refused_unless_resampled(self, tmp_path):
        truth = self.write(tmp_path / "truth", a=two_legs())
        coarse = tmp_path / "pred"
        coarse.mkdir()
        affine = np.diag([2.0, 2.0, 6.0, 1.0])
        affine[2, 3] = 1.5
        write_labels(coarse / "a.nrrd", LabelMap(two_legs()[:, :, ::2], affine))
        options = ("--truth", truth, "--pred", coarse, "--out", tmp_path / "out")
        assert "a: the prediction has 40 x 20 x 3 voxels, the truth has 40 x 20 x 6" in str(
            self.run(*options).exception
        )
        assert self.run(*options, "--resample").exit_code == 0
        cases = pd.read_csv(tmp_path / "out" / "cases.csv")
        assert cases["dice"].max() > 0.7
        write_labels(coarse / "a.nrrd", LabelMap(two_legs(), AFFINE + np.array([[0, 0, 0, 500.0]] * 3 + [[0] * 4])))
        assert "lies wholly outside" in str(self.run(*options, "--resample").exception)

    def test_folders_that_are_not_there(self, tmp_path):
        assert "no such folder" in str(
            self.run("--truth", tmp_path / "x", "--pred", tmp_path, "--out", tmp_path).exception
        )
        (tmp_path / "empty").mkdir()
        options = ("--truth", tmp_path / "empty", "--pred", tmp_path, "--out", tmp_path)
        assert "no images in this folder" in str(self.run(*options).exception)


def test_radiographs_have_no_volumes(tmp_path: Path) -> None:
    labels = np.zeros((40, 30, 1), np.uint8)
    labels[5:15, 5:25], labels[25:35, 5:25] = 1, 2
    for folder, shift in (("truth", 0), ("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        for scan in ("s1", "s2", "s3"):
            moved = LabelMap(np.roll(labels, shift, 1), np.diag([0.2, 0.2, 1, 1]))
            write_labels(tmp_path / folder / f"{scan}.nii.gz", moved)
    given = [
        "evaluate",
        "--truth",
        tmp_path / "truth",
        "--pred",
        f"A={tmp_path / 'a'}",
        "--pred",
        f"B={tmp_path / 'b'}",
    ]
    given += ["--system", "hip_radiograph", "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, list(map(str, given)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    cases = pd.read_csv(tmp_path / "out" / "cases.csv")
    assert cases[["truth_cm3", "predicted_cm3"]].isna().all(axis=None) and cases["dice"].notna().any()
    assert not {"volumes.csv", "icc.csv"} & {file.name for file in (tmp_path / "out").iterdir()}
    assert "cm³" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("moved_mm", [0, 5])
def test_an_image_that_does_not_fit_is_not_drawn_and_that_is_said(tmp_path: Path, moved_mm: float) -> None:
    labels = np.zeros((20, 16, 4), np.uint8)
    labels[4:10, 4:12], labels[12:18, 4:12] = 1, 1
    affine = np.diag([2.0, 2, 3, 1])
    moved = affine + np.array([[0, 0, 0, moved_mm], [0] * 4, [0] * 4, [0] * 4])
    for folder, where in (("truth", affine), ("pred", affine), ("images", moved)):
        (tmp_path / folder).mkdir()
        write_labels(tmp_path / folder / "a.nii.gz", LabelMap(labels, where))
    given = [f"--{name}={tmp_path / name}" for name in ("truth", "pred", "images")]
    result = CliRunner().invoke(app, ["evaluate", *given, "--system=hip_abductor_mr", f"--out={tmp_path / 'out'}"])
    assert result.exit_code == 0, result.output
    assert ("no image of its name and grid" in (tmp_path / "out" / "report.html").read_text()) == bool(moved_mm)
