"""What hospitals' archives hold: every series is shown right, or refused with one sentence, and never moved."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_samples import OBLIQUE, enhanced, radiograph, series
from highdicom.frame import encode_frame
from live import Site, start, wait_for
from orthanc import needs_orthanc, orthanc, upload
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from msklabel.catalogue import load_catalogue
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_scan
from msklabel.imaging.seg_read import read_seg
from msklabel.imaging.viewer_frames import frames_of
from msklabel.store.pacs import Pacs

pytestmark = [needs_orthanc, pytest.mark.timeout(240)]
REAL = Path(os.environ.get("MSKLABEL_REAL_DATA", "../shared/data"))
SYSTEMS = {"CT": "hip_tissue_ct", "MR": "hip_abductor_mr", "CR": "hip_radiograph", "DX": "hip_radiograph"}
LABELS = {modality: load_catalogue()[system].labels for modality, system in SYSTEMS.items()}
REFUSED = {
    "missing": "one is missing",
    "double": "two slices at the same position",
    "localizer": "different orientations",
    "sizes": "different sizes",
    "gantrytilting": "gantry was tilted",
    "notavolume": "same position",
    "sliceincrement": "mm apart",
    "sliceorientation": "orientations",
    "enhanced_uneven": "no regular stack",
    "enhanced_tilted": "gantry was tilted",
}
COMPRESSED = ("rle", "jpeg", "jpegls", "jpeg2000")
ENHANCED = ("enhanced_ct", "enhanced_mr", "enhanced_down")
RIGHT = ("plain", "oblique", *COMPRESSED, *ENHANCED, "script", "radiograph")


def changed(folder: Path, change: Any) -> None:
    """Change the images of a series."""
    for number, file in enumerate(sorted(folder.iterdir())):
        image = pydicom.dcmread(file)
        change(number, image, file)


def write_odd(folder: Path) -> None:
    """A folder for each series; its name says what it is."""

    def moved(number: int, image: pydicom.Dataset, file: Path) -> None:
        if number == 2:
            image.ImagePositionPatient[2] += 3.0
            image.save_as(file)

    def turned(number: int, image: pydicom.Dataset, file: Path) -> None:
        if number == 0:
            image.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
            image.save_as(file)

    def larger(number: int, image: pydicom.Dataset, file: Path) -> None:
        if number == 0:
            image.Rows, image.PixelData = image.Rows * 2, image.PixelData * 2
            image.save_as(file)

    def packed(number: int, image: pydicom.Dataset, file: Path) -> None:
        image.compress(RLELossless)
        image.save_as(file)

    def in_jpeg(number: int, image: pydicom.Dataset, file: Path) -> None:
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(folder / "jpeg.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")  # lossless, process 14, for 16 bits
        writer.Execute(sitk.GetImageFromArray(image.pixel_array))
        written = pydicom.dcmread(folder / "jpeg.dcm")
        (folder / "jpeg.dcm").unlink()
        packed_as(image, written.PixelData, written.file_meta.TransferSyntaxUID, file)

    def encoded(syntax: str) -> Any:
        def encode(number: int, image: pydicom.Dataset, file: Path) -> None:
            frame = encode_frame(image.pixel_array, syntax, 16, 16, "MONOCHROME2")
            packed_as(image, encapsulate([frame]), syntax, file)

        return encode

    def named(number: int, image: pydicom.Dataset, file: Path) -> None:
        image.PatientName, image.SeriesDescription = "<script>alert(1)</script>", "<img src=x onerror=alert(1)>"
        image.add_new((0x0009, 0x0010), "LO", "A VENDOR")
        image.add_new((0x0009, 0x1001), "UN", b"\x00\xff private")
        image.save_as(file)

    def coloured(number: int, image: pydicom.Dataset, file: Path) -> None:
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
        image.BitsAllocated = image.BitsStored = 8
        image.HighBit = 7
        image.PixelData = bytes(image.Rows * image.Columns * 3)
        image.save_as(file)

    series(folder / "plain")
    series(folder / "oblique", modality="MR", orientation=OBLIQUE)
    series(folder / "missing")
    (folder / "missing" / "0003.dcm").unlink()
    changes = {"double": moved, "localizer": turned, "sizes": larger, "rle": packed, "jpeg": in_jpeg}
    changes |= {"jpegls": encoded(JPEGLSLossless), "jpeg2000": encoded(JPEG2000Lossless)}
    for name, change in changes.items():
        series(folder / name)
        changed(folder / name, change)
    write_enhanced(folder)
    for name, change in {"script": named, "colour": coloured}.items():
        series(folder / name)
        changed(folder / name, change)
    (folder / "radiograph").mkdir()
    radiograph(folder / "radiograph" / "cr.dcm")


def packed_as(image: pydicom.Dataset, pixels: bytes, syntax: str, file: Path) -> None:
    """Write an image with pixels that were compressed."""
    image.PixelData, image.file_meta.TransferSyntaxUID = pixels, syntax
    image["PixelData"].is_undefined_length = True
    image.save_as(file)


def write_enhanced(folder: Path) -> None:
    """Multi-frame images: regular ones in either direction, and ones that are none."""
    enhanced(folder / "enhanced_ct" / "image.dcm")
    enhanced(folder / "enhanced_mr" / "image.dcm", modality="MR", orientation=OBLIQUE)
    enhanced(folder / "enhanced_down" / "image.dcm", order=range(6)[::-1])
    enhanced(folder / "enhanced_uneven" / "image.dcm", order=(0, 2, 1, 3, 4, 5))
    tilted = enhanced(folder / "enhanced_tilted" / "image.dcm")
    for number, own in enumerate(tilted.PerFrameFunctionalGroupsSequence):
        own.PlanePositionSequence[0].ImagePositionPatient[1] += 0.5 * number
    tilted.save_as(folder / "enhanced_tilted" / "image.dcm")


def copy_real(folder: Path) -> None:
    """The real odd series, and a real CT as a series, where they are on this machine."""
    for part in sorted((REAL / "dicom_odd").glob("*/")):
        by_series: dict[str, list[Path]] = {}
        for file in sorted(path for path in part.rglob("*") if path.is_file()):
            try:
                uid = pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID
            except pydicom.errors.InvalidDicomError:
                continue
            by_series.setdefault(str(uid), []).append(file)
        for number, files in enumerate(by_series.values()):
            place = folder / (part.name + (f"_{number}" if number else ""))
            place.mkdir()
            for file in files:
                (place / file.name).with_suffix(".dcm").symlink_to(file.resolve())
    if (REAL / "ct_pelvis").is_dir():
        image = nib.as_closest_canonical(nib.load(REAL / "ct_pelvis" / "image.nii.gz"))
        values = np.rint(np.clip(image.get_fdata(), -1024, 3000) + 1024)[::-1, ::-1]
        series(folder / "ct_pelvis", values.shape, spacing_mm=(3, 3, 3), array=values)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Pacs, Path]]:
    """Our server with systems for CT, MR and radiographs, the PACS, and the folder of the series."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "series").mkdir()
    write_odd(folder / "series")
    copy_real(folder / "series")
    if (REAL / "xr_hip").is_dir():
        (folder / "series" / "xr_hip").symlink_to((REAL / "xr_hip").resolve())
    (folder / "password").write_text("secret\n", encoding="utf-8")
    with orthanc(folder / "orthanc") as address:
        upload(address, *(file for file in sorted((folder / "series").glob("*/*.dcm"))))
        conf = {"dicomweb_user": "pacs", "dicomweb_password_file": str(folder / "password")}
        conf |= {
            "state": str(folder / "state"),
            "models": ",".join(sorted(set(SYSTEMS.values()))),
            "auto_train": "false",
        }
        ours = start(folder / "ours", pacs=f"{address}/dicom-web", conf=conf, exchange_pause_s=1.0)
        yield ours, Pacs(f"{address}/dicom-web", "pacs", "secret"), folder / "series"
        ours.stop()


