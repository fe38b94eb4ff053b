"""Where the frames of DICOM images lie in the patient: the grid of a series, and frames of another image upon it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydicom
from numpy.typing import NDArray

from msklabel.imaging.dicom import GAP_TOLERANCE_FRACTION
from msklabel.imaging.geometry import Affine
from msklabel.imaging.scan import ImageError

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TOLERANCE_VOXELS = 0.05
_STANDING_MM = 1e-3


@dataclass(frozen=True)
class FramePlace:
    """One frame in the patient (PS3.3 C.7.6.2.1.1).

    Attributes:
        affine: Shape (4, 3), from (column, row, 1) of a pixel's centre to RAS mm.
    """

    affine: NDArray[np.float64]


@dataclass(frozen=True)
class SourceGrid:
    """The voxels of a series, axes (column, row, slice), slices from the first to the last along their normal.

    Attributes:
        shape: Columns, rows, slices.
        affine: Voxel index to RAS mm; None for a projection image, which has no place in the patient.
        instances: SOP Instance UID of each slice; of a multi-frame image its one UID.
    """

    shape: tuple[int, int, int]
    affine: Affine | None
    instances: tuple[str, ...]


def source_grid(sources: Sequence[pydicom.Dataset]) -> SourceGrid:
    """The grid of a series.

    Args:
        sources: The slices in order, as :func:`msklabel.imaging.dicom.series_files` gives them; or one multi-frame
            image; or one projection image.

    Raises:
        ImageError: If the frames of a multi-frame image are no regular, rectangular stack.
    """
    first = sources[0]
    frames = places_of(first) if len(sources) == 1 else [place for source in sources for place in places_of(source)]
    instances = tuple(str(source.SOPInstanceUID) for source in sources)
    count = int(first.get("NumberOfFrames") or 1) if len(sources) == 1 else len(sources)
    shape = (int(first.Columns), int(first.Rows), count)
    if not frames:
        return SourceGrid(shape, None, instances)
    affine = np.eye(4)
    affine[:3, :2], affine[:3, 3] = frames[0].affine[:3, :2], frames[0].affine[:3, 2]
    step = (frames[-1].affine[:3, 2] - frames[0].affine[:3, 2]) / max(1, count - 1)
    affine[:3, 2] = step if count > 1 else _normal(first, affine)
    pixel_mm, gap_mm = np.linalg.norm(affine[:3, [0, 2]], axis=0)
    tolerance_mm = max(_TOLERANCE_VOXELS * pixel_mm, GAP_TOLERANCE_FRACTION * gap_mm)
    for number, frame in enumerate(frames):
        expected = np.column_stack([affine[:3, :2], affine[:3, 3] + number * affine[:3, 2]])
        if np.abs(frame.affine[:3] - expected).max() > tolerance_mm:
            raise ImageError("the frames of this image are no regular stack in the order of the file")
    _require_rectangular(affine)
    return SourceGrid(shape, affine, instances)


def places_of(image: pydicom.Dataset) -> list[FramePlace]:
    """Where each frame of an image lies; empty for a projection image."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        if "ImagePositionPatient" not in image or "ImageOrientationPatient" not in image:
            return []
        return [_place(image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing)]
    shared = (image.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    places = []
    for own in image.PerFrameFunctionalGroupsSequence:
        position = _group(own, shared, "PlanePositionSequence")
        orientation = _group(own, shared, "PlaneOrientationSequence")
        measures = _group(own, shared, "PixelMeasuresSequence")
        if position is None or orientation is None or measures is None:
            return []
        places.append(_place(position.ImagePositionPatient, orientation.ImageOrientationPatient, measures.PixelSpacing))
    return places


def voxels_under(place: FramePlace, columns: NDArray[np.intp], rows: NDArray[np.intp], grid: SourceGrid) -> NDArray:
    """Voxels of a grid that pixels of a frame coincide with.

    Args:
        place: The frame.
        columns: Column of each pixel.
        rows: Row of each pixel.
        grid: A grid with a place in the patient.

    Returns:
        Shape (3, pixels), indices (column, row, slice) on the grid.

    Raises:
        ImageError: If a pixel lies between voxels, outside the grid, or is of another size.
    """
    assert grid.affine is not None
    to_voxel = np.linalg.inv(grid.affine)[:3, :3] @ (place.affine[:3] - np.outer(grid.affine[:3, 3], [0, 0, 1]))
    steps = np.rint(to_voxel[:, :2])
    if np.abs(to_voxel[:, :2] - steps).max() * max(grid.shape) > 1 or np.abs(steps).sum() != 2:
        raise ImageError("the segmentation's pixels have another size or direction than the image's")
    exact = to_voxel @ np.stack([columns, rows, np.ones_like(columns)])
    voxels = np.rint(exact).astype(np.intp)
    if np.abs(exact - voxels).max(initial=0) > 0.1:
        raise ImageError("the segmentation lies between the voxels of the image")
    if (voxels < 0).any() or (voxels >= np.array(grid.shape)[:, None]).any():
        raise ImageError("the segmentation reaches beyond the image")
    return voxels


def _require_rectangular(affine: Affine) -> None:
    step_mm = affine[:3, 2]
    if np.linalg.norm(step_mm) < _STANDING_MM:
        raise ImageError("the frames of this image all lie in the same place")
    cross = np.cross(affine[:3, 0], affine[:3, 1])
    normal = cross / np.linalg.norm(cross)
    gap_mm = step_mm @ normal
    if np.linalg.norm(step_mm - gap_mm * normal) > GAP_TOLERANCE_FRACTION * abs(gap_mm):
        raise ImageError("the gantry was tilted, so the frames do not make a rectangular volume")


def _normal(image: pydicom.Dataset, affine: Affine) -> NDArray[np.float64]:
    """From a single slice to where the next would be, mm."""
    cross = np.cross(affine[:3, 0], affine[:3, 1])
    return cross / np.linalg.norm(cross) * float(image.get("SliceThickness") or 1)


def _place(position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float]) -> FramePlace:
    cosines = np.array(orientation, float).reshape(2, 3)
    lps = np.zeros((4, 3))
    lps[:3, 0], lps[:3, 1] = cosines[0] * float(spacing[1]), cosines[1] * float(spacing[0])
    lps[:3, 2], lps[3, 2] = np.array(position, float), 1
    return FramePlace(_LPS @ lps)


def _group(own: pydicom.Dataset, shared: pydicom.Dataset, name: str) -> pydicom.Dataset | None:
    items = own.get(name) or shared.get(name)
    return items[0] if items else None
