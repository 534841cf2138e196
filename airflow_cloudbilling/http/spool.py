"""Receive a body: decode gzip in small steps, keep a cap, hash on the fly, spool to disk; memory stays bounded."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import IO, ClassVar, NamedTuple, cast

from airflow_cloudbilling import disk
from airflow_cloudbilling.errors import MalformedReplyError, RefusedError, UnavailableError, VendorError

IN_MEMORY = 1024 * 1024  # bytes that stay in memory; also the size of a write
_GZIP = 16 + zlib.MAX_WBITS


class CutError(Exception):
    """The body ended before its end, or its encoding is broken."""


class BodyError(Exception):
    """The body cannot be taken; the message continues "the answer …".

    :cvar becomes: the error that says so to the caller.
    """

    becomes: ClassVar[type[VendorError]]


class TooBigError(BodyError):
    """The body is larger than allowed."""

    becomes = RefusedError


class ForeignEncodingError(BodyError):
    """The body is encoded in a way that was not asked for."""

    becomes = MalformedReplyError


class DiskError(BodyError):
    """The body cannot be kept on this machine."""

    becomes = UnavailableError


class Spooled(NamedTuple):
    """A received body, at its beginning."""

    body: IO[bytes]
    size: int
    sha256: str
    echoed: int


async def receive(chunks: AsyncIterator[bytes], encoding: str, cap: int, secrets: tuple[bytes, ...] = ()) -> Spooled:
    """Read a body to its end; a secret that it echoes is replaced before anything is kept or parsed.

    :param chunks: the bytes as they came, before content decoding.
    :param encoding: value of ``Content-Encoding``.
    :param cap: bytes allowed after decoding.
    :param secrets: texts that become ``***``.
    :raises CutError: when a gzip body is cut or broken.
    :raises TooBigError: as soon as more than ``cap`` bytes came.
    :raises ForeignEncodingError: when the encoding is neither gzip nor identity.
    :raises DiskError: when the temporary file cannot be written.
    """
    decoder = _decoder(encoding)
    spool = _Spool(cap, secrets)
    try:
        async for chunk in chunks:
            for piece in decoder.feed(chunk):
                await spool.add(piece)
        await spool.add(decoder.end())
        return await spool.finish()
    except BaseException as error:
        disk.discard(spool.body)
        if isinstance(error, zlib.error):
            raise CutError(f"the gzip body is broken ({error})") from None
        raise


class _Spool:
    """A temporary file that is written in large steps, off the event loop."""

    def __init__(self, cap: int, secrets: tuple[bytes, ...]) -> None:
        self.body = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))  # noqa: SIM115 - outlives this function
        self._cap = cap
        self._secrets = secrets
        self._overlap = max(map(len, secrets), default=1) - 1  # a secret may lie across two writes
        self._size = self._written = self._echoed = 0
        self._hash = hashlib.sha256()
        self._buffer = bytearray()

    async def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._cap:
            raise TooBigError(f"is larger than max_body ({self._cap} bytes); raise it in extra if that is right")
        self._buffer += piece
        if len(self._buffer) >= IN_MEMORY:
            await asyncio.to_thread(self._write)

    async def finish(self) -> Spooled:
        if self._size > IN_MEMORY:
            await asyncio.to_thread(self._write, 0)
        else:
            self._write(0)
        return Spooled(self.body, self._written, self._hash.hexdigest(), self._echoed)

    def _write(self, held: int | None = None) -> None:
        data = self._quiet(bytes(self._buffer))
        end = len(data) - (self._overlap if held is None else held)
        data, self._buffer = data[:end], bytearray(data[end:])
        self._written += len(data)
        self._hash.update(data)
        try:
            self.body.write(data)
            if held == 0:
                self.body.seek(0)  # writes what is left in between
        except OSError as error:
            raise DiskError(f"cannot be kept in a temporary file ({error}); free space or set TMPDIR") from error

    def _quiet(self, data: bytes) -> bytes:
        for secret in self._secrets:
            if secret in data:
                self._echoed += data.count(secret)
                data = data.replace(secret, b"***")
        return data


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
