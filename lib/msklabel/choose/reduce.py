"""From class scores to sums, as soon as a member has predicted: a scan's probabilities are never kept."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from msklabel.choose.scores import entropy, pair_dice

_SLAB_ELEMENTS = 2**22  # probabilities held at once: 16 MiB in float32, which stays in a processor's cache


@dataclass(frozen=True)
class Sums:
    """Sums over a working crop, in voxels; classes include the background.

    Attributes:
        uncertain: Shape (classes, Z): entropy (0 to 1) x probability.
        expected: Shape (classes, Z): probability.
        information: Shape (classes,): mutual information x probability.
        right: Shape (classes,): probability of each voxel's own class, summed over the label map.
        maps: Label map of each member, uint8, shape (X, Y, Z), and of their mean, the last.
        finite: Whether all scores were numbers.
    """

    uncertain: NDArray[np.float64]
    expected: NDArray[np.float64]
    information: NDArray[np.float64]
    right: NDArray[np.float64]
    maps: list[torch.Tensor]
    finite: bool

    @property
    def agreement(self) -> NDArray[np.float64]:
        """Dice of each pair of members and label, shape (pairs, classes - 1)."""
        classes = len(self.expected)
        pairs = itertools.combinations(self.maps[:-1], 2)
        rows = [pair_dice(a, b, classes).cpu().numpy() for a, b in pairs]
        return np.array(rows, float).reshape(len(rows), classes - 1)


class Reducer:
    """Takes the class scores of one member after the other.

    One member is reduced at once. With several the mean probabilities are kept in half precision until the last came.

    Args:
        members: How many will come.
    """

    def __init__(self, members: int) -> None:
        self.members = members
        self.maps: list[torch.Tensor] = []
        self.finite = True
        self._mean: torch.Tensor | None = None
        self._own: torch.Tensor | None = None
        self._sums: Sums | None = None

    def add(self, scores: torch.Tensor) -> None:
        """Take the scores (classes, X, Y, Z) of a member; where it did not look it is certain of the background."""
        if self.members == 1:
            self._sums = self._reduced(scores, None, logits=True)
            return
        if self._mean is None or self._own is None:
            self._mean = torch.zeros(scores.shape, dtype=torch.float16, device=scores.device)
            self._own = torch.zeros(scores.shape[1:], device=scores.device)
        for part in _slabs(scores):
            probabilities = probabilities_of(scores[:, part])
            self._mean[:, part] += (probabilities / self.members).half()
            self._own[part] += entropy(probabilities) / self.members
        self.maps.append(scores.argmax(0).to(torch.uint8))
        if len(self.maps) == self.members:
            self._sums = self._reduced(self._mean, self._own, logits=False)
            self._mean = self._own = None

    @property
    def sums(self) -> Sums:
        """The result, once all members came."""
        if self._sums is None:
            raise RuntimeError(f"{len(self.maps)} of {self.members} members came")
        return self._sums

    def _reduced(self, values: torch.Tensor, own: torch.Tensor | None, logits: bool) -> Sums:
        classes, _, _, depth = values.shape
        uncertain, expected = torch.zeros(2, classes, depth, dtype=torch.float64)
        information, right = torch.zeros(2, classes, dtype=torch.float64)
        whole = torch.empty(values.shape[1:], dtype=torch.uint8, device=values.device)
        for part in _slabs(values):
            p = probabilities_of(values[:, part]) if logits else values[:, part].float()
            voxel = entropy(p)
            highest, whole_part = p.max(0)
            whole[part] = whole_part.to(torch.uint8)
            expected += p.sum((1, 2)).double().cpu()
            uncertain += torch.einsum("cxyz,xyz->cz", p, voxel).double().cpu()
            right += torch.zeros(classes, device=p.device).index_add_(0, whole_part.flatten(), highest.flatten()).cpu()
            if own is not None:
                information += torch.einsum("cxyz,xyz->c", p, (voxel - own[part]).clamp_min(0)).double().cpu()
        finite = math.isfinite(float(uncertain.sum()))
        return Sums(
            uncertain=uncertain.numpy(),
            expected=expected.numpy(),
            information=information.numpy(),
            right=right.numpy(),
            maps=[*self.maps, whole],
            finite=finite,
        )


def probabilities_of(scores: torch.Tensor) -> torch.Tensor:
    """Softmax of scores (classes, X, Y, Z) over classes.

    Certain background where no window came, which the engine scores as exactly 1, 0, 0, ...; a softmax of that would
    be the greatest doubt.
    """
    probabilities = scores.float().softmax(0)
    unseen = (scores[0] == 1) & (scores[1] == 0)
    probabilities[:, unseen] = 0
    probabilities[0][unseen] = 1
    return probabilities


def _slabs(scores: torch.Tensor) -> list[slice]:
    """Parts of the first axis, so that each is contiguous for each class."""
    classes, width, *rest = scores.shape
    step = max(1, _SLAB_ELEMENTS // (classes * math.prod(rest)))
    return [slice(start, start + step) for start in range(0, width, step)]
