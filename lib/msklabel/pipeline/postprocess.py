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
            filled = _filled(labels[box] == indices[name], flat=system.dimensions == 2)
            labels[box][(labels[box] == 0) & filled] = indices[name]


def _filled(mask: NDArray[np.bool_], flat: bool) -> NDArray[np.bool_]:
    if not flat:
        return ndimage.binary_fill_holes(mask)
    return np.stack([ndimage.binary_fill_holes(mask[..., z]) for z in range(mask.shape[2])], axis=-1)
