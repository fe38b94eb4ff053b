"""Write a label map as a DICOM Segmentation of the images that it was drawn on (PS3.3 A.51, by highdicom)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydicom
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr.coding import CodedConcept
from pydicom.uid import generate_uid
from skimage.color import rgb2lab

from msklabel import __version__
from msklabel.imaging.dicom import GAP_TOLERANCE_FRACTION, UNICODE
from msklabel.imaging.frames import SourceGrid, source_grid
from msklabel.imaging.geometry import same_grid
from msklabel.imaging.scan import ImageError, LabelMap
from msklabel.sections import Label

MANUFACTURER = "msklabel"
_CATEGORIES = {
    "anatomical_structure": CodedConcept("123037004", "SCT", "Anatomical Structure"),
    "tissue": CodedConcept("85756007", "SCT", "Tissue"),
}
_FAMILY = CodedConcept("123110", "DCM", "Artificial Intelligence")
_TYPE_2 = (  # a Segmentation repeats these of its source; highdicom wants them to be there, empty or not
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    "StudyTime",
)


_NOT_IN_NAMES = re.compile(r"[\\^=]")  # they part names, components and scripts (PS3.5 6.2)
_LOSSY = ("LossyImageCompressionMethod", "LossyImageCompressionRatio")


@dataclass(frozen=True)
class Drawn:
    """How a label came to be.

    Attributes:
        kind: Of the algorithm, in DICOM's words: drawn by hand, by a model, or by a model and corrected.
        model: Name of the model; needed unless drawn by hand.
        version: Of the model.
        author: Who submitted it.
        description: For people, at most 64 characters.
    """

    kind: Literal["MANUAL", "SEMIAUTOMATIC", "AUTOMATIC"]
    model: str = ""
    version: str = ""
    author: str = ""
    description: str = ""


def write_seg(
    labels: LabelMap, sources: Sequence[pydicom.Dataset], scheme: Mapping[str, Label], drawn: Drawn, system: str
) -> pydicom.Dataset:
    """Make a DICOM Segmentation.

    Each label that occurs becomes a segment with its name, code and colour; segments are numbered from 1 without gaps,
    as DICOM wants it, so that the code, not the number, says which label it is.

    Args:
        labels: On the voxels of the sources, axes (column, row, slice).
        sources: The images, in the order of their slices; see :func:`msklabel.imaging.frames.source_grid`.
        scheme: All labels by name.
        drawn: How the label came to be.
        system: Name of the system; noted as the series' description.

    Raises:
        ImageError: If the label is empty, holds an index that is no label's, or does not lie on the sources; or if
            these have no frame of reference.
    """
    grid = source_grid(sources)
    _require_on(labels, grid)
    if grid.affine is not None and not sources[0].get("FrameOfReferenceUID"):
        raise ImageError("the images name no frame of reference, which a DICOM Segmentation of them must share")
    names = {label.index: name for name, label in scheme.items()}
    present = labels.present()
    if not present:
        raise ImageError("the label is empty: there is nothing to store as a segmentation")
    if unknown := [index for index in present if index not in names]:
        raise ImageError(f"index {unknown[0]} is no label of {system}")
    numbers = np.zeros(256, np.uint8)
    numbers[present] = np.arange(1, len(present) + 1)
    described = [_describe(n, names[i], scheme[names[i]], drawn, system) for n, i in enumerate(present, 1)]
    content = hashlib.sha256(labels.array.tobytes()).hexdigest()
    segmentation = Segmentation(
        source_images=[_complete(source, grid) for source in sources],
        pixel_array=numbers[labels.array].transpose(2, 1, 0),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=f"msklabel {system}",
        software_versions=__version__,
        device_serial_number=content[:16],
        content_description=drawn.description[:64] or None,
        content_creator_name=f"{_NOT_IN_NAMES.sub(' ', drawn.author or 'msklabel')[:60]}^",
        series_description=f"msklabel {system}"[:64],
    )
    segmentation.SpecificCharacterSet = UNICODE
    for segment, index in zip(segmentation.SegmentSequence, present, strict=True):
        segment.RecommendedDisplayCIELabValue = _cielab(scheme[names[index]].color)
    return segmentation


def _require_on(labels: LabelMap, grid: SourceGrid) -> None:
    """Refuse a label of other images; steps from slice to slice may differ from the normal as a series' may."""
    if labels.array.shape != grid.shape:
        raise ImageError(f"the label has {labels.array.shape} voxels, the images have {grid.shape}")
    if grid.affine is None:
        return
    first = (*grid.shape[:2], 1)
    step_mm, apart_mm = np.linalg.norm([grid.affine[:3, 2], labels.affine[:3, 2] - grid.affine[:3, 2]], axis=1)
    steps_agree = grid.shape[2] == 1 or apart_mm <= 2 * GAP_TOLERANCE_FRACTION * step_mm
    if not (steps_agree and same_grid(first, labels.affine, first, grid.affine)):
        raise ImageError("the label does not lie on the voxels of the images")


def _describe(number: int, name: str, label: Label, drawn: Drawn, system: str) -> SegmentDescription:
    scheme, value = label.code.split(":")
    meaning = name.replace("_", " ").capitalize()
    algorithm = None
    if drawn.kind != "MANUAL":
        algorithm = AlgorithmIdentificationSequence(drawn.model or system, _FAMILY, drawn.version or "unknown")
    return SegmentDescription(
        segment_number=number,
        segment_label=meaning[:64],
        segmented_property_category=_CATEGORIES[label.category],
        segmented_property_type=CodedConcept(value, scheme, meaning[:64]),
        algorithm_type=SegmentAlgorithmTypeValues(drawn.kind),
        algorithm_identification=algorithm,
        tracking_id=f"{system}:{name}",
        tracking_uid=generate_uid(entropy_srcs=["msklabel", system, name]),
    )


def _complete(source: pydicom.Dataset, grid: SourceGrid) -> pydicom.Dataset:
    """The source as highdicom wants it: with empty values where it lacks an attribute that every image should have."""
    whole = pydicom.Dataset(source)
    for keyword in _TYPE_2:
        if keyword not in source:
            setattr(whole, keyword, "")
    if "SliceThickness" not in source:
        whole.SliceThickness = None
    if source.get("LossyImageCompression") == "01" and not all(keyword in source for keyword in _LOSSY):
        del whole.LossyImageCompression  # with which method and ratio nobody knows, so that it cannot be repeated
    if grid.affine is None and "FrameOfReferenceUID" in source:  # a radiograph's says nothing of where its pixels lie
        del whole.FrameOfReferenceUID
    if "PerFrameFunctionalGroupsSequence" in source:
        whole.SharedFunctionalGroupsSequence = [_shared(source)]
    return whole


def _shared(source: pydicom.Dataset) -> pydicom.Dataset:
    """What all frames share, with what some scanners repeat for each of them; they are one grid, so it is the same."""
    shared = pydicom.Dataset((source.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0])
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if repeated := source.PerFrameFunctionalGroupsSequence[0].get(name):
            setattr(shared, name, repeated)
    return shared


def _cielab(color: tuple[int, int, int]) -> list[int]:
    """A colour as DICOM keeps it (PS3.3 C.10.7.1.1), from the white point D65, as other programs take it."""
    lightness, a, b = rgb2lab(np.array(color, float).reshape(1, 1, 3) / 255)[0, 0]
    return [round(lightness / 100 * 65535), round((a + 128) / 255 * 65535), round((b + 128) / 255 * 65535)]
