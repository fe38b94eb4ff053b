"""Train a system's network, from scratch by its recipe or further from a trained one: resumable and stoppable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msklabel.errors import UserError
from msklabel.learn.annotation import UNKNOWN
from msklabel.learn.average import MovingAverage
from msklabel.learn.cases import Case, PreparedCase, prepare_case
from msklabel.learn.checkpoint import load_checkpoint, save_checkpoint
from msklabel.learn.group import Group
from msklabel.learn.losses import Loss, build_loss, cross_entropy
from msklabel.learn.optimise import build_optimizer, finetune_schedule, recipe_schedule, step_after_epoch
from msklabel.learn.samples import Batch, Samples
from msklabel.memory import keep_freed_memory, much_memory_left
from msklabel.networks import Weights, build_network, load_weights, weights_of
from msklabel.predict.backends import mixed_type
from msklabel.predict.engine import Engine, dice
from msklabel.system import System

logger = logging.getLogger(__name__)
_VALIDATIONS = 20  # in a training whose recipe does not need one after each epoch
_CHECKPOINT_SHARE = 0.05  # of the time that may go into writing checkpoints


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

    @property
    def seconds_left(self) -> float:
        """Expected time to the last epoch."""
        return self.seconds / max(1, self.epoch) * (self.epochs - self.epoch)


@dataclass
class _State:
    """What a checkpoint holds beside weights and optimiser."""

    epoch: int = 0
    best_dice: float = float("nan")
    best_loss: float = float("inf")
    epochs_since_gain: int = 0
    seconds: float = 0.0
    crops: int = 0


class Trainer:
    """One training of one system.

    From scratch, and on all labels again, it follows the recipe and returns the weights of the best epoch. Fine-tuning
    (with ``older`` cases) follows the recipe's ``finetune`` section and returns the moving average of the weights at
    the end: the validation cases tell when to stop but never which weights to take, because the gate judges by them.

    Args:
        system: The system; its ``train`` section is the recipe.
        folder: Where the checkpoint lies; a training that was stopped or killed goes on from it.
        initial: Weights to start from; fresh ones otherwise.
        device: Where to train; a GPU where there is one by default.
        epochs: Instead of the recipe's.
        seed: Of weights, order and augmentation.
        prepare: Brings cases to the working grid.
        group: The processes that train together.
    """

    def __init__(
        self,
        system: System,
        folder: Path,
        initial: Weights | None = None,
        device: torch.device | str | None = None,
        epochs: int | None = None,
        seed: int = 0,
        prepare: Callable[[System, Case], PreparedCase] = prepare_case,
        group: Group | None = None,
    ) -> None:
        self.system = system
        self.folder = folder
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.epochs = epochs or system.train.epochs
        self.seed = seed
        self.prepare = prepare
        self.group = group or Group()
        torch.manual_seed(seed)
        self.network = build_network(system).to(self.device)
        if initial is not None:
            load_weights(self.network, initial)
        self.mixed = mixed_type(self.device) if system.train.mixed_precision else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.mixed == torch.float16)
        self.state = _State()
        self.best = weights_of(self.network)
        self.average: MovingAverage | None = None
        self.together = system.train.batch  # crops that go through the network at once

    def __call__(
        self,
        training: Sequence[Case],
        validation: Sequence[Case] = (),
        report: Callable[[Report], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
        older: Sequence[Case] = (),
        pause: Callable[[], None] = lambda: None,
    ) -> Weights:
        """Train and return weights, the best ones or, fine-tuned, the averaged ones.

        Args:
            training: Cases that each epoch shows.
            validation: Cases that choose the best epoch, or when to stop fine-tuning.
            report: Called after each epoch.
            should_stop: Asked before each step.
            older: Cases that the initial weights have learned from, replayed beside the others.
            pause: Called before each step; waits while others are to go first.

        Raises:
            Stopped: If ``should_stop`` said so; the checkpoint is written.
            UserError: If there is nothing to train on, the loss is no longer a number, or the memory does not suffice.
        """
        if not training:
            raise UserError(f"{self.system.name}: no labelled scans to train on")
        new, old, held_out = ([self.prepare(self.system, c) for c in cases] for cases in (training, older, validation))
        samples = Samples(self.system, new, self.seed, old, self.system.train.finetune.replay)
        if not samples.steps():
            raise UserError(f"{self.system.name}: nothing is annotated in the labelled scans")
        self._begin(samples, bool(older))
        started = time.monotonic() - self.state.seconds
        loss_function = build_loss(self.system.train.loss)
        saved, saving = time.monotonic(), 0.0
        while self.state.epoch < self.epochs and not self._exhausted():
            loss = self._epoch(samples, loss_function, should_stop, pause)
            self.state.epoch += 1
            self._agree()
            current = self._validate(held_out) if held_out and self._validation_due() else (float("nan"),) * 2
            self._note(*current)
            if self.average is None:
                step_after_epoch(self.schedule, current[1])
            self.state.seconds = time.monotonic() - started
            report(Report(self.state.epoch, self.epochs, loss, current[0], self.state.best_dice, self.state.seconds))
            if time.monotonic() - saved > saving / _CHECKPOINT_SHARE:
                saved = time.monotonic()
                self._save()
                saving = time.monotonic() - saved
        if self.average is not None:
            return weights_of(self.average.network)
        return self.best if held_out else weights_of(self.network)

    def _begin(self, samples: Samples, finetune: bool) -> None:
        """Choose recipe or fine-tuning, and go on from a checkpoint where there is one."""
        recipe, how = self.system.train, self.system.train.finetune
        if finetune:
            if self.epochs == recipe.epochs:  # nobody asked for another number
                self.epochs = ceil(self.epochs * how.epochs_fraction)
            self.average = MovingAverage(self.network, how.average_decay)
            self.optimizer = build_optimizer(self.network.parameters(), recipe, how.learning_rate_factor)
            self.schedule = finetune_schedule(self.optimizer, how, self.epochs * samples.steps())
        else:
            self.optimizer = build_optimizer(self.network.parameters(), recipe)
            self.schedule = recipe_schedule(self.optimizer, recipe, self.epochs)
        self._resume()

    def _epoch(
        self, samples: Samples, loss_function: Loss, should_stop: Callable[[], bool], pause: Callable[[], None]
    ) -> float:
        self.network.train()
        losses = []
        on_gpu = self.device.type == "cuda"
        batches = samples.epoch(self.state.epoch, self.group.rank, self.group.world, pinned=on_gpu)
        for number, batch in enumerate(batches):
            pause()
            if self.group.from_first(float(should_stop()), self.device):
                self._save()
                raise Stopped
            losses.append(self._step(batch, loss_function))
            self.state.crops += len(batch.image)
            if number == 0 and self.device.type == "cpu":  # the first step shows what one takes
                keep_freed_memory(large=much_memory_left())
        mean = self.group.mean(float(torch.stack(losses).mean()), self.device)
        if not np.isfinite(mean):
            raise UserError(
                f"{self.system.name}: the loss became {mean} in epoch {self.state.epoch + 1}; lower learning_rate"
            )
        return mean

    def _step(self, batch: Batch, loss_function: Loss) -> torch.Tensor:
        """One optimiser step; where the GPU's memory does not suffice, in smaller pieces from then on."""
        while True:
            try:
                loss = self._backward(batch, loss_function)
                break
            except torch.OutOfMemoryError:
                if self.together == 1:
                    raise UserError(
                        f"{self.system.name}: the GPU's memory does not suffice for one crop of "
                        f"{list(self.system.patch_voxels)} voxels; use another device, or a smaller patch_voxels"
                    ) from None
                self.together = max(1, min(self.together, len(batch.image)) // 2)
                torch.cuda.empty_cache()
                logger.warning("%s: out of GPU memory; %d crop(s) at once", self.system.name, self.together)
        self.group.average_gradients(self.network, len(batch.image))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.network)
            self.schedule.step()
        return loss

    def _backward(self, batch: Batch, loss_function: Loss) -> torch.Tensor:
        """Gradients of a batch, summed over pieces of it; the loss is the mean over pieces, weighted by their crops."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for first in range(0, len(batch.image), self.together):
            piece = slice(first, first + self.together)
            image, labels, known = (
                x[piece].to(self.device, non_blocking=True) for x in (batch.image, batch.labels, batch.known)
            )
            with self._in_mixed_precision():
                scores = self.network(image)
            scores = [level.float() for level in scores] if isinstance(scores, list) else scores.float()
            loss = loss_function(scores, labels, known) * (len(image) / len(batch.image))
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _agree(self) -> None:
        """Give all processes the same statistics beside the same weights."""
        self.group.average_buffers(self.network)
        if self.average is not None:
            self.group.average_buffers(self.average.network)

    def _in_mixed_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.mixed, enabled=self.mixed is not None)

    def _validate(self, cases: Sequence[PreparedCase]) -> tuple[float, float]:
        """Mean Dice over labels and mean cross-entropy, on the working grid."""
        network = self.average.network if self.average else self.network

        def forward(windows: torch.Tensor) -> torch.Tensor:
            with self._in_mixed_precision():
                scores: torch.Tensor = network(windows)
            return scores

        engine = Engine(self.system, network, self.device, [forward])
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
        there = ~np.isnan(table).all(axis=0)
        mean = float(np.nanmean(table[:, there], axis=0).mean()) if there.any() else float("nan")
        # The first process decides for all: were they to round in different ways, one might stop before the others.
        return self.group.from_first(mean, self.device), self.group.from_first(float(np.mean(losses)), self.device)

    def _validation_due(self) -> bool:
        recipe = self.system.train
        if self.average is not None or recipe.schedule == "plateau" or recipe.stop_epochs:
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
        recipe = self.system.train
        limit = recipe.stop_epochs if self.average is None else recipe.finetune.stop_epochs
        return limit is not None and self.state.epochs_since_gain >= limit

    def _save(self) -> None:
        if self.group.rank:
            return
        parts: dict[str, Any] = {
            "network": weights_of(self.network),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "state": asdict(self.state),
        }
        if self.average is not None:
            parts |= {"average": weights_of(self.average.network), "average_steps": self.average.steps}
        save_checkpoint(self.folder, self.system, parts)

    def _resume(self) -> None:
        parts = load_checkpoint(self.folder, self.system, self.device)
        if parts is None:
            return
        load_weights(self.network, parts["network"])
        self.best = {name: tensor.cpu() for name, tensor in parts["best"].items()}
        self.optimizer.load_state_dict(parts["optimizer"])
        self.schedule.load_state_dict(parts["schedule"])
        self.scaler.load_state_dict(parts["scaler"])
        self.state = _State(**parts["state"])
        if self.average is not None:
            load_weights(self.average.network, parts["average"])
            self.average.steps = parts["average_steps"]
