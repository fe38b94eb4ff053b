"""Images of several channels: separate files that belong together by name, a 4D file, DICOM series of one study.

Files are one image when their names differ in the channel only: ``p1_out_of_phase.nii.gz`` and ``p1_IP.nii.gz`` are
channels of ``p1``; so are ``p1/water.nii.gz`` and ``p1/fat.nii.gz`` in a folder of their own. The path of such a group
is that of its first file, in the order of :data:`CHANNELS`; the others are found beside it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from msklabel.imaging.alignment import misfit
from msklabel.imaging.names import is_image, without_suffix
from msklabel.imaging.read import read_scan
from msklabel.imaging.scan import ImageError, Scan


@dataclass(frozen=True)
class Channel:
    """How a channel is called; regular expressions, upper and lower case alike.

    Attributes:
        ending: What a file's name ends in, after a separator or alone.
        description: What is found in a DICOM SeriesDescription (0008,103E).
        image_types: Values of ImageType (0008,0008) that say it, where one series holds several channels.
    """

    ending: str
    description: str
    image_types: tuple[str, ...]


_NOT_ALONE = r"(?![\s_-]*(?:frac|perc|sat|sup|map|only\s*sat))"  # a fat fraction, a fat-saturated image
CHANNELS: dict[str, Channel] = {
    "out_of_phase": Channel(
        r"out[_-]?of[_-]?phase|out[_-]?phase|opp(?:osed)?[_-]?phase|opposed|opp|op|out",
        r"\bout[\s_-]*of[\s_-]*phase|(?<![a-z])(?:out|opp(?:osed)?)[\s_-]*phase|(?<![a-z])(?:opp|op|out)$",
        ("OP", "OPP", "OUT_PHASE", "OUT_OF_PHASE", "OPP_PHASE"),
    ),
    "in_phase": Channel(
        r"in[_-]?phase|ip|in", r"(?<![a-z])in[\s_-]*phase|(?<![a-z])(?:ip|in)$", ("IP", "IN_PHASE", "INPHASE")
    ),
    "water": Channel(r"water|wat|w", rf"(?<![a-z])water{_NOT_ALONE}|(?<![a-z])w$", ("W", "WATER")),
    "fat": Channel(r"fat|f", rf"(?<![a-z])fat{_NOT_ALONE}|(?<![a-z])f$", ("F", "FAT")),
}
CHANNELS_FACT = "channels"  # key of a scan's facts: the names of its channels, by spaces
_TAGS = ["SeriesInstanceUID", "StudyInstanceUID", "SeriesDescription", "ImageType"]


def channel_of(name: str, also: Iterable[str] = ()) -> tuple[str, str] | None:
    """Split a file's name, or any other, into what comes before the channel and the channel.

    Args:
        name: With or without image suffix.
        also: Names of further channels, such as a System's own.

    Returns:
        ``("p1", "in_phase")`` for ``p1_IP.nii.gz``, ``("", "fat")`` for ``fat.nii``; None if no channel is named.
    """
    endings = {channel: f"{known.ending}|{channel}" for channel, known in CHANNELS.items()}
    endings |= {channel: re.escape(channel) for channel in also if channel not in endings}
    for channel, ending in endings.items():
        if match := re.fullmatch(rf"(?:(.*?)[_.\s-]+)?(?:{ending})", without_suffix(name), re.IGNORECASE):
            return match[1] or "", channel
    return None


def group_channels(names: Iterable[str], also: Iterable[str] = ()) -> dict[str, dict[str, list[str]]]:
    """Find the files of one folder that are channels of one image: two channels at least.

    Returns:
        For each image, by what its files' names begin with (empty in a folder of its own): the names of each channel,
        channels in the order of :data:`CHANNELS`. A channel of two names is for the reader to refuse.
    """
    also = tuple(also)
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names):
        if is_image(Path(name)) and not name.startswith(".") and (split := channel_of(name, also)):
            found.setdefault(split[0], {}).setdefault(split[1], []).append(name)
    order = [*CHANNELS, *also]
    return {
        stem: dict(sorted(parts.items(), key=lambda part: order.index(part[0])))
        for stem, parts in found.items()
        if len(parts) > 1
    }


def channel_files(path: Path, also: Iterable[str] = ()) -> dict[str, list[Path]]:
    """The files of each channel of the image that a path stands for.

    Args:
        path: A file of the group, the folder that holds it and nothing else, or its files' path without the channel.
        also: Names of further channels.

    Returns:
        Empty if the path stands for no group.
    """
    folder, stem = (path, "") if path.is_dir() else (path.parent, path.name)
    if path.is_file():
        split = channel_of(path.name, also)
        if split is None:
            return {}
        stem = split[0]
    files = folder.iterdir() if folder.is_dir() else ()
    groups = group_channels([file.name for file in files if file.name.startswith(stem) and file.is_file()], also)
    chosen = groups.get(stem, {})
    if path.is_dir():
        chosen = next(iter(groups.values())) if len(groups) == 1 else {}
    return {channel: [folder / name for name in part] for channel, part in chosen.items()}


def read_channels(source: str | Path | Mapping[str, str | Path], channels: Sequence[str] = ()) -> Scan:
    """Read a scan with all its channels.

    Args:
        source: A path as :func:`channel_files` takes it, a 4D file, a folder with the DICOM series of one study, or
            the file of each channel by name.
        channels: Channels wanted, in order; by default all that are there. Of a file whose channels have no names the
            number is compared only.

    Returns:
        Shape (C, X, Y, Z). The facts are those of the first channel, with the names of all under ``channels`` where
        they are known.

    Raises:
        ImageError: If a channel is missing, is there twice, cannot be read or lies on another grid than the first.
    """
    if isinstance(source, Mapping):
        name = " and ".join(Path(file).name for file in source.values())
        return _joined({channel: [Path(file)] for channel, file in source.items()}, channels, name)
    path = Path(source)
    files = channel_files(path, channels)
    alone = path.is_file() and len(channels) == 1 and channels[0] not in files  # a system that takes any one image
    if files and not alone:
        return _joined(files, channels, path.name)
    if path.is_dir() and len(series := _series(path)) > 1:
        with tempfile.TemporaryDirectory() as links:  # one folder for each series, as the reader takes them
            return _joined(_linked(series, Path(links)), channels, path.name)
    scan = read_scan(path)
    if channels and len(scan.array) != len(channels):
        split = channel_of(path.name, channels)
        if split and split[1] in channels and len(scan.array) == 1:
            raise _missing(path.name, [split[1]], channels)
        wanted = f"{len(channels)} channel{'s' * (len(channels) > 1)} ({', '.join(channels)})"
        raise ImageError(f"{path.name}: expected {wanted}, got {len(scan.array)}")
    return scan


def named_channels(scan: Scan) -> dict[str, NDArray[Any]]:
    """The channels of a scan by name, each (X, Y, Z); empty where they have no names."""
    names = scan.facts.get(CHANNELS_FACT, "").split()
    return dict(zip(names, scan.array, strict=True)) if names else {}


def _joined(files: Mapping[str, Sequence[Path]], channels: Sequence[str], name: str) -> Scan:
    wanted = list(channels or files)
    if any(channel not in files for channel in wanted):
        raise _missing(name, list(files), wanted)
    for channel in wanted:
        if len(files[channel]) > 1:
            raise ImageError(f"{name}: {' and '.join(f.name for f in files[channel])} are both the channel {channel}")
    scans = {channel: read_scan(files[channel][0]) for channel in wanted}
    first, *others = wanted
    for channel in wanted:
        file = files[channel][0].name
        if len(scans[channel].array) != 1:
            raise ImageError(f"{file}: expected the one channel {channel}, got {len(scans[channel].array)}")
        if channel in others and (difference := misfit(scans[first], scans[channel], (files[first][0].name, file))):
            raise ImageError(f"{difference}; the channels of an image must lie on the same grid")
    facts = {**scans[first].facts, CHANNELS_FACT: " ".join(wanted)}
    return Scan(np.concatenate([scan.array for scan in scans.values()]), scans[first].affine, facts)


def _missing(name: str, found: Sequence[str], wanted: Sequence[str]) -> ImageError:
    lost = [channel for channel in wanted if channel not in found]
    noun = "channel" if len(lost) == 1 else "channels"
    return ImageError(f"{name}: missing {noun} {', '.join(lost)}; found {', '.join(found)}")


def _series(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Files of each series of a study that is a channel, by channel and by what tells the series apart."""
    found: dict[str, dict[str, list[Path]]] = {}
    studies = set()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        except (InvalidDicomError, OSError):
            continue
        if channel := _channel_of_header(header):
            studies.add(header.get("StudyInstanceUID"))
            found.setdefault(channel, {}).setdefault(str(header.get("SeriesInstanceUID")), []).append(file)
    if len(found) > 1 and len(studies) > 1:
        raise ImageError(f"{folder.name}: series of {len(studies)} studies; put each study in a folder of its own")
    return found


def _channel_of_header(header: pydicom.Dataset) -> str | None:
    values = {str(value).upper() for value in header.get("ImageType") or ()}
    said = [channel for channel, known in CHANNELS.items() if values & set(known.image_types)]
    if len(said) == 1:
        return said[0]
    return None if said else channel_of_description(str(header.get("SeriesDescription") or ""))


def channel_of_description(text: str) -> str | None:
    """The channel that a Series Description (0008,103E) names; None where it names none or several."""
    said = [name for name, known in CHANNELS.items() if re.search(known.description, text.strip(), re.IGNORECASE)]
    return said[0] if len(said) == 1 else None


def _linked(series: Mapping[str, Mapping[str, Sequence[Path]]], links: Path) -> dict[str, list[Path]]:
    folders: dict[str, list[Path]] = {}
    for channel, by_series in series.items():
        for number, files in enumerate(by_series.values(), start=1):
            folder = links / (f"series {channel}" + (f" {number}" if len(by_series) > 1 else ""))
            folder.mkdir()
            for place, file in enumerate(files):
                (folder / f"{place:06d}.dcm").symlink_to(file.resolve())
            folders.setdefault(channel, []).append(folder)
    return {channel: folders[channel] for channel in CHANNELS if channel in folders}
