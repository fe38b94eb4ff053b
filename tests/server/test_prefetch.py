"""*Segment* on a scan that was just given out answers at once, with what the model in service says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from live import IMAGES, SYSTEM, Site, start

from msklabel.catalogue import load_catalogue
from msklabel.imaging.read import read_labels
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, loaded_network, weights_of
from msklabel.predict.engine import Engine
from msklabel.predict.source import read_for

FORMAT = {"result_extension": ".nrrd", "result_dtype": "uint8"}
CATALOGUE = load_catalogue(names=[SYSTEM], profile="demo")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = start(tmp_path_factory.mktemp("prefetch"))
    yield site
    site.stop()


def publish(site: Site, seed: int) -> Engine:
    """Put fresh weights in service."""
    system, versions = CATALOGUE[SYSTEM], Versions(site.state / "models")
    torch.manual_seed(seed)
    weights = weights_of(build_network(system))
    versions.publish(SYSTEM, versions.add(system, [weights], {"fingerprint": system.fingerprint}).name)
    return Engine(system, loaded_network(system, weights))


def answered_ahead(site: Site, folder: Path, image: str) -> tuple[str, dict, float]:
    """File, facts and seconds of the first answer that was made before; what is asked for too early takes its time."""
    for _ in range(20):
        time.sleep(4)  # nobody waits meanwhile
        started = time.perf_counter()
        file, params = site.client(folder).infer(SYSTEM, image, dict(FORMAT))
        if params.get("ahead"):
            return file, params, time.perf_counter() - started
    raise AssertionError(f"{image} was never predicted ahead")


def test_segment_is_there_before_it_is_asked_for(site: Site, tmp_path: Path) -> None:
    for number, seed in enumerate((0, 1)):  # the second version must not be answered by the first one's result
        engine = publish(site, seed)
        client = site.client(tmp_path)
        image = client.next_sample("first", {"client_id": "anna"})["id"]
        assert image == IMAGES[0]
        file, params, seconds = answered_ahead(site, tmp_path, image)
        assert params["model_version"] == f"{number + 1:04d}"
        assert seconds < 2, "far more than it takes on a free machine, far less than a prediction of a real scan"
        expected = engine(read_for(CATALOGUE[SYSTEM], site.studies / f"{image}.nii.gz")).labels.array
        np.testing.assert_array_equal(read_labels(file).array, expected)
        assert len(np.unique(expected)) > 1
    answered_ahead(site, tmp_path, IMAGES[1])  # what comes next, too
