"""A stream of uploads on phantoms, a fifth of them spoiled: does what is served ever get worse?

Two arms learn from the same stream: ours (screening, fine-tuning with replay, gate) and MONAI Label's rule (a new
random split each time, train on all from the published weights, publish the best epoch). Both are measured on hidden
phantoms whose labels are right. At the end ours is compared with training from scratch on all its labels.

    python tests/bench/bench_never_worse.py --out FOLDER [--uploads 60] [--per-training 4] [--hidden 20] [--seed 0]

Goes on where it was stopped. The phantoms are coarse and the network is small: the numbers are about the machinery.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msklabel.catalogue import load_catalogue
from msklabel.imaging import Scan
from msklabel.learn.cases import Case
from msklabel.learn.evaluate import CaseDice, case_dice, label_means, mean_dice
from msklabel.learn.fit import Recipe, fit
from msklabel.learn.gate import MARGIN_DICE
from msklabel.learn.scores import KeptScores
from msklabel.learn.selection import Selection
from msklabel.learn.split import RolesInFile
from msklabel.learn.update import Order, Update
from msklabel.learn.versions import Version, Versions
from msklabel.networks import Weights, loaded_network
from msklabel.predict.classical import ClassicalSegmenter
from msklabel.predict.engine import Engine
from msklabel.system import System
from msklabel_phantoms.write import generate

SHAPE, SPACING_MM, SLICE_MM = (64, 48, 12), 6.0, 6.0
KINDS = ("shifted", "sides swapped", "classes swapped", "half empty")
NETWORK = {"name": "dense_unet", "levels": 3, "layers_per_block": 1, "growth": 8, "first_features": 12}
TRAIN = {"batch": 4, "learning_rate": 5.0e-3, "epochs": 24, "crops_per_scan": 3}


@dataclass(frozen=True)
class Stream:
    """What is uploaded, in order, and how each label is spoiled, empty where it is right."""

    cases: list[Case]
    spoiled: list[str]


def small_system() -> System:
    """The demo profile, smaller still."""
    system = load_catalogue(names=["hip_tissue_ct"], profile="demo")["hip_tissue_ct"]
    data = system.model_dump(exclude_unset=True)
    data["train"] = {**data["train"], **TRAIN}
    patch = [SHAPE[0], SHAPE[1], 1]
    return System.model_validate(
        {**data, "spacing_mm": [SPACING_MM, SPACING_MM, None], "patch_voxels": patch, "network": NETWORK}
    )


def spoil(labels: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A label as a slip makes it."""
    if kind == "shifted":
        return np.roll(labels, int(rng.choice([-5, -4, 4, 5])), axis=int(rng.integers(2)))
    if kind == "sides swapped":
        return labels[::-1].copy()
    if kind == "half empty":
        half = labels.copy()
        half[: len(half) // 2] = 0
        return half
    one, other = rng.choice(np.unique(labels[labels > 0]), 2, replace=False)
    swapped = labels.copy()
    swapped[labels == one], swapped[labels == other] = other, one
    return swapped


def make_cases(seed: int, count: int, first: int = 0) -> list[Case]:
    """Phantoms with their true labels."""
    return [_case(f"s{seed}-{i:03d}", *_phantom(seed, i)) for i in range(first, first + count)]


def make_stream(seed: int, uploads: int) -> Stream:
    """Uploads of which a fifth is spoiled, each kind as often, at random places."""
    rng = np.random.default_rng([seed, 99])
    spoiled = [""] * uploads
    for number, place in enumerate(rng.permutation(uploads)[: uploads // 5]):
        spoiled[int(place)] = KINDS[number % len(KINDS)]
    cases = []
    for index, kind in enumerate(spoiled):
        scan, labels = _phantom(seed, index)
        cases.append(_case(f"s{seed}-{index:03d}", scan, spoil(labels, kind, rng) if kind else labels))
    return Stream(cases, spoiled)


def _phantom(seed: int, index: int) -> tuple[Scan, np.ndarray]:
    phantom = generate("hip_tissue_ct", seed, index, shape=SHAPE, spacing_mm=(SPACING_MM, SPACING_MM, SLICE_MM))
    return Scan(phantom.image, phantom.affine), phantom.labels


def _case(name: str, scan: Scan, labels: np.ndarray) -> Case:
    return Case(name, name, lambda: (scan, labels), label=hashlib.sha256(labels.tobytes()).hexdigest())


def ours(system: System, stream: Stream, per_training: int, folder: Path) -> Versions:
    """Our arm: one version for each batch of uploads."""
    versions = Versions(folder)
    update = Update(system, versions, RolesInFile(folder))
    for count in range(per_training, len(stream.cases) + 1, per_training):
        if len(versions.names(system.name)) >= count // per_training:
            continue
        order = Order(Recipe(system.train.epochs, seed=count))
        plan = update.plan(stream.cases[:count], order)
        run = folder / f"run{count}"
        version, verdict = update.store(plan, order, update.fit(plan, order, run))
        kinds = [k for c, k in zip(stream.cases[:count], stream.spoiled, strict=False) if c.label in plan.held]
        print(f"ours   {count:3d} labels: {version.name} {'; '.join(verdict.reasons)}; held {kinds}", flush=True)
    return versions


def stock(system: System, stream: Stream, per_training: int, folder: Path, seed: int) -> Versions:
    """MONAI Label's rule: shuffle, hold out a fifth, go on from the published weights, publish the best epoch."""
    versions = Versions(folder)
    for count in range(per_training, len(stream.cases) + 1, per_training):
        done = versions.names(system.name)
        if len(done) >= count // per_training:
            continue
        cases = [stream.cases[i] for i in np.random.default_rng([seed, count]).permutation(count)]
        held_out = max(1, round(0.2 * count))
        initial = versions.weights(system, done[-1])[0] if done else None
        chosen = Selection(cases[held_out:], [], cases[:held_out])
        fitted = fit(system, chosen, folder / f"run{count}", Recipe(system.train.epochs, seed=count), initial)
        version = versions.add(system, fitted.members, {"crops": fitted.crops, "labels": count, "passed": True})
        versions.publish(system.name, version.name)
        print(f"stock  {count:3d} labels: {version.name}", flush=True)
    return versions


def engine(system: System, weights: list[Weights]) -> Engine:
    return Engine(system, [loaded_network(system, member) for member in weights])


def hidden_dice(system: System, versions: Versions, hidden: list[Case]) -> dict[str, CaseDice]:
    """Dice of every version on the hidden cases."""
    kept = KeptScores(versions.root / "hidden", system)
    return {
        name: kept.measure(name, lambda name=name: engine(system, versions.weights(system, name)), hidden)
        for name in versions.names(system.name)
    }


def tally(versions: list[Version], dices: dict[str, CaseDice]) -> dict[str, Any]:
    """Each candidate against what was served before it, on the hidden cases."""
    served, losses = None, []
    counts = dict.fromkeys(("first", "better published", "better kept", "other published", "other kept"), 0)
    for version in versions:
        published = bool(version.metrics["passed"])
        if served is None:
            counts["first"] += published
        else:
            before, after = label_means(dices[served]), label_means(dices[version.name])
            loss = max(before[name] - after[name] for name in before)
            better = mean_dice(dices[version.name]) > mean_dice(dices[served]) and loss <= MARGIN_DICE
            counts[f"{'better' if better else 'other'} {'published' if published else 'kept'}"] += 1
            if published:
                losses.append(loss)
        served = version.name if published else served
    return {
        **counts,
        "worst label loss of a published version": round(max(losses, default=0.0), 4),
        "published that lost more than 0.01 of a label": sum(loss > MARGIN_DICE for loss in losses),
        "final mean Dice": round(mean_dice(dices[served]), 4) if served else None,
        "crops": sum(version.metrics["crops"] for version in versions),
    }


def run(folder: Path, uploads: int, per_training: int, hidden_count: int, seed: int) -> dict[str, Any]:
    """The whole comparison; writes ``result.json``."""
    started = time.process_time()
    system, stream, hidden = small_system(), make_stream(seed, uploads), make_cases(seed + 1000, hidden_count)
    result: dict[str, Any] = {"uploads": uploads, "spoiled": sum(map(bool, stream.spoiled)), "seed": seed}
    result["draft mean Dice"] = round(mean_dice(case_dice(ClassicalSegmenter(system), hidden)), 4)
    arms = {
        "ours": ours(system, stream, per_training, folder / "ours"),
        "stock": stock(system, stream, per_training, folder / "stock", seed),
    }
    for name, versions in arms.items():
        stored = [versions.get(system.name, version) for version in versions.names(system.name)]
        result[name] = tally(stored, hidden_dice(system, versions, hidden))
    last = arms["ours"].get(system.name, arms["ours"].names(system.name)[-1])
    by_label = {case.label: (case, kind) for case, kind in zip(stream.cases, stream.spoiled, strict=True)}
    held = [by_label[label][1] for label in last.metrics["held"]]
    result["held back"] = {"spoiled": sum(map(bool, held)), "right": sum(not kind for kind in held)}
    chosen = [[by_label[label][0] for label in last.metrics[key]] for key in ("training", "validation")]
    scratch = fit(
        system, Selection(chosen[0], [], chosen[1]), folder / "scratch", Recipe(system.train.epochs, seed=seed)
    )
    dice = mean_dice(case_dice(engine(system, scratch.members), hidden))
    stored = [arms["ours"].get(system.name, name).metrics for name in arms["ours"].names(system.name)]
    update = np.mean([metrics["crops"] for metrics in stored if metrics["fine_tuned"]] or [0])
    result["from scratch on all"] = {
        "mean Dice": round(dice, 4),
        "gap": round(dice - (result["ours"]["final mean Dice"] or 0), 4),
        "crops": scratch.crops,
        "share of its compute in one fine-tuning": round(float(update) / scratch.crops, 3),
    }
    result["cpu_seconds"] = round(time.process_time() - started)
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    for name, default in {"uploads": 60, "per-training": 4, "hidden": 20, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(run(options.out, options.uploads, options.per_training, options.hidden, options.seed), indent=1))


if __name__ == "__main__":
    main()
