"""A scan is given to one annotator for a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import ADMIN_TOKEN, ANNOTATOR_TOKEN, DRAFT, IMAGES, SYSTEM, USER_TOKEN, Site, start, write_label

ANNA, ADA, UWE = ANNOTATOR_TOKEN, ADMIN_TOKEN, USER_TOKEN


@pytest.fixture
def site(leased: Site) -> Site:
    """The module's server with no scan given, skipped or labelled."""
    with sqlite3.connect(leased.state / "msklabel.db", timeout=30) as database:
        database.execute("DELETE FROM lease")
        database.execute("DELETE FROM skip")
    for image in IMAGES:
        leased.ask("DELETE", f"/datastore/label?id={image}&tag=final", ADA)
    return leased


@pytest.fixture(scope="module")
def leased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = start(tmp_path_factory.mktemp("leases"), tokens=True)
    yield site
    site.stop()


def ask_next(site: Site, token: str, **params: Any) -> str | None:
    answer = site.ask("POST", "/activelearning/first", token, json=params)
    assert answer.status_code == 200, answer.text
    return answer.json().get("id")


def holders(site: Site) -> dict[str, str]:
    return {lease["image"]: lease["holder"] for lease in site.ask("GET", "/msk/leases").json()}


def submit(site: Site, folder: Path, image: str, token: str) -> dict[str, Any]:
    phantom = site.phantoms[image]
    file = write_label(folder / "label.nii.gz", phantom.labels, phantom.affine)
    params = json.dumps({"model": SYSTEM, "client_id": "slicer"})
    with file.open("rb") as stream:
        files = {"params": (None, params), "label": ("label.nii.gz", stream)}
        answer = site.ask("PUT", f"/datastore/label?image={image}", token, files=files)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def run_out(site: Site, image: str) -> None:
    with sqlite3.connect(site.state / "msklabel.db", timeout=30) as database:
        database.execute("UPDATE lease SET expires = '2020-01-01 00:00:00.000000' WHERE image_id = ?", (image,))


def test_everybody_gets_another_scan_and_the_same_again(site: Site) -> None:
    assert [ask_next(site, token) for token in (ANNA, ADA, UWE, ANNA)] == [*IMAGES, IMAGES[0]]
    assert holders(site) == dict(zip(IMAGES, ("anna", "ada", "uwe"), strict=True))


def test_where_all_are_given_there_is_none_left(site: Site) -> None:
    for _ in range(2):
        ask_next(site, ANNA)
        site.ask("POST", f"/msk/skip?image={IMAGES[0]}")
    assert [ask_next(site, token) for token in (ADA, UWE)] == [IMAGES[0], IMAGES[2]]
    assert holders(site) == {IMAGES[1]: "anna", IMAGES[0]: "ada", IMAGES[2]: "uwe"}
    assert ask_next(site, ANNA) == IMAGES[1]


def test_a_submission_ends_the_lease(site: Site, folder: Path) -> None:
    image = ask_next(site, ANNA)
    assert image == IMAGES[0]
    answer = submit(site, folder, image, ANNA)
    assert answer["warnings"] == []
    assert holders(site) == {}
    assert ask_next(site, ADA) == IMAGES[1]


def test_a_late_submission_is_kept_and_says_so(site: Site, folder: Path) -> None:
    image = ask_next(site, ANNA)
    assert image
    run_out(site, image)
    assert holders(site) == {}
    assert submit(site, folder, image, ANNA)["warnings"] == ["the lease on the scan had run out"]
    info = site.ask("GET", f"/datastore/label/info?label={image}&tag=final").json()
    assert info["warnings"] == ["the lease on the scan had run out"]


def test_a_late_submission_of_a_scan_that_somebody_else_has(site: Site, folder: Path) -> None:
    image = ask_next(site, ANNA)
    assert image
    run_out(site, image)
    assert ask_next(site, ADA) == image
    warnings = submit(site, folder, image, ANNA)["warnings"]
    assert warnings == ["the scan is with ada at present, as the lease had run out"]
    assert holders(site) == {image: "ada"}
    assert submit(site, folder, image, ADA)["warnings"] == []
    assert holders(site) == {}


def test_work_on_a_scan_renews_its_lease(site: Site) -> None:
    image = ask_next(site, ANNA)
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", f"/datastore/image?image={image}", {}),
        ("POST", f"/infer/{DRAFT}?image={image}", {"files": {"params": (None, "{}")}}),
        ("PUT", "/session/", {"files": {"files": (site.studies / f"{image}.nii.gz").open("rb")}}),
    ]
    for method, path, options in requests:
        [before] = site.ask("GET", "/msk/leases").json()
        assert site.ask(method, path, **options).status_code == 200
        [after] = site.ask("GET", "/msk/leases").json()
        assert (after["holder"], after["taken"]) == ("anna", before["taken"])
        assert after["expires"] > before["expires"]


def test_skipping_says_whether_one_had_the_scan(site: Site) -> None:
    assert ask_next(site, ANNA) == IMAGES[0]
    told = {"image": IMAGES[0], "holder": "ada", "released": False}
    assert site.ask("POST", f"/msk/skip?image={IMAGES[0]}", ADA).json() == told
    assert holders(site) == {IMAGES[0]: "anna"}
    told = {"image": IMAGES[0], "holder": "anna", "released": True}
    assert site.ask("POST", f"/msk/skip?image={IMAGES[0]}", ANNA).json() == told
    assert holders(site) == {}
    assert site.ask("POST", f"/msk/skip?image={IMAGES[0]}", ANNA).json()["released"] is False


def test_skipping_needs_a_scan_that_is_there(site: Site) -> None:
    answer = site.ask("POST", "/msk/skip?image=nothing")
    assert answer.status_code == 404
    assert "there is no image 'nothing'" in answer.json()["detail"]


def test_what_is_new_is_documented(site: Site) -> None:
    paths = site.ask("GET", "/openapi.json").json()["paths"]
    assert paths["/msk/leases"]["get"]["summary"]
    assert [field["name"] for field in paths["/msk/skip"]["post"]["parameters"]] == ["image", "client_id"]
