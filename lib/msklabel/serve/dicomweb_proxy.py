"""Pass a viewer's DICOMweb requests on to the PACS, so that the browser talks to one server only.

What goes on is the path below the service, the query and what the viewer accepts; cookies and credentials of the viewer
stay here, the PACS sees its own. What comes back is streamed, but for JSON, in which the addresses of bulk data are
turned into ours (PS3.18 A.1.4 lets servers write absolute ones).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from msklabel.errors import NotFound, Unreachable
from msklabel.store.pacs import Pacs

PREFIX = "/dicom-web"
_TIMEOUT = httpx.Timeout(60.0, connect=5.0, pool=30.0)
_SEGMENT = re.compile(r"(?!\.+$)[A-Za-z0-9.,_-]{1,128}")
_ROOTS = ("studies", "series", "instances")
_JSON = "application/dicom+json"
_MOST_JSON_BYTES = 256 << 20
_KEPT = ("content-type", "content-length", "warning")


class DicomwebProxy:
    """One PACS for all viewers.

    Args:
        pacs: Where requests go.
    """

    def __init__(self, pacs: Pacs) -> None:
        self._url = pacs.url
        self._client = httpx.AsyncClient(auth=pacs.auth, timeout=_TIMEOUT, follow_redirects=False, trust_env=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def forward(self, request: Request, path: str) -> Response:
        """Answer a GET request.

        Args:
            request: Its query and ``Accept`` go on.
            path: Below the DICOMweb service, such as ``studies/1.2.3/series``.

        Raises:
            NotFound: If the path is none of a DICOMweb resource, or the PACS says so.
            Unreachable: If the PACS does not answer as it should.
        """
        query = request.scope.get("query_string", b"").decode("ascii", "replace")
        url = f"{self._url}/{checked_path(path)}" + (f"?{query}" if query else "")
        headers = {"Accept": request.headers.get("accept", "*/*"), "Accept-Encoding": "identity"}
        try:
            answer = await self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
        except httpx.TimeoutException as error:
            raise Unreachable("the PACS does not answer in time", 504) from error
        except httpx.HTTPError as error:
            raise Unreachable("the PACS cannot be reached") from error
        if answer.status_code not in (200, 204, 206):
            await answer.aclose()
            if answer.status_code == 404:
                raise NotFound("the PACS does not have that")
            raise Unreachable(f"the PACS answers {answer.status_code}")
        kept = {key: answer.headers[key] for key in _KEPT if key in answer.headers}
        kept["cache-control"] = "private"
        if answer.headers.get("content-type", "").startswith((_JSON, "application/json")):
            kept.pop("content-length", None)
            return Response(await self._own_addresses(answer, request), answer.status_code, kept)
        return StreamingResponse(_body(answer), answer.status_code, kept)

    async def _own_addresses(self, answer: httpx.Response, request: Request) -> bytes:
        parts, size = [], 0
        async for part in _body(answer):
            size += len(part)
            if size > _MOST_JSON_BYTES:
                raise Unreachable("the PACS sends more metadata than can be right; ask for less at a time")
            parts.append(part)
        own = str(request.base_url).rstrip("/") + PREFIX
        return b"".join(parts).replace(f"{self._url}/".encode(), f"{own}/".encode())


def checked_path(path: str) -> str:
    """A path that stays below the service.

    Raises:
        NotFound: If it does not begin with a DICOMweb resource, or a part could lead elsewhere.
    """
    parts = path.strip("/").split("/")
    if parts[0] not in _ROOTS or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise NotFound(f"{path[:200]!r} is no DICOMweb resource")
    return "/".join(parts)


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    except httpx.HTTPError as error:
        raise Unreachable("the PACS stopped in the middle of its answer") from error
    finally:
        await answer.aclose()
