"""OHIF in a real Chromium before a real PACS: what is stored, here and there, is what the screen showed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from browser import drive, fetch_ohif, needs_browser, pictures
from dicom_samples import series
from live import ADMIN_TOKEN, ANNOTATOR_TOKEN, SYSTEM, Site, start, wait_for
from orthanc import needs_orthanc, orthanc, upload

from msklabel.catalogue import load_catalogue
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_labels, read_scan
from msklabel.store.pacs import Pacs
from msklabel_phantoms.write import generate

pytestmark = [needs_orthanc, needs_browser, pytest.mark.timeout(400)]
LABELS = load_catalogue()[SYSTEM].labels
DRAWN, FILLED = LABELS["trabecular_bone"].index, LABELS["muscle"].index


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Pacs, dict[str, Path]]]:
    """Our server, the PACS behind it, and the folder of each series by its UID: two phantoms of a hip on CT."""
    fetch_ohif()
    folder = tmp_path_factory.mktemp("hospital")
    folders = {}
    for number in range(2):
        values = generate(SYSTEM, 7, number, shape=(96, 72, 6), spacing_mm=(4, 4, 5)).image[0]
        stored = np.rint(np.clip(values, -1024, 3000) + 1024)[::-1, ::-1]  # from RAS to the LPS of an upright series
        made = series(folder / str(number), stored.shape, spacing_mm=(4, 4, 5), patient=f"P{number}", array=stored)
        for file in (folder / str(number)).iterdir():
            image = pydicom.dcmread(file)
            image.WindowCenter, image.WindowWidth = 40, 500
            image.save_as(file)
        folders[str(made[0].SeriesInstanceUID)] = folder / str(number)
    (folder / "password").write_text("secret\n", encoding="utf-8")
    with orthanc(folder / "orthanc") as address:
        upload(address, *(file for part in folders.values() for file in sorted(part.iterdir())))
        conf = {"dicomweb_user": "pacs", "dicomweb_password_file": str(folder / "password")}
        conf |= {"state": str(folder / "state"), "train_after": "1,60"}
        ours = start(folder / "ours", pacs=f"{address}/dicom-web", conf=conf, tokens=True, exchange_pause_s=1.0)
        yield ours, Pacs(f"{address}/dicom-web", "pacs", "secret"), folders
        ours.stop()


@pytest.fixture(scope="module")
def session(hospital: tuple[Site, Pacs, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an annotator saw and did, in order; see ``ohif.mjs``."""
    kept = pictures(tmp_path_factory.mktemp("pictures"))
    who = {"url": hospital[0].url, "user": "anna", "token": ANNOTATOR_TOKEN}
    answer = tmp_path_factory.mktemp("answer") / "said.json"
    return drive("ohif.mjs", 300, answer, **who, pictures=str(kept), drawn=DRAWN, filled=FILLED)


def screen(session: dict[str, Any], moment: str, folder: Path) -> np.ndarray:
    """The label that the screen held at a moment; see :func:`pixels`."""
    return pixels(session[moment], folder)


def pixels(held: dict[str, str], folder: Path) -> np.ndarray:
    """A label of the screen, axes (column, row, slice), slices along their normal."""
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in series_files(folder)]
    shape = (sources[0].Rows, sources[0].Columns)
    planes = [np.frombuffer(base64.b64decode(held[s.SOPInstanceUID]), np.uint8) for s in sources]
    return np.stack([plane.reshape(shape).T for plane in planes], axis=2)


def test_a_segmentation_that_was_stopped_left_nothing(session: dict[str, Any], hospital: tuple) -> None:
    assert session["stopped"] == "Stopped."
    assert not screen(session, "empty", hospital[2][session["image"]]).any()


def test_the_brush_changed_the_draft(session: dict[str, Any], hospital: tuple) -> None:
    folder = hospital[2][session["image"]]
    draft, drawn = screen(session, "draft", folder), screen(session, "drawn", folder)
    assert len(np.unique(draft)) > 4
    changed = drawn != draft
    assert 5 < changed.sum() < 2000
    assert (drawn[changed] == DRAWN).all()


def test_the_eraser_took_labels_away(session: dict[str, Any], hospital: tuple) -> None:
    folder = hospital[2][session["image"]]
    before, after = screen(session, "drawn", folder), screen(session, "erased", folder)
    changed = after != before
    assert 5 < changed.sum() < 2000
    assert not after[changed].any()


