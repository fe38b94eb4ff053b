"""A child process that does one piece of work: what goes in, what it says, how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Any

from msklabel.errors import UserError


class JobError(UserError):
    """A job that failed; the status is that of the error in the child, 500 if it gave none."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class AppSource:
    """All that a child needs to build the app again.

    Attributes:
        factory: ``module:name`` of the app's class.
        app_dir: Its first argument.
        studies: Its second: folder of the images.
        conf: Its third: the ``--conf`` keys and values.
    """

    factory: str
    app_dir: str
    studies: str
    conf: Mapping[str, str]


class Child:
    """``python -m msklabel.jobs.worker METHOD``: job on stdin, answer on stdout, log on stderr.

    The pipe to its stdin stays open: when this process ends, however it does, the child notices.
    It has a session of its own, so that Ctrl-C in the terminal reaches the server alone, which then stops it in order.

    Args:
        method: ``train``, ``scoring``, ``batch_infer`` or ``background``.
        request: What the app's method takes.
        source: The app.
        environment: Added to this process's environment.
    """

    def __init__(
        self, method: str, request: Mapping[str, Any], source: AppSource, environment: Mapping[str, str]
    ) -> None:
        self._answer = _room_for_answer()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "msklabel.jobs.worker", method],
            stdin=subprocess.PIPE,
            stdout=self._answer,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._timer: threading.Timer | None = None
        job = {"app": asdict(source), "request": dict(request)}
        if self.process.stdin:
            with suppress(BrokenPipeError):
                self.process.stdin.write(json.dumps(job, default=str).encode() + b"\n")
                self.process.stdin.flush()

    def lines(self) -> Iterator[str]:
        """What it logs, line by line, until it ends."""
        for line in self.process.stderr or ():
            yield line.decode(errors="replace").rstrip()

    def answer(self) -> Any:
        """Wait for the end and return the result.

        Raises:
            JobError: If it failed, or ended without a word.
        """
        code = self.process.wait()
        if self._timer:
            self._timer.cancel()
        with self._answer, suppress(OSError):
            self._answer.seek(0)
            text = self._answer.read()
        for pipe in (self.process.stdin, self.process.stderr):
            if pipe:
                with suppress(OSError):
                    pipe.close()
        try:
            answer = json.loads(text)
        except ValueError:
            raise JobError(f"the process {_ended(code)} without an answer") from None
        if "error" in answer:
            raise JobError(answer["error"], answer["status"])
        return answer["result"]

    def stop(self, grace_s: float) -> None:
        """Ask it to stop at its next checkpoint; kill it with all its children when the grace is over."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        self._timer = threading.Timer(grace_s, self._kill)
        self._timer.daemon = True
        self._timer.start()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _room_for_answer() -> IO[bytes]:
    """In memory where the system can: what a job has to say about a full disk does not fit on that."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("answer"), "w+b")
    return tempfile.TemporaryFile()


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
