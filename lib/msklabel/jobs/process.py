"""Training, scoring and batch inference as child processes: one of a kind at a time, the others wait."""

from __future__ import annotations

import logging
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from msklabel.errors import UserError
from msklabel.jobs.child import AppSource, Child, JobError
from msklabel.jobs.logfile import JobLog

logger = logging.getLogger(__name__)
KINDS = ("train", "scoring", "batch_infer", "background", "quantities")
Record = Callable[[str, str, Mapping[str, Any], str, str | None], None]
"""Keeps the present state of a job: id, kind, request, status, last line; see ``msklabel.store.jobs.Jobs.put``."""
_KEPT = 100  # jobs that have ended, and the most that may wait
_DETAILS = 20
_ACTIVE = ("RUNNING", "SUBMITTED")


class AlreadyRunning(UserError):
    """A job of this kind runs, and the caller did not ask to queue; or as many wait as anybody may want."""

    status = 429


class Ending(UserError):
    """The server ends: what it started now would be cut off."""

    status = 503


@dataclass
class Job:
    """One run of a method of the app.

    Attributes:
        kind: One of KINDS.
        request: What the app's method is given.
        status: SUBMITTED, RUNNING, DONE, ERROR or STOPPED.
        details: The last lines of its log.
        outcome: Its result, once it has one.
    """

    kind: str
    request: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "SUBMITTED"
    start_ts: str = field(default_factory=lambda: _now())
    end_ts: str | None = None
    details: deque[str] = field(default_factory=lambda: deque(maxlen=_DETAILS))
    outcome: Future[Any] = field(default_factory=Future)
    child: Child | None = None

    def accepted(self) -> dict[str, Any]:
        """What whoever asked for it is told at once, whether or not it runs by then."""
        return {"id": self.id, "status": "SUBMITTED", "request": self.request, "start_ts": self.start_ts}

    def describe(self) -> dict[str, Any]:
        """The status as clients of MONAI Label know it."""
        known = {"id": self.id, "status": self.status, "request": self.request, "start_ts": self.start_ts}
        if self.end_ts:
            known["end_ts"] = self.end_ts
        if self.details:
            known["details"] = list(self.details)
        return known


