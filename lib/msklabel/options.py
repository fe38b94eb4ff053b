"""What a user can set with ``--conf KEY VALUE``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msklabel.system import PAPER, ConfigError

_KEYS = {
    "models": "systems to serve, comma-separated (all)",
    "configs": "folder with systems of your own (none)",
    "profile": f"profile of the systems ({PAPER})",
    "state": "folder for labels, models and the database (<studies>/.msklabel)",
    "database": "URL of a PostgreSQL database, postgresql://user@host/name (a file in the state folder)",
    "lease_minutes": "for how long a scan is given to one annotator, from each sign of activity (60)",
    "dicomweb_user": "user of the PACS, where the studies are on a DICOMweb server (nobody)",
    "dicomweb_password_file": "file that holds the password of that user",
    "pacs_cache_gib": "most that is kept of the series fetched from a PACS, GiB (50)",
    "device": "cpu, cuda or cuda:N (a GPU where there is one)",
    "backend": (
        "what runs the networks: eager, half, channels_last, compiled, openvino, openvino_f16, openvino_bf16, "
        "cuda_graph, or the fastest that labels alike (auto)"
    ),
    "auto_train": "true or false: train by itself on new labels (true)",
    "train_after": "LABELS,MINUTES that it waits for; for one system SYSTEM=LABELS,MINUTES, joined by ; (10,60)",
    "cache_gb": "most disk for prepared scans (20)",
    "job_days": "for how long jobs that have ended are listed, days; trainings always are (90)",
    "mlflow": "address or folder of an MLflow store, which records trainings (MLFLOW_TRACKING_URI)",
}
_OF_MONAI_LABEL = {"server_mode"}


@dataclass(frozen=True)
class PacsOptions:
    """How the PACS is reached.

    Attributes:
        url: Of its DICOMweb service.
        user: Nobody where None.
        password: Of the user.
        cache_bytes: Most that is kept of fetched series.
    """

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    cache_bytes: int = 50 << 30

    @classmethod
    def from_conf(cls, url: str, conf: Mapping[str, str]) -> PacsOptions:
        """Check the ``dicomweb_*`` keys; the environment variables of MONAI Label's own server are heeded too.

        Raises:
            ConfigError: If the address holds a password, the file cannot be read, or the size is no number.
        """
        if "@" in url.split("/")[2]:
            raise ConfigError("studies: no user or password in an address; use --conf dicomweb_user and _password_file")
        file, text = conf.get("dicomweb_password_file"), conf.get("pacs_cache_gib", "50")
        try:
            password = Path(file).read_text(encoding="utf-8").strip() if file else None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--conf dicomweb_password_file: {file}: cannot be read: {error}") from error
        if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) <= 0:
            raise ConfigError(f"--conf pacs_cache_gib: {text!r}; expected a number above 0")
        user = conf.get("dicomweb_user") or os.environ.get("MONAI_LABEL_DICOMWEB_USERNAME")
        password = password or os.environ.get("MONAI_LABEL_DICOMWEB_PASSWORD")
        return cls(url.rstrip("/"), user or None, password, int(float(text) * 2**30))


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
        auto_train: Whether the server trains by itself on new labels.
        train_after: How much it waits for, by system; ``""`` for all others.
        cache_bytes: Most disk for prepared scans.
        job_days: For how long jobs that have ended are listed, days; trainings always are.
        mlflow: Where trainings are recorded beside TensorBoard's files; None for nowhere.
        pacs: Where the studies are, if they are on a DICOMweb server; ``studies`` then holds what was fetched.
        backend: What runs the networks when they predict.
    """

    studies: Path
    models: tuple[str, ...]
    configs: Path | None
    profile: str
    state: Path
    device: str | None
    database: str | None = None
    lease_s: float = 3600.0
    auto_train: bool = True
    train_after: tuple[tuple[str, str], ...] = (("", "10,60"),)
    cache_bytes: int = 20 << 30
    job_days: float = 90.0
    mlflow: str | None = None
    pacs: PacsOptions | None = None
    backend: str = "auto"

    @classmethod
    def from_conf(cls, studies: str, conf: Mapping[str, str]) -> Options:
        """Check a ``--conf`` mapping.

        Raises:
            ConfigError: If a key is not known or the studies are no folder.
        """
        unknown = [key for key in conf if key not in _KEYS and key not in _OF_MONAI_LABEL]
        if unknown:
            raise ConfigError(f"--conf {unknown[0]}: unknown key; keys: {describe_keys()}")
        device = conf.get("device") or None
        check_device(device, "--conf device")
        state = Path(conf["state"]).resolve() if conf.get("state") else None
        pacs = PacsOptions.from_conf(studies, conf) if studies.startswith(("http://", "https://")) else None
        if pacs:
            state = state or Path.home() / ".local" / "share" / "msklabel" / re.sub(r"\W+", "_", studies).strip("_")
        folder = state / "studies" if pacs and state else Path(studies).resolve()
        if not pacs and not folder.is_dir():
            raise ConfigError(f"{studies}: no such folder")
        return cls(
            studies=folder,
            models=tuple(name.strip() for name in conf.get("models", "").split(",") if name.strip()),
            configs=Path(conf["configs"]).resolve() if conf.get("configs") else None,
            profile=conf.get("profile", PAPER),
            state=state or folder / ".msklabel",
            device=device,
            database=conf.get("database") or None,
            lease_s=60 * _minutes(conf, "lease_minutes", 60.0),
            auto_train=_switch(conf.get("auto_train", "true"), "auto_train"),
            train_after=_train_after(conf.get("train_after", "")),
            cache_bytes=_gigabytes(conf.get("cache_gb", "20"), "cache_gb"),
            job_days=_days(conf.get("job_days", "90"), "job_days"),
            backend=conf.get("backend") or "auto",
            mlflow=conf.get("mlflow") or os.environ.get("MLFLOW_TRACKING_URI") or None,
            pacs=pacs,
        )


