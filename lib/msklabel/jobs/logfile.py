"""A log file for each job, the oldest removed."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO

_KEPT = 50


class JobLog:
    """Append lines to ``<folder>/<kind>-<time>-<id>.log``; a full disk costs the log, never the job.

    Args:
        folder: Made if missing.
        kind: Kind of job.
        job_id: Its id.
    """

    def __init__(self, folder: Path, kind: str, job_id: str) -> None:
        self._folder = folder
        self._kind = kind
        self.file = folder / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}-{job_id[:8]}.log"
        self._stream: IO[str] | None = None

    def __enter__(self) -> JobLog:
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in sorted(self._folder.glob(f"{self._kind}-*.log"))[: 1 - _KEPT]:
                old.unlink()
            self._stream = self.file.open("a", encoding="utf-8", buffering=1)
        return self

    def write(self, line: str) -> None:
        """Add one line."""
        if self._stream:
            with suppress(OSError):
                self._stream.write(line + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream:
            with suppress(OSError):
                self._stream.close()
