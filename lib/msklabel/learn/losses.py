"""The losses of the papers, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import nn
from torch.nn import functional

Loss = Callable[[torch.Tensor | Sequence[torch.Tensor], torch.Tensor], torch.Tensor]


def build_loss(name: str) -> Loss:
    """Build a loss of class scores (B, classes, *space) and label indices (B, *space).

    Scores may be a list of resolutions, the full one first (deep supervision); each counts half of the one above,
    the weights adding up to 1, and its target is taken by the nearest voxel, as nnU-Net does.
    """
    single = _LOSSES[name]()

    def loss(scores: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        levels = [scores] if isinstance(scores, torch.Tensor) else list(scores)
        weights = [0.5**level for level in range(len(levels))]
        parts = [w * single(s, _at_size(labels, s.shape[2:])) for w, s in zip(weights, levels, strict=True)]
        return torch.stack(parts).sum() / sum(weights)

    return loss


def _at_size(labels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if labels.shape[1:] == torch.Size(size):
        return labels
    return functional.interpolate(labels[:, None].float(), list(size), mode="nearest-exact")[:, 0].long()


class _CrossEntropy(nn.Module):
    def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(scores, labels)


class _Dice(nn.Module):
    def __init__(self, **extra: bool) -> None:
        super().__init__()
        kind = DiceCELoss if extra else DiceLoss
        self.loss = kind(to_onehot_y=True, softmax=True, include_background=False, batch=True)

    def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.loss(scores, labels[:, None])


_LOSSES: dict[str, Callable[[], nn.Module]] = {
    "cross_entropy": _CrossEntropy,
    "dice": _Dice,
    "dice_cross_entropy": lambda: _Dice(cross_entropy=True),
}
