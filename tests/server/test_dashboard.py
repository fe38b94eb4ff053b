"""The dashboard shows what is labelled, learned and next, to those who are signed in, and nothing is read as HTML."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from live import ANNOTATOR_TOKEN, SYSTEM, Site, start, wait_for, write_label, write_studies
from PIL import Image as Picture

from msklabel.catalogue import load_catalogue
from msklabel.imaging.preview import UNFIT
from msklabel.learn.versions import Versions
from msklabel.networks import build_network
from msklabel.serve.dashboard import curve, quantity_table
from msklabel.store.database import Database
from msklabel.store.jobs import Jobs

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with two model versions, a submitted label, and a scan that is with somebody."""
    folder = tmp_path_factory.mktemp("board")
    phantoms = write_studies(folder / "images")
    system = load_catalogue(None, (SYSTEM,), "demo")[SYSTEM]
    versions = Versions(folder / "images" / ".msklabel" / "models")
    weights = build_network(system).state_dict()
    for dice, passed in ((0.5, True), (0.25, False)):
        reason = f"{'published' if passed else 'kept'}: mean Dice {dice}"
        facts = {"fingerprint": system.fingerprint, "mean_dice": dice, "passed": passed, "reasons": [reason]}
        versions.add(system, [weights], facts)
    versions.publish(SYSTEM, "0001")
    running = start(folder, tokens=True)
    running.phantoms = phantoms
    phantom = phantoms["hip_0"]
    file = write_label(folder / "label.nii.gz", phantom.labels, phantom.affine)
    with file.open("rb") as stream:
        params = json.dumps({"model": SYSTEM})
        answer = running.ask("PUT", "/datastore/label?image=hip_0", data={"params": params}, files={"label": stream})
    assert answer.ok, answer.text
    running.ask("POST", "/activelearning/first", json={"model": SYSTEM})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def page(site: Site) -> str:
    return wait_for(lambda: (text := site.ask("GET", "/").text) and "hip_0" in text and text)


def test_it_tells_what_is_done_learned_and_next(site: Site, page: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "1 of 3 scans have a label" in text
    assert "Serving version 0001" in text
    assert "0.500 published: mean Dice 0.5" in text
    assert "0.250 kept: mean Dice 0.25" in text
    assert re.search(r"anna has hip_[12] until \d\d:\d\d", text)
    assert "version 1 by anna" in text


def test_quantities_are_those_that_were_measured(site: Site) -> None:
    def measured() -> list[dict[str, Any]]:
        return site.ask("GET", "/msk/quantities?image=hip_0").json()[0].get("rows")

    muscle = next(row for row in wait_for(measured) if row["structure"] == "muscle" and row["kind"] == "label")
    page = wait_for(lambda: (text := site.ask("GET", "/").text) and "<th>cm²</th>" in text and text)
    assert f"<td>muscle</td><td>{muscle['area_cm2']:.1f}</td>" in page


def test_quantities_are_a_table_with_units_of_whole_structures() -> None:
    whole = {"structure": "femur_left", "kind": "label", "side": "", "volume_cm3": 12.34, "mean_hu": None, "n": 3}
    rows = [whole, {**whole, "side": "left"}, {**whole, "kind": "group"}]
    assert quantity_table(rows) == [["structure", "cm³"], ["femur left", "12.3"]]
    assert quantity_table([]) == []
    slab = {**whole, "slice": 11, "volume_slices": "9 to 13"}
    assert quantity_table([slab])[0] == ["structure", "cm³ of 5 slices"]


def test_the_preview_shows_the_label_in_its_colour(site: Site, page: str) -> None:
    source = re.findall(r'img src="([^"]+)"', page)[0].replace("&amp;", "&")
    picture = np.asarray(Picture.open(io.BytesIO(site.ask("GET", source).content)).convert("RGB")).astype(int)
    color = np.array(load_catalogue()[SYSTEM].labels["subcutaneous_adipose_tissue"].color)
    alike = (np.abs(picture - color / 2) < 128).all(axis=2) & (picture[..., 2] > picture[..., 0] + 30)
    assert alike.mean() > 0.02
    assert picture.shape[1] > 2 * picture.shape[0]  # three planes


@pytest.mark.parametrize("path", ["/ohif/", "/ohif/segmentation?StudyInstanceUIDs=1.2", "/ohif/app-config.js"])
def test_where_there_is_no_pacs_ohif_says_so(site: Site, path: str) -> None:
    answer = requests.get(site.url + path, timeout=30)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "OHIF needs the studies in a PACS" in answer.text
    assert "they are for 3D Slicer" in answer.text


def test_a_failed_training_is_shown_until_a_later_one_succeeds(site: Site) -> None:
    jobs = Jobs(Database(site.state / "msklabel.db"))

    def shown(said: bool) -> bool:
        return (": the disk is full" in site.ask("GET", "/").text) is said

    jobs.put("1", "train", {"model": SYSTEM}, "ERROR", "the disk is full")
    jobs.put("2", "train", {"model": SYSTEM}, "STOPPED")
    jobs.put("3", "train", {"model": "another"}, "DONE")
    wait_for(lambda: shown(True))
    jobs.put("4", "train", {"model": SYSTEM}, "DONE")
    wait_for(lambda: shown(False))


def test_only_the_script_of_the_page_may_run(site: Site) -> None:
    answer = site.ask("GET", "/")
    [script] = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"; script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert 'details id="next-' in answer.text
    assert "script-src" not in site.ask("GET", "/docs").headers["content-security-policy"]


def test_it_refreshes_itself_and_fits_a_phone(page: str) -> None:
    assert re.search(r'http-equiv="refresh" content="\d+"', page)
    assert "width=device-width" in page


def test_a_stranger_sees_a_sign_in_form_and_no_names(site: Site) -> None:
    text = requests.get(f"{site.url}/", timeout=30).text
    assert "hip_" not in text
    assert "anna" not in text
    assert 'action="/auth/session"' in text


def test_signing_in_by_the_form_leads_to_the_dashboard(site: Site) -> None:
    with requests.Session() as browser:
        form = {"username": "anna", "password": ANNOTATOR_TOKEN, "next": "/"}
        answer = browser.post(f"{site.url}/auth/session", data=form, timeout=30)
        assert answer.url == f"{site.url}/"
        assert "You are anna (annotator)" in answer.text


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "evil"])
def test_signing_in_never_leads_elsewhere(site: Site, target: str) -> None:
    form = {"username": "anna", "password": ANNOTATOR_TOKEN, "next": target}
    answer = requests.post(f"{site.url}/auth/session", data=form, timeout=30, allow_redirects=False)
    assert answer.headers["location"] == "/"


