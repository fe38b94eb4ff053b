"""A real PACS: series are listed page by page, fetched whole or not at all, and ours are stored."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_samples import OBLIQUE, radiograph, series
from orthanc import needs_orthanc, orthanc, upload

import msklabel.store.pacs as pacs_module
from msklabel.catalogue import load_catalogue
from msklabel.errors import Unreachable
from msklabel.imaging import LabelMap
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_scan
from msklabel.imaging.seg_read import read_seg
from msklabel.imaging.seg_write import Drawn, write_seg
from msklabel.store.pacs import Pacs

SYSTEM = load_catalogue()["hip_tissue_ct"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Orthanc with a CT, an oblique MR and a radiograph; its address and the folder of the images."""
    folder = tmp_path_factory.mktemp("pacs")
    series(folder / "ct", patient="P1")
    series(folder / "mr", modality="MR", orientation=OBLIQUE, patient="P2")
    radiograph(folder / "cr.dcm", patient="P3")
    with orthanc(folder / "orthanc") as address:
        upload(address, *sorted((folder / "ct").iterdir()), *sorted((folder / "mr").iterdir()), folder / "cr.dcm")
        yield address, folder


@pytest.fixture
def pacs(site: tuple[str, Path]) -> Pacs:
    return Pacs(f"{site[0]}/dicom-web", "pacs", "secret")


pytestmark = needs_orthanc


@pytest.mark.parametrize("page", [1, 2, 200])
def test_series_are_listed_page_by_page(pacs: Pacs, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacs_module, "_PAGE", page)
    found = {row.patient: row for row in pacs.series(["CT", "MR", "CR", "DX"])}
    assert {patient: row.modality for patient, row in found.items()} == {"P1": "CT", "P2": "MR", "P3": "CR"}
    assert found["P1"].instances == 6
    assert found["P1"].date == "20260101"
    assert len(pacs.instances(found["P1"].study, found["P1"].uid)) == 6


def test_a_fetched_series_has_the_same_voxels(pacs: Pacs, site: tuple[str, Path], tmp_path: Path) -> None:
    row = next(pacs.series(["MR"]))
    steps: list[tuple[int, int]] = []
    pacs.fetch(row.study, row.uid, tmp_path / "mr", lambda *step: steps.append(step))
    ours, theirs = read_scan(tmp_path / "mr"), read_scan(site[1] / "mr")
    np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_allclose(ours.affine, theirs.affine)
    assert steps[-1] == (6, 6)


def test_an_incomplete_answer_leaves_nothing(pacs: Pacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = next(pacs.series(["CT"]))
    listed = pacs.instances(row.study, row.uid)
    monkeypatch.setattr(Pacs, "instances", lambda self, study, uid: [*listed, "1.2.3"])
    with pytest.raises(Unreachable, match="6 of 7 images"):
        pacs.fetch(row.study, row.uid, tmp_path / "ct")
    assert list(tmp_path.iterdir()) == []


def test_a_stored_segmentation_is_found_and_read_back(pacs: Pacs, site: tuple[str, Path]) -> None:
    scan = read_scan(site[1] / "ct")
    sources = [pydicom.dcmread(file) for file in series_files(site[1] / "ct")]
    array = np.random.default_rng(0).choice([0, 0, 2, 7], scan.shape).astype(np.uint8)
    pacs.store(write_seg(LabelMap(array, scan.affine), sources, SYSTEM.labels, Drawn("MANUAL"), SYSTEM.name))
    listed = next(pacs.segmentations())
    again = pacs.get(listed.study, listed.uid, pacs.instances(listed.study, listed.uid)[0])
    np.testing.assert_array_equal(read_seg(again, sources, scan.affine, SYSTEM.labels).array, array)


def test_a_wrong_password_and_a_server_that_is_down_are_one_sentence(site: tuple[str, Path]) -> None:
    with pytest.raises(Unreachable, match="answers 401"):
        list(Pacs(f"{site[0]}/dicom-web", "pacs", "wrong").series(["CT"]))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="cannot be reached") as error:
            list(Pacs(f"http://127.0.0.1:{closed.getsockname()[1]}").series(["CT"]))
    assert error.value.status == 502


def test_a_silent_server_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        kept: list[object] = []
        threading.Thread(target=lambda: kept.append(silent.accept()), daemon=True).start()
        slow = Pacs(f"http://127.0.0.1:{silent.getsockname()[1]}", timeouts_s=(1, 0.3))
        with pytest.raises(Unreachable, match="in time") as error:
            list(slow.series(["CT"]))
    assert error.value.status == 504


def test_an_answer_that_is_no_dicom_is_one_sentence(site: tuple[str, Path]) -> None:
    with pytest.raises(Unreachable):
        list(Pacs(f"{site[0]}/system", "pacs", "secret").series(["CT"]))
