"""``resampling: from_first_voxel``: the working grid is MONAI's Spacing's, there and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, Orientation, Spacing
from test_engine import ByIntensity
from test_preprocess import AFFINES, body_in_air, make_system
from torch import nn

from msklabel.choose.summary import Slices
from msklabel.errors import UserError
from msklabel.imaging import Scan
from msklabel.learn.cases import Case, prepare_case
from msklabel.learn.prepared_cache import read_prepared, write_prepared
from msklabel.learn.versions import Versions
from msklabel.pipeline.preprocess import Preprocess
from msklabel.pipeline.resample import AxisMap, axis_maps, nearest_index
from msklabel.predict.engine import Engine

SPACINGS = [[1.0, 1.0, None], [2.6, 3.1, 4.7], [0.8, 5.0, 0.9], [None, None, None]]


def make(**changes: Any) -> Any:
    return make_system(resampling="from_first_voxel", **changes)


def monais(affine: np.ndarray, spacing: list[float | None], mode: str = "bilinear") -> tuple[Compose, Any]:
    """MONAI's way to a working grid, and a scan's array as it wants it."""
    own = np.linalg.norm(affine[:3, :3], axis=0)
    order = np.abs(affine[:3, :3]).argmax(axis=1)  # stored axis that runs along each of the scanner's
    wanted = [own[order[axis]] if target is None else target for axis, target in enumerate(spacing)]
    steps = Compose([Orientation("RAS", labels=None), Spacing(wanted, mode=mode, padding_mode="border")])
    return steps, lambda array: MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine))


def uncropped(hu: np.ndarray) -> np.ndarray:
    """Tissue in all corners, so that nothing is cut off."""
    hu = hu.copy()
    hu[hu == hu.min()] = -150
    return hu


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_image_and_labels_lie_where_monai_has_them(name: str, spacing: list[float | None]) -> None:
    hu, labels = body_in_air((40, 34, 20))
    hu = uncropped(hu) + np.random.default_rng(0).normal(0, 30, hu.shape).astype(np.float32)
    preprocess = Preprocess(make(spacing_mm=spacing))
    prepared = preprocess(Scan(hu[None], AFFINES[name]))
    there, stored = monais(AFFINES[name], spacing)
    theirs = ((there(stored(hu)) + 200) / 700).clamp(0, 1)
    assert prepared.image.shape == theirs.shape
    torch.testing.assert_close(prepared.image, theirs.as_tensor().float(), atol=2e-3, rtol=0)
    there, _ = monais(AFFINES[name], spacing, "nearest")
    nearest = there(stored(labels.astype(np.float32))).as_tensor()[0].numpy()
    assert np.mean(preprocess.labels(labels, prepared.grid).numpy() == nearest) > 0.98  # apart from exact middles


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_scores_come_back_as_monai_inverts_its_spacing(name: str, spacing: list[float | None]) -> None:
    hu = uncropped(body_in_air((40, 34, 20))[0])
    preprocess = Preprocess(make(spacing_mm=spacing))
    grid = preprocess(Scan(hu[None], AFFINES[name])).grid
    there, stored = monais(AFFINES[name], spacing)
    working = there(stored(hu))
    coarse = np.random.default_rng(1).normal(size=(3, *working.shape[1:])).astype(np.float32)
    scores = MetaTensor(torch.from_numpy(coarse), meta=working.meta, applied_operations=working.applied_operations)
    theirs = there.inverse(scores).argmax(0).numpy()
    ours = grid.deorient(preprocess.restore(torch.from_numpy(coarse), grid))
    assert np.mean(ours == theirs) > 0.999  # where two scores are as good as equal rounding decides


class Blurred(nn.Module):
    """Scores that depend on neighbours, as a real network's do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Conv3d(1, 6, 5, padding=2), nn.Tanh(), nn.Conv3d(6, 3, 5, padding=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x - 0.5)


@pytest.mark.parametrize("name", AFFINES)
def test_with_monais_windows_a_scan_gets_the_labels_of_monais_whole_chain(name: str) -> None:
    hu = np.full((60, 55, 30), -1000.0, np.float32)
    hu[11:51, 10:44, 5:25] = body_in_air((40, 34, 20))[0]
    predict = {"overlap": 0.5, "windows": "from_edge"}
    volume = {"dimensions": 3, "patch_voxels": [16, 16, 8], "network": {"name": "vnet"}}
    spacing = [2.7, 3.1, 3.6]
    engine = Engine(make(spacing_mm=spacing, predict=predict, **volume), network := Blurred().eval())
    there, stored = monais(AFFINES[name], spacing)
    image = ((there(stored(hu)) + 200) / 700).clamp(0, 1)
    inferer = SlidingWindowInferer((16, 16, 8), overlap=0.5, mode="gaussian", padding_mode="replicate")
    with torch.inference_mode():
        scores = inferer(image.as_tensor().float()[None], network)[0]
    back = there.inverse(MetaTensor(scores, meta=image.meta, applied_operations=image.applied_operations))
    theirs, ours = back.argmax(0).numpy(), engine(Scan(hu[None], AFFINES[name])).labels.array
    body = hu > -1000
    assert len(np.unique(theirs[body])) == 3
    assert np.mean(ours[body] == theirs[body]) > 0.999


