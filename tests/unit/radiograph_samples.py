"""Small DICOM CR files for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from highdicom.frame import encode_frame
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS = 5, 7


def ramp(bits: int) -> np.ndarray:
    """Stored values (rows, columns) that use all bits."""
    top = 2**bits - 1
    return np.linspace(0, top, ROWS * COLUMNS).round().astype(np.uint8 if bits == 8 else np.uint16).reshape(ROWS, -1)


def write_cr(path: Path, stored: np.ndarray | None = None, bits: int = 12, **attributes: Any) -> np.ndarray:
    """Write a CR image of 0.2 mm rows and 0.1 mm columns; an attribute of None is left out."""
    stored = ramp(bits) if stored is None else stored
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    meta.TransferSyntaxUID = syntax = attributes.pop("transfer_syntax", ExplicitVRLittleEndian)
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    defaults: dict[str, Any] = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": "1.2.3.4",
        "Modality": "CR",
        "PatientID": "patient-7",
        "Rows": ROWS,
        "Columns": COLUMNS,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelRepresentation": 0,
        "BitsAllocated": 8 * stored.itemsize,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelSpacing": [0.2, 0.1],
        "PixelData": stored.tobytes(),
    }
    for name, value in {**defaults, **attributes}.items():
        if value is not None:
            setattr(data, name, value)
    data.is_little_endian, data.is_implicit_VR = True, False
    if syntax.is_compressed:
        layout = (data.BitsAllocated, data.BitsStored, data.PhotometricInterpretation, data.PixelRepresentation)
        data.PixelData = encapsulate([encode_frame(stored, syntax, *layout)])
        data["PixelData"].is_undefined_length = True
    pydicom.dcmwrite(path, data, write_like_original=False)
    return stored
