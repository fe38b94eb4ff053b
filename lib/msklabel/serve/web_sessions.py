"""Who is signed in with a browser: a cookie that no script can read, and that other sites cannot make it send.

The cookie holds a random number, the server's memory holds its digest: after a restart everybody signs in anew.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import cookie_parser
from starlette.responses import Response

from msklabel.serve.users import User

COOKIE = "msklabel_session"
_MOST = 10_000


class WebSessions:
    """The browsers that are signed in.

    Args:
        seconds: How long a session lasts from its last use.
        at_most_s: How long it lasts from its beginning, however much it is used: the role that somebody had then, or
            a cookie that was taken, does not last for good.
        clock: Seconds from any beginning.
    """

    def __init__(self, seconds: float, at_most_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._at_most_s, self._clock = seconds, at_most_s, clock
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, tuple[User, float, float]] = OrderedDict()  # until when, and at most

    def open(self, user: User) -> str:
        """Sign a user in; returns what the cookie holds."""
        key = secrets.token_urlsafe(32)
        with self._lock:
            end = self._clock() + self._at_most_s
            self._open[_digest(key)] = user, self._until(end), end
            while len(self._open) > _MOST:
                self._open.popitem(last=False)
        return key

    def user(self, cookies: str) -> User | None:
        """Whose session the header ``Cookie`` names; None for nobody's."""
        digest = _digest(_read(cookies))
        with self._lock:
            user, until, end = self._open.get(digest, (None, 0.0, 0.0))
            if user is None or until < self._clock():
                self._open.pop(digest, None)
                return None
            self._open[digest] = user, self._until(end), end
            self._open.move_to_end(digest)
            return user

    def _until(self, end: float) -> float:
        return min(end, self._clock() + self._seconds)

    def close(self, cookies: str) -> None:
        """Sign out."""
        with self._lock:
            self._open.pop(_digest(_read(cookies)), None)

    def set_cookie(self, response: Response, key: str, secure: bool) -> None:
        """Give the browser its session.

        Args:
            response: Gets the cookie.
            key: From :meth:`open`; empty takes the cookie away.
            secure: Whether the browser came by HTTPS, so that it must not send the cookie otherwise.
        """
        age = int(self._at_most_s) if key else 0  # whether it was used in time, the server knows
        response.set_cookie(COOKIE, key, max_age=age, path="/", secure=secure, httponly=True, samesite="lax")


def _read(cookies: str) -> str:
    """Our cookie; those of other servers of this host may hold what Python's own parser gives up at."""
    return cookie_parser(cookies).get(COOKIE, "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
