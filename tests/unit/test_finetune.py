"""Fine-tuning: replay, warm-up, the moving average, and what goes wrong on the way."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_annotation import VOLUME
from test_learn import RECIPE, make_case
from test_preprocess import make_system
from torch import distributed, multiprocessing, nn

from msklabel.errors import UserError
from msklabel.learn import together
from msklabel.learn.average import MovingAverage
from msklabel.learn.cases import Case, prepare_case
from msklabel.learn.group import DistributedGroup, Group
from msklabel.learn.optimise import build_optimizer, finetune_schedule
from msklabel.learn.prepared_cache import PreparedCache
from msklabel.learn.replay import Item, balanced, replayed
from msklabel.learn.samples import Samples
from msklabel.learn.selection import select
from msklabel.learn.split import TRAIN, VALIDATION
from msklabel.learn.together import train_together
from msklabel.learn.trainer import Stopped, Trainer
from msklabel.networks import weights_of
from msklabel.sections import Finetune

PLAIN = {"network": {"name": "plain_unet", "features": [4, 8], "strides": [[1, 1], [2, 2]]}}


def case_of(name: str, patient: str = "", label: str = "") -> Case:
    return Case(name, patient or name, make_case(0).load, label=label or name)


def test_replay_is_at_least_half_and_even_over_sites_and_labels() -> None:
    assert [replayed(10, share) for share in (0.5, 0.75, 0.8)] == [10, 30, 40]
    items = [Item("big", frozenset({1, 2}))] * 90 + [Item("big", frozenset({3}))] + [Item("small", frozenset({1}))] * 2
    drawn = [items[i] for i in balanced(items, 6000, np.random.default_rng(0))]
    assert np.mean([item.site == "small" for item in drawn]) == pytest.approx(1 / 2, abs=0.03)
    rare = [item.classes == {3} for item in drawn if item.site == "big"]
    assert np.mean(rare) == pytest.approx(1 / 3, abs=0.03)
    assert balanced([], 5, np.random.default_rng(0)) == []


def test_an_epoch_of_fine_tuning_shows_each_new_slice_once_and_as_many_old_ones() -> None:
    system = make_system()
    new, old = prepare_case(system, make_case(0)), [prepare_case(system, make_case(i)) for i in (1, 2, 3)]
    alone, both = Samples(system, [new], 0), Samples(system, [new], 0, old, 0.5)
    assert sum(len(b.image) for b in both.epoch(0)) == 2 * sum(len(b.image) for b in alone.epoch(0))


def test_labels_are_sorted_into_new_older_and_validation() -> None:
    system = make_system()
    cases = [case_of(name) for name in "abcdefg"]
    roles = {**dict.fromkeys("abcdefg", TRAIN), "g": VALIDATION}
    few = select(system, cases, roles, seen={"a", "b", "c"}, finetune=True)
    assert (len(few.training), few.older, [c.id for c in few.validation]) == (6, [], ["g"])
    many = select(system, cases, roles, seen={"a", "b", "c", "d"}, finetune=True)
    assert ([c.id for c in many.training], len(many.older)) == (["e", "f"], 4)
    assert not select(system, cases, roles, seen={"a", "b", "c", "d"}, finetune=False).older


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer([weight], make_system().train, 0.5)
    schedule = finetune_schedule(optimizer, Finetune(warmup_steps=3), 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"] / 0.01)
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5]) and max(rates) <= 0.5
    assert rates[3:] == sorted(rates[3:], reverse=True) and rates[-1] < 0.1
    assert optimizer.param_groups[0]["lr"] == 0


def test_the_moving_average_is_what_it_is_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = MovingAverage(network, 0.9)
    nn.init.ones_(network.weight)
    average.update(network)  # keeps (1 + 1) / (10 + 1)
    assert float(average.network.weight) == pytest.approx(9 / 11)
    for _ in range(200):
        average.update(network)
    assert float(average.network.weight) == pytest.approx(1, abs=1e-4)


def test_fine_tuning_stops_and_goes_on_where_it_was(tmp_path: Path) -> None:
    system = make_system(train={**RECIPE, "epochs": 8})
    start = Trainer(system, tmp_path / "start", epochs=1)([make_case(0)])
    new, old = [make_case(1)], [make_case(0), make_case(2)]
    whole = Trainer(system, tmp_path / "whole", start)(new, older=old)
    stopped = Trainer(system, tmp_path / "parts", start)
    with pytest.raises(Stopped):
        stopped(new, older=old, should_stop=lambda: stopped.state.epoch == 2)
    reports: list[int] = []
    again = Trainer(system, tmp_path / "parts", start)(new, report=lambda r: reports.append(r.epoch), older=old)
    assert reports == [3, 4]  # half of the recipe's epochs
    assert all(torch.allclose(whole[name].float(), again[name].float(), atol=1e-5) for name in whole)
    assert any(not torch.equal(whole[name], start[name]) for name in whole)


class Crowded(nn.Module):
    """A network on a GPU that has room for so many crops."""

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room = network, room

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(x)


def test_a_full_gpu_gets_smaller_pieces_and_the_same_gradients(tmp_path: Path) -> None:
    recipe = {**RECIPE, "batch": 4, "optimizer": "sgd", "learning_rate": 0.1, "mixed_precision": False}
    system = make_system(**PLAIN, train=recipe)
    roomy, tight = (Trainer(system, tmp_path / name, epochs=1, seed=3) for name in ("roomy", "tight"))
    tight.network = Crowded(tight.network, room=1)
    expected, got = roomy([make_case(0)]), tight([make_case(0)])
    assert tight.together == 1
    assert all(torch.allclose(expected[name], got[f"network.{name}"], atol=1e-5) for name in expected)
    hopeless = Trainer(system, tmp_path / "hopeless", epochs=1)
    hopeless.network = Crowded(hopeless.network, room=0)
    with pytest.raises(UserError, match="does not suffice for one crop"):
        hopeless([make_case(0)])


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    recipe = {**RECIPE, "batch": 2, "optimizer": "sgd", "learning_rate": 0.1, "mixed_precision": False}
    system = make_system(**PLAIN, train=recipe)
    cases, seen = [make_case(0), make_case(1)], []
    alone = Trainer(system, tmp_path / "alone", epochs=2, seed=3, device="cpu")(cases)
    weights, took = train_together(system, tmp_path / "both", ("cpu", "cpu"), (cases, [], []), None, 2, 3, seen.append)
    assert [report.epoch for report in seen] == [1, 2]
    assert took["crops"] > 0
    assert all(torch.allclose(alone[name], weights[name], atol=1e-5) for name in alone)


def _train_beside(rank: int, folder: Path, port: int) -> None:
    """One of two processes: what it ends with goes to a file."""
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    system = make_system(train={**RECIPE, "batch": 2})
    trainer = Trainer(system, folder, device="cpu", epochs=1, group=DistributedGroup())
    trainer([make_case(0), make_case(1)], [make_case(2)])
    torch.save([weights_of(trainer.network), trainer.state.best_loss], folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_processes_agree_on_statistics_of_batch_norm_and_on_the_validation(tmp_path: Path) -> None:
    multiprocessing.spawn(_train_beside, (tmp_path, together._free_port()), nprocs=2)
    (first, its_loss), (second, other_loss) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert any("running_mean" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert its_loss == other_loss


class Following(Group):
    """A process beside a first one, whose every word is 0: no wish to stop, no Dice, and a loss that never falls."""

    rank = 1

    def from_first(self, value: float, device: torch.device) -> float:
        return 0.0


def test_the_first_process_says_when_all_stop(tmp_path: Path) -> None:
    trainer = Trainer(make_system(train={**RECIPE, "stop_epochs": 2}), tmp_path, epochs=9, group=Following())
    trainer([make_case(0)], [make_case(1)], should_stop=lambda: True)
    assert trainer.state.epoch == 3
    assert (trainer.state.best_dice, trainer.state.best_loss) == (0, 0)


def _one_fails(rank: int, job: Any, said: Any, stop: Any) -> None:
    if rank:
        raise RuntimeError("fallen off the bus")
    time.sleep(600)  # as one that waits for the others


def test_all_end_as_soon_as_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_work", _one_fails)
    started = time.monotonic()
    with pytest.raises(UserError, match="the training process on cpu failed: RuntimeError: fallen off the bus"):
        train_together(make_system(), tmp_path, ("cpu", "cpu"), ([make_case(0)], [], []), None, 1, 0)
    assert time.monotonic() - started < 120


@pytest.mark.parametrize(("crops", "expected"), [(1, [1, 1, 1]), (2, [1, 1, 1]), (4, [2, 1, 1])])
def test_no_batch_is_left_out_because_it_is_small(crops: int, expected: list[int]) -> None:
    system = make_system(train={**RECIPE, "batch": 4})
    case = prepare_case(system, make_case(0, left_out=tuple(range(1 + crops, 6))))
    samples = Samples(system, [case], 0)
    shares = [[len(batch.image) for batch in samples.epoch(0, rank, 3)] for rank in range(3)]
    assert shares == [[share] for share in expected]
    assert samples.steps() == 1


def test_prepared_scans_are_kept_and_the_oldest_go_first(tmp_path: Path) -> None:
    system, reads = make_system(**VOLUME), []

    def kept(number: int) -> Case:
        load = make_case(number).load

        def counted() -> tuple:
            reads.append(number)
            return load()

        return Case(str(number), str(number), counted, label=f"label{number}", image=f"image{number}")

    cache = PreparedCache(tmp_path, 10**9)
    first, again = cache(system, kept(0)), cache(system, kept(0))
    assert reads == [0]
    assert torch.equal(first.prepared.image, again.prepared.image) and torch.equal(first.labels, again.labels)
    assert first.prepared.grid == again.prepared.grid and torch.equal(first.known, again.known)
    os.utime(oldest := next(tmp_path.iterdir()), (1, 1))  # the next come within a tick of the file system's clock
    size = oldest.stat().st_size
    small = PreparedCache(tmp_path, 2 * size + size // 2)
    for number in (1, 2):
        small(system, kept(number))
    assert len(list(tmp_path.iterdir())) == 2
    small(system, kept(2))
    small(system, kept(0))
    assert reads == [0, 1, 2, 0]
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    assert torch.equal(small(system, kept(0)).labels, first.labels)
    left, gone = tmp_path / ".17-killed.safetensors", tmp_path / "gone.safetensors"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    gone.symlink_to(tmp_path / "nowhere")  # as a file that another training removes while this one looks
    small(system, kept(3))
    assert not left.exists() and reads == [0, 1, 2, 0, 0, 3]
