"""Write a scan as one file that any viewer opens, with its exact geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msklabel.imaging.geometry import to_lps
from msklabel.imaging.scan import ImageError, Scan


def write_channel(path: Path, scan: Scan, channel: int = 0) -> None:
    """Write one channel as NRRD, voxels as they are, not compressed: somebody waits.

    Args:
        path: Ends in ``.nrrd``.
        scan: The scan.
        channel: Index of the channel.

    Raises:
        ImageError: If the name is another format's.
        OSError: If it cannot be written; nothing is left.
    """
    if not path.name.lower().endswith(".nrrd"):
        raise ImageError(f"{path.name}: a scan is written as .nrrd")
    image = sitk.GetImageFromArray(np.ascontiguousarray(scan.array[channel].transpose(2, 1, 0)))
    origin, spacing, direction = to_lps(scan.affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    try:
        sitk.WriteImage(image, str(path), useCompression=False)
    except RuntimeError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"{path.name}: could not be written; the disk may be full") from error
