"""Which images are done, kept in memory and brought up to date by what is new in the database.

A strategy asks for all images without a label each time that somebody wants a scan; with a hundred thousand images the
question itself would take the time. Versions and reviews are only added, so the last id of each tells what is new.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, false, func, select, true, union_all
from sqlalchemy.orm import Session

from msklabel.store.annotation import annotated_as
from msklabel.store.database import Database
from msklabel.store.reviews import Review
from msklabel.store.schema import OPEN, Image, LabelVersion

_LAST = select(*(select(func.max(table.id)).scalar_subquery() for table in (LabelVersion, Review)))
_Kind = tuple[str, frozenset[str] | None, bool]


class Newest(NamedTuple):
    """What counts of the newest label of an image and a system.

    Attributes:
        state: One of ``STATES``.
        slices: The slices of which it speaks, where that are not all of the scan.
        slice_axis: Axis of the scan as stored that they count along.
        classes: Names of the labels that occur in it.
        key: Its identity, of the file and of what it speaks.
    """

    state: str
    slices: tuple[int, ...]
    slice_axis: int
    classes: tuple[str, ...]
    key: str


NEWEST = LabelVersion.state, LabelVersion.annotated, Image.shape, LabelVersion.classes, LabelVersion.sha256
"""Columns that :func:`newest_of` takes."""


class Worklist:
    """The images that have a label, and none that is to be made again.

    Args:
        database: Where labels and reviews are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._last: tuple[int, ...] | None = None
        self._submitted: Counter[tuple[str, str]] = Counter()
        self._states: dict[str, dict[tuple[str, str], Newest]] = {}
        self._done: dict[_Kind, set[str]] = {}
        self._finished: dict[tuple[str, str], dict[str, Newest]] = {}

    def done(self, tag: str, systems: Iterable[str] | None = None, whole: bool = False) -> set[str]:
        """Ids of the images that are done.

        Args:
            tag: Of the labels that count.
            systems: Labels of these count; of all by default.
            whole: Whether a label of some slices does not make an image done.
        """
        kind = tag, None if systems is None else frozenset(systems), whole
        with self._lock:
            self._update()
            if kind not in self._done:
                self._done[kind] = {image_id for image_id in self._states if self._is_done(image_id, kind)}
            return set(self._done[kind])

    def finished(self, tag: str, system: str) -> dict[str, Newest]:
        """The newest label of a system on each image, by image id, where that is not to be made again.

        The same mapping, which must not be changed, as long as nothing is new.
        """
        with self._lock:
            self._update()
            if (tag, system) not in self._finished:
                found = ((image_id, newest.get((tag, system))) for image_id, newest in self._states.items())
                self._finished[tag, system] = {i: new for i, new in found if new and new.state not in OPEN}
            return self._finished[tag, system]

    def submissions(self, tag: str, systems: Collection[str] | None = None) -> int:
        """How many versions of a tag were ever submitted, of any of some systems."""
        with self._lock:
            self._update()
            counted = self._submitted.items()
            return sum(n for (of, system), n in counted if of == tag and (systems is None or system in systems))

    def _update(self) -> None:
        last = self._database.once(_LAST, lambda session: tuple(newest or 0 for newest in session.execute(_LAST).one()))
        if self._last and all(old <= known for old, known in zip(last, self._last, strict=True)):
            return  # nothing is new, or this thread's view is older than what another one has seen
        with self._database.read() as session:
            new = _submitted_since(session, (0, 0) if self._last is None else self._last)
            changed = None if self._last is None else {row[0] for row in new}
            rows = session.execute(_newest(changed))
            states: dict[str, dict[tuple[str, str], Newest]] = {image_id: {} for image_id in changed or ()}
            for image_id, tag, system, *newest in rows:
                states.setdefault(image_id, {})[tag, system] = newest_of(*newest)
        self._states |= states
        self._last = last
        self._submitted.update((tag, system) for _, tag, system, is_new in new if is_new)
        self._finished.clear()
        for kind, done in self._done.items():
            for image_id in states:
                (done.add if self._is_done(image_id, kind) else done.discard)(image_id)

    def _is_done(self, image_id: str, kind: _Kind) -> bool:
        tag, systems, whole = kind
        found = [
            newest
            for (of_tag, system), newest in self._states[image_id].items()
            if of_tag == tag and (systems is None or system in systems)
        ]
        return is_done(found, whole)


def is_done(newest: Collection[Newest], whole: bool) -> bool:
    """Whether an image is done by the newest labels of its systems that count; see :meth:`Worklist.done`."""
    return any(not (whole and label.slices) for label in newest) and not any(label.state in OPEN for label in newest)


def newest_of(
    state: str, annotated: Mapping[str, Any] | None, shape: Sequence[int] | None, classes: Sequence[str], sha256: str
) -> Newest:
    """Read the columns ``NEWEST``."""
    slices = tuple((annotated or {}).get("slices") or ())
    axis = (annotated or {}).get("axis", 2)
    if shape and len(slices) == shape[axis]:
        slices = ()
    return Newest(state, slices, axis, tuple(map(sys.intern, classes)), annotated_as(annotated).key(sha256))


def _submitted_since(session: Session, last: tuple[int, ...]) -> list[tuple[str, str, str, bool]]:
    """Image, tag and system of each version that is newer, or was reviewed since, and whether it is newer."""
    columns = LabelVersion.image_id, LabelVersion.tag, LabelVersion.system
    labelled = select(*columns, true()).where(LabelVersion.id > last[0])
    reviewed = select(*columns, false()).join(Review).where(Review.id > last[1])
    return list(session.execute(union_all(labelled, reviewed)).tuples())


def _newest(images: set[str] | None) -> Select[Any]:
    """State of the newest version that counts, and what it speaks of, for each image, tag and system."""
    ids = select(func.max(LabelVersion.id)).where(LabelVersion.withdrawn.is_(None))
    if images is not None:
        ids = ids.where(LabelVersion.image_id.in_(images))
    ids = ids.group_by(LabelVersion.image_id, LabelVersion.tag, LabelVersion.system)
    columns = LabelVersion.image_id, LabelVersion.tag, LabelVersion.system, *NEWEST
    query: Select[Any] = select(*columns)
    return query.join(Image).where(LabelVersion.id.in_(ids))
