"""This machine's disk, which may be full: how that is known, said, and survived."""

from __future__ import annotations

import errno
import tempfile
from contextlib import suppress
from typing import IO

from airflow_cloudbilling.errors import FullDiskError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or a user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def full(error: OSError) -> FullDiskError:
    """Return the error that says where room for temporary files is to be made."""
    return FullDiskError(
        f"This machine's disk is full ({error}). Free space in {tempfile.gettempdir()}, or set TMPDIR to a folder with"
        " more of it, and run the task again; nothing half-written stays."
    )


def discard(file: IO[bytes]) -> None:
    """Close a temporary file that nobody needs any more; what a full disk has not taken yet does not matter."""
    with suppress(OSError):
        file.close()
