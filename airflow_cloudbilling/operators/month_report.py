"""The report of a reconciled month, as a file or in object storage."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_cloudbilling.reconcile.summary import Summary
    from airflow_cloudbilling.staging.loader import Staging


def write_report(staging: Staging, summary: Summary, location: str, providers: Collection[str] | None = None) -> str:
    """Write the report of a month with every open finding, wholly or not at all, and return its address.

    :param summary: as of :func:`~airflow_cloudbilling.reconcile.approval.summary_of`.
    :param location: a path, or an address such as ``s3://conn_id@bucket/10.html``; the suffix is ``.md`` or ``.html``.
    :param providers: connection types of the vendors whose findings are told; None: all.
    :raises ConfigurationError: when the suffix is another, or the location is none.
    :raises ArchiveError: when it cannot be written.
    """
    from airflow_cloudbilling.object_storage import Place
    from airflow_cloudbilling.reconcile.findings import OpenFindings
    from airflow_cloudbilling.reconcile.report import report

    place = Place(location, "report")
    with staging.engine.connect() as connection:
        found = OpenFindings(connection, staging.tables, summary.period, providers)
        text = report(summary, found.listed(), location)
        with place.failing("cannot be written", place.root), place.writing(place.root) as file:
            file.writelines(part.encode() for part in text)
    return place.address()
