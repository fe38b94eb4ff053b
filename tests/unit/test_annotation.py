"""What nobody looked at counts for nothing: in label maps, losses, crops and metrics."""

from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from test_learn import RECIPE
from test_preprocess import body_in_air, make_system

from msklabel.errors import UserError
from msklabel.imaging import Scan
from msklabel.imaging.annotated import Annotated
from msklabel.learn.annotation import UNKNOWN, keep_drawn_slices, known_classes, known_labels
from msklabel.learn.cases import Case, prepare_case
from msklabel.learn.evaluate import label_dice
from msklabel.learn.losses import build_loss, cross_entropy, soft_dice
from msklabel.learn.samples import Samples
from msklabel.learn.trainer import Trainer
from msklabel.pipeline.resample import AxisMap
from msklabel.pipeline.sides import Sides

VOLUME = {
    "dimensions": 3,
    "patch_voxels": [16, 16, 4],
    "spacing_mm": [1.0, 1.0, 1.0],
    "network": {"name": "plain_unet", "features": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]]},
}


def drawn(*slices: int, shape: tuple[int, int, int] = (4, 3, 5)) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[1, 1, list(slices)] = 2
    return labels


def case_of(annotated: Annotated, labels_in: tuple[int, ...] | None = None) -> Case:
    hu, labels = body_in_air((30, 28, 12))
    if labels_in is not None:
        labels[..., [z for z in range(12) if z not in labels_in]] = 0
    return Case("scan", "patient", lambda: (Scan(hu[None], np.eye(4)), labels), annotated)


def scores_of(*probabilities: tuple[float, float, float]) -> torch.Tensor:
    """Scores (1, 3, n) of voxels in a row with these class probabilities."""
    return torch.tensor(probabilities).log().T[None]


def test_only_the_slices_that_were_looked_at_are_known() -> None:
    known = known_labels(make_system(**VOLUME), drawn(0, 2), Annotated(slices=(0, 3)))
    assert (known[..., 0] == drawn(0)[..., 0]).all() and not known[..., 3].any()
    assert (known[..., [1, 2, 4]] == UNKNOWN).all()
    sagittal = known_labels(make_system(**VOLUME), drawn(0), Annotated(slices=(1,), slice_axis=0))
    assert sagittal[1, 1, 0] == 2 and (sagittal[[0, 2, 3]] == UNKNOWN).all()


def test_in_2d_an_empty_slice_is_unknown_unless_the_annotator_says_otherwise() -> None:
    assert (known_labels(make_system(), drawn(1), Annotated())[..., [0, 2]] == UNKNOWN).all()
    assert not known_labels(make_system(), drawn(1), Annotated(slices=(1, 2)))[..., 2].any()
    assert not (known_labels(make_system(**VOLUME), drawn(1), Annotated()) == UNKNOWN).any()


def test_what_is_left_over_of_other_classes_is_not_taken_for_drawn() -> None:
    annotated = Annotated(classes=("dense",))
    assert known_classes(make_system(), annotated).tolist() == [True, True, False]
    assert not (known_labels(make_system(**VOLUME), drawn(1), annotated) == 2).any()


@pytest.mark.parametrize("annotated", [Annotated(classes=("bone",)), Annotated(slices=(5,)), Annotated(slices=(-1,))])
def test_what_the_scan_or_the_system_does_not_have_is_refused(annotated: Annotated) -> None:
    with pytest.raises(UserError, match="annotated"):
        known_labels(make_system(), drawn(1), annotated)


def test_the_same_file_is_another_label_where_it_speaks_of_something_else() -> None:
    said = [
        Annotated(),
        Annotated(slices=(1, 2)),
        Annotated(slices=(1, 2), slice_axis=0),
        Annotated(slices=(1,)),
        Annotated(classes=("fat", "bone")),
        Annotated(classes=()),
    ]
    assert said[0].key("ab") == "ab" and len({one.key("ab") for one in said}) == len(said)
    assert Annotated(classes=("bone", "fat"), slice_axis=0).key("ab") == said[4].key("ab")
    assert said[1].key("cd") != said[1].key("ab")


def test_a_coarser_grid_keeps_sparse_slices() -> None:
    labels = np.full((2, 2, 12), UNKNOWN, np.uint8)
    labels[..., [0, 5, 10]] = 1
    along = AxisMap(2, 2), AxisMap(2, 2), AxisMap(12, 4)
    kept = keep_drawn_slices(labels, along)  # cells of three slices; the middles 1, 4, 7 and 10 are looked at
    assert (kept[0, 0, [1, 4, 7, 10]] == [1, 1, UNKNOWN, 1]).all()
    along = AxisMap(2, 2), AxisMap(2, 2), AxisMap(12, 5, from_first=3.0)
    kept = keep_drawn_slices(labels, along)  # looked at are 0, 3, 6, 9 and the last
    assert (kept[0, 0, [0, 3, 6, 9, 11]] == [1, UNKNOWN, 1, 1, UNKNOWN]).all()


def test_cross_entropy_passes_over_unknown_voxels() -> None:
    scores = scores_of((0.5, 0.25, 0.25), (0.1, 0.8, 0.1), (0.01, 0.01, 0.98))
    labels = torch.tensor([[0, 1, UNKNOWN]])
    assert float(cross_entropy(scores, labels)) == pytest.approx((-log(0.5) - log(0.8)) / 2, rel=1e-5)
    nothing = torch.full((1, 3), UNKNOWN)
    assert float(cross_entropy(scores, nothing)) == 0 == float(soft_dice(scores, nothing))


