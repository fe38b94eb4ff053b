"""Where two surfaces of one structure lie apart: the map that the hip abductor study draws on its muscles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from msklabel.errors import UserError
from msklabel.imaging.geometry import Affine, spacing_mm
from msklabel.measure.surface import surfaces

_MOST_MM = 10.0  # colours end here at the latest


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
    """The coloured surface from the front and from the side."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    most = min(_MOST_MM, max(1.0, float(np.abs(found.at_points_mm).max())))
    at_faces = found.at_points_mm[found.faces].mean(axis=1)
    for place, (view, azimuth) in enumerate({"front": 90, "side": 0}.items(), start=1):
        axes = figure.add_subplot(1, 2, place, projection="3d")
        drawn = axes.plot_trisurf(*found.points.T, triangles=found.faces, cmap="coolwarm", linewidth=0)
        drawn.set_array(at_faces)
        drawn.set_clim(-most, most)
        axes.view_init(elev=5, azim=azimuth)
        axes.set_box_aspect(np.ptp(found.points, axis=0))
        axes.set_title(view, fontsize=9)
        axes.locator_params(nbins=4)
        axes.tick_params(labelsize=6)
        axes.set_zlabel("upwards (mm)", fontsize=7)
        if view == "front":
            axes.set_xlabel("to the right (mm)", fontsize=7, labelpad=10)
            axes.set_yticks([])  # the way into the picture
        else:
            axes.set_ylabel("to the front (mm)", fontsize=7, labelpad=10)
            axes.set_xticks([])
    figure.colorbar(drawn, ax=figure.axes, shrink=0.7, label="distance (mm), negative inside")
    figure.suptitle(title, fontsize=10)
    return figure