def test_there_are_as_many_voxels_as_bring_the_last_nearest_to_the_scans_last() -> None:
    maps = axis_maps((10, 10, 10), (1.0, 1.0, 1.0), (2.0, 2.5, None), "from_first_voxel")
    assert [one.size_out for one in maps] == [round(9 / 2 + 1), round(9 / 2.5 + 1), 10]
    assert [one.step for one in maps] == [2.0, 2.5, 1.0]


@pytest.mark.parametrize(
    ("spacing", "target"),
    [
        ((0.7, 0.7, 3.0), (0.7009, 0.6991, 2.9992)),
        ((0.7, 0.7, 3.0), (0.7009, 0.7, 2.0)),  # each axis on its own
        ((0.7, 1.0, 1.5), (1.0, 0.6, 0.6)),  # 19 steps of 1.5 mm end in the middle between two of 0.6 mm
        ((0.7, 0.7, 0.7), (1.0, 7.0, 0.3)),
        ((1.0, 1.0, 1.0), (1.1, 0.9, 1.002)),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 16, 20, 36, 512])
def test_there_are_as_many_voxels_as_in_monais_grid(
    size: int, spacing: tuple[float, float, float], target: tuple[float, float, float]
) -> None:
    for axis, one in enumerate(axis_maps((size,) * 3, spacing, target, "from_first_voxel")):
        affine = np.diag([spacing[axis], 1.0, 1.0, 1.0])
        image = MetaTensor(torch.zeros(1, size, 1, 1), affine=torch.from_numpy(affine))
        assert one.size_out == Spacing([target[axis], 1.0, 1.0])(image).shape[1]
        assert one.keeps == (abs(spacing[axis] - target[axis]) < 1e-3)


@pytest.mark.parametrize("flipped", [False, True])
def test_slices_are_found_again_in_the_scan(flipped: bool) -> None:
    where = Slices(2, flipped, native=31, working=11, start=2, from_first=3.0)
    middles = where.to_native(np.arange(9))
    assert (30 - middles if flipped else middles).tolist() == list(range(6, 31, 3))
    assert where.to_entry(middles, 9).tolist() == list(range(9))


@pytest.mark.parametrize("native", range(1, 13))
@pytest.mark.parametrize("target", [0.4, 0.7, 2.0, 4.0, 9.0])
def test_each_slice_of_the_scan_can_be_chosen_where_the_crop_is_the_whole(native: int, target: float) -> None:
    along = axis_maps((native,) * 3, (1.0, 1.0, 1.0), (None, None, target), "from_first_voxel")[2]
    where = Slices(2, False, native, along.size_out, from_first=along.from_first)
    assert where.inside(np.arange(native), along.size_out).all()
    assert where.to_entry(np.arange(native), along.size_out).tolist() == nearest_index(along.back()).tolist()


def test_a_prepared_scan_is_read_as_it_was_written(tmp_path: Path) -> None:
    hu, labels = body_in_air((40, 34, 20))
    system = make(spacing_mm=[2.6, 3.1, 4.7])
    case = prepare_case(system, Case("a", "a", lambda: (Scan(hu[None], np.eye(4)), labels), label="l", image="i"))
    write_prepared(tmp_path / "case.safetensors", case)
    assert read_prepared(tmp_path / "case.safetensors", None).prepared.grid == case.prepared.grid


def test_weights_of_the_one_grid_are_not_those_of_the_other(tmp_path: Path) -> None:
    assert make_system(resampling="edge_to_edge").fingerprint == make_system().fingerprint
    versions = Versions(tmp_path)
    trained = versions.add(make_system(), [{"way": torch.zeros(1)}], {})
    assert len(versions.weights(make_system(), trained.name)) == 1
    with pytest.raises(UserError, match="such as its grid or its labels, was changed in its configuration since"):
        versions.weights(make(), trained.name)


def test_going_there_and_back_is_the_same_map() -> None:
    for along in (AxisMap(10, 4), AxisMap(10, 4, 2.7)):
        back = along.back()
        assert (back.size_in, back.size_out) == (4, 10)
        assert back.edge(along.back().back().edge(1.25)) == pytest.approx(1.25)


@pytest.mark.parametrize("side", ["L", "R"])
def test_a_leg_alone_is_cleaned_as_a_whole(side: str) -> None:
    hu = np.full((30, 120, 3), 50, np.float32)
    hu[4:21, 40:80] = hu[25:, 100:] = 600
    system = make(laterality="mirror_halves", spacing_mm=[5.0, 5.0, None], postprocess={"largest_component": ["dense"]})
    labels = Engine(system, ByIntensity())(Scan(hu[None], np.eye(4), {"side": side})).labels.array
    assert (labels[4:21, 40:80] == 1).mean() > 0.9
    assert not (labels[:, 95:] == 1).any()
