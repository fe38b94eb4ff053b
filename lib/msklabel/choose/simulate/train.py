"""A short training on drawn slices: the same number of steps whatever is drawn, from fresh weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from msklabel.choose.simulate.scans import Case, Drawn
from msklabel.learn.annotation import UNKNOWN
from msklabel.networks import Weights, build_network, weights_of
from msklabel.pipeline.padding import margins, padded
from msklabel.pipeline.windows import with_channels
from msklabel.system import System

SNAPSHOTS = (0.8, 0.9, 1.0)  # when weights are kept, as shares of the training
_SMOOTH = 1.0


def train(system: System, pool: Sequence[Case], drawn: Drawn, steps: int, seed: int) -> list[Weights]:
    """Train on what is drawn; the rest is ignored.

    Args:
        system: Gives network, patch, batch and learning rate.
        pool: All cases.
        drawn: What is known.
        steps: Optimiser steps.
        seed: Of weights, order and mirroring.

    Returns:
        Weights at ``SNAPSHOTS``, the last ones last.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 2])
    network = build_network(system).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=system.train.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / (steps + 1)) ** 0.9)
    places = [(scan, z) for scan in sorted(drawn) for z in sorted(drawn[scan])]
    parts = {scan: _parts(system, pool[scan], drawn[scan]) for scan in drawn}
    kept: list[Weights] = []
    for step in range(1, steps + 1):
        crops = []
        for pick in rng.integers(len(places), size=system.train.batch):
            scan, z = places[pick]
            part = int(rng.integers(len(parts[scan]))) if len(parts[scan]) > 1 else 0
            crops.append(_crop(system, parts[scan][part], z, rng))
        image, target = torch.stack([crop[0] for crop in crops]), torch.stack([crop[1] for crop in crops])
        optimizer.zero_grad(set_to_none=True)
        loss = sparse_loss(network(image), target)
        loss.backward()
        optimizer.step()
        schedule.step()
        kept += [weights_of(network) for share in SNAPSHOTS if step == max(1, round(share * steps))]
    return kept


def sparse_loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Dice over the known voxels; background counts in the first only.

    Args:
        scores: Shape (B, classes, *space).
        target: Shape (B, *space), ``UNKNOWN`` where nothing is known.
    """
    known = target != UNKNOWN
    entropy = functional.cross_entropy(scores, target, ignore_index=UNKNOWN)
    p = scores.softmax(1).movedim(1, -1)[known]
    truth = functional.one_hot(target[known], scores.shape[1])
    both, total = (p * truth).sum(0)[1:], (p + truth).sum(0)[1:]
    there = truth.sum(0)[1:] > 0
    dice = (2 * both + _SMOOTH) / (total + _SMOOTH)
    return entropy + (1 - dice[there].mean() if there.any() else 0)


@dataclass(frozen=True)
class _Part:
    """What the network sees of a case, the whole or one side as a right one: at least a patch in size.

    Attributes:
        image: Shape (C, X, Y, Z).
        labels: Shape (X, Y, Z), ``UNKNOWN`` where nothing is known.
        first: Slice of these where the case's first one is.
    """

    image: torch.Tensor
    labels: torch.Tensor
    first: int


def _parts(system: System, case: Case, slices: set[int]) -> list[_Part]:
    patch, places, drawn = system.patch_voxels, system.predict.windows, sorted(slices)
    whole = case.prepared.image, torch.from_numpy(case.labels)
    found = []
    for image, labels in zip(*map(case.prepared.parts, whole), strict=True):
        known = torch.full(labels.shape, UNKNOWN)
        known[:, :, drawn] = labels[:, :, drawn].long()
        around = margins(labels.shape, patch, places)
        outside = [n for ends in reversed(around) for n in ends]
        found.append(_Part(padded(image, patch, places), functional.pad(known, outside, value=UNKNOWN), around[2][0]))
    return found


def _crop(system: System, part: _Part, z: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A patch that holds a drawn slice, mirrored along the first axis half of the time where both sides are seen."""
    patch, labels, z = system.patch_voxels, part.labels, z + part.first
    start = [int(rng.integers(n - size + 1)) for n, size in zip(labels.shape, patch, strict=True)]
    lowest, highest = max(0, z - patch[2] + 1), min(z, labels.shape[2] - patch[2])
    start[2] = int(rng.integers(lowest, highest + 1))
    x, y, depth = (slice(first, first + size) for first, size in zip(start, patch, strict=True))
    piece, known = part.image[with_channels((x, y, depth))], labels[x, y, depth]
    if system.dimensions == 2:
        piece, known = piece[..., 0], known[..., 0]
    if rng.random() < 0.5 and system.laterality == "none":
        piece, known = piece.flip(1), known.flip(0)
    return piece, known
