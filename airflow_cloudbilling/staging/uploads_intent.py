"""Before a file is sent: the intent with every invoice in it, in one transaction that checks that all are free."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, and_, func, insert, or_, select

from airflow_cloudbilling.errors import ConfigurationError
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
    """

    conn_id: str
    scope: str
    content_sha256: str
    close_id: str | None = None
    reason: str | None = None
    record_count: int | None = None


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
    items: Iterable[Item] = (),
    accounts: Collection[Account] = (),
) -> None:
    """Write that a file is going to be sent: the upload and all its items, or nothing.

    :param items: the invoices in it; none of a user's own file, whose unit is its content.
    :param accounts: those of all of them.
    :raises TakenError: when meanwhile an invoice was taken by another upload, marked as posted or changed, or when the
        same content is on its way already.
    :raises ConfigurationError: when two invoices have the same record id.
    """
    with uploads.locked(accounts or [own_file(file.conn_id, file.scope)]) as connection:
        if not accounts:
            _check_content(uploads, connection, file)
        row = {"upload_id": upload_id, "status": "intent", "created_at": uploads.staging.ledger.now(connection)}
        task = {name: value for name, value in run._asdict().items() if name != "try_number"}
        connection.execute(insert(uploads.upload), [{**row, **file._asdict(), **task}])
        own = {"upload_id": upload_id, "status": "intent"}
        for chunk in chunks(items):
            connection.execute(insert(uploads.item), [{**item._asdict(), **own} for item in chunk])
        _check_free(uploads, connection, upload_id)
        _check_record_keys(uploads, connection, upload_id, file)


def chunks(rows: Iterable[T]) -> Iterator[list[T]]:
    """Yield rows in lists that fit into one statement."""
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _check_content(uploads: Uploads, connection: Connection, file: File) -> None:
    upload = uploads.upload
    same = and_(*(upload.c[n] == getattr(file, n) for n in ("conn_id", "scope", "content_sha256")))
    against = UNDECIDED if file.reason else FROZEN_STATES
    if connection.scalar(select(func.count()).select_from(upload).where(same, upload.c.status.in_(against))):
        raise TakenError


def _check_free(uploads: Uploads, connection: Connection, upload_id: str) -> None:
    item, other, invoice = uploads.item, uploads.item.alias("other"), uploads.staging.tables.invoice
    own = item.c.upload_id == upload_id
    taken = and_(_same(item, other), other.c.upload_id != upload_id, other.c.status.in_(FROZEN_STATES))
    if connection.scalar(select(func.count()).select_from(item.join(other, taken)).where(own)):
        raise TakenError
    gone, changed = invoice.c.content_hash.is_(None), invoice.c.content_hash != item.c.content_hash
    staged = select(func.count()).select_from(item.outerjoin(invoice, _same(item, invoice)))
    if connection.scalar(staged.where(own, or_(gone, changed, invoice.c.posted_at.is_not(None)))):
        raise TakenError


def _check_record_keys(uploads: Uploads, connection: Connection, upload_id: str, file: File) -> None:
    """Let no record replace another at Sage, which knows records by their ids alone."""
    item, other, upload = uploads.item, uploads.item.alias("other"), uploads.upload
    bytewise = dialect_of(connection.dialect.name).bytewise
    same_id = and_(item.c.record_key == other.c.record_key, bytewise(item.c.record_key) == other.c.record_key)
    there = and_(other.c.status.in_(FROZEN_STATES), upload.c.conn_id == file.conn_id, upload.c.scope == file.scope)
    joined = item.join(other, and_(same_id, ~_same(item, other))).join(upload, upload.c.upload_id == other.c.upload_id)
    names = [item.c.record_key, *(item.c[n] for n in _KEY), *(other.c[n] for n in _KEY)]
    clash = select(*names).select_from(joined).where(item.c.upload_id == upload_id, there).limit(1)
    if (row := connection.execute(clash).first()) is not None:
        one, two = " ".join(row[1:5]), " ".join(row[5:9])
        raise ConfigurationError(
            f"invoices {one} and {two} have the same record id {row[0]!r}, by which Sage would replace one by the "
            'other; make ids that differ, e.g. mapping={"id": "invoice.invoice_number"}.',
            field="mapping",
        )


def _same(one: Any, other: Any) -> Any:
    return and_(*(one.c[name] == other.c[name] for name in _KEY))
