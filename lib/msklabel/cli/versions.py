"""Look at the trained versions, compare two, and go back to an earlier one."""

from __future__ import annotations

import getpass
import os
from typing import Annotated

import typer
from rich.table import Table

from msklabel.catalogue import app_folder, load_catalogue
from msklabel.cli.backup import Database
from msklabel.cli.shared import Configs, Device, Profile, State, Studies, conf_of, console, errors, state_folder
from msklabel.system import PAPER


def versions(studies: Studies, configs: Configs = None, state: State = None) -> None:
    """List the trained versions of every system; the served ones are marked, those of a variant by its name."""
    from msklabel.learn.versions import Versions

    store = Versions(state_folder(studies, state) / "models")
    table = Table(box=None, pad_edge=False, caption="Dice on the validation scans; scans to train on + to validate on")
    for title in ("system", "version", "served", "Dice", "scans", "time", "why"):
        table.add_column(title, no_wrap=title != "why", overflow="fold")  # a name that is cut off names nothing
    for name, system in load_catalogue(configs).items():
        serving = {variant or "yes": store.serving(name, variant) for variant in ("", *system.variants)}
        for version in store.names(name):
            metrics = store.get(name, version).metrics
            scans = [metrics.get(key, "–") for key in ("training_scans", "validation_scans")]
            table.add_row(
                name,
                version,
                ", ".join(who for who, served in serving.items() if served == version),
                f"{metrics['mean_dice']:.3f}" if metrics.get("mean_dice") is not None else "–",
                f"{scans[0]} + {scans[1]}",
                str(metrics.get("time", ""))[:16].replace("T", " "),
                "; ".join([metrics.get("validation_status", ""), *metrics.get("reasons", [])]).strip("; "),
            )
    console.print(table)


def rollback(
    system: Annotated[str, typer.Argument(help="System.")],
    studies: Studies,
    version: Annotated[str, typer.Argument(help="Version to serve; the one served before by default.")] = "",
    variant: Annotated[str, typer.Option(help="Variant of the system.")] = "",
    configs: Configs = None,
    state: State = None,
) -> None:
    """Serve an earlier version again; a running server takes it up with the next request."""
    from msklabel.learn.versions import Versions

    chosen = load_catalogue(configs, [system])[system]
    if variant:
        chosen.with_variant(variant)  # which says so where there is none
    store = Versions(state_folder(studies, state) / "models")
    served = store.roll_back(system, version, variant, _user())
    console.print(f"{system}: version {served} is served now", highlight=False)


def _user() -> str:
    """Who runs this; the number of a user without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def compare(
    system: Annotated[str, typer.Argument(help="System.")],
    a: Annotated[str, typer.Argument(help="Version.")],
    b: Annotated[str, typer.Argument(help="Version to compare it with.")],
    studies: Studies,
    configs: Configs = None,
    profile: Profile = PAPER,
    device: Device = None,
    state: State = None,
    database: Database = None,
) -> None:
    """Compare two versions label by label and case by case, on the frozen validation scans.

    Ends with status 1 where a scan was left out because it cannot be used.
    """
    from msklabel.work import Work

    conf = conf_of(models=system, configs=configs, profile=profile, device=device, state=state, database=database)
    found = Work(str(app_folder()), str(studies), conf).compare(system, a, b, measure=True)
    labels = _table("label", "cases", f"Dice {a}", f"Dice {b}", "worst case", "p (worse by 0.01)", title=system)
    for name, row in found["labels"].items():
        p = "" if row["p"] is None else f"{row['p']:.4f}"
        labels.add_row(name, str(row["cases"]), *(f"{row[k]:.4f}" for k in ("before", "after", "worst")), p)
    cases = _table("scan", f"mean Dice {a}", f"mean Dice {b}")
    for case, row in found["cases"].items():
        cases.add_row(case, *("" if row[name] is None else f"{row[name]:.4f}" for name in (a, b)))
    console.print(labels, cases)
    if left_out := found["left_out"]:
        for case, reason in left_out.items():
            errors.print(f"warning: {case}: {reason}", style="yellow", highlight=False, markup=False)
        total = len(left_out) + len(found["cases"])
        says = f"{len(left_out)} of {total} validation scans left out, as they cannot be used"
        errors.print(says, style="yellow", highlight=False)
        raise typer.Exit(1)


def _table(name: str, *numbers: str, title: str | None = None) -> Table:
    table = Table(title=title)
    table.add_column(name, no_wrap=True, overflow="fold")  # a name that is cut off names nothing
    for number in numbers:
        table.add_column(number, justify="right")
    return table
