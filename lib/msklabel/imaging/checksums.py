"""Tell whether the compressed voxels of a MetaImage or NRRD file are what was written.

ITK reads a compressed stream that was damaged as far as it goes, into wrong voxels, and does not look at its checksum.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from msklabel.imaging.scan import ImageError

META = (".mha", ".mhd")
NRRD = (".nrrd", ".nhdr")
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_CHUNK_BYTES = 2**20
_MOST_HEADER_BYTES = 2**20


def require_intact(path: Path) -> None:
    """Raise ImageError if the compressed voxels of a MetaImage or NRRD file do not agree with their checksum.

    Other files, and voxels that are not compressed or lie in several files, are not looked at.
    """
    name = path.name.lower()
    if not name.endswith((*META, *NRRD)):
        return
    fields, header_bytes = _header(path, ":" if name.endswith(NRRD) else "=")
    if name.endswith(NRRD):
        compressed = fields.get("encoding") in ("gzip", "gz") and not fields.keys() & {"line skip", "lineskip"}
        apart = fields.get("data file") or fields.get("datafile")
    else:
        compressed = fields.get("compresseddata") == "true"
        apart = None if fields.get("elementdatafile") == "local" else fields.get("elementdatafile")
    if not compressed:
        return
    data = path if apart is None else _beside(path, apart)
    if data is not None and not _is_intact(data, header_bytes if apart is None else 0):
        raise ImageError(f"{path.name}: cannot be read as an image; the file is damaged or cut off")


def _header(path: Path, separator: str) -> tuple[dict[str, str], int]:
    """Fields by their names, all in small letters, and where what follows begins."""
    fields = {}
    with path.open("rb") as stream:
        while (line := stream.readline(_MOST_HEADER_BYTES)).strip() and stream.tell() <= _MOST_HEADER_BYTES:
            name, _, value = line.decode("latin-1").partition(separator)
            fields[name.strip().lower()] = value.strip().lower()
            if name.strip().lower() == "elementdatafile":
                break
        return fields, stream.tell()


def _beside(path: Path, name: str) -> Path | None:
    """The one file that a header names, however its name is written; None for a list or a pattern."""
    return next((file for file in path.parent.iterdir() if file.name.lower() == name), None)


def _is_intact(file: Path, start_byte: int) -> bool:
    """Whether a zlib or gzip stream ends, with its checksum."""
    unpacker = zlib.decompressobj(_ZLIB_OR_GZIP)
    with file.open("rb") as stream:
        stream.seek(start_byte)
        try:
            while not unpacker.eof and (chunk := stream.read(_CHUNK_BYTES)):
                while chunk and not unpacker.eof:
                    unpacker.decompress(chunk, _CHUNK_BYTES)
                    chunk = unpacker.unconsumed_tail
        except zlib.error:
            return False
    return unpacker.eof
