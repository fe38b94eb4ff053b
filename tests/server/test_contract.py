"""Paths and answers that clients rely on beside those of 3D Slicer's module."""

from __future__ import annotations

import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest
from live import ADMIN_TOKEN, DRAFT, IMAGES, SYSTEM, Site, start, wait_for, write_label

from msklabel.catalogue import app_folder
from msklabel.errors import UserError
from msklabel.serve.run import serve
from msklabel.serve.settings import ServeSettings

SLICER_NEEDS = {"name", "labels", "models", "trainers", "strategies", "scoring", "train_stats", "datastore"}


def test_info_holds_what_clients_read(open_site: Site) -> None:
    info = open_site.ask("GET", "/info/").json()
    assert info.keys() >= SLICER_NEEDS
    assert info["models"][DRAFT].keys() >= {"type", "labels", "dimension", "description", "config"}
    assert info["datastore"].keys() >= {"total", "completed", "label_tags"}
    assert not info.get("config")  # the module takes it for a sign of an old server
    assert info["msklabel"]["inference"] == {"cpu": {"running": 0, "waiting": 0}}


@pytest.mark.parametrize("path", ["/info/", "/datastore/", "/auth/"])
def test_a_slash_more_or_less_is_no_redirect(open_site: Site, path: str) -> None:
    with_slash = open_site.ask("GET", path, allow_redirects=False)
    without = open_site.ask("GET", path.rstrip("/"), allow_redirects=False)
    assert (with_slash.status_code, without.status_code) == (200, 200)
    assert with_slash.json().keys() == without.json().keys()


def test_ohif_gets_the_file_alone(open_site: Site) -> None:
    form = {"params": (None, json.dumps({"result_extension": ".nrrd"}))}
    answer = open_site.ask("POST", f"/infer/{DRAFT}?image=hip_0&output=image", files=form)
    assert answer.content.startswith(b"NRRD")
    assert ".nrrd" in answer.headers["content-disposition"]


def test_the_params_alone(open_site: Site) -> None:
    answer = open_site.ask("POST", f"/infer/{DRAFT}?image=hip_0&output=json")
    assert list(answer.json()["label_names"].values()) == list(range(1, 8))


def test_the_file_follows_the_params_in_the_form(open_site: Site) -> None:
    answer = open_site.ask("POST", f"/infer/{DRAFT}?image=hip_0")
    assert answer.headers["content-type"].startswith("multipart/form-data; boundary=")
    names = re.findall(rb'form-data; name="(\w+)"(?:; filename="([\w.]+)")?', answer.content)
    assert names == [(b"params", b""), (b"image", b"hip_tissue_ct.nii.gz")]


def test_checks_of_an_image(open_site: Site) -> None:
    digest = hashlib.sha256((open_site.studies / "hip_0.nii.gz").read_bytes()).hexdigest()
    assert open_site.ask("HEAD", f"/datastore/image?image=hip_0&check_sum=SHA256:{digest}").status_code == 200
    assert open_site.ask("HEAD", f"/datastore/image?image=hip_0&check_sum={digest}").status_code == 200


def test_a_review_is_noted(open_site: Site, tmp_path: Path) -> None:
    phantom = open_site.phantoms["hip_1"]
    file = write_label(tmp_path / "label.nii.gz", phantom.labels, phantom.affine)
    with file.open("rb") as stream:
        open_site.ask("PUT", "/datastore/label?image=hip_1&tag=final", files={"label": stream})
    note = {"segmentationMeta": {"status": "approved", "comment": "good"}}
    place = "label=hip_1&tag=final"
    answer = open_site.ask("PUT", f"/datastore/updatelabelinfo?{place}", data={"params": json.dumps(note)})
    assert answer.status_code == 200
    info = open_site.ask("GET", f"/datastore/label/info?{place}").json()
    assert info["segmentationMeta"] == note["segmentationMeta"]
    with zipfile.ZipFile(io.BytesIO(open_site.ask("GET", "/datastore/dataset").content)) as archive:
        assert any(name.endswith("hip_1.nii.gz") for name in archive.namelist())
    assert open_site.ask("DELETE", "/datastore/label?id=hip_1&tag=final").json() == {}
    assert open_site.ask("HEAD", f"/datastore/label?{place}").status_code == 404
    wait_for(lambda: not open_site.left_over(), 10)


