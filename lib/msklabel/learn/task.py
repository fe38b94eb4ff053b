"""MONAI Label's TrainTask: train on the submitted labels, store a version, publish it if it is not worse."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from filelock import Timeout
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from numpy.typing import NDArray

from msklabel.durable import replace_text
from msklabel.errors import Conflict, UserError
from msklabel.imaging import Scan
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.files import stamp_of
from msklabel.imaging.read import read_labels
from msklabel.learn.asked import switch, whole
from msklabel.learn.cases import Case, LeftOut, Unusable, blamed_on, prepare_case
from msklabel.learn.fit import Recipe
from msklabel.learn.prepared_cache import PreparedCache
from msklabel.learn.progress import Progress
from msklabel.learn.record import read_json, to_json
from msklabel.learn.split import Roles
from msklabel.learn.stop import StopOnSignal
from msklabel.learn.tracking import trackers
from msklabel.learn.trainer import Report, Stopped
from msklabel.learn.update import Order, Plan, Update
from msklabel.learn.versions import Versions
from msklabel.predict.infiltration import fitting_variant, muscle_fat_fraction_percent
from msklabel.predict.progress import reported
from msklabel.predict.source import read_for
from msklabel.system import System

logger = logging.getLogger(__name__)
_PLAN = "plan.json"


class Pair(Protocol):
    """A labelled scan in the datastore; see ``msklabel.store.core.TrainingPair``."""

    @property
    def image_id(self) -> str: ...
    @property
    def patient(self) -> str: ...
    @property
    def image(self) -> Path: ...
    @property
    def label(self) -> Path: ...
    @property
    def sha256(self) -> str: ...
    @property
    def site(self) -> str | None: ...
    @property
    def version_id(self) -> int: ...
    @property
    def annotated(self) -> Annotated: ...
    @property
    def state(self) -> str: ...


class SystemTrainTask(TrainTask):
    """Train one system on the newest label of each scan.

    Args:
        system: The system.
        versions: Where versions are kept; a running training keeps its checkpoint there too.
        pairs: Lists what is labelled for the system now.
        roles: Who trains and who validates.
        device: Where to train; a GPU where there is one by default.
        cache_bytes: Most disk for prepared scans, which lie beside the versions' folder; 0 keeps none.
        mlflow: URI of an MLflow store that records trainings, beside TensorBoard's files.
        hold: Notes for reviewers which label versions are held back, and why; empty where one is not.
        pause: Called between steps and between windows of predictions, to let others go first; returns at the latest
            when what it is given says so.
    """

    def __init__(
        self,
        system: System,
        versions: Versions,
        pairs: Callable[[str], Sequence[Pair]],
        roles: Roles,
        device: str | None = None,
        cache_bytes: int = 0,
        mlflow: str | None = None,
        hold: Callable[[dict[int, str]], None] = lambda _: None,
        pause: Callable[[Callable[[], bool]], None] = lambda _: None,
    ) -> None:
        super().__init__(f"Train {system.title} ({system.network.name}, {system.profile} profile) on submitted labels")
        self.system = system
        self.pairs = pairs
        self.device = device
        self.mlflow = mlflow
        prepare = PreparedCache(versions.root.parent / "cache", cache_bytes) if cache_bytes else prepare_case
        self.hold = hold
        self.pause = pause
        self.update = Update(system, versions, roles, device, prepare, self._tell)
        self.home = versions.root / system.name
        self.folder = self.home / "training"
        self.progress = Progress(self.home / "training.json", system.name)

    def config(self) -> dict[str, Any]:
        """Options that a client may set, with their defaults.

        ``max_epochs``; ``folds`` for an ensemble by cross-validation; ``on_all`` to keep no scan for validation;
        ``from_version`` to start from another version than the one in service; ``from_scratch``; ``seed``; ``variant``
        of the system, which trains on the scans that it is for.
        """
        return {
            "max_epochs": self.system.train.epochs,
            "folds": 1,
            "on_all": False,
            "from_version": "",
            "from_scratch": False,
            "seed": 0,
            "variant": "",
        }

    def stats(self) -> dict[str, Any]:
        """Progress of the running or the last training, as clients show it; empty before the first."""
        return self.progress.read()

    def __call__(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Train; goes on from the checkpoint where the same training was stopped or killed.

        Args:
            request: Options of the training.
            datastore: MONAI Label hands over the app's; labels come from ``pairs`` all the same.

        Raises:
            Conflict: If another process trains this system.
            UserError: If nothing is labelled yet, an option is wrong, or the training fails.
        """
        try:
            with self.update.versions.training(self.system.name):
                return self._train(request)
        except Timeout:
            raise Conflict(f"{self.system.name} is being trained by another process already") from None

    def compare(self, a: str, b: str, measure: bool) -> dict[str, Any]:
        """Two versions on the frozen validation scans; see :meth:`msklabel.learn.update.Update.compare`."""
        cases = [_case(self.system, pair) for pair in self.pairs(self.system.name)]
        return self.update.compare(cases, a, b, measure)

    def _train(self, request: Mapping[str, Any]) -> dict[str, Any]:
        order = self._order(request)
        cases = self._cases(bool(request.get("resume")))
        left_out = self._left_out(cases)
        while True:
            try:
                return self._train_on([case for case in cases if case.id not in left_out], order, left_out)
            except Unusable as error:
                logger.warning("%s: left out of the training: %s", self.system.name, error)
                case = error.case
                left_out[case.id] = LeftOut(case.label, case.image, error.reason)

    def _left_out(self, cases: Sequence[Case]) -> dict[str, LeftOut]:
        """Scans that could not be used when this training was last begun, and have not changed since."""
        known = {name: LeftOut(**kept) for name, kept in read_json(self.folder / _PLAN).get("left_out", {}).items()}
        now = {case.id: (case.label, case.image) for case in cases}
        return {name: one for name, one in known.items() if now.get(name) == (one.label, one.image)}

    def _train_on(self, cases: Sequence[Case], order: Order, left_out: Mapping[str, LeftOut]) -> dict[str, Any]:
        if order.variant:
            cases = self._fitting(cases, order.variant)
        with reported(lambda *_: self.pause(lambda: False)):
            plan = self.update.plan(cases, order, left_out)
        self._keep_or_clear(_described(self.system, plan, order))
        self.progress.begin(order.recipe.epochs)
        facts: dict[str, Any] = {}
        taken_down = trackers(self._run_folder(), self.mlflow, self.system.name, asdict(order.recipe))

        def report(fold: int, state: Report) -> None:
            self.progress.epoch(fold, state)
            for tracker in taken_down:
                tracker.epoch(fold, state)

        stop = StopOnSignal()

        def pause(*_: int) -> None:
            self.pause(stop.asked)

        try:
            with reported(pause):
                fitted = self.update.fit(plan, order, self.folder, report, stop.asked, pause)
                version, verdict = self.update.store(plan, order, fitted)
            facts = {
                "version": version.name,
                "published": verdict.publish,
                "validation": verdict.validation,
                "reason": "; ".join(verdict.reasons),
                "held": len(plan.held),
                "left_out": version.metrics["left_out"],
            }
        except Stopped:
            logger.info("%s: stopped; a training of the same labels goes on from here", self.system.name)
            return {**self.stats(), "stopped": True}
        finally:
            stop.restore()
            for tracker in taken_down:
                tracker.close(facts)
        self.progress.note(**facts, seconds_left=0.0)
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.stats()

    def _tell(self, judged: dict[str, str]) -> None:
        """Note which labels are held back, for each version that has them."""
        pairs = self.pairs(self.system.name)
        keys = {pair.version_id: pair.annotated.key(pair.sha256) for pair in pairs}
        self.hold({version: judged[key] for version, key in keys.items() if key in judged})

    def _run_folder(self) -> Path:
        """Where TensorBoard's files of this training go: the same where it goes on."""
        name = read_json(self.folder / "run.json").get("name") or time.strftime("%Y%m%d-%H%M%S")
        replace_text(self.folder / "run.json", to_json({"name": name}))
        return self.home / "runs" / name

    def check(self, request: Mapping[str, Any]) -> None:
        """Refuse at once what a training could only fail on.

        Raises:
            UserError: If an option has a value that it cannot have.
            NotFound: If there is no such version to start from.
        """
        order = self._order(request)
        if order.from_version:
            self.update.versions.get(self.system.name, order.from_version)

    def _order(self, request: Mapping[str, Any]) -> Order:
        variant = str(request.get("variant") or "")
        system = self.system.with_variant(variant) if variant else self.system
        recipe = Recipe(
            epochs=whole(request, "max_epochs", system.train.epochs),
            folds=whole(request, "folds", 1),
            seed=whole(request, "seed", 0, lowest=0),
            device=self.device,
        )
        return Order(
            recipe,
            switch(request, "on_all"),
            str(request.get("from_version") or ""),
            switch(request, "from_scratch"),
            variant,
        )

    def _cases(self, resume: bool) -> list[Case]:
        """Labelled scans in the order in which they were labelled.

        Args:
            resume: Whether a training that was killed is to end with the labels that it began with, if they still
                count; those that came later are for the next one.
        """
        pairs = sorted(self.pairs(self.system.name), key=lambda pair: pair.version_id)
        if resume:
            begun = set(read_json(self.folder / _PLAN).get("considered", []))
            keys = [pair.annotated.key(pair.sha256) for pair in pairs]
            if begun and begun <= set(keys):
                pairs = [pair for pair, key in zip(pairs, keys, strict=True) if key in begun]
        return [_case(self.system, pair) for pair in pairs]

    def _fitting(self, cases: Sequence[Case], variant: str) -> list[Case]:
        """The labelled scans that a variant is for.

        Raises:
            UserError: If none of them is.
        """
        fitting = [case for case in cases if self._fits(case, variant)]
        if cases and not fitting:
            least = self.system.variants[variant].fat_fraction_from_percent
            raise UserError(
                f"{self.system.name}: none of {len(cases)} labelled scan(s) is one for {variant}, whose muscles hold "
                f"{least:g} % fat or more"
            )
        return fitting

    def _fits(self, case: Case, variant: str) -> bool:
        """Whether a labelled scan is one of those that a variant is for."""
        with blamed_on(case):
            scan, labels = case.load()
        return fitting_variant(self.system, muscle_fat_fraction_percent(self.system, scan, labels)) == variant

    def _keep_or_clear(self, plan: dict[str, Any]) -> None:
        """Keep the checkpoint of a training of just this plan, clear any other."""
        file = self.folder / _PLAN
        if read_json(file) == plan:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        replace_text(file, to_json(plan))


