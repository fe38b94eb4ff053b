"""Clean-up of predicted label maps, as a System asks for it."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msklabel.system import System


def postprocess(labels: NDArray[np.uint8], system: System) -> NDArray[np.uint8]:
    """Keep largest components and fill holes for the labels that the system names.

    Args:
        labels: Shape (X, Y, Z), on the scan's grid.
        system: Names the labels to clean.

    Returns:
        A new label map; holes are filled only where there was background.
    """
    cleaned = labels.copy()
    indices = system.label_indices
    for name in system.postprocess.largest_component:
        mask = cleaned == indices[name]
        if mask.any():
            cleaned[mask & (cc3d.largest_k(mask, k=1) == 0)] = 0
    for name in system.postprocess.fill_holes:
        mask = cleaned == indices[name]
        cleaned[(cleaned == 0) & _filled(mask, flat=system.dimensions == 2)] = indices[name]
    return cleaned


def _filled(mask: NDArray[np.bool_], flat: bool) -> NDArray[np.bool_]:
    if not flat:
        return ndimage.binary_fill_holes(mask)
    return np.stack([ndimage.binary_fill_holes(mask[..., z]) for z in range(mask.shape[2])], axis=-1)
