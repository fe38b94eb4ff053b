"""The command line: ``msklabel COMMAND --help`` explains each."""

from __future__ import annotations

import errno
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

_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def main() -> None:
    """Run the command line; what a user can mend is one sentence and exit status 2, never a traceback."""
    try:
        sys.argv[1:] = joined_conf(sys.argv[1:])
        app()
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        errors.print(f"msklabel: {sentence}", style="red", highlight=False, markup=False)
        raise SystemExit(2) from error


def _sentence(error: Exception) -> str | None:
    """What a user can mend; None for the rest."""
    if isinstance(error, UserError):
        return str(error)
    from msklabel.store.database import is_unreached  # not before they are needed: they take a while
    from msklabel.store.files import is_storage_full

    if is_storage_full(error):
        return "the disk is full or cannot be written; make room, then try again"
    if is_unreached(error):
        return "the database does not answer any more"
    if isinstance(error, OSError) and error.errno in _NOT_ALLOWED and error.filename:
        return f"{error.filename}: cannot be read or written ({error.strerror})"
    return None


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
