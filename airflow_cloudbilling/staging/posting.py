"""Posted is posted: marking what an ERP has taken over, and releasing it again."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, and_, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Finding, Period, Slice
from airflow_cloudbilling.staging.frozen import FROZEN_STATES, is_frozen
from airflow_cloudbilling.staging.ledger import of_slice, slice_values
from airflow_cloudbilling.staging.revisions import RULES
from airflow_cloudbilling.staging.uploads_sending import is_sending

if TYPE_CHECKING:
    from airflow_cloudbilling.staging.loader import Staging

_CHUNK = 500  # keys in one statement


class InvoiceKey(NamedTuple):
    """What identifies a staged invoice."""

    provider: str
    account: str
    kind: str
    invoice_id: str

    @classmethod
    def read(cls, value: Mapping[str, Any] | Sequence[str]) -> InvoiceKey:
        """Read a key from a mapping with its four names, or from four texts in their order.

        :raises ConfigurationError: when a name is missing.
        """
        try:
            return (
                cls(**{n: str(value[n]) for n in cls._fields}) if isinstance(value, Mapping) else cls(*map(str, value))
            )
        except (KeyError, TypeError) as error:
            names = ", ".join(cls._fields)
            raise ConfigurationError(f"{value!r} is no invoice key; give {names}.", field="invoices") from error


class Posting:
    """Marks and releases invoices, account by account, each under the lock under which its loads are merged."""

    def __init__(self, staging: Staging) -> None:
        self.staging = staging
        self.tables = staging.tables

    def of_period(self, period: Period) -> list[InvoiceKey]:
        """Return the invoices that the slices of a period return."""
        slices = self.tables.slice_invoice
        columns = [slices.c[name] for name in InvoiceKey._fields]
        with self.staging.engine.connect() as connection:
            found = connection.execute(select(*columns).where(slices.c.period == str(period)))
            return [InvoiceKey(*row) for row in found]

    def mark(self, keys: Iterable[InvoiceKey], reference: str) -> int:
        """Freeze invoices as posted; those that are already stay as they are.

        :param reference: what the ERP calls its posting.
        :returns: how many were marked now.
        :raises ConfigurationError: when one is not staged; of its account then none is marked.
        """
        marked = 0
        with closing(self._accounts(keys)) as accounts:  # an error ends the lock at once
            for connection, account, ids in accounts:
                self._check_staged(connection, account, ids)
                invoice = self.tables.invoice
                values = {"posted_at": self.staging.ledger.now(connection), "posted_reference": reference}
                for chunk in _chunks(ids):
                    fresh = and_(
                        self._of(invoice, account), invoice.c.invoice_id.in_(chunk), invoice.c.posted_at.is_(None)
                    )
                    marked += connection.execute(update(invoice).where(fresh).values(values)).rowcount
        return marked

    def release(self, keys: Iterable[InvoiceKey], who: str, reason: str) -> int:
        """Let invoices follow the vendor again: the next load brings what changed and takes what was withdrawn.

        :param who: the person who says so; kept with ``reason`` in the findings that this resolves, and in one of the
            rule ``released``, resolved as well, that says so of each invoice.
        :returns: how many were posted, or on their way to be.
        :raises ConfigurationError: for one that is on its way to Sage: released, it could go a second time.
        """
        released = 0
        with closing(self._accounts(keys)) as accounts:  # an error ends the lock at once
            for connection, account, ids in accounts:
                self._check_staged(connection, account, ids)
                self._check_at_rest(connection, account, ids)
                for chunk in _chunks(ids):
                    released += self._thaw(connection, account, chunk, who, reason)
        return released

    def _thaw(self, connection: Connection, account: Slice, ids: list[str], who: str, reason: str) -> int:
        invoice, item, finding = self.tables.invoice, self.tables.upload_item, self.tables.finding
        chosen = and_(self._of(invoice, account), invoice.c.invoice_id.in_(ids))
        posted = (invoice.c.invoice_id, invoice.c.slice_period, invoice.c.posted_reference)
        frozen = connection.execute(select(*posted).where(chosen, is_frozen(self.tables))).all()
        connection.execute(update(invoice).where(chosen).values(posted_at=None, posted_reference=None))
        open_items = and_(self._of(item, account), item.c.invoice_id.in_(ids), item.c.status.in_(FROZEN_STATES))
        connection.execute(update(item).where(open_items).values(status="released", message=f"{who}: {reason}"))
        now = self.staging.ledger.now(connection)
        told = and_(self._of(finding, account), finding.c.invoice_id.in_(ids), finding.c.rule.in_(RULES.values()))
        values = {"resolved_at": now, "accepted_by": who, "accepted_at": now, "accept_reason": reason}
        connection.execute(update(finding).where(told, finding.c.resolved_at.is_(None)).values(values))
        if frozen:
            own = {**slice_values(account), **values, "created_at": now}
            connection.execute(insert(finding), [{**own, **_released(*row)} for row in frozen])
        return len(frozen)

    def _accounts(self, keys: Iterable[InvoiceKey]) -> Generator[tuple[Connection, Slice, list[str]], None, None]:
        for (provider, account, kind), group in groupby(sorted(set(keys)), key=lambda key: key[:3]):
            slice_ = Slice(provider, account, kind, Period.month(1, 1))  # of whatever period
            with self.staging.engine.connect() as connection, self.staging.locked(connection, slice_):
                yield connection, slice_, [key.invoice_id for key in group]

    def _check_staged(self, connection: Connection, account: Slice, ids: list[str]) -> None:
        invoice, missing = self.tables.invoice, set(ids)
        for chunk in _chunks(ids):
            chosen = and_(self._of(invoice, account), invoice.c.invoice_id.in_(chunk))
            missing -= set(connection.scalars(select(invoice.c.invoice_id).where(chosen)))
        if missing:
            first = ", ".join(map(repr, sorted(missing)[:5]))
            name = f"{account.provider} account {account.account!r}, {account.kind}"
            raise ConfigurationError(f"{len(missing)} invoices of {name} are not staged: {first}.", field="invoices")

    def _check_at_rest(self, connection: Connection, account: Slice, ids: list[str]) -> None:
        item = self.tables.upload_item
        for chunk in _chunks(ids):
            open_ = and_(self._of(item, account), item.c.invoice_id.in_(chunk))
            under_way = select(item.c.invoice_id, item.c.upload_id, item.c.status).where(
                open_, item.c.status.in_(("intent", "submitted"))
            )
            for invoice_id, upload_id, status in connection.execute(under_way).all():
                if status == "submitted" or is_sending(self.staging.engine, upload_id):
                    raise ConfigurationError(
                        f"invoice {invoice_id!r} is on its way to Sage in upload {upload_id}; let the task that sends"
                        ' it end, or give the upload up there with resolve="not_sent".',
                        field="invoices",
                    )

    def _of(self, table: Any, account: Slice) -> ColumnElement[bool]:
        return of_slice(table, account, period=False)


def _released(invoice_id: str, period: str, reference: str | None) -> dict[str, str | None]:
    """Return the finding that keeps who released an invoice; it asks nobody for anything."""
    expected = f"posted as {reference}" if reference else "posted"
    message = f"Invoice {invoice_id} was released: it follows the vendor again, and may be posted again."
    told = Finding(invoice_id, "released", "warning", expected, "released", message)
    return {**told._asdict(), "finding_id": str(uuid4()), "period": period}


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
