"""No room: 507, one sentence, nothing half-written, and the server goes on.

The limit on the size of a file stands for the full disk: the same calls fail, at the same places.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import nibabel as nib
import numpy as np
import pytest
from live import DRAFT, Site, start

LIMIT_BYTES = 630_000  # between the size of the label below as it is sent and as it is stored
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def full_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that can write no large file; it has one scan, whose label map needs 2 MiB without compression."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "images").mkdir()
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in (160, 160, 80)), indexing="ij")
    hu = np.where(x**2 + y**2 < 0.5, 40, -1000).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, AFFINE), folder / "images" / "large.nii.gz")
    site = start(folder, file_bytes=LIMIT_BYTES)
    yield site
    site.stop()


def _noise(shape: tuple[int, ...]) -> bytes:
    return nib.Nifti1Image(np.random.default_rng(1).integers(0, 8, shape, dtype=np.uint8), AFFINE).to_bytes()


def _speckles() -> bytes:
    values = np.random.default_rng(0).choice(8, size=(160, 160, 80), p=[0.65] + [0.05] * 7)
    return gzip.compress(nib.Nifti1Image(values.astype(np.uint8), AFFINE).to_bytes(), 9)


def _refused(site: Site, method: str, path: str, **options: object) -> None:
    before, known = site.tree(), site.ask("GET", "/datastore/?output=all").json()
    answer = site.ask(method, path, **options)
    assert answer.status_code == 507, answer.content[:300]
    assert "disk is full" in answer.json()["detail"]
    assert site.tree() == before
    assert site.ask("GET", "/datastore/?output=all").json() == known
    assert site.ask("GET", "/info/").status_code == 200


def test_an_upload_that_does_not_fit(full_site: Site) -> None:
    _refused(full_site, "PUT", "/datastore/?image=new", files={"file": ("new.nii", _noise((160, 160, 80)))})


def test_a_label_that_arrives_but_cannot_be_stored(full_site: Site) -> None:
    label = _speckles()
    assert len(label) < LIMIT_BYTES
    _refused(full_site, "PUT", "/datastore/label?image=large", files={"label": ("label.nii.gz", label)})


def test_a_label_that_does_not_fit(full_site: Site) -> None:
    files = {"label": ("label.nii", _noise((160, 160, 80)))}
    _refused(full_site, "PUT", "/datastore/label?image=large", files=files)


def test_a_session_that_does_not_fit(full_site: Site) -> None:
    _refused(full_site, "PUT", "/session/", files={"files": ("scan.nii", _noise((160, 160, 80)))})


def test_a_result_that_does_not_fit(full_site: Site) -> None:
    files = {"params": (None, '{"result_extension": ".nii"}')}
    _refused(full_site, "POST", f"/infer/{DRAFT}?image=large", files=files)


def test_what_fits_is_still_served(full_site: Site) -> None:
    answer = full_site.ask("POST", f"/infer/{DRAFT}?image=large&output=image")
    assert answer.status_code == 200
    assert len(answer.content) < LIMIT_BYTES
