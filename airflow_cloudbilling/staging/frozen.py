"""Posted is posted: which staged invoices nothing of the vendor changes any more."""

from __future__ import annotations

from sqlalchemy import and_, exists, or_
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.staging.tables import Tables

FROZEN_STATES = ("intent", "submitted", "accepted", "unknown")


def is_frozen(tables: Tables) -> ColumnElement[bool]:
    """Return the condition that a row of ``cloudbilling_invoice`` was posted, or is on its way to be."""
    invoice, item = tables.invoice, tables.upload_item
    keys = ("provider", "account", "kind", "invoice_id")
    open_item = and_(*(item.c[k] == invoice.c[k] for k in keys), item.c.status.in_(FROZEN_STATES))
    return or_(invoice.c.posted_at.is_not(None), exists().where(open_item))
