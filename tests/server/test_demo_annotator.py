"""The demo's annotator, who speaks to the server through 3D Slicer's client, draws only the slices that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live import IMAGES, SYSTEM, Site, start, write_label

from msklabel.catalogue import load_catalogue
from msklabel.demo.loop import Annotator
from msklabel.imaging.read import read_labels


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    running = start(tmp_path)
    yield running
    running.stop()


def test_only_the_slices_that_the_server_names_are_drawn(site: Site, tmp_path: Path) -> None:
    truth = tmp_path / "pool" / "truth"
    truth.mkdir(parents=True)
    for name in IMAGES:
        write_label(truth / f"{name}.nii.gz", site.phantoms[name].labels, site.phantoms[name].affine)
    said: list[str] = []
    system = load_catalogue(names=[SYSTEM], profile="demo")[SYSTEM]
    plan = site.ask("GET", "/msk/slices?image=hip_0&k=2").json()
    changed = Annotator(system, tmp_path, site.url, said.append, slices=2).annotate_next()
    assert said[0].startswith("hip_0: ") and f"slices {', '.join(map(str, plan['indices']))} corrected" in said[0]
    assert 0 < changed < 1
    [version] = site.ask("GET", "/msk/labels/history?image=hip_0&tag=final").json()
    assert version["annotated"] == {"axis": 2, "slices": plan["indices"]}
    stored = read_labels(site.studies / "labels" / "final" / "hip_0.nii.gz").array
    wanted = site.phantoms["hip_0"].labels
    for index in range(wanted.shape[2]):
        expected = wanted[..., index] if index in plan["indices"] else np.zeros_like(wanted[..., index])
        np.testing.assert_array_equal(stored[..., index], expected)
