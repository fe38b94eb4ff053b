"""The command line: ``msklabel COMMAND --help`` explains each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from msklabel.cli import (
    backup,
    demo,
    infer,
    measure,
    relaxometry,
    scans,
    serve,
    simulate,
    synthesize,
    systems,
    train,
    versions,
)
from msklabel.cli.shared import errors
from msklabel.errors import UserError
from msklabel.system import ConfigError

app = typer.Typer(
    name="msklabel",
    help="Active-learning annotation server for hip and thigh imaging. Not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "systems": systems.systems,
    "infer": infer.infer,
    "train": train.train,
    "stitch": scans.stitch,
    "interpolate": scans.interpolate,
    "synthesize": synthesize.synthesize,
    "import-nnunet": train.import_nnunet,
    "versions": versions.versions,
    "rollback": versions.rollback,
    "compare": versions.compare,
    "evaluate": measure.evaluate,
    "quantify": measure.quantify,
    "agreement": measure.agreement,
    "distance-map": measure.distance_map,
    "associate": measure.associate,
    "relaxometry": relaxometry.relaxometry,
    "serve": serve.serve,
    "backup": backup.backup,
    "restore": backup.restore,
    "verify": backup.verify,
    "demo": demo.demo,
    "simulate": simulate.simulate,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command line; what a user can mend is one sentence and exit status 2, never a traceback."""
    try:
        sys.argv[1:] = joined_conf(sys.argv[1:])
        app()
    except UserError as error:
        errors.print(f"msklabel: {error}", style="red", highlight=False, markup=False)
        raise SystemExit(2) from error


def joined_conf(arguments: Sequence[str]) -> list[str]:
    """Write ``--conf KEY VALUE``, the form that MONAI Label's users know, as ``--conf KEY=VALUE``."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        part = rest.pop(0)
        joined.append(part)
        if part in ("--conf", "-c") and rest:
            key = rest.pop(0)
            if "=" not in key and not rest:
                raise ConfigError(f"--conf {key}: a value is missing")
            joined.append(key if "=" in key else f"{key}={rest.pop(0)}")
    return joined
