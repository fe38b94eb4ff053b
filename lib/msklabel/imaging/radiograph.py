"""Read a radiograph: one DICOM CR or DX image, or a grey PNG or JPEG file, with its pixel spacing.

A radiograph is a 2D image in its own plane, a scan of shape (1, columns, rows, 1) in the axis order of the file. The
affine puts it where ITK puts the file, at the origin with axes along those of LPS, in mm:

- axis 0 (along a row) runs to the patient's left, as an AP image is displayed;
- axis 1 (down a column) runs towards *posterior*, which stands for *inferior* here: a projection has no depth, and the
  chain takes the first two axes for the image plane;
- axis 2 is the normal, one voxel of 1 mm.

DICOM's Patient Orientation (0020,0020), PS3.3 C.7.6.1.1.1, turns these axes where it says something else than ``L\\F``.
A mask on the scan's grid therefore has the voxels (column, row) of the file.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from msklabel.imaging.dicom import is_projection
from msklabel.imaging.geometry import Affine, from_lps
from msklabel.imaging.names import PICTURE_SUFFIXES, SUFFIXES, notes_of
from msklabel.imaging.pixel_data import losses, lossy_sentence, require_readable, require_whole
from msklabel.imaging.scan import ImageError, Scan

_FACTS = {
    "modality": "Modality",
    "patient": "PatientID",
    "site": "InstitutionName",
    "series": "SeriesDescription",
    "StudyInstanceUID": "StudyInstanceUID",
    "SeriesInstanceUID": "SeriesInstanceUID",
}
_OTHER_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix != ".dcm")
_DETECTOR_SPACING = ("ImagerPixelSpacing", "NominalScannedPixelSpacing")
_DIRECTIONS: dict[str, tuple[float, float, float]] = {"R": (1, 0, 0), "L": (-1, 0, 0), "H": (0, 1, 0), "F": (0, -1, 0)}
_DEEPER = {"1": "L", "P": "RGBA"}  # Pillow's names of pixel formats; others stay as they are
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "P", "RGB", "RGBA")


def is_radiograph(path: Path) -> bool:
    """Whether a file is read by :func:`read_radiograph`: a PNG or JPEG by its name, DICOM by class and modality."""
    if path.name.lower().endswith(PICTURE_SUFFIXES):
        return True
    if path.name.lower().endswith(_OTHER_SUFFIXES):
        return False
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID", "Modality"])
    except Exception:  # whatever pydicom meets in a file that is not DICOM; ITK then says that it cannot be read
        return False
    return is_projection(header)


def read_radiograph(path: Path, spacing_mm: Sequence[float] | None = None) -> Scan:
    """Read a radiograph; bone is bright.

    The pixel spacing is the first of: the argument; ``spacing_mm`` in a file ``<image>.json`` beside the image, such
    as ``{"spacing_mm": [0.15, 0.15]}``; DICOM's attributes, see :func:`_dicom_spacing`; the physical scale that ITK and
    3D Slicer write into a PNG. The resolution (dpi) of a PNG or JPEG is never used: it is meant for printers, and the
    72 or 96 that programs write where they know nothing would pass for a radiograph's. The same JSON file may hold
    ``side`` (``L`` or ``R``, of an image of one joint) and ``patient``.

    Args:
        path: The file.
        spacing_mm: Distance of neighbouring columns and of neighbouring rows in the patient, mm.

    Returns:
        Shape (1, columns, rows, 1), values as stored (rescaled; MONOCHROME1 inverted within its range of bits);
        ``facts`` may hold ``side`` and ``lossy``.

    Raises:
        ImageError: If it is damaged or cut off, has colours or several frames, is no frontal view, or nothing says how
            large its pixels are.
    """
    beside = notes_of(path)
    noted = _noted(beside)
    if path.name.lower().endswith(PICTURE_SUFFIXES):
        pixels, facts, affine = _picture(path), {}, _affine("L", "F")
        own = _itk_scale(path)
    else:
        header = _whole_dicom(path)
        pixels, facts, affine = _dicom_pixels(path, header), _dicom_facts(header), _dicom_affine(path.name, header)
        own = _dicom_spacing(path.name, header)
    if spacing_mm is not None:
        own = _checked(spacing_mm, path.name)
    elif "spacing_mm" in noted:
        own = _checked(noted["spacing_mm"], beside.name)
    if own is None:
        raise ImageError(
            f'{path.name}: the file does not say how large its pixels are; write {{"spacing_mm": [0.15, 0.15]}}, with '
            f"your distances between columns and between rows in mm, to a file {beside.name} beside it (to upload it, "
            "put both into the studies folder instead, or send DICOM with Pixel Spacing)"
        )
    facts |= {key: str(noted[key]) for key in ("side", "patient") if noted.get(key)}
    if facts.get("side", "L") not in ("L", "R"):
        raise ImageError(f"{beside.name}: side must be L or R, got {facts['side']!r}")
    return Scan(pixels.T[None, :, :, None], affine @ np.diag([*own, 1.0, 1.0]), facts)


def viewer_affine(path: Path) -> Affine | None:
    """Where ITK, and with it 3D Slicer, puts the pixels of a radiograph, which need not know how large they are.

    What is drawn there lies pixel by pixel on the image; only the distance in mm between pixels may be another.

    Returns:
        Voxel index to RAS+ mm; None if the file is no radiograph or ITK cannot read it.
    """
    if path.is_dir() or not is_radiograph(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    count = min(reader.GetDimension(), 3)
    origin, spacing, direction = np.zeros(3), np.ones(3), np.eye(3)
    origin[:count], spacing[:count] = reader.GetOrigin()[:count], reader.GetSpacing()[:count]
    direction[:count, :count] = np.reshape(reader.GetDirection(), [reader.GetDimension()] * 2)[:count, :count]
    return from_lps(tuple(origin), tuple(spacing), tuple(direction.ravel()))


def _noted(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImageError(f"{file.name}: cannot be read as JSON: {error}") from error
    if not isinstance(noted, dict):
        raise ImageError(f'{file.name}: expected an object such as {{"spacing_mm": [0.15, 0.15]}}')
    return noted


def _checked(spacing_mm: Any, source: str) -> tuple[float, float]:
    try:
        x, y = (float(value) for value in spacing_mm)
    except (TypeError, ValueError):
        x = y = float("nan")
    if not (_is_plausible(x) and _is_plausible(y)):
        raise ImageError(f"{source}: the pixel spacing must be two numbers from 0.01 to 10 mm, got {spacing_mm!r}")
    return x, y


def _is_plausible(distance_mm: float) -> bool:
    return 0.01 <= distance_mm <= 10


def _affine(along_row: str, down_column: str) -> Affine:
    """Affine of unit spacing for the letters of Patient Orientation; right-handed."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = _DIRECTIONS[along_row], _DIRECTIONS[down_column]
    affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
    return affine


