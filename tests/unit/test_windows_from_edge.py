"""``predict: {windows: from_edge}``: windows, and so scores, are those of MONAI's sliding window."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import SlidingWindowInferer
from test_preprocess import body_in_air, make_system
from torch import nn

from msklabel.choose.simulate import scans
from msklabel.cli.simulate import prepared_cases
from msklabel.imaging import Scan
from msklabel.learn.cases import Case, prepare_case
from msklabel.learn.prepared_cache import PreparedCache
from msklabel.learn.samples import Samples
from msklabel.pipeline.preprocess import Preprocess
from msklabel.pipeline.windows import plan_windows, reach_of_windows
from msklabel.predict.engine import Engine
from msklabel.system import System


def system_of(overlap: float, **changes: Any) -> System:
    predict = {"overlap": overlap, "windows": "from_edge"}
    volume = {"dimensions": 3, "patch_voxels": [16, 16, 8], "network": {"name": "vnet"}}
    return make_system(spacing_mm=[None, None, None], predict=predict, **volume, **changes)


class Blurred(nn.Module):
    """Scores that depend on neighbours and on where a window ends, as a real network's do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Conv3d(1, 6, 5, padding=2), nn.Tanh(), nn.Conv3d(6, 3, 5, padding=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x - x.mean(dim=(2, 3, 4), keepdim=True))


@pytest.mark.parametrize("size", [16, 17, 40, 63])
@pytest.mark.parametrize("overlap", [0.0, 0.4, 0.5, 0.75])
def test_over_a_whole_image_they_are_monais(size: int, overlap: float) -> None:
    shape, patch = (size, 30, 9), (16, 16, 8)
    steps = [int(n * (1 - overlap)) for n in patch]
    theirs = [tuple(part.start for part in place) for place in dense_patch_slices(shape, patch, steps)]
    assert sorted(plan_windows(shape, patch, overlap, places="from_edge")) == sorted(theirs)


@pytest.mark.parametrize("part", [slice(0, 3), slice(20, 31), slice(44, 61), slice(58, 61), slice(0, 61)])
@pytest.mark.parametrize("overlap", [0.0, 0.4, 0.75])
def test_over_what_they_reach_they_are_those_that_touch_the_part(part: slice, overlap: float) -> None:
    size, patch = 61, 16
    reach = reach_of_windows(part, size, patch, overlap)
    over_all = [x for x, _, _ in plan_windows((size, 1, 1), (patch, 1, 1), overlap, places="from_edge")]
    within = (reach.stop - reach.start, 1, 1)
    starts = [reach.start + x for x, _, _ in plan_windows(within, (patch, 1, 1), overlap, places="from_edge")]
    assert starts == [start for start in over_all if start < part.stop and start + patch > part.start]


def test_an_image_that_is_no_wider_than_a_window_is_taken_whole() -> None:
    assert reach_of_windows(slice(5, 7), 12, 16, 0.5) == slice(0, 12)


@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_labels_are_those_of_monais_sliding_window_over_the_whole_image(overlap: float) -> None:
    shape = (70, 61, 29)
    hu = np.full(shape, -1000.0, np.float32)
    hu[22:53, 9:40, 3:20] = body_in_air((31, 31, 17))[0]
    system, network = system_of(overlap), Blurred().eval()
    scan = Scan(hu[None], np.eye(4))
    engine = Engine(system, network)
    crop = engine.preprocess(scan).grid.crop
    assert 0 < crop[0].start < 22
    assert 40 < crop[1].stop < 61
    intensity = system.intensity
    image = np.clip((hu - intensity.lower) / (intensity.upper - intensity.lower), 0, 1) ** intensity.gamma
    whole = SlidingWindowInferer((16, 16, 8), sw_batch_size=3, overlap=overlap, mode="gaussian")
    with torch.inference_mode():
        theirs = whole(torch.from_numpy(image)[None, None], network)[0].argmax(0).numpy()
    ours = engine(scan).labels.array
    body = hu > -1000
    assert len(np.unique(theirs[body])) == 3
    np.testing.assert_array_equal(ours[body], theirs[body])
    spread = Engine(
        system.model_copy(update={"predict": system.predict.model_copy(update={"windows": "spread"})}), network
    )
    assert (spread(scan).labels.array[body] != theirs[body]).any()


