"""Before a file is sent: the intent with every invoice in it, in one transaction that checks that all are free."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, and_, func, insert, or_, select

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.staging.closes import check_approved
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.frozen import FROZEN_STATES
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.uploads import UNDECIDED, Account, Uploads, own_file

T = TypeVar("T")
_CHUNK = 500  # rows in one statement
_KEY = InvoiceKey._fields


class File(NamedTuple):
    """A file that is to be sent, without its content.

    :param conn_id: the connection of Sage.
    :param reason: why the same content is sent again, where it is.
    :param word: the person's word that stands in the task, and so is about another file.
    :param period: of the invoices in it, as ``start/end``; None of a user's own file.
    """

    conn_id: str
    scope: str
    content_sha256: str
    close_id: str | None = None
    reason: str | None = None
    record_count: int | None = None
    word: str | None = None
    period: str | None = None


class Item(NamedTuple):
    """A staged invoice in a file.

    :param record_key: the id of its record.
    """

    provider: str
    account: str
    kind: str
    invoice_id: str
    content_hash: str
    record_key: str


class TakenError(Exception):
    """Other invoices are free, or staged otherwise, than when the file was made; choose again."""


def intend(
    uploads: Uploads,
    upload_id: str,
    file: File,
    run: Run,
    items: Callable[[], Iterable[Item]] = tuple,
    accounts: Collection[Account] = (),
) -> None:
    """Write that a file is going to be sent: the upload and all its items, or nothing.

    :param items: gives the invoices in it, each time that it is called; none of a user's own file, whose unit is its
        content.
    :param accounts: those of all of them.
    :raises TakenError: when meanwhile an invoice was taken by another upload, marked as posted or changed, or when the
        same content is on its way already.
    :raises ConfigurationError: when two invoices have the same record id, or a person has taken back that the close may
        be sent.
    """
    with uploads.locked(accounts or [own_file(file.conn_id, file.scope)]) as connection:
        if file.close_id is not None:
            check_approved(connection, uploads.staging.tables, file.close_id, hold=True)
        if file.record_count is None:
            _check_content(uploads, connection, file)
        row = {"upload_id": upload_id, "status": "intent", "created_at": uploads.staging.ledger.now(connection)}
        task = {name: value for name, value in run._asdict().items() if name != "try_number"}
        connection.execute(insert(uploads.upload), [{**row, **file._asdict(), **task}])
        own = {"upload_id": upload_id, "status": "intent"}
        for chunk in chunks(items()):  # before the table is filled with rows of which the database knows nothing yet
            _check_free(uploads, connection, chunk)
            _check_record_keys(uploads, connection, chunk, file)
        for chunk in chunks(items()):
            connection.execute(insert(uploads.item), [{**item._asdict(), **own} for item in chunk])
        _check_record_keys_within(uploads, connection, upload_id)


def chunks(rows: Iterable[T]) -> Iterator[list[T]]:
    """Yield rows in lists that fit into one statement."""
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def in_account(table: Table, account: Account, ids: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that rows are of invoices of an account, by their ids."""
    provider, name, kind = account
    own = and_(table.c.provider == provider, table.c.account == name, table.c.kind == kind)
    return and_(own, table.c.invoice_id.in_(list(ids)))


def _check_content(uploads: Uploads, connection: Connection, file: File) -> None:
    upload = uploads.upload
    same = and_(*(upload.c[n] == getattr(file, n) for n in ("conn_id", "scope", "content_sha256")))
    if file.reason:
        spent = and_(*(upload.c[n] == getattr(file, n) for n in ("conn_id", "scope", "reason")))
        same = or_(and_(same, upload.c.status.in_(UNDECIDED)), spent)
    if connection.scalar(select(func.count()).select_from(upload).where(same, upload.c.status.in_(FROZEN_STATES))):
        raise TakenError


def _check_free(uploads: Uploads, connection: Connection, chunk: list[Item]) -> None:
    """Look whether invoices are staged as they were read, and in no other file."""
    item, invoice = uploads.item, uploads.staging.tables.invoice
    for account, of_account in groupby(chunk, key=lambda one: one[:3]):
        hashes = {one.invoice_id: one.content_hash for one in of_account}
        taken = and_(in_account(item, account, list(hashes)), item.c.status.in_(FROZEN_STATES))
        if connection.scalar(select(func.count()).select_from(item).where(taken)):
            raise TakenError
        free = and_(in_account(invoice, account, list(hashes)), invoice.c.posted_at.is_(None))
        staged = connection.execute(select(invoice.c.invoice_id, invoice.c.content_hash).where(free))
        if {row[0]: row[1] for row in staged} != hashes:
            raise TakenError


def _check_record_keys(uploads: Uploads, connection: Connection, chunk: list[Item], file: File) -> None:
    """Let no record replace another at Sage, which knows records by their ids alone."""
    item, upload = uploads.item, uploads.upload
    known: dict[str, tuple[str, ...]] = {}
    there = and_(item.c.status.in_(FROZEN_STATES), upload.c.conn_id == file.conn_id, upload.c.scope == file.scope)
    same_id = item.c.record_key.in_([one.record_key for one in chunk])
    columns = [item.c.record_key, *(item.c[n] for n in _KEY)]
    joined = select(*columns).select_from(item.join(upload, upload.c.upload_id == item.c.upload_id))
    found = connection.execute(joined.where(same_id, there)).all()
    for record_key, *key in (*found, *((one.record_key, *one[:4]) for one in chunk)):
        if (other := known.setdefault(record_key, (*key,))) != (*key,):
            raise _same_record_key(f"{' '.join(other)} and {' '.join(key)}", record_key)


def _check_record_keys_within(uploads: Uploads, connection: Connection, upload_id: str) -> None:
    item = uploads.item
    bytewise = dialect_of(connection.dialect.name).bytewise(item.c.record_key)
    twice = select(bytewise).where(item.c.upload_id == upload_id).group_by(bytewise).having(func.count() > 1)
    record_key = connection.scalar(twice.limit(1))
    if record_key is not None:
        own = select(item.c.invoice_id).where(item.c.upload_id == upload_id, bytewise == record_key).limit(2)
        raise _same_record_key(" and ".join(connection.scalars(own)), record_key)


def _same_record_key(invoices: str, record_key: str) -> ConfigurationError:
    return ConfigurationError(
        f"invoices {invoices} have the same record id {record_key!r}, by which Sage would replace one by the other;"
        ' make ids that differ, e.g. mapping={"id": "invoice.invoice_number"}.',
        field="mapping",
    )
