"""How far an inference is, told to whoever asked for it, who can also end it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[int, int], None]
"""Called with windows done and windows in all; what it raises ends the inference."""

_REPORT: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def reported(report: Progress | None) -> Iterator[None]:
    """Within the block, in this thread, every inference reports here."""
    token = _REPORT.set(report)
    try:
        yield
    finally:
        _REPORT.reset(token)


def report() -> Progress | None:
    """Where an inference reports to; None for nowhere."""
    return _REPORT.get()
