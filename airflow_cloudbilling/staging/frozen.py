"""Posted is posted: which staged invoices nothing of the vendor changes any more."""

from __future__ import annotations

from sqlalchemy import and_, exists, or_
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.staging.reading import same_invoice
from airflow_cloudbilling.staging.tables import Tables

FROZEN_STATES = ("intent", "submitted", "accepted", "unknown")


def is_frozen(tables: Tables) -> ColumnElement[bool]:
    """Return the condition that a row of ``cloudbilling_invoice`` was posted, or is on its way to be."""
    invoice, item = tables.invoice, tables.upload_item
    open_item = and_(same_invoice(item, invoice), item.c.status.in_(FROZEN_STATES))
    return or_(invoice.c.posted_at.is_not(None), exists().where(open_item))
