"""Distances between the surfaces of two label maps, in mm.

**The surface.** A voxel of a structure belongs to its surface if one of its face neighbours (6 in 3D, 4 in a slice) is
not of the structure; beyond the edge of the grid nothing is. This is what MONAI's ``get_mask_edges`` and MedPy take, so
that results are equal. Distances are Euclidean between voxel centres, in mm, with the voxel size along each axis.
DeepMind's ``surface-distance`` weighs surface elements by area instead; its averages differ slightly.

All labels are looked at in one pass: a voxel whose neighbour has another value is on the surface of its own label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Points = NDArray[np.int32]
_HD_PERCENTILE = 95.0


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance of every surface voxel of either structure from the other's surface, mm.

    Attributes:
        truth_mm: Shape (N,), from the truth's surface to the prediction's.
        predicted_mm: Shape (M,), the other way.
    """

    truth_mm: NDArray[np.float64]
    predicted_mm: NDArray[np.float64]

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean over both surfaces' voxels together (Imani et al. 2025, 2.4.3;
        Huysmans et al. 2023, 2.4). Kim et al. 2024 print the difference of the two, and mean this one."""
        both = np.concatenate([self.truth_mm, self.predicted_mm])
        return float(both.mean()) if self._defined else float("nan")

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the largest of all (Kim et al. 2024, equation 5)."""
        return float(max(self.truth_mm.max(), self.predicted_mm.max())) if self._defined else float("nan")

    @property
    def hd95_mm(self) -> float:
        """The larger of the 95th percentiles of either direction, interpolated linearly, as MONAI has it."""
        if not self._defined:
            return float("nan")
        return float(max(np.percentile(mm, _HD_PERCENTILE) for mm in (self.truth_mm, self.predicted_mm)))

    @property
    def _defined(self) -> bool:
        return bool(self.truth_mm.size and self.predicted_mm.size)


def surfaces(labels: NDArray[np.uint8], in_plane: int | None = None) -> dict[int, Points]:
    """Surface voxels of every label.

    Args:
        labels: Shape (X, Y, Z); 0 is background.
        in_plane: Axis across the slices of a 2D system: its neighbours do not count, so that the surface is the contour
            in each slice. An axis of one voxel never counts.

    Returns:
        For each value present: voxel indices, shape (N, 3), in the order of the array.
    """
    if labels.strides[0] < labels.strides[-1]:  # as files of images lie in memory; looked at along its grain
        mirrored = surfaces(labels.T, None if in_plane is None else 2 - in_plane)
        return {value: points[:, ::-1] for value, points in mirrored.items()}
    edge = np.zeros(labels.shape, bool)
    for axis in range(3):
        if axis == in_plane or labels.shape[axis] == 1:
            continue
        ahead, behind = _along(axis, slice(1, None)), _along(axis, slice(None, -1))
        change = labels[ahead] != labels[behind]
        edge[ahead] |= change
        edge[behind] |= change
        edge[_along(axis, slice(0, 1))] = True
        edge[_along(axis, slice(-1, None))] = True
    edge &= labels > 0
    flat = np.flatnonzero(edge)
    values = labels.ravel()[flat]
    by_label = np.argsort(values, kind="stable")
    points = np.stack(np.unravel_index(flat[by_label], labels.shape), axis=1).astype(np.int32)
    present, starts = np.unique(values[by_label], return_index=True)
    return dict(zip(map(int, present), np.split(points, starts[1:]), strict=True)) if len(present) else {}


def surface_distances(truth: Points, predicted: Points, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """Distances between two surfaces.

    Args:
        truth: Voxel indices, shape (N, 3).
        predicted: Shape (M, 3).
        spacing_mm: Voxel size along each axis.

    Returns:
        For each point, in its order; empty arrays where either surface is empty.
    """
    if not len(truth) or not len(predicted):
        return SurfaceDistances(np.empty(0), np.empty(0))
    return SurfaceDistances(_nearest(truth, predicted, spacing_mm), _nearest(predicted, truth, spacing_mm))


def _nearest(points: Points, targets: Points, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Distance of each point from the nearest target; most surfaces coincide for long stretches, which cost nothing."""
    distances = np.zeros(len(points))
    away = ~_shared(points, targets)
    if away.any():
        tree = cKDTree(targets * np.asarray(spacing_mm), balanced_tree=False, compact_nodes=False)
        distances[away] = tree.query(points[away] * np.asarray(spacing_mm), workers=-1)[0]
    return distances


def _shared(points: Points, targets: Points) -> NDArray[np.bool_]:
    low = np.minimum(points.min(axis=0), targets.min(axis=0))
    size = np.maximum(points.max(axis=0), targets.max(axis=0)) - low + 1
    inside = np.zeros(size, bool)
    inside[tuple((targets - low).T)] = True
    return inside[tuple((points - low).T)]


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    place = [slice(None)] * 3
    place[axis] = part
    return tuple(place)
