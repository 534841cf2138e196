"""What Sage has made of a file, record by record, and what follows for the staged invoices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, func, or_, select, update

from airflow_cloudbilling.model import Outcome
from airflow_cloudbilling.staging.frozen import is_frozen
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.reading import same_invoice
from airflow_cloudbilling.staging.uploads import UNDECIDED, Upload, Uploads
from airflow_cloudbilling.staging.uploads_intent import chunks, in_account

_SHOWN = 5
_SENT = ("intent", "submitted")  # of an item: its record has no result yet
_REPLACED = {"accepted": _SENT, "unknown": (*_SENT, "accepted"), "rejected": (*_SENT, "accepted", "unknown")}
_WORST = list(_REPLACED)  # the better first


class Ended(NamedTuple):
    """How an upload ended.

    :param upload: as the ledger has it now.
    :param first: the first records that were not accepted, with Sage's words.
    :param rejected: how many records were rejected and are to go again; what went again, or was posted, is settled.
    :param unknown: how many records there are of which Sage's word is not known; a person looks.
    :param strangers: how many records the result has that the file has not.
    """

    upload: Upload
    first: tuple[Outcome, ...] = ()
    rejected: int = 0
    unknown: int = 0
    strangers: int = 0


class Results:
    """Writes how an upload ended, in one transaction.

    :param uploads: the ledger.
    :param upload: one that is undecided.
    """

    def __init__(self, uploads: Uploads, upload: Upload) -> None:
        self.uploads = uploads
        self.upload = upload
        self._first: list[Outcome] = []
        self._counts = {"accepted": 0, "unknown": 0, "rejected": 0}  # of the result's records
        self._strangers = Counter[str]()  # outcomes of records that the file has not

    def end(self, status: str, outcomes: Iterable[Outcome] = (), result_uri: str | None = None) -> Ended:
        """Write how the upload ended; its accepted invoices are posted, the others may go again.

        A record that the result does not name shares the fate of the file, unless the result says otherwise of records
        that the file has not: Sage may know it by another id, and a person looks.

        :param status: ``accepted`` or ``failed``.
        :param outcomes: of the records, as they come; of two for one record the worse counts.
        :param result_uri: where the result came from, without signature.
        :returns: how it ended; when another worker wrote that before, what it wrote.
        """
        uploads, upload_id = self.uploads, self.upload.upload_id
        with uploads.locked(uploads.accounts(self.upload)) as connection:
            chosen = select(uploads.upload.c.status).where(uploads.upload.c.upload_id == upload_id)
            if connection.scalar(chosen) not in UNDECIDED:
                return self._before(connection)
            now = uploads.staging.ledger.now(connection)
            for chunk in chunks(outcomes):
                self._write(connection, chunk, now)
            unnamed = and_(uploads.item.c.upload_id == upload_id, uploads.item.c.status.in_(_SENT))
            connection.execute(update(uploads.item).where(unnamed).values(status=self._fate(status), ended_at=now))
            self._post(connection, now)
            values = {"status": status, "ended_at": now, "result_uri": result_uri, **self._totals(connection)}
            of_upload = uploads.upload.c.upload_id == upload_id
            connection.execute(update(uploads.upload).where(of_upload).values(values))
            unknown = self._open(connection, "unknown") if self.has_items else self._counts["unknown"]
        strangers = self._strangers.total() if self.has_items else 0
        ended = uploads.get(upload_id)
        return Ended(ended, tuple(self._first), ended.rejected_count or 0, unknown, strangers)

    @cached_property
    def has_items(self) -> bool:
        """Whether the file is of staged invoices; a user's own has no items."""
        item = self.uploads.item
        one = select(item.c.invoice_id).where(item.c.upload_id == self.upload.upload_id).limit(1)
        with self.uploads.engine.connect() as connection:
            return connection.scalar(one) is not None

    def told(self) -> Ended:
        """Return how the upload has ended before."""
        with self.uploads.engine.connect() as connection:
            return self._before(connection)

    def _before(self, connection: Connection) -> Ended:
        upload = self.uploads.get(self.upload.upload_id)
        rejected = self._open(connection, "rejected") if self.has_items else upload.rejected_count or 0
        return Ended(upload, self._told(connection), rejected, self._open(connection, "unknown"))

    def _fate(self, status: str) -> str:
        """Return what becomes of records that the result does not name."""
        same = "accepted" if status == "accepted" else "rejected"
        return status if set(self._strangers) <= {same} else "unknown"

    def _write(self, connection: Connection, chunk: list[Outcome], now: str) -> None:
        item = self.uploads.item
        said: dict[str, Outcome] = {}
        for outcome in chunk:
            self._counts[outcome.status] += 1
            if outcome.status != "accepted" and len(self._first) < _SHOWN:
                self._first.append(outcome)
            before = said.get(outcome.record_key)
            if before is None or _WORST.index(outcome.status) > _WORST.index(before.status):
                said[outcome.record_key] = outcome
        names = [*(item.c[n] for n in InvoiceKey._fields), item.c.record_key]
        of_upload = item.c.upload_id == self.upload.upload_id
        found = connection.execute(select(*names).where(of_upload, item.c.record_key.in_(list(said)))).all()
        keys = [row for row in found if row[4] in said]  # databases may take A for a
        named = {row[4] for row in keys}
        self._strangers.update(outcome.status for outcome in chunk if outcome.record_key not in named)
        for status, earlier in _REPLACED.items():
            rows = [_bound(row, said[row[4]], now) for row in keys if said[row[4]].status == status]
            if rows:
                replaced = or_(*(item.c.status == one for one in earlier))  # no IN where many rows are bound
                own = and_(*(item.c[n] == bindparam(f"b_{n}") for n in InvoiceKey._fields), replaced)
                changed: dict[str, Any] = {n: bindparam(f"b_{n}") for n in ("status", "message", "ended_at")}
                connection.execute(update(item).where(of_upload, own).values(changed), rows)

    def _post(self, connection: Connection, now: str) -> None:
        """Let the accepted invoices be posted."""
        item, invoice = self.uploads.item, self.uploads.staging.tables.invoice
        values = {"posted_at": now, "posted_reference": f"Sage {self.upload.tracking_id}"}
        names = [item.c[n] for n in InvoiceKey._fields]
        accepted = and_(item.c.upload_id == self.upload.upload_id, item.c.status == "accepted")
        found = connection.execute(select(*names).where(accepted).order_by(*names))
        for account, rows in groupby(found, key=lambda row: (row[0], row[1], row[2])):
            for chunk in chunks(rows):
                own = in_account(invoice, account, [row[3] for row in chunk])
                connection.execute(update(invoice).where(own, invoice.c.posted_at.is_(None)).values(values))

    def _totals(self, connection: Connection) -> Mapping[str, int]:
        if not self.has_items:
            counts = self._counts
            return {
                "record_count": sum(counts.values()),
                "accepted_count": counts["accepted"],
                "rejected_count": counts["rejected"],
            }
        item = self.uploads.item
        grouped = select(item.c.status, func.count()).where(item.c.upload_id == self.upload.upload_id)
        by_status = {row[0]: row[1] for row in connection.execute(grouped.group_by(item.c.status))}
        refused = by_status.get("rejected", 0) + by_status.get("failed", 0)
        return {"accepted_count": by_status.get("accepted", 0), "rejected_count": refused}

    def _open(self, connection: Connection, status: str) -> int:
        """Count the invoices that ended so and were neither posted nor sent again since."""
        tables = self.uploads.staging.tables
        item, invoice = tables.upload_item.alias(), tables.invoice
        settled = is_frozen(tables) if status == "rejected" else invoice.c.posted_at.is_not(None)
        ended = and_(item.c.upload_id == self.upload.upload_id, item.c.status == status, ~settled)
        both = item.join(invoice, same_invoice(item, invoice))
        return connection.scalar(select(func.count()).select_from(both).where(ended)) or 0

    def _told(self, connection: Connection) -> tuple[Outcome, ...]:
        """Return the first records that were not accepted, as the ledger has them."""
        item = self.uploads.item
        refused = and_(item.c.upload_id == self.upload.upload_id, item.c.status.in_(("rejected", "unknown")))
        query = select(item.c.record_key, item.c.status, item.c.message).where(refused).limit(_SHOWN)
        return tuple(Outcome(row[0], row[1], row[2] or "") for row in connection.execute(query))


def _bound(row: Any, outcome: Outcome, now: str) -> dict[str, Any]:
    key = {f"b_{name}": value for name, value in zip(InvoiceKey._fields, row[:4], strict=True)}
    return {**key, "b_status": outcome.status, "b_message": outcome.message or None, "b_ended_at": now}


def shown(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield in words what Sage says of records."""
    for outcome in outcomes:
        yield f"{outcome.record_key}: {outcome.message or outcome.status}"
