"""Optimisers and learning-rate schedules of the papers, and those of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from msklabel.sections import Finetune, Train

Schedule = torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau


def build_optimizer(parameters: Any, recipe: Train, factor: float = 1.0) -> torch.optim.Optimizer:
    """Build a recipe's optimiser, its learning rate multiplied by a factor."""
    return _OPTIMIZERS[recipe.optimizer](parameters, recipe, recipe.learning_rate * factor)


def recipe_schedule(optimizer: torch.optim.Optimizer, recipe: Train, epochs: int) -> Schedule:
    """The paper's schedule, one step for each epoch."""
    if recipe.schedule == "plateau":
        patience = (recipe.plateau_epochs or 1) - 1  # PyTorch waits for one epoch more
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=0)
    if recipe.schedule == "polynomial":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: max(0.0, 1 - epoch / epochs) ** 0.9)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


def step_after_epoch(schedule: Schedule, validation_loss: float) -> None:
    """Move a recipe's schedule on; a plateau is measured by the validation loss, where there is one."""
    if not isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        schedule.step()
    elif not np.isnan(validation_loss):
        schedule.step(validation_loss)


def finetune_schedule(optimizer: torch.optim.Optimizer, finetune: Finetune, steps: int) -> Schedule:
    """A linear rise over the warm-up and a linear fall to 0 at the end, one step for each optimiser step.

    Args:
        optimizer: Its learning rate is the highest.
        finetune: Says how long the warm-up is; at most a third of all steps.
        steps: Optimiser steps in all.
    """
    warmup = min(finetune.warmup_steps, steps // 3)

    def factor(step: int) -> float:
        rise = (step + 1) / (warmup + 1)
        fall = (steps - step) / max(1, steps - warmup)
        return max(0.0, min(1.0, rise, fall))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


_OPTIMIZERS: dict[str, Callable[[Any, Train, float], torch.optim.Optimizer]] = {
    "adam": lambda p, t, rate: torch.optim.Adam(p, lr=rate, weight_decay=t.weight_decay),
    "adamw": lambda p, t, rate: torch.optim.AdamW(p, lr=rate, weight_decay=t.weight_decay),
    "sgd": lambda p, t, rate: torch.optim.SGD(
        p, lr=rate, weight_decay=t.weight_decay, momentum=t.momentum, nesterov=t.momentum > 0
    ),
}
