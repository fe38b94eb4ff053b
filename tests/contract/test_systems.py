"""What holds of every system under configs/: a new YAML file is tested the day it appears."""

from pathlib import Path

import numpy as np
import pytest
import torch

from msklabel.catalogue import configs_folder, load_catalogue
from msklabel.imaging import Scan
from msklabel.learn.losses import build_loss
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, load_weights, weights_of
from msklabel.pipeline.preprocess import Preprocess
from msklabel.predict.engine import Engine
from msklabel.system import System

NAMES = sorted(path.stem for path in configs_folder().glob("*.yaml"))
DEMO = load_catalogue(profile="demo")


def synthetic_scan(system: System) -> Scan:
    """A bright, textured block in the dark, of about one patch, oblique and flipped."""
    rng = np.random.default_rng(0)
    spacing = [s or 3.0 for s in system.spacing_mm]
    shape = [max(3, min(n, 96)) for n in system.patch_voxels]
    level = -1000 if system.modality == ("CT",) else 0
    array = np.full((len(system.channels), *shape), level, np.float32)
    inside = (slice(None), *(slice(n // 6, n - n // 6) for n in shape))
    array[inside] = rng.normal(60, 30, array[inside].shape)
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-spacing[0], spacing[1], -spacing[2]])
    return Scan(array, affine)


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_network_goes_forward_and_backward_at_its_patch(name: str) -> None:
    system = DEMO[name]
    network = build_network(system).train()
    patch = system.patch_voxels[: system.dimensions]
    image = torch.randn(1, len(system.channels), *patch)
    labels = torch.randint(0, system.classes, (1, *patch))
    loss = build_loss(system.train.loss)(network(image), labels)
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(float(gradient.abs().max()) > 0 for gradient in gradients[:2])


# Of the papers' profiles. UNETR's 121 million include cross-attention weights that MONAI builds and never uses.
PAPER_PARAMETERS = {
    "hip_abductor_mr": 45_605_916,
    "hip_radiograph": 59_187_440,
    "hip_tissue_ct": 2_130_632,
    "thigh_ct": 121_123_518,
    "thigh_dixon": 7_266_237,
}
LONG = {"hip_abductor_mr", "hip_radiograph", "thigh_dixon"}  # minutes on one core, and up to 11 GiB


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_network_has_its_size_and_scores_every_voxel_of_the_papers_patch(name: str) -> None:
    system = load_catalogue(names=[name])[name]
    patch = system.patch_voxels[: system.dimensions]
    with torch.device("meta"):  # shapes without numbers
        network = build_network(system).eval()
        scores = network(torch.empty(1, len(system.channels), *patch))
    assert sum(p.numel() for p in network.parameters()) == PAPER_PARAMETERS[name]
    assert scores.shape == (1, system.classes, *patch)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in LONG)) for n in NAMES])
def test_the_papers_network_goes_forward_and_backward_at_the_papers_patch(name: str) -> None:
    system = load_catalogue(names=[name])[name]
    network = build_network(system).train()
    patch = system.patch_voxels[: system.dimensions]
    scores = network(torch.randn(1, len(system.channels), *patch, generator=torch.Generator().manual_seed(0)))
    full = scores if isinstance(scores, torch.Tensor) else scores[0]
    assert full.shape == (1, system.classes, *patch)
    loss = build_loss(system.train.loss)(scores, torch.randint(0, system.classes, (1, *patch)))
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_weights_predict_the_same_voxels_on_the_native_grid(name: str, tmp_path: Path) -> None:
    system, versions = DEMO[name], Versions(tmp_path)
    torch.manual_seed(1)
    network = build_network(system)
    versions.add(system, [weights_of(network)], {})
    again = build_network(system)
    load_weights(again, versions.weights(system, "0001")[0])
    scan = synthetic_scan(system)
    first, second = (Engine(system, net)(scan).labels for net in (network, again))
    assert first.array.shape == scan.shape
    np.testing.assert_array_equal(first.array, second.array)
    np.testing.assert_array_equal(first.affine, scan.affine)
    assert first.array.max() <= len(system.labels)


@pytest.mark.parametrize("name", NAMES)
def test_labels_brought_to_the_working_grid_come_back(name: str) -> None:
    system = DEMO[name]
    scan = synthetic_scan(system)
    preprocess = Preprocess(system)
    prepared = preprocess(scan)
    labels = np.zeros(scan.shape, np.uint8)
    x, y, z = scan.shape
    labels[x // 4 : x // 2, y // 4 : -(y // 4), z // 4 : max(z // 4 + 1, z - z // 4)] = len(system.labels)
    working = preprocess.labels(labels, prepared.grid)
    scores = torch.zeros((system.classes, *working.shape))
    scores[0], scores[-1] = (working == 0).float(), (working > 0).float()
    restored = prepared.grid.deorient(preprocess.restore(scores, prepared.grid))
    a, b = restored > 0, labels > 0
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9
