"""Files as bodies of requests: sent in pieces as they are read, as often as they are sent, and never held; no HTTP."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import IO

PIECE = 256 * 1024  # bytes that are read at once
_ESCAPES = {'"': "%22", "\r": "%0D", "\n": "%0A"}  # in a form's file name, as browsers write them


@dataclass(frozen=True, slots=True)
class Content:
    """A file to send.

    :param file: seekable; it is sent from its beginning, whatever was read of it.
    :param size: bytes of the file.
    :param media: what the file is, as ``Content-Type`` says it.
    :param before: bytes that go first, as a form has them; ``after``: last.
    """

    file: IO[bytes]
    size: int
    media: str = "application/json"
    before: bytes = b""
    after: bytes = b""

    @property
    def length(self) -> int:
        """All bytes of the body."""
        return len(self.before) + self.size + len(self.after)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body; the file is read off the event loop."""
        if self.before:
            yield self.before
        left = self.size
        await asyncio.to_thread(self.file.seek, 0)
        while left > 0 and (piece := await asyncio.to_thread(self.file.read, min(PIECE, left))):
            left -= len(piece)
            yield piece
        if self.after:
            yield self.after


def as_form(content: Content, name: str, field: str = "file") -> Content:
    """Return a file as the only part of a ``multipart/form-data`` body.

    :param name: the file's name, as the form says it.
    :param field: the form's field.
    """
    boundary = secrets.token_hex(16)
    quoted = "".join(_ESCAPES.get(character, character) for character in name)
    disposition = f'form-data; name="{field}"; filename="{quoted}"'
    head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {content.media}\r\n\r\n"
    return replace(
        content,
        media=f"multipart/form-data; boundary={boundary}",
        before=head.encode(),
        after=f"\r\n--{boundary}--\r\n".encode(),
    )