def _described(system: System, plan: Plan, order: Order) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from."""
    trained = system.with_variant(order.variant) if order.variant else system
    how = {"fingerprint": trained.fingerprint, "train": trained.train.model_dump(mode="json")}
    selection = plan.selection
    labels = {
        "training": sorted(case.label for case in selection.training),
        "older": sorted(case.label for case in selection.older),
        "validation": sorted(case.label for case in selection.validation),
        "held": sorted(plan.held),
    }
    considered = sorted({*chain(*labels.values()), *(one.label for one in plan.left_out.values())})
    left_out = {name: asdict(one) for name, one in plan.left_out.items()}
    return {**asdict(order), **how, "base": plan.base, **labels, "considered": considered, "left_out": left_out}


def _case(system: System, pair: Pair) -> Case:
    def load() -> tuple[Scan, NDArray]:
        return read_for(system, pair.image), read_labels(pair.label).array

    return Case(
        id=pair.image_id,
        patient=pair.patient,
        load=load,
        annotated=pair.annotated,
        site=pair.site,
        label=pair.annotated.key(pair.sha256),
        image=_identity(pair, system.channels),
        accepted=pair.state == "accepted",
    )


def _identity(pair: Pair, channels: Sequence[str]) -> str:
    """Changes whenever a file does that is read of a scan; empty where reading it will say what is wrong."""
    try:
        image = pair.image
    except UserError as error:
        if error.status >= 500:
            raise
        return ""
    return f"{image}:{stamp_of(image, channels)}"
