"""What hospitals' archives hold: every series is shown right, or refused with one sentence, and never moved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_samples import OBLIQUE, enhanced, radiograph, series
from hospital import Hospital, by_reference, hospital, marks, pixels
from live import wait_for
from orthanc import needs_orthanc

from msklabel.catalogue import load_catalogue
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_scan
from msklabel.imaging.seg_read import read_seg
from msklabel.imaging.viewer_frames import frames_of

pytestmark = [needs_orthanc, pytest.mark.timeout(240)]
REAL = Path(os.environ.get("MSKLABEL_REAL_DATA", "../shared/data"))
SYSTEMS = {"CT": "hip_tissue_ct", "MR": "hip_abductor_mr", "CR": "hip_radiograph", "DX": "hip_radiograph"}
LABELS = {modality: load_catalogue()[system].labels for modality, system in SYSTEMS.items()}
REFUSED = {
    "missing": "one is missing",
    "double": "two slices at the same position",
    "localizer": "different orientations",
    "tilted": "gantry was tilted",
    "sizes": "different sizes",
    "gantrytilting": "gantry was tilted",
    "notavolume": "same position",
    "sliceincrement": "mm apart",
    "sliceorientation": "orientations",
    "enhanced_uneven": "no regular stack",
    "enhanced_tilted": "gantry was tilted",
    "enhanced_several": "2 images of several frames",
}
ENHANCED = ("enhanced_ct", "enhanced_mr", "enhanced_down")
RIGHT = ("plain", "oblique", *ENHANCED, "script", "radiograph")


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

    def tilted(number: int, image: pydicom.Dataset, file: Path) -> None:
        image.ImagePositionPatient[1] += 0.5 * image.InstanceNumber
        image.save_as(file)

    def cut(number: int, image: pydicom.Dataset, file: Path) -> None:
        if number == 1:
            image.PixelData = image.PixelData[: len(image.PixelData) // 2]
            image.save_as(file)

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
    changes = {"double": moved, "localizer": turned, "sizes": larger, "tilted": tilted, "cut": cut}
    for name, change in {**changes, "script": named, "colour": coloured}.items():
        series(folder / name)
        changed(folder / name, change)
    write_enhanced(folder)
    (folder / "radiograph").mkdir()
    radiograph(folder / "radiograph" / "cr.dcm")


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
    first, second = (enhanced(folder / "enhanced_several" / f"{number}.dcm") for number in range(2))
    second.StudyInstanceUID, second.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    second.save_as(folder / "enhanced_several" / "1.dcm")


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
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hospital, Path]]:
    """Our server with systems for CT, MR and radiographs, the PACS, and the folder of the series."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "series").mkdir()
    write_odd(folder / "series")
    copy_real(folder / "series")
    if (REAL / "xr_hip").is_dir():
        (folder / "series" / "xr_hip").symlink_to((REAL / "xr_hip").resolve())
    with hospital(folder, sorted((folder / "series").glob("*/*.dcm")), sorted(set(SYSTEMS.values()))) as running:
        yield running, folder / "series"


def opened(site: tuple[Hospital, Path], name: str) -> tuple[Any, Path, str, str]:
    """What the panel gets for a series; its folder, UID and system."""
    running, folder = site
    if not (folder / name).is_dir():
        pytest.skip("needs the real scans, MSKLABEL_REAL_DATA")
    header = pydicom.dcmread(next((folder / name).glob("*.dcm")), stop_before_pixels=True)
    uid, system = str(header.SeriesInstanceUID), SYSTEMS[header.Modality]
    answer = running.ours.ask("GET", f"/msk/viewer/label?image={uid}&system={system}")
    return answer, folder / name, uid, system


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_regular_volume_is_refused_with_one_sentence(site: tuple[Hospital, Path], name: str) -> None:
    answer, *_ = opened(site, name)
    detail = answer.json()["detail"]
    assert answer.status_code == 400, detail
    assert REFUSED[name] in detail
    assert len(detail) < 200
    assert detail in site[0].log()


