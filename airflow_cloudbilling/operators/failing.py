"""Which errors end a task for good, however many retries it has; and what a full disk is told as."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException

from airflow_cloudbilling import disk
from airflow_cloudbilling.errors import (
    ConfigurationError,
    FindingsError,
    InDoubtError,
    RefusedError,
    RejectedRecordsError,
)
from airflow_cloudbilling.redaction import forgetting

NO_RETRY_MENDS = (ConfigurationError, RefusedError, RejectedRecordsError, InDoubtError, FindingsError)


@contextmanager
def failing_for_good() -> Iterator[None]:
    """Let what no retry can mend end the task at once.

    :raises AirflowFailException: in place of those errors, with their message.
    :raises FullDiskError: in place of what a file says for which this machine has no room.
    """
    try:
        with forgetting():
            yield
    except NO_RETRY_MENDS as error:
        raise AirflowFailException(str(error)) from error
    except OSError as error:
        if disk.is_full(error):
            raise disk.full(error) from error
        raise
