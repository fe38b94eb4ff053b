"""The way back: class scores on a working crop to label indices on the scan's own grid, slice after slice.

Scores are interpolated linearly and the highest wins, voxel by voxel; but where all working voxels that a native voxel
draws on agree on their highest class, every mean of theirs agrees as well. So only the borders of labels are
interpolated at all, and an array of scores on the native grid never exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from msklabel.pipeline.grid import Grid
from msklabel.pipeline.resample import AxisMap, linear_weights

_SLICES_AT_ONCE = 8
Choice = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Taps:
    """What each native voxel along an axis draws on.

    Attributes:
        start: First native voxel whose centre lies in the crop.
        index: Shape (native voxels in the crop, taps), voxels of the crop, rising along each row.
        weight: The same shape, float32; each row sums to 1.
    """

    start: int
    index: NDArray[np.intp]
    weight: NDArray[np.float32]


class Restorer:
    """Takes the slices of a crop one after the other and keeps only those that are still needed.

    Args:
        grid: Where the crop lies.
        whole_slices: Interpolate every voxel, not only at the borders of labels. On a GPU that is quicker than to look
            for borders on the processor, and nothing has to wait for the GPU before :meth:`labels` is called.
    """

    def __init__(self, grid: Grid, whole_slices: bool = False) -> None:
        axes = zip(grid.along, grid.crop, strict=True)
        self._x, self._y, self._z = (native_taps(along.back(), crop) for along, crop in axes)
        x, y, z = grid.oriented_shape
        self._labels = np.zeros((z, x, y), np.uint8)
        widths = [crop.stop - crop.start for crop in grid.crop]
        self._matrices = (_matrix(self._x, widths[0]), _matrix(self._y, widths[1])) if whole_slices else None
        self._chosen: list[torch.Tensor] = []  # labels of whole slices, (native X, native Y) in the crop
        self._rows: dict[int, torch.Tensor] = {}  # scores of a working slice, (X * Y, classes)
        self._maps: dict[int, NDArray[np.uint8]] = {}  # its labels, (X, Y)
        self._seen = 0
        self._done = 0

    def add(self, scores: torch.Tensor) -> None:
        """Take the next slices of the crop.

        Args:
            scores: Shape (classes, X, Y, slices), class 0 the background; not changed afterwards, as they are kept,
                and on the processor unless whole slices are interpolated.
        """
        if self._matrices is not None:  # copied to the scores' device once: each copy would wait for it
            along_x, along_y = self._matrices
            self._matrices = along_x.to(scores), along_y.to(scores)
        for part in scores.split(_SLICES_AT_ONCE, dim=-1):
            rows = part.permute(3, 1, 2, 0).contiguous()
            if self._matrices is None:
                self._maps |= enumerate(_best(rows).numpy(), self._seen)
            for slice_rows in rows.flatten(1, 2):
                self._rows[self._seen] = slice_rows
                self._seen += 1
            self._restore_ready()

    def labels(self) -> NDArray[np.uint8]:
        """Labels of the whole scan, shape ``grid.oriented_shape``; outside the crop all is background.

        Raises:
            RuntimeError: If slices are missing.
        """
        if self._done < len(self._z.index):
            raise RuntimeError(f"{self._seen} slices of the crop came, which reach {self._done} of the scan's own")
        if self._chosen:
            self._place(self._z.start, torch.stack(self._chosen).cpu().numpy())
            self._chosen = []
        return self._labels.transpose(1, 2, 0)

    def _restore_ready(self) -> None:
        index = self._z.index
        while self._done < len(index) and index[self._done, -1] < self._seen:
            self._restore(self._done)
            self._done += 1
        needed = int(index[self._done, 0]) if self._done < len(index) else self._seen
        for place in [place for place in self._rows if place < needed]:
            del self._rows[place]
            self._maps.pop(place, None)

    def _restore(self, number: int) -> None:
        """One native slice."""
        places, shares = self._z.index[number], self._z.weight[number]
        used = [(int(place), float(share)) for place, share in zip(places, shares, strict=True) if share]
        if self._matrices is not None:
            along_x, along_y = self._matrices
            scores = self._between(used).unflatten(0, (along_x.shape[1], along_y.shape[1]))
            self._chosen.append((along_y @ torch.tensordot(along_x, scores, 1)).argmax(-1).to(torch.uint8))
            return
        near = [self._maps[place] for place, _ in used]
        low = _over_taps(np.minimum, reduce(np.minimum, near), self._x, self._y)
        high = _over_taps(np.maximum, reduce(np.maximum, near), self._x, self._y)
        border = low != high
        if border.any():
            low[border] = _highest(self._between(used), near[0].shape[1], border, self._x, self._y)
        self._place(self._z.start + number, low[None])

    def _between(self, used: list[tuple[int, float]]) -> torch.Tensor:
        """Scores (X * Y, classes) at a native slice, from the working slices around it with their shares."""
        rows = self._rows[used[0][0]] * used[0][1]
        for place, share in used[1:]:
            rows.add_(self._rows[place], alpha=share)
        return rows

    def _place(self, first: int, slices: NDArray[np.uint8]) -> None:
        """Put labels (slices, native X, native Y) of the crop where they lie in the scan."""
        (z, width, height), x, y = slices.shape, self._x.start, self._y.start
        self._labels[first : first + z, x : x + width, y : y + height] = slices


def native_taps(back: AxisMap, crop: slice) -> Taps:
    """What native voxels draw on along one axis of a working grid; what would fall outside the crop goes to its border.

    Args:
        back: How the native voxels lie along the working ones.
        crop: Of the working voxels.
    """
    there, end = back.back(), back.size_out
    start = int(np.ceil(there.edge(crop.start) - 0.5)) if crop.start else 0
    stop = max(int(np.ceil(there.edge(crop.stop) - 0.5)), start + 1) if crop.stop < back.size_in else end
    start, stop = min(max(start, 0), end - 1), min(stop, end)
    rows = linear_weights(back, start, stop)
    inside = rows[:, crop].copy()
    inside[:, 0] += rows[:, : crop.start].sum(axis=1)
    inside[:, -1] += rows[:, crop.stop :].sum(axis=1)
    used = inside != 0
    first = used.argmax(axis=1)
    last = inside.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
    wanted = first[:, None] + np.arange(int((last - first).max()) + 1)
    index = np.minimum(wanted, last[:, None])
    weight = np.where(wanted <= last[:, None], np.take_along_axis(inside, index, axis=1), 0)
    return Taps(start, index, weight.astype(np.float32))


def _matrix(taps: Taps, width: int) -> torch.Tensor:
    """The same as a matrix (native voxels in the crop, voxels of the crop)."""
    matrix = np.zeros((len(taps.index), width), np.float32)
    np.add.at(matrix, (np.arange(len(matrix))[:, None], taps.index), taps.weight)
    return torch.from_numpy(matrix)


def _over_taps(choice: Choice, labels: NDArray[np.uint8], x: Taps, y: Taps) -> NDArray[np.uint8]:
    """Lowest or highest label (X, Y) among those that each native voxel of a slice draws on."""
    for axis, taps in enumerate((x, y)):
        labels = reduce(choice, (labels.take(column, axis=axis) for column in taps.index.T))
    return labels


def _highest(rows: torch.Tensor, width: int, border: NDArray[np.bool_], x: Taps, y: Taps) -> NDArray[np.uint8]:
    """Class with the highest interpolated score of some native voxels of a slice.

    Args:
        rows: Shape (X * Y, classes), scores of the slice in working voxels.
        width: Working voxels along Y.
        border: Shape (native X, native Y), which voxels.
        x: Along X.
        y: Along Y.

    Returns:
        One class for each of them, row by row.
    """
    at_x, at_y = torch.from_numpy(border).nonzero(as_tuple=True)
    index_x, index_y = (torch.from_numpy(index.astype(np.int32)) for index in (x.index * width, y.index))
    weight_x, weight_y = torch.from_numpy(x.weight), torch.from_numpy(y.weight)
    interpolated = functional.embedding_bag(
        (index_x[at_x][:, :, None] + index_y[at_y][:, None]).flatten(1),
        rows,
        per_sample_weights=(weight_x[at_x][:, :, None] * weight_y[at_y][:, None]).flatten(1),
        mode="sum",
    )
    return _best(interpolated).numpy()


def _best(scores: torch.Tensor) -> torch.Tensor:
    """Index of the highest score (..., classes), uint8; ``argmax`` takes half as long again on a processor."""
    return scores.max(-1).indices.to(torch.uint8)
