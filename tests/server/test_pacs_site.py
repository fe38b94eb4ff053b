"""A server whose studies lie in a real PACS: scans come from it, labels go into it, those of others are taken in."""

from __future__ import annotations

import http.server
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pydicom
import pytest
import requests
from dicom_samples import OBLIQUE, series
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.testclient import TestClient
from highdicom.frame import encode_frame
from hospital import foreign_seg
from live import DRAFT, SYSTEM, Site, start, wait_for
from orthanc import needs_orthanc, orthanc, upload
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless

from msklabel.catalogue import load_catalogue
from msklabel.imaging import LabelMap
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_labels, read_scan
from msklabel.imaging.seg_read import LABEL_MAP_SEGMENTATION, read_seg
from msklabel.imaging.write import write_labels
from msklabel.serve.dicomweb_proxy import DicomwebProxy
from msklabel.serve.errors import ErrorAnswers
from msklabel.store.datastore import MskDatastore
from msklabel.store.pacs import Pacs
from msklabel.store.source import PacsSource
from msklabel_phantoms.write import generate

pytestmark = [needs_orthanc, pytest.mark.timeout(180)]
LABELS = load_catalogue()[SYSTEM].labels


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Pacs, Path]]:
    """Our server, the PACS behind it (two hips on CT, one oblique MR), and the folder of the DICOM files."""
    folder = tmp_path_factory.mktemp("hospital")
    for number in range(2):
        values = generate(SYSTEM, 7, number, shape=(48, 36, 4), spacing_mm=(8, 8, 5)).image[0]
        stored = np.rint(np.clip(values, -1024, 3000) + 1024)[::-1, ::-1]  # from RAS to the LPS of an upright series
        series(folder / f"ct{number}", stored.shape, spacing_mm=(8, 8, 5), patient=f"P{number}", array=stored)
    series(folder / "mr", modality="MR", orientation=OBLIQUE, patient="P9")
    (folder / "password").write_text("secret\n", encoding="utf-8")
    with orthanc(folder / "orthanc") as address:
        upload(address, *(file for name in ("ct0", "ct1", "mr") for file in sorted((folder / name).iterdir())))
        conf = {"dicomweb_user": "pacs", "dicomweb_password_file": str(folder / "password")}
        conf["state"] = str(folder / "state")
        ours = start(folder / "ours", pacs=f"{address}/dicom-web", conf=conf, tokens=True, exchange_pause_s=1.0)
        yield ours, Pacs(f"{address}/dicom-web", "pacs", "secret"), folder
        ours.stop()


def uid_of(folder: Path, name: str) -> str:
    return str(pydicom.dcmread(next((folder / name).iterdir())).SeriesInstanceUID)


def test_series_of_the_systems_modalities_are_the_images(site: tuple) -> None:
    ours, _, folder = site
    images = ours.ask("GET", "/datastore/?output=all").json()["objects"]
    assert set(images) == {uid_of(folder, "ct0"), uid_of(folder, "ct1")}
    facts = images[uid_of(folder, "ct0")]["image"]["info"]
    assert (facts["PatientID"], facts["Modality"], facts["StudyDate"]) == ("P0", "CT", "20260101")


def test_the_next_scan_says_what_a_viewer_needs_to_open_it(site: tuple) -> None:
    ours, _, folder = site
    sample = ours.ask("POST", "/activelearning/first", json={}).json()
    assert sample["id"] == sample["SeriesInstanceUID"]
    assert sample["StudyInstanceUID"]
    assert sample["id"] in (uid_of(folder, "ct0"), uid_of(folder, "ct1"))


def test_slicer_downloads_one_file_with_the_same_voxels(site: tuple, tmp_path: Path) -> None:
    ours, _, folder = site
    image = ours.client(tmp_path).next_sample("first", {})["id"]
    answer = requests.get(f"{ours.url}/datastore/image?image={image}", timeout=30)  # as Slicer does: without its token
    file = tmp_path / re.findall('filename="(.+)"', answer.headers["Content-Disposition"])[0]
    file.write_bytes(answer.content)
    got = read_scan(file)
    wanted = read_scan(next(folder / name for name in ("ct0", "ct1") if uid_of(folder, name) == image))
    np.testing.assert_array_equal(got.array, wanted.array)
    np.testing.assert_allclose(got.affine, wanted.affine)


