"""MONAI Label's TrainTask: train on the submitted labels, store a version, publish it if it is not worse."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from numpy.typing import NDArray

from msklabel.durable import replace_text
from msklabel.errors import Conflict, UserError
from msklabel.imaging import Scan
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.read import read_labels
from msklabel.learn.cases import Case
from msklabel.learn.evaluate import case_dice, label_means, mean_dice
from msklabel.learn.fit import Fitted, Recipe, fit
from msklabel.learn.split import is_validation
from msklabel.learn.trainer import Report, Stopped
from msklabel.learn.versions import Version, Versions
from msklabel.networks import Weights, loaded_network
from msklabel.predict.engine import Engine
from msklabel.predict.infiltration import fitting_variant, muscle_fat_fraction_percent
from msklabel.predict.source import read_for
from msklabel.system import System

logger = logging.getLogger(__name__)


class Pair(Protocol):
    """A labelled scan in the datastore; see ``msklabel.store.core.TrainingPair``."""

    image_id: str
    patient: str
    image: Path
    label: Path
    sha256: str
    site: str | None
    version_id: int
    annotated: Annotated
    state: str


class SystemTrainTask(TrainTask):
    """Train one system on the newest label of each scan.

    Args:
        system: The system.
        versions: Where versions are kept; a running training keeps its checkpoint there too.
        pairs: Lists what is labelled for the system now.
        device: Where to train; a GPU where there is one by default.
    """

    def __init__(
        self,
        system: System,
        versions: Versions,
        pairs: Callable[[str], Sequence[Pair]],
        device: str | None = None,
    ) -> None:
        super().__init__(f"Train {system.title} ({system.network.name}, {system.profile} profile) on submitted labels")
        self.system = system
        self.versions = versions
        self.pairs = pairs
        self.device = device
        self.folder = versions.root / system.name / "training"

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
        try:
            return json.loads((self.folder.parent / "training.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; goes on from the checkpoint where the same training was stopped or killed.

        Raises:
            Conflict: If another process trains this system.
            UserError: If nothing is labelled yet, an option is wrong, or the training diverges.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder.parent / ".training.lock", timeout=0):
                return self._train(request)
        except Timeout:
            raise Conflict(f"{self.system.name} is being trained by another process already") from None

    def _train(self, request: Mapping[str, Any]) -> dict[str, Any]:
        variant = str(request.get("variant") or "")
        system = self.system.with_variant(variant) if variant else self.system
        recipe = Recipe(
            epochs=_whole(request, "max_epochs", system.train.epochs),
            folds=_whole(request, "folds", 1),
            seed=_whole(request, "seed", 0, lowest=0),
            device=self.device,
        )
        pairs = [pair for pair in self.pairs(system.name) if not variant or self._fits(pair, variant)]
        kept = [] if request.get("on_all") else [pair for pair in pairs if is_validation(pair.patient)]
        training = [_case(self.system, pair) for pair in pairs if pair not in kept]
        held_out = [_case(self.system, pair) for pair in kept]
        if not training:
            waiting = f"; {len(kept)} labelled scan(s) are kept for validation" if kept else ""
            raise UserError(f"{self.system.name}: no labelled scans to train on yet{waiting}")
        base = self._base(request, variant)
        initial = self.versions.weights(self.system, base)[0] if base else None
        plan = {
            **asdict(recipe),
            "fingerprint": self.system.fingerprint,
            "training": sorted(pair.sha256 for pair in pairs if pair not in kept),
            "validation": sorted(pair.sha256 for pair in kept),
            "base": base,
            "variant": variant,
        }
        self._keep_or_clear(plan)
        _write_json(self.folder.parent / "training.json", {"epoch": 0, "total_epochs": recipe.epochs})
        stop = _StopOnSignal()
        try:
            fitted = fit(system, training, held_out, self.folder, recipe, initial, self._report, should_stop=stop.asked)
        except Stopped:
            logger.info("%s: stopped; a training of the same labels goes on from here", self.system.name)
            return {**self.stats(), "stopped": True}
        finally:
            stop.restore()
        self._publish_if_better(self._store(fitted, held_out, plan), fitted, held_out)
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.stats()

    def _fits(self, pair: Pair, variant: str) -> bool:
        """Whether a labelled scan is one of those that a variant is for."""
        scan, labels = _case(self.system, pair).load()
        return fitting_variant(self.system, muscle_fat_fraction_percent(self.system, scan, labels)) == variant

    def _base(self, request: Mapping[str, Any], variant: str) -> str | None:
        """Name of the version to start from."""
        named = str(request.get("from_version") or "")
        if named and request.get("from_scratch"):
            raise UserError("from_version and from_scratch exclude each other")
        if named or request.get("from_scratch"):
            return named or None
        return self._serving(variant) or self._serving("")

    def _serving(self, variant: str) -> str | None:
        """The version in service, if it is of this very configuration."""
        name = self.versions.serving(self.system.name, variant)
        if name is None:
            return None
        fits = self.versions.get(self.system.name, name).metrics.get("fingerprint") == self.system.fingerprint
        return name if fits else None

    def _keep_or_clear(self, plan: dict[str, Any]) -> None:
        """Keep the checkpoint of a training of just this plan, clear any other."""
        file = self.folder / "plan.json"
        try:
            if json.loads(file.read_text(encoding="utf-8")) == plan:
                return
        except (FileNotFoundError, json.JSONDecodeError):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        _write_json(file, plan)

    def _report(self, fold: int, report: Report) -> None:
        best = _number(report.best_dice)
        name = f"{self.system.name}, fold {fold}" if fold else self.system.name
        logger.info(
            "%s: epoch %d of %d, loss %.4f, best validation Dice %s, %.0f s",
            name,
            report.epoch,
            report.epochs,
            report.loss,
            best,
            report.seconds,
        )
        self._write_stats(
            {
                "fold": fold,
                "epoch": report.epoch,
                "total_epochs": report.epochs,
                "total_time": str(round(report.seconds, 1)),
                "best_metric": best or 0.0,
                "train": {"loss": _number(report.loss)},
                "eval": {"dice": _number(report.validation_dice)},
            }
        )

    def _write_stats(self, changes: dict[str, Any]) -> None:
        _write_json(self.folder.parent / "training.json", {**self.stats(), **changes})

    def _store(self, fitted: Fitted, held_out: Sequence[Case], plan: dict[str, Any]) -> Version:
        dices = case_dice(self._engine(fitted.members, fitted), held_out)
        metrics = {
            **plan,
            "profile": self.system.profile,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seconds": round(fitted.seconds, 1),
            "device": str(fitted.device),
            "members": len(fitted.members),
            "training_scans": len(plan["training"]),
            "validation_scans": len(dices),
            "validated": bool(dices),
            "mean_dice": _number(mean_dice(dices)),
            "label_dice": {name: _number(value) for name, value in label_means(dices).items()},
            "cross_validated_dice": _number(mean_dice(fitted.fold_dice)),
        }
        return self.versions.add(self.system, fitted.members, metrics)

    def _publish_if_better(self, version: Version, fitted: Fitted, held_out: Sequence[Case]) -> None:
        """Serve the new version unless the one in service is better on the same validation scans."""
        variant = version.metrics["variant"]
        serving = self._serving(variant)
        before = None
        if serving and held_out:
            engine = self._engine(self.versions.weights(self.system, serving), fitted)
            before = _number(mean_dice(case_dice(engine, held_out)))
        after = version.metrics["mean_dice"]
        publish = before is None or (after is not None and after >= before)
        if publish:
            self.versions.publish(self.system.name, version.name, variant)
        compared = f"Dice {after} after {before}" if before is not None else f"Dice {after}, nothing to compare with"
        reason = compared if held_out else "no validation scans: not validated"
        logger.info("%s: version %s %s (%s)", self.system.name, version.name, _verb(publish), reason)
        self._write_stats({"version": version.name, "published": publish, "reason": reason})

    def _engine(self, members: Sequence[Weights], fitted: Fitted) -> Engine:
        networks = [loaded_network(self.system, weights) for weights in members]
        return Engine(self.system, networks, fitted.device)


class _StopOnSignal:
    """Turn SIGTERM and SIGINT into a question, in the main thread; elsewhere nobody asks."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, lambda *_: self._event.set())

    def asked(self) -> bool:
        return self._event.is_set()

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _case(system: System, pair: Pair) -> Case:
    def load() -> tuple[Scan, NDArray]:
        return read_for(system, pair.image), read_labels(pair.label).array

    return Case(pair.image_id, pair.patient, load, pair.annotated, pair.site)


def _whole(request: Mapping[str, Any], key: str, default: int, lowest: int = 1) -> int:
    value = request.get(key, default)
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = lowest - 1
    if number < lowest:
        raise UserError(f"{key}: expected a whole number from {lowest}, got {value!r}")
    return number


def _number(value: float | None) -> float | None:
    return None if value is None or isnan(value) else round(value, 4)


def _verb(publish: bool) -> str:
    return "is now served" if publish else "is kept, not served"


def _write_json(file: Path, data: dict[str, Any]) -> None:
    replace_text(file, json.dumps(data, indent=1))
