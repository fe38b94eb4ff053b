"""Which part of a scan a label speaks of; the rest is unknown, never background."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Annotated:
    """What an annotator has drawn; the default is everything.

    Attributes:
        classes: Names of the labels that were looked for; None for all of the system.
        slices: Indices, from 0, of the slices that were looked at, ascending; None for all.
        slice_axis: Axis of the scan as stored that ``slices`` counts along.
    """

    classes: tuple[str, ...] | None = None
    slices: tuple[int, ...] | None = None
    slice_axis: int = 2

    @property
    def complete(self) -> bool:
        """Whether nothing is left out."""
        return self.classes is None and self.slices is None

    def key(self, sha256: str) -> str:
        """Identity of a label that speaks of this: the checksum of its file, and more where that is not everything."""
        if self.complete:
            return sha256
        classes = None if self.classes is None else sorted(self.classes)
        of = repr((classes, self.slices, None if self.slices is None else self.slice_axis))
        return f"{sha256}-{hashlib.sha256(of.encode()).hexdigest()[:12]}"
