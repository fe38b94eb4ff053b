"""Start trainings by the policy: a thread that looks at what is stored, now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from msklabel.errors import UserError
from msklabel.jobs.process import Job, JobRunner
from msklabel.learn.policy import Policy, due, parse_policy

if TYPE_CHECKING:
    from msklabel.app import MskLabelApp

logger = logging.getLogger(__name__)
_EVERY_S = 15.0


class AutoTrain:
    """Looks for systems whose new labels are to be learned from, and queues one training at a time.

    Args:
        policies: For each system how much is waited for.
        labels: For a system each label that counts, by its key, and when it was stored (s since 1970).
        considered: For a system the labels that its newest version was made from.
        jobs: Runs trainings.
        elsewhere: Whether another process trains a system: the next look finds what is due then.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        labels: Callable[[str], Mapping[str, float]],
        considered: Callable[[str], set[str]],
        jobs: JobRunner,
        elsewhere: Callable[[str], bool] = lambda system: False,
    ) -> None:
        self._policies = policies
        self._labels = labels
        self._considered = considered
        self._jobs = jobs
        self._elsewhere = elsewhere
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="auto-train", daemon=True)
        self._started: dict[str, tuple[Job, set[str]]] = {}

    def open(self) -> None:
        """Start to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; a running training is not touched."""
        self._closed.set()

    def look(self, now_s: float) -> Job | None:
        """Start at most one training, if none runs or waits; returns its job."""
        if any(job.status in ("SUBMITTED", "RUNNING") for job in self._jobs.jobs("train")):
            return None
        for system, policy in self._policies.items():
            labels = self._labels(system)
            reason = due(labels, self._considered(system), self._tried(system), now_s, policy)
            if reason and not self._elsewhere(system):
                logger.info("%s: training by itself: %s", system, reason)
                job = self._jobs.start("train", {"model": system, "resume": True, "reason": reason}, enqueue=True)
                self._started[system] = job, set(labels)
                return job
        return None

    def _tried(self, system: str) -> set[str]:
        """Labels of the last training of a system, if that failed or was stopped: by hand, or by this thread."""
        job, labels = self._started.get(system, (None, set()))
        stopped = [j for j in self._jobs.jobs("train") if j.request.get("model") == system][-1:]
        if stopped and stopped[0] is not job:
            return set()
        return labels if job and job.status in ("ERROR", "STOPPED") else set()

    def _watch(self) -> None:
        while not self._closed.wait(_EVERY_S):
            try:
                self.look(time.time())
            except UserError as error:
                logger.warning("no training by itself: %s", error)
            except Exception:
                logger.exception("cannot look for new labels")


def watch(app: MskLabelApp, jobs: JobRunner) -> AutoTrain:
    """The thread of an app, by its options."""
    waits = dict(app.options.train_after)
    policies = {name: parse_policy(waits.get(name, waits[""])) for name in app.systems}
    store: Any = app.datastore()

    def key_of(pair: Any) -> str:
        key: str = pair.annotated.key(pair.sha256)
        return key

    def labels(system: str) -> dict[str, float]:
        return {key_of(pair): pair.label.stat().st_mtime for pair in store.training_pairs(system)}

    def considered(system: str) -> set[str]:
        """Without what was held back and has been accepted since: that is new to the next training."""
        held = app.versions.held(system)
        accepted = {key_of(p) for p in store.training_pairs(system) if p.state == "accepted"} if held else set()
        return app.versions.considered(system) - (held & accepted)

    def elsewhere(system: str) -> bool:
        try:
            with app.versions.training(system):
                return False
        except Timeout:
            return True

    return AutoTrain(policies, labels, considered, jobs, elsewhere)
