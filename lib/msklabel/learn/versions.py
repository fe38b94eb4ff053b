"""Model versions: immutable weights, and an atomic pointer to the one that is served.

``<root>/<system>/<version>/{weights.safetensors, system.yaml, metrics.json}`` and ``<root>/<system>/serving``
(and ``serving_<variant>``). The
members of an ensemble are ``weights.safetensors``, ``weights_1.safetensors`` and so on.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from msklabel.durable import flush, remove_left, replace_text, sha256_of
from msklabel.errors import Conflict, NotFound, UserError
from msklabel.learn.record import to_json
from msklabel.networks import Weights
from msklabel.system import System

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"
_BUILDING = ".building-"
_LOOKED_AT_S = 0.3  # longer than anybody looks at a lock
_POINTER = "serving"


@dataclass(frozen=True)
class Version:
    """A stored model: its name (``0001``, ``0002`` and so on) and what was measured of it."""

    system: str
    name: str
    metrics: dict[str, Any]


class Versions:
    """The versions of all systems under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, system: System, members: Sequence[Weights], metrics: dict[str, Any]) -> Version:
        """Store the weights of one network or of an ensemble as the next version.

        It exists whole or not at all, and is not served yet.
        """
        folder = self.root / system.name
        folder.mkdir(parents=True, exist_ok=True)
        remove_left(folder, f"{_BUILDING}*")
        building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder))
        try:
            facts = {"system": system.name, "fingerprint": system.fingerprint, "profile": system.profile}
            for number, weights in enumerate(members):
                save_file(weights, building / _member_name(number), metadata=facts)
            document = system.model_dump(mode="json", exclude_unset=True)
            (building / "system.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
            sums = {file.name: sha256_of(file) for file in sorted(building.glob("*.safetensors"))}
            metrics = {**metrics, "weights_sha256": sums}
            (building / "metrics.json").write_text(to_json(metrics), encoding="utf-8")
            for file in [*building.iterdir(), building]:
                flush(file)
            name = self._next_name(system.name)
            building.chmod(0o755)
            building.rename(folder / name)
            flush(folder)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        return Version(system.name, name, metrics)

    def names(self, system: str) -> list[str]:
        """Names of all versions of a system, oldest first."""
        folder = self.root / system
        return sorted(path.name for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []

    def get(self, system: str, name: str) -> Version:
        """A stored version.

        Raises:
            NotFound: If there is none of that name.
        """
        if name not in self.names(system):
            raise NotFound(f"{system} has no version {name!r}; versions: {', '.join(self.names(system)) or 'none'}")
        text = (self.root / system / name / "metrics.json").read_text(encoding="utf-8")
        return Version(system, name, json.loads(text))

    def serving(self, system: str, variant: str = "") -> str | None:
        """Name of the version in service; None before the first is published."""
        try:
            return (self.root / system / _pointer(variant)).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def overview(self, system: str, variants: Iterable[str] = ()) -> dict[str, Any]:
        """The versions of a system for clients.

        Returns:
            ``serving``, ``versions`` with what was measured, ``history``; ``variants``: of each, its own ``serving``,
            None while the system's version segments its scans, and ``history``.
        """
        listed = [self.get(system, name) for name in self.names(system)]
        return {
            "serving": self.serving(system),
            "versions": [{"version": version.name, **version.metrics} for version in listed],
            "history": self.history(system),
            "variants": {
                name: {"serving": self.serving(system, name), "history": self.history(system, name)}
                for name in variants
            },
        }

    def newest(self, system: str, variant: str = "", fingerprint: str = "") -> Version | None:
        """The last version of a variant, or of the system itself, served or not; None before the first.

        Args:
            system: Name of the system.
            variant: Of the system.
            fingerprint: Of its configuration; empty for any.
        """
        wanted = {"variant": variant} | ({"fingerprint": fingerprint} if fingerprint else {})
        versions = (self.get(system, name) for name in reversed(self.names(system)))
        return next((v for v in versions if all(v.metrics.get(k, "") == x for k, x in wanted.items())), None)

    def considered(self, system: str, name: str = "") -> set[str]:
        """Keys of the labels that a version, the system's last training by default, learned from, judged by or held."""
        version = self.get(system, name) if name else self._last_trained(system)
        return set(version.metrics.get("considered", [])) if version else set()

    def held(self, system: str) -> set[str]:
        """Keys of the labels that the system's last training held back."""
        version = self._last_trained(system)
        return set(version.metrics.get("held", {})) if version else set()

    def _last_trained(self, system: str) -> Version | None:
        """The last version of the system itself that was made from labels here; an imported one considered none."""
        versions = (self.get(system, name) for name in reversed(self.names(system)))
        return next((v for v in versions if "considered" in v.metrics and not v.metrics.get("variant")), None)

    def publish(self, system: str, name: str, variant: str = "", reason: str = "", who: str = "") -> None:
        """Put a stored version in service, atomically; the history says when and why.

        Raises:
            NotFound: If there is no such version.
        """
        self.get(system, name)
        with self._publishing(system):
            self._publish(system, name, variant, reason, who)

    def replace(self, system: str, before: str | None, name: str, variant: str = "", reason: str = "") -> bool:
        """The same, but only if a certain version, or none, is in service still; returns whether it is done."""
        self.get(system, name)
        with self._publishing(system):
            if self.serving(system, variant) != before:
                return False
            self._publish(system, name, variant, reason, "")
        return True

    def finish(self, system: str) -> str | None:
        """Put the newest version in service if it passed and its training was cut off just before it could do so.

        Not where somebody has put any version in service since. For a server's start.

        Returns:
            Its name if it was put in service.
        """
        names = self.names(system)
        if not names:
            return None
        metrics = self.get(system, names[-1]).metrics
        variant = str(metrics.get("variant", ""))
        history = self.history(system, variant)
        if not metrics.get("passed") or "replaces" not in metrics:
            return None
        if any(_moment(entry["time"]) > _moment(metrics["time"]) or entry["version"] == names[-1] for entry in history):
            return None
        reason = f"{metrics['reasons'][0]} (its training was cut off before)"
        before = names[-1] if self.serving(system, variant) == names[-1] else metrics["replaces"]
        return names[-1] if self.replace(system, before, names[-1], variant, reason) else None

    def training(self, system: str) -> FileLock:
        """The lock that a process holds while it trains a system; who looks whether one does has it for an instant."""
        folder = self.root / system
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".training.lock", timeout=_LOOKED_AT_S)

    def _publishing(self, system: str) -> FileLock:
        return FileLock(self.root / system / ".publish.lock")

    def _publish(self, system: str, name: str, variant: str, reason: str, who: str) -> None:
        folder = self.root / system
        entry = {"time": time.strftime(TIME_FORMAT), "version": name, "reason": reason, "who": who}
        history = [*self.history(system, variant), entry]
        replace_text(folder / _pointer(variant), f"{name}\n")  # first: no history tells of what was not done
        replace_text(folder / f"{_pointer(variant)}_history.json", to_json(history))

    def history(self, system: str, variant: str = "") -> list[dict[str, str]]:
        """What was put in service, oldest first: ``time``, ``version``, ``reason``, ``who``."""
        file = self.root / system / f"{_pointer(variant)}_history.json"
        try:
            return list(json.loads(file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return []

    def roll_back(self, system: str, name: str = "", variant: str = "", who: str = "") -> str:
        """Put an earlier version back in service, or any one by name; returns its name.

        Args:
            system: Name of the system.
            name: Version; empty for the one that was served before the present one.
            variant: Of the system.
            who: Wanted it.

        Raises:
            Conflict: If none was served before.
            NotFound: If there is no such version.
        """
        now = self.serving(system, variant)
        if not name:
            served = [entry["version"] for entry in self.history(system, variant)]
            earlier = [version for version in served if int(version) < int(now or 0)]
            if not earlier:
                raise Conflict(f"{system}: no version was served before {now or 'the first'}")
            name = earlier[-1]
        self.publish(system, name, variant, f"by hand, instead of {now}", who)
        return name

    def weights(self, system: System, name: str) -> list[Weights]:
        """Read the weights of every member of a version; one where it is no ensemble.

        Raises:
            NotFound: If there is no such version.
            UserError: If the file is damaged, or belongs to another system, other labels or another network.
        """
        sums = self.get(system.name, name).metrics.get("weights_sha256", {})
        folder = self.root / system.name / name
        files = [folder / _member_name(0)]
        while (following := folder / _member_name(len(files))).exists():
            files.append(following)
        for file in files:
            if sums.get(file.name) not in (None, sha256_of(file)):
                raise UserError(f"{system.name} {name}: {file.name} cannot be read: it is not what was stored")
        return [read_weights(file, system) for file in files]

    def _next_name(self, system: str) -> str:
        names = self.names(system)
        return f"{int(names[-1]) + 1 if names else 1:04d}"


def read_weights(file: Path, system: System) -> Weights:
    """Read a weights file that carries the fingerprint of the system which it was trained for.

    Raises:
        UserError: If the file is damaged or was trained for something else.
    """
    try:
        with safe_open(file, "pt") as stored:
            facts = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file.name}: the weights cannot be read: {error}") from error
    if facts.get("fingerprint") != system.fingerprint:
        theirs, remedy = facts.get("profile"), ""
        if facts.get("system") == system.name and theirs == system.profile:
            remedy = "; what weights depend on, such as its grid or its labels, was changed in its configuration since"
        elif facts.get("system") == system.name and theirs:
            remedy = f"; give --profile {theirs} (a server: --conf profile {theirs})"
        raise UserError(
            f"these weights are of {facts.get('system', 'an unknown system')} (profile {facts.get('profile', '?')}, "
            f"fingerprint {facts.get('fingerprint', 'none')}), not of {system.name} (profile {system.profile}, "
            f"fingerprint {system.fingerprint}){remedy}"
        )
    return tensors


def _moment(text: str) -> datetime:
    return datetime.strptime(text, TIME_FORMAT)


def _pointer(variant: str) -> str:
    return f"{_POINTER}_{variant}" if variant else _POINTER


def _member_name(number: int) -> str:
    return f"weights_{number}.safetensors" if number else "weights.safetensors"
