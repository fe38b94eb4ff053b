"""Whatever runs a network, the labels are those of PyTorch as it is; the fastest is remembered."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors.torch import save_file
from test_preprocess import make_system
from torch import nn

from msklabel.catalogue import load_catalogue
from msklabel.choose.members import Embedding
from msklabel.choose.rescore import Rescore
from msklabel.choose.summarise import Summarise
from msklabel.errors import UserError
from msklabel.imaging import Scan
from msklabel.networks import build_network, weights_of
from msklabel.networks.contract import with_bottleneck
from msklabel.predict import on_openvino, selection, trial
from msklabel.predict.backends import BACKENDS, Site, candidates, eager
from msklabel.predict.engine import Engine
from msklabel.predict.progress import reported
from msklabel.predict.selection import Selection
from msklabel_phantoms.write import generate

CPU = torch.device("cpu")
SYSTEMS = load_catalogue(profile="demo")


def site_of(system_name: str) -> Site:
    system = SYSTEMS[system_name]
    return Site(CPU, torch.zeros(1, len(system.channels), *system.patch_voxels[: system.dimensions]))


@pytest.mark.parametrize("backend", ["channels_last", "openvino"])
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


@functools.cache
def converted(name: str):
    """A network with fresh weights, and the same for OpenVINO."""
    torch.manual_seed(0)
    network = build_network(SYSTEMS[name]).eval()
    return network, on_openvino.convert(network, site_of(name).window)


def capable(precision: str) -> bool:
    import openvino

    return on_openvino._CAPABILITIES[precision] in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("precision", ["f16", "bf16"])
@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_half_precision_differs_by_rounding(name: str, precision: str) -> None:
    network, model = converted(name)
    window = torch.rand(site_of(name).window.shape)
    if not capable(precision):
        with pytest.raises(UserError, match=f"does not compute in {precision}"):
            on_openvino.compile_model(model, precision)
        return
    with torch.inference_mode():
        expected = network(window).softmax(1)
        found = on_openvino.compile_model(model, precision)(window).softmax(1)
    assert float((found - expected).abs().mean()) < {"f16": 0.002, "bf16": 0.02}[precision]


@pytest.mark.skipif(not capable("f16"), reason="the processor does not compute in f16")
@pytest.mark.parametrize("loudness", [1e4, 1e6])
def test_a_window_beyond_half_precision_runs_in_single(loudness: float, caplog: pytest.LogCaptureFixture) -> None:
    network, model = converted("hip_radiograph")  # with instance norms
    window = torch.rand(site_of("hip_radiograph").window.shape) * loudness
    window[..., ::2] *= -1
    forward = on_openvino.compile_model(model, "f16")
    with torch.inference_mode():
        torch.testing.assert_close(forward(window), network(window), atol=1e-2, rtol=1e-2)
    assert "runs in f32" in caplog.text


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_openvino_tells_the_deepest_features(name: str) -> None:
    network, model = converted(name)
    windows = torch.rand((2, *site_of(name).window.shape[1:]))
    forward = on_openvino.compile_model(model)
    with torch.inference_mode():
        with Embedding(network) as expected:
            network(windows)
        with Embedding(forward) as found:
            forward(windows)
        forward(windows)  # nobody looks
    torch.testing.assert_close(found.vector, expected.vector, atol=1e-4, rtol=1e-3)
    assert not network._forward_hooks


def test_means_over_many_voxels_are_exact() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 1), nn.InstanceNorm3d(4, affine=True), nn.Conv3d(4, 2, 1)).eval()
    with_bottleneck(network, "1")
    window = torch.rand(1, 1, 192, 192, 96) + 3
    forward = on_openvino.compile_model(on_openvino.convert(network, window))
    with torch.inference_mode():
        expected = network.double()(window.double()).float()
        torch.testing.assert_close(forward(window), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("convolution", [nn.Conv2d(3, 5, (8, 4), (8, 4)), nn.Conv3d(1, 6, 8, 8, bias=False)])
def test_convolutions_of_blocks_are_products_of_matrices(convolution: nn.Conv2d | nn.Conv3d) -> None:
    window = torch.rand(2, convolution.in_channels, *[16] * (convolution.weight.ndim - 2))
    converted = on_openvino.BlockConvolution(convolution)
    torch.testing.assert_close(converted(window), convolution(window), atol=1e-5, rtol=0)
    network = with_bottleneck(nn.Sequential(convolution), "0")
    assert not [m for m in on_openvino._Converted(network).modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    assert not on_openvino._of_blocks(nn.Conv2d(1, 2, 8, 4)) and not on_openvino._of_blocks(nn.Conv3d(4, 8, 2, 2))


def test_a_version_whose_labels_differ_stays_on_pytorch_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_QUICK_VOXELS", 0)
    system = SYSTEMS["hip_tissue_ct"]
    weights = weights_of(build_network(system))
    known = {selection._key(system, site_of(system.name)): {"backend": "openvino"}}
    monkeypatch.setattr(Selection, "_remembered", lambda self: known)
    trials = []

    def refused(folder: Path, request: str) -> tuple[int, str]:
        trials.append(request)
        return 0, json.dumps({"backend": "eager", "seconds": {}})

    monkeypatch.setattr(trial, "_trial", refused)
    for _ in range(2):
        assert Selection(tmp_path)(system, weights, CPU, "first/0001", 0)[0] == "eager"
    assert len(trials) == 1


def test_a_trial_that_is_ended_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_QUICK_VOXELS", 0)
    system = SYSTEMS["hip_tissue_ct"]

    def end(done: int, of: int) -> None:
        raise KeyError("enough")

    children = len(psutil.Process().children())
    with reported(end), pytest.raises(KeyError, match="enough"):
        Selection(tmp_path)(system, weights_of(build_network(system)), CPU, "first/0001", 0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".trial-")]
    assert len(psutil.Process().children()) == children


def test_a_trial_ends_with_who_started_it(tmp_path: Path) -> None:
    system = SYSTEMS["hip_tissue_ct"]
    save_file(weights_of(build_network(system)), tmp_path / "weights.safetensors")
    request = {"system": system.model_dump(mode="json", exclude_unset=True), "names": [], "threads": 1, "timed": True}
    command = [sys.executable, "-m", trial.__name__, str(tmp_path)]
    line = json.dumps(request) + "\n"  # after it the end of the pipe
    done = subprocess.run(command, input=line, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 1 and not done.stdout


def test_scans_are_scored_on_what_runs_the_network() -> None:
    system = SYSTEMS["hip_tissue_ct"]
    network, model = converted(system.name)
    versions = SimpleNamespace(weights=lambda system, name: [weights_of(network)] * 2)

    def select(backend: str) -> Engine:
        forward = on_openvino.compile_model(model) if backend == "openvino" else eager(network, site_of(system.name))
        rescore = Rescore(SimpleNamespace(store=None), versions, select=lambda *_: (backend, forward))
        return rescore._engine(system, "0001")

    assert not select("openvino").networks and len(select("openvino").forwards) == 2
    assert len(select("eager").networks) == 2
    system = system.model_copy(update={"choose": system.choose.model_copy(update={"dropout_passes": 1})})
    assert len(select("openvino").networks) == 2


def test_a_scan_is_summarised_alike_on_openvino() -> None:
    system = SYSTEMS["hip_tissue_ct"]
    network, model = converted(system.name)
    phantom = generate(system.name, 3, 0, (96, 72, 4), (4.0, 4.0, 6.0))
    scan = Scan(phantom.image, phantom.affine, {key: str(value) for key, value in phantom.facts.items()})
    labels, expected = Summarise(Engine(system, network), "v")(scan)
    again, found = Summarise(Engine(system, [], CPU, [on_openvino.compile_model(model)]), "v")(scan)
    assert (again.labels.array == labels.labels.array).mean() > 0.9999
    assert found.values == pytest.approx(expected.values, rel=1e-3)
    assert found.embedding == pytest.approx(expected.embedding, rel=1e-2, abs=1e-4)
    assert found.members == expected.members


def test_openvino_is_installed() -> None:
    assert "openvino" in candidates(CPU)


class Faked(nn.Module):
    """One layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_the_fastest_that_labels_alike_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"eager": 0.5, "slower": 0.6, "fast": 0.2, "wrong": 0.1}

    def backend(name: str, sign: int):
        def build(network: nn.Module, site: Site):
            def forward(windows: torch.Tensor) -> torch.Tensor:
                return network(windows) * sign

            forward.seconds = seconds[name]
            return forward

        return build

    def broken(network: nn.Module, site: Site):
        raise RuntimeError("no such instruction")

    made = {"eager": backend("eager", 1), "slower": backend("slower", 1), "fast": backend("fast", 1)}
    monkeypatch.setattr(trial, "BACKENDS", {**made, "wrong": backend("wrong", -1), "broken": broken})
    monkeypatch.setattr(trial, "_run", lambda forward, window, timed: (forward.seconds, forward(window)))
    found = trial.try_backends(make_system(), Faked(), CPU, ["broken", "wrong", "fast", "slower"])
    assert found["backend"] == "fast"
    assert found["seconds"] == {"eager": 0.5, "fast": 0.2, "slower": 0.6}
    assert found["other_labels"] == {"fast": 0, "slower": 0}
    untimed = trial.try_backends(make_system(), Faked(), CPU, ["wrong", "slower", "fast"], timed=False)
    assert untimed["backend"] == "slower"
    assert trial.try_backends(make_system(), Faked(), CPU, ["wrong"], timed=False)["backend"] == "eager"


