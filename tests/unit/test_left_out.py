"""A labelled scan that cannot be used is left out of a training and named; the others are learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_learn import RECIPE
from test_pause import labelled
from test_preprocess import make_system

from msklabel.errors import Conflict, Unreachable, UserError
from msklabel.learn.cases import Unusable, blamed_on
from msklabel.learn.split import RolesInFile, fold_of
from msklabel.learn.task import SystemTrainTask, _case
from msklabel.learn.update import Plan
from msklabel.learn.versions import Versions
from msklabel_phantoms.write import save_nifti

SYSTEM = make_system(train={**RECIPE, "epochs": 1})
CUT_OFF = "cannot be read as an image"


def task_of(pairs: list[Any], folder: Path, **more: Any) -> SystemTrainTask:
    return SystemTrainTask(
        SYSTEM, Versions(folder / "models"), lambda _: pairs, RolesInFile(folder / "models"), "cpu", **more
    )


def spoil(pairs: list[Any]) -> dict[str, str]:
    """What is wrong with each of three scans: cut off, of another size, of two channels."""
    pairs[0].image.write_bytes(pairs[0].image.read_bytes()[:500])
    save_nifti(np.zeros((9, 9, 9), np.int16), np.eye(4), pairs[1].image)
    save_nifti(np.zeros((20, 20, 20, 2), np.int16), np.eye(4), pairs[2].image)
    return {"scan0": CUT_OFF, "scan1": "the scan has 9 x 9 x 9 voxels now, its label", "scan2": "needs 1 channel"}


def test_the_others_are_learned_from_and_each_is_named_with_its_reason(tmp_path: Path) -> None:
    pairs = [labelled(tmp_path, number) for number in range(7)]
    wrong, told = spoil(pairs), {}
    stats = task_of(pairs, tmp_path, hold=told.update)({})
    assert stats["version"] == "0001" and stats["left_out"].keys() == wrong.keys()
    assert all(says in stats["left_out"][name] for name, says in wrong.items())
    metrics = Versions(tmp_path / "models").get("toy", "0001").metrics
    assert metrics["left_out"] == stats["left_out"]
    assert set(metrics["training"]) | set(metrics["validation"]) == {f"sha{number}" for number in range(3, 7)}
    assert set(metrics["considered"]) == {pair.sha256 for pair in pairs}, "or it would be trained again and again"
    written = list((tmp_path / "models" / "toy" / "runs").rglob("events.*"))
    assert len(written) == 1, "it began anew three times, and only the last time is a run"
    for number, says in enumerate(wrong.values()):
        assert told[number].startswith("left out, as it cannot be used: ") and says in told[number]


def test_where_nothing_is_left_the_reason_is_told(tmp_path: Path) -> None:
    pairs = [labelled(tmp_path, 0)]
    pairs[0].image.write_bytes(pairs[0].image.read_bytes()[:500])
    with pytest.raises(UserError, match=f"no labelled scans to train on yet; scan0 cannot be used: .*{CUT_OFF}"):
        task_of(pairs, tmp_path)({})


def test_a_training_that_goes_on_knows_them_and_one_that_was_mended_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [labelled(tmp_path, number) for number in range(4)]
    whole = pairs[0].image.read_bytes()
    pairs[0].image.write_bytes(whole[:500])
    told: dict[int, str] = {}
    pairs[0].state = "accepted"
    task, plans = task_of(pairs, tmp_path, hold=told.update), []

    def stop(plan: Plan, *_: Any) -> None:
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(task.update, "store", stop)
    with pytest.raises(KeyboardInterrupt):
        task({})
    assert set(task._left_out([_case(SYSTEM, pair) for pair in pairs])) == {"scan0"}
    planned: list[list[str]] = []
    plan = task.update.plan
    monkeypatch.setattr(
        task.update, "plan", lambda cases, *more: planned.append([c.id for c in cases]) or plan(cases, *more)
    )
    with pytest.raises(KeyboardInterrupt):
        task({"resume": True})
    assert planned == [["scan1", "scan2", "scan3"]], "it is not tried again"
    assert set(plans[1].left_out) == {"scan0"} and told[0].startswith("left out")
    pairs[0].image.write_bytes(whole)
    with pytest.raises(KeyboardInterrupt):
        task({})
    assert not plans[2].left_out and told[0] == "", "it stands no more in the reviewers' list"


def test_a_scan_that_goes_before_it_can_judge_does_not_have_all_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, told = [labelled(tmp_path, number) for number in range(6)], {}
    task = task_of(pairs, tmp_path, hold=told.update)
    trained, fit = [], task.update.fit

    def fit_and_spoil(plan: Plan, *rest: Any) -> Any:
        fitted = fit(plan, *rest)
        trained.append([case.id for case in plan.selection.validation])
        pairs[int(trained[0][0][-1])].image.write_bytes(b"cut off")
        return fitted

    monkeypatch.setattr(task.update, "fit", fit_and_spoil)
    stats = task({})
    assert len(trained) == 1 and len(trained[0]) == 2
    gone, judge = trained[0]
    assert list(stats["left_out"]) == [gone] and CUT_OFF in stats["left_out"][gone]
    metrics = Versions(tmp_path / "models").get("toy", "0001").metrics
    assert list(metrics["case_dice"]) == [judge] and metrics["left_out"] == stats["left_out"]
    assert len(metrics["considered"]) == 6 and told[int(gone[-1])].startswith("left out")


def test_a_scan_that_goes_before_its_fold_is_measured_does_not_have_all_trained_again(tmp_path: Path) -> None:
    pairs, told, epochs = [labelled(tmp_path, number) for number in range(6)], {}, []
    task = task_of(pairs, tmp_path, hold=told.update, cache_bytes=2**30)  # of the scan as it was prepared
    order = task._order({"folds": 2})
    plan = task.update.plan([_case(SYSTEM, pair) for pair in pairs], order)
    gone = next(case for case in plan.selection.learned if fold_of(case.patient, 2) == 0)

    def spoil_one(fold: int, _: Any) -> None:
        epochs.append(fold)
        pairs[int(gone.id[-1])].image.write_bytes(b"cut off")

    fitted = task.update.fit(plan, order, tmp_path / "training", spoil_one)
    version, _ = task.update.store(plan, order, fitted)
    assert epochs == [0, 1] and len(fitted.members) == 2
    others = {case.id for case in plan.selection.learned} - {gone.id}
    assert fitted.fold_dice.keys() == others
    assert list(version.metrics["left_out"]) == [gone.id] and CUT_OFF in version.metrics["left_out"][gone.id]
    assert gone.label in version.metrics["training"], "the other fold has learned from it"
    assert told[int(gone.id[-1])].startswith("left out")


def test_versions_are_compared_on_the_scans_that_can_still_be_read(tmp_path: Path) -> None:
    pairs = [labelled(tmp_path, number) for number in range(6)]
    task = task_of(pairs, tmp_path)
    task({})
    task({"from_scratch": True, "seed": 1})
    gone, judge = sorted(Versions(tmp_path / "models").get("toy", "0001").metrics["case_dice"])
    pairs[int(gone[-1])].image.write_bytes(b"cut off")
    compared = task.compare("0001", "0002", measure=True)
    assert list(compared["cases"]) == [judge] and compared["missing"] == []
    assert list(compared["left_out"]) == [gone] and CUT_OFF in compared["left_out"][gone]
    assert all(row["cases"] == 1 for row in compared["labels"].values())
    pairs[int(judge[-1])].image.write_bytes(b"cut off")
    with pytest.raises(Conflict, match=f"no validation case .*; {gone} cannot be used: .*; {judge} cannot be used: "):
        task.compare("0001", "0002", measure=True)


def test_what_is_wrong_elsewhere_is_not_blamed_on_a_scan(tmp_path: Path) -> None:
    case = _case(SYSTEM, labelled(tmp_path, 0))
    with pytest.raises(Unreachable), blamed_on(case):
        raise Unreachable("the PACS does not answer")
    with pytest.raises(Unusable, match="scan0: too thin"), blamed_on(case):
        raise UserError("too thin")
