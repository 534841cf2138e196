"""The staging tables: names, types, keys and column comments, the same on every database.

Terms follow EN 16931; its business-term number (BT-…) stands in the column's comment. The whole schema exists from the
first release, so that later features add no migration.
"""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import BigInteger, Column, Index, Integer

from airflow_cloudbilling.staging.columns import (
    BYTES,
    COUNTS,
    MOMENT,
    TEXT,
    code,
    invoice_columns,
    invoice_key,
    line_columns,
    line_number,
    load_id,
    period,
    revision_columns,
    sequence,
    slice_key,
    task_columns,
    tax_columns,
    texts,
)
from airflow_cloudbilling.staging.tables_outgoing import OutgoingTables

SCHEMA_VERSION = 8


class Tables(OutgoingTables):
    """The staging tables of one schema, as SQLAlchemy tables under their names without the prefix.

    :param schema: database schema, or ``None`` for the connection's default.
    """

    def __init__(self, schema: str | None = None) -> None:
        super().__init__(schema)
        self._invoices()
        self._slices()
        self._documents()
        self._loads()
        self._exchanges()
        self._findings()
        self._waiting()
        self._uploads()
        self._upload_items()
        self._closes()
        self._scopes()
        self._version()

    def _invoices(self) -> None:
        self.invoice = self._table("invoice", "invoices and credit notes", *invoice_key(), *invoice_columns())
        by_posting = ("slice_period", "provider", "account", "kind", "posted_at")
        Index(posting_index(self), *(self.invoice.c[name] for name in by_posting))
        self.invoice_line = self._table("invoice_line", "lines", *invoice_key(), line_number(), *line_columns())
        tax_number = Column("tax_number", Integer, primary_key=True, autoincrement=False, comment="position, from 1")
        self.invoice_tax = self._table(
            "invoice_tax", "VAT breakdown (BG-23) where stated", *invoice_key(), tax_number, *tax_columns()
        )
        self.invoice_revision = self._table(
            "invoice_revision",
            "what the vendor says now of invoices that were already posted",
            *invoice_key(),
            *revision_columns(),
            *invoice_columns(),
        )
        self.invoice_line_revision = self._table(
            "invoice_line_revision",
            "lines of those revisions",
            *invoice_key(),
            *revision_columns(),
            line_number(),
            *line_columns(),
        )

    def _slices(self) -> None:
        self.slice_invoice = self._table(
            "slice_invoice",
            "which invoices the last load of each slice returned",
            *slice_key(True),
            Column("period", code(32), primary_key=True, comment="half-open span of days, start/end"),
            Column("invoice_id", code(255), primary_key=True, comment="the vendor's identifier"),
        )
        self._by_invoice(self.slice_invoice)

    def _documents(self) -> None:
        self.document = self._table(
            "document",
            "files that came with invoices",
            *slice_key(True),
            Column("document_id", code(255), primary_key=True, comment="BT-122 the vendor's identifier of the file"),
            Column("invoice_id", code(255), comment="the invoice that it belongs to"),
            Column("document_type", TEXT, comment="as the vendor names it"),
            Column("filename", TEXT, comment="BT-125 attached document filename"),
            Column("content_type", TEXT, comment="BT-125 attached document MIME code"),
            Column("size", BigInteger, comment="bytes"),
            Column("sha256", code(64), comment="of the bytes as received"),
            Column("uri", TEXT, comment="BT-124 where the archive keeps it"),
            load_id(comment="the load that last changed the row"),
            Column("period", code(32), comment="of the slice that lists a file without an invoice, start/end"),
        )
        self._by_invoice(self.document)

    def _loads(self) -> None:
        self.load = self._table(
            "load",
            "every load of a slice, and how it ended",
            load_id(key=True, comment="identifier of the load"),
            *slice_key(False),
            period(),
            Column(
                "status",
                code(16),
                nullable=False,
                comment="running, waiting, committed, failed, superseded, abandoned",
            ),
            *(Column(f"{name}_count", Integer, comment=comment) for name, comment in COUNTS.items()),
            Column("totals", TEXT, comment="net, tax and gross by currency, as JSON with decimal texts"),
            Column("error", TEXT, comment="why it failed"),
            Column("fetch_started_at", MOMENT, nullable=False, comment="before the first request to the vendor"),
            *task_columns(),
            Column("map_index", Integer, comment="of the task instance; -1 when it is not mapped"),
            Column("try_number", Integer, comment="of the task instance"),
            Column("started_at", MOMENT, nullable=False, comment="UTC, by the database"),
            Column("ended_at", MOMENT, comment="UTC, by the database"),
            Column("replay_of", code(36), comment="the load whose archived answers were read again"),
        )
        Index(f"{self.load.name}_by_slice", *(self.load.c[n] for n in ("provider", "account", "kind", "period")))

    def _exchanges(self) -> None:
        self.request = self._table(
            "request",
            "every exchange with a vendor, without secrets",
            load_id(key=True),
            sequence(),
            Column("url", TEXT, comment="without secrets"),
            Column("status", Integer, comment="HTTP status; none when no answer came"),
            Column("sha256", code(64), comment="of the body as received"),
            Column("method", code(16), comment="of a good answer: how it was asked for"),
            Column("headers", TEXT, comment="of a good answer: the headers that a replay needs, as JSON"),
            Column("request_key", code(64), comment="of a good answer: SHA-256 of the request, without credentials"),
        )
        self.reject = self._table(
            "reject",
            "records that could not be read",
            load_id(key=True),
            sequence(),
            *invoice_key(key=False, nullable=True),
            period(),
            Column("reason", TEXT, nullable=False, comment="field, what was expected, what came"),
            Column("raw", TEXT, comment="the cleaned text of the record"),
        )

    def _findings(self) -> None:
        self.finding = self._table(
            "finding",
            "what a person should look at",
            Column("finding_id", code(36), primary_key=True, comment="identifier of the finding"),
            Column("load_id", code(36), comment="the load that found it"),
            *invoice_key(key=False, nullable=True),
            Column("period", code(32), comment="half-open span of days, start/end"),
            Column("rule", code(64), nullable=False, comment="the rule that found it, e.g. BR-CO-10"),
            Column("severity", code(16), nullable=False, comment="error or warning"),
            *texts(expected="what the rule expects", actual="what stands there", message="in words, with what to do"),
            Column("created_at", MOMENT, nullable=False, comment="UTC, by the database"),
            Column("resolved_at", MOMENT, comment="when it was no longer true"),
            Column("accepted_at", MOMENT, comment="when a person accepted it"),
            *texts(accepted_by="the person", accept_reason="in the person's words"),
        )
        self._by_invoice(self.finding)

    def _waiting(self) -> None:
        self.spool = self._table(
            "spool",
            "pages received before a deferral; deleted when the load ends",
            load_id(key=True),
            sequence(),
            *texts(url="without secrets", headers="as JSON"),
            Column("status", Integer, comment="HTTP status"),
            Column("body", BYTES, comment="a piece of the body, compressed by zlib"),
            Column("chunk", Integer, comment="position of the piece within its page, from 1; the first has the rest"),
            Column("request_key", code(64), comment="SHA-256 of the request, without credentials"),
            Column("sha256", code(64), comment="of the body as received"),
            Column("size", BigInteger, comment="bytes of the body"),
        )

    def _version(self) -> None:
        self.schema_version = self._table(
            "schema_version",
            "the version of these tables",
            Column("version", Integer, primary_key=True, autoincrement=False, comment="of the schema"),
            Column("created_at", MOMENT, comment="UTC, by the database"),
        )


def posting_index(tables: Tables) -> str:
    """Return the name of the index by which a slice's invoices are posted or not."""
    return f"{tables.invoice.name}_by_posting"


@lru_cache(maxsize=16)
def tables(schema: str | None = None) -> Tables:
    """Return the staging tables of a schema; the same object each time."""
    return Tables(schema)
