"""One staged invoice after the other, with its VAT breakdown and its lines as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, select

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.reading import KEY, Row, credited_number, of_table, stream
from airflow_cloudbilling.staging.tables import Tables

_KEYS = 500  # read at once


class StagedInvoices:
    """Reads invoices without what the vendor sent.

    :param connection: from :func:`~airflow_cloudbilling.staging.reading.snapshot`.
    """

    def __init__(self, connection: Connection, tables: Tables) -> None:
        self.connection = connection
        self.tables = tables

    def keys(self, period: Period, kind: str) -> Iterator[InvoiceKey]:
        """Yield the keys of the invoices that a period's slices return, as :func:`keys_of_period` does."""
        return keys_of_period(self.connection, self.tables, period, kind)

    def head(self, key: InvoiceKey) -> Row:
        """Return an invoice; what it credits by its number (BT-25), where the vendor names an id.

        :raises ConfigurationError: when it is not staged.
        """
        invoice = self.tables.invoice
        found = list(self._rows(invoice, key))
        if not found:
            raise ConfigurationError(f"invoice {tuple(key)} is not staged.", field="invoices")
        if found[0]["preceding_invoice"]:
            number = self.connection.scalar(select(credited_number(invoice)).where(_of(invoice, key)))
            found[0]["preceding_invoice"] = number or found[0]["preceding_invoice"]
        return found[0]

    def taxes(self, key: InvoiceKey) -> list[Row]:
        """Return the VAT breakdown of an invoice, where the vendor has one."""
        return list(self._rows(self.tables.invoice_tax, key, "tax_number"))

    def lines(self, key: InvoiceKey) -> Iterator[Row]:
        """Yield the lines of an invoice in their order, as they are fetched."""
        return self._rows(self.tables.invoice_line, key, "line_number")

    def _rows(self, table: Table, key: InvoiceKey, order: str | None = None) -> Iterator[Row]:
        query: Select[Any] = select(*(column for column in table.c if column.name != "raw"))
        query = query.where(_of(table, key)).order_by(table.c[order]) if order else query.where(_of(table, key))
        return (of_table(table, row) for row in stream(self.connection, query))


def _of(table: Table, key: InvoiceKey) -> ColumnElement[bool]:
    return and_(*(table.c[name] == value for name, value in zip(KEY, key, strict=True)))


def keys_of_period(connection: Connection, tables: Tables, period: Period, kind: str) -> Iterator[InvoiceKey]:
    """Yield the keys of the invoices that a period's slices return, in their order, account by account."""
    slices = tables.slice_invoice
    of_period = and_(slices.c.period == str(period), slices.c.kind == kind)
    names = (slices.c.provider, slices.c.account)
    accounts = connection.execute(select(*names).where(of_period).distinct().order_by(*names)).all()
    for provider, account in accounts:
        own = and_(of_period, slices.c.provider == provider, slices.c.account == account)
        query = select(slices.c.invoice_id).where(own).order_by(slices.c.invoice_id).limit(_KEYS)
        page = list(connection.scalars(query))
        while page:
            yield from (InvoiceKey(provider, account, kind, invoice_id) for invoice_id in page)
            page = list(connection.scalars(query.where(slices.c.invoice_id > page[-1])))
