"""Whatever runs a network, the labels are those of PyTorch as it is; the fastest is remembered."""

import json
from pathlib import Path

import pytest
import torch
from test_preprocess import make_system
from torch import nn

from msklabel.catalogue import load_catalogue
from msklabel.errors import UserError
from msklabel.networks import build_network
from msklabel.predict import selection
from msklabel.predict.backends import BACKENDS, Site, candidates, eager
from msklabel.predict.selection import Selection

CPU = torch.device("cpu")
SYSTEMS = load_catalogue(profile="demo")


def site_of(system_name: str) -> Site:
    system = SYSTEMS[system_name]
    return Site(CPU, torch.zeros(1, len(system.channels), *system.patch_voxels[: system.dimensions]))


@pytest.mark.parametrize("backend", [name for name in candidates(CPU) if name != "eager"])
@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_a_backend_scores_as_pytorch_does(name: str, backend: str) -> None:
    torch.manual_seed(0)
    network, site = build_network(SYSTEMS[name]).eval(), site_of(name)
    windows = torch.rand((2, *site.window.shape[1:]))
    with torch.inference_mode():
        expected = eager(network, site)(windows)
        forward = BACKENDS[backend](network, site)
        first, again = forward(windows), forward(windows.flip(0))
    torch.testing.assert_close(first, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again.flip(0), expected, atol=1e-3, rtol=1e-3)


def test_openvino_is_installed() -> None:
    assert "openvino" in candidates(CPU)


class Slow(nn.Module):
    """Takes a moment, so that trials are worth their while."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Backends that were built; ``right`` is fast, ``wrong`` faster but labels otherwise, ``broken`` fails."""
    built: list[str] = []
    seconds = {"right": 0.2, "wrong": 0.1}

    def backend(name: str, sign: int):
        def build(network: nn.Module, site: Site):
            built.append(name)
            if name == "broken":
                raise RuntimeError("no such instruction")

            def forward(windows: torch.Tensor) -> torch.Tensor:
                return network(windows) * sign

            forward.seconds = seconds[name]
            return forward

        return build

    trials = {"broken": backend("broken", 1), "wrong": backend("wrong", -1), "right": backend("right", 1)}
    monkeypatch.setattr(selection, "BACKENDS", {"eager": eager, **trials})
    monkeypatch.setattr(selection, "candidates", lambda device: ["eager", *trials])
    monkeypatch.setattr(selection, "_seconds", lambda forward, site: getattr(forward, "seconds", 0.5))
    return built


def test_the_fastest_that_labels_alike_is_taken_and_remembered(tmp_path: Path, counted: list[str]) -> None:
    system, network = make_system(), Slow()
    select = Selection(tmp_path)
    window = torch.rand(1, 1, 16, 16)
    assert torch.equal(select(system, network, CPU)(window), network(window))
    assert counted == ["broken", "wrong", "right"]
    (entry,) = json.loads((tmp_path / "backends.json").read_text()).values()
    assert entry == {"backend": "right", "seconds": {"eager": 0.5, "right": 0.2}}
    Selection(tmp_path)(system, network, CPU)
    assert counted[3:] == ["right"]
    Selection(tmp_path)(make_system(patch_voxels=[32, 32, 1]), network, CPU)
    assert counted[4:] == ["broken", "wrong", "right"]


def test_weights_on_which_a_remembered_backend_differs_run_on_pytorch(
    tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    system, network = make_system(), Slow()
    Selection(tmp_path)(system, network, CPU)
    monkeypatch.setitem(selection.BACKENDS, "right", selection.BACKENDS["wrong"])
    window = torch.rand(1, 1, 16, 16)
    assert torch.equal(Selection(tmp_path)(system, network, CPU)(window), network(window))


def test_a_network_that_is_quick_anyway_is_not_tried(tmp_path: Path) -> None:
    Selection(tmp_path)(make_system(), Slow(), CPU)
    assert not list(tmp_path.iterdir())


def test_a_backend_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="backend 'tensorrt' is not known; one of auto, eager"):
        Selection(tmp_path, "tensorrt")(make_system(), Slow(), CPU)
    with pytest.raises(UserError, match="'cuda_graph' cannot be used on cpu"):
        Selection(tmp_path, "cuda_graph")(make_system(), Slow(), CPU)
