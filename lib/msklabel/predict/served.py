"""The model in service: loaded once for each version, shared by all who ask."""

from __future__ import annotations

import threading
from typing import Protocol

import torch

from msklabel.errors import Conflict
from msklabel.imaging.scan import Scan
from msklabel.networks import Weights, loaded_network
from msklabel.predict.engine import Engine, Segmentation
from msklabel.system import System


class WeightSource(Protocol):
    """Where trained weights come from; ``msklabel.learn.versions.Versions`` is one."""

    def serving(self, system: str) -> str | None:
        """Name of the version in service; None before the first."""

    def weights(self, system: System, name: str) -> list[Weights]:
        """Weights of each member of a version, checked against the system."""


class ServedModel:
    """Segment with the published version of a system; a newly published one is taken up at the next call.

    Args:
        system: The system.
        versions: Where its versions lie.
        device: Where to predict; a GPU where there is one by default.
    """

    def __init__(self, system: System, versions: WeightSource, device: str | None = None) -> None:
        self.system = system
        self.versions = versions
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._lock = threading.Lock()
        self._loaded: tuple[str, Engine] | None = None

    @property
    def version(self) -> str | None:
        """Name of the version in service; None while nothing is trained."""
        return self.versions.serving(self.system.name)

    def __call__(self, scan: Scan) -> tuple[str, Segmentation]:
        """Segment a scan; returns the version's name too.

        Raises:
            Conflict: If no version is in service yet.
            UserError: If the scan does not fit the system, or the version's weights do not.
        """
        with self._lock:
            name, engine = self._engine()
            return name, engine(scan)

    def _engine(self) -> tuple[str, Engine]:
        name = self.version
        if name is None:
            first = f"start from {self.system.name}_threshold and " if self.system.thresholds else ""
            raise Conflict(f"{self.system.name} has no trained model yet: {first}train it on submitted labels")
        if self._loaded is None or self._loaded[0] != name:
            members = [loaded_network(self.system, weights) for weights in self.versions.weights(self.system, name)]
            self._loaded = name, Engine(self.system, members, self.device)
        return self._loaded