def _picture(path: Path) -> NDArray[Any]:
    """Pixels (rows, columns) of a PNG or JPEG file."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            image.load()
            mode = image.mode
            pixels = np.asarray(image.convert(_DEEPER.get(mode)))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path.name}: cannot be read as a PNG or JPEG image; it is damaged or cut off") from error
    if mode not in _GREY_MODES:
        raise ImageError(f"{path.name}: a radiograph is grey, this image has colours ({mode})")
    if mode in ("P", "LA", "RGBA"):
        if (pixels[..., -1] != 255).any():
            raise ImageError(f"{path.name}: parts of the image are transparent; save it without an alpha channel")
        pixels = pixels[..., :-1]
    return _grey(pixels.astype(pixels.dtype.newbyteorder("=")), path.name)


def _grey(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Pixels (rows, columns) out of (rows, columns) or out of equal channels (rows, columns, channels)."""
    if pixels.ndim == 2:
        return pixels
    if (pixels != pixels[..., :1]).any():
        raise ImageError(f"{name}: a radiograph is grey, this image has colours")
    return pixels[..., 0]


def _itk_scale(path: Path) -> tuple[float, float] | None:
    """Spacing in mm that ITK wrote into a PNG file's sCAL chunk; None where it is missing or 1, which means nothing."""
    if not path.name.lower().endswith(".png"):
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    x, y = reader.GetSpacing()[:2]
    return (x, y) if (x, y) != (1, 1) and _is_plausible(x) and _is_plausible(y) else None


