"""What of the scans of a store is labelled: which labels, and how much is left to draw where only some slices are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from msklabel.choose.pool import Flags, Floats, Pool
from msklabel.choose.slices import native_weights, share_left
from msklabel.choose.summary import Summary
from msklabel.store.core import Store
from msklabel.store.worklist import Newest


class Parts:
    """Columns of a pool that come from labels, kept in memory; two threads may find out the same, which does no harm.

    Args:
        store: Labels.
        summary: Gives the newest judgement of a scan for a system.
        learned: Gives the checksums of the labels that a system's version in service looked at; None before the first.
    """

    def __init__(
        self, store: Store, summary: Callable[[str, str], Summary | None], learned: Callable[[str], set[str] | None]
    ) -> None:
        self._store = store
        self._summary = summary
        self._learned = learned
        self._having: dict[tuple[str, str], tuple[Mapping[str, Newest], Pool, Flags]] = {}
        self._shares: dict[tuple[str, str], tuple[tuple[tuple[int, ...], str | None, int], Floats]] = {}

    def having(self, pool: Pool, system: str, tag: str) -> Flags:
        """Which labels of a system the newest label map of each scan has, shape (scans, labels)."""
        finished = self._store.labels.finished_of(tag, system)
        kept = self._having.get((system, tag))
        if kept and kept[0] is finished and kept[1].ids is pool.ids:
            return kept[2]
        place, names = pool.place, list(self._store.systems[system].labels)
        kinds = {newest.classes for newest in finished.values()}
        rows = {classes: np.isin(names, classes) for classes in kinds}
        having: Flags = np.zeros((len(pool), len(names)), bool)
        for image_id, newest in finished.items():
            if image_id in place:
                having[place[image_id]] = rows[newest.classes]
        self._having[system, tag] = finished, pool, having
        return having

    def left(self, pool: Pool, system: str, tag: str, count: int, version_of: Callable[[str], str | None]) -> Floats:
        """Which share of what is worth drawing in each scan is not drawn yet, shape (scans, labels + 1).

        It is 0 where the version in service has not learned yet from what is drawn: what it says of the scan is what
        it said before.

        Args:
            pool: Scans that are open though they have a label are drawn in part.
            system: For which system.
            tag: Of the labels that count.
            count: Slices that are drawn at once.
            version_of: Says which version judged a scan last.
        """
        finished, learned = self._store.labels.finished_of(tag, system), self._learned(system)
        left = np.ones((len(pool), len(self._store.systems[system].labels) + 1))
        for place in np.flatnonzero(pool.open & pool.taken).tolist():
            image_id = pool.ids[place]
            newest = finished.get(image_id)
            if newest is None or not newest.slices:
                continue
            if learned is not None and newest.key not in learned:
                left[place] = 0
                continue
            key = newest.slices, version_of(image_id), count
            kept = self._shares.get((image_id, system))
            if kept is None or kept[0] != key:
                kept = self._shares[image_id, system] = key, self._share(image_id, system, newest, count)
            left[place] = kept[1]
        return left

    def _share(self, image_id: str, system: str, newest: Newest, count: int) -> Floats:
        labels = (*range(len(self._store.systems[system].labels)), None)
        summary = self._summary(image_id, system)
        if summary is None or not summary.finite or newest.slice_axis != summary.slices.axis:
            return np.ones(len(labels))
        return np.array([share_left(weights, count, newest.slices) for weights in native_weights(summary, labels)])
