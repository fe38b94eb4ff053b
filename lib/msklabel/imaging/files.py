"""The files that a scan is read from, and whether they have changed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from msklabel.imaging.channels import channel_files
from msklabel.imaging.names import with_notes

Stamp = tuple[tuple[str, int, int], ...]
"""Name, size and time of each file."""


def stamp_of(path: Path, channels: Sequence[str] = ()) -> Stamp:
    """Names, sizes and times of the files that a scan is read from.

    Args:
        path: A file, one file of a group of channels, or a folder of DICOM series.
        channels: That are read; files beside the one count where these are several.
    """
    if path.is_dir():  # a hidden file tells when the series was used
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    else:
        beside = channel_files(path, channels) if len(channels) > 1 else {}
        files = with_notes(list(chain.from_iterable(beside.values())) or [path])
    found = []
    for file in files:
        with suppress(FileNotFoundError):
            facts = file.stat()
            found.append((file.name, facts.st_size, facts.st_mtime_ns))
    return tuple(found)
