"""The whole way from labels to a version, on small scans: who validates, what is kept, what is published."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from test_learn import RECIPE, make_case
from test_preprocess import make_system

from msklabel.durable import replace_text
from msklabel.errors import Conflict, NotFound, UserError
from msklabel.learn.cases import Case
from msklabel.learn.evaluate import CaseDice, case_dice
from msklabel.learn.fit import Fitted, Recipe
from msklabel.learn.gate import NOT
from msklabel.learn.selection import Selection
from msklabel.learn.split import RolesInFile
from msklabel.learn.update import Order, Plan, Update
from msklabel.learn.versions import Version, Versions
from msklabel.networks import Weights
from msklabel.predict.engine import Engine
from msklabel.sections import Postprocess, Variant

SYSTEM = make_system(train={**RECIPE, "epochs": 8, "batch": 4})
ORDER = Order(Recipe(epochs=8))


def case_of(number: int, wrong: bool = False) -> Case:
    scan, labels = make_case(number).load()
    labels = np.where(labels > 0, 3 - labels, 0).astype(np.uint8) if wrong else labels
    return Case(f"scan{number}", f"patient{number}", lambda: (scan, labels), label=f"label{number}{wrong}")


def made(update: Update, cases: list[Case], folder: Path, order: Order = ORDER) -> Version:
    plan = update.plan(cases, order)
    return update.store(plan, order, update.fit(plan, order, folder))[0]


@pytest.fixture
def update(tmp_path: Path) -> Update:
    return Update(SYSTEM, Versions(tmp_path / "models"), RolesInFile(tmp_path / "models"))


def test_versions_know_their_labels_their_parents_and_their_judgement(update: Update, tmp_path: Path) -> None:
    cases = [case_of(number) for number in range(3)]
    first = made(update, cases, tmp_path / "one").metrics
    assert update.versions.serving("toy") == "0001"
    assert (first["training"], first["validation"]) == (["label0False", "label2False"], ["label1False"])
    assert first["parents"] == [] and first["validation_status"] == "weakly validated"
    assert set(first["case_dice"]) == {"scan1"} and set(first["case_dice"]["scan1"]) == {"dense", "soft"}

    second = made(update, [*cases, case_of(3)], tmp_path / "two").metrics
    assert second["parents"] == ["0001"] and second["compared_with"] == "0001"
    assert second["validation"] == first["validation"]  # frozen
    assert second["considered"] == [f"label{number}False" for number in range(4)]
    assert second["passed"] == (update.versions.serving("toy") == "0002")

    compared = update.compare(cases, "0001", "0002", measure=False)
    assert list(compared["cases"]) == ["scan1"] and compared["missing"] == []
    assert compared["labels"]["dense"]["before"] == first["case_dice"]["scan1"]["dense"]
    with pytest.raises(NotFound):
        update.compare(cases, "0001", "0009", measure=False)
    with pytest.raises(Conflict, match="no validation case"):
        update.compare(cases[:1], "0001", "0002", measure=False)


def test_what_was_trained_on_never_judges(update: Update, tmp_path: Path) -> None:
    cases = [case_of(number) for number in range(3)]
    everything = made(update, cases, tmp_path / "all", Order(Recipe(epochs=2), on_all=True))
    assert everything.metrics["validation_status"] == NOT and update.versions.serving("toy") == "0001"
    assert everything.metrics["patients"] == ["patient0", "patient1", "patient2"]
    later = made(update, [*cases, case_of(3)], tmp_path / "later", Order(Recipe(epochs=2)))
    assert later.metrics["case_dice"] == {}  # its ancestor has seen the only validation patient
    assert not later.metrics["passed"] and "by hand" in later.metrics["reasons"][0]


def test_a_label_with_classes_exchanged_is_held_back_until_a_reviewer_accepts_it(
    update: Update, tmp_path: Path
) -> None:
    cases = [case_of(number) for number in range(3)]
    order = Order(Recipe(epochs=40))
    assert (made(update, cases, tmp_path / "good", order).metrics["mean_dice"] or 0) > 0.8
    wrong = case_of(3, wrong=True)
    told: list[dict[str, str]] = []
    update.tell = told.append
    plan = update.plan([*cases, wrong], order)
    assert told == [{**dict.fromkeys([case.label for case in cases], ""), "label3True": plan.held["label3True"]}]
    assert "with labels exchanged" in plan.held["label3True"]
    assert "scan3" not in [case.id for case in plan.selection.learned]
    accepted = Case(wrong.id, wrong.patient, wrong.load, label=wrong.label, accepted=True)
    assert "scan3" in [case.id for case in update.plan([*cases, accepted], order).selection.learned]


def test_one_patient_alone_trains_and_nothing_is_pretended(update: Update, tmp_path: Path) -> None:
    version = made(update, [case_of(0)], tmp_path / "one")
    assert update.versions.serving("toy") == "0001"
    assert version.metrics["reasons"] == ["published: the first version; no case is there to validate it on"]
    with pytest.raises(UserError, match="no labelled scans to train on yet"):
        update.plan([], ORDER)


class Judged(Update):
    """Measures a version by one of its weights instead of by predicting: what it gains and what it loses."""

    def _measured(self, version: str, cases: Sequence[Case]) -> CaseDice:
        return self._dices(self.versions.weights(SYSTEM, version)[0], cases)

    def _held(self, cases: Sequence[Case], roles: dict[str, str], serving: str | None) -> dict[str, str]:
        return {}

    def _dices(self, weights: Weights, cases: Sequence[Case]) -> CaseDice:
        """Half of the way gains in both labels; the whole of it costs one of them dear."""
        way = float(weights["way"])
        gain = {"dense": 0.02 * way, "soft": 0.02 * way - 0.09 * max(0.0, way - 0.6)}
        return {case.id: {name: 0.8 + value for name, value in gain.items()} for case in cases}


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    """One of whose versions the first is in service."""
    update = Judged(SYSTEM, Versions(tmp_path / "models"), RolesInFile(tmp_path / "models"))
    monkeypatch.setattr(Judged, "_engine", lambda _, members: members[0])
    monkeypatch.setattr("msklabel.learn.update.case_dice", update._dices)
    put_in_service(update, 0.0)
    return update


def put_in_service(update: Judged, way: float) -> None:
    version = update.versions.add(SYSTEM, [{"way": torch.tensor([way])}], {"fingerprint": SYSTEM.fingerprint})
    update.versions.publish("toy", version.name)


def trained(way: float) -> Fitted:
    return Fitted([{"way": torch.tensor([way])}], {}, 1.0, torch.device("cpu"))


@pytest.mark.parametrize(("way", "share", "passed"), [(0.5, 1.0, True), (1.2, 0.5, True), (8.0, 1.0, False)])
def test_what_loses_too_much_is_tried_again_nearer_to_what_is_served(
    way: float, share: float, passed: bool, judged: Judged
) -> None:
    update = judged
    plan = update.plan([case_of(number) for number in range(30)], ORDER)
    assert (plan.base, plan.serving) == ("0001", "0001")
    version, verdict = update.store(plan, ORDER, trained(way))
    assert (verdict.publish, version.metrics["passed"], version.metrics["share"]) == (passed, passed, share)
    assert float(update.versions.weights(SYSTEM, version.name)[0]["way"]) == pytest.approx(share * way)
    assert update.versions.serving("toy") == (version.name if passed else "0001")
    said = "; ".join(version.metrics["reasons"])
    assert ("0.5 of the way from version 0001 to what was trained" in said) == (share == 0.5)
    assert ("nor does it pass at 0.5 or 0.25 or 0.125 of the way" in said) == (not passed)


def test_what_goes_on_from_the_best_member_of_an_ensemble_is_averaged_with_it(judged: Judged) -> None:
    """Not with the first member, from which no way leads to it."""
    ways = [torch.tensor([way]) for way in (0.0, 0.2)]
    facts = {"fingerprint": SYSTEM.fingerprint, "member_dice": [0.1, 0.9]}
    judged.versions.publish("toy", judged.versions.add(SYSTEM, [{"way": way} for way in ways], facts).name)
    plan = judged.plan([case_of(number) for number in range(30)], ORDER)
    version, verdict = judged.store(plan, ORDER, trained(1.0))
    assert verdict.publish and version.metrics["share"] == 0.5
    assert float(judged.versions.weights(SYSTEM, version.name)[0]["way"]) == pytest.approx(0.6)


@pytest.mark.parametrize(("way", "passed"), [(0.5, True), (-0.5, False)])
def test_the_first_version_of_a_variant_is_compared_with_what_its_scans_got_before(
    way: float, passed: bool, judged: Judged
) -> None:
    judged.system = SYSTEM.model_copy(update={"variants": {"fatty": Variant(title="F", fat_fraction_from_percent=20)}})
    order = replace(ORDER, variant="fatty")
    plan = judged.plan([case_of(number) for number in range(30)], order)
    version, verdict = judged.store(plan, order, trained(way))
    assert (verdict.publish, version.metrics["compared_with"]) == (passed, "0001")
    assert judged.versions.serving("toy", "fatty") == (version.name if passed else None)


def test_what_a_reviewer_put_in_service_meanwhile_is_not_overruled_unseen(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = judged
    for way in (0.5, 0.1):
        put_in_service(update, way)
    plan = update.plan([case_of(number) for number in range(30)], ORDER)

    def rolled_back(weights: Weights, cases: Sequence[Case]) -> CaseDice:
        if update.versions.serving("toy") == "0003":
            update.versions.roll_back("toy")
        return update._dices(weights, cases)

    monkeypatch.setattr("msklabel.learn.update.case_dice", rolled_back)
    version, verdict = update.store(plan, ORDER, trained(0.3))  # better than 0003, which is gone, worse than 0002
    assert version.metrics["compared_with"] == "0002" and not verdict.publish
    assert update.versions.serving("toy") == "0002"
    assert not update.versions.replace("toy", "0003", version.name) and update.versions.serving("toy") == "0002"
    assert update.versions.replace("toy", "0002", version.name) and update.versions.serving("toy") == version.name


@pytest.mark.parametrize("since", [False, True])
def test_a_version_that_passed_gets_into_service_after_a_crash_unless_somebody_chose_another(
    since: bool, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = judged
    plan = update.plan([case_of(number) for number in range(30)], ORDER)
    assert update.versions.finish("toy") is None  # nothing was cut off
    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(update.versions, "replace", Mock(side_effect=KeyboardInterrupt))
        update.store(plan, ORDER, trained(0.3))
    assert update.versions.names("toy") == ["0001", "0002"] and update.versions.serving("toy") == "0001"
    if since:
        monkeypatch.setattr("msklabel.learn.versions.time.strftime", lambda _: "2999-01-01T00:00:00+0000")
        update.versions.publish("toy", "0001", reason="by hand")
    assert update.versions.finish("toy") == (None if since else "0002")
    assert update.versions.serving("toy") == ("0001" if since else "0002")
    assert update.versions.finish("toy") is None
    if not since:
        assert "cut off" in update.versions.history("toy")[-1]["reason"]
        update.versions.roll_back("toy")
        assert update.versions.finish("toy") is None and update.versions.serving("toy") == "0001"


@pytest.mark.parametrize("written", [0, 1])
def test_a_version_that_passed_is_in_service_wherever_its_publication_was_cut_off(
    written: int, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = judged
    plan = update.plan([case_of(number) for number in range(30)], ORDER)
    left = iter([replace_text] * written)

    def cut_off(file: Path, text: str) -> None:
        if (write := next(left, None)) is None:
            raise KeyboardInterrupt
        write(file, text)

    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr("msklabel.learn.versions.replace_text", cut_off)
        update.store(plan, ORDER, trained(0.3))
    assert update.versions.finish("toy") == "0002"
    assert update.versions.serving("toy") == update.versions.history("toy")[-1]["version"] == "0002"
    assert update.versions.finish("toy") is None


def test_a_scan_that_was_learned_from_never_judges_whosever_it_turns_out_to_be(update: Update, tmp_path: Path) -> None:
    cases = [case_of(number) for number in range(3)]
    first = made(update, cases, tmp_path / "one")
    assert first.metrics["validation"] == ["label1False"] and first.metrics["images"] == ["scan0", "scan2"]
    moved = replace(cases[0], patient="patient1")  # whose scans validate
    plan = update.plan([moved, *cases[1:], case_of(3)], ORDER)
    assert "scan0" in [case.id for case in plan.selection.validation]
    assert [case.id for case in update._frozen(plan)] == ["scan1"]


def test_a_variants_version_says_nothing_of_what_the_system_has_considered(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    facts = {"fingerprint": SYSTEM.fingerprint}
    versions.add(SYSTEM, [{"way": torch.zeros(1)}], {**facts, "considered": ["a", "b"], "held": {"b": "why"}})
    versions.add(SYSTEM, [{"way": torch.zeros(1)}], {**facts, "considered": ["c"], "held": {}, "variant": "fatty"})
    assert versions.considered("toy") == {"a", "b"} and versions.held("toy") == {"b"}
    assert versions.considered("toy", "0002") == {"c"}
    newest = versions.newest("toy"), versions.newest("toy", "fatty"), versions.newest("toy", "lean")
    assert [version and version.name for version in newest] == ["0001", "0002", None]
    versions.add(SYSTEM, [{"way": torch.zeros(1)}], {"fingerprint": "of other labels"})
    assert versions.considered("toy") == {"a", "b"} and versions.held("toy") == {"b"}, "as it is imported"
    found = versions.newest("toy"), versions.newest("toy", fingerprint=SYSTEM.fingerprint)
    assert [version and version.name for version in found] == ["0003", "0001"]


def test_all_that_the_gate_compares_runs_on_one_device_in_single_precision(
    update: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was trained."""
    engines: list[Engine] = []
    built = Update._engine
    monkeypatch.setattr(Update, "_engine", lambda *given: engines.append(built(*given)) or engines[-1])
    cases = [case_of(number) for number in range(4)]
    made(update, cases[:3], tmp_path / "one")
    plan = update.plan(cases, ORDER)
    fitted = replace(update.fit(plan, ORDER, tmp_path / "two"), device=torch.device("cuda:7"))
    update.store(plan, ORDER, fitted)
    assert len(engines) >= 3 and {engine.device for engine in engines} == {torch.device("cpu")}
    window = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        assert {engine.forwards[0](window).dtype for engine in engines} == {torch.float32}


