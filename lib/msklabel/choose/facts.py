"""The pool of a store, kept in memory: only what changed is read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from msklabel.choose.opinions import Opinions, Score
from msklabel.choose.pool import Flags, Indices, Opinion, Pool
from msklabel.system import System

if TYPE_CHECKING:
    from msklabel.store.fit import ChangedImage

_IMAGES_S = 300.0  # the table of images is read again at least this often
_OVERLAP_US = 30_000_000  # longer than from a row's time stamp to its commit, and than a reader's view is old
_READ = 200  # scores read at once
_MANY = 200  # images that came at a time, after which those that are known already are not read again
_Known = tuple[str, str, frozenset[str]]  # patient and site of a scan that is there, and the systems it is not for


class Source(Protocol):
    """Where facts come from; the store behind a datastore gives them."""

    def images_since(self, instant: int) -> Sequence[ChangedImage]:
        """The scans that came, went or changed after an instant (µs), in order of that."""

    def changes_between(self, first: int, last: int) -> tuple[int, int]:
        """How many scans did last after one instant and until another, and the sum of the times since the first."""

    def scores_since(self, system: str, row_id: int, most: int) -> Sequence[Score]:
        """Scores that came after one, oldest first."""


class Facts:
    """Builds pools; safe to call from many threads.

    Args:
        source: Where facts come from.
        systems: All systems that are served.
        versions: Gives the version in service of a system, and how many there are.
    """

    def __init__(
        self, source: Source, systems: Mapping[str, System], versions: Callable[[str], tuple[str | None, int]]
    ) -> None:
        self.source = source
        self.systems = dict(systems)
        self.versions = versions
        self._lock = threading.Lock()
        self._images: Pool | None = None
        self._known: dict[str, _Known] = {}
        self._stamps: dict[str, int] = {}
        self._many = False
        self._newest_us = 0
        self._since_us = -1
        self._read_s = 0.0
        self._opinions = {name: Opinions(system) for name, system in systems.items()}

    def pool(
        self,
        systems: Sequence[str],
        labelled: Iterable[str],
        held: Mapping[str, str] | None = None,
        holder: str = "",
        again: Iterable[str] = (),
    ) -> Pool:
        """The pool as it is now.

        Args:
            systems: For which systems a scan is to be annotated.
            labelled: Scans that are done.
            held: Holder of each scan that is with somebody.
            holder: Who asks; what he has already is open to him.
            again: Scans that are labelled in part, of which more slices are to be drawn.
        """
        with self._lock:
            images = self._current_images()
            opinions = {name: self._opinion(name, images) for name in systems}
        taken = _members(images, labelled)
        fits: Flags = np.zeros(len(images), bool)
        for name in systems:
            fits = fits | images.fits[name]
        free = fits & ~taken
        own: Flags = np.zeros(len(images), bool)
        with_somebody = _members(images, held or ())
        own[places_of(images, (image_id for image_id, whose in (held or {}).items() if whose == holder))] = True
        own &= free
        free &= own | ~with_somebody
        taken |= with_somebody | _members(images, again)
        return replace(
            images,
            taken=taken,
            open=free,
            own=own,
            opinions=opinions,
            fits={name: images.fits[name] for name in systems},
        )

    def described(self, system: str, pool: Pool) -> Flags:
        """Whether each scan of a pool was looked at without a model; shape (scans,)."""
        with self._lock:
            return _members(pool, self._opinions[system].features)

    def version_of(self, system: str, image_id: str) -> str | None:
        """The version that judged a scan last, as far as scores were read."""
        return self._opinions[system].version_of(image_id)

    def _current_images(self) -> Pool:
        before = None if time.monotonic() - self._read_s > _IMAGES_S else self._images
        settled_us = time.time_ns() // 1000 - _OVERLAP_US  # what is older can be read now
        news = self.source.images_since(-1) if before is None else self._news()
        self._many = self._many or len(news) > _MANY
        self._stamps |= {image.id: image.changed_us for image in news}
        self._newest_us = max([self._newest_us, *(image.changed_us for image in news)])
        self._since_us = min(self._newest_us, settled_us)
        if before is None:
            self._known, self._read_s = {}, time.monotonic()
        fresh = {image.id: _facts(image) for image in news}
        if before is not None and all(self._known.get(image_id) == facts for image_id, facts in fresh.items()):
            return before
        self._known = {image_id: facts for image_id, facts in {**self._known, **fresh}.items() if facts}
        self._images = _table(self._known, self.systems)
        return self._images

    def _news(self) -> Sequence[ChangedImage]:
        """What changed since it was read, or so shortly before that it may have been written afterwards.

        After thousands came at once the latter are counted first: if they are those that are known, none is read.
        """
        if not self._many:
            return self.source.images_since(self._since_us)
        news = self.source.images_since(self._newest_us)
        newer = {image.id for image in news}
        known = [us - self._since_us for name, us in self._stamps.items() if us > self._since_us and name not in newer]
        self._many = len(known) > _MANY
        if self.source.changes_between(self._since_us, self._newest_us) == (len(known), sum(known)):
            return news
        return self.source.images_since(self._since_us)

    def _opinion(self, name: str, images: Pool) -> Opinion:
        opinions = self._opinions[name]
        while new := self.source.scores_since(name, opinions.last, _READ):
            opinions.read(new)
        return opinions.of(images.ids, *self.versions(name))


def _facts(image: ChangedImage) -> _Known | None:
    return (image.patient, image.site, image.unfit) if image.present else None


def _table(known: Mapping[str, _Known], systems: Mapping[str, System]) -> Pool:
    ids = sorted(known)
    facts = [known[image_id] for image_id in ids]
    patients = np.unique([patient for patient, _, _ in facts], return_inverse=True)[1]
    names, sites = np.unique([site for _, site, _ in facts], return_inverse=True)
    fits = {name: np.array([name not in unfit for _, _, unfit in facts], bool) for name in systems}
    nothing: Flags = np.zeros(len(ids), bool)
    return Pool(
        ids=ids,
        patient=patients.astype(int),
        site=sites.astype(int),
        taken=nothing,
        open=nothing,
        own=nothing,
        fits=fits,
        site_names=[str(name) for name in names] or [""],
    )


def _members(pool: Pool, wanted: Iterable[str]) -> Flags:
    """Which scans of a pool are wanted."""
    flags: Flags = np.zeros(len(pool), bool)
    flags[places_of(pool, wanted)] = True
    return flags


def places_of(pool: Pool, ids: Iterable[str]) -> Indices:
    """Places of scans in a pool; those that are not there are left out."""
    place = pool.place
    return np.array([place[image_id] for image_id in ids if image_id in place], int)
