"""The losses of the papers, by name; what a label does not speak of counts for nothing (see ``annotation``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch.nn import functional

from msklabel.learn.annotation import UNKNOWN

_SMOOTH = 1e-5
_Single = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


class Loss(Protocol):
    """Class scores (B, classes, *space), label indices (B, *space) and known classes (B, classes) to one number."""

    def __call__(
        self,
        scores: torch.Tensor | Sequence[torch.Tensor],
        labels: torch.Tensor,
        known: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores may be a list of resolutions; without ``known`` all classes are."""


def build_loss(name: str) -> Loss:
    """Build a loss by name.

    Scores may be a list of resolutions, the full one first (deep supervision); each counts half of the one above,
    the weights adding up to 1, and its target is taken by the nearest voxel, as nnU-Net does.
    """
    single = _LOSSES[name]

    def loss(
        scores: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        levels = [scores] if isinstance(scores, torch.Tensor) else list(scores)
        weights = [0.5**level for level in range(len(levels))]
        parts = [w * single(s, _at_size(labels, s.shape[2:]), known) for w, s in zip(weights, levels, strict=True)]
        return torch.stack(parts).sum() / sum(weights)

    return loss


def cross_entropy(scores: torch.Tensor, labels: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over known voxels of minus the log probability of the label.

    Label 0 has the summed probability of the background and of every class that was not looked for. 0 where no voxel
    is known.
    """
    logs = functional.log_softmax(scores.float(), 1)
    if known is not None and not bool(known.all()):
        merged = _for_space(~known, scores).clone()
        merged[:, 0] = True
        background = logs.masked_fill(~merged, float("-inf")).logsumexp(1, keepdim=True)
        logs = torch.cat([background, logs[:, 1:]], 1)
    if not bool((labels != UNKNOWN).any()):
        return scores.sum() * 0
    return functional.nll_loss(logs, labels, ignore_index=UNKNOWN)


def soft_dice(scores: torch.Tensor, labels: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """1 minus soft Dice, the mean over labels (no background), over known voxels of the whole batch.

    Dice is (2 sum(p t) + s) / (sum(p) + sum(t) + s) with s = 1e-5, as MONAI's DiceLoss has it. A class counts in the
    samples in which it was looked for: there, no unlabelled voxel is of that class, whatever else it may be.
    """
    probabilities = scores.float().softmax(1).flatten(2)
    labels = labels.flatten(1)
    seen = labels != UNKNOWN
    labels = labels.where(seen, 0)
    every = torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device)
    looked_for = every if known is None else known.to(scores.device)
    counts = (seen & looked_for.gather(1, labels)).float()  # (B, voxels): whether the voxel's own class counts there
    right = probabilities.gather(1, labels[:, None])[:, 0] * counts
    none = torch.zeros_like(probabilities[0, :, 0])
    overlap, there = (none.scatter_add(0, labels.flatten(), each.flatten()) for each in (right, counts))
    said = (torch.einsum("bcn,bn->bc", probabilities, seen.float()) * looked_for).sum(0)
    dices = (2 * overlap + _SMOOTH) / (said + there + _SMOOTH)
    used = (looked_for & seen.any(1, keepdim=True)).any(0)
    used[0] = False
    return 1 - dices[used].mean() if bool(used.any()) else scores.sum() * 0


def _dice_cross_entropy(scores: torch.Tensor, labels: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    return soft_dice(scores, labels, known) + cross_entropy(scores, labels, known)


def _for_space(classes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """(B, classes) in the shape of the scores."""
    return classes.to(scores.device).reshape(*classes.shape, *[1] * (scores.ndim - 2)).expand_as(scores)


def _at_size(labels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if labels.shape[1:] == torch.Size(size):
        return labels
    return functional.interpolate(labels[:, None].float(), list(size), mode="nearest-exact")[:, 0].long()


_LOSSES: dict[str, _Single] = {
    "cross_entropy": cross_entropy,
    "dice": soft_dice,
    "dice_cross_entropy": _dice_cross_entropy,
}
