"""The staging tables: names, types, keys and column comments, the same on every database.

Terms follow EN 16931; its business-term number (BT-…) stands in the column's comment. The whole schema exists from the
first release, so that later features add no migration.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.mysql import DATETIME, LONGBLOB, LONGTEXT
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeEngine

SCHEMA_VERSION = 1

# Exact decimals: NUMERIC on PostgreSQL, NUMERIC(38,12) on MySQL and MariaDB, canonical text on SQLite, whose own
# numbers are floats. Days and moments are ISO text on SQLite, which has no type for them; moments are UTC everywhere.
AMOUNT: TypeEngine[Any] = Numeric().with_variant(Numeric(38, 12), "mysql", "mariadb").with_variant(Text(), "sqlite")
DAY: TypeEngine[Any] = Date().with_variant(Text(), "sqlite")
MOMENT: TypeEngine[Any] = (
    DateTime(timezone=True).with_variant(DATETIME(fsp=6), "mysql", "mariadb").with_variant(Text(), "sqlite")
)
TEXT: TypeEngine[Any] = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
BYTES: TypeEngine[Any] = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")


@compiles(CreateColumn, "sqlite")
def _comment_in_sqlite(create: CreateColumn, compiler: Any, **kwargs: Any) -> str:
    """Keep the column's comment in the statement that SQLite stores, its only place for one."""
    statement: str = compiler.visit_create_column(create, **kwargs)
    comment = create.element.comment
    return f"{statement} /* {comment} */" if comment else statement


def _key(length: int) -> TypeEngine[Any]:
    """Return a text type whose values compare byte by byte."""
    bytewise = String(length, collation="utf8mb4_bin")
    return String(length).with_variant(bytewise, "mysql", "mariadb")


def _slice(key: bool) -> list[Column[Any]]:
    return [
        Column("provider", _key(32), primary_key=key, nullable=False, comment="connection type of the vendor"),
        Column("account", _key(128), primary_key=key, nullable=False, comment="the account that was billed"),
        Column("kind", _key(32), primary_key=key, nullable=False, comment="purchase, sales, consolidated or usage"),
    ]


def _invoice_key(*, key: bool = True, nullable: bool = False) -> list[Column[Any]]:
    invoice_id = Column("invoice_id", _key(255), primary_key=key, nullable=nullable, comment="the vendor's identifier")
    return [*_slice(key), invoice_id]


def _period() -> Column[Any]:
    return Column("period", _key(32), nullable=False, comment="half-open span of days, start/end")


def _load_id(*, key: bool = False, comment: str = "cloudbilling_load.load_id") -> Column[Any]:
    return Column("load_id", _key(36), primary_key=key, nullable=False, comment=comment)


INVOICE_AMOUNTS = {
    "net_amount": "BT-109 invoice total without VAT",
    "tax_amount": "BT-110 invoice total VAT",
    "gross_amount": "BT-112 invoice total with VAT",
    "allowance_total": "BT-107 sum of allowances",
    "charge_total": "BT-108 sum of charges",
    "rounding_amount": "BT-114 rounding amount",
    "paid_amount": "BT-113 paid amount",
    "payable_amount": "BT-115 amount due for payment",
}


