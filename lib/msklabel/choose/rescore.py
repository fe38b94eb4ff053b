"""Judge the scans whose scores are missing or of an older version, the most promising first; one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from msklabel.choose.chooser import Chooser, Wanted
from msklabel.choose.image_features import image_features
from msklabel.choose.pool import Flags, Pool
from msklabel.choose.strategies import STRATEGIES
from msklabel.choose.summarise import Summarise
from msklabel.choose.summary import IMAGE_ONLY, to_bytes
from msklabel.errors import UserError
from msklabel.imaging.scan import Scan
from msklabel.learn.asked import whole
from msklabel.networks import Weights, loaded_network
from msklabel.pipeline.one_ahead import one_ahead
from msklabel.pipeline.preprocess import Preprocess
from msklabel.predict.backends import TellsFeatures, half
from msklabel.predict.engine import Engine
from msklabel.predict.selection import Selection, site_of, version_key
from msklabel.predict.source import read_for
from msklabel.system import System

logger = logging.getLogger(__name__)
Wait = Callable[[], None]


class WeightStore(Protocol):
    """Where versions of models are kept; ``msklabel.learn.versions.Versions`` is one."""

    def serving(self, system: str, variant: str = "") -> str | None:
        """Name of the version in service; None before the first."""

    def names(self, system: str) -> list[str]:
        """Names of all versions, oldest first."""

    def weights(self, system: System, name: str) -> list[Weights]:
        """Weights of each member of a version, checked against the system."""


class Rescore:
    """Brings the scores of a store up to date.

    Args:
        chooser: Of the store.
        versions: Versions of models.
        device: Where to predict.
        wait: Called before each scan and between windows; returns when others, who come first, are done.
        select: Builds what runs a network on a processor; PyTorch as it is by default.
    """

    def __init__(
        self,
        chooser: Chooser,
        versions: WeightStore,
        device: str = "cpu",
        wait: Wait = lambda: None,
        select: Selection | None = None,
    ) -> None:
        self.chooser = chooser
        self.store = chooser.store
        self.versions = versions
        self.device = device
        self.wait = wait
        self.select = select or Selection()

    def __call__(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Score what is not up to date.

        Args:
            request: ``model`` or ``systems`` (all by default); ``limit``, the most scans; ``images_only`` to describe
                scans without asking a model.

        Returns:
            For each system how many scans were scored, could not be, and are left.

        Raises:
            UserError: If an option is wrong, or no scan could be reached.
            Exception: What went wrong with the first scan, if it did with all of a system.
        """
        limit = whole(request, "limit", 10**9)
        report = {}
        away: list[UserError] = []
        for name in self.chooser.wanted(request).systems:
            serving = None if request.get("images_only") else self.versions.serving(name)
            report[name] = self._system(name, serving, limit, away)
        if away and not any(said["scored"] or said["failed"] for said in report.values()):
            raise away[-1]
        return report

    def _system(self, name: str, serving: str | None, limit: int, away: list[UserError]) -> dict[str, Any]:
        """Score the scans of one system; ``away`` takes why scans could not be reached."""
        system = self.store.systems[name]
        due = self.due(name, serving)
        if not due[:limit]:
            return {"version": serving, "scored": 0, "failed": 0, "left": len(due)}
        judge = self._judge(system, serving)
        read = one_ahead(lambda image_id: self._read(system, image_id), due[:limit])
        started, scored, failed = time.monotonic(), 0, 0
        broken: dict[str, Exception] = {}
        for done, (image_id, scan) in enumerate(zip(due[:limit], read, strict=True), 1):
            self.wait()
            try:
                summary, values = judge(scan.result())
                scored += 1
            except UserError as error:
                logger.warning("%s: %s", image_id, error)
                if error.status >= 500 or not self.store.images.can_be_opened(image_id):
                    away.append(error)  # and judged when it is there again
                    continue
                summary, values = b"", {"unreadable": 1.0}
                failed += 1
                with suppress(UserError):  # it is noted, or was said already
                    self.store.images.look_again(image_id)
            except Exception as error:  # as too little memory for this one; the others are not to wait for it
                logger.exception("%s: could not be scored", image_id)
                broken[image_id] = error
                continue
            self.store.scores.put(image_id, name, serving or IMAGE_ONLY, summary, values)
            mean_s = (time.monotonic() - started) / done
            logger.info("%s: %d of %d scans scored, %.1f s each", name, done, min(limit, len(due)), mean_s)
        if broken and not scored:  # not one scan's fault
            raise next(iter(broken.values()))
        for image_id in broken:  # with the next version, or once its file is another one, it is tried again
            self.store.scores.put(image_id, name, serving or IMAGE_ONLY, b"", {"unreadable": 1.0})
        failed += len(broken)
        return {"version": serving, "scored": scored, "failed": failed, "left": len(due) - scored - failed}

    def _read(self, system: System, image_id: str) -> Scan:
        self.store.images.grid(image_id)  # noted as readable, so that who is given the scan need not wait for that
        return read_for(system, self.store.images.path(image_id))

    def due(self, name: str, serving: str | None) -> list[str]:
        """Scans to score, in the order of what their newest score promises; unlabelled ones first."""
        wanted = Wanted((name,), labelled_for=(name,))
        pool = self.chooser.facts.pool((name,), self.store.labels.finished(wanted.tag, (name,)))
        current = self._current(pool, name, serving)
        groups = []
        for open_scans in (pool.open & ~current, pool.fits[name] & ~pool.open & ~current):
            if open_scans.any():
                some = replace(pool, open=open_scans)
                groups += STRATEGIES["uncertain"](some, {}, np.random.default_rng(0)).places.tolist()
        return [pool.ids[place] for place in groups]

    def _current(self, pool: Pool, name: str, serving: str | None) -> Flags:
        if serving:
            return pool.opinions[name].fresh
        described = set(self.store.scores.of(name, IMAGE_ONLY))
        return np.array([image_id in described for image_id in pool.ids], bool)

    def _judge(self, system: System, serving: str | None) -> Callable[[Scan], tuple[bytes, dict[str, float]]]:
        """What turns a scan into a summary and its values."""
        if serving is None:
            preprocess = Preprocess(system)

            def describe(scan: Scan) -> tuple[bytes, dict[str, float]]:
                return image_features(preprocess(scan)).tobytes(), {}

            return describe
        earlier = [loaded_network(system, weights) for weights in self._earlier(system, serving)]
        summarise = Summarise(self._engine(system, serving), serving, earlier)

        def judge(scan: Scan) -> tuple[bytes, dict[str, float]]:
            _, summary = summarise(scan, lambda done, windows: self.wait())
            return to_bytes(summary), summary.values

        return judge

    def _engine(self, system: System, serving: str) -> Engine:
        """With what runs networks fastest, where that tells their features, and no dropout is asked for."""
        members, device = self.versions.weights(system, serving), torch.device(self.device)
        if device.type == "cpu" and not system.choose.dropout_passes:
            key = version_key(serving)
            first = self.select(system, members[0], device, key, 0)[1]
            if isinstance(first, TellsFeatures):
                others = [self.select(system, weights, device, key, n)[1] for n, weights in enumerate(members[1:], 1)]
                return Engine(system, [], device, [first, *others])
            del first  # the same network comes anew, with its features
        networks = [loaded_network(system, weights) for weights in members]
        return Engine(system, networks, device, [half(network, site_of(system, device)) for network in networks])

    def _earlier(self, system: System, serving: str) -> Sequence[Weights]:
        """The first members of the versions before the one in service, the latest first, as far as they fit."""
        names = self.versions.names(system.name)
        before = names[: names.index(serving)] if serving in names else []
        found: list[Weights] = []
        for name in reversed(before):
            if len(found) == system.choose.earlier_versions:
                break
            try:
                found.append(self.versions.weights(system, name)[0])
            except (UserError, ValueError):  # of another configuration
                continue
        return found
