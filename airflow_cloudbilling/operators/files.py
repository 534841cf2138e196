"""Files that operators write on object storage: there wholly or not at all, with size and SHA-256 for the result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from airflow_cloudbilling.object_storage import Place


class KeptFile:
    """A file while it is written: a binary stream, as far as writers need one.

    :ivar bytes: written so far.
    """

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        """Write what is given, as a whole."""
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)
        return len(data)

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def readable(self) -> bool:
        """Return that it cannot be read."""
        return False

    def seekable(self) -> bool:
        """Return that there is no going back."""
        return False

    def flush(self) -> None:
        """Do nothing: whoever opened the file ends it."""

    def close(self) -> None:
        """Do nothing, likewise."""

    @property
    def sha256(self) -> str:
        """Return the digest of what was written."""
        return self._digest.hexdigest()

    @property
    def stream(self) -> IO[bytes]:
        """Return itself as what type checkers call a stream."""
        return cast("IO[bytes]", self)


@contextmanager
def keeping(place: Place, *parts: str) -> Iterator[KeptFile]:
    """Open an object below a place that exists once the block has ended well.

    :param parts: names of folders and of the object, none of which leads elsewhere.
    :raises ArchiveError: when the store fails.
    """
    name = "/".join((place.root, *parts))
    with place.failing("cannot be written", name), place.writing(name) as file:
        yield KeptFile(file)
