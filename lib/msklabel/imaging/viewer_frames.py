"""Label maps as web viewers hold them: one picture for each DICOM frame, which its name ties to the image below it.

A picture lies on its frame pixel by pixel, whatever order, direction or spacing the viewer took the slices to have. So
nothing can be shifted or turned over on the way, and a picture of a frame that the scan does not have is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.dicom import series_files

_TAGS = ["SOPInstanceUID", "NumberOfFrames"]

Frame = tuple[str, int]
"""SOP Instance UID, and the number of the frame in it, from 1."""


def labelled_files(path: Path) -> list[Path]:
    """The DICOM files that a label of a scan lies on, in the order of the scan's last axis.

    Args:
        path: A file, or the folder of a series. Where it holds several, which are channels, the one counts
            whose UID the folder is called by.

    Raises:
        ImageError: If it is no regular volume.
    """
    return [Path(file) for file in series_files(path, path.name)] if path.is_dir() else [path]


def frames_of(path: Path) -> list[Frame]:
    """The frames of a DICOM scan, in the order of its last axis; see :func:`labelled_files`."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS) for file in labelled_files(path)]
    if len(headers) == 1:
        uid, count = str(headers[0].SOPInstanceUID), int(headers[0].get("NumberOfFrames") or 1)
        return [(uid, number) for number in range(1, count + 1)]
    return [(str(header.SOPInstanceUID), 1) for header in headers]


def to_pictures(array: NDArray[np.uint8]) -> bytes:
    """Pixels of all frames, one after the other, each row by row.

    Args:
        array: Axes (column, row, frame).
    """
    return np.ascontiguousarray(array.transpose(2, 1, 0)).tobytes()


def from_pictures(
    pictures: bytes, named: Sequence[Frame], frames: Sequence[Frame], plane: tuple[int, int]
) -> NDArray[np.uint8]:
    """Put a viewer's pictures back into the order of the scan.

    Args:
        pictures: Pixels as :func:`to_pictures` gives them, in the order of ``named``.
        named: The frame that each picture lies on.
        frames: Of the scan.
        plane: Columns and rows of the scan.

    Returns:
        Axes (column, row, frame).

    Raises:
        UserError: If the pictures are not those of exactly these frames.
    """
    columns, rows = plane
    if sorted(named) != sorted(frames):
        lacking, foreign = len(set(frames) - set(named)), len(set(named) - set(frames))
        raise UserError(
            f"the viewer's label has {len(named)} slices, {foreign} of them of another scan or given twice, and lacks "
            f"{lacking} of the {len(frames)} of this scan; reload the page"
        )
    if len(pictures) != len(named) * columns * rows:
        raise UserError(f"the viewer's label is no {columns} x {rows} pixels for each of {len(named)} slices")
    planes = np.frombuffer(pictures, np.uint8).reshape(len(named), rows, columns)
    place = {frame: number for number, frame in enumerate(named)}
    return np.ascontiguousarray(planes[[place[frame] for frame in frames]].transpose(2, 1, 0))