def test_batch_inference_stores_an_original_label_for_each_scan(token_site: Site) -> None:
    answer = token_site.ask("POST", f"/batch/infer/{DRAFT}?images=unlabeled&run_sync=true", token=ADMIN_TOKEN)
    assert set(answer.json()) >= set(IMAGES), answer.text
    objects = token_site.ask("GET", "/datastore/?output=all").json()["objects"]
    assert all("original" in objects[image]["labels"] for image in IMAGES)
    assert token_site.ask("GET", "/batch/infer").json()["status"] == "DONE"


def test_scoring_compares_original_and_final(token_site: Site, tmp_path: Path) -> None:
    phantom = token_site.phantoms["hip_1"]
    file = write_label(tmp_path / "label.nii.gz", phantom.labels, phantom.affine)
    for tag in ("original", "final"):
        with file.open("rb") as stream:
            token_site.ask("PUT", f"/datastore/label?image=hip_1&tag={tag}", files={"label": stream})
    assert token_site.ask("POST", "/scoring/dice?run_sync=true").json()["hip_1"] == 1.0


@pytest.mark.parametrize(("path", "scripts"), [("/", ["<script>"]), ("/docs", [])])
def test_pages_load_nothing_from_elsewhere(open_site: Site, path: str, scripts: list[str]) -> None:
    answer = open_site.ask("GET", path)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", answer.text)
    assert re.findall("<script[^>]*>", answer.text) == scripts  # within the page, see the dashboard's tests


def test_the_pages_say_what_is_served(open_site: Site) -> None:
    assert SYSTEM in open_site.ask("GET", "/").text
    docs = open_site.ask("GET", "/docs").text
    for path in open_site.ask("GET", "/openapi.json").json()["paths"]:
        assert path in docs


def test_the_port_is_taken(open_site: Site) -> None:
    port = int(open_site.url.rpartition(":")[2])
    with pytest.raises(UserError, match=f"port {port}: something listens there already"):
        serve(str(app_folder()), str(open_site.studies), {}, ServeSettings(port=port))


def test_the_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        serve(str(app_folder()), str(tmp_path / "nope"), {}, ServeSettings(port=0))


def test_a_server_that_ends_leaves_no_temporary_files_and_no_processes(tmp_path: Path) -> None:
    site = start(tmp_path)
    for image in IMAGES:
        phantom = site.phantoms[image]
        file = write_label(tmp_path / "label.nii.gz", phantom.labels, phantom.affine)
        with file.open("rb") as stream:
            site.ask("PUT", f"/datastore/label?image={image}", files={"label": stream})
    site.ask("POST", f"/train/{SYSTEM}", json={"max_epochs": 100_000})
    wait_for(lambda: "epoch 1 of" in site.ask("GET", "/train/").text)
    children = psutil.Process(site.process.pid).children(recursive=True)
    assert children
    site.stop()
    assert site.process.exitcode in (0, -signal.SIGTERM)
    assert not any(child.is_running() for child in children)
    assert not list((site.state / "tmp").iterdir())
    assert (site.state / "models" / SYSTEM / "training").is_dir()


def test_what_a_killed_server_left_of_a_session_stops_no_other(open_site: Site) -> None:
    (open_site.state / "sessions" / "11111111-e6d0-11f1-8490-02fc00000001").mkdir(parents=True)
    for _ in range(2):
        with (open_site.studies / f"{IMAGES[0]}.nii.gz").open("rb") as stream:
            answer = open_site.ask("PUT", "/session/", files={"files": stream})
        assert answer.status_code == 200, answer.text


def test_importing_the_settings_is_quick() -> None:
    code = "import sys, msklabel.serve.settings; sys.exit('torch' in sys.modules or 'monailabel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