def _invoice_columns() -> list[Column[Any]]:
    return [
        Column("invoice_number", TEXT, comment="BT-1 invoice number"),
        Column("document_type", _key(16), nullable=False, comment="BT-3 as invoice or credit_note"),
        Column("issue_date", DAY, comment="BT-2 invoice issue date"),
        Column("due_date", DAY, comment="BT-9 payment due date"),
        Column("period_start", DAY, comment="BT-73 invoicing period start, inclusive"),
        Column("period_end", DAY, comment="BT-74 invoicing period end, inclusive"),
        Column("currency", _key(16), comment="BT-5 invoice currency code"),
        Column("seller_name", TEXT, comment="BT-27 seller name"),
        Column("seller_vat_id", TEXT, comment="BT-31 seller VAT identifier"),
        Column("seller_country", TEXT, comment="BT-40 seller country code"),
        Column("buyer_id", TEXT, comment="BT-46 buyer identifier"),
        Column("buyer_name", TEXT, comment="BT-44 buyer name"),
        Column("buyer_vat_id", TEXT, comment="BT-48 buyer VAT identifier"),
        Column("buyer_country", TEXT, comment="BT-55 buyer country code"),
        *(
            Column(name, AMOUNT, comment=f"{comment}, credit notes negative")
            for name, comment in INVOICE_AMOUNTS.items()
        ),
        Column("status", TEXT, comment="the vendor's status, as it is"),
        Column("totals_origin", _key(16), nullable=False, comment="stated by the vendor, computed from lines, or none"),
        Column("line_count", Integer, nullable=False, comment="number of lines"),
        Column("preceding_invoice", TEXT, comment="BT-25 preceding invoice number"),
        Column("slice_period", _key(32), nullable=False, comment="the greatest period among the slices that return it"),
        Column("raw", TEXT, comment="the vendor's record without its lines, as received"),
        Column("content_hash", _key(64), nullable=False, comment="SHA-256 of the normalised invoice and its lines"),
        Column("source_sha256", _key(64), comment="SHA-256 of the body that it came in"),
        _load_id(comment="the load that last changed the row"),
        Column("posted_at", MOMENT, comment="when Sage accepted it or an ERP marked it; then it is frozen"),
        Column("posted_reference", TEXT, comment="what the ERP calls its posting"),
    ]


LINE_AMOUNTS = ("quantity", "unit_price", "discount", "net_amount", "tax_rate", "tax_amount")


def _line_columns() -> list[Column[Any]]:
    return [
        Column("line_id", TEXT, comment="BT-126 invoice line identifier"),
        Column("item_code", TEXT, comment="BT-155 item seller's identifier"),
        Column("description", TEXT, comment="BT-153 item name"),
        Column("quantity", AMOUNT, comment="BT-129 invoiced quantity, credit notes negative"),
        Column("unit", TEXT, comment="BT-130 quantity unit of measure, as the vendor names it"),
        Column("unit_price", AMOUNT, comment="BT-146 item net price"),
        Column("discount", AMOUNT, comment="the vendor's discount"),
        Column("net_amount", AMOUNT, comment="BT-131 invoice line net amount, credit notes negative"),
        Column("tax_rate", AMOUNT, comment="BT-152 VAT rate in percent"),
        Column("tax_amount", AMOUNT, comment="VAT of the line, credit notes negative"),
        Column("period_start", DAY, comment="BT-134 invoice line period start, inclusive"),
        Column("period_end", DAY, comment="BT-135 invoice line period end, inclusive"),
        Column("subscription_id", TEXT, comment="BT-128 the vendor's subscription"),
        Column("subscription_name", TEXT),
        Column("customer_id", TEXT, comment="the end customer at the vendor"),
        Column("customer_name", TEXT),
        Column("charge_type", TEXT, comment="kind of charge, as the vendor names it"),
        Column("match_key", TEXT, comment="equal on the purchase and the sales side of one charge"),
        Column("raw", TEXT, comment="the vendor's record, as received"),
    ]


def _line_number() -> Column[Any]:
    return Column("line_number", Integer, primary_key=True, autoincrement=False, comment="position, from 1")


def _revision() -> list[Column[Any]]:
    return [
        Column("revision", Integer, primary_key=True, autoincrement=False, comment="from 1, for each invoice"),
        Column("reason", _key(16), nullable=False, comment="changed or withdrawn at the vendor after it was posted"),
    ]


def _tax_columns() -> list[Column[Any]]:
    return [
        Column("category", _key(16), comment="BT-118 VAT category code"),
        Column("rate", AMOUNT, comment="BT-119 VAT category rate in percent"),
        Column("taxable_amount", AMOUNT, comment="BT-116 VAT category taxable amount"),
        Column("tax_amount", AMOUNT, comment="BT-117 VAT category tax amount"),
    ]