def infer(ours: Site, image: str, tmp_path: Path) -> LabelMap:
    client = ours.client(tmp_path)
    file, _ = client.infer(DRAFT, image, {"result_extension": ".nrrd"})
    return read_labels(file)


def test_a_submitted_label_is_put_into_the_pacs_voxel_for_voxel(site: tuple, tmp_path: Path) -> None:
    ours, pacs, folder = site
    image = uid_of(folder, "ct0")
    label = infer(ours, image, tmp_path)
    label.array[:2] = 0  # as if corrected
    file = tmp_path / "label.nrrd"
    write_labels(file, label, LABELS)
    segments = [{"name": name, "idx": item.index} for name, item in LABELS.items()]
    ours.client(tmp_path).save_label(image, str(file), "", {"label_info": segments, "model": DRAFT})
    found = wait_for(lambda: list(pacs.segmentations()), 60)
    assert len(found) == 1
    stored = pacs.get(found[0].study, found[0].uid, pacs.instances(found[0].study, found[0].uid)[0])
    sources = [pydicom.dcmread(path) for path in series_files(folder / "ct0")]
    again = read_seg(stored, sources, label.affine, LABELS)
    np.testing.assert_array_equal(again.array, label.array)
    assert stored.ContentCreatorName == "anna^"
    assert stored.SegmentSequence[0].SegmentAlgorithmType in ("MANUAL", "SEMIAUTOMATIC")

    def measured() -> Any:
        return ours.ask("GET", f"/msk/quantities?image={image}").json()[0].get("rows")

    muscle = next(row for row in wait_for(measured, 90) if row["structure"] == "muscle" and row["kind"] == "label")
    assert muscle["voxels"] == np.count_nonzero(label.array == LABELS["muscle"].index)
    known = ours.ask("GET", f"/msk/quantities?image={image}").json()[0]
    assert bool(known["slices"]) == (muscle["mean_hu"] is not None)  # nothing where no neck was found
    assert bool(known["volume_slices"]) == (muscle["volume_cm3"] is not None)
    assert len(ours.ask("GET", "/datastore/?output=all").json()["objects"]) == 2


def images(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in series_files(folder)]


def test_a_segmentation_of_another_program_becomes_a_label(site: tuple, tmp_path: Path) -> None:
    ours, pacs, folder = site
    scan = read_scan(folder / "ct1")
    array = np.random.default_rng(0).choice([0, 0, 1, 2], scan.shape).astype(np.uint8)
    pacs.store(foreign_seg(images(folder / "ct1"), array, {1: "Muscle", 2: "Cortical Bone"}))
    image = uid_of(folder, "ct1")

    def listed() -> Any:
        return ours.ask("GET", "/datastore/?output=all").json()["objects"][image]["labels"].get("final")

    info = wait_for(listed, 60)["info"]
    assert (info["origin"], info["system"], info["author"]) == ("imported", SYSTEM, "Else^Where")
    content = ours.ask("GET", f"/datastore/label?label={image}&tag=final").content
    (tmp_path / "got.nii.gz").write_bytes(content)
    wanted = np.array([0, LABELS["muscle"].index, LABELS["cortical_bone"].index])[array]
    np.testing.assert_array_equal(read_labels(tmp_path / "got.nii.gz").array, wanted)


def test_a_segmentation_with_a_segment_of_no_system_is_refused_with_its_name(site: tuple) -> None:
    ours, pacs, folder = site
    array = np.ones(read_scan(folder / "ct0").shape, np.uint8)
    foreign = foreign_seg(images(folder / "ct0"), array, {1: "Spleen"})
    pacs.store(foreign)
    uid = str(foreign.SeriesInstanceUID)
    outcome = wait_for(lambda: ours.ask("GET", "/msk/segmentations").json().get(uid), 60)
    assert outcome.startswith("refused: no label of the system for: Spleen")


