"""Where the frames of one multi-frame DICOM image lie, by what it says of each of them (PS3.3 C.7.6.16).

ITK gives an image whose frames lie unevenly voxels of 1 mm, and does not see a tilted gantry. So the place is taken
from the frames here, and an image whose frames are no regular stack, or are scaled differently, is refused.
"""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from msklabel.imaging.frames import source_grid
from msklabel.imaging.geometry import Affine
from msklabel.imaging.scan import ImageError


def stack_affine(file: Path) -> Affine | None:
    """From voxel index (column, row, frame), frames in the order of the file, to RAS mm.

    Args:
        file: Any file.

    Returns:
        None if it is no DICOM image of several frames.

    Raises:
        ImageError: If it does not say where its frames lie, or they are no rectangular stack of equal values.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
    except InvalidDicomError:
        return None
    if int(header.get("NumberOfFrames") or 1) < 2:
        return None
    affine = source_grid([header]).affine
    if affine is None:
        raise ImageError(f"{file.name}: an image of several frames that does not say where they lie in the patient")
    if len(_scales(header)) > 1:
        raise ImageError(f"{file.name}: the frames of this image are scaled differently")
    return affine


def _scales(image: pydicom.Dataset) -> set[tuple[float, float]]:
    """Rescale slope and intercept of the frames (PS3.3 C.7.6.16.2.9), each once."""
    found = set()
    for own in image.get("PerFrameFunctionalGroupsSequence") or []:
        for item in own.get("PixelValueTransformationSequence") or []:
            found.add((float(item.RescaleSlope), float(item.RescaleIntercept)))
    return found