def check_device(device: str | None, option: str) -> None:
    """Refuse what is no device, and a GPU that is not there.

    Raises:
        ConfigError: If it is none.
    """
    if not device or device == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ConfigError(f"{option}: {device!r}; one of cpu, cuda or cuda:N")
    import torch  # takes a second

    found = torch.cuda.device_count()
    if int(device.partition(":")[2] or 0) >= found:
        raise ConfigError(f"{option}: {device!r}; PyTorch ({torch.__version__}) finds {found} GPUs here")


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


def _switch(value: str, key: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"--conf {key}: {value!r}; one of true or false")
    return value.lower() == "true"


def _gigabytes(value: str, key: str) -> int:
    if not re.fullmatch(r"\d+(\.\d+)?", value):
        raise ConfigError(f"--conf {key}: {value!r}; a number of gigabytes, such as 20 or 0.5")
    return int(float(value) * 2**30)


def _days(value: str, key: str) -> float:
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", value) or float(value) <= 0:
        raise ConfigError(f"--conf {key}: {value!r}; a number of days above 0 and below 100000, such as 90")
    return float(value)


def _train_after(value: str) -> tuple[tuple[str, str], ...]:
    """Waits by system, the one for all others first."""
    found = {"": "10,60"}
    for part in filter(None, value.split(";")):
        system, _, wait = part.rpartition("=")
        if not re.fullmatch(r"[1-9]\d*,\d+(\.\d+)?", wait) or float(wait.split(",")[1]) <= 0:
            raise ConfigError(f"--conf train_after: {part!r}; LABELS,MINUTES or SYSTEM=LABELS,MINUTES, such as 10,60")
        found[system] = wait
    return tuple(found.items())


def describe_keys() -> str:
    """One line that lists every key, its meaning and its default."""
    return "; ".join(f"{key} = {meaning}" for key, meaning in _KEYS.items())