def opened(site: tuple[Site, Pacs, Path], name: str) -> tuple[Any, Path, str, str]:
    """What the panel gets for a series; its folder, UID and system."""
    ours, _, folder = site
    if not (folder / name).is_dir():
        pytest.skip("needs the real scans, MSKLABEL_REAL_DATA")
    header = pydicom.dcmread(next((folder / name).glob("*.dcm")), stop_before_pixels=True)
    uid, system = str(header.SeriesInstanceUID), SYSTEMS[header.Modality]
    answer = ours.ask("GET", f"/msk/viewer/label?image={uid}&system={system}")
    return answer, folder / name, uid, system


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_regular_volume_is_refused_with_one_sentence(site: tuple, name: str) -> None:
    answer, *_ = opened(site, name)
    detail = answer.json()["detail"]
    assert answer.status_code == 400, detail
    assert REFUSED[name] in detail
    assert len(detail) < 200


def test_a_colour_picture_is_not_segmented(site: tuple) -> None:
    _, _, uid, system = opened(site, "colour")
    answer = site[0].ask("POST", f"/msk/viewer/segment?image={uid}&model={system}_threshold")
    last = json.loads(answer.text.splitlines()[-1])
    assert (last["state"], last["status"]) == ("failed", 400)
    assert "3" in last["detail"]