def test_an_image_that_lacks_pixels_is_not_kept(site: tuple[Hospital, Path]) -> None:
    answer, _, uid, _ = opened(site, "cut")
    assert answer.status_code == 502
    assert "its pixels are cut off, 320 of 640 bytes are there" in answer.json()["detail"]
    assert not list(site[0].state.rglob(uid))


def test_a_colour_picture_is_not_segmented(site: tuple[Hospital, Path]) -> None:
    _, _, uid, system = opened(site, "colour")
    last = site[0].draft(uid, f"{system}_threshold")
    assert (last["state"], last["status"]) == ("failed", 400)
    assert "3" in last["detail"]
    assert last["detail"] in site[0].log()


def test_names_of_the_pacs_are_never_read_as_html(site: tuple[Hospital, Path]) -> None:
    uid = opened(site, "script")[2]
    info = site[0].ours.ask("GET", "/datastore/?output=all").json()["objects"][uid]["image"]["info"]
    assert info["SeriesDescription"] == "<img src=x onerror=alert(1)>"
    page = site[0].ours.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "<img src=x" not in page.text
    assert "<script>alert" not in page.text


def test_a_real_ct_is_segmented(site: tuple[Hospital, Path]) -> None:
    _, folder, uid, system = opened(site, "ct_pelvis")
    label = pixels(site[0].draft(uid, f"{system}_threshold"))
    hu = read_scan(folder).array[0]
    bone, muscle = (hu[label == LABELS["CT"][name].index] for name in ("cortical_bone", "muscle"))
    assert np.median(bone) > 200 > np.median(muscle)


@pytest.mark.parametrize("name", [*RIGHT, "xr_hip", "ct_pelvis"])
def test_what_is_submitted_on_a_series_comes_back_on_the_same_pixels(site: tuple[Hospital, Path], name: str) -> None:
    answer, folder, uid, system = opened(site, name)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert [tuple(frame) for frame in shown["frames"]] == frames_of(folder)
    drawn = marks((shown["columns"], shown["rows"], len(shown["frames"])))
    site[0].submit(uid, system, drawn)
    np.testing.assert_array_equal(pixels(site[0].shown(uid, system)), drawn)
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in series_files(folder)]
    stored, scheme = site[0].segmentation(uid), load_catalogue()[system].labels
    np.testing.assert_array_equal(read_seg(stored, sources, read_scan(folder).affine, scheme).array, drawn)
    np.testing.assert_array_equal(by_reference(stored, frames_of(folder), scheme), drawn)


def test_a_tab_that_was_open_for_long_does_not_overwrite_what_came_since(site: tuple[Hospital, Path]) -> None:
    running, (shown, _, uid, system) = site[0], opened(site, RIGHT[0])
    frames = shown.json()["frames"]
    mine, theirs = (np.full((shown.json()["columns"], shown.json()["rows"], len(frames)), n, np.uint8) for n in (1, 2))
    began = running.shown(uid, system)["version"] or 0
    running.submit(uid, system, theirs)
    newest = running.shown(uid, system)["version"]
    refused = running.submitted(uid, system, mine, opened=began)
    assert refused.status_code == 409
    assert f"has submitted version {newest} of this label since it was opened" in refused.json()["detail"]
    np.testing.assert_array_equal(pixels(running.shown(uid, system)), theirs)
    assert running.submitted(uid, system, mine, opened="2").status_code == 400
    assert running.submitted(uid, system, mine, opened=newest).status_code == 200
    np.testing.assert_array_equal(pixels(running.shown(uid, system)), mine)


def test_what_the_pacs_cannot_hold_is_kept_here_and_says_so(site: tuple[Hospital, Path]) -> None:
    answer, _, uid, system = opened(site, "slicecount")  # its images have no frame of reference
    shown = answer.json()
    site[0].submit(uid, system, np.ones((shown["columns"], shown["rows"], len(shown["frames"])), np.uint8))

    def sent() -> Any:
        return site[0].ours.ask("GET", f"/datastore/label/info?label={uid}&tag=final").json().get("segmentation")

    assert "frame of reference" in wait_for(sent, 60)
