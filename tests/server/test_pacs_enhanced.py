"""Multi-frame CT and MR in the PACS: segmented, labelled frame by frame, and labelled by other programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from compressed import COMPRESS
from dicom_samples import OBLIQUE, STRAIGHT, enhanced, series
from hospital import PHANTOM_MM, Hospital, by_reference, foreign_seg, hospital, marks, phantom_ct, pixels
from live import DRAFT, SYSTEM, wait_for
from orthanc import needs_orthanc
from pydicom.uid import generate_uid

from msklabel.catalogue import load_catalogue
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_labels, read_scan
from msklabel.imaging.seg_read import read_seg
from msklabel.imaging.viewer_frames import frames_of

pytestmark = [needs_orthanc, pytest.mark.timeout(240)]
MR = "hip_abductor_mr"
LABELS = {name: load_catalogue()[name].labels for name in (SYSTEM, MR)}
MODEL = {SYSTEM: DRAFT, MR: MR}
UP, DOWN = (0, 1, 2, 3), (3, 2, 1, 0)
# Name of each series: its system, and the slice that each of its frames shows.
ENHANCED = {
    "ct": (SYSTEM, UP),
    "ct_down": (SYSTEM, DOWN),
    "ct_repeated": (SYSTEM, UP),
    "ct_jpeg2000": (SYSTEM, UP),
    "ct_rle": (SYSTEM, DOWN),
    "ct_converted": (SYSTEM, UP),
    "mr": (MR, UP),
    "mr_down": (MR, DOWN),
}
FOREIGN = ("ct", "mr_down")


def repeat_groups(file: Path) -> None:
    """As some scanners write it: what all frames share, in each of them."""
    image = pydicom.dcmread(file)
    shared = image.SharedFunctionalGroupsSequence[0]
    for name in [element.keyword for element in shared]:
        for own in image.PerFrameFunctionalGroupsSequence:
            setattr(own, name, getattr(shared, name))
        delattr(shared, name)
    image.save_as(file)


def convert(images: list[pydicom.Dataset], file: Path) -> None:
    """A series as one image, as highdicom converts it (PS3.3 A.70)."""
    for image in images:
        image.ImageType, image.Manufacturer, image.SeriesNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], "x", 1
        image.ContentDate, image.ContentTime, image.PatientPosition = "20260101", "120000", "HFS"
        image.PositionReferenceIndicator = image.ReferringPhysicianName = ""
        image.AcquisitionNumber, image.KVP = 1, 120
    made = hd.legacy.LegacyConvertedEnhancedCTImage(images, generate_uid(), 2, generate_uid(), 1)
    file.parent.mkdir()
    made.save_as(file, write_like_original=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hospital, Path]]:
    """Our server, the PACS, and the folder of the series: the same voxels as slices and as frames."""
    folder = tmp_path_factory.mktemp("enhanced")
    parts, values = folder / "series", phantom_ct(SYSTEM)
    common = {"shape": values.shape, "spacing_mm": PHANTOM_MM, "array": values}
    series(parts / "ct_slices", **common)
    series(parts / "mr_slices", modality="MR", orientation=OBLIQUE, **common)
    for name, (system, order) in ENHANCED.items():
        file = parts / name / "image.dcm"
        if name == "ct_converted":
            convert([pydicom.dcmread(one) for one in series_files(parts / "ct_slices")], file)
        elif system == MR:
            enhanced(file, modality="MR", orientation=OBLIQUE, order=order, **common)
        else:
            enhanced(file, order=order, **common)
    for name in FOREIGN:
        system, order = ENHANCED[name]
        modality, orientation = ("MR", OBLIQUE) if system == MR else ("CT", STRAIGHT)
        enhanced(parts / f"{name}_foreign" / "image.dcm", modality=modality, orientation=orientation, order=order)
    repeat_groups(parts / "ct_repeated" / "image.dcm")
    for how in ("jpeg2000", "rle"):
        COMPRESS[how](parts / f"ct_{how}" / "image.dcm")
    with hospital(folder, sorted(parts.glob("*/*.dcm")), (SYSTEM, MR), trained=(MR,)) as running:
        yield running, parts


def uid_of(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True).SeriesInstanceUID)


@pytest.mark.parametrize("name", ENHANCED)
def test_it_is_segmented_as_its_slices_are_and_labelled_frame_by_frame(
    site: tuple[Hospital, Path], name: str, tmp_path: Path
) -> None:
    running, folder = site
    system, order = ENHANCED[name]
    uid, slices = uid_of(folder / name), uid_of(folder / f"{name[:2]}_slices")
    listed = running.ours.ask("GET", "/datastore/?output=all").json()["objects"]
    assert listed[uid]["image"]["info"]["Modality"] == name[:2].upper()
    answer = running.ours.ask("POST", f"/infer/{MODEL[system]}?image={uid}&output=image")
    assert answer.status_code == 200, answer.text
    (tmp_path / "label.nii.gz").write_bytes(answer.content)
    label, expected = read_labels(tmp_path / "label.nii.gz").array, pixels(running.draft(slices, MODEL[system]))
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(label, expected[..., list(order)])
    np.testing.assert_array_equal(pixels(running.draft(uid, MODEL[system])), label)
    drawn = np.where(marks(label.shape), marks(label.shape), label)
    running.submit(uid, system, drawn)
    np.testing.assert_array_equal(pixels(running.shown(uid, system)), drawn)
    stored, image = running.segmentation(uid), pydicom.dcmread(next((folder / name).iterdir()))
    frames = frames_of(folder / name)
    assert [number for _, number in frames] == [1, 2, 3, 4]
    np.testing.assert_array_equal(by_reference(stored, frames, LABELS[system]), drawn)
    back = read_seg(stored, [image], read_scan(folder / name).affine, LABELS[system])
    np.testing.assert_array_equal(back.array, drawn)
    positions = [own.PlanePositionSequence[0].ImagePositionPatient for own in image.PerFrameFunctionalGroupsSequence]
    for own in stored.PerFrameFunctionalGroupsSequence:
        number = own.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert own.PlanePositionSequence[0].ImagePositionPatient == positions[number - 1]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_segmentation_of_another_program_becomes_a_label(site: tuple[Hospital, Path], name: str) -> None:
    running, folder = site
    system, image = ENHANCED[name][0], pydicom.dcmread(folder / f"{name}_foreign" / "image.dcm")
    array = np.random.default_rng(0).choice([0, 0, 1, 2], (20, 16, 4)).astype(np.uint8)
    first, second = list(LABELS[system])[:2]
    running.pacs.store(foreign_seg([image], array, {1: first.upper(), 2: second.replace("_", " ")}))
    uid = str(image.SeriesInstanceUID)

    def taken() -> dict | None:
        return running.ours.ask("GET", "/datastore/?output=all").json()["objects"][uid]["labels"].get("final")

    info = wait_for(taken, 60)["info"]
    assert (info["origin"], info["system"], info["author"]) == ("imported", system, "Else^Where")
    wanted = np.array([0, LABELS[system][first].index, LABELS[system][second].index])[array]
    np.testing.assert_array_equal(pixels(running.shown(uid, system)), wanted)
