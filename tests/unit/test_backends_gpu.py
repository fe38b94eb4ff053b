"""What runs networks on a GPU, as far as a machine without one can tell; the rest is in ``test_gpu.py``."""

from pathlib import Path

import pytest
import torch
from test_preprocess import make_system
from torch import nn

from msklabel.networks import build_network, weights_of
from msklabel.predict import backends, selection
from msklabel.predict.backends import BACKENDS, Forward, Site
from msklabel.predict.selection import Selection

CPU = torch.device("cpu")


class Replayed:
    """What stands for a CUDA graph: it fills the place of the scores anew."""

    def __init__(self, forward: Forward, given: torch.Tensor) -> None:
        self.forward, self.given, self.scores = forward, given, forward(given)

    def replay(self) -> None:
        self.scores.copy_(self.forward(self.given))


def test_one_graph_serves_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def captured(forward: Forward, windows: torch.Tensor) -> backends._Recorded:
        sizes.append(len(windows))
        graph = Replayed(forward, windows.clone())
        return backends._Recorded(graph, graph.given, graph.scores)

    monkeypatch.setattr(backends, "_captured", captured)
    network = nn.Conv2d(1, 3, 3, padding=1)
    forward = BACKENDS["cuda_graph"](network, Site(CPU, torch.zeros(1, 1, 8, 8)))
    with torch.inference_mode():
        for count in (2, 4, 1, 4, 3):
            windows = torch.rand(count, 1, 8, 8)
            torch.testing.assert_close(forward(windows), network(windows))
    assert sizes == [2, 4]


def test_a_graph_that_cannot_be_recorded_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(forward: Forward, windows: torch.Tensor) -> backends._Recorded:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(backends, "_captured", refused)
    network = nn.Conv2d(1, 3, 3, padding=1)
    forward = BACKENDS["cuda_graph"](network, Site(CPU, torch.zeros(1, 1, 8, 8)))
    with torch.inference_mode():
        for _ in range(2):
            windows = torch.rand(2, 1, 8, 8)
            torch.testing.assert_close(forward(windows), network(windows))
    assert caplog.text.count("not permitted") == 1


def test_single_precision_is_not_rounded_in_convolutions() -> None:
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_a_gpu_checks_its_backend_for_every_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_QUICK_VOXELS", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(selection, "BACKENDS", dict.fromkeys(BACKENDS, lambda network, site: network))
    outcomes = iter(["cuda_graph", "cuda_graph", "eager"])
    trials: list[tuple[list[str], bool]] = []

    def tried(system, network, device, names, timed):
        trials.append((names, timed))
        return {"backend": next(outcomes), "seconds": {"cuda_graph": 0.1}}

    monkeypatch.setattr(selection, "try_backends", tried)
    system, cuda = make_system(), torch.device("cuda")
    weights, select = weights_of(build_network(system)), Selection(tmp_path)
    used = [select(system, weights, cuda, f"first/000{number}", 0)[0] for number in (1, 2, 3)]
    assert used == ["cuda_graph", "cuda_graph", "eager"]
    assert trials == [(["half", "channels_last", "cuda_graph"], True)] + [(["cuda_graph"], False)] * 2
