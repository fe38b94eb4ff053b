"""Which backend runs a network: measured on first use, remembered, and checked for every model version."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msklabel.durable import replace_text
from msklabel.predict.backends import BACKENDS, Forward, Site, candidates, eager, require_backend
from msklabel.system import System

logger = logging.getLogger(__name__)
AUTO = "auto"
_FILE = "backends.json"
_QUICK_S = 0.1  # a window that takes less is not worth a minute of trials
_LEAST_EQUAL = 0.999  # share of voxels whose label is that of PyTorch as it is
_ADVANTAGE = 0.9  # share of the time of PyTorch as it is that another backend must come below


class Selection:
    """Builds what runs a network.

    Args:
        folder: Where measurements are kept; None keeps none.
        backend: Name of a backend, or ``auto`` for the fastest one.
    """

    def __init__(self, folder: Path | None = None, backend: str = AUTO) -> None:
        self.folder = folder
        self.backend = backend

    def __call__(self, system: System, network: nn.Module, device: torch.device) -> Forward:
        """What runs a network on a device.

        Args:
            system: Its system.
            network: With its weights.
            device: Where.

        Raises:
            UserError: If the backend that is asked for cannot be used here.
        """
        site = Site(device, torch.zeros(1, len(system.channels), *system.patch_voxels[: system.dimensions]))
        if self.backend != AUTO:
            require_backend(self.backend, device)
            return BACKENDS[self.backend](network, site)
        known = self._remembered().get(_key(system, site))
        if known:
            name = str(known["backend"])
            if name == "eager":
                return eager(network, site)
            found = self._trial(name, network, site)
            return found[0] if found else eager(network, site)
        return self._measured(system, network, site)

    def _measured(self, system: System, network: nn.Module, site: Site) -> Forward:
        """Try all backends, remember the fastest."""
        best = eager(network, site)
        seconds = {"eager": _seconds(best, site)}
        if seconds["eager"] < _QUICK_S:
            return best
        chosen = "eager"
        for name in candidates(site.device)[1:]:
            found = self._trial(name, network, site)
            if found is None:
                continue
            seconds[name] = found[1]
            if found[1] < _ADVANTAGE * seconds[chosen]:
                chosen, best = name, found[0]
        logger.info("%s: %s runs a window fastest: %s", system.name, chosen, seconds)
        self._remember(_key(system, site), {"backend": chosen, "seconds": seconds})
        return best

    def _trial(self, name: str, network: nn.Module, site: Site) -> tuple[Forward, float] | None:
        """A backend with its seconds for a window; None, and a word in the log, where it fails or differs."""
        try:
            forward = BACKENDS[name](network, site)
            equal = _share_equal(forward, eager(network, site), site)
            if equal >= _LEAST_EQUAL:
                return forward, _seconds(forward, site)
            logger.warning("backend %s gives %.2f %% of voxels another label; not used", name, 100 * (1 - equal))
        except (RuntimeError, ImportError, ValueError) as error:
            logger.warning("backend %s cannot run this network: %s", name, error)
        return None

    def _remembered(self) -> dict[str, Any]:
        try:
            known = json.loads((self.folder / _FILE).read_text(encoding="utf-8")) if self.folder else {}
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _remember(self, key: str, measured: dict[str, Any]) -> None:
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            known = {**self._remembered(), key: measured}
            replace_text(self.folder / _FILE, json.dumps(known, indent=1) + "\n")


def _seconds(forward: Forward, site: Site) -> float:
    """Time for one window, after a first one."""
    window = _window(site)
    with torch.inference_mode():
        forward(window)
        _wait_for(site.device)
        started = time.perf_counter()
        forward(window)
        _wait_for(site.device)
    return round(time.perf_counter() - started, 4)


def _share_equal(one: Forward, other: Forward, site: Site) -> float:
    """Share of a window's voxels that get the same label from both."""
    window = _window(site)
    with torch.inference_mode():
        return float((one(window).argmax(1) == other(window).argmax(1)).float().mean())


def _window(site: Site) -> torch.Tensor:
    return torch.rand(site.window.shape, generator=torch.Generator().manual_seed(0)).to(site.device)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _key(system: System, site: Site) -> str:
    """What a measurement holds for: network, window, machine, threads and versions of the libraries."""
    machine = torch.cuda.get_device_name(site.device) if site.device.type == "cuda" else platform.processor()
    facts = {
        "network": system.network.model_dump(mode="json"),
        "window": list(site.window.shape),
        "classes": system.classes,
        "device": f"{site.device.type} {machine or platform.machine()}",
        "threads": torch.get_num_threads(),
        "libraries": [torch.__version__, *(_version(name) for name in ("openvino",))],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return f"{system.name} {system.profile} {digest}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