@pytest.mark.parametrize(("seconds", "expected"), [(0.14, "openvino_bf16"), (0.13, "openvino_f16")])
def test_half_precision_must_save_more(seconds: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where one is taken, no other is tried."""
    taken = {"eager": 0.5, "openvino": 0.2, "openvino_f16": seconds, "openvino_bf16": 0.01}

    def build(name: str):
        def forward(windows: torch.Tensor) -> torch.Tensor:
            return windows

        forward.seconds = taken[name]
        return lambda network, site: forward

    monkeypatch.setattr(trial, "BACKENDS", {name: build(name) for name in taken})
    monkeypatch.setattr(trial, "_run", lambda forward, window, timed: (forward.seconds, forward(window)))
    found = trial.try_backends(make_system(), Faked(), CPU, ["openvino", "openvino_f16", "openvino_bf16"])
    assert found["backend"] == expected


@pytest.mark.parametrize(("error", "told"), [(UserError("no units for it"), []), (RuntimeError("broken"), ["WARNING"])])
def test_what_the_processor_lacks_is_no_reason_to_warn(
    error: Exception, told: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(network: nn.Module, site: Site):
        raise error

    monkeypatch.setattr(trial, "BACKENDS", {"eager": BACKENDS["eager"], "half": refused})
    network = build_network(make_system()).eval()
    assert trial.try_backends(make_system(), network, CPU, ["half"])["backend"] == "eager"
    assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == told


def test_ties_are_for_rounding_to_decide() -> None:
    expected = torch.zeros(1, 2, 4)  # (B, classes, voxels)
    expected[0, 1] = torch.tensor([0.01, 0.5, -1, -1])
    scores = expected.clone()
    scores[0, 1, 0] = -0.01  # another label, but there was a tie
    assert trial.other_labels(expected, scores) == (0.25, 0)
    scores[0, 1, 1] = -0.01  # there was none
    assert trial.other_labels(expected, scores) == (0.5, 0.25)
    scores[0, 0, 3] = float("nan")
    assert trial.other_labels(expected, scores) == (0.75, 0.5)


def test_a_trial_is_made_once_and_its_network_kept_until_the_next_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_QUICK_VOXELS", 0)
    system = SYSTEMS["hip_tissue_ct"]
    torch.manual_seed(0)
    network = build_network(system)
    windows = torch.rand(2, 1, *system.patch_voxels[:2])
    expected = eager(network, site_of("hip_tissue_ct"))(windows)

    used, forward = Selection(tmp_path)(system, weights_of(network), CPU, "first/0001", 0)
    torch.testing.assert_close(forward(windows), expected, atol=0.05, rtol=0.05)
    (found,) = json.loads((tmp_path / "backends.json").read_text()).values()
    assert found["backend"] == used
    assert {"eager", "openvino"} <= found["seconds"].keys() <= set(candidates(CPU))  # half precision where there is
    found["backend"] = "openvino"  # it is faster here, but a test must not depend on the clock
    monkeypatch.setattr(Selection, "_remembered", lambda self: dict.fromkeys([selection._key(system, site)], found))
    site = site_of("hip_tissue_ct")

    calls: list[list[str]] = []

    def without_the_clock(system, weights, names, kept, timed):
        calls.append([*names, timed])
        on_openvino.save(on_openvino.convert(network, site.window), trial.converted_file(kept))
        (kept / "backend").write_text(found["backend"])
        return found

    monkeypatch.setattr(selection, "run_apart", without_the_clock)
    for version in ("first/0002", "first/0002", "first/0003", "other/0004"):
        used, forward = Selection(tmp_path)(system, weights_of(network), CPU, version, 0)
        assert used == "openvino"
        torch.testing.assert_close(forward(windows), expected, atol=1e-3, rtol=1e-3)
    assert calls == [["openvino", False]] * 3
    kept = sorted(path.relative_to(tmp_path).parts[2:4] for path in tmp_path.glob("converted/*/*/*/0/network.xml"))
    assert [(variant, version.split("-")[0]) for variant, version in kept] == [("first", "0003"), ("other", "0004")]


def test_a_trial_that_breaks_leaves_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.sys, "executable", "/bin/false")
    kept = tmp_path / "0"
    found = trial.run_apart(SYSTEMS["hip_tissue_ct"], {"layer": torch.zeros(1)}, ["openvino"], kept)
    assert found["backend"] == "eager"
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_quick_anyway_is_not_tried(tmp_path: Path) -> None:
    system = make_system()
    Selection(tmp_path)(system, weights_of(build_network(system)), CPU, "first/0001", 0)
    assert not list(tmp_path.iterdir())


def test_a_backend_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    system = make_system()
    weights = weights_of(build_network(system))
    with pytest.raises(UserError, match="backend 'tensorrt' is not known; one of auto, eager"):
        Selection(tmp_path, "tensorrt")(system, weights, CPU, "first/0001", 0)
    with pytest.raises(UserError, match="'cuda_graph' cannot be used on cpu"):
        Selection(tmp_path, "cuda_graph")(system, weights, CPU, "first/0001", 0)