class Tables:
    """The staging tables of one schema, as SQLAlchemy tables under their names without the prefix.

    :param schema: database schema, or ``None`` for the connection's default.
    """

    def __init__(self, schema: str | None = None) -> None:
        self.metadata = MetaData(schema=schema)
        self._invoices()
        self._slices()
        self._loads()
        self._uploads()

    def _table(self, name: str, comment: str, *columns: Column[Any]) -> Table:
        return Table(
            f"cloudbilling_{name}",
            self.metadata,
            *columns,
            comment=comment,
            mysql_charset="utf8mb4",
            mysql_engine="InnoDB",
        )

    def _invoices(self) -> None:
        self.invoice = self._table("invoice", "invoices and credit notes", *_invoice_key(), *_invoice_columns())
        self.invoice_line = self._table("invoice_line", "lines", *_invoice_key(), _line_number(), *_line_columns())
        tax_number = Column("tax_number", Integer, primary_key=True, autoincrement=False, comment="position, from 1")
        self.invoice_tax = self._table(
            "invoice_tax", "VAT breakdown (BG-23) where stated", *_invoice_key(), tax_number, *_tax_columns()
        )
        self.invoice_revision = self._table(
            "invoice_revision",
            "what the vendor says now of invoices that were already posted",
            *_invoice_key(),
            *_revision(),
            *_invoice_columns(),
        )
        self.invoice_line_revision = self._table(
            "invoice_line_revision",
            "lines of those revisions",
            *_invoice_key(),
            *_revision(),
            _line_number(),
            *_line_columns(),
        )

    def _slices(self) -> None:
        self.slice_invoice = self._table(
            "slice_invoice",
            "which invoices the last load of each slice returned",
            *_slice(True),
            Column("period", _key(32), primary_key=True, comment="half-open span of days, start/end"),
            Column("invoice_id", _key(255), primary_key=True, comment="the vendor's identifier"),
        )
        Index(
            f"{self.slice_invoice.name}_by_invoice",
            *(self.slice_invoice.c[name] for name in ("provider", "account", "kind", "invoice_id")),
        )
        self.document = self._table(
            "document",
            "files that came with invoices",
            *_slice(True),
            Column("document_id", _key(255), primary_key=True, comment="BT-122 the vendor's identifier of the file"),
            Column("invoice_id", _key(255), comment="the invoice that it belongs to"),
            Column("document_type", TEXT, comment="as the vendor names it"),
            Column("filename", TEXT, comment="BT-125 attached document filename"),
            Column("content_type", TEXT, comment="BT-125 attached document MIME code"),
            Column("size", BigInteger, comment="bytes"),
            Column("sha256", _key(64), comment="of the bytes as received"),
            Column("uri", TEXT, comment="BT-124 where the archive keeps it"),
            _load_id(comment="the load that last changed the row"),
        )

    def _loads(self) -> None:
        counts = ("received", "staged", "outside", "rejected", "frozen", "stated")
        changes = ("new", "changed", "unchanged", "removed", "line", "document")
        self.load = self._table(
            "load",
            "every load of a slice, and how it ended",
            _load_id(key=True, comment="identifier of the load"),
            *_slice(False),
            _period(),
            Column(
                "status", _key(16), nullable=False, comment="running, waiting, committed, failed, superseded, abandoned"
            ),
            *(Column(f"{name}_count", Integer) for name in (*counts, *changes)),
            Column("totals", TEXT, comment="net, tax and gross by currency, as JSON with decimal texts"),
            Column("error", TEXT, comment="why it failed"),
            Column("fetch_started_at", MOMENT, nullable=False, comment="before the first request to the vendor"),
            *(Column(name, TEXT) for name in ("dag_id", "task_id", "run_id")),
            *(Column(name, Integer) for name in ("map_index", "try_number")),
            Column("started_at", MOMENT, nullable=False),
            Column("ended_at", MOMENT),
            Column("replay_of", _key(36), comment="the load whose archived answers were read again"),
        )
        Index(f"{self.load.name}_by_slice", *(self.load.c[n] for n in ("provider", "account", "kind", "period")))
        self.request = self._table(
            "request",
            "every exchange with a vendor, without secrets",
            _load_id(key=True),
            Column("sequence", Integer, primary_key=True, autoincrement=False),
            Column("url", TEXT),
            Column("status", Integer, comment="HTTP status; none when no answer came"),
            Column("sha256", _key(64), comment="of the body as received"),
            Column("method", _key(16), comment="of a good answer: how it was asked for"),
            Column("headers", TEXT, comment="of a good answer: the headers that a replay needs, as JSON"),
            Column("request_key", _key(64), comment="of a good answer: SHA-256 of the request, without credentials"),
        )
        self.reject = self._table(
            "reject",
            "records that could not be read",
            _load_id(key=True),
            Column("sequence", Integer, primary_key=True, autoincrement=False),
            *_invoice_key(key=False, nullable=True),
            _period(),
            Column("reason", TEXT, nullable=False),
            Column("raw", TEXT, comment="the cleaned text of the record"),
        )
        self.finding = self._table(
            "finding",
            "what a person should look at",
            Column("finding_id", _key(36), primary_key=True),
            Column("load_id", _key(36), comment="the load that found it"),
            *_invoice_key(key=False, nullable=True),
            Column("period", _key(32)),
            Column("rule", _key(64), nullable=False),
            Column("severity", _key(16), nullable=False, comment="error or warning"),
            *(Column(name, TEXT) for name in ("expected", "actual", "message")),
            Column("created_at", MOMENT, nullable=False),
            *(Column(name, MOMENT) for name in ("resolved_at", "accepted_at")),
            *(Column(name, TEXT) for name in ("accepted_by", "accept_reason")),
        )
        self.spool = self._table(
            "spool",
            "pages received before a deferral; deleted when the load ends",
            _load_id(key=True),
            Column("sequence", Integer, primary_key=True, autoincrement=False),
            *(Column(name, TEXT) for name in ("url", "headers")),
            Column("status", Integer),
            Column("body", BYTES),
        )

    def _uploads(self) -> None:
        self.upload = self._table(
            "upload",
            "files sent to Sage Connected Cloud",
            Column("upload_id", _key(36), primary_key=True),
            *(Column(name, TEXT) for name in ("conn_id", "scope", "close_id", "reason")),
            Column("content_sha256", _key(64), nullable=False, comment="of the file as sent"),
            Column("status", _key(16), nullable=False, comment="intent, submitted, accepted, failed, unknown"),
            *(Column(name, TEXT) for name in ("tracking_id", "progress", "result_uri")),
            *(Column(name, TEXT) for name in ("dag_id", "task_id", "run_id")),
            *(Column(name, MOMENT) for name in ("created_at", "submitted_at", "ended_at")),
        )
        self.upload_item = self._table(
            "upload_item",
            "which staged invoices went into which upload, and the result of each",
            Column("upload_id", _key(36), primary_key=True),
            *_invoice_key(),
            Column("content_hash", _key(64), comment="of the invoice as sent"),
            Column(
                "status",
                _key(16),
                nullable=False,
                comment="intent, submitted, accepted, failed, rejected, unknown, released",
            ),
            *(Column(name, TEXT) for name in ("record_key", "message")),
            Column("ended_at", MOMENT),
        )
        self.close = self._table(
            "close",
            "the sets of invoices that were reconciled, approved and sent",
            Column("close_id", _key(36), primary_key=True),
            _period(),
            Column("invoices", TEXT, comment="invoice keys and content hashes, as JSON"),
            Column("totals", TEXT, comment="net, tax and gross by currency, as JSON with decimal texts"),
            Column("sha256", _key(64), nullable=False),
            Column("approved_by", TEXT),
            Column("approved_at", MOMENT),
            Column("status", _key(16), nullable=False),
            Column("created_at", MOMENT),
        )
        self.schema_version = self._table(
            "schema_version",
            "the version of these tables",
            Column("version", Integer, primary_key=True, autoincrement=False),
            Column("created_at", MOMENT),
        )


@lru_cache(maxsize=16)
def tables(schema: str | None = None) -> Tables:
    """Return the staging tables of a schema; the same object each time."""
    return Tables(schema)