def test_a_real_ct_is_segmented(site: tuple) -> None:
    _, folder, uid, system = opened(site, "ct_pelvis")
    answer = site[0].ask("POST", f"/msk/viewer/segment?image={uid}&model={system}_threshold")
    draft = json.loads(answer.text.splitlines()[-1])
    pixels = np.frombuffer(gzip.decompress(base64.b64decode(draft["labels"])), np.uint8)
    hu = read_scan(folder).array[0].transpose(2, 1, 0).reshape(-1)
    bone = LABELS["CT"]["cortical_bone"].index
    assert np.median(hu[pixels == bone]) > 200 > np.median(hu[pixels == LABELS["CT"]["muscle"].index])


@pytest.mark.parametrize("name", [*RIGHT, "xr_hip", "ct_pelvis"])
def test_what_is_submitted_on_a_series_comes_back_on_the_same_pixels(site: tuple, name: str) -> None:
    answer, folder, uid, system = opened(site, name)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert [tuple(frame) for frame in shown["frames"]] == frames_of(folder)
    shape = (shown["columns"], shown["rows"], len(shown["frames"]))
    drawn = np.zeros(shape, np.uint8)
    drawn[: shape[0] // 3, : shape[1] // 4, : (shape[2] + 1) // 2] = 1
    drawn[-2:, -3:, -1] = 2
    order = np.random.default_rng(0).permutation(shape[2])  # a viewer's order is its own
    pictures = np.concatenate([drawn[..., k].T.reshape(-1) for k in order]).tobytes()
    params = {"frames": [shown["frames"][k] for k in order]}
    submitted = site[0].ask(
        "PUT",
        f"/msk/viewer/label?image={uid}&system={system}",
        data={"params": json.dumps(params)},
        files={"label": ("label.gz", gzip.compress(pictures))},
    )
    assert submitted.status_code == 200, submitted.text
    again = site[0].ask("GET", f"/msk/viewer/label?image={uid}&system={system}").json()
    pixels = np.frombuffer(gzip.decompress(base64.b64decode(again["labels"])), np.uint8)
    np.testing.assert_array_equal(pixels.reshape(shape[::-1]).transpose(2, 1, 0), drawn)
    stored = wait_for(lambda: segmentation_of(site[1], uid), 60)
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in series_files(folder)]
    back = read_seg(stored, sources, read_scan(folder).affine, load_catalogue()[system].labels)
    np.testing.assert_array_equal(back.array, drawn)


def test_what_the_pacs_cannot_hold_is_kept_here_and_says_so(site: tuple) -> None:
    answer, _, uid, system = opened(site, "slicecount")  # its images have no frame of reference
    shown = answer.json()
    pictures = bytes([1]) * (shown["columns"] * shown["rows"] * len(shown["frames"]))
    submitted = site[0].ask(
        "PUT",
        f"/msk/viewer/label?image={uid}&system={system}",
        data={"params": json.dumps({"frames": shown["frames"]})},
        files={"label": ("label.gz", gzip.compress(pictures))},
    )
    assert submitted.status_code == 200, submitted.text

    def sent() -> Any:
        return site[0].ask("GET", f"/datastore/label/info?label={uid}&tag=final").json().get("segmentation")

    assert "frame of reference" in wait_for(sent, 60)


def segmentation_of(pacs: Pacs, uid: str) -> pydicom.Dataset | None:
    """The segmentation of a series in the PACS."""
    for listed in pacs.segmentations():
        found = pacs.get(listed.study, listed.uid, pacs.instances(listed.study, listed.uid)[0])
        if str(found.ReferencedSeriesSequence[0].SeriesInstanceUID) == uid:
            return found
    return None
