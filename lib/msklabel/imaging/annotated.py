"""Which part of a scan a label speaks of; the rest is unknown, never background."""

from __future__ import annotations

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
