"""Compressed series in the PACS: decoded to the right voxels, segmented, and labelled on the right slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from compressed import COMPRESS, HTJ2K, LOSSY, needs_dcmtk, write_as
from dicom_samples import radiograph, series
from hospital import PHANTOM_MM, Hospital, by_reference, hospital, marks, phantom_ct, pixels
from live import DRAFT, SYSTEM
from orthanc import needs_orthanc

from msklabel.catalogue import load_catalogue
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_scan
from msklabel.imaging.seg_read import read_seg
from msklabel.imaging.viewer_frames import frames_of

pytestmark = [needs_orthanc, needs_dcmtk, pytest.mark.timeout(240)]
XRAY = "hip_radiograph"
LABELS = {name: load_catalogue()[name].labels for name in (SYSTEM, XRAY)}
CTS = ("stored", *COMPRESS)
SIGNED = ("signed_jpegls", "signed_jpeg_lossless")
XRAYS = {"jpeg_baseline": 8, "jpeg_extended": 12, "jpeg2000": 12}  # bits
MOST_LOST = {"jpeg_baseline": 40, "jpeg_extended": 16, "jpegls_near": 2, "jpeg2000_lossy": 40}  # HU


def write_ct(folder: Path, bits: int = 12, signed: bool = False) -> None:
    """A hip; signed values are HU themselves."""
    stored = phantom_ct(SYSTEM)
    series(folder, stored.shape, spacing_mm=PHANTOM_MM, array=stored)
    for file in folder.iterdir():
        image = pydicom.dcmread(file)
        image.BitsStored, image.HighBit = bits, bits - 1
        if signed:
            values = np.frombuffer(image.PixelData, np.uint16).astype(np.int16) - 1024
            image.PixelRepresentation, image.RescaleIntercept, image.PixelData = 1, 0, values.tobytes()
        image.save_as(file)


def write_xray(folder: Path, bits: int) -> None:
    folder.mkdir()
    image = radiograph(folder / "image.dcm", (150, 120))
    columns, rows = np.meshgrid(np.arange(150), np.arange(120), indexing="ij")
    values = (np.hypot(columns - 60, rows - 70) * (1 if bits == 8 else 16)).T
    kind = np.uint8 if bits == 8 else np.uint16
    image.BitsAllocated, image.BitsStored, image.HighBit = np.dtype(kind).itemsize * 8, bits, bits - 1
    image.PixelSpacing, image.FrameOfReferenceUID = [1.8, 1.8], pydicom.uid.generate_uid()
    image.PixelData = np.ascontiguousarray(values.astype(kind)).tobytes()
    image["PixelData"].VR = "OB" if bits == 8 else "OW"
    image.save_as(folder / "image.dcm")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hospital, Path]]:
    """Our server, the PACS, and the folder of the series."""
    folder = tmp_path_factory.mktemp("compressed")
    all_series = folder / "series"
    for name in CTS:
        write_ct(all_series / name)
    for name in SIGNED:
        write_ct(all_series / name, bits=16, signed=True)
    for name, bits in XRAYS.items():
        write_xray(all_series / f"xray_{name}", bits)
    for bits in (8, 12):
        write_xray(all_series / f"xray_stored_{bits}", bits)
    for part in all_series.iterdir():
        how = next((how for how in sorted(COMPRESS, key=len, reverse=True) if part.name.endswith(how)), None)
        for file in part.iterdir() if how else ():
            COMPRESS[how](file)
    series(all_series / "htj2k", (20, 16, 2))
    for file in (all_series / "htj2k").iterdir():
        write_as(file, "1.2.840.10008.1.2.4.201", HTJ2K)
    files = [file for part in sorted(all_series.iterdir()) for file in sorted(part.iterdir())]
    with hospital(folder, files, (SYSTEM, XRAY), trained=(XRAY,)) as running:
        yield running, all_series


def uid_of(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True).SeriesInstanceUID)


def check_round(site: Hospital, folder: Path, system: str, draft: np.ndarray) -> None:
    """What is submitted comes to the PACS, each frame on the image that it was drawn on, and reads back."""
    uid, drawn = uid_of(folder), np.where(marks(draft.shape), marks(draft.shape), draft)
    site.submit(uid, system, drawn)
    np.testing.assert_array_equal(pixels(site.shown(uid, system)), drawn)
    stored = site.segmentation(uid)
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in series_files(folder)]
    back = read_seg(stored, sources, read_scan(folder).affine, LABELS[system])
    np.testing.assert_array_equal(back.array, drawn)
    np.testing.assert_array_equal(by_reference(stored, frames_of(folder), LABELS[system]), drawn)


def check_said(site: Hospital, uid: str, draft: dict, how: str) -> None:
    """A series that lost something says so in the draft, in its record and in the log; others say nothing."""
    noted = site.ours.ask("GET", "/datastore/?output=all").json()["objects"][uid]["image"]["info"].get("lossy", "")
    if how in LOSSY:
        assert f"compressed with losses ({LOSSY[how]}" in noted
        assert noted in draft["warnings"]
        assert f"{uid}: {noted}" in site.log()
    else:
        assert not noted
        assert not any("losses" in warning for warning in draft["warnings"] or ())


@pytest.mark.parametrize("name", [*CTS, *SIGNED])
def test_a_ct_is_fetched_segmented_and_labelled(site: tuple[Hospital, Path], name: str, tmp_path: Path) -> None:
    running, folder = site
    uid = uid_of(folder / name)
    row = next(row for row in running.pacs.series(["CT"]) if row.uid == uid)
    running.pacs.fetch(row.study, uid, tmp_path / "fetched")
    hu = phantom_ct(SYSTEM) - 1024
    lost = np.abs(read_scan(tmp_path / "fetched").array[0] - hu).max()
    assert lost <= MOST_LOST.get(name, 0), f"{lost} HU"
    assert lost > 0 or name not in LOSSY
    draft, plain = running.draft(uid, DRAFT), running.draft(uid_of(folder / "stored"), DRAFT)
    label, expected = pixels(draft), pixels(plain)
    assert len(np.unique(expected)) > 4
    assert (label == expected).mean() >= (0.8 if name in LOSSY else 1)
    check_said(running, uid, draft, name)
    check_round(running, folder / name, SYSTEM, label)


@pytest.mark.parametrize("how", XRAYS)
def test_a_radiograph_is_fetched_segmented_and_labelled(site: tuple[Hospital, Path], how: str) -> None:
    running, folder = site
    part, stored = folder / f"xray_{how}", folder / f"xray_stored_{XRAYS[how]}"
    uid = uid_of(part)
    got, wanted = read_scan(part).array[0], read_scan(stored).array[0]
    assert np.abs(got.astype(float) - wanted).max() <= (0.02 * wanted.max() if how in LOSSY else 0)
    draft, plain = running.draft(uid, XRAY), running.draft(uid_of(stored), XRAY)
    assert len(np.unique(pixels(draft))) > 1
    if how not in LOSSY:
        np.testing.assert_array_equal(pixels(draft), pixels(plain))
    check_said(running, uid, draft, how)
    check_round(running, part, XRAY, pixels(draft))


def test_what_nothing_here_decodes_is_one_sentence(site: tuple[Hospital, Path]) -> None:
    running, folder = site
    uid = uid_of(folder / "htj2k")
    assert uid in running.ours.ask("GET", "/datastore/?output=all").json()["objects"]
    answer = running.ours.ask("GET", f"/msk/viewer/label?image={uid}&system={SYSTEM}")
    segmented = running.ours.ask("POST", f"/msk/viewer/segment?image={uid}&model={DRAFT}")
    inferred = running.ours.ask("POST", f"/infer/{DRAFT}?image={uid}")
    said = "its pixels are compressed as High-Throughput JPEG 2000, which cannot be read here"
    for refused in (answer, segmented, inferred):
        assert refused.status_code == 400, refused.text
        assert said in refused.json()["detail"]
    assert said in running.log()
