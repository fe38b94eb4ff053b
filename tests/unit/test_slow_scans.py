"""Networks of small windows are tried on other backends once scans turn out to take long."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from msklabel.catalogue import load_catalogue
from msklabel.imaging import Scan
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.predict import selection, served
from msklabel.predict.selection import Selection
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
