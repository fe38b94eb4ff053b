"""What was measured of a submitted label: there soon after, by REST as JSON and CSV, and again where it is missing."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import IMAGES, SYSTEM, Site, start, wait_for, write_label


@pytest.fixture
def site(tmp_path: Path) -> Any:
    site = start(tmp_path)
    yield site
    site.stop()


def submit(site: Site, image: str, array: np.ndarray, **params: Any) -> tuple[int, float]:
    """Id of the version, and seconds that the request took."""
    file = write_label(site.studies.parent / "label.nii.gz", array, site.phantoms[image].affine)
    begun = time.monotonic()
    with file.open("rb") as stream:
        files = {"params": (None, json.dumps({"model": SYSTEM, **params})), "label": ("label.nii.gz", stream)}
        answer = site.ask("PUT", f"/datastore/label?image={image}&tag=final", files=files)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"]), time.monotonic() - begun


def measured(site: Site, image: str) -> Any:
    def look() -> Any:
        [known] = site.ask("GET", f"/msk/quantities?image={image}").json()
        return known if known["state"] != "waiting" else None

    return wait_for(look)


def row_of(known: dict[str, Any], structure: str) -> dict[str, Any]:
    rows = known["rows"]
    return next(row for row in rows if (row["structure"], row["side"]) == (structure, "both"))


def test_a_submitted_label_is_measured_and_measured_again_where_it_is_missing(site: Site, tmp_path: Path) -> None:
    image, other = IMAGES[0], IMAGES[1]
    phantom = site.phantoms[image]
    version, _ = submit(site, image, phantom.labels)
    known = measured(site, image)
    assert (known["state"], known["version"], known["system"]) == ("measured", version, SYSTEM)
    row = row_of(known, "muscle")
    muscle = phantom.labels[..., known["slices"]["both"]] == 5
    mean_hu = float(phantom.image[0].astype(np.int16)[..., known["slices"]["both"]][muscle].mean())
    assert row["mean_hu"] == pytest.approx(mean_hu, abs=0.01)
    assert row["area_cm2"] == pytest.approx(muscle.sum() * 8 * 8 / 100)
    assert (row["volume_cm3"], known["volume_slices"]) == (None, None)  # the phantom has four slices of five
    assert f"{image}: no volume_cm3: it is of 5 slices around slice 1, and 4 of them are in the scan" in known["notes"]
    on_record = site.ask("GET", f"/datastore/label/info?label={image}&tag=final").json()["quantities"]
    assert on_record["rows"] == known["rows"]

    submit(site, other, np.where(site.phantoms[other].labels == 5, 5, 0), annotated={"classes": ["muscle"]})
    assert {row["structure"] for row in measured(site, other)["rows"]} == {"muscle"}

    table = site.ask("GET", "/msk/quantities?format=csv")
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert {row["image"] for row in rows} == {image, other}
    found = next(r for r in rows if (r["image"], r["structure"], r["side"]) == (image, "muscle", "both"))
    assert float(found["area_cm2"]) == pytest.approx(row["area_cm2"])
    assert (found["slice"], found["volume_cm3"]) == ("1", "")
    assert len(site.ask("GET", f"/msk/quantities?version={version}").json()) == 1
    assert site.ask("GET", "/msk/quantities?version=999").status_code == 404
    assert site.ask("GET", "/msk/quantities?image=nothing").status_code == 404
    wait_for(lambda: {job["status"] for job in site.ask("GET", "/msk/jobs?kind=quantities").json()} == {"DONE"})

    assert row["mean_hu_per_height2_hu_per_m2"] is None
    site.ask("PUT", f"/datastore/image/info?image={image}", json={"height_cm": 172})
    row = row_of(measured(site, image), "muscle")
    assert row["mean_hu_per_height2_hu_per_m2"] == pytest.approx(row["mean_hu"] / 1.72**2)

    site.stop()
    with closing(sqlite3.connect(site.state / "msklabel.db")) as database, database:
        database.execute("DELETE FROM quantity")
    again = start(tmp_path)
    try:
        assert row_of(measured(again, image), "muscle") == row
    finally:
        again.stop()


def test_what_cannot_be_measured_says_why_and_holds_nobody_up(site: Site) -> None:
    image = IMAGES[2]
    scan = site.studies / f"{image}.nii.gz"
    content = scan.read_bytes()
    version, _ = submit(site, image, site.phantoms[image].labels)
    measured(site, image)
    times = scan.stat()
    scan.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    os.utime(scan, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that nobody looks at its grid again
    again, took = submit(site, image, np.where(site.phantoms[image].labels == 1, 0, site.phantoms[image].labels))
    assert again > version and took < 5
    known = wait_for(
        lambda: next(
            (k for k in site.ask("GET", f"/msk/quantities?version={again}").json() if k["state"] != "waiting"), None
        )
    )
    assert known["state"] == "measured" and row_of(known, "muscle")["mean_hu"] is None
    assert any("nothing is measured in the image" in note for note in known["notes"])
