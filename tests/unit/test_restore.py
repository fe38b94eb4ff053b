"""Labels restored slice after slice are those of plain full-size scores."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_preprocess import AFFINES, body_in_air, make_system
from torch import nn

from msklabel.imaging import Scan
from msklabel.pipeline.grid import Grid
from msklabel.pipeline.postprocess import postprocess
from msklabel.pipeline.preprocess import Preprocess
from msklabel.pipeline.resample import AxisMap, apply_weights
from msklabel.pipeline.restore import Restorer, native_taps
from msklabel.pipeline.windows import blend_weights, plan_windows, window_slices, with_channels
from msklabel.predict.engine import Engine

_ROUNDING = 1e-4  # two scores nearer to each other than this may change places


class Blurring(nn.Module):
    """Smooth scores that depend on the neighbours and on the place in the window, as a trained network's do."""

    def __init__(self, dimensions: int, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.layers = nn.Sequential(
            convolution(1, 8, 3, padding=1),
            nn.Tanh(),
            convolution(8, classes, 5 if dimensions == 2 else 3, padding="same"),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * 5


def smooth_scores(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return torch.from_numpy(10 * ndimage.gaussian_filter(noise, (0, 2, 2, 2)))


def full_size(scores: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Scores on the scan's own grid (classes, X, Y, Z), all at once; outside the crop background."""
    taps = [native_taps(along.back(), crop) for along, crop in zip(grid.along, grid.crop, strict=True)]
    matrices, places = [], []
    for tap, n in zip(taps, scores.shape[1:], strict=True):
        matrix = np.zeros((len(tap.index), n), np.float32)
        np.add.at(matrix, (np.arange(len(matrix))[:, None], tap.index), tap.weight)
        matrices.append(torch.from_numpy(matrix))
        places.append(slice(tap.start, tap.start + len(matrix)))
    whole = torch.zeros((len(scores), *grid.oriented_shape))
    whole[0] = 1
    whole[with_channels((places[0], places[1], places[2]))] = apply_weights(scores, tuple(matrices))
    return whole


def assert_labels_follow(labels: np.ndarray, whole: torch.Tensor) -> None:
    """The label of every voxel is the one with the highest score, or as good as that."""
    highest = whole.amax(0)
    chosen = whole.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    assert float((highest - chosen).max()) < _ROUNDING
    assert np.mean(whole.argmax(0).numpy() == labels) > 0.9999


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("spacing", [[1.0, 1.0, None], [2.6, 3.1, 4.7], [0.8, 5.0, 0.9], [None, None, None]])
@pytest.mark.parametrize("resampling", ["edge_to_edge", "from_first_voxel"])
def test_labels_are_those_of_full_size_scores(name: str, spacing: list[float | None], resampling: str) -> None:
    preprocess = Preprocess(make_system(spacing_mm=spacing, resampling=resampling))
    prepared = preprocess(Scan(body_in_air((40, 34, 20))[0][None], AFFINES[name]))
    scores = smooth_scores((6, *prepared.image.shape[1:]), seed=1)
    labels = preprocess.restore(scores, prepared.grid)
    assert len(np.unique(labels)) == 6
    whole = full_size(scores, prepared.grid)
    assert_labels_follow(labels, whole)
    as_on_a_gpu = Restorer(prepared.grid, whole_slices=True)
    as_on_a_gpu.add(scores)
    assert_labels_follow(as_on_a_gpu.labels(), whole)


def test_it_does_not_matter_how_many_slices_come_at_once() -> None:
    preprocess = Preprocess(make_system(spacing_mm=[1.7, 1.7, 1.7]))
    prepared = preprocess(Scan(body_in_air((40, 34, 20))[0][None], AFFINES["RAS"]))
    scores = smooth_scores((3, *prepared.image.shape[1:]), seed=0)
    restorer = Restorer(prepared.grid)
    for part in scores.split([1, 3, scores.shape[-1] - 4], dim=-1):
        restorer.add(part)
    np.testing.assert_array_equal(restorer.labels(), preprocess.restore(scores, prepared.grid))


def test_matrices_are_copied_to_where_the_scores_are_only_once() -> None:
    prepared = Preprocess(make_system())(Scan(body_in_air((40, 34, 20))[0][None], AFFINES["RAS"]))
    scores = smooth_scores((3, *prepared.image.shape[1:]), seed=0).double()  # needs other matrices, as a GPU's do
    restorer, copied = Restorer(prepared.grid, whole_slices=True), []
    for part in scores.split(4, dim=-1):
        restorer.add(part)
        copied.append(restorer._matrices)
    assert len(copied) > 2
    assert all(matrix.dtype == torch.float64 for matrix in copied[0])
    assert all(pair[0] is copied[0][0] and pair[1] is copied[0][1] for pair in copied)


def test_missing_slices_are_told() -> None:
    preprocess = Preprocess(make_system())
    prepared = preprocess(Scan(body_in_air((40, 34, 20))[0][None], AFFINES["RAS"]))
    restorer = Restorer(prepared.grid)
    restorer.add(smooth_scores((3, *prepared.image.shape[1:]), seed=0)[..., :-2])
    with pytest.raises(RuntimeError, match="slices of the crop came"):
        restorer.labels()


def plainly_merged(engine: Engine, image: torch.Tensor) -> torch.Tensor:
    """Scores (classes, X, Y, Z) by the textbook: every window into one full-size sum, then combined over members."""
    system = engine.system
    patch, total = system.patch_voxels, 0.0
    x, y, z = image.shape[1:]
    weights = blend_weights(patch, system.predict.blend)
    for network in engine.networks:
        merged = torch.zeros((system.classes, *image.shape[1:]))
        norm = torch.zeros(image.shape[1:])
        for start in plan_windows((x, y, z), patch, system.predict.overlap, image[0] > image.min()):
            place = window_slices(start, patch)
            crop = image[with_channels(place)][None]
            with torch.inference_mode():
                seen = network(crop[..., 0])[..., None] if system.dimensions == 2 else network(crop)
            merged[with_channels(place)] += seen[0] * weights
            norm[place] += weights
        merged = merged / norm.clamp_min(1e-9)
        merged[0][norm == 0] = 1
        total = total + (merged.softmax(0) / len(engine.networks) if len(engine.networks) > 1 else merged)
    return total


@pytest.mark.parametrize(("dimensions", "members"), product((2, 3), (1, 2)))
@pytest.mark.parametrize("name", ["LPS", "sideways", "oblique"])
def test_a_scan_gets_the_labels_of_plain_merging(dimensions: int, members: int, name: str) -> None:
    shape = (52, 44, 30)
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), 2) * 4000
    hu = np.where(body_in_air(shape)[0] > -500, noise + 150, -1000).astype(np.float32)
    changes = {"patch_voxels": [16, 16, 1]} if dimensions == 2 else {"dimensions": 3, "patch_voxels": [16, 16, 8]}
    system = make_system(
        spacing_mm=[1.3, 1.3, 2.0], predict={"overlap": 0.5, "batch": 3}, network={"name": "vnet"}, **changes
    )
    networks = [Blurring(dimensions, seed=seed) for seed in range(members)]
    engine, scan = Engine(system, networks), Scan(hu[None], AFFINES[name])
    prepared = engine.preprocess(scan)
    scores = plainly_merged(engine, prepared.image)
    torch.testing.assert_close(engine.scores(prepared), scores, atol=1e-4, rtol=1e-4)
    whole = full_size(scores, prepared.grid)
    labels = engine(scan).labels.array
    assert len(np.unique(labels)) == 3
    assert_labels_follow(np.ascontiguousarray(prepared.grid.orient(labels)), whole)
    watched = engine(scan, watch=lambda *_: None).labels.array
    np.testing.assert_array_equal(watched, labels)
    np.testing.assert_array_equal(postprocess(labels, system), labels)


@pytest.mark.parametrize("sizes", [(14, 260, 256, 259), (1, 108, 68, 93), (5, 77, 73, 77), (6, 265, 246, 253)])
def test_a_crop_between_the_middles_of_thick_slices_is_given_to_one(sizes: tuple[int, int, int, int]) -> None:
    native, working, start, stop = sizes
    taps = native_taps(AxisMap(native, working).back(), slice(start, stop))
    assert taps.start == native - 1
    assert taps.weight.sum() == pytest.approx(1)
