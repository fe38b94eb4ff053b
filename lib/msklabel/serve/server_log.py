"""The server's log: the console for what matters, a file of bounded size for all."""

from __future__ import annotations

import logging
import logging.config
from pathlib import Path

LOG_NAME = "server.log"
_BYTES = 10 << 20


def log_to(folder: Path) -> None:
    """Log warnings to the console and everything to ``<folder>/server.log``; a full disk costs lines of it, no more."""
    folder.mkdir(parents=True, exist_ok=True)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
            "handlers": {
                "console": {"class": "logging.StreamHandler", "formatter": "line", "level": "WARNING"},
                "file": {
                    "class": "logging.handlers.RotatingFileHandler",
                    "formatter": "line",
                    "filename": str(folder / LOG_NAME),
                    "maxBytes": _BYTES,
                    "backupCount": 3,
                    "encoding": "utf-8",
                    "delay": True,
                },
            },
            "loggers": {"dicomweb_client": {"level": "WARNING"}, "httpx": {"level": "WARNING"}},
            "root": {"level": "INFO", "handlers": ["console", "file"]},
        }
    )
    logging.raiseExceptions = False
