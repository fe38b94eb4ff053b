"""Reviewers accept and reject labels over HTTP, and see what became of them."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from live import ADMIN_TOKEN, IMAGES, SYSTEM, Site, write_label

from msklabel.catalogue import load_catalogue
from msklabel.learn.task import SystemTrainTask
from msklabel.learn.versions import Versions
from msklabel.store.datastore import MskDatastore

IMAGE, TAG = IMAGES[2], "second"


def submit(site: Site, folder: Path, array: np.ndarray) -> int:
    file = write_label(folder / "label.nii.gz", array, site.phantoms[IMAGE].affine)
    with file.open("rb") as stream:
        files = {"params": (None, json.dumps({"model": SYSTEM})), "label": ("label.nii.gz", stream)}
        answer = site.ask("PUT", f"/datastore/label?image={IMAGE}&tag={TAG}", files=files)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"])


def test_history_review_and_difference(token_site: Site, folder: Path) -> None:
    labels = token_site.phantoms[IMAGE].labels
    first = submit(token_site, folder, labels)
    second = submit(token_site, folder, np.where(labels == 1, 0, labels))

    verdict = {"version": second, "state": "rejected", "reason": "the bone is gone"}
    refused = token_site.ask("POST", "/msk/labels/review", json=verdict)
    assert (refused.status_code, "needs reviewer" in refused.json()["detail"]) == (403, True)
    assert token_site.ask("POST", "/msk/labels/review", ADMIN_TOKEN, json=verdict).json()["state"] == "rejected"
    own = {"version": first, "state": "reopened"}
    assert token_site.ask("POST", "/msk/labels/review", json=own).json()["state"] == "reopened"

    told = token_site.ask("GET", f"/msk/labels/history?image={IMAGE}&tag={TAG}").json()
    assert [(version["version"], version["author"], version["state"]) for version in told] == [
        (first, "anna", "reopened"),
        (second, "anna", "rejected"),
    ]
    assert [(event["who"], event["reason"]) for event in told[1]["reviews"]] == [("ada", "the bone is gone")]

    changed = token_site.ask("GET", f"/msk/labels/diff?a={first}&b={second}").json()
    gone = int((labels == 1).sum())
    assert changed["changed_voxels"] == gone > 0
    assert [counts["removed"] for counts in changed["classes"].values() if counts["removed"]] == [gone]


def test_a_label_that_a_training_holds_back_is_shown_with_the_reason_until_it_is_accepted(
    token_site: Site, folder: Path
) -> None:
    labels = token_site.phantoms[IMAGE].labels
    file = write_label(folder / "final.nii.gz", labels, token_site.phantoms[IMAGE].affine)
    system = load_catalogue(None, [SYSTEM], "demo")[SYSTEM]
    store = MskDatastore(token_site.studies, token_site.state, {SYSTEM: system}).store  # as a training's process has it
    version = store.submit(IMAGE, file, "final", {"model": SYSTEM, "client_id": "anna"}).id
    task = SystemTrainTask(system, Versions(folder), lambda _: store.training_pairs(SYSTEM), store)
    task.hold = store.reviews.hold
    [sha256] = [pair.sha256 for pair in store.training_pairs(SYSTEM) if pair.version_id == version]
    task.update.tell({sha256: "shifted onto the body it would be 0.97", "of another scan": ""})

    [told] = token_site.ask("GET", f"/msk/labels/review?system={SYSTEM}&held=true").json()
    assert (told["version"], told["held"]) == (version, "shifted onto the body it would be 0.97")
    assert token_site.ask("GET", "/msk/labels/review").json()[0] == told
    assert token_site.ask("GET", "/msk/labels/review?system=nothing").status_code == 404
    accepted = token_site.ask("POST", "/msk/labels/review", ADMIN_TOKEN, json={"version": version, "state": "accepted"})
    assert [event["state"] for event in accepted.json()["reviews"]] == ["held", "accepted"]
    assert token_site.ask("GET", "/msk/labels/review?held=true").json() == []
    assert [pair.state for pair in store.training_pairs(SYSTEM) if pair.version_id == version] == ["accepted"]


def test_what_cannot_be_reviewed(token_site: Site) -> None:
    for body, status in (
        ({"version": 10**6, "state": "accepted"}, 404),
        ({"version": "x", "state": "accepted"}, 422),
        ({"state": "accepted"}, 422),
        ({"version": 10**6, "state": "accepted", "reason": "x" * 3000}, 422),
    ):
        answer = token_site.ask("POST", "/msk/labels/review", ADMIN_TOKEN, json=body)
        assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)
    assert token_site.ask("GET", "/msk/labels/history?image=nothing").status_code == 404
    assert token_site.ask("GET", f"/msk/labels/diff?a={10**6}&b={10**6}").status_code == 404


def test_an_annotator_cannot_approve_through_the_reviewer_modules_request(token_site: Site, folder: Path) -> None:
    submit(token_site, folder, token_site.phantoms[IMAGE].labels)
    note = {"params": json.dumps({"segmentationMeta": {"status": "approved"}})}
    path = f"/datastore/updatelabelinfo?label={IMAGE}&tag={TAG}"
    assert token_site.ask("PUT", path, data=note).status_code == 403
    assert token_site.ask("PUT", path, ADMIN_TOKEN, data=note).status_code == 200
    told = token_site.ask("GET", f"/msk/labels/history?image={IMAGE}&tag={TAG}").json()
    assert told[-1]["state"] == "accepted"


def reviewer(name: str) -> ModuleType:
    """A module of the reviewer plugin that MONAI Label installs for 3D Slicer."""
    folder = Path(sys.prefix) / "monailabel/plugins/slicer/MONAILabelReviewer"
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(f"MONAILabelReviewerLib.{name}")
    finally:
        sys.path.remove(str(folder))


def test_slicers_own_reviewer_module_reads_and_writes(open_site: Site, folder: Path) -> None:
    submit(open_site, folder, open_site.phantoms[IMAGE].labels)
    rest: Any = reviewer("MonaiServerREST").MonaiServerREST(open_site.url)
    meta: Any = reviewer("SegmentationMeta").SegmentationMeta()
    meta.build(status="flagged", level="hard", approvedBy="rita", comment="too thick")
    assert rest.updateLabelInfo(IMAGE, TAG, meta.getMeta()) == 200
    [told] = open_site.ask("GET", f"/msk/labels/history?image={IMAGE}&tag={TAG}").json()[-1:]
    assert told["state"] == "rejected"
    assert [(event["who"], event["reason"]) for event in told["reviews"]] == [("rita", "too thick")]
    verdict = {"version": told["version"], "state": "accepted"}
    assert open_site.ask("POST", "/msk/labels/review", json=verdict).status_code == 200
    listed = rest.requestDataStoreInfo()
    parser: Any = reviewer("JsonParser").JsonParser(listed)
    labels = listed["objects"][IMAGE]["labels"]
    assert parser.extractSegmentationMetaOfVersion(labels, TAG)["status"] == "approved"
    assert parser.produceSegementationData(labels[TAG]["info"]["segmentationMeta"]).getStatus() == "approved"
