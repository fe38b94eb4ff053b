"""Tell whether a NIfTI file is whole, all numbers in it are, and why ITK does not read it.

ITK reads a file that is cut off as if the missing voxels were zeros, and what is no finite number as zero. It does
not know NIfTI-2.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from msklabel.imaging.scan import ImageError

_HEADER_BYTES = 348
_NIFTI_2 = (struct.pack("<i", 540), struct.pack(">i", 540))  # what such a file begins with: the size of its header
_GZIP = b"\x1f\x8b"
_CHUNK_BYTES = 2**22
_FLOATS = {16: "f4", 32: "f4", 64: "f8", 1792: "f8"}  # and pairs of them, by the header's code of the data type


def require_whole(path: Path) -> None:
    """Raise ImageError if a ``.nii`` or ``.nii.gz`` file holds fewer bytes than its header says.

    The length that gzip notes at its end is compared first; only where that does not agree (a damaged file, or one of
    several gzip members) is the whole file decompressed and its checksum verified.
    """
    try:
        if _is_compressed(path):
            with gzip.open(path) as stream:
                expected = _expected_bytes(stream.read(_HEADER_BYTES))
            whole = _noted_bytes(path) == expected % 2**32 or _decompressed_bytes(path) >= expected
        else:
            with path.open("rb") as stream:
                expected = _expected_bytes(stream.read(_HEADER_BYTES))
            whole = path.stat().st_size >= expected
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error, ValueError, OverflowError) as error:
        raise ImageError(f"{path.name}: cannot be read as an image; the file is damaged or cut off") from error
    if not whole:
        raise ImageError(f"{path.name}: cannot be read as an image; the file is cut off")


def require_finite(path: Path) -> None:
    """Raise ImageError if a whole ``.nii`` or ``.nii.gz`` file holds NaN or infinity; integers are not looked at."""
    with gzip.open(path) if _is_compressed(path) else path.open("rb") as opened:
        stream = cast(BinaryIO, opened)
        header = stream.read(_HEADER_BYTES)
        order = _order(header)
        kind = _FLOATS.get(struct.unpack(order + "h", header[70:72])[0])
        if kind is None:
            return
        stream.seek(_offset(header))
        while chunk := stream.read(_CHUNK_BYTES):
            dtype = np.dtype(order + kind)
            values = np.frombuffer(chunk, dtype, len(chunk) // dtype.itemsize)
            if not np.isfinite(values).all():
                raise ImageError(f"{path.name}: some voxels are not finite numbers")


def why_unread(path: Path) -> str:
    """What a ``.nii`` or ``.nii.gz`` file that ITK does not read is, and what to do; empty if that is unknown."""
    try:
        compressed = _is_compressed(path)
        if compressed and not path.name.lower().endswith(".gz"):
            return "is compressed, so that its name must end in .nii.gz"
        with gzip.open(path) if compressed else path.open("rb") as stream:
            start = stream.read(4)
    except (OSError, EOFError, zlib.error):
        return ""
    if start not in _NIFTI_2:
        return ""
    return "is NIfTI-2, which is not read here, nor by 3D Slicer; save it as NIfTI-1 or NRRD"


def _is_compressed(path: Path) -> bool:
    """By what is in it, as ITK has it: a ``.nii.gz`` file need not be."""
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP


def _order(header: bytes) -> str:
    return "<" if struct.unpack("<i", header[:4])[0] == _HEADER_BYTES else ">"


def _offset(header: bytes) -> int:
    """Where the voxels begin; as ITK has it, never within the header."""
    return max(int(struct.unpack(_order(header) + "f", header[108:112])[0]), _HEADER_BYTES)


def _expected_bytes(header: bytes) -> int:
    order = _order(header)
    dims = struct.unpack(order + "8h", header[40:56])
    bits = struct.unpack(order + "h", header[72:74])[0]
    return _offset(header) + prod(max(n, 1) for n in dims[1 : 1 + max(dims[0], 0)]) * bits // 8


def _noted_bytes(path: Path) -> int:
    with path.open("rb") as stream:
        stream.seek(-4, 2)
        return int(struct.unpack("<I", stream.read(4))[0])


def _decompressed_bytes(path: Path) -> int:
    total = 0
    with gzip.open(path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            total += len(chunk)
    return total
