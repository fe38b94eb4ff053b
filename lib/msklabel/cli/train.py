"""Train systems, and take in models that were trained elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from msklabel.catalogue import app_folder, load_catalogue
from msklabel.cli.backup import Database
from msklabel.cli.shared import Configs, Device, Profile, State, Studies, conf_of, console, state_folder
from msklabel.errors import UserError
from msklabel.system import PAPER, System


def train(
    system: Annotated[str, typer.Argument(help="System to train.")],
    studies: Studies,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Instead of the recipe's number, or of half of it in fine-tuning.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Train so many members by cross-validation, split by patient.")] = 1,
    on_all: Annotated[
        bool, typer.Option(help="Keep no scan for validation; the version counts as not validated.")
    ] = False,
    from_version: Annotated[str, typer.Option("--from", help="Version to start from; the served one by default.")] = "",
    from_scratch: Annotated[
        bool, typer.Option(help="Start from fresh weights, also those of another profile.")
    ] = False,
    variant: Annotated[str, typer.Option(help="Train a variant of the system, on the scans that it is for.")] = "",
    configs: Configs = None,
    profile: Profile = PAPER,
    device: Device = None,
    state: State = None,
    database: Database = None,
) -> None:
    """Train a system on the labels submitted so far; goes on where a stopped training was."""
    from msklabel.work import Work

    if not from_scratch:
        _require_profile_in_service(load_catalogue(configs, [system], profile)[system], studies, state, variant)
    conf = conf_of(models=system, configs=configs, profile=profile, device=device, state=state, database=database)
    work = Work(str(app_folder()), str(studies), conf)
    request: dict[str, Any] = {
        "model": system,
        "folds": folds,
        "on_all": on_all,
        "from_version": from_version,
        "from_scratch": from_scratch,
        "variant": variant,
    }
    if epochs is not None:
        request["max_epochs"] = epochs
    _log_to_console()
    stats = work.train(request)
    console.print(stats)


def import_nnunet(
    system: Annotated[str, typer.Argument(help="System that the model is to serve.")],
    folder: Annotated[Path, typer.Argument(help="Trained nnU-Net v2 model: plans.json, dataset.json, fold_*.")],
    studies: Studies,
    folds: Annotated[
        str, typer.Option(help="Folds to take, comma-separated: 0 to 4; all is fold_all, trained on all cases.")
    ] = "all",
    orientation: Annotated[str | None, typer.Option(help="Axis codes of its training images, such as RAS.")] = None,
    publish: Annotated[bool, typer.Option(help="Serve it at once, without validation.")] = False,
    configs: Configs = None,
    profile: Profile = PAPER,
    state: State = None,
) -> None:
    """Store a trained nnU-Net model as a version of a system whose network it fits."""
    from msklabel.learn.nnunet_import import import_nnunet as read_members
    from msklabel.learn.versions import Versions

    chosen = load_catalogue(configs, [system], profile)[system]
    store = Versions(state_folder(studies, state) / "models")
    names = [name.strip() for name in folds.split(",")]
    members = [read_members(folder, chosen, name, orientation) for name in names]
    metrics = {"imported_from": folder.name, "members": len(members), "validated": False, "mean_dice": None}
    version = store.add(chosen, members, {**metrics, "fingerprint": chosen.fingerprint, "profile": chosen.profile})
    if publish:
        store.publish(system, version.name)
    console.print(f"{system}: version {version.name} stored, {'served' if publish else 'not served'}, not validated")


def _require_profile_in_service(system: System, studies: Path, state: Path | None, variant: str) -> None:
    """Refuse a training by mistake for another profile: the server that runs could not load what comes out of it."""
    from msklabel.learn.versions import Versions

    store = Versions((state or studies / ".msklabel") / "models")  # which a first training makes
    served = store.serving(system.name, variant) or store.serving(system.name)
    profile = store.get(system.name, served).metrics.get("profile") if served else None
    if profile and profile != system.profile:
        raise UserError(
            f"{system.name}: version {served} in service is of profile {profile}; give --profile {profile}, or "
            f"--from-scratch to change to profile {system.profile}, for the server as well"
        )


def _log_to_console() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("msklabel").setLevel(logging.INFO)
