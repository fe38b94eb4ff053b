"""Blend the scores of overlapping windows slice by slice: finished slices leave before later windows come.

Windows come in order of the last axis, so that only as many slices are held as a window is deep, whatever the scan's
length.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from msklabel.pipeline.windows import with_channels

_SLICES_AT_ONCE = 8


class Blender:
    """Weighted mean of windows over one image.

    Args:
        shape: Voxels of the image along each axis. What a window has beyond them, at either end, is left out.
        classes: Scores of each voxel.
        weights: Shape of a window: weight of each of its voxels.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, weights: torch.Tensor) -> None:
        width, height, self._depth = self._shape = shape
        self._weights = weights
        self._held = min(weights.shape[2], self._depth)  # slices, in turn: slice z lies at z modulo this
        # The scores of a voxel lie side by side: so they leave networks, and so they are reduced.
        self._total = torch.zeros((width, height, self._held, classes), device=weights.device).movedim(-1, 0)
        self._norm = torch.zeros((width, height, self._held), device=weights.device)
        self._first = 0  # slice that has not left yet

    def add(self, place: tuple[slice, slice, slice], scores: torch.Tensor) -> None:
        """Add the scores (classes, *window) of a window; none may start before a slice that has left."""
        x, y, z = (
            slice(max(0, part.start), min(part.stop, size)) for part, size in zip(place, self._shape, strict=True)
        )
        own_x, own_y, own_z = (
            slice(inside.start - p.start, inside.stop - p.start) for inside, p in zip((x, y, z), place, strict=True)
        )
        first = z.start % self._held
        count = min(self._held - first, z.stop - z.start)
        turn = own_z.start + count  # slice of the window from which on they lie at the beginning again
        for own, held in (
            (slice(own_z.start, turn), slice(first, first + count)),
            (slice(turn, own_z.stop), slice(0, own_z.stop - turn)),
        ):
            weights = self._weights[own_x, own_y, own]
            if weights.numel():
                self._total[with_channels((x, y, held))].addcmul_(scores[:, own_x, own_y, own], weights)
                self._norm[x, y, held] += weights

    def finished(self, before: int) -> Iterator[torch.Tensor]:
        """Let the slices before one go, a few at a time.

        Yields:
            Scores (classes, X, Y, slices); where no window came the background has 1, all others 0.
        """
        while self._first < min(before, self._depth):
            start = self._first % self._held
            count = min(_SLICES_AT_ONCE, self._held - start, min(before, self._depth) - self._first)
            total, norm = self._total[..., start : start + count], self._norm[..., start : start + count]
            unseen = norm == 0
            classes, width, height, _ = total.shape
            # Slice after slice, as they are restored.
            scores = torch.empty((count, width, height, classes), device=total.device).permute(3, 1, 2, 0)
            torch.div(total, torch.where(unseen, 1, norm), out=scores)
            scores[0].masked_fill_(unseen, 1)
            if self._first + self._held < self._depth:
                total.zero_()
                norm.zero_()
            self._first += count
            yield scores