def test_unlabelled_voxels_may_be_of_any_class_that_was_not_looked_for() -> None:
    scores = scores_of((0.2, 0.1, 0.7), (0.1, 0.8, 0.1))
    known = torch.tensor([[True, True, False]])
    wanted = (-log(0.2 + 0.7) - log(0.8)) / 2
    assert float(cross_entropy(scores, torch.tensor([[0, 1]]), known)) == pytest.approx(wanted, rel=1e-5)


def test_soft_dice_counts_classes_where_they_were_looked_for() -> None:
    scores = scores_of((0.2, 0.1, 0.7), (0.1, 0.8, 0.1), (0.3, 0.3, 0.4))
    labels = torch.tensor([[0, 1, UNKNOWN]])
    known = torch.tensor([[True, True, False]])
    wanted = 1 - 2 * 0.8 / (0.1 + 0.8 + 1)  # of class 1 alone, on the first two voxels
    assert float(soft_dice(scores, labels, known)) == pytest.approx(wanted, rel=1e-4)


def test_soft_dice_is_monais_where_all_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(2, 4, 9, 8, generator=generator), torch.randint(0, 4, (2, 9, 8), generator=generator)
    theirs = DiceLoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)
    assert float(soft_dice(scores, labels)) == pytest.approx(float(theirs(scores, labels[:, None])), abs=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "dice_cross_entropy"])
def test_no_gradient_comes_from_what_is_unknown(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 3, 8, 8, generator=generator, requires_grad=True)
    labels = torch.randint(0, 2, (1, 8, 8), generator=generator)
    labels[:, :, 4:] = UNKNOWN
    known = torch.tensor([[True, True, False]])
    levels = [scores, torch.nn.functional.avg_pool2d(scores, 2)]
    build_loss(name)(levels, labels, known).backward()
    gradient = scores.grad
    assert gradient is not None and not gradient[..., 4:].any() and gradient[..., :4].any()


def test_crops_lie_where_something_is_known() -> None:
    system = make_system(**VOLUME, train={**RECIPE, "crops_per_scan": 40, "foreground_fraction": 0.0})
    case = prepare_case(system, case_of(Annotated(slices=(9,))))
    batches = list(Samples(system, [case], seed=0).epoch(0))
    assert len(batches) == 40
    assert all((batch.labels != UNKNOWN).any() for batch in batches)
    assert len({int((batch.labels != UNKNOWN).any(1).any(1).int().argmax()) for batch in batches}) > 1


def test_in_2d_only_annotated_slices_are_drawn_even_where_they_are_empty() -> None:
    system = make_system()
    case = prepare_case(system, case_of(Annotated(slices=(0, 5))))
    batches = list(Samples(system, [case], seed=0).epoch(0))
    assert sum(len(batch.image) for batch in batches) == 2
    assert not any((batch.labels == UNKNOWN).any() for batch in batches)


def test_padding_of_an_unknown_slice_is_unknown_too() -> None:
    system = make_system(patch_voxels=[64, 64, 1])
    (part,) = Samples(system, [prepare_case(system, case_of(Annotated(slices=(5,))))], seed=0).parts
    assert part.labels.shape[:2] == (64, 64)
    assert (part.labels[..., 4] == UNKNOWN).all() and not (part.labels[..., 5] == UNKNOWN).any()


@pytest.mark.parametrize("volume", [{}, VOLUME])
def test_the_narrower_side_is_widened_by_what_is_unknown_where_the_scan_is(volume: dict[str, object]) -> None:
    system = make_system(laterality="mirror_halves", **volume)
    hu, labels = body_in_air((60, 20, 12))
    case = Case("scan", "patient", lambda: (Scan(hu[None], np.eye(4)), labels), Annotated(slices=(4, 7)))
    prepared = prepare_case(system, case)
    width = len(prepared.labels)
    askew = replace(prepared, prepared=replace(prepared.prepared, sides=Sides(width // 2 - 4, width)))
    samples = Samples(system, [askew], seed=0)
    assert [list(part.slices()) for part in samples.parts] == [[4, 7], [4, 7]]


def test_dice_is_measured_on_what_is_known() -> None:
    system = make_system(**VOLUME)
    truth = np.array([1, 1, 2, 0, UNKNOWN], np.uint8).reshape(5, 1, 1)
    predicted = np.array([1, 0, 2, 0, 1], np.uint8).reshape(5, 1, 1)
    assert label_dice(system, predicted, truth, Annotated()) == {"dense": pytest.approx(2 / 3), "soft": 1.0}
    partial = label_dice(system, predicted, truth, Annotated(classes=("soft",)))
    assert np.isnan(partial["dense"]) and partial["soft"] == 1.0


def test_a_network_learns_the_same_from_a_scan_whose_other_slices_are_wrong_but_unknown(tmp_path: Path) -> None:
    system = make_system(train=RECIPE)
    hu, labels = body_in_air((30, 28, 12))
    spoiled = labels.copy()
    spoiled[..., 6:] = 1
    annotated = Annotated(slices=(2, 3, 4, 5))
    weights = [
        Trainer(system, tmp_path / name, epochs=1)(
            [Case(name, name, lambda truth=truth: (Scan(hu[None], np.eye(4)), truth), annotated)]
        )
        for name, truth in (("right", labels), ("spoiled", spoiled))
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