class JobRunner:
    """Starts, lists and stops jobs; safe to call from any thread.

    Args:
        source: What a child builds its app from.
        logs: Folder for one log file for each job.
        grace_s: Seconds between asking a job to stop and killing it.
        on_change: Called when a job starts or ends, from its thread.
        record: Keeps what is known of a job after this process; a record that fails never stops a job.
        others: What a child of some kinds builds instead of the app.
    """

    def __init__(
        self,
        source: AppSource,
        logs: Path,
        grace_s: float = 20.0,
        on_change: Callable[[Job], None] | None = None,
        record: Record | None = None,
        others: Mapping[str, AppSource] | None = None,
    ) -> None:
        self._source = source
        self._others = dict(others or {})
        self._logs = logs
        self._grace_s = grace_s
        self._on_change = on_change or (lambda job: None)
        self._record = record
        self._recording = threading.Lock()
        self._changed = threading.Condition()
        self._jobs: dict[str, list[Job]] = {kind: [] for kind in KINDS}
        self._threads: dict[str, threading.Thread] = {}
        self._closed = False

    def start(self, kind: str, request: Mapping[str, Any], enqueue: bool = False) -> Job:
        """Start a job, or queue it behind the running one.

        A job that was told to stop counts as stopped, though it may still be writing its checkpoint. It is recorded
        before this returns, which takes as long as the database does.

        Raises:
            AlreadyRunning: If one runs or waits and ``enqueue`` is false, or too many wait.
            Ending: If all were told to stop for good.
        """
        with self._changed:
            if self._closed:
                raise Ending(f"no {kind} job is started, as the server is ending")
            if not enqueue and self._active(kind):
                raise AlreadyRunning(f"a {kind} job is running already; stop it first, or enqueue=true")
            active = [job for job in self._jobs[kind] if job.status in _ACTIVE]
            if len(active) > _KEPT:
                raise AlreadyRunning(f"{len(active) - 1} {kind} jobs are waiting already; try again later")
            job = Job(kind, dict(request))
            ended = [job for job in self._jobs[kind] if job.status not in _ACTIVE]
            self._jobs[kind] = [*ended[-_KEPT:], *active, job]
            if kind not in self._threads:
                self._threads[kind] = threading.Thread(target=self._work, args=(kind,), name=f"job-{kind}", daemon=True)
                self._threads[kind].start()
            self._changed.notify_all()
        self._keep(job)
        return job

    def running(self, kind: str) -> Job | None:
        """The job that runs now, else the one about to: whoever starts a job and waits for its end never misses it."""
        with self._changed:
            return self._active(kind)

    def jobs(self, kind: str) -> list[Job]:
        """Jobs that have ended since the start, at most the last hundred, then those that run or wait."""
        with self._changed:
            return list(self._jobs[kind])

    def stop(self, kind: str) -> Job | None:
        """Stop the running job at its next checkpoint, else take the next waiting one out; None if there is none."""
        with self._changed:
            job = self._active(kind)
            if job is not None:
                self._stop(job)
        if job is not None:
            self._keep(job)
        return job

    def close(self) -> None:
        """Stop everything and wait until it has stopped; nothing can be started any more."""
        with self._changed:
            self._closed = True
            active = [job for jobs in self._jobs.values() for job in jobs if job.status in _ACTIVE]
            for job in active:
                self._stop(job)
            self._changed.notify_all()
        for job in active:
            self._keep(job)
        for thread in self._threads.values():
            thread.join(self._grace_s + 5)

    def _active(self, kind: str) -> Job | None:
        active = [job for job in self._jobs[kind] if job.status in _ACTIVE]
        return min(active, key=lambda job: job.status, default=None)  # RUNNING sorts first

    def _stop(self, job: Job) -> None:
        job.status, job.end_ts = "STOPPED", _now()
        if not job.details:
            job.details.append("stopped before it started")
        if job.child:
            job.child.stop(self._grace_s)
        elif not job.outcome.done():
            job.outcome.set_exception(JobError("stopped before it started", 409))

    def _work(self, kind: str) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next(kind) is not None)
                job = self._next(kind)
                if job is None:
                    return
                job.status = "RUNNING"
                job.details.append(f"{_now()} started")
            self._run(job)

    def _next(self, kind: str) -> Job | None:
        return next((job for job in self._jobs[kind] if job.status == "SUBMITTED"), None)

    def _keep(self, job: Job) -> None:
        """Record a job as it is now; one after the other, so that the last record is of the last state."""
        if self._record is None:
            return
        with self._recording:
            try:
                self._record(job.id, job.kind, job.request, job.status, job.details[-1] if job.details else None)
            except Exception:
                logger.exception("%s job %s could not be recorded", job.kind, job.id)

    def _run(self, job: Job) -> None:
        self._keep(job)
        self._on_change(job)
        request, environment = _for_child(job)
        source = self._others.get(job.kind, self._source)
        try:
            with (
                tempfile.TemporaryDirectory(prefix=f"{job.kind}-", ignore_cleanup_errors=True) as scratch,
                JobLog(self._logs, job.kind, job.id) as log,
            ):
                with self._changed:
                    if job.status == "RUNNING":
                        job.child = Child(job.kind, request, source, {**environment, "TMPDIR": scratch})
                if job.child is None:
                    return
                for line in job.child.lines():
                    if line:
                        job.details.append(line)
                        log.write(line)
                self._settle(job, None, job.child.answer())
        except Exception as error:
            if not isinstance(error, JobError):
                logger.exception("%s job %s could not be run", job.kind, job.id)
            self._settle(job, error)

    def _settle(self, job: Job, error: Exception | None, result: Any = None) -> None:
        with self._changed:
            job.end_ts = _now()
            if job.status == "RUNNING":
                job.status = "ERROR" if error else "DONE"
            told = "stopped" if job.status == "STOPPED" else str(error)  # which it may not say itself
            if error and told not in (job.details[-1] if job.details else ""):
                job.details.append(told)
        self._keep(job)
        if job.outcome.done():
            pass  # stopped before it had a process: who waited for it was told then
        elif error:
            job.outcome.set_exception(error)
        else:
            job.outcome.set_result(result)
        logger.info("%s job %s: %s", job.kind, job.id, job.status)
        self._on_change(job)


def _for_child(job: Job) -> tuple[dict[str, Any], dict[str, str]]:
    """The request and the environment of a job's process: which GPUs it sees, and that it starts no job itself."""
    environment = {"MONAI_LABEL_AUTO_UPDATE_SCORING": "false", "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false"}
    gpus = job.request.get("gpus")
    if gpus and gpus != "all":
        environment["CUDA_VISIBLE_DEVICES"] = str(gpus)
        return {**job.request, "gpus": "all"}, environment
    return job.request, environment


def _now() -> str:
    return datetime.now().strftime("%Y-%m-%d %H:%M:%S")
