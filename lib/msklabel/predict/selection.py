"""Which backend runs a network: measured on first use, remembered, and checked for every model version."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import math
import platform
import shutil
from pathlib import Path
from typing import Any

import torch

from msklabel.durable import replace_text
from msklabel.networks import Weights, loaded_network
from msklabel.predict.backends import BACKENDS, OPENVINO_PRECISIONS, Forward, Site, candidates, require_backend
from msklabel.predict.trial import converted_file, kept_backend, run_apart, try_backends
from msklabel.system import System

logger = logging.getLogger(__name__)
AUTO = "auto"
PLAIN = "eager"
CONVERTED = tuple(OPENVINO_PRECISIONS)
_FILE = "backends.json"
_QUICK_VOXELS = 2**17  # a smaller window is not worth a minute of trials, unless scans have very many of them
_SLOW_S = 2.0  # that the network takes for a scan of those


class Selection:
    """Builds what runs a network.

    Trials and conversions run in a process of their own, whose memory goes with it. A converted network is kept beside
    its measurements until another version of its model is converted.

    Args:
        folder: Where both are kept; None keeps nothing and tries nothing.
        backend: Name of a backend, or ``auto`` for the fastest one.
    """

    def __init__(self, folder: Path | None = None, backend: str = AUTO) -> None:
        self.folder = folder
        self.backend = backend

    def __call__(
        self, system: System, weights: Weights, device: torch.device, version: str, member: int
    ) -> tuple[str, Forward]:
        """What runs a network on a device, and its name among the backends.

        Args:
            system: Its system.
            weights: Its weights.
            device: Where.
            version: Variant and name of the weights' version, ``first/0001``; weights never change under it.
            member: Number of the network in its ensemble.

        Raises:
            UserError: If the backend that is asked for cannot be used here.
        """
        site = site_of(system, device)
        if self.backend != AUTO:
            require_backend(self.backend, device)
            return self._in_process(self.backend, system, weights, site)
        key = _key(system, site)
        remembered = self._remembered()
        if self.folder is None or (_is_quick(system) and key not in remembered):
            return self._in_process(PLAIN, system, weights, site)
        known = remembered.get(key, {}).get("backend")
        kept = self._place(system, version, member)
        chosen = kept_backend(kept) if known in CONVERTED else None
        if chosen:
            known = chosen
        elif known is None:
            names = [name for name in candidates(device) if name != PLAIN]
            found = self._tried(system, weights, device, names, kept)
            self._remember(key, found)
            logger.info("%s runs a window fastest with %s: %s", system.name, found["backend"], found["seconds"])
            known = found["backend"]
        elif known in CONVERTED:  # another version: f32 is there for those whose labels need it
            names = list(dict.fromkeys([known, CONVERTED[0]]))
            known = self._tried(system, weights, device, names, kept, timed=False)["backend"]
        elif known != PLAIN and device.type != "cpu":  # on a GPU nothing is kept: each time a version is loaded
            known = self._tried(system, weights, device, [known], kept, timed=False)["backend"]
        if known in CONVERTED:
            return known, _converted(kept, known)
        return self._in_process(known, system, weights, site)

    def slow(self, system: System, device: torch.device, network_s: float) -> bool:
        """Take note of how long the network took for a scan with PyTorch as it is.

        Returns:
            Whether it took so long that, from the next loading on, a trial is worth its time, which it was not before.
        """
        if self.folder is None or self.backend != AUTO or network_s < _SLOW_S or not _is_quick(system):
            return False
        key = _key(system, site_of(system, device))
        if key in self._remembered():
            return False
        self._remember(key, {"scan_s": round(network_s, 1)})
        logger.info("%s: the network took %.1f s for a scan; what runs it faster is looked for", system.name, network_s)
        return True

    def _in_process(self, name: str, system: System, weights: Weights, site: Site) -> tuple[str, Forward]:
        return name, BACKENDS[name](loaded_network(system, weights), site)

    def _tried(
        self,
        system: System,
        weights: Weights,
        device: torch.device,
        names: list[str],
        kept: Path,
        timed: bool = True,
    ) -> dict[str, Any]:
        """The outcome of a trial; on a processor in a process of its own, on a GPU here, where the memory is."""
        if device.type != "cpu":
            return try_backends(system, loaded_network(system, weights), device, names, timed=timed)
        others = [folder for folder in kept.parent.parent.glob("*") if folder != kept.parent]
        kept.parent.mkdir(parents=True, exist_ok=True)
        found = run_apart(system, weights, names, kept, timed)
        for folder in others:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    def _place(self, system: System, version: str, member: int) -> Path:
        """Where a converted network is kept."""
        assert self.folder is not None
        return self.folder / "converted" / system.name / f"{version}-{system.fingerprint[:12]}" / str(member)

    def _remembered(self) -> dict[str, Any]:
        try:
            known = json.loads((self.folder / _FILE).read_text(encoding="utf-8")) if self.folder else {}
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _remember(self, key: str, found: dict[str, Any]) -> None:
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            known = {**self._remembered(), key: found}
            replace_text(self.folder / _FILE, json.dumps(known, indent=1) + "\n")


def version_key(version: str, variant: str = "") -> str:
    """Name of a version's weights among those of a system."""
    return f"{variant or 'first'}/{version}"


def _is_quick(system: System) -> bool:
    return math.prod(system.patch_voxels) < _QUICK_VOXELS


def site_of(system: System, device: torch.device) -> Site:
    """Where a system's network runs."""
    return Site(device, torch.zeros(1, len(system.channels), *system.patch_voxels[: system.dimensions]))


def _converted(kept: Path, name: str) -> Forward:
    from msklabel.predict.on_openvino import compile_model

    return compile_model(converted_file(kept), OPENVINO_PRECISIONS[name])


def _key(system: System, site: Site) -> str:
    """What a measurement holds for: network, window, machine, threads and versions of the libraries."""
    machine = torch.cuda.get_device_name(site.device) if site.device.type == "cuda" else platform.processor()
    facts = {
        "network": system.network.model_dump(mode="json"),
        "window": list(site.window.shape),
        "classes": system.classes,
        "device": f"{site.device.type} {machine or platform.machine()}",
        "threads": torch.get_num_threads(),
        "backends": candidates(site.device),
        "libraries": [torch.__version__, _version(CONVERTED[0])],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return f"{system.name} {system.profile} {digest}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
