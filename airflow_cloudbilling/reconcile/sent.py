"""Whether a month was closed and sent before."""

from __future__ import annotations

from sqlalchemy import select

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.staging.frozen import FROZEN_STATES
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.uploads_selection import Selection


def sent(staging: Staging, period: Period, kind: str) -> str:
    """Return in words how a month's close went out, or is on its way; empty when none has.

    :param kind: of the invoices that are sent; those that came since are counted.
    """
    close, upload = staging.tables.close, staging.tables.upload
    with staging.engine.connect() as connection:
        approved = select(close.c.close_id, close.c.approved_by).where(close.c.period == str(period))
        by = {row.close_id: row.approved_by for row in connection.execute(approved)}
        columns = (upload.c.upload_id, upload.c.close_id, upload.c.status)
        gone = select(*columns).where(upload.c.close_id.in_([*by]), upload.c.status.in_(FROZEN_STATES))
        first = connection.execute(gone.order_by(upload.c.created_at)).first()
        if first is None:
            return ""
        free = Selection(staging, kind, period).survey(connection).free
    who = by[first.close_id] or "somebody"
    told = f"{period.key} was closed: {who} approved it, and upload {first.upload_id} is {first.status}."
    if free:
        told += f" {free} staged {kind} invoices did not go with it; close the month again to send them."
    return told
