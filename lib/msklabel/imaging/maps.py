"""Write maps of numbers (a fat fraction, R, p, a distance) with their geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from msklabel.durable import flush, new_beside
from msklabel.imaging.geometry import Affine, to_lps


def write_map(path: Path, array: NDArray[Any], affine: Affine) -> None:
    """Write a float32 map as NIfTI or NRRD, whole or not at all.

    Args:
        path: Ends in ``.nii.gz``, ``.nii`` or ``.nrrd``.
        array: Shape (X, Y, Z); NaN where the map says nothing.
        affine: Voxel index to RAS mm.

    Raises:
        ValueError: If the suffix is another.
    """
    suffix = next((s for s in (".nii.gz", ".nii", ".nrrd") if path.name.endswith(s)), None)
    if suffix is None:
        raise ValueError(f"{path.name}: cannot write this format; use .nii.gz or .nrrd")
    temporary = new_beside(path, suffix)
    try:
        if suffix == ".nrrd":
            image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0), np.float32))
            origin, spacing, direction = to_lps(affine)
            image.SetOrigin(origin)
            image.SetSpacing(spacing)
            image.SetDirection(direction)
            sitk.WriteImage(image, str(temporary), useCompression=True)
        else:
            volume = nib.Nifti1Image(np.asarray(array, np.float32), affine)
            volume.header.set_xyzt_units("mm")
            nib.save(volume, temporary)
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
