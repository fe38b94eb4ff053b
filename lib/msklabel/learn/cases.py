"""Labelled scans: what is read, and what of it is on the working grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

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

    def read(self, system: System) -> tuple[Scan, NDArray[np.uint8]]:
        """The scan, and its label map in which what is not known is ``UNKNOWN``."""
        scan, labels = self.load()
        across = turned_grid(scan, system.orientation).axes[2]
        return scan, known_labels(system, labels, self.annotated, across)


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
    """Read a case and bring it to the working grid."""
    scan, labels = case.read(system)
    preprocess = Preprocess(system)
    prepared = preprocess(scan)
    grid = prepared.grid
    labels = grid.deorient(keep_drawn_slices(grid.orient(labels), grid.working_shape))
    known = torch.from_numpy(known_classes(system, case.annotated))
    return PreparedCase(prepared, preprocess.labels(labels, grid), known, case.site)