def test_what_was_measured_counts_as_long_as_prediction_and_scan_are_the_same(update: Update, tmp_path: Path) -> None:
    """Else the gate would compare a candidate of today with what was served before a change of the system or a file."""
    cases = [replace(case_of(number), image="before") for number in range(3)]
    made(update, cases, tmp_path / "one", Order(Recipe(epochs=2)))
    frozen, weights = cases[1:2], update.versions.weights(SYSTEM, "0001")

    def measured(by: Update, cases: Sequence[Case]) -> CaseDice:
        found = by._measured("0001", cases)
        assert case_dice(by._engine(weights), cases) == {
            case: pytest.approx(row, abs=1e-6, nan_ok=True) for case, row in found.items()
        }
        return found

    before = measured(update, frozen)
    changed = SYSTEM.model_copy(update={"postprocess": Postprocess(largest_component=("soft",))})
    assert measured(Update(changed, update.versions, update.roles), frozen) != before
    assert measured(update, [replace(frozen[0], load=case_of(7).load, image="after")]) != before


def test_measures_are_taken_on_a_gpu_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (SYSTEM, Versions(tmp_path / "models"), RolesInFile(tmp_path / "models"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [Update(*given, device).device for device in (None, "cpu", "cuda:1")] == ["cuda", "cpu", "cuda:1"]


@pytest.mark.parametrize(
    ("dices", "best"), [([0.5, 0.9, 0.7], 1), ([None, 0.1, None], 1), ([None] * 3, 0), (None, 0), ([0.5, 0.9], 0)]
)
def test_a_training_goes_on_from_the_best_member(
    dices: list[float | None] | None, best: int, update: Update, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own fold; versions from before that was written down, and imported ones, have no such number."""
    members = [{"number": torch.tensor([float(number)])} for number in range(3)]
    record = {"fingerprint": SYSTEM.fingerprint, **({} if dices is None else {"member_dice": dices})}
    base = update.versions.add(SYSTEM, members, record).name
    started: list[float] = []
    monkeypatch.setattr("msklabel.learn.update.fit", lambda *given: started.append(float(given[4]["number"])))
    update.fit(Plan(Selection([], [], []), base, {}, None), ORDER, tmp_path)
    assert started == [best]


def test_folds_are_written_down_with_their_dice(update: Update, tmp_path: Path) -> None:
    order = Order(Recipe(epochs=1, folds=2), on_all=True)
    record = made(update, [case_of(number) for number in range(4)], tmp_path / "folds", order).metrics
    assert len(record["member_dice"]) == record["members"] == 2
