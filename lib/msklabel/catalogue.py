"""All systems that can be served: those of the project and those of a user's own folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msklabel.system import PAPER, ConfigError, System, load_system

_HERE = Path(__file__).resolve().parent


def configs_folder() -> Path:
    """Folder of the YAML files that come with the package (a checkout's ``configs/``, or inside an installed wheel)."""
    installed = _HERE / "configs"
    return installed if installed.is_dir() else _HERE.parents[1] / "configs"


def app_folder() -> Path:
    """Folder of the MONAI Label app that comes with the package."""
    installed = _HERE / "apps" / "msk"
    return installed if installed.is_dir() else _HERE.parents[1] / "apps" / "msk"


def load_catalogue(folder: Path | None = None, names: Iterable[str] = (), profile: str = PAPER) -> dict[str, System]:
    """Load systems by name.

    Args:
        folder: A user's own folder of YAML files, beside the project's; a file of a known name replaces ours.
        names: The systems wanted; all by default.
        profile: The profile to put in force; a system that has none of this name keeps the paper's.

    Raises:
        ConfigError: If a file is wrong, the folder is missing or empty, or a name is not known.
    """
    files = {file.stem: file for file in sorted(configs_folder().glob("*.yaml"))}
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")
        own = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
        if not own:
            raise ConfigError(f"{folder}: no *.yaml files in this folder")
        files |= own
    wanted = list(dict.fromkeys(names)) or list(files)
    unknown = [name for name in wanted if name not in files]
    if unknown:
        raise ConfigError(f"no system {unknown[0]!r}; systems: {', '.join(files)}")
    systems = {name: load_system(files[name]) for name in wanted}
    known = {name for system in systems.values() for name in system.profile_names}
    if profile not in known:
        raise ConfigError(f"no profile {profile!r}; profiles: {', '.join(sorted(known))}")
    return {
        name: system.with_profile(profile) if profile in system.profile_names else system
        for name, system in systems.items()
    }
