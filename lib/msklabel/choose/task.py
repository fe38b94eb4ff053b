"""MONAI Label's Strategy and ScoringMethod: which scan is next, and how good automatic labels were."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from msklabel.choose.chooser import Chooser, ServingVersions, Wanted
from msklabel.choose.pool import Pool
from msklabel.choose.strategies import Ranking
from msklabel.errors import UserError
from msklabel.imaging.geometry import closest_axes
from msklabel.imaging.read import read_labels
from msklabel.learn.annotation import known_labels
from msklabel.learn.evaluate import label_dice
from msklabel.store.annotation import annotated_of
from msklabel.store.core import Store
from msklabel.store.datastore import MskDatastore
from msklabel.store.names import checked_tag
from msklabel.store.schema import LabelVersion

if TYPE_CHECKING:
    from msklabel.choose.rescore import WeightStore
    from msklabel.predict.selection import Selection

DEFAULT = "auto"
_DESCRIPTIONS = {
    "auto": "What helps most now: typical scans at first, then uncertain ones, label by label, site by site",
    "random": "Any scan without a final label, by chance",
    "first": "The first scan without a final label, by name",
    "cold_start": "Typical of the scans left and unlike those taken; needs no trained model",
    "uncertain": "The scan of whose labels the model is least sure",
    "failure": "The scan whose automatic label is likeliest wrong",
    "diverse": "The scan least like those taken",
    "batch": "Uncertain scans that differ, from the most uncertain of many random groups",
}


class RankedStrategy(Strategy):
    """Serve the first open scan of an order; it is the caller's for a time.

    Args:
        name: One of STRATEGIES.
        choosers: Gives the chooser of a store.
    """

    def __init__(self, name: str, choosers: Callable[[Store], Chooser]) -> None:
        super().__init__(_DESCRIPTIONS[name])
        self.name = name
        self.choosers = choosers

    def config(self) -> dict[str, Any]:
        """Options that a client may set, with their defaults.

        ``systems``, comma-separated, for which a scan is wanted (all by default); ``slices``, how many slices are to be
        drawn: they are named, and a scan of which others are drawn already may come again; ``seed`` from 0 to draw the
        same again; ``batch``, size of a random group; ``rounds``, trainings until chance has no part in the choice any
        more.
        """
        options: dict[str, Any] = {"systems": "", "slices": 0, "seed": -1}
        own = {"auto": {"rounds": 10}, "batch": {"batch": 8}}
        return {**options, **own.get(self.name, {})}

    def info(self) -> dict[str, Any]:
        """What clients list."""
        return {**super().info(), "config": self.config()}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose; ``model``, ``label_tag`` and ``labels`` of the request narrow what counts as labelled.

        Returns:
            ``id`` and ``reason``, with ``slices`` asked for their axis and indices; None where all is labelled or with
            others. A scan that cannot be read, or that no system wanted can use, is passed over.

        Raises:
            UserError: If an option is wrong.
        """
        if not isinstance(datastore, MskDatastore):  # MONAI Label's own, of which nothing is known but names
            names = sorted(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
            return {"id": names[0]} if names else None
        chooser = self.choosers(datastore.store)
        wanted = chooser.wanted(request)
        pool = chooser.pool(wanted)
        ranking = chooser.rank(self.name, pool, request)
        ids = (pool.ids[place] for place in ranking.places)
        some = wanted.slices > 0
        counting, served = wanted.labelled_for, wanted.systems
        chosen = datastore.take_next(
            ids, wanted.holder or None, wanted.tag, systems=counting, whole=some, fitting=served
        )
        if chosen is None:
            return None
        answer: dict[str, Any] = {"id": chosen, "reason": ranking.reason(pool.place[chosen])}
        if some:
            plan = chooser.slices(chosen, wanted.slices, *_turn_of(chosen, pool, ranking, wanted))
            answer["slices"] = {"axis": plan.axis, "indices": list(plan.indices), "reason": plan.reason}
        return answer


def _turn_of(image_id: str, pool: Pool, ranking: Ranking, wanted: Wanted) -> tuple[str | None, str | None]:
    """The system and the label for which slices of a scan are asked for; a scan may be none of the system in turn."""
    if ranking.system and pool.fits[ranking.system][pool.place[image_id]]:
        return ranking.system, ranking.label
    fitting = [name for name in wanted.systems if pool.fits[name][pool.place[image_id]]]
    return (fitting[0] if len(fitting) == 1 else None), None


class Choosers:
    """A chooser for each store, made when it is first asked for.

    Args:
        versions: Versions of models; None where there are none.
    """

    def __init__(self, versions: ServingVersions | None = None) -> None:
        self.versions = versions
        self._made: weakref.WeakKeyDictionary[Store, Chooser] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, store: Store) -> Chooser:
        """The chooser of a store."""
        with self._lock:
            if store not in self._made:
                self._made[store] = Chooser(store, self.versions)
            return self._made[store]


