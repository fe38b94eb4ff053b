"""The pool of a store, kept in memory: only what changed is read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from msklabel.choose.diversity import typicality, unit_rows
from msklabel.choose.pool import Flags, Indices, Opinion, Pool
from msklabel.choose.summary import IMAGE_ONLY, from_bytes
from msklabel.errors import UserError
from msklabel.system import System

if TYPE_CHECKING:
    from msklabel.store.core import ChangedImage

_IMAGES_S = 300.0  # the table of images is read again at least this often
_OVERLAP_US = 5_000_000  # longer than a row takes from its time stamp to its commit
_READ = 200  # scores read at once
_Known = tuple[str, str, str]  # patient, site and modality of a scan that is there


class Score(Protocol):
    """A stored score; ``msklabel.store.scores.ScoreRow`` is one."""

    id: int
    image_id: str
    model_version: str
    summary: bytes
    values: dict[str, float]


class Source(Protocol):
    """Where facts come from; the store behind a datastore gives them."""

    def images_since(self, instant: int) -> Sequence[ChangedImage]:
        """The scans that came, went or changed after an instant (µs), in order of that."""

    def scores_since(self, system: str, row_id: int, most: int) -> Sequence[Score]:
        """Scores that came after one, oldest first."""


@dataclass
class _Rows:
    """Scores of one system by image id, the newest of a model and the image's own features."""

    last: int = 0
    judged: dict[str, tuple[str, Any]] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)


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
        self._newest_us = 0
        self._since_us = -1
        self._read_s = 0.0
        self._readings = 0
        self._rows = {name: _Rows() for name in systems}
        self._opinions: dict[str, tuple[tuple[Any, ...], Opinion]] = {}

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
            return _members(pool, self._rows[system].features)

    def version_of(self, system: str, image_id: str) -> str | None:
        """The version that judged a scan last, as far as scores were read."""
        return self._rows[system].judged.get(image_id, (None, None))[0]

    def _current_images(self) -> Pool:
        before = None if time.monotonic() - self._read_s > _IMAGES_S else self._images
        settled_us = time.time_ns() // 1000 - _OVERLAP_US  # what is older can be read now
        news = self.source.images_since(-1 if before is None else self._since_us)
        self._newest_us = max([self._newest_us, *(image.changed_us for image in news)])
        self._since_us = min(self._newest_us, settled_us)
        if before is None:
            self._known, self._read_s = {}, time.monotonic()
        fresh = {image.id: _facts(image) for image in news}
        if before is not None and all(self._known.get(image_id) == facts for image_id, facts in fresh.items()):
            return before
        self._known = {image_id: facts for image_id, facts in {**self._known, **fresh}.items() if facts}
        images = _table(self._known, self.systems)
        self._readings += self._images is None or images.ids != self._images.ids  # else opinions hold on
        self._images = images
        return images

    def _opinion(self, name: str, images: Pool) -> Opinion:
        self._read_scores(name)
        rows = self._rows[name]
        serving, number = self.versions(name)
        key = (rows.last, serving, number, self._readings)
        kept = self._opinions.get(name)
        if kept is None or kept[0] != key:
            kept = key, _opinion(self.systems[name], images.ids, rows, serving, number)
            self._opinions[name] = kept
        return kept[1]

    def _read_scores(self, name: str) -> None:
        rows = self._rows[name]
        while new := self.source.scores_since(name, rows.last, _READ):
            for row in new:
                rows.last = row.id
                if row.model_version == IMAGE_ONLY:
                    rows.features[row.image_id] = np.frombuffer(row.summary, np.float16)
                else:
                    rows.judged[row.image_id] = row.model_version, _parsed(row)


def _facts(image: ChangedImage) -> _Known | None:
    return (image.patient, image.site, image.modality) if image.present else None


def _table(known: Mapping[str, _Known], systems: Mapping[str, System]) -> Pool:
    ids = sorted(known)
    facts = [known[image_id] for image_id in ids]
    patients = np.unique([patient for patient, _, _ in facts], return_inverse=True)[1]
    names, sites = np.unique([site for _, site, _ in facts], return_inverse=True)
    imaged = {"CT", "MR", "CR", "DX"}
    fits = {
        name: np.array([kind not in imaged or kind in system.modality for _, _, kind in facts], bool)
        for name, system in systems.items()
    }
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


def _parsed(row: Score) -> dict[str, Any]:
    """What an opinion needs of a stored score; its profiles over slices stay in the store."""
    broken = row.values.get("finite", 1.0) == 0
    try:
        summary = from_bytes(row.summary) if row.summary else None
    except UserError:
        summary = None
    if summary is None:
        return {"broken": broken}
    return {
        "broken": broken,
        "entropy": summary.class_entropy,
        "area": summary.area_cm2.astype(np.float64).sum(axis=1),
        "dice": row.values.get("predicted_dice", np.nan),
        "embedding": summary.embedding,
    }


def _opinion(system: System, ids: Sequence[str], rows: _Rows, serving: str | None, number: int) -> Opinion:
    labels = tuple(system.labels)
    entropy, area = np.full((2, len(ids), len(labels)), np.nan)
    dice = np.full(len(ids), np.nan)
    fresh, broken = np.zeros((2, len(ids)), bool)
    for i, image_id in enumerate(ids):
        version, row = rows.judged.get(image_id, ("", None))
        if row is None:
            continue
        fresh[i], broken[i] = version == serving, row["broken"]
        if len(row.get("entropy", ())) == len(labels):
            entropy[i], area[i], dice[i] = row["entropy"], row["area"], row["dice"]
    vectors = unit_rows(_embeddings(ids, rows))
    return Opinion(
        system=system.name,
        labels=labels,
        entropy=entropy,
        area=area,
        predicted_dice=dice,
        embedding=vectors,
        typicality=typicality(vectors, np.random.default_rng(0)),
        fresh=fresh,
        broken=broken,
        round=number,
    )


def _embeddings(ids: Sequence[str], rows: _Rows) -> np.ndarray:
    """Raw embeddings of one kind, as only these compare: of the version that saw most scans, or of the images."""
    kinds: dict[str, dict[int, Any]] = {}
    for i, image_id in enumerate(ids):
        version, row = rows.judged.get(image_id, ("", None))
        vector = row.get("embedding", ()) if row else ()
        if len(vector) and np.isfinite(vector).all():
            kinds.setdefault(version, {})[i] = vector
        if image_id in rows.features:
            kinds.setdefault(IMAGE_ONLY, {})[i] = rows.features[image_id]
    if not kinds:
        return np.full((len(ids), 1), np.nan)
    most = max(kinds, key=lambda version: (len(kinds[version]), version != IMAGE_ONLY, version))
    length = max((len(vector) for vector in kinds[most].values()), default=1)
    table = np.full((len(ids), length), np.nan)
    for i, vector in kinds[most].items():
        if len(vector) == length:
            table[i] = vector
    return table


def places_of(pool: Pool, ids: Iterable[str]) -> Indices:
    """Places of scans in a pool; those that are not there are left out."""
    place = pool.place
    return np.array([place[image_id] for image_id in ids if image_id in place], int)
