"""Averages of a network's weights: the moving one, which changes more calmly than they do, and that of two versions."""

from __future__ import annotations

import copy

import torch
from torch import nn

from msklabel.networks import Weights


class MovingAverage:
    """Exponential moving average of parameters and buffers (Polyak and Juditsky 1992).

    Over the first steps the decay rises from 0.2, as (1 + n) / (10 + n), so that the start is soon forgotten.

    Args:
        network: Averaged from its present weights on.
        decay: Share that is kept in a step, 0 to below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after a step; whole numbers (counters) are copied."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        averaged, current = self.network.state_dict(), network.state_dict()
        for name, value in averaged.items():
            if value.is_floating_point():
                value.lerp_(current[name].to(value), share)
            else:
                value.copy_(current[name])


def between(base: Weights, tuned: Weights, share: float) -> Weights:
    """Weights on the straight line from those that a training began with to those that it ended with.

    Fine-tuned weights stay so near to where they began that what lies between predicts as well, often better, and is
    never far from the version that people know (Wortsman et al. 2022, Robust fine-tuning of zero-shot models).

    Args:
        base: Where the training began.
        tuned: Where it ended; the same names and shapes.
        share: Of the way, 0 to 1. Whole numbers (counters) are those of the end.
    """
    return {
        name: base[name].to(end).lerp(end, share) if end.is_floating_point() else end for name, end in tuned.items()
    }
