"""Write measurements as a DICOM Structured Report: TID 1500, Measurement Report (PS3.16), by highdicom.

Each structure and side is a measurement group of TID 1501 with its code as finding and finding site, its side as
laterality, and one NUM item with a UCUM unit for each number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom.sr as sr
import numpy as np
import pydicom
from highdicom.sr.coding import CodedConcept
from highdicom.version import __version__ as _highdicom
from pydicom.errors import InvalidDicomError
from pydicom.sr import codedict
from pydicom.uid import generate_uid

from msklabel import __version__
from msklabel.imaging.dicom import UNICODE
from msklabel.imaging.scan import ImageError

OWN = "99MSKLABEL"
codes: Any = codedict.codes
_DIGITS = 6
_SAME_MM = 0.1  # so near to each other are the middles of a slice and of its image
_REPORTED = {"CT": codes.LN.CTUnspecifiedBodyRegion, "MR": codes.LN.MRIUnspecifiedBodyRegion}
_PLAIN_FILM = CodedConcept("RADIOGRAPH", OWN, "Radiograph, unspecified body region")
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
_TYPE_2 = ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")


@dataclass(frozen=True)
class Kind:
    """What a number is.

    Attributes:
        name: Its concept, ``SCHEME:VALUE`` and meaning.
        unit: In UCUM, and its meaning.
        mean: Whether it is the mean of many voxels.
    """

    name: tuple[str, str]
    unit: tuple[str, str]
    mean: bool = False


_CM3, _CM2, _PERCENT = ("cm3", "cubic centimeter"), ("cm2", "square centimeter"), ("%", "Percent")
_HU = ("[hnsf'U]", "Hounsfield Unit")
KINDS: Mapping[str, Kind] = {
    "volume_cm3": Kind(("SCT:118565006", "Volume"), _CM3),
    "area_cm2": Kind(("SCT:42798000", "Area"), _CM2),
    "mean_hu": Kind(("DCM:112031", "Attenuation Coefficient"), _HU, mean=True),
    "fat_fraction_percent": Kind(("DCM:129100", "Fat fraction"), _PERCENT, mean=True),
    "volume_per_height2_mm3_per_m2": Kind(
        (f"{OWN}:VOLUME_PER_HEIGHT_SQUARED", "Volume over height squared"), ("mm3/m2", "cubic millimeter per m2")
    ),
    "mean_hu_per_height2_hu_per_m2": Kind(
        (f"{OWN}:HU_PER_HEIGHT_SQUARED", "Mean attenuation over height squared"),
        ("[hnsf'U]/m2", "HU per m2"),
        mean=True,
    ),
    "volume_asymmetry_percent": Kind((f"{OWN}:VOLUME_ASYMMETRY", "(left - right) / mean of volumes"), _PERCENT),
    "area_asymmetry_percent": Kind((f"{OWN}:AREA_ASYMMETRY", "(left - right) / mean of areas"), _PERCENT),
}
_SHARE = "_share_percent"


@dataclass(frozen=True)
class Group:
    """The numbers of one structure on one side.

    Attributes:
        structure: Its name.
        code: ``SCHEME:VALUE``; empty for a private one from the name.
        side: ``both``, ``left`` or ``right``.
        numbers: By the name of a quantity as a CSV's header has it; those that are none are left out.
        heights_mm: Where the slices that were measured have their middle, superior growing; empty: all of them.
    """

    structure: str
    code: str
    side: str
    numbers: Mapping[str, float]
    heights_mm: Sequence[float] = ()


def read_evidence(path: Path) -> list[pydicom.Dataset]:
    """Headers of the images that were measured: a DICOM file, or all of a folder.

    Raises:
        ImageError: If there is no DICOM image, or images of two studies.
    """
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    found: list[pydicom.Dataset] = []
    for file in files:
        try:
            found.append(pydicom.dcmread(file, stop_before_pixels=True))
        except (InvalidDicomError, OSError):
            continue
    found = [one for one in found if "SOPInstanceUID" in one and "StudyInstanceUID" in one]
    if not found:
        raise ImageError(f"{path.name}: a DICOM report refers to DICOM images, and this is none")
    if len({one.StudyInstanceUID for one in found}) > 1:
        raise ImageError(f"{path.name}: images of two studies; a report is of one")
    return found


def write_sr(groups: Sequence[Group], evidence: Sequence[pydicom.Dataset], system: str) -> pydicom.Dataset:
    """Make a report; it is preliminary and not verified, for nobody has looked at it.

    Args:
        groups: What was measured.
        evidence: Headers of the images, of one study.
        system: Name of the system, noted as the series' description.

    Raises:
        ImageError: If there is no number at all.
    """
    heights = [_height_mm(one) for one in evidence]
    measured = [made for group in groups if (made := _group(group, evidence, heights)) is not None]
    if not measured:
        raise ImageError("nothing was measured, so there is nothing to report")
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["msklabel", __version__]), name="msklabel", model_name=f"msklabel {system}"
    )
    observer = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_REPORTED.get(str(evidence[0].get("Modality")), _PLAIN_FILM),
        imaging_measurements=measured,
        title=codes.DCM.ImagingMeasurementReport,
    )
    document = sr.ComprehensiveSR(
        evidence=[_complete(one) for one in evidence],
        content=report[0],
        series_number=9001,
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="msklabel",
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"msklabel {system}"[:64],
        manufacturer_model_name=f"msklabel {system}"[:64],
        software_versions=[__version__, f"highdicom {_highdicom}"],
        device_serial_number=__version__,
    )
    document.SpecificCharacterSet = UNICODE
    return document


def save_sr(document: pydicom.Dataset, file: Path) -> None:
    """Write a report to a file, whole or not at all."""
    partial = file.with_name(f".writing-{file.name}")
    try:
        document.save_as(partial, write_like_original=False)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _group(
    group: Group, evidence: Sequence[pydicom.Dataset], heights_mm: Sequence[float]
) -> sr.MeasurementsAndQualitativeEvaluations | None:
    numbers = [made for name, value in group.numbers.items() if (made := _number(name, value)) is not None]
    if not numbers:
        return None
    meaning = group.structure.replace("_", " ").capitalize()
    code = _concept(group.code or f"{OWN}:{group.structure.upper()}", meaning)
    words = meaning if group.side == "both" else f"{meaning}, {group.side}"
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier=words),
        finding_type=code,
        finding_sites=[sr.FindingSite(anatomic_location=code, laterality=_SIDES.get(group.side))],
        measurements=numbers,
        source_images=[
            sr.SourceImageForMeasurementGroup(one.SOPClassUID, one.SOPInstanceUID)
            for one in _measured(group, evidence, heights_mm)
        ],
    )


def _measured(
    group: Group, evidence: Sequence[pydicom.Dataset], heights_mm: Sequence[float]
) -> Sequence[pydicom.Dataset]:
    """The images that a group was measured in; all of them where slices are no images, such as in a sagittal series."""
    near = [np.abs(np.asarray(heights_mm) - height) < _SAME_MM for height in group.heights_mm]
    if not near or not all(one.any() for one in near):
        return evidence
    return [one for one, chosen in zip(evidence, np.any(near, axis=0), strict=True) if chosen]


def _height_mm(image: pydicom.Dataset) -> float:
    """Height of an image's middle (PS3.3 C.7.6.2.1.1); NaN where it has no place."""
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
    if any(image.get(keyword) is None for keyword in needed):
        return float("nan")
    along_row, along_column = float(image.ImageOrientationPatient[2]), float(image.ImageOrientationPatient[5])
    down_mm, across_mm = (float(mm) for mm in image.PixelSpacing)
    middle = along_row * across_mm * (image.Columns - 1) / 2 + along_column * down_mm * (image.Rows - 1) / 2
    return float(image.ImagePositionPatient[2]) + middle


def _number(name: str, value: float) -> sr.Measurement | None:
    kind = KINDS.get(name)
    if kind is None and name.endswith(_SHARE):
        share = name.removesuffix(_SHARE)
        kind = Kind((f"{OWN}:SHARE_OF_{share.upper()}", f"Share of {share.replace('_', ' ')}"), _PERCENT)
    if kind is None or not np.isfinite(value):
        return None
    return sr.Measurement(
        name=_concept(*kind.name),
        value=float(f"{value:.{_DIGITS}g}"),
        unit=CodedConcept(kind.unit[0], "UCUM", kind.unit[1]),
        derivation=codes.SCT.Mean if kind.mean else None,
    )


def _concept(code: str, meaning: str) -> CodedConcept:
    scheme, _, value = code.partition(":")
    return CodedConcept(value, scheme, meaning[:64])


def _complete(one: pydicom.Dataset) -> pydicom.Dataset:
    """The header with empty values where it lacks an attribute that every image should have."""
    missing = [keyword for keyword in _TYPE_2 if keyword not in one]
    if not missing:
        return one
    whole = pydicom.Dataset(one)
    for keyword in missing:
        setattr(whole, keyword, "")
    return whole
