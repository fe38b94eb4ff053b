"""The model in service: loaded once for each version, shared by all who ask."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch

from msklabel.errors import Conflict
from msklabel.imaging.scan import Scan
from msklabel.memory import much_memory_left, return_freed_memory, return_gpu_memory
from msklabel.networks import Weights
from msklabel.predict.backends import Forward
from msklabel.predict.engine import Engine, Segmentation
from msklabel.predict.infiltration import doubt_about_fat, fitting_variant, muscle_fat_fraction_percent
from msklabel.predict.selection import PLAIN, Selection, version_key
from msklabel.system import System

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class WeightSource(Protocol):
    """Where trained weights come from; ``msklabel.learn.versions.Versions`` is one."""

    def serving(self, system: str, variant: str = "") -> str | None:
        """Name of the version in service; None before the first."""

    def weights(self, system: System, name: str) -> list[Weights]:
        """Weights of each member of a version, checked against the system."""


class ServedModel:
    """Segment with the published version of a system.

    A new one is taken up at the next call, or once :meth:`load` is done with it: the one before answers until then.
    In a system with variants the first model's labels measure the scan, and the variant that fits it segments it again.

    Args:
        system: The system.
        versions: Where its versions lie.
        device: Where to predict; a GPU where there is one by default.
        select: Builds what runs a network; PyTorch as it is by default.
    """

    def __init__(
        self, system: System, versions: WeightSource, device: str | None = None, select: Selection | None = None
    ) -> None:
        self.system = system
        self.versions = versions
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.select = select or Selection()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._loaded: dict[str, _Loaded] = {}
        self._coming: str | None = None  # version that is loaded while the one before answers
        self._slow = False  # what is loaded: something faster is to be looked for

    @property
    def version(self) -> str | None:
        """Name of the version in service; None while nothing is trained."""
        return self.versions.serving(self.system.name)

    @property
    def behind(self) -> bool:
        """Whether the version in service can be loaded ahead, or anew as it turned out to be slow.

        In place of an older one, or if much memory is left.
        """
        name, loaded = self.version, self._loaded.get("")
        if name is None or (loaded and loaded.version != name):
            return name is not None
        return (not loaded or self._slow) and much_memory_left(self.device)

    @property
    def can_replace(self) -> bool:
        """Whether there is a version to answer while another one is loaded, and memory for both."""
        return "" in self._loaded and much_memory_left(self.device)

    def answering(self, variant: str = "") -> str | None:
        """Name of the version that a segmentation would come from now; None while nothing is trained."""
        name, loaded = self.versions.serving(self.system.name, variant), self._loaded.get(variant)
        return loaded.version if loaded and not variant and name and name == self._coming else name

    def load(self) -> None:
        """Get ready for the next scan: find out what runs the network fastest, where nobody has yet, and load it.

        Raises:
            Conflict: If no version is in service yet.
            UserError: If its weights do not fit the system.
        """
        with self._loading:
            name = self.version
            if name is None or not self.can_replace or (self._loaded[""].version == name and not self._slow):
                with self._lock:
                    self._engine("")
                return
            tried, self._coming, self._slow = self._slow, name, False
            try:
                loaded = self._load("", name)
                with self._lock:  # who segments with the one before is let finish
                    if self.version == name:
                        self._loaded[""] = loaded
            finally:
                self._coming = None
            return_freed_memory()
            if tried and loaded.backend != PLAIN:
                self._bring_variants()

    def _bring_variants(self) -> None:
        """Load variants that run on PyTorch as it is on what was found faster; they answer until then."""
        with self._lock:
            plain = {variant: one for variant, one in self._loaded.items() if variant and one.backend == PLAIN}
        for variant, before in plain.items():
            if not self.can_replace or self.versions.serving(self.system.name, variant) != before.version:
                continue
            loaded = self._load(variant, before.version)
            with self._lock:
                if self._loaded.get(variant) is before:
                    self._loaded[variant] = loaded
            return_freed_memory()

    def __call__(self, scan: Scan) -> tuple[str, Segmentation]:
        """Segment a scan; returns the version's name too.

        Raises:
            Conflict: If no version is in service yet.
            UserError: If the scan does not fit the system, or the version's weights do not.
        """
        with self._alone():
            loaded = self._engine("")
            name, result = loaded.version, loaded.segment(scan)
            if loaded.backend == PLAIN:
                self._slow |= self.select.slow(self.system, torch.device(self.device), result.seconds["network"])
            if not self.system.variants:
                return name, result
            percent = muscle_fat_fraction_percent(self.system, scan, result.labels.array)
            fitting = fitting_variant(self.system, percent)
            served = bool(fitting) and self.versions.serving(self.system.name, fitting) is not None
            if served:
                loaded = self._engine(fitting)
                name, result = f"{loaded.version} ({fitting})", loaded.segment(scan)
            return name, replace(result, facts=self._facts(scan, result, percent, "" if served else fitting))

    def apply(self, work: Callable[[Engine], Result]) -> Result:
        """Use the engine of the version in service, alone.

        Raises:
            Conflict: If no version is in service yet.
        """
        with self._alone():
            return work(self._engine("").engine)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One after the other; what the largest scan took of a GPU is then there for a training."""
        with self._lock:
            try:
                yield
            finally:
                return_gpu_memory(self.device)

    def _facts(self, scan: Scan, result: Segmentation, percent: float, missing: str) -> dict[str, Any]:
        """The fat fraction that decided, and what speaks against the model that was taken."""
        doubt = doubt_about_fat(self.system, scan, result.labels.array, percent)
        warnings = [doubt] if doubt else []
        if missing:
            warnings.append(
                f"the muscles' fat fraction is {percent:.0f} %, but the model for such scans, {missing}, is not "
                "trained yet; the first model was not made for them"
            )
        for warning in warnings:
            logger.warning("%s: %s", self.system.name, warning)
        known = None if math.isnan(percent) else round(percent, 1)
        return {**result.facts, "fat_fraction_percent": known, "warnings": warnings}

    def _engine(self, variant: str) -> _Loaded:
        name = self.versions.serving(self.system.name, variant)
        if name is None:
            first = f"start from {self.system.name}_threshold and " if self.system.thresholds else ""
            raise Conflict(f"{self.system.name} has no trained model yet: {first}train it on submitted labels")
        if variant not in self._loaded or self._loaded[variant].version != self.answering(variant):
            self._loaded.pop(variant, None)  # two versions at once would need twice the memory
            return_freed_memory()
            self._loaded[variant] = self._load(variant, name)
            return_freed_memory()
        return self._loaded[variant]

    def _load(self, variant: str, name: str) -> _Loaded:
        device = torch.device(self.device)
        members = self.versions.weights(self.system, name)
        chosen: list[tuple[str, Forward]] = []
        while members:
            chosen.append(self.select(self.system, members.pop(0), device, version_key(name, variant), len(chosen)))
        backends, run = zip(*chosen, strict=True)
        return _Loaded(name, Engine(self.system, [], device, run), ", ".join(sorted(set(backends))))


@dataclass(frozen=True)
class _Loaded:
    """A version, ready to run, and what runs it."""

    version: str
    engine: Engine
    backend: str

    def segment(self, scan: Scan) -> Segmentation:
        """Segment a scan, and say what ran the network."""
        result = self.engine(scan)
        return replace(result, facts={**result.facts, "backend": self.backend})
