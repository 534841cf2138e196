"""A scope's file on its way from Sage: into a file or an object, and into the staging tables as a snapshot."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_cloudbilling.errors import MalformedReplyError
from airflow_cloudbilling.operators.api import stored
from airflow_cloudbilling.operators.database import open_staging
from airflow_cloudbilling.parse import Malformed
from airflow_cloudbilling.parse.record_lists import Records
from airflow_cloudbilling.sources.sage_scopes import records_of

if TYPE_CHECKING:
    from airflow_cloudbilling.object_storage import Place
    from airflow_cloudbilling.source import Reply
    from airflow_cloudbilling.staging.scopes import Snapshot

_COPY = 1024 * 1024


@contextmanager
def snapshot_of(conn_id: str, scope: str, staging_conn_id: str | None, schema: str | None) -> Iterator[Snapshot | None]:
    """Open the scope's snapshot in a staging database, where one is named, before the file is asked for."""
    if staging_conn_id is None:
        yield None
        return
    from airflow_cloudbilling.staging.scopes import Snapshot

    with Snapshot(open_staging(staging_conn_id, schema), conn_id, scope) as snapshot:
        yield snapshot


def read_scope(reply: Reply, conn_id: str, scope: str, record_id: str, snapshot: Snapshot | None) -> int | None:
    """Read a list to its end, so that a broken one is never kept; return its length, None when it is no list.

    :param reply: is left at its beginning.
    :param snapshot: takes the records in; None: they are only counted.
    :raises MalformedReplyError: when the file is broken, or a record has no id to be staged under.
    """
    start = reply.head(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    try:
        if snapshot is None:
            return None if start == b"{" else sum(1 for _ in Records(reply.body, (), ()))
        for row in records_of(reply.body, scope, record_id):
            snapshot.add(row)
        return snapshot.records
    except Malformed as error:
        message = f"{reply.url} was to answer with the scope {scope!r}: {error}."
        raise MalformedReplyError(message, conn_id=conn_id, url=reply.url) from None
    finally:
        reply.body.seek(0)


def keep_scope(reply: Reply, scope: str, place: Place) -> str:
    """Write the file as it is, wholly or not at all; return its address.

    :param place: a file, an object, or a folder for ``<scope>.json``.
    """
    folder = place.location.endswith("/") or place.fs.isdir(place.root)
    parts = (stored(f"{scope}.json", ".json"),) if folder else ()
    name = "/".join((place.root, *parts))
    with place.failing("cannot be written", name), place.writing(name) as file:
        shutil.copyfileobj(reply.body, file, _COPY)
    return place.address(*parts)
