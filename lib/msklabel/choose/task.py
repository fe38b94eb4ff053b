"""MONAI Label's Strategy and ScoringMethod: which scan is next, and how good automatic labels were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from msklabel.imaging.read import read_labels
from msklabel.predict.engine import dice
from msklabel.store.datastore import MskDatastore


class PickStrategy(Strategy):
    """Serve one of the scans without a final label.

    Args:
        description: For the client's list.
        order: Puts the identifiers, which come sorted, in the order in which they are wanted; read as far as needed.
    """

    def __init__(self, description: str, order: Callable[[Sequence[str]], Iterable[str]]) -> None:
        super().__init__(description)
        self.order = order

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, str] | None:
        """Choose; ``label_tag`` and ``labels`` of the request narrow what counts as labelled.

        Returns:
            ``{"id": ...}``, or None where all is labelled or with others; a scan that cannot be read is passed over.
        """
        kind = request.get("label_tag"), request.get("labels")
        order = self.order(sorted(datastore.get_unlabeled_images(*kind)))
        if isinstance(datastore, MskDatastore):
            chosen = datastore.take_next(order, request.get("client_id"), *kind)
        else:  # MONAI Label's own, which reserves nothing
            chosen = next(iter(order), None)
        return {"id": chosen} if chosen is not None else None


def strategies() -> dict[str, Strategy]:
    """All strategies by name."""
    return {
        "random": PickStrategy("Any scan without a final label, by chance", shuffled),
        "first": PickStrategy("The first scan without a final label, by name", lambda names: names),
    }


def shuffled(names: Sequence[str]) -> Iterator[str]:
    """The names by chance, one after the other, so that a few of very many cost little."""
    left = list(names)
    while left:
        place = random.randrange(len(left))
        left[place], left[-1] = left[-1], left[place]
        yield left.pop()


class DiceScoring(ScoringMethod):
    """Dice of the automatic label against the final one of each scan, stored with the scan.

    The mean is over the labels that either has, so the value does not depend on label indices or on the background.
    """

    def __init__(self) -> None:
        super().__init__("Mean Dice over labels, automatic against final label of each scan")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, float]:
        """Score all scans that have both labels; ``y`` and ``y_pred`` of the request name other tags.

        Returns:
            Mean Dice for each scan.
        """
        truth_tag = request.get("y") or DefaultLabelTag.FINAL.value
        predicted_tag = request.get("y_pred") or DefaultLabelTag.ORIGINAL.value
        scores: dict[str, float] = {}
        for image in sorted(datastore.get_labeled_images(truth_tag)):
            tags = datastore.get_labels_by_image_id(image)
            if predicted_tag not in tags:
                continue
            truth, predicted = (
                read_labels(datastore.get_label_uri(tags[tag], tag)).array for tag in (truth_tag, predicted_tag)
            )
            indices = np.union1d(np.unique(truth), np.unique(predicted))
            each = [dice(predicted, truth, int(i)) for i in indices if i]
            if each:
                scores[image] = round(float(np.mean(each)), 4)
                datastore.update_image_info(image, {"scores": {"dice": scores[image]}})
        return scores
