"""Labelled scans as training crops: what is drawn in an epoch, and the crops themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from msklabel.imaging.scan import Scan
from msklabel.pipeline.augment import build_augmentation
from msklabel.pipeline.preprocess import Prepared, Preprocess
from msklabel.predict.engine import padded
from msklabel.predict.windows import Starts, window_slices, with_channels
from msklabel.system import System


@dataclass(frozen=True)
class Case:
    """A labelled scan to learn from or to validate with.

    Attributes:
        id: Identifier of the scan.
        patient: Identifier of the patient; all scans of one stay together.
        load: Reads the scan and its label map (X, Y, Z), uint8.
    """

    id: str
    patient: str
    load: Callable[[], tuple[Scan, NDArray[np.uint8]]]


@dataclass(frozen=True)
class PreparedCase:
    """A case on the working crop.

    Attributes:
        prepared: The scan.
        labels: Shape (X, Y, Z) of the crop, uint8.
    """

    prepared: Prepared
    labels: torch.Tensor


@dataclass(frozen=True)
class Part:
    """What training crops are cut from: a whole case or one of its sides, at least a patch in size.

    Attributes:
        image: Shape (C, X, Y, Z), float32.
        labels: Shape (X, Y, Z), uint8.
    """

    image: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Training crops: ``image`` (B, C, *patch) float32 and ``labels`` (B, *patch) int64; two axes in 2D."""

    image: torch.Tensor
    labels: torch.Tensor


def prepare_case(system: System, case: Case) -> PreparedCase:
    """Read a case and bring it to the working grid."""
    scan, labels = case.load()
    preprocess = Preprocess(system)
    prepared = preprocess(scan)
    return PreparedCase(prepared, preprocess.labels(labels, prepared.grid))


def _parts(system: System, case: PreparedCase) -> list[Part]:
    images, labels = case.prepared.parts(case.prepared.image), case.prepared.parts(case.labels)
    return [
        Part(padded(image, system.patch_voxels), padded(part[None], system.patch_voxels)[0])
        for image, part in zip(images, labels, strict=True)
    ]


class Samples:
    """Crops of prepared cases for one system's recipe.

    Args:
        system: The system.
        cases: Prepared cases.
        seed: Same seed and epoch, same batches.
    """

    def __init__(self, system: System, cases: Sequence[PreparedCase], seed: int) -> None:
        self.system = system
        self.parts = [part for case in cases for part in _parts(system, case)]
        self.seed = seed

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of one epoch, the next one made while one is used."""
        train = self.system.train
        rng = np.random.default_rng([self.seed, number])
        augment = build_augmentation(train.augment, self.system.dimensions, int(rng.integers(2**31)))
        places = [(part, start) for part in self.parts for start in self._starts(part, rng)]
        order = rng.permutation(len(places))
        groups = [[places[i] for i in order[k : k + train.batch]] for k in range(0, len(order), train.batch)]

        def batch(group: list[tuple[Part, Starts]]) -> Batch:
            crops = [augment(self._crop(part, start)) for part, start in group]
            image = torch.stack([torch.as_tensor(crop["image"]) for crop in crops]).float()
            labels = torch.stack([torch.as_tensor(crop["labels"])[0] for crop in crops])
            return Batch(image, labels.long())

        with ThreadPoolExecutor(max_workers=1) as ahead:
            following = ahead.submit(batch, groups[0])
            for group in [*groups[1:], None]:
                ready = following.result()
                if group is not None:
                    following = ahead.submit(batch, group)
                yield ready

    def steps(self) -> int:
        """Batches in an epoch."""
        rng = np.random.default_rng(0)
        return -(-sum(len(self._starts(part, rng)) for part in self.parts) // self.system.train.batch)

    def _starts(self, part: Part, rng: np.random.Generator) -> list[Starts]:
        """Where this epoch's crops of a part begin."""
        train = self.system.train
        flat = self.system.dimensions == 2
        slices = np.flatnonzero(part.labels.any(dim=0).any(dim=0).numpy()) if flat else np.array([])
        if flat and not len(slices):
            return []
        if train.crops_per_scan is None:
            chosen: list[int | None] = [int(z) for z in slices] if flat else [None]
        else:
            chosen = [int(rng.choice(slices)) if flat else None for _ in range(train.crops_per_scan)]
        return [self._start(part, z, rng) for z in chosen]

    def _start(self, part: Part, slice_index: int | None, rng: np.random.Generator) -> Starts:
        patch = self.system.patch_voxels
        room = [n - size for n, size in zip(part.labels.shape, patch, strict=True)]
        start = [int(rng.integers(free + 1)) for free in room]
        if rng.random() < self.system.train.foreground_fraction:
            labels = part.labels if slice_index is None else part.labels[..., slice_index : slice_index + 1]
            present = np.unique(labels)
            present = present[present > 0]
            if len(present):
                voxels = torch.nonzero(labels == int(rng.choice(present)))
                middle = voxels[int(rng.integers(len(voxels)))]
                start = [
                    min(max(int(m) - size // 2, 0), free) for m, size, free in zip(middle, patch, room, strict=True)
                ]
        if slice_index is not None:
            start[2] = slice_index
        return start[0], start[1], start[2]

    def _crop(self, part: Part, start: Starts) -> dict[str, torch.Tensor]:
        place = window_slices(start, self.system.patch_voxels)
        image, labels = part.image[with_channels(place)], part.labels[place][None].float()
        if self.system.dimensions == 2:
            image, labels = image[..., 0], labels[..., 0]
        return {"image": image, "labels": labels}
