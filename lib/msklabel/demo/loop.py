"""Round the loop: next scan, automatic segmentation, corrected label back, training, a better segmentation."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch

from msklabel.demo.server import running_server
from msklabel.demo.slicer import slicer_client
from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.read import read_labels, read_scan
from msklabel.imaging.write import write_labels
from msklabel.learn.cases import Case
from msklabel.learn.evaluate import CaseDice, case_dice, label_means, mean_dice
from msklabel.networks import build_network
from msklabel.predict.engine import Engine, dice
from msklabel.system import System
from msklabel_phantoms.write import write_phantoms

_HELD_OUT = 3
_TRAINING_SECONDS = 1800.0
Say = Callable[[str], None]


@dataclass
class Round:
    """What was measured after a number of submitted labels.

    Attributes:
        labels: Labels submitted so far.
        dice: Mean Dice over labels on the held-out phantoms.
        label_dice: The same for each label.
        version: Model version.
        training_seconds: Wall time of the round's training.
    """

    labels: int
    dice: float
    label_dice: dict[str, float]
    version: str | None = None
    training_seconds: float = 0.0


@dataclass
class Outcome:
    """A whole demo.

    Attributes:
        system: Name of the system.
        draft: The training-free model on the held-out phantoms, where the system has one.
        rounds: Fresh weights first, then one for each training, in order.
        changed_fraction: For each submitted label the share of labelled voxels that the annotator had to change.
        seed: Of the phantoms.
        slices: Drawn in each scan; 0 for all.
        epochs: Of each training.
        seconds: Wall time of it all.
        cpu_seconds: Processor time of it all, the server's and the trainings' included.
        pictures: Files of the held-out phantom shown: ``image``, ``truth``, ``before`` and ``after``.
    """

    system: str
    seed: int = 0
    slices: int = 0
    epochs: int = 0
    draft: Round | None = None
    rounds: list[Round] = field(default_factory=list)
    changed_fraction: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    pictures: dict[str, str] = field(default_factory=dict)


class Annotator:
    """Speaks to the server through 3D Slicer's client only.

    Args:
        system: The system to annotate for.
        folder: The demo's folder.
        address: The server's address.
        say: Takes a line for whoever watches.
        slices: How many slices of a scan to draw, those that the server names; 0 for all.
    """

    def __init__(self, system: System, folder: Path, address: str, say: Say, slices: int = 0) -> None:
        downloads = folder / "downloads"
        downloads.mkdir(exist_ok=True)
        self.system = system
        self.folder = folder
        self.address = address
        self.slices = slices
        self.truth = folder / "pool" / "truth"
        self.say = say
        self.client = slicer_client(address, downloads, "demo-annotator")
        self.models = self.client.info()["models"]

    def annotate_next(self) -> float:
        """Fetch the next scan, look at the automatic label, correct it and submit it.

        Returns:
            Share of the labelled voxels that had to be changed.
        """
        sample = self.client.next_sample("first", {})
        if not sample:
            raise UserError("the pool is empty: all phantoms are labelled")
        image = sample["id"]
        model = self._model()
        truth = self.truth / f"{image}.nii.gz"
        segments = [{"name": name, "idx": index} for name, index in self.system.label_indices.items()]
        params: dict[str, Any] = {"label_info": segments, "model": model or self.system.name}
        drawn = self._slices_to_draw(image)
        if drawn:
            params["annotated"] = {"axis": drawn.slice_axis, "slices": list(drawn.slices or ())}
            truth = self._only(drawn, truth)
        changed = 1.0
        if model:
            file, _ = self.client.infer(model, image, {"result_extension": ".nrrd", "result_dtype": "uint8"})
            draft, wanted = read_labels(file).array, read_labels(truth).array
            if drawn:
                draft, wanted = (array.take(drawn.slices or (), drawn.slice_axis) for array in (draft, wanted))
            changed = disagreement(draft, wanted)
        self.client.save_label(image, str(truth), "", params)
        where = f" of slices {', '.join(map(str, drawn.slices or ()))}" if drawn else ""
        self.say(f"{image}: {model or 'drawn by hand'}, {changed:.0%} of the voxels{where} corrected, submitted")
        return changed

    def _slices_to_draw(self, image: str) -> Annotated | None:
        """The slices that the server wants drawn; None for all."""
        if not self.slices:
            return None
        wanted = {"image": image, "k": str(self.slices), "system": self.system.name}
        answer = requests.get(f"{self.address}/msk/slices", params=wanted, timeout=60)
        answer.raise_for_status()
        plan = answer.json()
        return Annotated(slices=tuple(plan["indices"]), slice_axis=plan["axis"])

    def _only(self, drawn: Annotated, truth: Path) -> Path:
        """A file with the label of some slices and nothing in the others."""
        whole = read_labels(truth)
        empty = np.ones(whole.array.shape[drawn.slice_axis], bool)
        empty[list(drawn.slices or ())] = False
        array = np.moveaxis(whole.array.copy(), drawn.slice_axis, 0)
        array[empty] = 0
        file = self.folder / "downloads" / truth.name
        write_labels(file, replace(whole, array=np.moveaxis(array, 0, drawn.slice_axis)))
        return file

    def train(self, epochs: int) -> float:
        """Train and wait until it is done; returns seconds."""
        started = time.monotonic()
        shown = self._training()  # of the training before, until this one ends an epoch
        self.client.train_start(self.system.name, {"max_epochs": epochs})
        while self.client.train_status(check_if_running=True):
            stats = self._training()
            if stats != shown and stats.get("epoch"):
                shown = stats
                epoch, loss = stats["epoch"], stats["train"]["loss"]
                self.say(f"training: epoch {epoch} of {stats['total_epochs']}, loss {loss:.3f}")
            if time.monotonic() - started > _TRAINING_SECONDS:
                raise UserError(f"the training takes longer than {_TRAINING_SECONDS:.0f} s")
            time.sleep(1)
        status = self.client.train_status()
        if status["status"] != "DONE":
            raise UserError(f"the training ended as {status['status']}: {' '.join(status.get('details', [])[-3:])}")
        return time.monotonic() - started

    def _training(self) -> dict[str, Any]:
        stats: dict[str, Any] = self.client.info()["train_stats"][self.system.name]
        return stats

    def test(self, model: str, folder: Path, keep_first_as: Path | None = None) -> CaseDice:
        """Dice on the held-out phantoms, which reach the server as sessions, never as part of its pool."""
        result: CaseDice = {}
        for number, image in enumerate(sorted((folder / "images").glob("*.nii.gz"))):
            session = self.client.create_session(str(image))["session_id"]
            file, _ = self.client.infer(model, "", {"result_extension": ".nii.gz"}, session_id=session)
            predicted = read_labels(file).array
            truth = read_labels(folder / "truth" / image.name).array
            result[image.name] = {name: dice(predicted, truth, i) for name, i in self.system.label_indices.items()}
            if number == 0 and keep_first_as:
                shutil.copy(file, keep_first_as)
            self.client.remove_session(session)
        return result

    def _model(self) -> str | None:
        """The trained model where there is one, else the draft without training, else none."""
        if self.client.info()["models"][self.system.name]["version"]:
            return self.system.name
        draft = f"{self.system.name}_threshold"
        return draft if draft in self.models else None


def run_demo(
    system: System, folder: Path, labels_per_round: Sequence[int], epochs: int, seed: int, say: Say, slices: int = 0
) -> Outcome:
    """Run the demo from nothing.

    Args:
        system: A system that has phantoms, in the profile to train.
        folder: Cleared, then filled: phantoms, the server's state, the outcome.
        labels_per_round: Labels to submit before each training.
        epochs: Epochs of each training.
        seed: Of the phantoms.
        say: Takes a line for whoever watches.
        slices: How many slices of each scan to draw; 0 for all.

    Raises:
        UserError: If there are no phantoms for the system, or the server or a training fails.
    """
    started, cpu = time.monotonic(), _cpu_seconds()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say(f"generating {sum(labels_per_round)} phantoms to annotate and {_HELD_OUT} to test on")
    _generate(system.name, folder / "pool", sum(labels_per_round), seed)
    _generate(system.name, folder / "held_out", _HELD_OUT, seed + 1_000_000)
    torch.manual_seed(seed)
    untrained = case_dice(Engine(system, build_network(system)), _cases(folder / "held_out"))
    outcome = Outcome(
        system.name, seed, slices, epochs, rounds=[Round(0, mean_dice(untrained), label_means(untrained))]
    )
    conf = {"models": system.name, "profile": system.profile, "state": str(folder / "state"), "auto_train": "false"}
    first = sorted((folder / "held_out" / "images").iterdir())[0]
    outcome.pictures = {"image": str(first), "truth": str(folder / "held_out" / "truth" / first.name)}
    with running_server(folder / "pool" / "images", conf, folder / "server.log") as address:
        annotator = Annotator(system, folder, address, say, slices)
        if system.thresholds:
            dices = annotator.test(f"{system.name}_threshold", folder / "held_out", _kept(folder, outcome, "before"))
            outcome.draft = Round(0, mean_dice(dices), label_means(dices))
            say(f"draft without training: mean Dice {outcome.draft.dice:.3f} on held-out phantoms")
        for number, count in enumerate(labels_per_round, 1):
            outcome.changed_fraction += [annotator.annotate_next() for _ in range(count)]
            seconds = annotator.train(epochs)
            kept = None
            if number == len(labels_per_round):
                kept = _kept(folder, outcome, "after")
            elif number == 1 and "before" not in outcome.pictures:
                kept = _kept(folder, outcome, "before")
            outcome.rounds.append(_measure(annotator, folder, kept, len(outcome.changed_fraction), seconds))
            say(f"round {number}: mean Dice {outcome.rounds[-1].dice:.3f} after {outcome.rounds[-1].labels} labels")
    outcome.seconds, outcome.cpu_seconds = time.monotonic() - started, _cpu_seconds() - cpu
    (folder / "demo.json").write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")
    return outcome


def _measure(annotator: Annotator, folder: Path, kept: Path | None, labels: int, seconds: float) -> Round:
    name = annotator.system.name
    version: Any = annotator.client.info()["models"][name]["version"]
    draft = f"{name}_threshold" if version is None else name  # a first version that is worse than it is not served
    dices = annotator.test(draft, folder / "held_out", kept)
    return Round(labels, mean_dice(dices), label_means(dices), version, round(seconds, 1))


def _cases(folder: Path) -> list[Case]:
    def case(image: Path) -> Case:
        return Case(
            image.name, image.name, lambda: (read_scan(image), read_labels(folder / "truth" / image.name).array)
        )

    return [case(image) for image in sorted((folder / "images").glob("*.nii.gz"))]


def _kept(folder: Path, outcome: Outcome, what: str) -> Path:
    outcome.pictures[what] = str(folder / f"{what}.nii.gz")
    return folder / f"{what}.nii.gz"


def _generate(system: str, folder: Path, count: int, seed: int) -> None:
    try:
        for _ in write_phantoms(system, folder, count=count, seed=seed):
            pass
    except ValueError as error:
        raise UserError(str(error)) from error


def _cpu_seconds() -> float:
    """Processor time of this process and of all that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def disagreement(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of voxels, among those that either labels, on which the two differ."""
    return float((predicted != truth).sum() / max(1, ((predicted > 0) | (truth > 0)).sum()))