def strategies(choosers: Callable[[Store], Chooser] | None = None) -> dict[str, Strategy]:
    """All strategies by name, the default first."""
    shared = choosers or Choosers()
    return {name: RankedStrategy(name, shared) for name in _DESCRIPTIONS}


class DiceScoring(ScoringMethod):
    """Dice of the automatic label against the final one of each scan, stored with the scan.

    The mean is over the labels that either has, where the final label speaks of the scan. Both are of one system; of a
    scan that several systems have labelled, over the labels of all.
    """

    def __init__(self) -> None:
        super().__init__("Mean Dice over labels, automatic against final label of each scan")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, float]:
        """Score all scans that have both labels; ``y`` and ``y_pred`` of the request name other tags.

        Returns:
            Mean Dice for each scan.

        Raises:
            UserError: If the datastore does not know whose labels are whose.
        """
        if not isinstance(datastore, MskDatastore):
            raise UserError("this datastore does not say of which system its labels are")
        store = datastore.store
        truth_tag = checked_tag(request.get("y") or DefaultLabelTag.FINAL.value)
        predicted_tag = checked_tag(request.get("y_pred") or DefaultLabelTag.ORIGINAL.value)
        labelled = set(datastore.get_labeled_images(truth_tag))
        automatic = {(one.image_id, one.system): one for one in store.labels.newest_of_each(predicted_tag)}
        each: dict[str, list[float]] = {}
        for version in store.labels.newest_of_each(truth_tag):
            predicted = automatic.get((version.image_id, version.system))
            if predicted and version.image_id in labelled and version.system in store.systems:
                each.setdefault(version.image_id, []).extend(_dices(store, version, predicted))
        scores = {image: round(float(np.mean(dices)), 4) for image, dices in each.items() if dices}
        for image, score in scores.items():
            datastore.update_image_info(image, {"scores": {"dice": score}})
        return scores


def _dices(store: Store, version: LabelVersion, predicted: LabelVersion) -> list[float]:
    """Dice of each label that a version or the automatic one has; nothing where they are of other sizes."""
    system, annotated = store.systems[version.system], annotated_of(version)
    truth, drawn = (read_labels(store.labels.file(one)) for one in (version, predicted))
    if truth.array.shape != drawn.array.shape:
        return []
    known = known_labels(system, truth.array, annotated, closest_axes(truth.affine)[0][2])
    return [dice for dice in label_dice(system, drawn.array, known, annotated).values() if not np.isnan(dice)]


class SummaryScoring(ScoringMethod):
    """Judge the scans whose scores are missing or older than the version in service, the most promising first.

    Args:
        choosers: Gives the chooser of a store.
        versions: Versions of models.
        device: Where to predict.
        wait: See :class:`msklabel.choose.rescore.Rescore`.
        select: See there.
    """

    def __init__(
        self,
        choosers: Callable[[Store], Chooser],
        versions: WeightStore,
        device: str = "cpu",
        wait: Callable[[], None] = lambda: None,
        select: Selection | None = None,
    ) -> None:
        super().__init__("Uncertainty, predicted Dice, volumes and embedding of each scan by the version in service")
        self.choosers = choosers
        self.versions = versions
        self.device = device
        self.wait = wait
        self.select = select

    def config(self) -> dict[str, Any]:
        """Options: ``systems``, comma-separated (all); ``limit``, the most scans, 0 for all; ``images_only``."""
        return {"systems": "", "limit": 0, "images_only": False}

    def info(self) -> dict[str, Any]:
        """What clients list."""
        return {**super().info(), "config": self.config()}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score; the scores are stored with the model version.

        Raises:
            UserError: If an option is wrong, or the datastore keeps no scores.
        """
        if not isinstance(datastore, MskDatastore):
            raise UserError("this datastore keeps no scores of scans")
        from msklabel.choose.rescore import Rescore  # networks take seconds to load, and choosing needs none

        options = {key: value for key, value in request.items() if key != "limit" or value not in (0, "0")}
        rescore = Rescore(self.choosers(datastore.store), self.versions, self.device, self.wait, self.select)
        return rescore(options)