def test_crops_of_other_windows_are_kept_apart(tmp_path: Path) -> None:
    hu, labels = np.full((70, 61, 29), -1000.0, np.float32), np.zeros((70, 61, 29), np.uint8)
    hu[22:53, 9:40, 3:20], labels[22:53, 9:40, 3:20] = body_in_air((31, 31, 17))
    case = Case("a", "a", lambda: (Scan(hu[None], np.eye(4)), labels), label="label", image="image")
    cache = PreparedCache(tmp_path, 10**9)
    crops = [cache(system_of(overlap), case).prepared.grid.crop for overlap in (0.25, 0.5, 0.25)]
    assert crops[0] == crops[2] != crops[1]
    assert len(list(tmp_path.iterdir())) == 2


def test_cases_of_simulations_with_other_windows_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "read_folder", lambda system, pool: [])
    from_edge = [system_of(overlap) for overlap in (0.25, 0.5)]
    spread = [make_system(predict={"overlap": overlap}) for overlap in (0.25, 0.5)]
    (tmp_path / "images").mkdir()
    files = [prepared_cases(system, tmp_path, tmp_path, 0) for system in (*from_edge, *spread, from_edge[0])]
    assert files[2] == files[3]
    assert files[0] == files[4]
    assert len(set(files)) == 3


@pytest.mark.parametrize("shape", [(12, 40, 5), (40, 11, 8), (15, 9, 3), (13, 16, 24)])
def test_an_image_smaller_than_a_window_is_filled_up_as_monai_labels_app_does(shape: tuple[int, int, int]) -> None:
    system, network = system_of(0.5), Blurred().eval()
    hu = body_in_air(shape)[0]
    scan = Scan(hu[None], np.eye(4))
    engine = Engine(system, network)
    image = engine.preprocess(scan).image
    assert image.shape[1:] == shape
    theirs = SlidingWindowInferer((16, 16, 8), overlap=0.5, mode="gaussian", padding_mode="replicate")
    with torch.inference_mode():
        scores = theirs(image[None], network)[0]
    torch.testing.assert_close(engine.scores(engine.preprocess(scan)), scores)
    np.testing.assert_array_equal(engine(scan).labels.array, scores.argmax(0).numpy())


@pytest.mark.parametrize("size", [5, 8, 11])
def test_trainings_see_it_filled_up_in_the_same_way(size: int) -> None:
    hu, labels = body_in_air((12, 40, size))[0], np.zeros((12, 40, size), np.uint8)
    labels[:, :, 0], labels[:, :, -1] = 1, 2
    case = Case("a", "a", lambda: (Scan(hu[None], np.eye(4)), labels), label="label", image="image")
    system = system_of(0.5)
    (part,) = Samples(system, [prepare_case(system, case)], seed=0).parts
    around = [(2, 2), (0, 0), (max(0, 8 - size) // 2, max(0, 8 - size) - max(0, 8 - size) // 2)]
    np.testing.assert_array_equal(part.labels, np.pad(labels, around, mode="edge"))
    image = Preprocess(system)(Scan(hu[None], np.eye(4))).image[0]
    np.testing.assert_array_equal(part.image[0], np.pad(image, around, mode="edge"))


@pytest.mark.parametrize("right", [True, False])
def test_a_leg_alone_is_told_by_the_place_of_the_body_not_of_the_windows(right: bool) -> None:
    hu = np.full((70, 30, 9), -1000.0, np.float32)
    hu[slice(45, 68) if right else slice(2, 25), 3:27] = 50
    affine = np.diag([4.0, 4.0, 5.0, 1.0])
    affine[0, 3] = -34.5 * 4
    system = system_of(0.5, laterality="mirror_halves").model_copy(update={"patch_voxels": (64, 16, 8)})
    sides = Preprocess(system)(Scan(hu[None], affine)).sides
    assert sides is not None
    assert sides.plane == (0 if right else sides.width)
