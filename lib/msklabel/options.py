"""What a user can set with ``--conf KEY VALUE``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msklabel.system import PAPER, ConfigError

_KEYS = {
    "models": "systems to serve, comma-separated (all)",
    "configs": "folder with systems of your own (none)",
    "profile": f"profile of the systems ({PAPER})",
    "state": "folder for labels, models and the database (<studies>/.msklabel)",
    "database": "URL of a PostgreSQL database, postgresql://user@host/name (a file in the state folder)",
    "lease_minutes": "for how long a scan is given to one annotator, from each sign of activity (60)",
    "device": "cpu, cuda or cuda:N (a GPU where there is one)",
}
_OF_MONAI_LABEL = {"server_mode"}


@dataclass(frozen=True)
class Options:
    """The app's settings.

    Attributes:
        studies: Folder of the user's images.
        models: Names of the systems to serve; empty for all.
        configs: Folder with the user's own systems.
        profile: Profile of the systems.
        state: Folder where everything is kept.
        device: Where to predict and train; None chooses.
        database: URL of a PostgreSQL database; None is a file in the state folder.
        lease_s: For how long a scan is given to one annotator.
    """

    studies: Path
    models: tuple[str, ...]
    configs: Path | None
    profile: str
    state: Path
    device: str | None
    database: str | None = None
    lease_s: float = 3600.0

    @classmethod
    def from_conf(cls, studies: str, conf: Mapping[str, str]) -> Options:
        """Check a ``--conf`` mapping.

        Raises:
            ConfigError: If a key is not known or the studies are no folder.
        """
        unknown = [key for key in conf if key not in _KEYS and key not in _OF_MONAI_LABEL]
        if unknown:
            raise ConfigError(f"--conf {unknown[0]}: unknown key; keys: {describe_keys()}")
        if studies.startswith(("http://", "https://")):
            raise ConfigError(f"{studies}: studies on a DICOMweb server are not supported yet; give a folder")
        device = conf.get("device") or None
        if device and not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise ConfigError(f"--conf device: {device!r}; one of cpu, cuda or cuda:N")
        folder = Path(studies).resolve()
        if not folder.is_dir():
            raise ConfigError(f"{studies}: no such folder")
        return cls(
            studies=folder,
            models=tuple(name.strip() for name in conf.get("models", "").split(",") if name.strip()),
            configs=Path(conf["configs"]).resolve() if conf.get("configs") else None,
            profile=conf.get("profile", PAPER),
            state=Path(conf["state"]).resolve() if conf.get("state") else folder / ".msklabel",
            device=device,
            database=conf.get("database") or None,
            lease_s=60 * _minutes(conf, "lease_minutes", 60.0),
        )


def _minutes(conf: Mapping[str, str], key: str, default: float) -> float:
    """A time from a second to a week.

    Raises:
        ConfigError: If it is none.
    """
    text = conf.get(key) or str(default)
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1
    if not 1 / 60 <= minutes <= 7 * 24 * 60:
        raise ConfigError(f"--conf {key}: {text!r}; expected minutes, from 1/60 to {7 * 24 * 60}")
    return minutes


def describe_keys() -> str:
    """One line that lists every key, its meaning and its default."""
    return "; ".join(f"{key} = {meaning}" for key, meaning in _KEYS.items())