def _whole_dicom(path: Path) -> pydicom.Dataset:
    """The data set, when its pixels are there to their end."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing end: the pixels are then missing too
            data = pydicom.dcmread(path, force=True)
    except Exception as error:  # pydicom raises many kinds for damaged files
        raise ImageError(f"{path.name}: cannot be read as a DICOM image; the file is damaged or cut off") from error
    if "PixelData" not in data:
        raise ImageError(f"{path.name}: no complete image in this file; it is damaged or cut off")
    require_readable(data, path.name)
    require_whole(data, len(data.PixelData), path.name)
    if int(data.get("NumberOfFrames") or 1) > 1:
        raise ImageError(f"{path.name}: a radiograph is one image, this file holds {data.NumberOfFrames} frames")
    return data


def _dicom_pixels(path: Path, header: pydicom.Dataset) -> NDArray[Any]:
    """Pixels (rows, columns); GDCM decodes all transfer syntaxes and turns MONOCHROME1 into MONOCHROME2."""
    try:
        pixels = _grey(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0], path.name)
    except RuntimeError as error:
        raise ImageError(f"{path.name}: cannot be read as an image; it may be damaged or of another kind") from error
    if header.get("PixelPaddingValue") is None:
        return pixels
    ends = np.array([header.PixelPaddingValue, header.get("PixelPaddingRangeLimit", header.PixelPaddingValue)], float)
    if header.PhotometricInterpretation == "MONOCHROME1" and not header.PixelRepresentation:
        ends = 2**header.BitsStored - 1 - ends
    ends = ends * float(header.get("RescaleSlope") or 1) + float(header.get("RescaleIntercept") or 0)
    padding = (pixels >= ends.min()) & (pixels <= ends.max())
    if not padding.any() or padding.all():
        return pixels
    return np.where(padding, pixels[~padding].min(), pixels)  # no measurement (C.7.5.1.1.2): as dark as the darkest


def _dicom_facts(header: pydicom.Dataset) -> dict[str, str]:
    facts = {name: str(header.get(keyword) or "").strip() for name, keyword in _FACTS.items()}
    facts["side"] = next((s for k in ("ImageLaterality", "Laterality") if (s := header.get(k)) in ("L", "R")), "")
    facts["lossy"] = lossy_sentence({losses(header)})
    return {name: value for name, value in facts.items() if value}


def _dicom_affine(name: str, header: pydicom.Dataset) -> Affine:
    """Affine of unit spacing by the main direction of each axis, the first letter of an oblique one."""
    given = [str(value).strip().upper() for value in header.get("PatientOrientation") or ()]
    if not any(given):
        return _affine("L", "F")
    letters = [value[:1] for value in given]
    if len(letters) != 2 or {"".join(sorted(letters))} - {"FL", "FR", "HL", "HR"}:
        raise ImageError(
            f"{name}: only frontal views are read, with one axis left-right and one head-foot; "
            f"Patient Orientation says {'/'.join(given)}"
        )
    return _affine(*letters)


def _dicom_spacing(name: str, header: pydicom.Dataset) -> tuple[float, float] | None:
    """Distance of columns and of rows in the patient, mm (PS3.3 10.7.1.1 and 10.7.1.3: rows come first in the file).

    Pixel Spacing, else Imager Pixel Spacing, else that of a film scanner. Where it is not corrected for magnification,
    that is where there is no Pixel Spacing or it equals the detector's, it is divided by the Estimated Radiographic
    Magnification Factor (0018,1114) if there is one: detector over patient.
    """
    detector = next((value for keyword in _DETECTOR_SPACING if (value := header.get(keyword))), None)
    spacing = header.get("PixelSpacing") or detector
    if not spacing:
        return None
    row, column = _checked(spacing, name)
    factor = float(header.get("EstimatedRadiographicMagnificationFactor") or 1) if spacing == detector else 1.0
    return column / max(factor, 1), row / max(factor, 1)