def test_names_are_text(site: Site) -> None:
    site.ask("PUT", "/datastore/image/info?image=hip_0", data={"info": json.dumps({"PatientID": EVIL})})
    page = wait_for(lambda: (text := site.ask("GET", "/").text) and "alert(1)" in text and text)
    assert EVIL not in page
    assert "&lt;script&gt;" in page


def test_the_curve_runs_from_left_to_right_and_up() -> None:
    assert curve([0.0, None, 1.0]) == [(12.0, 78.0), (288.0, 12.0)]
    assert curve([]) == []


def test_a_scan_that_its_label_no_longer_fits_is_told(site: Site) -> None:
    path = "/msk/preview?image=hip_0&system=" + SYSTEM
    assert site.ask("GET", path).status_code == 200
    assert "No picture" not in site.ask("GET", "/").text
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 8), np.int16), np.eye(4)), site.studies / "hip_0.nii.gz")
    refused = site.ask("GET", path)
    assert (refused.status_code, refused.json()["detail"]) == (409, UNFIT)
    page = wait_for(lambda: (text := site.ask("GET", "/").text) and "No picture" in text and text)
    assert f"No picture: {UNFIT}." in page
    assert "<img" not in page


def test_scans_that_cannot_be_read_are_listed_with_the_reason_and_not_among_the_next(site: Site) -> None:
    (site.studies / "cut & short.nii.gz").write_bytes((site.studies / "hip_1.nii.gz").read_bytes()[:2000])
    seen = [site.ask("POST", "/activelearning/first", json={"client_id": f"c{number}"}).json() for number in range(9)]
    assert "cut & short" not in [answer.get("id") for answer in seen]
    page = wait_for(lambda: (text := site.ask("GET", "/").text) and "Scans that cannot be read" in text and text)
    listed = page[page.index("Scans that cannot be read") : page.index("<h2>Use it</h2>")]
    assert "1, offered to nobody until its file changes" in listed
    assert re.search(r"<li>cut &amp; short <small>cut &amp; short\.nii\.gz: .*cut off</small></li>", listed)
    assert "cut &amp; short" not in page[: page.index("Scans that cannot be read")]


def test_a_scan_that_fits_no_system_is_listed_and_refused_in_one_sentence(site: Site) -> None:
    two = np.zeros((20, 20, 8, 2), np.int16)
    two[5:15, 5:15] = 50
    nib.save(nib.Nifti1Image(two, np.eye(4)), site.studies / "two.nii.gz")
    seen = [site.ask("POST", "/activelearning/first", json={"client_id": f"d{number}"}).json() for number in range(9)]
    assert "two" not in [answer.get("id") for answer in seen]
    page = wait_for(lambda: (text := site.ask("GET", "/").text) and "Scans that fit no system" in text and text)
    reason = f"{SYSTEM} needs 1 channel (ct), this has 2"
    assert f"<li>two <small>{reason}</small></li>" in page[page.index("Scans that fit no system") :]
    answer = site.ask("POST", f"/infer/{SYSTEM}?image=two")
    assert (answer.status_code, answer.json()["detail"]) == (400, f"two.nii.gz: {reason}")
