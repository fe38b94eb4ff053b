"""Find the slices of one DICOM series in a folder, in order, or say why they are no regular volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from msklabel.imaging.scan import ImageError

UNICODE = "ISO_IR 192"
"""Specific Character Set of what is written here: UTF-8 (PS3.3 C.12.1.1.2), for highdicom leaves it out."""
_TAGS = ["SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns", "NumberOfFrames"]
_TAGS += ["PixelSpacing", "SOPClassUID", "Modality"]
_RADIOGRAPH_CLASSES = ("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1.1")
_RADIOGRAPH_MODALITIES = ("CR", "DX", "RG")  # RG: a film that was scanned
_ANGLE_TOLERANCE = 1e-3  # of a direction cosine
GAP_TOLERANCE_FRACTION = 0.02
"""By which the step from one slice to the next may differ from others, and from the normal."""
_SIZE_TOLERANCE_FRACTION = 1e-3  # of a pixel; 512 of them are then half a pixel off


def is_projection(header: pydicom.Dataset) -> bool:
    """Whether SOP Class UID or Modality say that an image is a radiograph, which is no slice of anything."""
    return header.get("SOPClassUID") in _RADIOGRAPH_CLASSES or header.get("Modality") in _RADIOGRAPH_MODALITIES


def series_files(folder: Path, uid: str | None = None) -> list[str]:
    """Paths of the slices of the one DICOM series in a folder, from the first to the last along its normal.

    Args:
        folder: Holds them.
        uid: Series Instance UID; where there are several series in the folder, this one counts.

    Raises:
        ImageError: If there is no series, more than one, one of several radiographs, a slice is missing, doubled,
            tilted or of another size, or has pixels of another.
    """
    headers = {path: header for path in sorted(folder.iterdir()) if (header := _header(path)) is not None}
    if chosen := {path: header for path, header in headers.items() if header.SeriesInstanceUID == uid}:
        headers = chosen
    if not headers:
        raise ImageError(f"{folder.name}: no DICOM files in this folder")
    series = {header.get("SeriesInstanceUID") for header in headers.values()}
    if len(series) > 1:
        raise ImageError(f"{folder.name}: {len(series)} DICOM series in one folder; put each in a folder of its own")
    if len(headers) == 1:
        return [str(path) for path in headers]
    return [str(path) for path in _ordered(folder.name, headers)]


def _header(path: Path) -> pydicom.Dataset | None:
    if not path.is_file():
        return None
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except (InvalidDicomError, OSError):
        return None
    return header if "SeriesInstanceUID" in header else None


def _ordered(name: str, headers: dict[Path, pydicom.Dataset]) -> list[Path]:
    slices = list(headers.values())
    if any(is_projection(s) for s in slices):
        raise ImageError(
            f"{name}: {len(slices)} radiographs in one series, of which only a single one is read; store each as a "
            "series of its own, or as a file in a folder of its own"
        )
    if any(int(s.get("NumberOfFrames") or 1) > 1 for s in slices):
        raise ImageError(f"{name}: {len(slices)} images of several frames in one series; only a single one is read")
    if any("ImagePositionPatient" not in s or "ImageOrientationPatient" not in s for s in slices):
        raise ImageError(f"{name}: slices without position and orientation do not make a volume")
    if len({(s.Rows, s.Columns) for s in slices}) > 1:
        raise ImageError(f"{name}: slices of different sizes in one series")
    orientations = np.array([s.ImageOrientationPatient for s in slices], dtype=float)
    if np.abs(orientations - orientations[0]).max() > _ANGLE_TOLERANCE:
        raise ImageError(f"{name}: slices of different orientations in one series")
    pixels_mm = np.array([s.get("PixelSpacing") or (0, 0) for s in slices], dtype=float)
    if np.ptp(pixels_mm, axis=0).max() > _SIZE_TOLERANCE_FRACTION * pixels_mm.max():
        raise ImageError(f"{name}: slices whose pixels are of different sizes in one series (Pixel Spacing)")
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    positions = np.array([s.ImagePositionPatient for s in slices], dtype=float)
    order = np.argsort(positions @ normal)
    steps = np.diff(positions[order], axis=0)
    gaps_mm = steps @ normal
    if gaps_mm.min() < 1e-3:
        raise ImageError(f"{name}: two slices at the same position")
    if np.ptp(gaps_mm) > GAP_TOLERANCE_FRACTION * np.median(gaps_mm):
        raise ImageError(
            f"{name}: slices {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm apart; one is missing or the spacing varies"
        )
    shear_mm = np.abs(steps - np.outer(gaps_mm, normal)).max()
    if shear_mm > GAP_TOLERANCE_FRACTION * np.median(gaps_mm):
        raise ImageError(f"{name}: the gantry was tilted, so the slices do not make a rectangular volume")
    paths = list(headers)
    return [paths[i] for i in order]
