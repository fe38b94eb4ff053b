"""Labelled scans: what is read, and what of it is on the working grid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.scan import Scan
from msklabel.learn.annotation import keep_drawn_slices, known_classes, known_labels
from msklabel.pipeline.grid import turned_grid
from msklabel.pipeline.preprocess import Prepared, Preprocess
from msklabel.system import System

_EVERYTHING = Annotated()


@dataclass(frozen=True)
class Case:
    """A labelled scan to learn from or to validate with.

    Attributes:
        id: Identifier of the scan.
        patient: Identifier of the patient; all scans of one stay together.
        load: Reads the scan and its label map (X, Y, Z), uint8.
        annotated: What the label speaks of.
        site: Where the scan was made, if that is known.
        label: Identity of the label (:meth:`Annotated.key`); empty where nothing about it is to be kept for later.
        image: Changes whenever the scan's file does.
        accepted: Whether a reviewer vouches for the label.
    """

    id: str
    patient: str
    load: Callable[[], tuple[Scan, NDArray[np.uint8]]]
    annotated: Annotated = _EVERYTHING
    site: str | None = None
    label: str = ""
    image: str = ""
    accepted: bool = False

    @property
    def key(self) -> str:
        """What is kept about it belongs to this: its scan, its label and the scan's file."""
        return f"{self.id}:{self.label}:{hashlib.sha256(self.image.encode()).hexdigest()[:12]}"

    def read(self, system: System) -> tuple[Scan, NDArray[np.uint8]]:
        """The scan, and its label map in which what is not known is ``UNKNOWN``.

        Raises:
            Unusable: If it cannot be read, or the label is not of this scan any more.
        """
        with blamed_on(self):
            scan, labels = self.load()
            if labels.shape != scan.shape:
                has, had = (" x ".join(map(str, shape)) for shape in (scan.shape, labels.shape))
                raise UserError(f"the scan has {has} voxels now, its label {had}")
            across = turned_grid(scan, system.orientation).axes[2]
            return scan, known_labels(system, labels, self.annotated, across)


@dataclass(frozen=True)
class LeftOut:
    """A labelled scan that a training does without.

    Attributes:
        label: Identity of its label.
        image: Identity of its file.
        reason: What is wrong.
    """

    label: str
    image: str
    reason: str


class Unusable(UserError):
    """A labelled scan that nothing can be learned from; the others can be."""

    def __init__(self, case: Case, reason: str) -> None:
        super().__init__(f"{case.id}: {reason}")
        self.case = case
        self.reason = reason


@contextmanager
def blamed_on(case: Case) -> Iterator[None]:
    """Say of which case it is what is wrong with the case, but not what is wrong with the disk or a PACS."""
    try:
        yield
    except Unusable:
        raise
    except UserError as error:
        if error.status >= 500:
            raise
        raise Unusable(case, str(error)) from error


@dataclass(frozen=True)
class PreparedCase:
    """A case on the working crop.

    Attributes:
        prepared: The scan.
        labels: Shape (X, Y, Z) of the crop, uint8; ``UNKNOWN`` where nothing is known.
        known: Classes that were looked for, shape (classes,), boolean; the background always.
        site: As in :class:`Case`.
    """

    prepared: Prepared
    labels: torch.Tensor
    known: torch.Tensor
    site: str | None = None


def prepare_case(system: System, case: Case) -> PreparedCase:
    """Read a case and bring it to the working grid.

    Raises:
        Unusable: If that cannot be done with this one.
    """
    scan, labels = case.read(system)
    preprocess = Preprocess(system)
    with blamed_on(case):
        prepared = preprocess(scan)
    grid = prepared.grid
    labels = grid.deorient(keep_drawn_slices(grid.orient(labels), grid.along))
    known = torch.from_numpy(known_classes(system, case.annotated))
    return PreparedCase(prepared, preprocess.labels(labels, grid), known, case.site)
