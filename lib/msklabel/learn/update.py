"""From labels to a version: who validates, what is doubted, train, compare, store, publish or keep."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from msklabel.errors import UserError
from msklabel.learn.average import between
from msklabel.learn.cases import Case, LeftOut, PreparedCase, Unusable, prepare_case
from msklabel.learn.comparison import side_by_side
from msklabel.learn.doubts import Doubts, best_reference
from msklabel.learn.evaluate import CaseDice, Segmenter, case_dice, label_means, mean_dice
from msklabel.learn.fit import Fitted, Recipe, fit
from msklabel.learn.gate import Verdict, judge
from msklabel.learn.record import rounded
from msklabel.learn.scores import KeptScores
from msklabel.learn.selection import Selection, select
from msklabel.learn.split import TRAIN, VALIDATION, Roles, decide_roles
from msklabel.learn.trainer import Report
from msklabel.learn.versions import TIME_FORMAT, Version, Versions
from msklabel.networks import Weights, loaded_network
from msklabel.predict.classical import ClassicalSegmenter
from msklabel.predict.engine import Engine
from msklabel.system import System

logger = logging.getLogger(__name__)
_SHARES = (1.0, 0.5, 0.25, 0.125)  # of the way from the version in service to the candidate, as long as none passes


@dataclass(frozen=True)
class Order:
    """What a training is asked for.

    Attributes:
        recipe: Epochs, folds, seed, device.
        on_all: Keep no scan for validation; nothing can be said about such a version.
        from_version: Version to start from; empty for the one in service.
        from_scratch: Start from fresh weights.
        variant: Of the system.
    """

    recipe: Recipe
    on_all: bool = False
    from_version: str = ""
    from_scratch: bool = False
    variant: str = ""


@dataclass(frozen=True)
class Plan:
    """What a training does, decided before it starts.

    Attributes:
        selection: The labels.
        base: Version that it starts from.
        held: Keys of labels that are held back, with the reason.
        serving: Version that the result is compared with.
        left_out: Scans that cannot be used, by identifier.
    """

    selection: Selection
    base: str | None
    held: dict[str, str]
    serving: str | None
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)


@dataclass(frozen=True)
class _Tried:
    """A candidate, or what lies between the version in service and it, and what the gate says."""

    share: float
    members: list[Weights]
    dices: CaseDice
    verdict: Verdict


class Update:
    """Makes versions of one system.

    Args:
        system: The system.
        versions: Where its versions are kept.
        roles: Who trains and who validates.
        device: Where everything is measured, in single precision, so that like is compared with like; a GPU where
            there is one by default.
        prepare: Brings cases to the working grid.
        tell: Told of every label that was looked at, by checksum, why it is held back; empty where it is not.
    """

    def __init__(
        self,
        system: System,
        versions: Versions,
        roles: Roles,
        device: str | None = None,
        prepare: Callable[[System, Case], PreparedCase] = prepare_case,
        tell: Callable[[dict[str, str]], None] = lambda _: None,
    ) -> None:
        self.system = system
        self.versions = versions
        self.roles = roles
        self.prepare = prepare
        self.tell = tell
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        folder = versions.root / system.name
        self.scores = KeptScores(folder / "scores", system)
        self.doubts = Doubts(folder / "screening.json")

    def plan(self, cases: Sequence[Case], order: Order, left_out: Mapping[str, LeftOut] | None = None) -> Plan:
        """Decide on the labels and the starting point of a training.

        Args:
            cases: All labelled scans that can be used, in the order in which they were labelled.
            order: What is asked for.
            left_out: The others.

        Raises:
            Unusable: If a scan turns out to be one of the others.
            UserError: If there is nothing to train on, or options exclude each other.
        """
        left_out = left_out or {}
        if left_out:
            self.tell(_noted(left_out))
        roles = self._decided(cases)
        serving = self.serving(order.variant)
        base = self._base(order)
        held = self._held(cases, roles, serving)
        self.tell({case.label: held.get(case.label, "") for case in cases})
        usable = [case for case in cases if case.label not in held]
        if order.on_all:
            roles = dict.fromkeys(roles, TRAIN)
        seen = self.versions.get(self.system.name, base).metrics.get("labels", []) if base else []
        finetune = base is not None and order.recipe.folds == 1
        selection = select(self.system, usable, roles, set(seen), finetune)
        if not selection.learned:
            waiting = f"; {len(selection.validation)} labelled scan(s) are kept for validation" if cases else ""
            doubted = f"; {len(held)} label(s) wait for a reviewer" if held else ""
            unusable = "".join(f"; {name} cannot be used: {one.reason}" for name, one in left_out.items())
            raise UserError(f"{self.system.name}: no labelled scans to train on yet{waiting}{doubted}{unusable}")
        return Plan(selection, base, held, serving, left_out)

    def fit(
        self,
        plan: Plan,
        order: Order,
        folder: Path,
        report: Callable[[int, Report], None] = lambda _fold, _report: None,
        should_stop: Callable[[], bool] = lambda: False,
        pause: Callable[[], None] = lambda: None,
    ) -> Fitted:
        """Train; see :func:`msklabel.learn.fit.fit`."""
        system = self.system.with_variant(order.variant) if order.variant else self.system
        initial = self._initial(plan.base) if plan.base else None
        return fit(system, plan.selection, folder, order.recipe, initial, report, should_stop, self.prepare, pause)

    def _initial(self, base: str) -> Weights:
        """Weights of a version; of an ensemble those of the member with the best Dice on the fold it did not see."""
        members = self.versions.weights(self.system, base)
        dices = self.versions.get(self.system.name, base).metrics.get("member_dice", [])
        known = [dice for dice in dices if dice is not None] if len(dices) == len(members) else []
        return members[dices.index(max(known))] if known else members[0]

    def store(self, plan: Plan, order: Order, fitted: Fitted) -> tuple[Version, Verdict]:
        """Compare a trained candidate with the version in service, store it, and publish it if it passes.

        What somebody put in service while it was trained or compared is what it is compared with. A validation scan
        that cannot be used any more is left out, and one that a fold could not be measured on is named.

        One that began with the weights in service and does not pass is tried again with averages of both, nearer and
        nearer to what is served; the first that passes is published. If none does, the candidate is kept as it was
        trained. The level holds all the same as far as harm grows along the way: where an average is worse by the
        margin, what lies behind it is worse by more, and hardly ever passes before.
        """
        if fitted.left_out:
            plan = replace(plan, left_out={**plan.left_out, **fitted.left_out})
            self.tell(_noted(plan.left_out))
        while True:
            in_service = self.versions.serving(self.system.name, order.variant)
            plan = replace(plan, serving=self.serving(order.variant))
            frozen = self._frozen(plan)
            try:
                tried = self._tried(plan, fitted, frozen)
            except Unusable as error:
                plan = self._without(plan, error)
                continue
            if self.versions.serving(self.system.name, order.variant) == in_service:
                break
        chosen = tried[-1] if tried[-1].verdict.publish else tried[0]
        record = {**self._record(plan, order, fitted, chosen, tried), "replaces": in_service}
        version = self.versions.add(self.system, chosen.members, record)
        self.scores.keep(version.name, frozen, chosen.dices)
        reasons, verdict = record["reasons"], chosen.verdict
        if verdict.publish and not self.versions.replace(
            self.system.name, in_service, version.name, order.variant, reasons[0]
        ):
            reasons, verdict = ["another version was put in service just now"], replace(verdict, publish=False)
        logger.info("%s: version %s %s", self.system.name, version.name, "; ".join(reasons))
        return version, verdict

    def _without(self, plan: Plan, error: Unusable) -> Plan:
        """What was trained does not depend on a scan that was to judge it."""
        logger.warning("%s: left out of the comparison: %s", self.system.name, error)
        case = error.case
        left_out = {**plan.left_out, case.id: LeftOut(case.label, case.image, error.reason)}
        self.tell(_noted(left_out))
        validation = [one for one in plan.selection.validation if one.id != case.id]
        return replace(plan, selection=replace(plan.selection, validation=validation), left_out=left_out)

    def _tried(self, plan: Plan, fitted: Fitted, frozen: Sequence[Case]) -> list[_Tried]:
        """What was trained and, as long as none passes, what lies nearer to the version in service."""
        before = self._measured(plan.serving, frozen) if plan.serving else None
        draft = self._draft_dice(frozen) if plan.serving is None else None
        shares = _SHARES if plan.serving and plan.base == plan.serving and len(fitted.members) == 1 else _SHARES[:1]
        tried: list[_Tried] = []
        for share in shares:
            members = fitted.members if share == 1 else [self._on_the_way(str(plan.serving), fitted.members[0], share)]
            dices = case_dice(self._engine(members), frozen)
            tried.append(_Tried(share, members, dices, judge(dices, before, draft)))
            if tried[-1].verdict.publish or not frozen:
                break
        return tried

    def _on_the_way(self, serving: str, tuned: Weights, share: float) -> Weights:
        return between(self._initial(serving), tuned, share)

    def compare(self, cases: Sequence[Case], a: str, b: str, measure: bool) -> dict[str, Any]:
        """Two versions on the frozen cases; see :func:`msklabel.learn.comparison.side_by_side`.

        A case that cannot be used any more is left out and named.

        Args:
            cases: All labelled scans.
            a: Version.
            b: Version.
            measure: Whether to predict where a version was not measured yet, which takes a while.

        Raises:
            NotFound: If there is no such version.
            Conflict: If both were measured on no common case.
        """
        roles = self.roles.roles(self.system.name)
        held = self.doubts.held(cases)
        frozen = [c for c in cases if roles.get(c.patient) == VALIDATION and c.label not in held]
        for name in (a, b):
            self.versions.get(self.system.name, name)
        left_out: dict[str, str] = {}
        while True:
            usable = [case for case in frozen if case.id not in left_out]
            try:
                rows = [self._measured(n, usable) if measure else self.scores.known(n, usable) for n in (a, b)]
                return side_by_side(rows[0], rows[1], (a, b), usable, left_out)
            except Unusable as error:
                left_out[error.case.id] = error.reason

    def serving(self, variant: str = "") -> str | None:
        """The version in service, if it is of this very configuration; for a variant without one that of the system."""
        name = self.versions.serving(self.system.name, variant)
        if name and self._is_ours(name):
            return name
        return self.serving() if variant else None

    def _is_ours(self, name: str) -> bool:
        fingerprint = self.versions.get(self.system.name, name).metrics.get("fingerprint")
        return bool(fingerprint == self.system.fingerprint)

    def _base(self, order: Order) -> str | None:
        """Version to start from."""
        if order.from_version and order.from_scratch:
            raise UserError("from_version and from_scratch exclude each other")
        if order.from_version or order.from_scratch:
            return order.from_version or None
        return self.serving(order.variant) or self._newest(order.variant) or self._newest("")

    def _newest(self, variant: str) -> str | None:
        """The last version, while none is good enough to be served: learning goes on from it."""
        version = self.versions.newest(self.system.name, variant, self.system.fingerprint)
        return version.name if version else None

    def _decided(self, cases: Sequence[Case]) -> dict[str, str]:
        """Role of each patient; those without one get theirs now, for good."""
        patients = [case.patient for case in cases]
        known = self.roles.roles(self.system.name)
        new = decide_roles(patients, known)
        return {**known, **(self.roles.assign_roles(self.system.name, new) if new else {})}

    def _held(self, cases: Sequence[Case], roles: dict[str, str], serving: str | None) -> dict[str, str]:
        """Labels that are held back for a reviewer."""
        validation = [case for case in cases if roles[case.patient] != TRAIN]
        candidates: list[tuple[str, Segmenter, CaseDice]] = []
        if serving:
            dices = self._measured(serving, validation)
            candidates.append((serving, self._engine(self.versions.weights(self.system, serving)), dices))
        if self.system.thresholds:
            segmenter = ClassicalSegmenter(self.system)
            candidates.append((self._draft_name(), segmenter, self._draft_dice(validation) or {}))
        return self.doubts.review(cases, best_reference(candidates))

    def _frozen(self, plan: Plan) -> list[Case]:
        """Validation cases of patients, and scans, that no ancestor of the two versions has learned from.

        Whose a scan is may be said after it was learned from; until then it is its own patient.
        """
        learned: set[str] = {name for case in plan.selection.learned for name in (case.patient, case.id)}
        for version in (plan.base, plan.serving):
            if version:
                metrics = self.versions.get(self.system.name, version).metrics
                learned |= {*metrics.get("patients", []), *metrics.get("images", [])}
        return [case for case in plan.selection.validation if not {case.patient, case.id} & learned]

    def _measured(self, version: str, cases: Sequence[Case]) -> CaseDice:
        return self.scores.measure(version, lambda: self._engine(self.versions.weights(self.system, version)), cases)

    def _draft_dice(self, cases: Sequence[Case]) -> CaseDice | None:
        """Dice of the draft without training; None where the system has none."""
        if self.system.thresholds is None:
            return None
        return self.scores.measure(self._draft_name(), lambda: ClassicalSegmenter(self.system), cases)

    def _draft_name(self) -> str:
        thresholds = self.system.thresholds
        text = thresholds.model_dump_json() if thresholds else ""
        return f"draft-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def _engine(self, members: Sequence[Weights]) -> Engine:
        networks = [loaded_network(self.system, weights) for weights in members]
        return Engine(self.system, networks, self.device)

    def _record(
        self, plan: Plan, order: Order, fitted: Fitted, chosen: _Tried, tried: Sequence[_Tried]
    ) -> dict[str, Any]:
        """What is written down about a version, for good."""
        dices, verdict, reasons = chosen.dices, chosen.verdict, list(chosen.verdict.reasons)
        if chosen.share < 1:
            reasons.append(f"{chosen.share:.3g} of the way from version {plan.serving} to what was trained")
        elif len(tried) > 1:
            shares = " or ".join(f"{one.share:.3g}" for one in tried[1:])
            reasons.append(f"nor does it pass at {shares} of the way from version {plan.serving}")
        selection = plan.selection
        parent = self.versions.get(self.system.name, plan.base).metrics if plan.base else {}
        learned = {case.label for case in selection.learned}
        left_out = {one.label for one in plan.left_out.values()}
        considered = learned | {case.label for case in selection.validation} | plan.held.keys() | left_out
        return {
            **asdict(order.recipe),
            "fingerprint": self.system.fingerprint,
            "profile": self.system.profile,
            "variant": order.variant,
            "parents": [plan.base] if plan.base else [],
            "fine_tuned": bool(selection.older),
            "training": sorted(learned),
            "validation": sorted(case.label for case in selection.validation),
            "held": dict(sorted(plan.held.items())),
            "left_out": {name: one.reason for name, one in sorted(plan.left_out.items())},
            "labels": sorted(learned | set(parent.get("labels", []))),
            "considered": sorted(considered),
            "patients": sorted({case.patient for case in selection.learned} | set(parent.get("patients", []))),
            "images": sorted({case.id for case in selection.learned} | set(parent.get("images", []))),
            "time": time.strftime(TIME_FORMAT),
            "seconds": round(fitted.seconds, 1),
            "crops": fitted.crops,
            "device": str(fitted.device),
            "members": len(fitted.members),
            "training_scans": len(selection.learned),
            "validation_scans": len(dices),
            "validated": verdict.validation == "validated",
            "validation_status": verdict.validation,
            "compared_with": plan.serving,
            "passed": verdict.publish,
            "share": chosen.share,
            "reasons": reasons,
            "mean_dice": rounded(mean_dice(dices)),
            "label_dice": {name: rounded(value) for name, value in label_means(dices).items()},
            "case_dice": {case: {k: rounded(v) for k, v in row.items()} for case, row in dices.items()},
            "cross_validated_dice": rounded(mean_dice(fitted.fold_dice)),
            "member_dice": [rounded(dice, 6) for dice in fitted.member_dice],
        }


def _noted(left_out: Mapping[str, LeftOut]) -> dict[str, str]:
    return {one.label: f"left out, as it cannot be used: {one.reason}" for one in left_out.values()}
