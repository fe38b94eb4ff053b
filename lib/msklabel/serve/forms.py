"""How the OpenAPI page describes bodies that the routes read themselves."""

from __future__ import annotations

from typing import Any


def multipart(
    *files: str, optional: tuple[str, ...] = (), params: bool = True, several: bool = False
) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes ``multipart/form-data``.

    Args:
        files: File fields that must be there.
        optional: File fields that may be there.
        params: Whether a text field ``params`` with a JSON object may be there.
        several: Whether the file fields may come more than once.
    """
    one: dict[str, Any] = {"type": "string", "format": "binary"}
    kind = {"type": "array", "items": one} if several else one
    properties: dict[str, Any] = dict.fromkeys((*files, *optional), kind)
    if params:
        properties["params"] = {"type": "string", "description": "a JSON object", "default": "{}"}
    schema = {"type": "object", "properties": properties, "required": list(files)}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}, "required": bool(files)}}
