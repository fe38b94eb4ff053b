"""Train a system's network by its recipe: resumable, stoppable, on a GPU where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msklabel.errors import UserError
from msklabel.learn.annotation import UNKNOWN
from msklabel.learn.cases import Case, PreparedCase, prepare_case
from msklabel.learn.losses import build_loss, cross_entropy
from msklabel.learn.samples import Samples
from msklabel.networks import Weights, build_network, load_weights, weights_of
from msklabel.predict.engine import Engine, dice
from msklabel.system import System, Train

_CHECKPOINT = "checkpoint.pt"
_CHECKPOINT_SECONDS = 30.0
_VALIDATIONS = 20  # in a training whose recipe does not need one after each epoch


class Stopped(Exception):
    """The training was asked to stop; it goes on from its checkpoint when started again."""


@dataclass(frozen=True)
class Report:
    """State of a training after an epoch.

    Attributes:
        epoch: Epochs done.
        epochs: Epochs in all.
        loss: Mean training loss of the epoch.
        validation_dice: Mean Dice on the working grid, NaN without validation in this epoch.
        best_dice: Best so far, NaN without validation cases.
        seconds: Training time since the very start, resumed parts included.
    """

    epoch: int
    epochs: int
    loss: float
    validation_dice: float
    best_dice: float
    seconds: float


@dataclass
class _State:
    """What a checkpoint holds beside weights and optimiser."""

    epoch: int = 0
    best_dice: float = float("nan")
    best_loss: float = float("inf")
    epochs_since_gain: int = 0
    seconds: float = 0.0


class Trainer:
    """One training of one system.

    Args:
        system: The system; its ``train`` section is the recipe.
        folder: Where the checkpoint lies; a training that was stopped or killed goes on from it.
        initial: Weights to start from; fresh ones otherwise.
        device: Where to train; a GPU where there is one by default.
        epochs: Instead of the recipe's.
        seed: Of weights, order and augmentation.
    """

    def __init__(
        self,
        system: System,
        folder: Path,
        initial: Weights | None = None,
        device: torch.device | str | None = None,
        epochs: int | None = None,
        seed: int = 0,
    ) -> None:
        self.system = system
        self.folder = folder
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.epochs = epochs or system.train.epochs
        self.seed = seed
        torch.manual_seed(seed)
        self.network = build_network(system).to(self.device)
        if initial is not None:
            load_weights(self.network, initial)
        self.optimizer = _OPTIMIZERS[system.train.optimizer](self.network.parameters(), system.train)
        self.schedule = _schedule(self.optimizer, system.train, self.epochs)
        half = self.device.type == "cuda" and not torch.cuda.is_bf16_supported()
        self.dtype = torch.float16 if half else torch.bfloat16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.state = _State()
        self.best = weights_of(self.network)

    def __call__(
        self,
        training: Sequence[Case],
        validation: Sequence[Case] = (),
        report: Callable[[Report], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Weights:
        """Train and return the best weights (the last ones without validation cases).

        Raises:
            Stopped: If ``should_stop`` said so; the checkpoint is written.
            UserError: If there is nothing to train on, or the loss is no longer a number.
        """
        if not training:
            raise UserError(f"{self.system.name}: no labelled scans to train on")
        self._resume()
        started = time.monotonic() - self.state.seconds
        samples = Samples(self.system, [prepare_case(self.system, case) for case in training], self.seed)
        held_out = [prepare_case(self.system, case) for case in validation]
        loss_function = build_loss(self.system.train.loss)
        saved = time.monotonic()
        while self.state.epoch < self.epochs and not self._exhausted():
            loss = self._epoch(samples, loss_function, should_stop)
            self.state.epoch += 1
            current = self._validate(held_out) if held_out and self._validation_due() else (float("nan"),) * 2
            self._note(*current)
            _step(self.schedule, current[1])
            self.state.seconds = time.monotonic() - started
            report(Report(self.state.epoch, self.epochs, loss, current[0], self.state.best_dice, self.state.seconds))
            if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                self._save()
                saved = time.monotonic()
        return self.best if held_out else weights_of(self.network)

    def _epoch(self, samples: Samples, loss_function: Any, should_stop: Callable[[], bool]) -> float:
        self.network.train()
        losses = []
        for batch in samples.epoch(self.state.epoch):
            if should_stop():
                self._save()
                raise Stopped
            image, labels, known = (part.to(self.device) for part in (batch.image, batch.labels, batch.known))
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, self.dtype, enabled=self.device.type == "cuda"):
                loss = loss_function(self.network(image), labels, known)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean())
        if not np.isfinite(mean):
            raise UserError(
                f"{self.system.name}: the loss became {mean} in epoch {self.state.epoch + 1}; lower learning_rate"
            )
        return mean

    def _validate(self, cases: Sequence[PreparedCase]) -> tuple[float, float]:
        """Mean Dice over labels and mean cross-entropy, on the working grid."""
        engine = Engine(self.system, self.network, self.device)
        rows, losses = [], []
        for case in cases:
            scores = engine.scores(case.prepared)
            labels = case.labels.to(self.device)
            losses.append(float(cross_entropy(scores[None], labels[None].long(), case.known[None])))
            seen = case.labels.numpy() != UNKNOWN
            predicted, truth = scores.argmax(0).to(torch.uint8).cpu().numpy()[seen], case.labels.numpy()[seen]
            looked_for = case.known.numpy()
            indices = self.system.label_indices.values()
            rows.append([dice(predicted, truth, i) if looked_for[i] else np.nan for i in indices])
        table = np.array(rows)
        seen_labels = ~np.isnan(table).all(axis=0)
        if not seen_labels.any():
            return float("nan"), float(np.mean(losses))
        return float(np.nanmean(table[:, seen_labels], axis=0).mean()), float(np.mean(losses))

    def _validation_due(self) -> bool:
        recipe = self.system.train
        if recipe.schedule == "plateau" or recipe.stop_epochs:
            return True
        every = max(1, self.epochs // _VALIDATIONS)
        return self.state.epoch % every == 0 or self.state.epoch == self.epochs

    def _note(self, current_dice: float, current_loss: float) -> None:
        state = self.state
        if np.isnan(current_loss):
            return
        if not current_dice <= state.best_dice:
            state.best_dice = current_dice
            self.best = weights_of(self.network)
        state.epochs_since_gain = 0 if current_loss < state.best_loss else state.epochs_since_gain + 1
        state.best_loss = min(state.best_loss, current_loss)

    def _exhausted(self) -> bool:
        limit = self.system.train.stop_epochs
        return limit is not None and self.state.epochs_since_gain >= limit

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{_CHECKPOINT}"
        parts = {
            "fingerprint": self.system.fingerprint,
            "network": weights_of(self.network),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "state": asdict(self.state),
        }
        torch.save(parts, temporary)
        temporary.replace(self.folder / _CHECKPOINT)

    def _resume(self) -> None:
        file = self.folder / _CHECKPOINT
        if not file.exists():
            return
        parts = torch.load(file, map_location=self.device, weights_only=True)
        if parts["fingerprint"] != self.system.fingerprint:
            raise UserError(f"{self.system.name}: the checkpoint in {self.folder.name} is of another configuration")
        load_weights(self.network, parts["network"])
        self.best = {name: tensor.cpu() for name, tensor in parts["best"].items()}
        self.optimizer.load_state_dict(parts["optimizer"])
        self.schedule.load_state_dict(parts["schedule"])
        self.scaler.load_state_dict(parts["scaler"])
        self.state = _State(**parts["state"])


_OPTIMIZERS: dict[str, Callable[[Any, Train], torch.optim.Optimizer]] = {
    "adam": lambda p, t: torch.optim.Adam(p, lr=t.learning_rate, weight_decay=t.weight_decay),
    "adamw": lambda p, t: torch.optim.AdamW(p, lr=t.learning_rate, weight_decay=t.weight_decay),
    "sgd": lambda p, t: torch.optim.SGD(
        p, lr=t.learning_rate, weight_decay=t.weight_decay, momentum=t.momentum, nesterov=t.momentum > 0
    ),
}
_Schedule = torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau


def _schedule(optimizer: torch.optim.Optimizer, recipe: Train, epochs: int) -> _Schedule:
    if recipe.schedule == "plateau":
        patience = recipe.plateau_epochs or 0
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience)
    if recipe.schedule == "polynomial":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: max(0.0, 1 - epoch / epochs) ** 0.9)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


def _step(schedule: _Schedule, validation_loss: float) -> None:
    if not isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        schedule.step()
    elif not np.isnan(validation_loss):
        schedule.step(validation_loss)
