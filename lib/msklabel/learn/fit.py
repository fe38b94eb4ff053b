"""Train all members of a version: one network, or one for each cross-validation fold."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from msklabel.durable import flush
from msklabel.errors import UserError
from msklabel.learn.cases import Case, LeftOut, PreparedCase, prepare_case
from msklabel.learn.evaluate import CaseDice, mean_dice, usable_dice
from msklabel.learn.selection import Selection
from msklabel.learn.split import fold_of
from msklabel.learn.together import gpus_for, train_together
from msklabel.learn.trainer import Report, Stopped, Trainer
from msklabel.learn.versions import read_weights
from msklabel.networks import Weights, loaded_network
from msklabel.predict.engine import Engine
from msklabel.system import System

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What a training run is asked for, beside the system's own recipe.

    Attributes:
        epochs: Epochs of each member.
        folds: 1, or the number of folds, each held out once.
        seed: Of weights, order and augmentation.
        device: Where to train; None takes a GPU where there is one.
    """

    epochs: int
    folds: int = 1
    seed: int = 0
    device: str | None = None


@dataclass(frozen=True)
class Fitted:
    """What a training made, and what it took.

    Attributes:
        members: Weights of each trained network.
        fold_dice: Dice of each case that a member did not learn from, by this member; empty without folds.
        seconds: How long all members took.
        device: Where they were trained.
        crops: That all members were shown.
        member_dice: Mean Dice of each member on the cases of its own fold; empty without folds.
        left_out: Scans on which a member could not be measured any more, by identifier.
    """

    members: list[Weights]
    fold_dice: CaseDice
    seconds: float
    device: torch.device
    crops: int = 0
    member_dice: list[float] = field(default_factory=list)
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)


def fit(
    system: System,
    selection: Selection,
    folder: Path,
    recipe: Recipe,
    initial: Weights | None = None,
    report: Callable[[int, Report], None] = lambda _fold, _report: None,
    should_stop: Callable[[], bool] = lambda: False,
    prepare: Callable[[System, Case], PreparedCase] = prepare_case,
    pause: Callable[[], None] = lambda: None,
) -> Fitted:
    """Train; goes on where it was stopped, folds that are done are not done again.

    Args:
        system: The system.
        selection: Cases to learn from, split by patient where there are folds, and those held out, which choose the
            best epoch where there are none.
        folder: Where checkpoints lie.
        recipe: Epochs, folds, seed, device.
        initial: Weights to start each member from.
        report: Called after each epoch with the fold's number.
        should_stop: Asked before each step, and before each case is prepared.
        prepare: Brings cases to the working grid.
        pause: Called before these, and waits while others are to go first; not before steps of several GPUs together.

    Raises:
        Stopped: If ``should_stop`` said so.
        UserError: If there are too few patients for the folds, or the loss diverges.
    """
    folds = recipe.folds > 1
    groups = _folds(system, selection.learned, recipe.folds) if folds else [(selection.training, selection.validation)]
    older = [] if folds else selection.older
    members: list[Weights] = []
    fold_dice: CaseDice = {}
    member_dice: list[float] = []
    left_out: dict[str, LeftOut] = {}
    seconds, crops = 0.0, 0
    device = torch.device("cpu")

    def prepared(of: System, case: Case) -> PreparedCase:
        pause()
        if should_stop():
            raise Stopped
        return prepare(of, case)

    for number, (learn, test) in enumerate(groups):
        place = folder / f"fold{number}"
        done = place / "done.safetensors"
        seed, gpus = recipe.seed + number, gpus_for(system, recipe.device)
        trainer = Trainer(system, place, initial, recipe.device, recipe.epochs, seed, prepared)
        device = trainer.device
        kept = _kept(done, system)
        if kept is not None:
            weights, took = kept
        elif len(gpus) > 1:
            given = (learn, test, older)
            told = partial(report, number)
            weights, took = train_together(
                system, place, gpus, given, initial, recipe.epochs, seed, told, should_stop, prepared
            )
        else:
            weights = trainer(learn, test, partial(report, number), should_stop, older, pause)
            took = {"seconds": trainer.state.seconds, "crops": trainer.state.crops}
        if kept is None:
            _keep(weights, took, done, system)
        members.append(weights)
        seconds, crops = seconds + took["seconds"], crops + took["crops"]
        if folds:
            engine = Engine(system, loaded_network(system, members[-1]), device)
            dices, wrong = usable_dice(engine, test)
            for error in wrong:
                logger.warning("%s: left out of the Dice of fold %d: %s", system.name, number, error)
                left_out[error.case.id] = LeftOut(error.case.label, error.case.image, error.reason)
            member_dice.append(mean_dice(dices))
            fold_dice |= dices
    return Fitted(members, fold_dice, seconds, device, crops, member_dice, left_out)


def _keep(weights: Weights, took: dict[str, Any], done: Path, system: System) -> None:
    """Write the weights of a member that is trained, and what it took, whole or not at all."""
    done.parent.mkdir(parents=True, exist_ok=True)
    building = done.with_name(f".{done.name}")
    facts = {"fingerprint": system.fingerprint, "system": system.name, "took": json.dumps(took)}
    save_file(weights, building, metadata=facts)
    flush(building)
    building.replace(done)


def _kept(done: Path, system: System) -> tuple[Weights, dict[str, Any]] | None:
    """Weights of a trained member, and what it took; one that cannot be read goes on from its checkpoint."""
    if not done.exists():
        return None
    try:
        weights = read_weights(done, system)
    except UserError as error:
        logger.warning("%s: %s; its last epochs are trained again", system.name, error)
        return None
    with safe_open(done, "pt") as stored:
        return weights, {"seconds": 0.0, "crops": 0, **json.loads(stored.metadata().get("took", "{}"))}


def _folds(system: System, cases: Sequence[Case], folds: int) -> list[tuple[list[Case], list[Case]]]:
    """For each fold the cases to learn from and those held out, by patient."""
    numbers = [fold_of(case.patient, folds) for case in cases]
    groups = [
        (
            [case for case, n in zip(cases, numbers, strict=True) if n != fold],
            [case for case, n in zip(cases, numbers, strict=True) if n == fold],
        )
        for fold in range(folds)
    ]
    if any(not learn or not test for learn, test in groups):
        patients = len({case.patient for case in cases})
        raise UserError(f"{system.name}: {patients} patients are too few for {folds} folds: one of them would be empty")
    return groups
