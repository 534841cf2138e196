"""Whether the process that sends a file is still alive, so that nobody takes a slow one for a dead one.

On servers it is a lock that ends with the sender's session. SQLite has no lock that leaves others write, so that there
it is the operating system's lock on a file beside the database, which ends with the sender's process.
"""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from airflow_cloudbilling.staging.dialects import dialect_of

_SENDING = "-sending-"  # between the database's file name and an upload's id


@contextmanager
def sending(engine: Engine, upload_id: str) -> Iterator[None]:
    """Let others know, as long as the block runs, that the file of an upload is on its way."""
    if engine.dialect.name == "sqlite":
        with _locked_file(_beside(engine, upload_id)):
            yield
        return
    with ExitStack() as stack:
        connection = stack.enter_context(engine.connect())
        stack.enter_context(dialect_of(engine.dialect.name).locked(connection, _name(upload_id)))
        try:
            yield
        finally:
            with suppress(DBAPIError):  # the server may have ended an idle session; the file was sent all the same
                stack.close()


def is_sending(engine: Engine, upload_id: str) -> bool:
    """Whether another process, or another thread of this one, is within :func:`sending`."""
    if engine.dialect.name == "sqlite":
        return _is_locked(_beside(engine, upload_id))
    with engine.connect() as connection:
        return dialect_of(engine.dialect.name).is_locked(connection, _name(upload_id))


def _name(upload_id: str) -> str:
    return f"upload/{upload_id}"


def _beside(engine: Engine, upload_id: str) -> Path:
    return Path(f"{engine.url.database}{_SENDING}{upload_id}")


@contextmanager
def _locked_file(path: Path) -> Iterator[None]:
    beginning, sending, _ = path.name.rpartition(_SENDING)
    for left_behind in path.parent.glob(f"{glob.escape(beginning)}{sending}*"):
        _is_locked(left_behind)
    with _lock(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path) -> IO[bytes]:
    """Return the file, locked; anew when another process took it for left behind before it was."""
    while True:
        file = path.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()


def _is_locked(path: Path) -> bool:
    """Whether a living process holds the file; one that a dead process left behind is removed."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
