"""Leave to fetch one scan without a token, for the client that was just given it.

3D Slicer's MONAI Label module calls ``GET /datastore/image?image=ID`` through a downloader that knows no
``Authorization`` header, and makes up the address itself, so that a signed link cannot reach it. What is known is the
address of the client which, signed in, was given this very scan by ``POST /activelearning`` a moment before. So: this
scan, to this address, for a quarter of an hour; anything else needs the token. People behind one address translator
share its address; where that matters, the server belongs behind a proxy that authenticates them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

_MOST = 10_000


class ImageGrants:
    """Which address may fetch which image for how long.

    Args:
        seconds: How long a grant holds.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    def give(self, address: str | None, image: str) -> None:
        """Let an address fetch an image from now on; nothing for an address that is not known."""
        if address is None:
            return
        with self._lock:
            self._until.pop((address, image), None)
            self._until[address, image] = time.monotonic() + self._seconds
            while len(self._until) > _MOST:
                self._until.popitem(last=False)

    def holds(self, address: str | None, image: str) -> bool:
        """Whether an address may fetch an image now."""
        with self._lock:
            return self._until.get((address or "", image), 0.0) > time.monotonic()
