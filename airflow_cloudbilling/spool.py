"""Receive a body: decode gzip in small steps, keep a cap, hash on the fly, spool to disk; memory stays bounded."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import IO, NamedTuple, cast

IN_MEMORY = 1024 * 1024  # bytes that stay in memory; also the size of a write
_GZIP = 16 + zlib.MAX_WBITS


class CutError(Exception):
    """The body ended before its end, or its encoding is broken."""


class TooBigError(Exception):
    """The body is larger than allowed."""


class ForeignEncodingError(Exception):
    """The body is encoded in a way that was not asked for."""


class Spooled(NamedTuple):
    """A received body, at its beginning."""

    body: IO[bytes]
    size: int
    sha256: str


async def receive(chunks: AsyncIterator[bytes], encoding: str, cap: int) -> Spooled:
    """Read a body to its end.

    :param chunks: the bytes as they came, before content decoding.
    :param encoding: value of ``Content-Encoding``.
    :param cap: bytes allowed after decoding.
    :raises CutError: when a gzip body is cut or broken.
    :raises TooBigError: as soon as more than ``cap`` bytes came.
    :raises ForeignEncodingError: when the encoding is neither gzip nor identity.
    """
    decoder = _decoder(encoding)
    spool = _Spool(cap)
    try:
        async for chunk in chunks:
            for piece in decoder.feed(chunk):
                await spool.add(piece)
        await spool.add(decoder.end())
        return await spool.finish()
    except zlib.error as error:
        spool.body.close()
        raise CutError(f"the gzip body is broken ({error})") from None
    except BaseException:
        spool.body.close()
        raise


class _Spool:
    """A temporary file that is written in large steps, off the event loop."""

    def __init__(self, cap: int) -> None:
        self.body = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))  # noqa: SIM115 - outlives this function
        self._cap = cap
        self._size = 0
        self._hash = hashlib.sha256()
        self._buffer = bytearray()

    async def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._cap:
            raise TooBigError(f"is larger than max_body ({self._cap} bytes)")
        self._buffer += piece
        if len(self._buffer) >= IN_MEMORY:
            await asyncio.to_thread(self._write)

    async def finish(self) -> Spooled:
        if self._size > IN_MEMORY:
            await asyncio.to_thread(self._write)
        else:
            self._write()
        self.body.seek(0)
        return Spooled(self.body, self._size, self._hash.hexdigest())

    def _write(self) -> None:
        self._hash.update(self._buffer)
        self.body.write(self._buffer)
        self._buffer = bytearray()


class _Identity:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def end(self) -> bytes:
        return b""


class _Gzip:
    """Decodes one or more gzip members, at most :data:`IN_MEMORY` bytes at a time: a bomb meets the cap first."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            self._begun = True
            yield self._member.decompress(data, IN_MEMORY)
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def end(self) -> bytes:
        rest = self._member.flush()
        if self._begun and not self._member.eof:
            raise CutError("the gzip body ends before its end")
        return rest


def _decoder(encoding: str) -> _Identity | _Gzip:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return _Identity()
    if encoding in ("gzip", "x-gzip"):
        return _Gzip()
    raise ForeignEncodingError(f"is encoded as {encoding[:40]!r}, though only gzip was offered")
