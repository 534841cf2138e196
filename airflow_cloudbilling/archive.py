"""Bodies as vendors sent them, in object storage under their SHA-256: evidence, and what a replay reads.

``<archive>/<first two hex digits>/<sha256>.gz`` holds one body, compressed. Names are made of digests alone, never of
a vendor's text. A body of a source that names ``dropped_fields`` is kept without them, under the hash of what is kept;
``<sha256 as received>.cleaned`` beside it says which that is.

An object appears whole or not at all (:mod:`airflow_cloudbilling.object_storage`). Where a store cannot, the size
at the end of the compressed file tells a torn object, which is then written anew.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import zlib
from collections.abc import Callable, Collection
from typing import IO, Any, cast

from airflow_cloudbilling.errors import ArchiveError, MalformedReplyError
from airflow_cloudbilling.object_storage import BLOCK, Place, in_words
from airflow_cloudbilling.parse.json_cut import without_fields
from airflow_cloudbilling.source import Reply

_NOTE_NAME = "README.txt"
_NOTE = b"What vendors answered, by SHA-256, as gzip; kept by airflow-provider-cloudbilling.\n"
_COPY = 1024 * 1024
_LEVEL = 6  # of gzip: Python's default, 9, takes three times as long to save a tenth more
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)


class Archive:
    """A place where bodies are kept for good.

    :param location: a folder, or an address such as ``s3://conn_id@bucket/prefix``: anything that Airflow's
        ``ObjectStoragePath`` opens. The store's connection must be allowed to list, read and write there.
    :raises ConfigurationError: when it is no such address.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._place = Place(location, "archive")
        self._fs, self._root = self._place.fs, self._place.root

    def check(self) -> None:
        """See that the archive can be written, by keeping a note in it that says what it is.

        :raises ArchiveError: when it cannot.
        """
        name = f"{self._root}/{_NOTE_NAME}"
        with self._place.failing("cannot be written", name):
            if not self._fs.exists(name):
                with self._place.writing(name) as file:
                    file.write(_NOTE)

    def put(self, reply: Reply, dropped_fields: Collection[str] = ()) -> str:
        """Keep a reply's body, once; the body is left at its beginning.

        Memory stays bounded, but for a source that drops fields, whose bodies are rewritten as a whole.

        :param dropped_fields: names of JSON members that are left out wherever they stand.
        :returns: the address of what is kept.
        :raises ArchiveError: when the store fails.
        :raises MalformedReplyError: when fields are to be dropped and the body cannot be read as JSON.
        """
        reply.body.seek(0)
        try:
            if not dropped_fields:
                return self._keep(reply.body, reply.sha256, reply.size)
            body = _cleaned(reply, dropped_fields)
            digest = hashlib.sha256(body).hexdigest()
            uri = self._keep(io.BytesIO(body), digest, len(body))
            if digest != reply.sha256:
                self._mark(reply.sha256, digest)
            return uri
        finally:
            reply.body.seek(0)

    def open(self, sha256: str) -> IO[bytes]:
        """Return a body as a stream; reading it to its end checks what came.

        :param sha256: of the body as received.
        :raises ArchiveError: when it is not there; while reading, when it is damaged.
        """
        name = self._name(sha256)
        with self._place.failing("cannot be read", name):
            try:
                file = self._fs.open(name, "rb", block_size=BLOCK)
            except FileNotFoundError:
                sha256 = self._cleaned_as(sha256)
                name = self._name(sha256)
                file = self._fs.open(name, "rb", block_size=BLOCK)
        return cast("IO[bytes]", io.BufferedReader(_Checked(file, sha256, self._place.uri(name)), _COPY))

    def find(self, sha256: str) -> str | None:
        """Return the address of what is kept of a body, or None when it is not here.

        :param sha256: of the body as received.
        :raises ArchiveError: when the store fails.
        """
        name = self._name(sha256)
        with self._place.failing("cannot be read", name):
            try:
                self._fs.info(name)
            except FileNotFoundError:
                mark = self._name(sha256, "cleaned")
                return self.find(self._cleaned_as(sha256)) if self._fs.exists(mark) else None
        return self._place.uri(name)

    def has(self, address: str) -> bool:
        """Whether an address, as :meth:`put` returns it, is one of this archive."""
        return address.startswith(f"{self._place.uri(self._root)}/")

    def remove(self, digests: Collection[str], needed: Callable[[set[str]], set[str]]) -> int:
        """Remove bodies; those that are not there are no error.

        :param digests: SHA-256 of the bodies as received.
        :param needed: returns which of some digests somebody else needs: what is kept of a body without its dropped
            fields may be kept of another one too.
        :returns: how many objects were removed.
        :raises ArchiveError: when the store fails.
        """
        cleaned: set[str] = set()
        with self._place.failing("cannot be changed", self._root):
            removed = sum(self._remove(self._name(digest)) for digest in digests)
            for name in (self._name(digest, "cleaned") for digest in digests):
                if self._fs.exists(name):
                    cleaned.add(self._fs.cat_file(name).decode("ascii", "replace"))
                    self._fs.rm_file(name)
            if cleaned:
                cleaned -= needed(cleaned)
                others = self._fs.glob(f"{self._root}/*/*.cleaned")
                cleaned -= {self._fs.cat_file(name).decode("ascii", "replace") for name in others}
                removed += sum(self._remove(self._name(digest)) for digest in cleaned)
        return removed

    def _remove(self, name: str) -> bool:
        if not self._fs.exists(name):
            return False
        self._fs.rm_file(name)
        return True

    def _keep(self, body: IO[bytes], sha256: str, size: int) -> str:
        name = self._name(sha256)
        with self._place.failing("cannot be written", name):
            if not self._is_whole(name, size):
                with self._place.writing(name) as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
                    shutil.copyfileobj(body, packed, _COPY)
        return self._place.uri(name)

    def _is_whole(self, name: str, size: int) -> bool:
        """Whether the object is there up to its end: gzip's last four bytes are the size of what it holds."""
        try:
            end: bytes = self._fs.tail(name, 4)
        except FileNotFoundError:
            return False
        return end == (size % 2**32).to_bytes(4, "little")

    def _mark(self, received: str, kept: str) -> None:
        name = self._name(received, "cleaned")
        with self._place.failing("cannot be written", name), self._place.writing(name) as file:
            file.write(kept.encode())

    def _cleaned_as(self, received: str) -> str:
        try:
            kept: bytes = self._fs.cat_file(self._name(received, "cleaned"))
        except FileNotFoundError:
            raise ArchiveError(
                f"The archive {self.location} has no body with the SHA-256 {received}; was it archived elsewhere?"
            ) from None
        return kept.decode("ascii", "replace")

    def _name(self, sha256: str, kind: str = "gz") -> str:
        if not _SHA256.fullmatch(sha256):
            raise ArchiveError(f"{sha256[:80]!r} is no SHA-256, so nothing is looked up in {self.location} under it.")
        return f"{self._root}/{sha256[:2]}/{sha256}.{kind}"