def test_a_segmentation_that_cannot_be_decoded_is_refused_alone(site: tuple) -> None:
    ours, pacs, folder = site
    array = np.ones(read_scan(folder / "ct0").shape, np.uint8)
    foreign = foreign_seg(images(folder / "ct0"), array, {1: "Muscle"})
    foreign.SOPClassUID = foreign.file_meta.MediaStorageSOPClassUID = LABEL_MAP_SEGMENTATION
    foreign.SegmentationType, foreign.BitsAllocated, foreign.BitsStored, foreign.HighBit = "LABELMAP", 8, 8, 7
    foreign.PixelData = encapsulate([encode_frame(array[..., 0].T.copy(), JPEGLSLossless, 8, 8, "MONOCHROME2")] * 4)
    foreign["PixelData"].VR, foreign["PixelData"].is_undefined_length = "OB", True
    foreign.file_meta.TransferSyntaxUID = JPEGLSLossless
    pacs.store(foreign)
    uid = str(foreign.SeriesInstanceUID)
    outcome = wait_for(lambda: ours.ask("GET", "/msk/segmentations").json().get(uid), 60)
    assert outcome.startswith("refused: ")
    assert "cannot be read (JPEG-LS Lossless" in outcome


def test_the_proxy_keeps_the_query_and_its_own_addresses(site: tuple) -> None:
    ours, pacs, _ = site
    rows = ours.ask("GET", "/dicom-web/series?Modality=MR&includefield=PatientID").json()
    assert [row["00100020"]["Value"] for row in rows] == [["P9"]]
    study, uid = rows[0]["0020000D"]["Value"][0], rows[0]["0020000E"]["Value"][0]
    metadata = ours.ask("GET", f"/dicom-web/studies/{study}/series/{uid}/metadata")
    assert urlsplit(pacs.url).netloc not in metadata.text
    assert f"{ours.url}/dicom-web/" in metadata.text  # of bulk data
    old = ours.ask("GET", "/proxy/dicom/qido/series?Modality=MR&includefield=PatientID").json()
    assert old == rows


def test_the_proxy_streams_whole_images(site: tuple) -> None:
    ours, pacs, _ = site
    row = next(pacs.series(["MR"]))
    answer = ours.ask(
        "GET", f"/dicom-web/studies/{row.study}/series/{row.uid}", headers={"Accept": "multipart/related"}
    )
    assert answer.status_code == 200
    assert answer.content.count(b"DICM") == 6


@pytest.mark.parametrize(
    "path",
    [
        "studies/../../system",
        "studies/..%2f..%2fsystem",
        "..%2Fsystem",
        "system",
        "studies/1.2/%2e%2e/%2e%2e/%2e%2e/system",
        "studies//etc",
        "studies/1.2\\..",
    ],
)
def test_the_proxy_does_not_leave_its_prefix(site: tuple, path: str) -> None:
    session = requests.Session()
    request = requests.Request("GET", f"{site[0].url}/dicom-web/x", headers=site[0].headers()).prepare()
    request.url = f"{site[0].url}/dicom-web/{path}"
    assert session.send(request, timeout=30).status_code == 404


def test_without_a_token_nothing_is_passed_on(site: tuple) -> None:
    assert requests.get(f"{site[0].url}/dicom-web/studies", timeout=30).status_code == 401


@pytest.fixture
def recorder() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that notes the headers of what it is asked and answers with an empty list; its address."""
    seen: list[dict[str, str]] = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web", seen
    server.shutdown()
    server.server_close()


def forwarded(address: str, headers: dict[str, str], path: str = "studies?x=%20y") -> Response:
    """What the proxy answers to a request with these headers."""
    application = FastAPI()
    application.add_middleware(ErrorAnswers)
    proxy = DicomwebProxy(Pacs(address))

    @application.get("/dicom-web/{path:path}")
    async def pass_on(path: str, request: Request) -> Response:
        return await proxy.forward(request, path)

    with TestClient(application) as client:
        return client.get(f"/dicom-web/{path}", headers=headers)


def test_cookies_and_credentials_of_the_viewer_stay_here(recorder: tuple[str, list[dict[str, str]]]) -> None:
    address, seen = recorder
    sent = {"Authorization": "Bearer mine", "Cookie": "session=1", "X-Secret": "2"}
    assert forwarded(address, sent).json() == []
    assert len(seen) == 1
    assert not {"authorization", "cookie", "x-secret"} & {key.lower() for key in seen[0]}


def test_a_pacs_that_is_down_stops_neither_the_store_nor_the_server(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/dicom-web"

        def source(root: Path, channels: list[str]) -> PacsSource:
            return PacsSource(Pacs(address), root, ["CT"], channels)

        store = MskDatastore(tmp_path / "studies", tmp_path / "state", {}, source=source)
        assert store.status()["total"] == 0
        answer = forwarded(address, {})
    assert (answer.status_code, answer.json()["detail"]) == (502, "the PACS cannot be reached")
