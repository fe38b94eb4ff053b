"""Put a label map on another grid."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from msklabel.imaging.geometry import Affine
from msklabel.imaging.scan import LabelMap


def labels_on_grid(labels: LabelMap, shape: tuple[int, ...], affine: Affine) -> LabelMap:
    """The label of the nearest voxel centre at each voxel of a grid; 0 outside the map.

    Args:
        labels: What is resampled.
        shape: Voxels of the new grid along each axis.
        affine: Voxel index of the new grid to RAS mm.
    """
    back = np.linalg.inv(labels.affine) @ affine
    # "constant" would take the outer half of the map's outermost voxels for outside.
    array = ndimage.affine_transform(labels.array, back[:3, :3], back[:3, 3], shape, order=0, mode="grid-constant")
    return LabelMap(array, np.asarray(affine, float))
