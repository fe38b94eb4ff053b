"""A PostgreSQL of the tests' own: a cluster in a temporary folder, reached through a socket there, on no port."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

_OPTIONS = "-c listen_addresses= -c fsync=off -c max_connections=100 -c shared_buffers=32MB"


def binaries() -> Path | None:
    """Folder of the PostgreSQL programs, as Debian installs them or on the path; the newest of several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: float(file.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Cluster:
    """A running PostgreSQL.

    Args:
        programs: Where ``initdb`` and ``pg_ctl`` are.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
        # The tests' own folder is closed to the other user.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp" if self._as_user else None))
        if self._as_user:
            shutil.chown(self.folder, "postgres")
        self._number = 0
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", f"{_OPTIONS} -k {self.folder}", "start")

    def new_database(self) -> str:
        """URL of a new, empty database."""
        self._number += 1
        name = f"msklabel_{self._number}"
        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://postgres@/{name}?host={self.folder}"

    @contextmanager
    def down(self) -> Iterator[None]:
        """It is killed for the time of the block."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        try:
            yield
        finally:
            self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", f"{_OPTIONS} -k {self.folder}", "start")

    def stop(self) -> None:
        """End it and remove all it wrote."""
        try:
            self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._programs / program), *arguments]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")
