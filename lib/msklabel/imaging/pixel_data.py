"""How the pixels of a DICOM image are stored: to their end or cut off, readable or not, with losses or without.

Where pixels are missing, ITK fills the image with whatever its memory holds; so they are counted here first. Nor does
it say that an image tells no size of its pixels, which it takes for 1 mm, or that it turned a CT's values over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixel_data_handlers.util import get_expected_length
from pydicom.uid import UID, RLELossless

from msklabel.imaging.scan import ImageError

_JPEG = "1.2.840.10008.1.2.4."  # all that is named after JPEG or MPEG (PS3.6 A)
_DECODED = frozenset(_JPEG + end for end in ("50", "51", "53", "55", "57", "70", "80", "81", "90", "91"))
_LOSSY = frozenset(_JPEG + end for end in ("50", "51", "53", "55"))
_MAY_BE_LOSSY = frozenset(_JPEG + end for end in ("81", "91"))
_NEW = {  # what pydicom has no names for yet
    **dict.fromkeys((_JPEG + end for end in ("110", "111", "112")), "JPEG XL"),
    **dict.fromkeys((_JPEG + end for end in ("201", "202", "203")), "High-Throughput JPEG 2000"),
}
_TAGS = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation"]
_TAGS += ["LossyImageCompression", "Modality", "RescaleSlope", "RescaleIntercept"]
_SIZES = ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "SharedFunctionalGroupsSequence"]


@dataclass(frozen=True)
class Stored:
    """How one DICOM file holds its values.

    Attributes:
        losses: As :func:`losses` gives them.
        scale: Rescale Slope and Intercept (PS3.3 C.11.1).
    """

    losses: str
    scale: tuple[float, float]


def check_pixel_data(file: Path, name: str) -> Stored | None:
    """Make sure that a file's pixels can be read, are all there and have a size and a meaning.

    Args:
        file: Any file.
        name: Of the scan, for the sentence.

    Returns:
        None where it is no DICOM.

    Raises:
        ImageError: If nothing here decodes them, there are fewer than the header says, nothing says how large they are,
            or they are Hounsfield units that ITK would turn over.
    """
    try:
        with file.open("rb") as stream:
            image = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=[*_TAGS, *_SIZES])
            length = _length(stream.read(12), image)
    except InvalidDicomError:
        return None
    require_readable(image, name)
    require_whole(image, length, f"{name}, {file.name}")
    several = int(image.get("NumberOfFrames") or 1) > 1  # each of which says it of itself
    if "Rows" in image and not several and not any(image.get(keyword) for keyword in _SIZES):
        raise ImageError(f"{name}, {file.name}: does not say how large its pixels are (Pixel Spacing)")
    if image.get("Modality") == "CT" and image.get("PhotometricInterpretation") == "MONOCHROME1":
        raise ImageError(f"{name}, {file.name}: a CT image as MONOCHROME1, which is read upside down; use MONOCHROME2")
    slope, intercept = image.get("RescaleSlope"), image.get("RescaleIntercept")
    return Stored(losses(image), (1.0 if slope is None else float(slope), float(intercept or 0)))


def require_readable(image: pydicom.Dataset, name: str) -> None:
    """Refuse pixels that nothing here decodes.

    Raises:
        ImageError: If they are in such a transfer syntax.
    """
    syntax = _syntax(image)
    if syntax.startswith(_JPEG) and syntax not in _DECODED:
        raise ImageError(
            f"{name}: its pixels are compressed as {_title(syntax)}, which cannot be read here; store it in the PACS "
            "uncompressed or as JPEG 2000"
        )


def require_whole(image: pydicom.Dataset, length: int | None, name: str) -> None:
    """Refuse an image that has fewer pixels than its header says; of compressed ones the decoder sees it.

    Args:
        image: Its header.
        length: Bytes of pixel data; None where there is none.
        name: For the sentence.

    Raises:
        ImageError: If some are missing.
    """
    if "Rows" not in image or "BitsAllocated" not in image or _syntax(image).startswith((_JPEG, RLELossless)):
        return
    expected = get_expected_length(image)
    if length is not None and length < expected:
        raise ImageError(f"{name}: its pixels are cut off, {length} of {expected} bytes are there")


def losses(image: pydicom.Dataset) -> str:
    """By what an image lost something: its transfer syntax, or a compression before it was stored as it is.

    See Lossy Image Compression (PS3.3 C.7.6.1.1.5). Empty where nothing was lost; where a syntax leaves it open and the
    image does not say, it counts as lost.
    """
    syntax, said = _syntax(image), image.get("LossyImageCompression")
    if syntax in _LOSSY or (syntax in _MAY_BE_LOSSY and said != "00"):
        return _title(syntax)
    return "an earlier compression" if said == "01" else ""


def lossy_sentence(found: set[str]) -> str:
    """What to tell people of a scan whose images have these :func:`losses`; empty where they have none."""
    by = " and ".join(sorted(found - {""}))
    return f"the images were compressed with losses ({by}): values may differ from what was measured" if by else ""


def _length(start: bytes, image: pydicom.Dataset) -> int | None:
    """The length that an element of pixel data begins with (PS3.5 7.1); None for what is no pixel data."""
    tag, order = ("<HH", "<I") if image.is_little_endian else (">HH", ">I")
    if len(start) < 12 or struct.unpack(tag, start[:4]) != (0x7FE0, 0x0010):
        return None
    return int(struct.unpack(order, start[4:8] if image.is_implicit_VR else start[8:12])[0])


def _syntax(image: pydicom.Dataset) -> str:
    return str(image.file_meta.get("TransferSyntaxUID") or "")


def _title(syntax: str) -> str:
    return _NEW.get(syntax) or UID(syntax).name
