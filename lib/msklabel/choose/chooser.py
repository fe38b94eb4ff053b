"""Answers what is next, and why, for a store; knows neither HTTP nor MONAI Label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from msklabel.choose.diversity import distances, embedded
from msklabel.choose.facts import Facts, places_of
from msklabel.choose.parts import Parts
from msklabel.choose.pool import Floats, Pool
from msklabel.choose.slices import Plan, plan_slices, plan_strided
from msklabel.choose.source import StoreSource
from msklabel.choose.strategies import STRATEGIES, Ranking
from msklabel.choose.summary import IMAGE_ONLY, Summary, from_bytes
from msklabel.errors import NotFound, UserError
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.geometry import closest_axes
from msklabel.imaging.scan import ImageError
from msklabel.learn.asked import whole
from msklabel.store.annotation import annotated_of
from msklabel.store.core import Store
from msklabel.store.images import UNREADABLE
from msklabel.store.labels import FINAL

_LIKE = 5
_MOST_SLICES = 1000


class ServingVersions(Protocol):
    """Where versions of models are kept; ``msklabel.learn.versions.Versions`` is one."""

    def serving(self, system: str, variant: str = "") -> str | None:
        """Name of the version in service; None before the first."""

    def names(self, system: str) -> list[str]:
        """Names of all versions, oldest first."""

    def considered(self, system: str, name: str) -> set[str]:
        """Checksums of the labels that a version has learned from, or looked at."""


@dataclass(frozen=True)
class Wanted:
    """What a client asks to choose for.

    Attributes:
        systems: Names of systems.
        tag: Which label makes a scan done.
        labelled_for: Systems whose label counts; None for any.
        holder: Who asks.
        slices: How many slices of a scan are to be drawn; 0 for all. A scan of which some are drawn is not done then.
    """

    systems: tuple[str, ...]
    tag: str = FINAL
    labelled_for: tuple[str, ...] | None = None
    holder: str = ""
    slices: int = 0


class Chooser:
    """Ranks the scans of a store.

    Args:
        store: Images, labels, leases, scores.
        versions: Versions of models; None where there are none.
    """

    def __init__(self, store: Store, versions: ServingVersions | None = None) -> None:
        self.store = store
        self.versions = versions
        self.facts = Facts(StoreSource(store), store.systems, self._version)
        self._parts = Parts(store, self.summary, self._learned)
        self._considered: dict[str, tuple[str, set[str]]] = {}

    def wanted(self, request: Mapping[str, Any]) -> Wanted:
        """Read ``model`` or ``systems`` (comma-separated), ``label_tag``, ``labels``, ``client_id`` and ``slices``.

        Raises:
            NotFound: If a system is not served, or no system has the labels.
        """
        text = request.get("systems") or request.get("model") or ""
        names = [name.strip() for name in str(text).split(",") if name.strip()]
        systems = tuple(dict.fromkeys(self._system(name) for name in names))
        labels = request.get("labels")
        if labels and not isinstance(labels, list):
            raise UserError(f"labels: expected a list of names, got {str(labels)[:100]!r}")
        having = tuple(n for n, s in self.store.systems.items() if labels and set(map(str, labels)) <= s.labels.keys())
        if labels and not having:
            raise NotFound(f"no system has all of the labels {', '.join(map(str, labels))[:100]}")
        counting = having if labels else systems or None
        tag = str(request.get("label_tag") or FINAL)
        served = systems or (having if labels else ()) or tuple(self.store.systems)
        slices = whole(request, "slices", 0, lowest=0, highest=_MOST_SLICES)  # said before anybody is given a scan
        return Wanted(served, tag, counting, str(request.get("client_id") or ""), slices)

    def pool(self, wanted: Wanted) -> Pool:
        """The pool as it is now."""
        labels, held = self.store.labels, self.store.leases.held()
        labelled = labels.finished(wanted.tag, wanted.labelled_for, whole=wanted.slices > 0)
        again = labels.finished(wanted.tag, wanted.labelled_for) - labelled if wanted.slices else set()
        pool = self.facts.pool(wanted.systems, labelled, held, wanted.holder, again)
        elsewhere = sum(holder != wanted.holder for holder in held.values())
        return replace(
            pool,
            having={name: self._parts.having(pool, name, wanted.tag) for name in wanted.systems},
            left={name: partial(self._left, pool, name, wanted) for name in wanted.systems if again},
            choices=labels.submissions(wanted.tag, wanted.labelled_for) + elsewhere,
        )

    def rank(self, strategy: str, pool: Pool, options: Mapping[str, Any]) -> Ranking:
        """Order the open scans; what the holder has already comes first.

        Raises:
            NotFound: If there is no such strategy.
        """
        if strategy not in STRATEGIES:
            raise NotFound(f"there is no strategy {strategy[:100]!r}; strategies: {', '.join(STRATEGIES)}")
        seed = whole(options, "seed", -1, lowest=-1)
        checked = {"batch": whole(options, "batch", 8), "rounds": whole(options, "rounds", 10)}
        if not pool.open.any():
            return Ranking(pool.candidates, np.full(len(pool), np.nan), lambda _: "")
        ranking = STRATEGIES[strategy](pool, checked, np.random.default_rng(None if seed < 0 else seed))
        begun = pool.taken & ~pool.own if ranking.system is None else np.zeros(len(pool), bool)  # else it has its say
        last = np.where(pool.own, 0, 1 + begun)[ranking.places]
        return replace(ranking, places=ranking.places[np.argsort(last, kind="stable")])

    def explain(self, image_id: str, strategy: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Why a scan stands where it stands now, in plain values.

        Raises:
            NotFound: If there is no such scan, system or strategy.
        """
        wanted = self.wanted(request)
        pool = self.pool(wanted)
        image = self.store.images.get(image_id)
        places = places_of(pool, [image_id])
        if not len(places):
            if image.present and UNREADABLE in image.info:
                raise ImageError(str(image.info[UNREADABLE]))
            raise NotFound(f"the file of image {image_id!r} is not in the studies folder at present")
        here = int(places[0])
        ranking = self.rank(strategy, pool, {"seed": 0, **request})
        order = ranking.places.tolist()
        return {
            "image": image_id,
            "strategy": strategy,
            "open": bool(pool.open[here]),
            "rank": order.index(here) + 1 if here in order else None,
            "of": len(order),
            "score": number(ranking.score[here]),
            "label": ranking.label,
            "reason": ranking.reason(here) if pool.open[here] else self._closed(pool, here),
            "site": pool.site_names[pool.site[here]],
            "patient_has_labels": self._labelled(pool, wanted, here),
            "systems": {name: self._said(pool, name, here) for name in pool.opinions},
        }

    def slices(self, image_id: str, count: int, system: str | None = None, label: str | None = None) -> Plan:
        """The slices of a scan to draw; what the newest label of the system speaks of is left out.

        Args:
            image_id: The scan.
            count: How many.
            system: For which; any that judged the scan by default.
            label: For which label; all alike by default.

        Raises:
            NotFound: If there is no such scan, system or label.
            UserError: If ``count`` is not from 1 to 1000.
        """
        if not 1 <= count <= _MOST_SLICES:
            raise UserError(f"k: expected a number of slices from 1 to {_MOST_SLICES}, got {count}")
        image = self.store.images.get(image_id)
        names = [self._system(system)] if system else list(self.store.systems)
        if label:
            names = [name for name in names if label in self.store.systems[name].labels]
            if not names:
                raise NotFound(f"there is no label {label[:100]!r} of {system or 'any system'}")
        for name in names:
            summary = self.summary(image.id, name)
            if summary is not None:
                place = self.store.systems[name].label_indices[label] - 1 if label else None
                return plan_slices(summary, count, self._drawn(image.id, name, summary.slices.axis), place)
        grid = self.store.images.grid(image.id)
        axes, _ = closest_axes(grid.affine)
        drawn = self._drawn(image.id, names[0], axes[2]) if len(names) == 1 else ()
        return plan_strided(axes[2], grid.shape[axes[2]], count, drawn)

    def _drawn(self, image_id: str, system: str, axis: int) -> tuple[int, ...]:
        """Slices that the newest label speaks of, rejected ones aside; none where it speaks of the whole scan."""
        version = self.store.labels.standing(image_id, FINAL, system)
        annotated = annotated_of(version) if version else Annotated()
        return (annotated.slices or ()) if annotated.slice_axis == axis else ()

    def summary(self, image_id: str, system: str) -> Summary | None:
        """The newest judgement of a scan by a model of a system."""
        for row in self.store.scores.newest_of(image_id, system):
            if row.model_version != IMAGE_ONLY and row.summary:
                return from_bytes(row.summary)
        return None

    def progress(self) -> dict[str, dict[str, Any]]:
        """For each system the version in service, and how many scans it judged, an earlier one did, or none did."""
        wanted = Wanted(tuple(self.store.systems))
        pool = self.facts.pool(wanted.systems, ())
        report = {}
        for name, opinion in pool.opinions.items():
            fits = pool.fits[name]
            judged = fits & (opinion.scored | opinion.broken)
            report[name] = {
                "version": self._version(name)[0],
                "fresh": int((fits & opinion.fresh).sum()),
                "stale": int((judged & ~opinion.fresh).sum()),
                "unscored": int((fits & ~judged & ~opinion.fresh).sum()),
                "broken": int((fits & opinion.broken).sum()),
                "undescribed": int((fits & ~self.facts.described(name, pool)).sum()),
            }
        return report

    def _labelled(self, pool: Pool, wanted: Wanted, here: int) -> bool:
        """Whether a scan of its patient has a label that counts; one that is merely with somebody has none."""
        labelled = places_of(pool, self.store.labels.finished(wanted.tag, wanted.labelled_for))
        return bool((pool.patient[labelled] == pool.patient[here]).any())

    def _closed(self, pool: Pool, here: int) -> str:
        """Why a scan is not given to whoever asks."""
        if not any(fits[here] for fits in pool.fits.values()):
            against = self.store.unfit(pool.ids[here])
            return "; ".join(reason for name, reason in against.items() if name in pool.fits)
        held = self.store.leases.held().get(pool.ids[here])
        return f"with {held} at present" if held else "labelled"

    def _said(self, pool: Pool, name: str, here: int) -> dict[str, Any]:
        opinion = pool.opinions[name]
        vectors = opinion.embedding
        like: list[str] = []
        known = embedded(vectors)
        if known[here]:
            others = pool.candidates[(pool.candidates != here) & known[pool.candidates]]
            near = np.argsort(distances(vectors[others], vectors[here][None])[:, 0], kind="stable")[:_LIKE]
            like = [pool.ids[i] for i in others[near]]
        return {
            "scored": bool(opinion.scored[here]),
            "fresh": bool(opinion.fresh[here]),
            "broken": bool(opinion.broken[here]),
            "uncertainty": number(opinion.uncertainty[here]),
            "predicted_dice": number(opinion.predicted_dice[here]),
            "labels": {label: number(opinion.entropy[here, i]) for i, label in enumerate(opinion.labels)},
            "unlabelled_like_it": like,
        }

    def _system(self, name: str) -> str:
        system = self.store.models.get(name)
        if system not in self.store.systems:
            raise NotFound(f"there is no system {name[:100]!r}; systems: {', '.join(self.store.systems)}")
        return system

    def _left(self, pool: Pool, name: str, wanted: Wanted) -> Floats:
        return self._parts.left(pool, name, wanted.tag, wanted.slices, partial(self.facts.version_of, name))

    def _learned(self, system: str) -> set[str] | None:
        """Checksums of the labels that the version in service looked at; None before the first."""
        serving = self._version(system)[0]
        if self.versions is None or serving is None:
            return None
        kept = self._considered.get(system)
        if kept is None or kept[0] != serving:
            kept = self._considered[system] = serving, self.versions.considered(system, serving)
        return kept[1]

    def _version(self, system: str) -> tuple[str | None, int]:
        if self.versions is None:
            return None, 0
        serving = self.versions.serving(system)
        return serving, len(self.versions.names(system)) if serving else 0


def number(value: float) -> float | None:
    """A rounded number, None for NaN, as JSON has none."""
    return None if np.isnan(value) else round(float(value), 4)
