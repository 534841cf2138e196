"""Objects in folders and buckets, opened through Airflow's ``ObjectStoragePath``: there wholly, or not at all.

An object appears by a rename in folders, and in buckets because an upload counts when it is completed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any
from urllib.parse import urlsplit
from uuid import uuid4

from airflow.sdk import ObjectStoragePath

from airflow_cloudbilling import disk
from airflow_cloudbilling.errors import ArchiveError, CloudBillingError, ConfigurationError
from airflow_cloudbilling.redaction import clean

BLOCK = 8 * 1024 * 1024  # bytes of one part of an upload, or of one read; S3 takes no smaller part than 5 MiB
_WITH_FOLDERS = frozenset({"file", "local", "sftp", "ssh", "smb", "hdfs", "webhdfs"})
_PACKAGES = (
    ("s3", "apache-airflow-providers-amazon[s3fs]"),
    ("gs", "apache-airflow-providers-google"),
    ("abfs", "apache-airflow-providers-microsoft-azure"),
)
_RENAMED = frozenset({"file", "local"})  # fsspec's own transaction would pass through TMPDIR, perhaps another disk


class Place:
    """A folder, the prefix of a bucket, or one object there.

    :param location: a path, or an address such as ``s3://conn_id@bucket/prefix``: anything that Airflow's
        ``ObjectStoragePath`` opens.
    :param field: the argument that holds it, for errors.
    :raises ConfigurationError: when it is no such address.
    """

    def __init__(self, location: str, field: str) -> None:
        if ":" in urlsplit(location).netloc.rpartition("@")[0]:
            raise ConfigurationError(
                "holds a password; keep it in an Airflow connection and write s3://conn_id@bucket/prefix.", field=field
            )
        self.location = location
        self._field = field
        try:
            self._path = ObjectStoragePath(location)
            self.fs: Any = self._path.fs
            self.root = self._path.path.rstrip("/")
        except Exception as error:  # whatever a store's own library raises when it is not installed or not set up
            needs = next((f" It needs {package}." for scheme, package in _PACKAGES if location.startswith(scheme)), "")
            message = f"{location!r} cannot be opened as object storage ({in_words(error)}).{needs}"
            raise ConfigurationError(message, field=field) from error

    def address(self, *parts: str) -> str:
        """Return the address of an object in this place, with the connection's id, as ``ObjectStoragePath`` reads it.

        :param parts: names of folders and of the object; none of them may lead elsewhere.
        """
        address = str(self._path.joinpath(*parts))
        return address if "://" in address else self.uri(address)

    def uri(self, name: str) -> str:
        """Return the address of an object by its name in the store, without the connection's id."""
        return str(self.fs.unstrip_protocol(name))

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Open an object that exists once the block has ended well, and not before.

        :param name: as the store knows it: :attr:`root`, or a name below it.
        """
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        if protocols & _WITH_FOLDERS:
            self.fs.makedirs(name.rpartition("/")[0], exist_ok=True)
        if not protocols & _RENAMED:
            with self.fs.transaction, self.fs.open(name, "wb", block_size=BLOCK) as file:
                yield file
            return
        part = f"{name}.{uuid4().hex}.part"
        try:
            with self.fs.open(part, "wb") as file:
                yield file
            self.fs.mv(part, name)
        except BaseException:
            with suppress(OSError):
                self.fs.rm_file(part)
            raise

    @contextmanager
    def failing(self, what: str, name: str) -> Iterator[None]:
        """Turn what a store raises into an error in words.

        :param what: what did not go well, as ``cannot be written``.
        :raises ArchiveError: when the block raises anything but an error of this package.
        """
        try:
            yield
        except CloudBillingError:
            raise
        except Exception as error:  # stores raise what their libraries raise, and many are no OSError
            look = f"Look at the {self._field} {self.location!r} and its connection."
            if disk.is_full(error):
                look = f"Free space for the {self._field} {self.location!r}, and run the task again."
            raise ArchiveError(f"{self.uri(name)} {what} ({in_words(error)}). {look}") from error


def in_words(error: Exception) -> str:
    """Return the kind of an error and what it says, on one line."""
    return clean(f"{type(error).__name__}: {error}")
