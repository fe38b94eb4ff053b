"""The summary of a prediction: what the pure scores say, small, and with its place in the scan."""

import numpy as np
import pytest
import torch
from test_engine import ByIntensity
from test_preprocess import AFFINES, body_in_air, make_system
from torch import nn

from msklabel.catalogue import load_catalogue
from msklabel.choose import scores
from msklabel.choose.members import Embedding, dropout_on, mirrored
from msklabel.choose.reduce import Reducer
from msklabel.choose.summarise import Summarise
from msklabel.choose.summary import MOST_BYTES, Slices, Summary, entry_step, from_bytes, to_bytes
from msklabel.errors import UserError
from msklabel.imaging import Scan
from msklabel.networks import bottleneck_of, build_network
from msklabel.pipeline.preprocess import Preprocess
from msklabel.predict.engine import Engine
from msklabel.system import ConfigError

SYSTEMS = load_catalogue(profile="demo")


class Features(ByIntensity):
    """Says what it sees, and declares its input as its deepest features; unsure where the intensity is in between."""

    def __init__(self, break_at: float = 9.0) -> None:
        super().__init__()
        self.deep = nn.Identity()
        self.break_at = break_at
        self.bottleneck = "deep"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = super().forward(self.deep(x))
        return torch.where(x > self.break_at, torch.nan, values)


def scan(shape: tuple[int, int, int] = (44, 38, 12), noise: float = 0, affine: np.ndarray = AFFINES["RAS"]) -> Scan:
    hu, _ = body_in_air(shape)
    return Scan((hu + noise * np.random.default_rng(0).normal(size=shape)).astype(np.float32)[None], affine)


@pytest.mark.parametrize("flips", [(), (0,), (0, 1)])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_summary_says_what_the_pure_scores_say(flips: tuple[int, ...], dimensions: int) -> None:
    changes = {} if dimensions == 2 else {"dimensions": 3, "patch_voxels": [16, 16, 8], "network": {"name": "vnet"}}
    system = make_system(spacing_mm=[None] * 3, choose={"flip_axes": flips}, **changes)
    engine, given = Engine(system, Features()), scan(noise=60)
    _, summary = Summarise(engine, "v1")(given)
    prepared = engine.preprocess(given)
    members = [engine.scores(prepared)]
    members += [engine.scores(mirrored(prepared, axis)).flip(axis + 1) for axis in flips]
    probabilities = torch.stack(members).softmax(1)
    seen = (members[0][0] != 1) | (members[0][1] != 0)
    for member in probabilities:
        member[:, ~seen] = torch.tensor([1.0, 0, 0])[:, None]
    assert summary.members == ("network 0", *(f"flip {axis}" for axis in flips))
    np.testing.assert_allclose(summary.class_entropy, scores.class_entropy(probabilities), atol=2e-3)
    np.testing.assert_allclose(summary.class_dice, scores.class_agreement(probabilities), atol=2e-3)
    if flips:
        np.testing.assert_allclose(summary.information, scores.class_information(probabilities), atol=2e-3)
    assert 0 < summary.values["uncertain"] < 1


def test_volumes_and_areas_are_those_of_the_labels() -> None:
    given = scan()
    segmentation, summary = Summarise(Engine(make_system(spacing_mm=[None] * 3), Features()), "v1")(given)
    voxel_cm3 = np.prod(given.spacing_mm) / 1000
    counts = [(segmentation.labels.array == index).sum() for index in (1, 2)]
    np.testing.assert_allclose(summary.volume_cm3[0], np.array(counts) * voxel_cm3, rtol=1e-6)
    thickness_cm = given.spacing_mm[2] / 10
    np.testing.assert_allclose(summary.area_cm2.sum(axis=1) * thickness_cm, summary.volume_cm3[0], rtol=0.25)


@pytest.mark.parametrize("name", AFFINES)
def test_entries_point_at_the_slices_of_the_scan(name: str) -> None:
    """A doubt in one native slice is found at that slice, however the scan is stored."""
    affine, shape = AFFINES[name], (40, 36, 30)
    system = make_system(spacing_mm=[None] * 3)
    axis = Summarise(Engine(system, Features()), "v")(Scan(body_in_air(shape)[0][None], affine))[1].slices.axis
    hu, _ = body_in_air(shape)
    doubtful = np.moveaxis(hu, axis, 0)
    doubtful[17][doubtful[17] == 50] = 250  # between the two labels
    _, summary = Summarise(Engine(system, Features()), "v")(Scan(hu[None], affine))
    entry = int(np.argmax(summary.uncertain_cm2.sum(axis=0)))
    assert summary.slices.to_native(np.array([entry])).tolist() == [17]
    assert summary.slices.to_entry(np.array([17]), summary.area_cm2.shape[1]).tolist() == [entry]


