"""DICOM images made on the spot: CT and oblique MR series, a radiograph, an enhanced multi-frame MR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
CR = "1.2.840.10008.5.1.4.1.1.1"
ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_C, _S = np.cos(0.3), np.sin(0.3)
OBLIQUE = (_C, _S, 0.0, -_S * _C, _C * _C, _S)


def series(
    folder: Path,
    shape: tuple[int, int, int] = (20, 16, 6),
    modality: str = "CT",
    orientation: Sequence[float] = STRAIGHT,
    spacing_mm: tuple[float, float, float] = (0.8, 0.9, 3.0),
    description: str = "hips",
    patient: str = "P1",
    study: str | None = None,
    array: np.ndarray | None = None,
) -> list[FileDataset]:
    """Write one file for each slice; the file names run against the slices.

    Args:
        shape: Columns, rows, slices.
        array: Stored values, axes (column, row, slice); noise by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(900, 1200, shape) if array is None else array
    cosines = np.array(orientation).reshape(2, 3)
    normal = np.cross(cosines[0], cosines[1])
    study, uid, frame = study or generate_uid(), generate_uid(), generate_uid()
    made = []
    for number in range(shape[2]):
        image = _image({"CT": CT, "MR": MR}[modality], modality, values[..., number], patient, study, uid)
        image.SeriesDescription = description
        image.FrameOfReferenceUID = frame
        image.ImagePositionPatient = [
            float(v) for v in np.array([-30.0, -20.0, 50.0]) + number * spacing_mm[2] * normal
        ]
        image.ImageOrientationPatient = [float(v) for v in orientation]
        image.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
        image.SliceThickness = spacing_mm[2]
        image.InstanceNumber = number + 1
        image.save_as(folder / f"{shape[2] - number:04d}.dcm", write_like_original=False)
        made.append(image)
    return made


def enhanced(
    file: Path,
    shape: tuple[int, int, int] = (20, 16, 6),
    modality: str = "CT",
    orientation: Sequence[float] = STRAIGHT,
    spacing_mm: tuple[float, float, float] = (0.8, 0.9, 3.0),
    order: Sequence[int] = (),
    array: np.ndarray | None = None,
) -> FileDataset:
    """Write one multi-frame image (PS3.3 A.38, A.36).

    Args:
        file: Of the image.
        shape: Columns, rows, slices.
        order: Slice of each frame, counted along the normal; by default as they come.
        array: Stored values, axes (column, row, slice); noise by default.
    """
    values = np.random.default_rng(0).integers(900, 1200, shape) if array is None else array
    order = list(order) or list(range(shape[2]))
    image = _image(ENHANCED[modality], modality, values[..., order[0]], "P1", generate_uid(), generate_uid())
    image.NumberOfFrames, image.FrameOfReferenceUID, image.InstanceNumber = len(order), generate_uid(), 1
    image.SeriesDescription, image.ImageType = "enhanced", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    measures, plane, scale, shared = (pydicom.Dataset() for _ in range(4))
    measures.PixelSpacing, measures.SliceThickness = [spacing_mm[1], spacing_mm[0]], spacing_mm[2]
    plane.ImageOrientationPatient = [float(v) for v in orientation]
    scale.RescaleIntercept, scale.RescaleSlope, scale.RescaleType = (-1024 if modality == "CT" else 0), 1, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [scale]
    image.SharedFunctionalGroupsSequence = [shared]
    cosines = np.array(orientation).reshape(2, 3)
    normal = np.cross(cosines[0], cosines[1])
    groups = []
    for number in order:
        own, position = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = [
            float(v) for v in np.array([-30.0, -20.0, 50.0]) + number * spacing_mm[2] * normal
        ]
        own.PlanePositionSequence = [position]
        groups.append(own)
    image.PerFrameFunctionalGroupsSequence = groups
    image.PixelData = np.ascontiguousarray(values[..., order].T.astype(np.uint16)).tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(file, write_like_original=False)
    return image


def radiograph(file: Path, shape: tuple[int, int] = (40, 30), patient: str = "P1") -> FileDataset:
    """Write a CR image of (columns, rows)."""
    values = np.random.default_rng(1).integers(0, 1000, shape)
    image = _image(CR, "CR", values, patient, generate_uid(), generate_uid())
    image.PixelSpacing = [0.2, 0.2]
    image.PatientOrientation = ["L", "F"]
    image.save_as(file, write_like_original=False)
    return image


def _image(sop_class: str, modality: str, values: np.ndarray, patient: str, study: str, uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.is_little_endian, image.is_implicit_VR = True, False
    image.SOPClassUID, image.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = study, uid
    image.Modality, image.PatientID, image.PatientName = modality, patient, "Phantom^Synthetic"
    image.PatientBirthDate = image.PatientSex = image.AccessionNumber = image.StudyID = ""
    image.StudyDate, image.StudyTime = "20260101", "120000"
    image.Rows, image.Columns = values.shape[1], values.shape[0]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    if modality == "CT":
        image.RescaleIntercept, image.RescaleSlope, image.RescaleType = -1024, 1, "HU"
    image.PixelData = np.ascontiguousarray(values.T.astype(np.uint16)).tobytes()
    return image


def read_back(file: Path, dataset: pydicom.Dataset) -> pydicom.Dataset:
    """A data set as another program would find it on disk."""
    dataset.save_as(file, write_like_original=False)
    return pydicom.dcmread(file)
