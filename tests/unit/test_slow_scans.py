"""Networks of small windows are tried on other backends once scans turn out to take long."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_variants import dixon_system, leg

from msklabel.catalogue import load_catalogue
from msklabel.imaging import Scan
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.predict import selection, served
from msklabel.predict.selection import Selection, _key, site_of
from msklabel.predict.served import ServedModel
from msklabel_phantoms.write import generate

CPU = torch.device("cpu")
SYSTEMS = {profile: load_catalogue(profile=profile)["hip_tissue_ct"] for profile in ("demo", "paper")}


def test_only_what_is_slow_and_was_not_tried_is_noted(tmp_path: Path) -> None:
    select, demo = Selection(tmp_path), SYSTEMS["demo"]
    assert not select.slow(demo, CPU, 1.9)
    assert not select.slow(SYSTEMS["paper"], CPU, 60)  # was tried when it was loaded
    assert not Selection(None).slow(demo, CPU, 60)
    assert not Selection(tmp_path, "eager").slow(demo, CPU, 60)
    assert not list(tmp_path.iterdir())
    assert select.slow(demo, CPU, 2.04)
    assert not select.slow(demo, CPU, 60)
    (noted,) = json.loads((tmp_path / "backends.json").read_text()).values()
    assert noted == {"scan_s": 2.0}


def test_what_turns_out_slow_is_tried_while_it_answers_and_then_runs_on_what_won(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [True]
    monkeypatch.setattr(served, "much_memory_left", lambda device: room[0])
    monkeypatch.setattr(selection, "_SLOW_S", 0.0)
    system, versions = SYSTEMS["demo"], Versions(tmp_path / "models")
    torch.manual_seed(0)
    versions.add(system, [weights_of(build_network(system))], {})
    versions.publish(system.name, "0001")
    phantom = generate(system.name, 3, 0, (96, 72, 4), (4.0, 4.0, 6.0))
    scan = Scan(phantom.image, phantom.affine, {key: str(value) for key, value in phantom.facts.items()})

    model = ServedModel(system, versions, "cpu", Selection(tmp_path))
    model.load()
    assert not model.behind
    _, first = model(scan)
    assert first.facts["backend"] == "eager"
    room[0] = False
    assert not model.behind
    room[0] = True
    assert model.behind
    model.load()
    assert not model.behind
    (tried,) = json.loads((tmp_path / "backends.json").read_text()).values()
    version, again = model(scan)
    assert again.facts["backend"] == tried["backend"]
    assert {"eager", "openvino"} <= tried["seconds"].keys()
    assert version == model.answering() == "0001"
    assert np.mean(again.labels.array == first.labels.array) > 0.99
    assert not model.behind


def test_a_variant_follows_to_the_backend_that_won_for_its_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "much_memory_left", lambda device: True)
    system, versions, select = dixon_system(), Versions(tmp_path / "models"), Selection(tmp_path)
    for variant in ("", "fatty"):
        network = build_network(system)
        with torch.no_grad():
            list(network.parameters())[-1].copy_(torch.tensor([-9.0, 9.0, -9.0]))  # label 1 everywhere
        versions.publish("toy", versions.add(system, [weights_of(network)], {"variant": variant}).name, variant)
    model = ServedModel(system, versions, "cpu", select)
    version, first = model(leg(45))
    assert (version, first.facts["backend"]) == ("0002 (fatty)", "eager")
    (lean, _), before = model(leg(5)), model._loaded["fatty"]
    select._remember(_key(system, site_of(system, CPU)), {"backend": "openvino"})  # as a trial would
    model._slow = True
    model.load()
    assert lean == "0001" and model._loaded["fatty"] is not before
    for percent, name in ((5, "0001"), (45, "0002 (fatty)")):
        version, again = model(leg(percent))
        assert version == name and again.facts["backend"].startswith("openvino")
    assert np.mean(again.labels.array == first.labels.array) > 0.99
