"""What a system's models say of the scans of a store, kept in memory: a new score costs little, however many there are.

Embeddings are compared with each other, so that each new one would change what follows from all: half a second for ten
thousand. While thousands are scored in the background nobody who asks for a scan waits for that; in a large pool it is
worked out beside, and not all the time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from msklabel.choose.diversity import typicality, unit_rows
from msklabel.choose.pool import Floats, Opinion, Vectors
from msklabel.choose.summary import IMAGE_ONLY, from_bytes
from msklabel.errors import UserError
from msklabel.store.scores import NO_VERSION
from msklabel.system import System

_AT_ONCE = 100  # scans of a pool in which embeddings are compared while somebody waits, as that takes milliseconds
_REST_S = 10.0  # from one comparison in a larger pool to the next


class Score(Protocol):
    """A stored score; ``msklabel.store.scores.ScoreRow`` is one."""

    id: int
    image_id: str
    model_version: str
    summary: bytes
    values: dict[str, float]


@dataclass(frozen=True)
class _Judgement:
    """What an opinion needs of a stored score; its profiles over slices stay in the store."""

    version: str
    broken: bool
    entropy: Floats
    area: Floats
    dice: float = np.nan
    embedding: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class _Compared:
    """Embeddings as they stand to each other, and for which scans and up to which score that was found out."""

    ids: Sequence[str]
    last: int
    vectors: Vectors
    typicality: Floats


class Opinions:
    """The opinion of one system on pools; to be asked by one thread at a time.

    Args:
        system: The system.
    """

    def __init__(self, system: System) -> None:
        self.last = 0
        """Number of the newest score that was read."""
        self.features: dict[str, np.ndarray] = {}
        """What describes each image alone, by image id."""
        self._judged: dict[str, _Judgement] = {}
        self._system = system
        self._unknown = np.full(len(system.labels), np.nan)
        self._compared: _Compared | None = None
        self._comparing: threading.Thread | None = None
        self._began_s = 0.0
        self._ids: Sequence[str] = ()
        self._place: dict[str, int] = {}
        self._news: set[str] = set()
        self._now: Opinion | None = None
        self._shown: _Compared | None = None
        self._serving: str | None = None

    def read(self, rows: Iterable[Score]) -> None:
        """Take note of newer scores."""
        for row in rows:
            if row.model_version == IMAGE_ONLY:
                features = np.frombuffer(row.summary, np.float16)
                self.features[row.image_id] = features if np.isfinite(features).all() else features[:0]
            else:
                if row.model_version == NO_VERSION:
                    self.features.pop(row.image_id, None)
                self._judged[row.image_id] = self._judgement(row)
                self._news.add(row.image_id)
            self.last = row.id

    def version_of(self, image_id: str) -> str | None:
        """The version that judged a scan last, as far as scores were read."""
        judgement = self._judged.get(image_id)
        return judgement.version if judgement else None

    def of(self, ids: Sequence[str], serving: str | None, number: int) -> Opinion:
        """The opinion on the scans of a pool; the same object while nothing is new.

        Args:
            ids: Of the scans.
            serving: The version in service.
            number: How many versions there are.
        """
        if ids is not self._ids and list(ids) != list(self._ids):
            self._ids, self._place, self._now = ids, {image_id: i for i, image_id in enumerate(ids)}, None
        compared, now = self._comparison(self._ids), self._now
        if now is None or serving != self._serving:
            now, self._shown = self._fresh_opinion(serving, number, compared), compared
        elif self._news:
            known = [image_id for image_id in self._news if image_id in self._place]
            columns = self._columns(known, serving)
            tables = {name: getattr(now, name).copy() for name in columns}
            for name, values in columns.items():
                tables[name][[self._place[image_id] for image_id in known]] = values
            now = replace(now, **tables)
        if compared is not self._shown or now.round != number:
            now, self._shown = replace(now, round=number, **self._vectors(compared)), compared
        self._now, self._serving = now, serving
        self._news.clear()
        return now

    def _fresh_opinion(self, serving: str | None, number: int, compared: _Compared) -> Opinion:
        columns = {**self._columns(self._ids, serving), **self._vectors(compared)}
        return Opinion(system=self._system.name, labels=tuple(self._system.labels), round=number, **columns)

    def _columns(self, ids: Sequence[str], serving: str | None) -> dict[str, Any]:
        """What was judged of some scans."""
        nothing = _Judgement("", False, self._unknown, self._unknown)
        found = [self._judged.get(image_id, nothing) for image_id in ids]
        table = (len(ids), len(self._unknown))
        return {
            "entropy": np.array([one.entropy for one in found], float).reshape(table),
            "area": np.array([one.area for one in found], float).reshape(table),
            "predicted_dice": np.array([one.dice for one in found], float),
            "fresh": np.array([one is not nothing and one.version == serving for one in found], bool),
            "broken": np.array([one.broken for one in found], bool),
        }

    def _vectors(self, compared: _Compared) -> dict[str, Any]:
        """Embeddings of the scans of now, as far as they were compared."""
        if compared.ids is self._ids:
            return {"embedding": compared.vectors, "typicality": compared.typicality}
        vectors = np.full((len(self._ids), compared.vectors.shape[1]), np.nan, np.float32)
        typical = np.full(len(self._ids), np.nan)
        for row, image_id in enumerate(compared.ids):
            place = self._place.get(image_id)
            if place is not None:
                vectors[place], typical[place] = compared.vectors[row], compared.typicality[row]
        return {"embedding": vectors, "typicality": typical}

    def _comparison(self, ids: Sequence[str]) -> _Compared:
        """How embeddings stand to each other: now in a small pool, as found out last in a large one."""
        before = self._compared
        if before and before.last == self.last and before.ids is ids:
            return before
        if before is None or len(ids) <= _AT_ONCE:
            self._compared = self._compare(ids)
            return self._compared
        busy = self._comparing is not None and self._comparing.is_alive()
        if not busy and time.monotonic() - self._began_s > _REST_S:
            self._began_s = time.monotonic()
            self._comparing = threading.Thread(target=self._compare_beside, args=(ids,), name="embeddings", daemon=True)
            self._comparing.start()
        return before

    def _compare_beside(self, ids: Sequence[str]) -> None:
        self._compared = self._compare(ids)

    def _compare(self, ids: Sequence[str]) -> _Compared:
        last = self.last
        vectors = unit_rows(self._embeddings(ids))
        return _Compared(ids, last, vectors, typicality(vectors, np.random.default_rng(0)))

    def _embeddings(self, ids: Sequence[str]) -> Floats:
        """Raw embeddings of one kind, as only these compare: of the version that saw most scans, or of the images."""
        kinds: dict[str, dict[int, Floats]] = {}
        for i, image_id in enumerate(ids):
            judgement = self._judged.get(image_id)
            if judgement and len(judgement.embedding):
                kinds.setdefault(judgement.version, {})[i] = judgement.embedding
            if image_id in self.features:
                kinds.setdefault(IMAGE_ONLY, {})[i] = self.features[image_id]
        if not kinds:
            return np.full((len(ids), 1), np.nan)
        most = max(kinds, key=lambda version: (len(kinds[version]), version != IMAGE_ONLY, version))
        length = max(len(vector) for vector in kinds[most].values())
        table = np.full((len(ids), length), np.nan)
        for i, vector in kinds[most].items():
            if len(vector) == length:
                table[i] = vector
        return table

    def _judgement(self, row: Score) -> _Judgement:
        broken = row.values.get("finite", 1.0) == 0
        try:
            summary = from_bytes(row.summary) if row.summary else None
        except UserError:
            summary = None
        if summary is None:
            return _Judgement(row.model_version, broken, self._unknown, self._unknown)
        embedding = summary.embedding if np.isfinite(summary.embedding).all() else np.empty(0)
        entropy, area = summary.class_entropy, summary.area_cm2.astype(np.float64).sum(axis=1)
        if len(entropy) != len(self._unknown):  # of the system before it was given other labels
            return _Judgement(row.model_version, broken, self._unknown, self._unknown, embedding=embedding)
        dice = row.values.get("predicted_dice", np.nan)
        return _Judgement(row.model_version, broken, entropy, area, dice, embedding)
