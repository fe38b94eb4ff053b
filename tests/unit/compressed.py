"""The pixels of DICOM files, compressed by other people's encoders: DCMTK's, OpenJPEG, CharLS, pydicom's own RLE."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.frame import encode_frame
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import RLELossless

needs_dcmtk = pytest.mark.skipif(not shutil.which("dcmcjpeg"), reason="DCMTK is not installed: apt-get install dcmtk")
_JPEG = "1.2.840.10008.1.2.4."
# 20 x 16 pixels of 16 bits, columns x rows, each 900 + 9 column + 11 row, by OpenJPH 0.26.
HTJ2K = base64.b64decode(
    "/0//UQApQAAAAAAUAAAAEAAAAAAAAAAAAAAAFAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQ"
    "kJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAIAAAf+TwAAm/3cFB3QAwAASgCYBh3QAwAARwAATABdzAMjIAEI0AMAAEcAA"
    "FQAScwBiUfwA5HdVAMAAFRAABWCmMebX4At1ADCEEP7gAEYAAey4AMAAKyAAFoAAAAAA7+Cnp6fCeACUiIiIiP7+gz3ye/fJ7LoA/9k="
)


def _dcmtk(tool: str, *options: str) -> Callable[[Path], None]:
    def compress(file: Path) -> None:
        packed = file.with_suffix(".packed")
        subprocess.run([tool, "--quiet", *options, str(file), str(packed)], check=True)
        packed.replace(file)

    return compress


def _frames(syntax: str, encode: Callable[[np.ndarray, pydicom.Dataset], bytes]) -> Callable[[Path], None]:
    def compress(file: Path) -> None:
        image = pydicom.dcmread(file)
        pixels = image.pixel_array.reshape(-1, image.Rows, image.Columns)
        image.PixelData = encapsulate([encode(frame, image) for frame in pixels])
        image["PixelData"].is_undefined_length = True
        image.file_meta.TransferSyntaxUID = syntax
        image.save_as(file)

    return compress


def _lossless(syntax: str) -> Callable[[Path], None]:
    return _frames(
        syntax, lambda frame, image: encode_frame(frame, syntax, image.BitsAllocated, image.BitsStored, "MONOCHROME2")
    )


def _jpeg2000_with_losses(frame: np.ndarray, image: pydicom.Dataset) -> bytes:
    packed = io.BytesIO()
    layers = {"quality_mode": "rates", "quality_layers": [3]}
    Image.fromarray(frame).save(packed, "JPEG2000", irreversible=True, no_jp2=True, **layers)
    return packed.getvalue()


COMPRESS: dict[str, Callable[[Path], None]] = {
    "jpeg_lossless": _dcmtk("dcmcjpeg", "+el", "+sv", "7", "+un"),
    "jpeg_lossless_first_order": _dcmtk("dcmcjpeg", "+e1", "+un"),
    "jpegls": _dcmtk("dcmcjpls", "+el", "+un"),
    "jpeg2000": _lossless(_JPEG + "90"),
    "rle": _lossless(RLELossless),
    "jpeg_baseline": _dcmtk("dcmcjpeg", "+eb", "+q", "100", "+un"),
    "jpeg_extended": _dcmtk("dcmcjpeg", "+ee", "+q", "100", "+un"),
    "jpegls_near": _dcmtk("dcmcjpls", "+en", "+md", "2", "+un"),
    "jpeg2000_lossy": _frames(_JPEG + "91", _jpeg2000_with_losses),
}
"""Compress a file in place. DCMTK writes rescale values of its own where it needs fewer bits."""

LOSSY = {
    "jpeg_baseline": "JPEG Baseline",
    "jpeg_extended": "JPEG Extended",
    "jpegls_near": "JPEG-LS Lossy",
    "jpeg2000_lossy": "JPEG 2000",
}
"""Those of them that lose something, and how a sentence names them."""


def write_as(file: Path, syntax: str, frame: bytes) -> None:
    """Give a file one compressed frame, and any transfer syntax, also one that pydicom does not know."""
    image = pydicom.dcmread(file)
    image.PixelData = encapsulate([frame])
    image["PixelData"].is_undefined_length = True
    image.file_meta.TransferSyntaxUID = _JPEG + "90"
    image.save_as(file)
    body = io.BytesIO()
    pydicom.dcmwrite(body, image, write_like_original=False)
    body.seek(0)
    meta = pydicom.filereader.read_file_meta_info(file)
    length = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    meta.TransferSyntaxUID = syntax
    with file.open("wb") as stream:
        stream.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(stream, meta)
        stream.write(body.getvalue()[length:])
