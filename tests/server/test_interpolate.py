"""3D Slicer's client sends a label of which some slices were drawn, and gets the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live import SYSTEM, Site, start, write_label

from msklabel.imaging.read import read_labels
from msklabel.pipeline.between_slices import fill_between

FOR_SLICER = {"result_extension": ".nrrd"}
DRAWN = (0, 3)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = start(tmp_path_factory.mktemp("interpolate"))
    yield running
    running.stop()


def drawn_label(site: Site, image: str, folder: Path) -> tuple[Path, np.ndarray]:
    phantom = site.phantoms[image]
    sparse = phantom.labels.copy()
    sparse[..., 1:3] = 0
    return write_label(folder / f"{image}.nii.gz", sparse, phantom.affine), sparse


def test_it_is_listed_last_as_a_model_that_slicer_offers(site: Site, folder: Path) -> None:
    info = site.client(folder).info()
    assert list(info["models"])[-1] == "interpolate"
    assert info["models"]["interpolate"]["type"] == "segmentation"
    assert "background" not in info["labels"]
    assert len(info["labels"]) == 7


def test_a_label_that_comes_with_the_request_is_filled(site: Site, folder: Path) -> None:
    label, sparse = drawn_label(site, "hip_0", folder)
    file, params = site.client(folder).infer("interpolate", "hip_0", dict(FOR_SLICER), label_in=str(label))
    result = read_labels(file)
    np.testing.assert_array_equal(result.array, fill_between(sparse, DRAWN, 2))
    np.testing.assert_array_equal(result.array[..., DRAWN], sparse[..., DRAWN])
    assert result.array[..., 1].any()
    np.testing.assert_allclose(result.affine, site.phantoms["hip_0"].affine, atol=1e-4)
    assert (params["axis"], params["drawn_slices"], params["filled_slices"]) == (2, [0, 3], 2)
    assert params["label_names"] == site.client(folder).info()["models"][SYSTEM]["labels"]
    named = {**FOR_SLICER, "axis": 2, "slices": list(DRAWN)}
    again, _ = site.client(folder).infer("interpolate", "hip_0", named, label_in=str(label))
    np.testing.assert_array_equal(read_labels(again).array, result.array)


def test_the_stored_label_is_filled_and_the_result_can_be_stored(site: Site, folder: Path) -> None:
    with pytest.raises(Exception, match=r"404.*has no label yet; submit it first"):
        site.client(folder).infer("interpolate", "hip_1", dict(FOR_SLICER))
    label, sparse = drawn_label(site, "hip_1", folder)
    site.client(folder).save_label("hip_1", str(label), params={"model": SYSTEM})
    file, params = site.client(folder).infer("interpolate", "hip_1", {**FOR_SLICER, "save_label": True})
    expected = fill_between(sparse, DRAWN, 2)
    np.testing.assert_array_equal(read_labels(file).array, expected)
    assert params["system"] == SYSTEM
    stored = site.client(folder).download_label("hip_1", "original")
    np.testing.assert_array_equal(read_labels(stored).array, expected)
    # what was drawn by hand still comes first
    again, _ = site.client(folder).infer("interpolate", "hip_1", dict(FOR_SLICER))
    np.testing.assert_array_equal(read_labels(again).array, expected)


def test_nothing_to_interpolate_is_one_sentence(site: Site, folder: Path) -> None:
    phantom = site.phantoms["hip_2"]
    label = write_label(folder / "full.nii.gz", phantom.labels, phantom.affine)
    with pytest.raises(Exception, match=r"400.*nothing to interpolate"):
        site.client(folder).infer("interpolate", "hip_2", dict(FOR_SLICER), label_in=str(label))
    with pytest.raises(Exception, match=r"400.*axis: expected one of find, 0, 1, 2"):
        site.client(folder).infer("interpolate", "hip_2", {"axis": "z"}, label_in=str(label))
    assert not site.left_over()
