"""All that choosing knows of the scans of a store, as columns of one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Opinion:
    """What the models of one system say of each scan of a pool; a row is NaN where a scan was not scored.

    Attributes:
        system: Name of the system.
        labels: Its labels, in order of index.
        entropy: Shape (scans, labels): class-balanced entropy, 0 to 1; NaN for a label that is not predicted.
        area: Shape (scans, labels): how much of a label is expected; any unit.
        predicted_dice: Shape (scans,): 0 to 1.
        embedding: Shape (scans, features): of the network, else of the image alone; rows of length 1.
        typicality: Shape (scans,): see :func:`msklabel.choose.diversity.typicality`; NaN without embedding.
        fresh: Shape (scans,): whether the version in service said so.
        broken: Shape (scans,): whether the network gave no numbers.
        round: How many versions there are: 0 before the first.
    """

    system: str
    labels: tuple[str, ...]
    entropy: Floats
    area: Floats
    predicted_dice: Floats
    embedding: Vectors
    typicality: Floats
    fresh: Flags
    broken: Flags
    round: int

    @cached_property
    def scored(self) -> Flags:
        """Whether a model judged each scan, and gave numbers; shape (scans,)."""
        judged: Flags = ~np.isnan(self.predicted_dice) | ~np.isnan(self.entropy).all(axis=1)
        return judged & ~self.broken

    @cached_property
    def uncertainty(self) -> Floats:
        """Mean entropy over the labels that a scan has; shape (scans,)."""
        return row_mean(self.entropy)


@dataclass(frozen=True)
class Pool:
    """The scans of a store, and who has what.

    Attributes:
        ids: Identifiers, sorted.
        patient: Shape (scans,): number of each scan's patient.
        site: Shape (scans,): number of each scan's site.
        taken: Shape (scans,): whether a scan is labelled, or with an annotator now.
        open: Shape (scans,): whether it can be given to whoever asks; labelled ones, too, where slices are left.
        own: Shape (scans,): whether it is with whoever asks already.
        opinions: By system; those that fit each scan.
        fits: By system, shape (scans,): whether the scan may be the system's, by its modality and channels.
        site_names: Name of each site.
        having: By system, shape (scans, labels): which labels are in the newest label map of each scan.
        left: By system, gives an array of shape (scans, labels + 1): which share of what is worth drawing is not drawn
            yet, for each label and, last, for all alike; 1 throughout where nothing is said.
        choices: How many scans were given before, to others or with a label now; as many as are taken by default. Who
            asks again is in the same turn as before.
    """

    ids: Sequence[str]
    patient: Indices
    site: Indices
    taken: Flags
    open: Flags
    own: Flags
    opinions: Mapping[str, Opinion] = field(default_factory=dict)
    fits: Mapping[str, Flags] = field(default_factory=dict)
    site_names: Sequence[str] = ("",)
    having: Mapping[str, Flags] = field(default_factory=dict)
    left: Mapping[str, Callable[[], Floats]] = field(default_factory=dict)
    choices: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Place of each scan by its identifier."""
        return {image_id: place for place, image_id in enumerate(self.ids)}

    @property
    def candidates(self) -> Indices:
        """Places of the scans that can be given."""
        return np.flatnonzero(self.open)

    @property
    def patients_taken(self) -> Flags:
        """Whether another scan of the same patient is taken; shape (scans,)."""
        seen: Flags = np.zeros(int(self.patient.max(initial=-1)) + 1, bool)
        seen[self.patient[self.taken]] = True
        return seen[self.patient]

    @property
    def site_counts(self) -> Indices:
        """Scans taken from each site."""
        return np.bincount(self.site[self.taken], minlength=len(self.site_names))


def row_mean(values: Floats) -> Floats:
    """Mean of each row without NaN; NaN for a row of nothing else."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
