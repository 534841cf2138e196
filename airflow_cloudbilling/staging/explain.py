"""From a staged figure back to where it comes from: the load, the DAG run, the request and the archived body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

from sqlalchemy import Connection, Table, and_, func, select
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.exact import canonical
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.reading import KEY, of_table, plain, snapshot
from airflow_cloudbilling.staging.tables import Tables

_TASK = ("dag_id", "task_id", "run_id", "map_index", "try_number")
_LOAD = ("load_id", "period", "status", "fetch_started_at", "started_at", "ended_at", *_TASK, "replay_of")
_KEPT = {"erased": "erased from the archive by retention", "no": "not in this archive"}
_REQUEST = ("load_id", "sequence", "method", "url", "status", "sha256")


class Bodies(Protocol):
    """An archive, as far as it is needed here."""

    def find(self, sha256: str) -> str | None:
        """Return the address of a body, or None when it is not there."""


def explain(
    staging: Staging,
    invoice: Mapping[str, Any] | Sequence[str],
    line_number: int | None = None,
    archive: Bodies | None = None,
) -> dict[str, Any]:
    """Say where a staged invoice, or one of its lines, comes from.

    :param invoice: key: a mapping with ``provider, account, kind, invoice_id``, or the four in order.
    :param line_number: a line's position, from 1.
    :param archive: ``Archive(location)`` of the import's ``archive=``, to say where the body lies, if it still does.
    :returns: plain data, money as text: ``invoice``, ``line`` (or None), ``load``, the last one that changed it, with
        its DAG run; ``requests``, those whose answers have the invoice's body; ``body`` (``sha256``, ``uri`` and
        ``kept``: ``yes``, ``erased`` by retention, ``no``, or None where nobody looked); ``slices``, ``documents``,
        ``uploads`` and ``findings``.
    :raises ConfigurationError: when the invoice, or the line, is not staged.
    """
    key, tables = InvoiceKey.read(invoice), staging.tables
    with snapshot(staging.engine) as connection:
        found = _Reader(connection, tables, key)
        head = found.one(tables.invoice, f"invoice {tuple(key)}")
        number = tables.invoice_line.c.line_number == line_number
        line = None if line_number is None else found.one(tables.invoice_line, f"line {line_number} of {key}", number)
        load = found.rows(tables.load, tables.load.c.load_id == head["load_id"], names=_LOAD)
        asked = [row["replay_of"] or row["load_id"] for row in load]
        return {
            "invoice": head,
            "line": line,
            "load": load[0] if load else None,
            "requests": found.rows(tables.request, _answered(tables.request, asked, head), names=_REQUEST),
            "body": found.body(head["source_sha256"], archive),
            "slices": [row["period"] for row in found.own(tables.slice_invoice)],
            "documents": found.own(tables.document),
            "uploads": found.own(tables.upload_item),
            "findings": found.own(tables.finding),
        }


def in_words(explained: Mapping[str, Any]) -> str:
    """Return what :func:`explain` found as a text to read."""
    head, line, load = explained["invoice"], explained["line"], explained["load"]
    amount = head["gross_amount"] or head["net_amount"]
    lines = [
        f"Invoice {head['invoice_id']} of {head['provider']} account {head['account']}, {head['kind']}:"
        f" {amount or 'no amount'} {head['currency'] or ''} ({head['totals_origin']})".rstrip()
    ]
    if line:
        words = f"Line {line['line_number']}: {line['description'] or line['item_code'] or 'no text'}"
        lines.append(f"{words}: {line['net_amount'] or 'no amount'} {head['currency'] or ''}".rstrip())
    if load:
        task = ".".join(str(load[name]) for name in ("dag_id", "task_id") if load[name]) or "no task"
        run = f", run {load['run_id']}, try {load['try_number']}" if load["run_id"] else ""
        again = f", which read the answers to load {load['replay_of']} again" if load["replay_of"] else ""
        lines.append(f"Last changed by load {load['load_id']} ({load['status']}) of {load['period']}{again}")
        lines.append(f"  task {task}{run}; the vendor was asked at {load['fetch_started_at']} UTC")
    lines += [f"Request {r['sequence']}: {r['method'] or ''} {r['url']} → {r['status']}" for r in explained["requests"]]
    body = explained["body"]
    where = body["uri"] or _KEPT.get(body["kept"], "")
    lines.append(f"Body: SHA-256 {body['sha256'] or 'not known'}" + (f", {where}" if where else ""))
    lines.append(f"Returned by the slices of {', '.join(explained['slices']) or 'no period'}")
    lines += [f"File {d['filename'] or d['document_id']}: {d['uri'] or 'not archived'}" for d in explained["documents"]]
    lines += [f"Upload {one['upload_id']}: {one['status']}" for one in explained["uploads"]]
    if head["posted_at"]:
        lines.append(f"Posted at {head['posted_at']} UTC as {head['posted_reference'] or '–'}")
    lines += [f"Finding {one['rule']} ({one['severity']}): {one['message']}" for one in explained["findings"]]
    return "\n".join(lines)


class _Reader:
    """Reads rows as plain data.

    :param key: of the invoice that it is about.
    """

    def __init__(self, connection: Connection, tables: Tables, key: InvoiceKey) -> None:
        self._connection = connection
        self._tables = tables
        self._key = key

    def rows(self, table: Table, *where: ColumnElement[bool], names: Sequence[str] = ()) -> list[dict[str, Any]]:
        columns = [column for column in table.c if not names or column.name in names]
        query = select(*columns).where(*where).order_by(*(c for c in table.primary_key))
        found = self._connection.execute(query).mappings().all()
        return [{n: _text(v) for n, v in of_table(table, dict(row)).items()} for row in found]

    def own(self, table: Table, *where: ColumnElement[bool]) -> list[dict[str, Any]]:
        """Return the rows that are about the invoice."""
        return self.rows(table, and_(*(table.c[n] == v for n, v in zip(KEY, self._key, strict=True))), *where)

    def body(self, sha256: str | None, archive: Bodies | None) -> dict[str, str | None]:
        """Return where the archive keeps a body, or whether retention has erased it there."""
        if archive is None or sha256 is None:
            return {"sha256": sha256, "uri": None, "kept": None}
        uri = archive.find(sha256)
        return {"sha256": sha256, "uri": uri, "kept": "yes" if uri else "erased" if self._is_erased(sha256) else "no"}

    def _is_erased(self, sha256: str) -> bool:
        """Whether retention has noted of a body that it is no longer kept: no answer tells what a replay needs."""
        request = self._tables.request
        known = select(func.count(), func.count(request.c.request_key)).where(request.c.sha256 == sha256)
        answers, kept = self._connection.execute(known).one()
        return answers > 0 and not kept

    def one(self, table: Table, what: str, *where: ColumnElement[bool]) -> dict[str, Any]:
        found = self.own(table, *where)
        if not found:
            raise ConfigurationError(f"{what} is not staged.", field="invoice")
        return found[0]


def _answered(request: Table, loads: Sequence[str], head: Mapping[str, Any]) -> ColumnElement[bool]:
    """Return the condition that an answer of these loads is the invoice's body; any answer, where that is not known."""
    body = head["source_sha256"]
    answered = request.c.sha256.is_not(None) if body is None else request.c.sha256 == body
    return and_(request.c.load_id.in_(loads), answered)


def _text(value: Any) -> Any:
    return canonical(value) if isinstance(value, Decimal) else plain(value)
