"""List the systems."""

from __future__ import annotations

from rich.table import Table

from msklabel.catalogue import load_catalogue
from msklabel.cli.shared import Configs, Profile, console
from msklabel.system import PAPER, System


def systems(configs: Configs = None, profile: Profile = PAPER) -> None:
    """List the segmentation systems."""
    table = Table(title=f"Systems ({profile} profile)")
    table.add_column("name", no_wrap=True)
    for heading in ("what", "images", "labels", "network", "patch (voxels)"):
        table.add_column(heading, overflow="fold")
    for system in load_catalogue(configs, profile=profile).values():
        table.add_row(*_row(system))
    console.print(table)


def _row(system: System) -> tuple[str, ...]:
    patch = "×".join(str(n) for n in system.patch_voxels[: system.dimensions])
    return (
        system.name,
        system.title,
        f"{', '.join(system.modality)}: {', '.join(system.channels)}",
        str(len(system.labels)),
        system.network.name,
        patch,
    )
