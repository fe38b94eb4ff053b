"""Read a DICOM Segmentation of any program onto the images that it refers to, without losing or moving a voxel."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from msklabel.imaging.frames import FramePlace, SourceGrid, places_of, source_grid, voxels_under
from msklabel.imaging.scan import ImageError, LabelMap
from msklabel.sections import Label

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
_OLD_SNOMED = ("SRT", "SNM3")


def read_seg(
    segmentation: pydicom.Dataset,
    sources: Sequence[pydicom.Dataset],
    affine: NDArray[np.float64],
    scheme: Mapping[str, Label],
) -> LabelMap:
    """Bring a segmentation to the voxels of its images and to the indices of a system.

    Segments are matched by code, then by name; those without voxels are passed over.

    Args:
        segmentation: The data set, binary or a label map.
        sources: The images, in the order of their slices.
        affine: Of the scan that the sources make, voxel index to RAS mm; a projection image has no other.
        scheme: The labels of the system by name.

    Returns:
        Axes (column, row, slice), with ``affine``.

    Raises:
        ImageError: If it is of another kind or other images, its geometry does not fit, a segment is no label of the
            system, or two segments claim a voxel.
    """
    _require_kind(segmentation)
    grid = source_grid(sources)
    _require_refers(segmentation, sources)
    numbers = _numbers(segmentation, grid)
    segments = {int(item.SegmentNumber): item for item in segmentation.SegmentSequence}
    present = [int(number) for number in np.unique(numbers) if number]
    if not present:
        raise ImageError("the segmentation is empty")
    if stray := [number for number in present if number not in segments]:
        raise ImageError(f"the segmentation has frames of segment {stray[0]}, which it does not describe")
    table = np.zeros(max(present) + 1, np.uint8)
    for number, index in _indices({number: segments[number] for number in present}, scheme).items():
        table[number] = index
    return LabelMap(table[numbers], affine)


def is_segmentation(path: Path) -> bool:
    """Whether a file, or any in a folder, is a DICOM Segmentation."""
    files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else [path]
    return any(_class_of(file) in (SEGMENTATION, LABEL_MAP_SEGMENTATION) for file in files)


def _class_of(file: Path) -> str | None:
    """SOP Class UID of a DICOM file; None of any other."""
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"])
    except (pydicom.errors.InvalidDicomError, OSError, EOFError):
        return None
    return header.get("SOPClassUID")


def _require_kind(segmentation: pydicom.Dataset) -> None:
    if segmentation.get("SOPClassUID") not in (SEGMENTATION, LABEL_MAP_SEGMENTATION):
        raise ImageError("this DICOM file is no segmentation")
    if segmentation.get("SegmentationType") == "FRACTIONAL":
        raise ImageError("the segmentation is fractional; store it as a binary one")


def _require_refers(segmentation: pydicom.Dataset, sources: Sequence[pydicom.Dataset]) -> None:
    """Refuse a segmentation of other images: it names one of them, or shares their frame of reference."""
    wanted = {str(source.SOPInstanceUID) for source in sources}
    named = set(referenced_instances(segmentation))
    frame = segmentation.get("FrameOfReferenceUID")
    if not named & wanted and (named or frame is None or frame != sources[0].get("FrameOfReferenceUID")):
        raise ImageError("the segmentation was drawn on other images")


def referenced_series(segmentation: pydicom.Dataset) -> list[str]:
    """Series Instance UIDs of the images that a segmentation names."""
    return [str(item.SeriesInstanceUID) for item in segmentation.get("ReferencedSeriesSequence") or []]


def referenced_instances(segmentation: pydicom.Dataset) -> list[str]:
    """SOP Instance UIDs of the images that a segmentation names."""
    series = segmentation.get("ReferencedSeriesSequence") or []
    items = [item for one in series for item in one.get("ReferencedInstanceSequence") or []]
    items += segmentation.get("SourceImageSequence") or []
    return [str(item.ReferencedSOPInstanceUID) for item in items]


def _indices(segments: Mapping[int, pydicom.Dataset], scheme: Mapping[str, Label]) -> dict[int, int]:
    """Label index for each segment number."""
    by_code = {label.code: label.index for label in scheme.values()}
    by_name = {_plain(name): label.index for name, label in scheme.items()}
    found = {n: by_code.get(_code(item)) or by_name.get(_plain(_title(item))) for n, item in segments.items()}
    if unknown := [f"{_title(segments[n])} ({_code(segments[n])})" for n, index in found.items() if index is None]:
        raise ImageError(f"no label of the system for: {'; '.join(unknown)}; labels: {', '.join(scheme)}")
    return {n: index for n, index in found.items() if index is not None}


def _code(segment: pydicom.Dataset) -> str:
    items = segment.get("SegmentedPropertyTypeCodeSequence")
    if not items:
        return "no code"
    scheme = str(items[0].get("CodingSchemeDesignator", ""))
    value = items[0].get("CodeValue") or items[0].get("LongCodeValue") or items[0].get("URNCodeValue") or ""
    if scheme in _OLD_SNOMED:
        from pydicom.sr._snomed_dict import mapping

        value, scheme = mapping["SRT"].get(str(value), value), "SCT"
    return f"{scheme}:{value}"


def _title(segment: pydicom.Dataset) -> str:
    return str(segment.get("SegmentLabel") or segment.get("SegmentDescription") or f"segment {segment.SegmentNumber}")


def _plain(name: str) -> str:
    """A name without case, spaces and punctuation."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _numbers(segmentation: pydicom.Dataset, grid: SourceGrid) -> NDArray[np.uint16]:
    """Segment number of each voxel of the grid."""
    places = places_of(segmentation)
    numbers = np.zeros(grid.shape, np.uint16)
    for frame, pixels in enumerate(_frames(segmentation)):
        rows, columns = np.nonzero(pixels)
        if not len(rows):
            continue
        here, at = pixels[rows, columns], tuple(_at(segmentation, grid, places, frame, columns, rows))
        there = numbers[at]
        if (clash := (there != 0) & (there != here)).any():
            both = there[clash][0], here[clash][0]
            raise ImageError(f"segments {both[0]} and {both[1]} of the segmentation overlap: one voxel has one label")
        numbers[at] = here
    return numbers