def test_it_comes_back_from_bytes_and_stays_small() -> None:
    rng = np.random.default_rng(0)
    step = entry_step(30, 900)
    entries = -(-900 // step)
    large = Summary(
        model_version="v7",
        members=tuple(f"network {n}" for n in range(8)),
        uncertain_cm2=rng.random((30, entries)),
        area_cm2=rng.random((30, entries)) * 400,
        volume_cm3=rng.random((2, 30)) * 1e4,
        agreement=rng.random((28, 30)),
        expected_dice=rng.random(30),
        information=rng.random(30),
        embedding=rng.random(1024),
        slices=Slices(2, True, 900, 900, 3, step),
    )
    data = to_bytes(large)
    assert len(data) <= MOST_BYTES
    again = from_bytes(data)
    assert (again.model_version, again.members, again.slices) == (large.model_version, large.members, large.slices)
    np.testing.assert_allclose(again.class_entropy, large.class_entropy, rtol=2e-3)
    np.testing.assert_allclose(again.volume_cm3, large.volume_cm3, rtol=1e-6)
    with pytest.raises(UserError, match="score the scan again"):
        from_bytes(data[:100])


def test_a_network_that_gives_no_numbers_is_flagged() -> None:
    _, summary = Summarise(Engine(make_system(), Features(break_at=0.9)), "v1")(scan())
    assert not summary.finite
    assert summary.values == {"finite": 0.0}
    assert not from_bytes(to_bytes(summary)).finite


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_network_says_where_its_deepest_features_are(name: str) -> None:
    system = SYSTEMS[name]
    network = build_network(system).eval()
    assert bottleneck_of(network) is not network
    with Embedding(network) as embedding, torch.inference_mode():
        for _ in range(2):
            network(torch.rand(1, len(system.channels), *system.patch_voxels[: system.dimensions]))
    assert embedding.vector.shape[0] >= 16
    assert float(embedding.vector.std()) > 0
    assert not network._forward_hooks


def test_only_dropout_is_switched_on() -> None:
    network = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 2)).eval()
    x = torch.rand(3, 4)
    plain = network(x)
    with dropout_on(network, 1):
        assert [module.training for module in network] == [False, False, True, False]
        first = network(x)
    with dropout_on(network, 1):
        assert torch.equal(network(x), first)
    with dropout_on(network, 2):
        assert not torch.equal(network(x), first)
    assert not torch.equal(first, plain)
    assert torch.equal(network(x), plain)


def test_a_network_without_dropout_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"choose\.dropout_passes: the network has no dropout"):
        Summarise(Engine(make_system(choose={"dropout_passes": 2}), Features()), "v")


def test_both_sides_that_are_seen_as_right_ones_cannot_be_flipped() -> None:
    with pytest.raises(ValueError, match="flip_axes"):
        make_system(laterality="mirror_halves", choose={"flip_axes": [0]})


def test_members_of_all_kinds_are_asked() -> None:
    system = make_system(choose={"flip_axes": [1], "earlier_versions": 1}, spacing_mm=[None] * 3)
    engine = Engine(system, [Features(), Features()])
    _, summary = Summarise(engine, "v2", [Features(), Features()])(scan())
    assert summary.members == ("network 0", "network 1", "flip 1", "flip 1", "earlier 0")
    assert summary.agreement.shape == (10, 2)
    np.testing.assert_allclose(summary.agreement, 1)


def test_volumes_are_given_for_each_side() -> None:
    system = make_system(laterality="mirror_halves", spacing_mm=[None] * 3)
    hu, _ = body_in_air((60, 24, 8))
    hu[:30][hu[:30] == 600] = 50  # the dense core on one side only
    _, summary = Summarise(Engine(system, Features()), "v")(Scan(hu[None], np.eye(4)))
    assert summary.volume_cm3.shape == (2, 2)
    assert summary.volume_cm3[0, 0] == 0
    assert summary.volume_cm3[1, 0] > 0


def test_a_missing_member_is_not_overlooked() -> None:
    reducer = Reducer(2)
    reducer.add(torch.rand(3, 4, 4, 2))
    with pytest.raises(RuntimeError, match="1 of 2"):
        _ = reducer.sums


def test_preparing_is_left_as_it_was() -> None:
    prepared = Preprocess(make_system())(scan())
    twice = mirrored(mirrored(prepared, 0), 0)
    assert torch.equal(twice.image, prepared.image)