def test_the_threshold_filled_what_is_between_its_values(session: dict[str, Any], hospital: tuple) -> None:
    folder = hospital[2][session["image"]]
    before, after = screen(session, "erased", folder), screen(session, "filled", folder)
    changed = after != before
    assert 5 < changed.sum() < 2000
    assert (after[changed] == FILLED).all()
    lower, upper = session["range"]
    hu = read_scan(folder).array[0][changed]
    assert lower <= hu.min() <= hu.max() <= upper


def test_the_store_holds_what_the_screen_showed(session: dict[str, Any], hospital: tuple, tmp_path: Path) -> None:
    ours, _, folders = hospital
    answer = ours.ask("GET", f"/datastore/label?label={session['image']}&tag=final")
    (tmp_path / "label.nii.gz").write_bytes(answer.content)
    shown = screen(session, "filled", folders[session["image"]])
    np.testing.assert_array_equal(read_labels(tmp_path / "label.nii.gz").array, shown)
    info = ours.ask("GET", "/datastore/?output=all").json()["objects"][session["image"]]["labels"]["final"]["info"]
    assert (info["system"], info["author"], info["state"]) == (SYSTEM, "anna", "submitted")
    assert "submitted" in session["state"]


def test_the_pacs_holds_the_same_voxels_and_codes(session: dict[str, Any], hospital: tuple) -> None:
    _, pacs, folders = hospital
    files = series_files(folders[session["image"]])
    study = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    found = wait_for(lambda: [series for series in pacs.segmentations() if series.study == study], 60)
    assert len(found) == 1
    stored = pacs.get(found[0].study, found[0].uid, pacs.instances(found[0].study, found[0].uid)[0])
    segmentation = highdicom.seg.Segmentation.from_dataset(stored)
    uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files]
    frames = segmentation.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    shown = screen(session, "filled", folders[session["image"]]).transpose(2, 1, 0)
    codes = {label.code: label.index for label in LABELS.values()}
    seen = set()
    for number in segmentation.segment_numbers:
        code = segmentation.get_segment_description(number).segmented_property_type
        index = codes[f"{code.scheme_designator}:{code.value}"]
        seen.add(index)
        np.testing.assert_array_equal(frames[..., number - 1], shown == index)
    assert seen == set(np.unique(shown)) - {0}


def test_nothing_went_wrong_in_the_browser_and_it_said_why_this_scan(session: dict[str, Any]) -> None:
    assert session["errors"] == []
    assert "1 of 2" in session["why"]


def test_a_second_annotator_gets_another_scan(session: dict[str, Any], hospital: tuple) -> None:
    ours, _, folders = hospital
    asked = {"model": SYSTEM, "slices": 1}
    second = ours.ask("POST", "/activelearning/auto", token=ADMIN_TOKEN, json=asked).json()
    assert second["id"] in set(folders) - {session["image"]}


def test_a_scan_comes_again_until_its_slices_are_drawn(
    session: dict[str, Any], hospital: tuple, tmp_path: Path
) -> None:
    ours, _, folders = hospital
    first, second = session["some"]
    assert {first["image"], second["image"]} == set(folders) - {session["image"]}
    assert (first["slices"], second["slices"]) == (2, 2)
    assert all("1 of 1" in one["why"] for one in (first, second))
    folder = folders[first["image"]]
    drawn = [pixels(first["draft"], folder), pixels(second["draft"], folder)]
    some, more = (array.any(axis=(0, 1)) for array in drawn)
    assert (some.sum(), more.sum()) == (2, 4)
    assert some[more].sum() == 2, "two other slices"
    assert not pixels(first["opened"], folder).any()
    np.testing.assert_array_equal(pixels(second["opened"], folder), drawn[0])
    np.testing.assert_array_equal(drawn[1][..., some], drawn[0][..., some])
    answer = ours.ask("GET", f"/datastore/label?label={first['image']}&tag=final")
    (tmp_path / "label.nii.gz").write_bytes(answer.content)
    np.testing.assert_array_equal(read_labels(tmp_path / "label.nii.gz").array, drawn[1])
    info = ours.ask("GET", "/datastore/?output=all").json()["objects"][first["image"]]["labels"]["final"]["info"]
    assert len(info["annotated"]["slices"]) == 4


def test_a_tab_that_was_open_for_long_asks_before_it_overwrites(session: dict[str, Any]) -> None:
    assert "anna has submitted version" in session["asked"]
    assert "Store yours as the newest all the same?" in session["asked"]


def test_training_starts_by_policy(session: dict[str, Any], hospital: tuple) -> None:
    job = wait_for(lambda: (a := hospital[0].ask("GET", "/train/?check_if_running=true")).ok and a.json(), 60)
    assert job["request"]["model"] == SYSTEM
    hospital[0].ask("DELETE", "/train/")