class _Checked(io.RawIOBase):
    """A compressed file read forward; its end is reached only when the hash is right."""

    def __init__(self, file: IO[bytes], sha256: str, uri: str) -> None:
        super().__init__()
        self._file = file
        self._packed = gzip.GzipFile(fileobj=file, mode="rb")
        self._hash = hashlib.sha256()
        self._sha256 = sha256
        self._uri = uri

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._packed.read(len(buffer))
        except _DAMAGE as error:
            raise ArchiveError(f"{self._uri} is damaged ({in_words(error)}); restore it from a backup.") from error
        except Exception as error:  # whatever a store's own library raises
            raise ArchiveError(f"{self._uri} cannot be read ({in_words(error)}).") from error
        self._hash.update(data)
        if not data and self._hash.hexdigest() != self._sha256:
            raise ArchiveError(f"{self._uri} is damaged: its content has another SHA-256; restore it from a backup.")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._packed.close()
            self._file.close()
        super().close()


def _cleaned(reply: Reply, names: Collection[str]) -> bytes:
    try:
        return without_fields(reply.body.read(), names)
    except ValueError:
        kept_out = f"{', '.join(names)} cannot be kept out of the archive"
        message = f"the answer of {reply.url} cannot be read as JSON, so {kept_out}."
        raise MalformedReplyError(message, url=reply.url, status=reply.status) from None
