"""Who may do what: a file of tokens for a small team."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msklabel.errors import UserError

ROLES = ("user", "annotator", "reviewer", "admin")
_DEFAULT_ROLE = "annotator"
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class User:
    """Somebody who sends requests; each role may do all that the ones before it may.

    Attributes:
        name: Empty where the server does not ask who it is.
        role: One of ROLES.
    """

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether this user has a role or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def roles(self) -> list[str]:
        """All roles that this user has."""
        return list(ROLES[: ROLES.index(self.role) + 1])


ANYBODY = User("", "admin")
"""On loopback without a token file."""


class Users:
    """Users by their token; only digests are kept in memory.

    Args:
        tokens: User for each token's SHA-256.
    """

    def __init__(self, tokens: Mapping[bytes, User]) -> None:
        self._tokens = dict(tokens)

    def identify(self, token: str) -> User | None:
        """Whose token it is; takes the same time for every wrong one."""
        digest = _digest(token)
        found = None
        for known, user in self._tokens.items():
            if hmac.compare_digest(known, digest):
                found = user
        return found

    def sign_in(self, name: str, token: str) -> User | None:
        """The user if name and token belong together."""
        user = self.identify(token)
        return user if user and hmac.compare_digest(user.name.encode(), name.encode()) else None


def load_users(file: Path) -> Users:
    """Read a token file: ``user:token[:role]`` per line, ``#`` starts a comment line.

    Raises:
        UserError: If it is missing, readable by everybody, empty, or a line is wrong.
    """
    try:
        mode = file.stat().st_mode
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"token file {file}: cannot be read ({error})") from error
    if mode & 0o007:
        raise UserError(f"token file {file}: every user of this machine can read or change it; chmod 600 {file}")
    tokens: dict[bytes, User] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            user, token = _parse(line.strip(), f"token file {file}, line {number}")
            if _digest(token) in tokens:
                raise UserError(f"token file {file}, line {number}: the token of {user.name} is used twice")
            tokens[_digest(token)] = user
    if not tokens:
        raise UserError(f"token file {file}: holds no user; expected lines of user:token[:role]")
    return Users(tokens)


def _parse(line: str, where: str) -> tuple[User, str]:
    parts = line.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(f"{where}: expected user:token[:role]")
    role = parts[2] if len(parts) == 3 else _DEFAULT_ROLE
    if role not in ROLES:
        raise UserError(f"{where}: role {role!r} is not known; roles: {', '.join(ROLES)}")
    if len(parts[1]) < _SHORTEST_TOKEN:
        raise UserError(f"{where}: the token of {parts[0]} is shorter than {_SHORTEST_TOKEN} characters")
    return User(parts[0], role), parts[1]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
