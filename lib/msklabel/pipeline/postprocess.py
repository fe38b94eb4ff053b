"""Clean-up of predicted label maps, as a System asks for it."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msklabel.system import System


def postprocess(labels: NDArray[np.uint8], system: System, plane: int | None = None) -> NDArray[np.uint8]:
    """Keep largest components and fill holes for the labels that the system names.

    Args:
        labels: Shape (X, Y, Z), axes turned to the working ones.
        system: Names the labels to clean.
        plane: Where left and right are cleaned apart: first voxel of the right half along the first axis.

    Returns:
        A new label map; holes are filled only where there was background.
    """
    cleaned = labels.copy(order="K")
    sides = [cleaned] if plane is None else [cleaned[:plane], cleaned[plane:]]
    wanted = system.postprocess.largest_component or system.postprocess.fill_holes
    for side in sides:
        if wanted and side.size:
            _clean(side, system)
    return cleaned


def _clean(labels: NDArray[np.uint8], system: System) -> None:
    """Clean one side in place, each label within its own bounding box."""
    boxes = ndimage.find_objects(labels)
    indices = system.label_indices
    for name in system.postprocess.largest_component:
        box = boxes[indices[name] - 1] if indices[name] <= len(boxes) else None
        if box is not None:
            mask = labels[box] == indices[name]
            kept = cc3d.largest_k(mask.view(np.uint8), k=1)  # cc3d 4.1.1 raises on flags such as 1, 0, 1 in a row
            labels[box][mask & (kept == 0)] = 0
    for name in system.postprocess.fill_holes:
        box = boxes[indices[name] - 1] if indices[name] <= len(boxes) else None
        if box is not None:
            part = labels[box]
            areas = [part[..., z] for z in range(part.shape[2])] if system.dimensions == 2 else [part]
            for area in areas:
                holes = _holes(area == indices[name])
                area[(area == 0) & holes] = indices[name]


def _holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What a mask encloses: parts of the rest, joined by faces (pixels by sides), that reach no end of any axis."""
    rest = cc3d.connected_components((~mask).view(np.uint8), connectivity=4 if mask.ndim == 2 else 6)
    enclosed = np.ones(int(rest.max()) + 1, bool)
    enclosed[0] = False
    for axis in range(mask.ndim):
        ends = np.moveaxis(rest, axis, 0)
        enclosed[ends[0]] = enclosed[ends[-1]] = False
    return enclosed[rest]
