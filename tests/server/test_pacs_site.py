"""A server whose studies lie in a real PACS: scans come from it, labels go into it, those of others are taken in."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pydicom
import pytest
import requests
from dicom_samples import OBLIQUE, series
from live import DRAFT, SYSTEM, Site, slicer_client, start, wait_for
from orthanc import needs_orthanc, orthanc, upload

from msklabel.catalogue import load_catalogue
from msklabel.imaging import LabelMap
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_labels, read_scan
from msklabel.imaging.seg_read import read_seg
from msklabel.imaging.seg_write import Drawn, write_seg
from msklabel.imaging.write import write_labels
from msklabel.store.pacs import Pacs
from msklabel_phantoms.write import generate

pytestmark = needs_orthanc
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
        ours = start(folder / "ours", pacs=f"{address}/dicom-web", conf=conf, tokens=True)
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
    client = ours.client(tmp_path)
    file, name = client.download_image(uid_of(folder, "ct0")), ""
    path = Path(file[0] if isinstance(file, tuple) else file)
    got, wanted = read_scan(path), read_scan(folder / "ct0")
    np.testing.assert_array_equal(got.array, wanted.array)
    np.testing.assert_allclose(got.affine, wanted.affine)
    assert nrrd.read_header(str(path)), name


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


def test_a_segmentation_of_another_program_becomes_a_label(site: tuple, tmp_path: Path) -> None:
    ours, pacs, folder = site
    sources = [pydicom.dcmread(path) for path in series_files(folder / "ct1")]
    scan = read_scan(folder / "ct1")
    array = np.random.default_rng(0).choice([0, 0, 1, 7], scan.shape).astype(np.uint8)
    foreign = write_seg(LabelMap(array, scan.affine), sources, LABELS, Drawn("MANUAL"), "another program")
    foreign.Manufacturer, foreign.ContentCreatorName = "Elsewhere", "Else^Where"
    pacs.store(foreign)
    image = uid_of(folder, "ct1")

    def listed() -> Any:
        return ours.ask("GET", "/datastore/?output=all").json()["objects"][image]["labels"].get("final")

    info = wait_for(listed, 60)["info"]
    assert (info["origin"], info["system"], info["author"]) == ("imported", SYSTEM, "Else^Where")
    content = ours.ask("GET", f"/datastore/label?label={image}&tag=final").content
    (tmp_path / "got.nii.gz").write_bytes(content)
    np.testing.assert_array_equal(read_labels(tmp_path / "got.nii.gz").array, array)


def test_the_proxy_keeps_the_query_and_its_own_addresses(site: tuple) -> None:
    ours, _, _ = site
    rows = ours.ask("GET", "/dicom-web/series?Modality=MR&includefield=PatientID").json()
    assert [row["00100020"]["Value"] for row in rows] == [["P9"]]
    study, uid = rows[0]["0020000D"]["Value"][0], rows[0]["0020000E"]["Value"][0]
    metadata = ours.ask("GET", f"/dicom-web/studies/{study}/series/{uid}/metadata")
    assert "8042" not in metadata.text
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


def test_cookies_and_credentials_of_the_viewer_stay_here(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.end_headers()
            self.wfile.write(json.dumps([]).encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as recorder:
        threading.Thread(target=recorder.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{recorder.server_address[1]}/dicom-web"
        ours = start(tmp_path / "ours", pacs=address, conf={"state": str(tmp_path / "state")}, tokens=True)
        seen.clear()
        answer = ours.ask("GET", "/dicom-web/studies?x=%20y", headers={"Cookie": "session=1", "X-Secret": "2"})
        assert answer.json() == []
        recorder.shutdown()
        silent = ours.ask("GET", "/dicom-web/studies")
        ours.stop()
    asked = next(headers for headers in seen if "session" not in str(headers))
    assert not {"authorization", "cookie", "x-secret"} & {key.lower() for headers in seen for key in headers}
    assert asked
    assert silent.status_code in (502, 504)


def test_a_pacs_that_is_down_at_the_start_stops_nothing(tmp_path: Path) -> None:
    conf = {"state": str(tmp_path / "state")}
    ours = start(tmp_path / "ours", pacs="http://127.0.0.1:9/dicom-web", conf=conf)
    assert ours.ask("GET", "/info/").json()["datastore"]["total"] == 0
    assert ours.ask("GET", "/dicom-web/studies").status_code == 502
    ours.stop()
    assert slicer_client()
