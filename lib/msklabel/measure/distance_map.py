"""Where two surfaces of one structure lie apart: the map that the hip abductor study draws on its muscles."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from msklabel.errors import UserError
from msklabel.imaging.geometry import Affine, spacing_mm
from msklabel.measure.surface import surfaces

_MOST_MM = 10.0  # colours end here at the latest
_AXES = ("x (mm), to the patient's right", "y (mm), to the front", "z (mm), to the head")
_LARGEST_INCHES, _SMALLEST_INCHES, _TITLE_INCHES = 4.5, 1.6, 6.5  # of a view, and the figure's least width
_CHARACTERS = 12  # of the title in an inch


@dataclass(frozen=True)
class DistanceMap:
    """Signed distance of every surface voxel of the first label map from the surface of the second.

    Attributes:
        array: Shape (X, Y, Z), float32, mm; negative where the first lies inside the second, NaN off its surface.
        points: Vertices of the first's surface, RAS mm, shape (N, 3).
        faces: Triangles of them, shape (M, 3).
        at_points_mm: The distance at each vertex.
    """

    array: NDArray[np.float32]
    points: NDArray[np.float64]
    faces: NDArray[np.int64]
    at_points_mm: NDArray[np.float64]


def distance_map(first: NDArray[np.bool_], second: NDArray[np.bool_], affine: Affine) -> DistanceMap:
    """Map the distance between two surfaces on the first of them.

    Surface voxels are those of :mod:`msklabel.measure.surface`; distances go between voxel centres, so that the largest
    absolute value is the directed Hausdorff distance. The triangles are those of marching cubes at the half level.

    Args:
        first: Shape (X, Y, Z); the truth, say.
        second: The same grid.
        affine: Voxel index to RAS mm.

    Raises:
        UserError: If either is empty.
    """
    if not first.any() or not second.any():
        raise UserError("a distance map needs the structure in both label maps")
    edges = [np.zeros(first.shape, bool) for _ in range(2)]
    for edge, mask in zip(edges, (first, second), strict=True):
        edge[tuple(surfaces(mask.astype(np.uint8))[1].T)] = True
    away = ndimage.distance_transform_edt(~edges[1], sampling=spacing_mm(affine))
    signed = np.where(second, -away, away)
    array = np.where(edges[0], signed, np.nan).astype(np.float32)
    vertices, faces, *_ = measure.marching_cubes(np.pad(first, 1).astype(np.float32), 0.5)
    vertices = vertices - 1
    nearest = ndimage.distance_transform_edt(
        ~edges[0], sampling=spacing_mm(affine), return_distances=False, return_indices=True
    )
    voxels = np.clip(np.rint(vertices).astype(int), 0, np.array(first.shape) - 1)
    at = array[tuple(axis[tuple(voxels.T)] for axis in nearest)]
    return DistanceMap(array, vertices @ affine[:3, :3].T + affine[:3, 3], faces.astype(np.int64), at.astype(float))


def vtk_text(found: DistanceMap, title: str) -> str:
    """The surface with its distances as a legacy VTK PolyData file; 3D Slicer and ParaView read it (RAS mm)."""
    lines = ["# vtk DataFile Version 3.0", title.replace("\n", " ")[:250], "ASCII", "DATASET POLYDATA"]
    lines.append(f"POINTS {len(found.points)} float")
    lines += [f"{x:.4f} {y:.4f} {z:.4f}" for x, y, z in found.points]
    lines.append(f"POLYGONS {len(found.faces)} {4 * len(found.faces)}")
    lines += [f"3 {a} {b} {c}" for a, b, c in found.faces]
    lines += [f"POINT_DATA {len(found.points)}", "SCALARS distance_mm float 1", "LOOKUP_TABLE default"]
    lines += [f"{mm:.4f}" for mm in found.at_points_mm]
    return "\n".join(lines) + "\n"


def distance_figure(found: DistanceMap, title: str) -> Figure:
    """The coloured surface from the front and from the patient's right, each without perspective and to one scale."""
    most = min(_MOST_MM, max(1.0, float(np.abs(found.at_points_mm).max())))
    extent = np.ptp(found.points, axis=0)
    inches = _LARGEST_INCHES / extent.max()
    widths = [max(_SMALLEST_INCHES, inches * extent[axis]) for axis in (0, 1)]
    size = max(_TITLE_INCHES, sum(widths) + 2.6), max(_SMALLEST_INCHES, inches * extent[2]) + 1.4
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=widths)
    for axes, (view, across, depth) in zip(panels, (("from the front", 0, 1), ("from the right", 1, 0)), strict=True):
        drawn = _seen(found, across, depth)
        drawn.set_clim(-most, most)
        axes.add_collection(drawn)
        axes.autoscale_view()
        axes.margins(0.06)
        axes.set_aspect("equal")
        axes.set_title(view, fontsize=9)
        axes.set_xlabel(_AXES[across], fontsize=8)
        axes.tick_params(labelsize=8)
        for axis, mm in ((axes.xaxis, extent[across]), (axes.yaxis, extent[2])):
            axis.set_major_locator(MaxNLocator(int(np.clip(1.5 * inches * mm, 2, 5))))
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    panels[0].set_ylabel(_AXES[2], fontsize=8)
    panels[0].invert_xaxis()  # the patient's right on the left
    figure.colorbar(drawn, ax=panels, label="distance (mm), negative inside")
    figure.suptitle(textwrap.fill(title, int(_CHARACTERS * size[0])), fontsize=10)
    return figure


def _seen(found: DistanceMap, across: int, depth: int) -> PolyCollection:
    """The triangles as they look along an axis, the nearest drawn last."""
    corners = found.points[found.faces]
    order = np.argsort(corners[..., depth].mean(axis=1))
    drawn = PolyCollection(list(corners[order][..., [across, 2]]), cmap="coolwarm", linewidths=0.3)
    drawn.set_array(found.at_points_mm[found.faces].mean(axis=1)[order])
    drawn.set_edgecolor("face")
    return drawn
