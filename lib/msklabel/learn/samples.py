"""Prepared cases as training crops: what is drawn in an epoch, and the crops themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from msklabel.learn.annotation import UNKNOWN
from msklabel.learn.cases import PreparedCase
from msklabel.learn.replay import Item, balanced, replayed
from msklabel.pipeline.one_ahead import one_ahead
from msklabel.pipeline.padding import padded
from msklabel.pipeline.windows import Starts, window_slices, with_channels
from msklabel.sections import Augment, WindowPlaces
from msklabel.system import System


@dataclass(frozen=True)
class Part:
    """What training crops are cut from: a whole case or one of its sides, at least a patch in size.

    Attributes:
        image: Shape (C, X, Y, Z), float32.
        labels: Shape (X, Y, Z), uint8; ``UNKNOWN`` where nothing is known.
        known: Classes that were looked for, shape (classes,).
        site: Where the scan was made.
    """

    image: torch.Tensor
    labels: torch.Tensor
    known: torch.Tensor
    site: str | None

    def slices(self) -> NDArray[np.intp]:
        """Indices of the axial slices of which anything is known."""
        return np.flatnonzero((self.labels != UNKNOWN).any(dim=0).any(dim=0).numpy())


@dataclass(frozen=True)
class Batch:
    """Training crops: ``image`` (B, C, *patch) float32, ``labels`` (B, *patch) int64, ``known`` (B, classes) bool."""

    image: torch.Tensor
    labels: torch.Tensor
    known: torch.Tensor


_Place = tuple[Part, Starts]


class Samples:
    """Crops of prepared cases for one system's recipe.

    Args:
        system: The system.
        cases: Prepared cases, each seen in every epoch.
        seed: Same seed and epoch, same batches.
        older: Cases that are replayed beside them, balanced over class and site.
        replay: Share of an epoch's crops that come from ``older``, from 0 to below 1.
    """

    def __init__(
        self,
        system: System,
        cases: Sequence[PreparedCase],
        seed: int,
        older: Sequence[PreparedCase] = (),
        replay: float = 0.5,
    ) -> None:
        self.system = system
        self.parts = [part for case in cases for part in _parts(system, case)]
        self.older = [place for case in older for part in _parts(system, case) for place in self._items(part)]
        self.seed = seed
        self.replay = replay

    def epoch(self, number: int, rank: int = 0, world: int = 1, pinned: bool = False) -> Iterator[Batch]:
        """Batches of one epoch, the next one made while one is used.

        Args:
            number: Of the epoch, from 0.
            rank: Which of the processes asks; each gets its share of every batch.
            world: How many processes train together.
            pinned: Whether batches lie where a GPU fetches them from while it computes.
        """
        train = self.system.train
        rng = np.random.default_rng([self.seed, number])
        augment = _augmentation(train.augment, self.system.dimensions, int(rng.integers(2**31)))
        places = self._places(rng)
        order = rng.permutation(len(places))
        groups = [[places[i] for i in order[k : k + train.batch]] for k in range(0, len(order), train.batch)]
        # Where a batch has fewer crops than there are processes, those without one take one that another has, too.
        groups = [group[rank::world] or [group[rank % len(group)]] for group in groups]

        def batch(group: list[_Place]) -> Batch:
            crops = [augment(_crop(part, start, self.system)) for part, start in group]
            image = torch.stack([torch.as_tensor(crop["image"]) for crop in crops]).float()
            labels = torch.stack([torch.as_tensor(crop["labels"])[0] for crop in crops])
            known = torch.stack([part.known for part, _ in group])
            made = (image, labels.long(), known)
            return Batch(*(tensor.pin_memory() for tensor in made)) if pinned else Batch(*made)

        for made in one_ahead(batch, groups):
            yield made.result()

    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._places(np.random.default_rng(0))) // self.system.train.batch)

    def _places(self, rng: np.random.Generator) -> list[_Place]:
        """Where this epoch's crops begin."""
        places = [(part, start) for part in self.parts for start in self._starts(part, rng)]
        count = replayed(len(places), self.replay) if self.older else 0
        drawn = [self.older[index] for index in balanced([item for item, _, _ in self.older], count, rng)]
        return places + [(part, self._start(part, z, rng)) for _, part, z in drawn]

    def _items(self, part: Part) -> list[tuple[Item, Part, int | None]]:
        """What may be replayed of a part: each annotated slice in 2D, the whole in 3D."""
        slices: list[int | None] = [int(z) for z in part.slices()]
        chosen = slices if self.system.dimensions == 2 else [None] * bool(slices)
        return [(Item(part.site, frozenset(_present(_slice(part.labels, z)))), part, z) for z in chosen]

    def _starts(self, part: Part, rng: np.random.Generator) -> list[Starts]:
        """Where this epoch's crops of a part begin."""
        count = self.system.train.crops_per_scan
        flat = self.system.dimensions == 2
        slices = part.slices()
        if not len(slices):
            return []
        if count is None:
            chosen: list[int | None] = [int(z) for z in slices] if flat else [None]
        else:
            chosen = [int(rng.choice(slices)) if flat else None for _ in range(count)]
        return [self._start(part, z, rng) for z in chosen]

    def _start(self, part: Part, slice_index: int | None, rng: np.random.Generator) -> Starts:
        patch = self.system.patch_voxels
        room = [n - size for n, size in zip(part.labels.shape, patch, strict=True)]
        start = [int(rng.integers(free + 1)) for free in room]
        labels = _slice(part.labels, slice_index)
        unknown = labels == UNKNOWN
        if bool(unknown.any()):
            voxels = torch.nonzero(~unknown)
            inside = voxels[int(rng.integers(len(voxels)))]
            start = [
                int(rng.integers(max(0, int(v) - size + 1), min(int(v), free) + 1)) if free else 0
                for v, size, free in zip(inside, patch, room, strict=True)
            ]
        if rng.random() < self.system.train.foreground_fraction:
            present = _present(labels)
            if present:
                voxels = torch.nonzero(labels == int(rng.choice(present)))
                middle = voxels[int(rng.integers(len(voxels)))]
                start = [
                    min(max(int(m) - size // 2, 0), free) for m, size, free in zip(middle, patch, room, strict=True)
                ]
        if slice_index is not None:
            start[2] = slice_index
        return start[0], start[1], start[2]


def _augmentation(recipe: Augment, dimensions: int, seed: int) -> Callable[[dict[str, Any]], Any]:
    """What changes a crop; MONAI, which takes seconds to import, only where something is to be changed."""
    if recipe == Augment():
        return lambda crop: crop
    from msklabel.pipeline.augment import build_augmentation

    return build_augmentation(recipe, dimensions, seed)


def _parts(system: System, case: PreparedCase) -> list[Part]:
    patch, places = system.patch_voxels, system.predict.windows
    sides, labels = case.prepared.sides, case.prepared.parts(case.labels)
    images = case.prepared.parts(case.prepared.image)
    widths = sides.widths if sides else [len(case.labels)]
    return [
        Part(
            padded(image, patch, places),
            _padded_labels(_widened(part[:width], part.shape), patch, places),
            case.known,
            case.site,
        )
        for image, part, width in zip(images, labels, widths, strict=True)
    ]


def _padded_labels(labels: torch.Tensor, patch_voxels: Sequence[int], places: WindowPlaces) -> torch.Tensor:
    """Pad (X, Y, Z) as the image is."""
    if places == "from_edge":
        return padded(labels[None], patch_voxels, places)[0]
    return _widened(labels, [max(sizes) for sizes in zip(labels.shape, patch_voxels, strict=True)])


def _widened(labels: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Fill (X, Y, Z) up at the far ends: outside is background, but a slice that is unknown stays so."""
    x, y, z = (after - before for after, before in zip(shape, labels.shape, strict=True))
    far = (0, z, 0, y, 0, x)
    unknown = functional.pad((labels == UNKNOWN)[None, None].float(), far, mode="replicate")[0, 0] > 0
    return functional.pad(labels, far).masked_fill(unknown, UNKNOWN)


def _slice(labels: torch.Tensor, index: int | None) -> torch.Tensor:
    return labels if index is None else labels[..., index : index + 1]


def _present(labels: torch.Tensor) -> list[int]:
    """Indices of the labels that occur."""
    return [int(index) for index in np.unique(labels) if 0 < index < UNKNOWN]


def _crop(part: Part, start: Starts, system: System) -> dict[str, torch.Tensor]:
    place = window_slices(start, system.patch_voxels)
    image, labels = part.image[with_channels(place)], part.labels[place][None].float()
    if system.dimensions == 2:
        image, labels = image[..., 0], labels[..., 0]
    return {"image": image, "labels": labels}
