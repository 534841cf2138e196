"""What invoices say of each other: a number that a seller gave twice, a credit note whose invoice is not there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby, islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, String, and_, cast, func, select

from airflow_cloudbilling.model import Period, Slice
from airflow_cloudbilling.reconcile.arithmetic import Broken
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.ledger import of_slice
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.tables import Tables

T = TypeVar("T")
_CHUNK = 900  # values in one statement, which walks the invoices; old SQLite takes 999
_LONGEST = 255  # characters of a number or a name that count


class References:
    """Looks through all staged invoices, of whatever month."""

    def __init__(self, connection: Connection, tables: Tables, period: Period) -> None:
        self.connection = connection
        self.tables = tables
        self.period = period
        self._bytewise = dialect_of(connection.dialect.name).bytewise

    def duplicates(self, providers: Collection[str] | None) -> Iterator[tuple[InvoiceKey, Broken]]:
        """Yield ``duplicate-number`` for the period's invoices whose number the same seller has given before.

        Once more within the period is twice; in other months, where some sellers begin to count again, it is so for the
        same amount. A credit note may have its invoice's number.
        """
        invoice, slices = self.tables.invoice, self.tables.slice_invoice
        which = and_(invoice.c.kind != "usage", invoice.c.invoice_number.is_not(None))
        if providers is not None:
            which = and_(which, invoice.c.provider.in_(list(providers)))
        here = and_(*(slices.c[n] == invoice.c[n] for n in InvoiceKey._fields), slices.c.period == str(self.period))
        told: set[InvoiceKey] = set()
        for rows, amounts in (
            (select().select_from(invoice.join(slices, here)).where(which), []),
            (select().where(which, invoice.c.gross_amount.is_not(None)), ["currency", "gross_amount"]),
        ):
            for number, first, key in self._repeated(rows, [invoice.c[name] for name in amounts]):
                if key not in told and (not amounts or self._is_here(key)):
                    told.add(key)
                    message = f"{' '.join(first)} has it too. Ask the vendor to withdraw one of them."
                    actual = f"{number} of {first.invoice_id} again"
                    yield key, Broken("duplicate-number", f"{number} once", actual, message)

    def _repeated(
        self, rows: Select[Any], amounts: list[ColumnElement[Any]]
    ) -> Iterator[tuple[str, InvoiceKey, InvoiceKey]]:
        """Yield the number, the first invoice of the same seller that has it, and each later one."""
        invoice = self.tables.invoice
        seller = self._text(func.coalesce(invoice.c.seller_vat_id, invoice.c.seller_name, invoice.c.account))
        number = self._text(invoice.c.invoice_number)
        same = [invoice.c.provider, invoice.c.kind, invoice.c.document_type, seller, *amounts, number]
        twice = rows.with_only_columns(*same).group_by(*same).having(func.count() > 1)
        columns = (*same, invoice.c.issue_date, *(invoice.c[name] for name in InvoiceKey._fields))
        for chunk in _chunks(map(tuple, self.connection.execute(twice).all())):
            groups, numbers = set(chunk), {group[-1] for group in chunk}
            found = self.connection.execute(rows.with_only_columns(*columns).where(number.in_(numbers)))
            members = sorted((tuple(row) for row in found if tuple(row[: len(same)]) in groups), key=_text_of)
            for group, own in groupby(members, key=lambda row: row[: len(same)]):
                first, *later = (InvoiceKey(*row[len(same) + 1 :]) for row in own)
                yield from ((group[-1], first, key) for key in later)

    def _is_here(self, key: InvoiceKey) -> bool:
        slices = self.tables.slice_invoice
        own = and_(of_slice(slices, Slice(*key[:3], self.period)), slices.c.invoice_id == key.invoice_id)
        return self.connection.execute(select(slices.c.invoice_id).where(own)).first() is not None

    def orphans(self, credits: Mapping[InvoiceKey, str]) -> Iterator[tuple[InvoiceKey, Broken]]:
        """Yield ``credit-without-invoice`` for credit notes whose invoice is not staged.

        :param credits: credit note → the invoice that it names (BT-25), by its number or its id.
        """
        ordered = sorted(credits, key=lambda key: (key.provider, key.kind))
        for (provider, kind), keys in groupby(ordered, key=lambda key: (key.provider, key.kind)):
            for chunk in _chunks(keys):
                there = self._staged(provider, kind, {credits[key] for key in chunk})
                for key in chunk:
                    if (named := credits[key]) not in there:
                        message = "Import the month of that invoice, or ask the vendor what is credited."
                        broken = Broken("credit-without-invoice", f"invoice {named}", f"{named} is not staged", message)
                        yield key, broken

    def _staged(self, provider: str, kind: str, names: Collection[str]) -> set[str]:
        invoice, found = self.tables.invoice, set[str]()
        billed = invoice.c.document_type != "credit_note"  # which may have its invoice's number
        for column in (invoice.c.invoice_id, self._text(invoice.c.invoice_number)):
            own = and_(invoice.c.provider == provider, invoice.c.kind == kind, billed, column.in_(list(names)))
            found |= set(self.connection.scalars(select(column).where(own)))
        return found

    def _text(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a text that MySQL groups in memory, and tells apart byte by byte."""
        shortened: ColumnElement[Any] = self._bytewise(cast(column, String(_LONGEST)))
        return shortened


def _text_of(row: tuple[Any, ...]) -> tuple[str, ...]:
    """Return what sorts alike on every database, and without a day first."""
    return tuple("" if value is None else str(value) for value in row)


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
