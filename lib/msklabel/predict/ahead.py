"""Segmentations that were made before anybody asked, a bounded number of them, each good for one state of things."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msklabel.imaging.files import Stamp


def new_result(name: str) -> Path:
    """An empty temporary file, named after ``name``; a file without a folder, as servers remove that alone."""
    stem, dot, suffix = name.partition(".")
    handle, file = tempfile.mkstemp(prefix=f"msklabel-{stem}-", suffix=dot + suffix)
    os.close(handle)
    return Path(file)


def name_of_result(file: Path) -> str:
    """The name that :func:`new_result` was given."""
    stem, dot, suffix = file.name.partition(".")
    return stem.removeprefix("msklabel-").rpartition("-")[0] + dot + suffix


@dataclass(frozen=True)
class Question:
    """What a segmentation answers; another version of a model or another file is another question.

    Attributes:
        system: Name of the system.
        path: The scan.
        stamp: Changes when the scan's files do.
        suffix: Of the result's file.
        versions: In service, of the system and its variants.
    """

    system: str
    path: str
    stamp: Stamp
    suffix: str
    versions: tuple[str | None, ...]


class Ahead:
    """Results among the process's temporary files; the one that was longest not asked for goes first.

    Args:
        most: How many are kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._folder: Path | None = None  # made with the first
        self._kept: OrderedDict[Question, tuple[Path, dict[str, Any]]] = OrderedDict()

    def holds(self, question: Question) -> bool:
        """Whether there is an answer."""
        with self._lock:
            return question in self._kept

    def take(self, question: Question) -> tuple[str, dict[str, Any]] | None:
        """A copy of the result's file, the caller's to remove, and facts for the client; None where there is none."""
        with self._lock:
            if question not in self._kept:
                return None
            self._kept.move_to_end(question)
            file, facts = self._kept[question]
            copy = new_result(file.name)
            try:
                shutil.copyfile(file, copy)
            except OSError:
                copy.unlink(missing_ok=True)
                raise
            return str(copy), dict(facts)

    def put(self, question: Question, file: Path, facts: Mapping[str, Any]) -> None:
        """Keep a result; its file is moved. Those of other versions of the system's model go."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="msklabel-ahead-"))
            place = Path(tempfile.mkdtemp(dir=self._folder)) / f"{question.system}{question.suffix}"
            shutil.move(file, place)
            self._drop(question)
            self._kept[question] = place, dict(facts)
            old = [q for q in self._kept if q.system == question.system and q.versions != question.versions]
            for gone in [*old, *list(self._kept)[: max(0, len(self._kept) - len(old) - self.most)]]:
                self._drop(gone)

    def close(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _drop(self, question: Question) -> None:
        kept = self._kept.pop(question, None)
        if kept:
            shutil.rmtree(kept[0].parent, ignore_errors=True)
