"""Receive ``multipart/form-data`` with files of any size: straight to disk, within limits, gone afterwards."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from msklabel.errors import UserError
from msklabel.serve.errors import TooLarge

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_BLOCK_BYTES = 1 << 20
_MOST_FILES = 5_000
_NAME_BYTES = 200  # file systems take 255; room for what is put before it


@dataclass
class Form:
    """What came: text fields, and files on disk in the order in which they came."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)

    def file(self, name: str) -> Path | None:
        """The last file of a field."""
        files = self.files.get(name)
        return files[-1] if files else None

    def needed(self, name: str) -> Path:
        """The last file of a field that must be there.

        Raises:
            UserError: If it is not.
        """
        file = self.file(name)
        if file is None:
            raise UserError(f"the form has no file {name!r}")
        return file

    def json(self, name: str) -> dict[str, Any]:
        """A text field that holds a JSON object; empty if it is not there."""
        return parse_object(self.fields.get(name, ""), f"form field {name!r}")


def parse_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object from text; nothing at all is an empty one.

    Raises:
        UserError: If it is no JSON object.
    """
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        raise UserError(f"{where} is not valid JSON") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a JSON object")
    return value


async def read_notes(request: Request, field: str, text: str) -> dict[str, Any]:
    """The JSON object of a text field of a form, or of a body that is no form: the object itself, or below that name.

    Args:
        request: Its form, if any, was read.
        field: Name of the text field.
        text: What it holds; where there is no form, its default.

    Raises:
        UserError: If it is no JSON object.
    """
    if request.headers.get("content-type", "").startswith(_FORMS):
        return parse_object(text, f"form field {field!r}")
    body = (await request.body()).decode(errors="replace")
    found = parse_object(body, "the body") if body.strip() else parse_object(text, f"form field {field!r}")
    below = found.get(field)
    return below if isinstance(below, dict) and len(found) == 1 else found


@asynccontextmanager
async def receive_form(request: Request, field_bytes: int) -> AsyncIterator[Form]:
    """Receive a form; its files lie in a folder of their own that is removed when the block ends.

    Args:
        request: A request whose body was not read yet.
        field_bytes: Most bytes of the text fields together.

    Raises:
        UserError: If the body is no such form, or is damaged.
        TooLarge: If the text fields are too long.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise UserError("expected a body of multipart/form-data")
    folder = Path(await run_in_threadpool(tempfile.mkdtemp, prefix="upload-"))
    try:
        parts = _Parts(folder, field_bytes)
        try:
            await _feed(request, MultipartParser(boundary, parts.callbacks()))
        except MultipartParseError as error:
            raise UserError(f"the multipart body is damaged ({error})") from error
        finally:
            parts.close()
        if not parts.complete:
            raise UserError("the multipart body ends before its last boundary; the upload was cut off")
        yield parts.form
    finally:
        await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)


async def _feed(request: Request, parser: MultipartParser) -> None:
    """Parse and write in blocks, on a thread, so that a slow disk stops nobody else."""
    block = bytearray()
    async for chunk in request.stream():
        block += chunk
        if len(block) >= _BLOCK_BYTES:
            await run_in_threadpool(parser.write, bytes(block))
            block.clear()
    await run_in_threadpool(parser.write, bytes(block))


class _Parts:
    """Callbacks of the parser: collects fields, writes files."""

    def __init__(self, folder: Path, field_bytes: int) -> None:
        self.form = Form()
        self.complete = False
        self._folder = folder
        self._field_bytes = field_bytes
        self._count = 0
        self._headers: dict[bytes, bytes] = {}
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._name = ""
        self._text = bytearray()
        self._stream: IO[bytes] | None = None

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def close(self) -> None:
        if self._stream:
            with suppress(OSError):  # a full disk was told of already
                self._stream.close()
            self._stream = None

    def _begin(self) -> None:
        self._headers, self._text = {}, bytearray()

    def _header_end(self) -> None:
        self._headers[bytes(self._header[0]).lower()] = bytes(self._header[1])
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode(errors="replace")
        if b"filename" in options:
            self._count += 1
            if self._count > _MOST_FILES:
                raise TooLarge(f"more than {_MOST_FILES} files in one request")
            folder = self._folder / str(self._count)
            folder.mkdir()
            file = folder / safe_name(options[b"filename"].decode(errors="replace"))
            self._stream = file.open("wb")
            self.form.files.setdefault(self._name, []).append(file)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._stream:
            self._stream.write(data[start:end])
            return
        self._field_bytes -= end - start
        if self._field_bytes < 0:
            raise TooLarge("the text fields of the form are too long")
        self._text += data[start:end]

    def _end(self) -> None:
        if self._stream:
            stream, self._stream = self._stream, None
            stream.close()
        else:
            self.form.fields[self._name] = self._text.decode(errors="replace")

    def _finish(self) -> None:
        self.complete = True


def safe_name(name: str) -> str:
    """A plain file name from what a client sent, which may be a whole path of its own machine."""
    last = re.split(r"[/\\]", name)[-1]
    end = re.sub(r"[^\w.\-]+", "_", last).encode(errors="replace")[-_NAME_BYTES:].decode(errors="ignore")
    return end.lstrip(".") or "upload"
