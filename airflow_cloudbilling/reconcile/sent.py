"""Whether a month was closed and sent before."""

from __future__ import annotations

from sqlalchemy import Connection, select

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.loads import loads_of
from airflow_cloudbilling.staging.closes import slices_of
from airflow_cloudbilling.staging.frozen import FROZEN_STATES
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.reading import is_approved
from airflow_cloudbilling.staging.tables import Tables
from airflow_cloudbilling.staging.uploads_selection import Selection


def sent(staging: Staging, period: Period, kind: str) -> str:
    """Return in words how a month's close went out, or is on its way; empty when none has.

    A month of which everything was approved, and nothing is to be sent, has gone out as well.

    :param kind: of the invoices that are sent; those that came since are counted.
    """
    close, upload = staging.tables.close, staging.tables.upload
    with staging.engine.connect() as connection:
        closes = select(close.c.close_id, close.c.approved_by).where(close.c.period == str(period))
        by = {row.close_id: row.approved_by or "somebody" for row in connection.execute(closes)}
        columns = (upload.c.upload_id, upload.c.close_id, upload.c.status)
        gone = select(*columns).where(upload.c.close_id.in_([*by]), upload.c.status.in_(FROZEN_STATES))
        first = connection.execute(gone.order_by(upload.c.created_at)).first()
        free = Selection(staging, kind, period).survey(connection).free
        whole = None if first or free else _whole(connection, staging.tables, period)
    if whole:
        return f"{period.key} was closed: {by[whole]} approved it, and no {kind} invoices were to be sent."
    if first is None:
        return ""
    told = f"{period.key} was closed: {by[first.close_id]} approved it, and upload {first.upload_id} is {first.status}."
    if free:
        told += f" {free} staged {kind} invoices did not go with it; close the month again to send them."
    return told


def _whole(connection: Connection, tables: Tables, period: Period) -> str | None:
    """Return a close that a person has approved and for which all was looked at that a period has by now."""
    close, loads = tables.close, loads_of(connection, tables, period, None)
    approved = select(close.c.close_id).where(close.c.period == str(period), is_approved(close))
    loaded, ids = {key for key, one in loads.items() if one.committed}, connection.scalars(approved).all()
    return next((str(one) for one in ids if loaded <= {*slices_of(connection, tables, one)}), None)
