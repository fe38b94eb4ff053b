"""The real client module of 3D Slicer goes round the loop against a live server, without and with sign-in."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import nibabel as nib
import numpy as np
import pytest
from live import ADMIN_TOKEN, DRAFT, IMAGES, SYSTEM, Site, wait_for, write_label

from msklabel.catalogue import load_catalogue
from msklabel.imaging.read import read_labels, read_scan
from msklabel.predict.classical import ClassicalSegmenter

FOR_SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8"}


def label_info(site: Site, folder: Path) -> list[dict[str, Any]]:
    """What the module sends: its segments in order, ``idx`` their place among all segments."""
    names = site.client(folder).info()["labels"]
    return [{"name": name, "idx": place} for place, name in enumerate(names, start=1)]


def expected_draft(file: Path) -> np.ndarray:
    return ClassicalSegmenter(load_catalogue(names=(SYSTEM,), profile="demo")[SYSTEM])(read_scan(file)).labels.array


def test_the_whole_loop(fresh_site: Site, folder: Path) -> None:
    site = fresh_site
    seen = []
    for done in range(len(IMAGES)):
        info = site.client(folder).info()
        assert info["datastore"]["total"] == len(IMAGES)
        assert info["datastore"]["completed"] == done

        sample = site.client(folder).next_sample("first", {})
        image = sample["id"]
        seen.append(image)
        source = site.studies / f"{image}.nii.gz"
        assert Path(sample["path"]) == source  # on the same machine, so it may open the file itself

        # as the module does where it cannot see the path: no header, a name of its own making
        with urllib.request.urlopen(f"{site.url}/datastore/image?image={quote_plus(image)}", timeout=60) as answer:
            assert answer.read() == source.read_bytes()

        file, params = site.client(folder).infer(DRAFT, image, dict(FOR_SLICER))
        assert Path(file).suffix == ".nrrd"
        assert params["label_names"] == info["models"][DRAFT]["labels"]
        draft, scan = read_labels(file), read_scan(source)
        np.testing.assert_array_equal(draft.array, expected_draft(source))
        np.testing.assert_allclose(draft.affine, scan.affine, atol=1e-5)

        truth = site.phantoms[image].labels
        label = write_label(folder / "label.nii.gz", truth, site.phantoms[image].affine)
        saved = site.client(folder).save_label(image, str(label), params={"label_info": label_info(site, folder)})
        assert saved["image"] == image

        stored = site.client(folder).download_label(saved["label"], "final")
        np.testing.assert_array_equal(read_labels(stored).array, truth)
        noted = site.client(folder).datastore()["objects"][image]["labels"]["final"]["info"]
        assert noted["author"] == "anna"
    assert seen == list(IMAGES)
    assert site.client(folder).next_sample("first", {}) == {}
    _train_and_infer(site, folder)


def _train_and_infer(site: Site, folder: Path) -> None:
    started = site.client(folder).train_start(SYSTEM, {"max_epochs": 2})
    assert set(started) == {"id", "status", "request", "start_ts"}
    assert started["request"]["max_epochs"] == 2

    wait_for(lambda: site.client(folder).train_status()["status"] not in ("SUBMITTED", "RUNNING"))
    status = site.client(folder).train_status()
    assert status["status"] == "DONE", status["details"]
    assert status["id"] == started["id"]
    assert not site.client(folder).train_status(check_if_running=True)

    info = site.client(folder).info()
    assert info["models"][SYSTEM]["version"] is None  # two epochs do not beat the draft
    assert "the draft is still the better start" in info["train_stats"][SYSTEM]["reason"]
    with pytest.raises(Exception, match="no trained model"):
        site.client(folder).infer(SYSTEM, IMAGES[0], dict(FOR_SLICER))
    _roll_back_and_look(site)
    info = site.client(folder).info()
    assert info["models"][SYSTEM]["version"] == "0001"
    stats = info["train_stats"][SYSTEM]
    assert (stats["epoch"], stats["total_epochs"]) == (2, 2)

    file, params = site.client(folder).infer(SYSTEM, IMAGES[0], dict(FOR_SLICER))
    result, scan = read_labels(file), read_scan(site.studies / f"{IMAGES[0]}.nii.gz")
    assert params["model_version"] == info["models"][SYSTEM]["version"]
    assert result.array.shape == scan.shape
    assert set(np.unique(result.array)) <= set(range(8))


def _roll_back_and_look(site: Site) -> None:
    """Put the version in service by hand, and read what the server says of it."""
    reviewer = ADMIN_TOKEN if site.token else None
    path = f"/msk/versions/{SYSTEM}"
    assert site.ask("POST", f"{path}/rollback", token=reviewer).status_code == 409
    assert site.ask("POST", f"{path}/rollback", token=reviewer, json={"version": "0009"}).status_code == 404
    if site.token:
        assert site.ask("POST", f"{path}/rollback", json={"version": "0001"}).status_code == 403
    served = site.ask("POST", f"{path}/rollback", token=reviewer, json={"version": "0001"}).json()
    assert served == {"system": SYSTEM, "serving": "0001"}
    listed = site.ask("GET", path).json()
    assert site.ask("GET", "/msk/versions").json() == {SYSTEM: listed}
    (version,) = listed["versions"]
    assert version["training_scans"] + version["validation_scans"] == len(IMAGES)
    assert version["validation_status"] == "weakly validated" and not version["passed"]
    assert [entry["version"] for entry in listed["history"]] == ["0001"]
    compared = site.ask("GET", f"{path}/compare?a=0001&b=0001").json()
    assert list(compared["cases"]) == list(version["case_dice"])
    assert all(row["before"] == row["after"] for row in compared["labels"].values())


def test_one_training_at_a_time_and_a_stopped_one_ends_at_a_checkpoint(fresh_site: Site, folder: Path) -> None:
    site = fresh_site
    for image in IMAGES:
        label = write_label(folder / "label.nii.gz", site.phantoms[image].labels, site.phantoms[image].affine)
        site.client(folder).save_label(image, str(label), params={"model": SYSTEM})
    site.client(folder).train_start(SYSTEM, {"max_epochs": 100_000, "from_scratch": True})
    wait_for(lambda: any("epoch 1 of" in line for line in site.client(folder).train_status().get("details", [])))
    assert site.client(folder).train_status(check_if_running=True)
    with pytest.raises(Exception, match=r"Status: 429.*running already"):
        site.client(folder).train_start(SYSTEM, {})

    start = time.monotonic()
    stopped = site.client(folder).train_stop()
    assert time.monotonic() - start < 2.0
    assert stopped["status"] == "STOPPED"
    assert stopped["end_ts"]
    assert stopped["details"][-1]  # the module shows the last line
    assert not site.client(folder).train_status(check_if_running=True)
    wait_for(lambda: not list((site.state / "tmp").glob("*/train-*")), seconds=30)
    assert (site.state / "models" / SYSTEM / "training").is_dir()  # its checkpoint


def test_a_session_is_segmented_and_removed(fresh_site: Site, folder: Path) -> None:
    site = fresh_site
    scan = folder / "my scan.nii.gz"
    scan.write_bytes((site.studies / "hip_1.nii.gz").read_bytes())
    created = site.client(folder).create_session(str(scan))
    session = created["session_id"]
    assert created["session_info"]["name"] == session
    assert site.client(folder).get_session(session)["image"].endswith("my_scan.nii.gz")

    file, _ = site.client(folder).infer(DRAFT, "not stored", dict(FOR_SLICER), session_id=session)
    np.testing.assert_array_equal(read_labels(file).array, expected_draft(scan))
    assert site.client(folder).info()["datastore"]["total"] == len(IMAGES)

    site.client(folder).remove_session(session)
    with pytest.raises(Exception, match="no session"):
        site.client(folder).get_session(session)
    assert not list((site.state / "sessions").iterdir())


def test_a_scan_is_segmented_from_an_upload(fresh_site: Site, folder: Path) -> None:
    site = fresh_site
    scan = site.studies / "hip_2.nii.gz"
    file, _ = site.client(folder).infer(DRAFT, "whatever", dict(FOR_SLICER), file=str(scan))
    np.testing.assert_array_equal(read_labels(file).array, expected_draft(scan))
    wait_for(lambda: not site.left_over(), seconds=30)


def test_results_come_in_the_format_that_was_asked_for(fresh_site: Site, folder: Path) -> None:
    site = fresh_site
    expected = expected_draft(site.studies / "hip_0.nii.gz")
    for suffix in (".nii.gz", ".nrrd", ".nii", ".mha"):
        file, _ = site.client(folder).infer(DRAFT, "hip_0", {"result_extension": suffix})
        assert file.endswith(suffix)
        np.testing.assert_array_equal(read_labels(file).array, expected)


def test_a_result_stored_on_the_server_is_the_original_label(fresh_site: Site, folder: Path) -> None:
    site = fresh_site
    site.client(folder).infer(DRAFT, "hip_0", {"save_label": True})
    info = site.client(folder).datastore()["objects"]["hip_0"]["labels"]["original"]["info"]
    assert next(iter(info["params"]["label_names"])) == "cortical_bone"
    stored = site.client(folder).download_label("hip_0", "original")
    np.testing.assert_array_equal(read_labels(stored).array, expected_draft(site.studies / "hip_0.nii.gz"))


def test_an_uploaded_image_joins_the_datastore(fresh_site: Site, folder: Path) -> None:
    site = fresh_site
    phantom = site.phantoms["hip_0"]
    scan = folder / "new.nii.gz"
    nib.save(nib.Nifti1Image((phantom.image[0] + 3).astype(np.int16), phantom.affine), scan)
    before = site.client(folder).info()["datastore"]["total"]
    assert site.client(folder).upload_image(str(scan), "uploaded") == {"image": "uploaded"}
    assert site.client(folder).info()["datastore"]["total"] == before + 1
    answer = site.ask("GET", "/datastore/image?image=uploaded")
    assert answer.content == scan.read_bytes()


def test_stale_headers_of_a_reused_client_do_no_harm(token_site: Site, folder: Path) -> None:
    client = token_site.client(folder)  # its headers keep content-type and content-length of the last upload
    client.infer(DRAFT, "hip_0", dict(FOR_SLICER))
    assert "content-length" in client._headers
    start = time.monotonic()
    assert client.info()["name"] == "msklabel"
    assert client.next_sample("first", {})["id"]
    assert not client.train_status(check_if_running=True)
    assert client.datastore()["objects"]
    assert time.monotonic() - start < 5.0
