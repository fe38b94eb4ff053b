"""What must hold on a GPU; run with ``pytest -m gpu`` where there is one."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from test_learn import RECIPE, make_case
from test_preprocess import make_system

from msklabel.catalogue import load_catalogue
from msklabel.learn.losses import build_loss
from msklabel.learn.trainer import Stopped, Trainer
from msklabel.networks import build_network, load_weights, weights_of
from msklabel.predict.backends import BACKENDS, Forward, Site, candidates, cuda_graph, eager, half
from msklabel.predict.engine import Engine
from msklabel.predict.selection import Selection, _key, site_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_a_gpu_predicts_what_the_cpu_predicts() -> None:
    system = make_system()
    torch.manual_seed(0)
    network = build_network(system)
    scan, _ = make_case(0).load()
    on_cpu = Engine(system, network, "cpu")(scan).labels.array.copy()
    on_gpu = Engine(system, network, "cuda")(scan).labels.array
    assert np.mean(on_cpu == on_gpu) > 0.99


@pytest.mark.parametrize("backend", candidates(torch.device("cuda")))
def test_every_backend_labels_as_the_cpu_does(backend: str) -> None:
    system = make_system()
    torch.manual_seed(0)
    network = build_network(system)
    scan, _ = make_case(0).load()
    on_cpu = Engine(system, network, "cpu")(scan).labels.array.copy()
    _, forward = Selection(None, backend)(system, weights_of(network), torch.device("cuda"), "first/0001", 0)
    engine = Engine(system, [], "cuda", [forward])
    for _ in range(2):  # a graph is recorded first, then replayed
        assert np.mean(engine(scan).labels.array == on_cpu) > 0.99


def test_eager_is_single_precision_on_a_gpu_too() -> None:
    system = make_system()
    torch.manual_seed(0)
    network, windows = build_network(system).eval(), torch.rand(3, 1, 16, 16)
    with torch.inference_mode():
        expected = network(windows)
        found = eager(network, site_of(system, torch.device("cuda")))(windows.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_one_graph_serves_batches_of_any_size() -> None:
    system, device = make_system(), torch.device("cuda")
    torch.manual_seed(0)
    network = build_network(system).to(device).eval()
    forward, plain = cuda_graph(network, site_of(system, device)), half(network, site_of(system, device))
    with torch.inference_mode():
        for count in (2, 4, 1, 4, 3):
            windows = torch.rand(count, 1, 16, 16, device=device)
            torch.testing.assert_close(forward(windows), plain(windows), atol=0.05, rtol=0.05)


def test_the_backend_that_is_remembered_is_checked_for_the_next_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msklabel.predict.selection._QUICK_VOXELS", 0)
    system, device = make_system(), torch.device("cuda")
    weights = weights_of(build_network(system))
    key = _key(system, site_of(system, device))
    monkeypatch.setattr(Selection, "_remembered", lambda self: {key: {"backend": "cuda_graph"}})
    assert Selection(tmp_path)(system, weights, device, "first/0002", 0)[0] in ("cuda_graph", "eager")

    def broken(network: torch.nn.Module, site: Site) -> Forward:
        raise RuntimeError("no such instruction")

    monkeypatch.setitem(BACKENDS, "cuda_graph", broken)
    assert Selection(tmp_path)(system, weights, device, "first/0003", 0)[0] == "eager"


def test_a_gpu_locates_where_the_cpu_does() -> None:
    system = make_system(predict={"locate": {"coarsen": [2, 2, 1], "margin_voxels": [2, 2, 0]}})
    torch.manual_seed(0)
    network = build_network(system)
    scan, _ = make_case(0).load()
    on_cpu = Engine(system, network, "cpu")(scan).labels.array.copy()
    assert np.mean(Engine(system, network, "cuda")(scan).labels.array == on_cpu) > 0.99


def test_two_threads_record_graphs_at_once() -> None:
    system = make_system()
    scan, _ = make_case(0).load()
    network = build_network(system)
    expected = Engine(system, network, "cpu")(scan).labels.array.copy()

    def equal(_: int) -> float:
        _, forward = Selection(None, "cuda_graph")(system, weights_of(network), torch.device("cuda"), "first/0001", 0)
        return float(np.mean(Engine(system, [], "cuda", [forward])(scan).labels.array == expected))

    with ThreadPoolExecutor(2) as threads:
        assert min(threads.map(equal, range(6))) > 0.99


def test_a_gpu_remembers_its_fastest_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msklabel.predict.selection._QUICK_VOXELS", 0)
    system = make_system()
    weights = weights_of(build_network(system))
    Selection(tmp_path)(system, weights, torch.device("cuda"), "first/0001", 0)
    (found,) = json.loads((tmp_path / "backends.json").read_text()).values()
    assert found["seconds"].keys() == set(candidates(torch.device("cuda")))


def test_training_takes_the_gpu_by_itself_and_resumes_there(tmp_path: Path) -> None:
    system = make_system(train=RECIPE)
    stopped = Trainer(system, tmp_path, epochs=6)
    assert stopped.device.type == "cuda"
    with pytest.raises(Stopped):
        stopped([make_case(0)], [make_case(1)], should_stop=lambda: stopped.state.epoch == 3)
    resumed = Trainer(system, tmp_path, epochs=6)
    weights = resumed([make_case(0)], [make_case(1)])
    network = build_network(system)
    load_weights(network, weights)
    assert resumed.state.epoch == 6


@pytest.mark.parametrize("name", sorted(load_catalogue()))
def test_the_papers_profile_trains_a_step_in_mixed_precision(name: str) -> None:
    system = load_catalogue(names=[name])[name]
    network = build_network(system).cuda().train()
    patch = system.patch_voxels[: system.dimensions]
    image = torch.randn(system.train.batch, len(system.channels), *patch, device="cuda")
    labels = torch.randint(0, system.classes, (system.train.batch, *patch), device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        loss = build_loss(system.train.loss)(network(image), labels)
    loss.backward()
    assert torch.isfinite(loss)