def _at(
    segmentation: pydicom.Dataset,
    grid: SourceGrid,
    places: Sequence[FramePlace],
    frame: int,
    columns: NDArray[np.intp],
    rows: NDArray[np.intp],
) -> NDArray[np.intp]:
    if grid.affine is not None and places:
        return voxels_under(places[frame], columns, rows, grid)
    if (int(segmentation.Columns), int(segmentation.Rows)) != grid.shape[:2] or grid.shape[2] != 1:
        raise ImageError("the segmentation says nowhere where its frames lie, and it is not as large as the image")
    return np.stack([columns, rows, np.zeros_like(columns)])


def _frames(segmentation: pydicom.Dataset) -> Iterator[NDArray[np.integer]]:
    """Segment numbers (rows, columns) of each frame; one of a binary segmentation has a single segment."""
    if segmentation.SOPClassUID == LABEL_MAP_SEGMENTATION or segmentation.get("SegmentationType") == "LABELMAP":
        yield from _decoded(segmentation)
        return
    for number, frame in enumerate(_binary_frames(segmentation)):
        yield frame.astype(np.uint16) * _segment_of(segmentation, number)


def _binary_frames(segmentation: pydicom.Dataset) -> Iterator[NDArray[np.uint8]]:
    """Frames one after the other: all of them at once would take a byte for each bit."""
    size = int(segmentation.Rows) * int(segmentation.Columns)
    count = int(segmentation.get("NumberOfFrames") or 1)
    if segmentation.file_meta.TransferSyntaxUID.is_compressed:
        yield from _decoded(segmentation)
        return
    packed = np.frombuffer(segmentation.PixelData, np.uint8)
    if len(packed) * 8 < size * count:
        raise ImageError("the segmentation is cut off: it has fewer pixels than frames")
    for number in range(count):
        first, last = number * size, (number + 1) * size
        bits = np.unpackbits(packed[first // 8 : -(-last // 8)], bitorder="little")
        yield bits[first % 8 : first % 8 + size].reshape(segmentation.Rows, segmentation.Columns)


def _decoded(segmentation: pydicom.Dataset) -> NDArray[np.integer]:
    """All frames, (frames, rows, columns), by pydicom, which has no decoder for some transfer syntaxes."""
    try:
        return segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    except RuntimeError as error:  # pydicom has no decoder for it, or the decoder failed
        stored = segmentation.file_meta.TransferSyntaxUID.name
        raise ImageError(f"the segmentation's pixels cannot be read ({stored}); store it uncompressed") from error
    except (ValueError, AttributeError) as error:
        raise ImageError("the segmentation's pixels are damaged, cut off or not described whole") from error


def _segment_of(segmentation: pydicom.Dataset, number: int) -> int:
    own = segmentation.PerFrameFunctionalGroupsSequence[number]
    shared = (segmentation.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    items = own.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
    if not items:
        raise ImageError(f"frame {number + 1} of the segmentation does not say which segment it shows")
    return int(items[0].ReferencedSegmentNumber)
