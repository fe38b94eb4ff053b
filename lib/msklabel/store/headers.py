"""What the text headers of NRRD and MetaImage files say beside the voxels."""

from __future__ import annotations

import re
from pathlib import Path

from msklabel.errors import UserError

NOT_A_LABEL = ("background", "foreground_scribbles", "background_scribbles")
_HEADER_BYTES = 1 << 20
_SEGMENT = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer)")


def check_self_contained(file: Path) -> None:
    """Refuse a file whose header names another file for the voxels: from outside, it could name any file of the host.

    Raises:
        UserError: If the voxels are elsewhere.
    """
    head = _head(file)
    nrrd = head.startswith(b"NRRD")
    pattern = rb"(?im)^data ?file\s*:(?!=)" if nrrd else rb"(?im)^ElementDataFile[ \t]*=[ \t]*(?![ \t])(?!LOCAL\s*$)"
    if re.search(pattern, head if nrrd or _is_meta(file, head) else b""):
        raise UserError(
            f"{file.name}: the voxels are in another file; send one file that holds all (.nii.gz, .nrrd, .mha)"
        )


def segment_names(file: Path) -> dict[int, str] | None:
    """Name of the segment of each voxel value, as 3D Slicer writes them into ``.seg.nrrd`` files.

    Returns:
        None if the header does not name one segment for each value, in one layer.
    """
    head = _head(file)
    if not head.startswith(b"NRRD"):
        return None
    segments: dict[str, dict[str, str]] = {}
    for line in head.decode(errors="replace").splitlines():
        key, separator, value = line.partition(":=")
        if separator and (match := _SEGMENT.fullmatch(key.strip())):
            segments.setdefault(match[1], {})[match[2]] = value.strip()
    found: dict[int, str] = {}
    for segment in segments.values():
        value, layer = segment.get("LabelValue", ""), segment.get("Layer", "0")
        if not value.isdecimal() or layer != "0" or int(value) in found or "Name" not in segment:
            return None
        found[int(value)] = segment["Name"]
    return found or None


def _is_meta(file: Path, head: bytes) -> bool:
    return file.name.lower().endswith((".mha", ".mhd")) or b"ElementDataFile" in head[:4096]


def _head(file: Path) -> bytes:
    """The text before the voxels: up to the empty line of NRRD, the data line of MetaImage."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEADER_BYTES)
    except OSError:
        return b""
    if head.startswith(b"NRRD"):
        return re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0]
    match = re.search(rb"ElementDataFile[^\n]*", head)
    return head[: match.end()] if match else b""
