"""Choosing over HTTP: options in /info/, slices, reasons, heat maps, and scores that the background refreshes."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from live import IMAGES, SYSTEM, Site, start, wait_for
from PIL import Image as Picture

from msklabel.catalogue import load_catalogue
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that scores when it was idle for a second."""
    site = start(tmp_path_factory.mktemp("choosing"), scoring_delay_s=1.0)
    yield site
    site.stop()


def scores(site: Site) -> dict[str, object]:
    return site.ask("GET", "/info/").json()["msklabel"]["scores"].get(SYSTEM, {})


def test_info_lists_strategies_with_their_options(site: Site) -> None:
    info = site.ask("GET", "/info/").json()
    assert next(iter(info["strategies"])) == "auto"
    assert info["strategies"]["auto"]["config"] == {"systems": "", "slices": 0, "seed": -1, "rounds": 10}
    assert set(info["scoring"]) == {"dice", "summary"}


@pytest.mark.parametrize(
    ("method", "path", "status", "what"),
    [
        ("GET", "/msk/slices?image=nope&k=2", 404, "no image"),
        ("GET", "/msk/slices?image=hip_0&k=0", 400, "k"),
        ("GET", "/msk/slices?image=hip_0&k=2&system=nope", 404, "no system"),
        ("GET", "/msk/slices?image=hip_0&k=2&label=nope", 404, "no label"),
        ("GET", "/msk/next/explain?image=hip_0&strategy=nope", 404, "strategies"),
        ("GET", "/msk/next/explain?image=../x", 404, "no image"),
        ("GET", f"/msk/next/heatmap?image=nope&system={SYSTEM}", 404, "no image"),
        ("GET", "/msk/next/heatmap?image=hip_0&system=nope", 404, "no trained model"),
        ("POST", "/activelearning/best", 404, "auto"),
    ],
)
def test_what_is_wrong_is_told(site: Site, method: str, path: str, status: int, what: str) -> None:
    answer = site.ask(method, path)
    assert answer.status_code == status, answer.text
    assert what in answer.json()["detail"]


@pytest.mark.parametrize("options", [{"seed": "many"}, {"systems": "nope"}, {"slices": -2}, {"rounds": 0}])
def test_a_wrong_option_is_refused(site: Site, options: dict[str, object]) -> None:
    answer = site.ask("POST", "/activelearning/auto", json={"client_id": "w", **options})
    assert 400 <= answer.status_code < 500, answer.text


def test_who_got_a_scan_by_which_strategy_is_noted_with_it(site: Site) -> None:
    def noted() -> dict[str, str]:
        asked = site.ask("GET", f"/datastore/image/info?image={image}").json().get("strategy", {})
        return {name: told["client_id"] for name, told in asked.items()}

    image = site.ask("POST", "/activelearning/random", json={"client_id": "noted"}).json()["id"]
    wait_for(lambda: noted() == {"random": "noted"})
    assert site.ask("POST", "/activelearning/first", json={"client_id": "noted"}).json()["id"] == image
    wait_for(lambda: noted() == {"random": "noted", "first": "noted"})
    site.ask("POST", f"/msk/skip?image={image}&client_id=noted")


def test_without_a_model_slices_are_strided_and_scans_are_described(site: Site) -> None:
    said = site.ask("GET", "/msk/slices?image=hip_0&k=2").json()
    assert said == {"image": "hip_0", "axis": 2, "indices": [1, 3], "reason": "strided"}
    wait_for(
        lambda: site.ask("GET", "/info/").json()["msklabel"]["scores"].get(SYSTEM, {}).get("undescribed") == 0, 240
    )
    assert site.ask("GET", "/scoring/").status_code == 404


@pytest.fixture(scope="module")
def version(site: Site) -> str:
    """Name of a published version of fresh weights."""
    system = load_catalogue(names=[SYSTEM], profile="demo")[SYSTEM]
    versions = Versions(site.state / "models")
    added = versions.add(system, [weights_of(build_network(system))], {"fingerprint": system.fingerprint})
    versions.publish(SYSTEM, added.name)
    return added.name


def test_after_a_publish_scores_are_refreshed_and_served(site: Site, version: str) -> None:
    wait_for(lambda: scores(site)["fresh"] == len(IMAGES), 240)
    assert scores(site)["version"] == version
    said = site.ask("GET", "/msk/next/explain?image=hip_1&strategy=uncertain").json()
    assert said["rank"] in (1, 2, 3)
    assert said["systems"][SYSTEM]["fresh"]
    assert len(said["systems"][SYSTEM]["unlabelled_like_it"]) == 2
    sample = site.ask("POST", "/activelearning/auto", json={"client_id": "x", "slices": 2}).json()
    assert sample["reason"]
    assert len(sample["slices"]["indices"]) == 2
    assert site.ask("GET", "/msk/slices?image=hip_1&k=2").json()["reason"] == "uncertain and spread"


def test_a_heat_map_is_a_picture_of_the_slice(site: Site, version: str) -> None:
    answer = site.ask("GET", f"/msk/next/heatmap?image=hip_0&system={SYSTEM}&slice=1")
    assert answer.headers["content-type"] == "image/png", answer.text
    picture = np.asarray(Picture.open(io.BytesIO(answer.content)))
    assert picture.shape[2] == 3
    assert max(picture.shape[:2]) == 512
    red = picture[..., 0].astype(int) - picture[..., 1]
    assert red.max() > 40
    assert site.ask("GET", f"/msk/next/heatmap?image=hip_0&system={SYSTEM}&slice=99").status_code == 400


def test_scoring_by_hand_works_as_clients_expect(site: Site, version: str) -> None:
    answer = site.ask("POST", "/scoring/summary?run_sync=true", json={})
    assert answer.status_code == 200, answer.text
    assert answer.json()[SYSTEM]["left"] == 0
    assert site.ask("GET", "/scoring/").json()["status"] == "DONE"


@pytest.mark.parametrize("strategy", ["first", "batch", "auto"])
def test_what_clients_send_of_their_own_is_left_out(site: Site, strategy: str) -> None:
    foreign = {"client_id": f"foreign-{strategy}", "strategy": strategy, "rounds": 10, "batch": 8, "max_epochs": 3}
    answer = site.ask("POST", f"/activelearning/{strategy}", json={**foreign, "result_extension": ".nrrd", "x": {}})
    assert answer.status_code == 200, answer.text
    site.ask("POST", f"/msk/skip?image={answer.json()['id']}&client_id=foreign-{strategy}")
