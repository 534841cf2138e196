"""The columns of the staging tables: their types in every database, and comments with EN 16931's business terms."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Text,
)
from sqlalchemy.dialects.mysql import DATETIME, LONGBLOB, LONGTEXT
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeEngine

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


def code(length: int) -> TypeEngine[Any]:
    """Return a text type whose values compare byte by byte."""
    bytewise = String(length, collation="utf8mb4_bin")
    return String(length).with_variant(bytewise, "mysql", "mariadb")


def slice_key(key: bool) -> list[Column[Any]]:
    """Return the columns that name a slice's account and kind."""
    return [
        Column("provider", code(32), primary_key=key, nullable=False, comment="connection type of the vendor"),
        Column("account", code(128), primary_key=key, nullable=False, comment="the account that was billed"),
        Column("kind", code(32), primary_key=key, nullable=False, comment="purchase, sales, consolidated or usage"),
    ]


def invoice_key(*, key: bool = True, nullable: bool = False) -> list[Column[Any]]:
    """Return the columns that name an invoice."""
    invoice_id = Column("invoice_id", code(255), primary_key=key, nullable=nullable, comment="the vendor's identifier")
    return [*slice_key(key), invoice_id]


def scope_key() -> list[Column[Any]]:
    """Return the columns that name a scope of Sage."""
    return [
        Column("conn_id", code(250), primary_key=True, nullable=False, comment="Airflow connection"),
        Column("scope", code(128), primary_key=True, nullable=False, comment="of the file at Sage"),
    ]


def period() -> Column[Any]:
    """Return the column of a slice's period."""
    return Column("period", code(32), nullable=False, comment="half-open span of days, start/end")


def load_id(*, key: bool = False, comment: str = "cloudbilling_load.load_id") -> Column[Any]:
    """Return the column of a load's identifier."""
    return Column("load_id", code(36), primary_key=key, nullable=False, comment=comment)


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
TOTALS = {"net": "net_amount", "tax": "tax_amount", "gross": "gross_amount"}  # as sums of many invoices name them


def invoice_columns() -> list[Column[Any]]:
    """Return the columns of an invoice, without its key."""
    return [
        Column("invoice_number", TEXT, comment="BT-1 invoice number"),
        Column("document_type", code(16), nullable=False, comment="BT-3 as invoice or credit_note"),
        Column("issue_date", DAY, comment="BT-2 invoice issue date"),
        Column("due_date", DAY, comment="BT-9 payment due date"),
        Column("period_start", DAY, comment="BT-73 invoicing period start, inclusive"),
        Column("period_end", DAY, comment="BT-74 invoicing period end, inclusive"),
        Column("currency", code(16), comment="BT-5 invoice currency code"),
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
        Column("totals_origin", code(16), nullable=False, comment="stated by the vendor, computed from lines, or none"),
        Column("line_count", Integer, nullable=False, comment="number of lines"),
        Column("preceding_invoice", TEXT, comment="BT-25 preceding invoice number"),
        Column("slice_period", code(32), nullable=False, comment="the greatest period among the slices that return it"),
        Column("raw", TEXT, comment="the vendor's record without its lines, as received"),
        Column("content_hash", code(64), nullable=False, comment="SHA-256 of the normalised invoice and its lines"),
        Column("source_sha256", code(64), comment="SHA-256 of the body that it came in"),
        load_id(comment="the load that last changed the row"),
        Column("posted_at", MOMENT, comment="when Sage accepted it or an ERP marked it; then it is frozen"),
        Column("posted_reference", TEXT, comment="what the ERP calls its posting"),
    ]


def line_columns() -> list[Column[Any]]:
    """Return the columns of a line, without its key."""
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
        Column("subscription_name", TEXT, comment="as the vendor names it"),
        Column("customer_id", TEXT, comment="the end customer at the vendor"),
        Column("customer_name", TEXT, comment="of the end customer"),
        Column("charge_type", TEXT, comment="kind of charge, as the vendor names it"),
        Column("match_key", TEXT, comment="equal on the purchase and the sales side of one charge"),
        Column("raw", TEXT, comment="the vendor's record, as received"),
    ]


def line_number() -> Column[Any]:
    """Return the column of a line's position."""
    return Column("line_number", Integer, primary_key=True, autoincrement=False, comment="position, from 1")


def revision_columns() -> list[Column[Any]]:
    """Return the columns that tell revisions apart."""
    return [
        Column("revision", Integer, primary_key=True, autoincrement=False, comment="from 1, for each invoice"),
        Column("reason", code(16), nullable=False, comment="changed or withdrawn at the vendor after it was posted"),
    ]


def tax_columns() -> list[Column[Any]]:
    """Return the columns of the VAT breakdown."""
    return [
        Column("category", code(16), comment="BT-118 VAT category code"),
        Column("rate", AMOUNT, comment="BT-119 VAT category rate in percent"),
        Column("taxable_amount", AMOUNT, comment="BT-116 VAT category taxable amount"),
        Column("tax_amount", AMOUNT, comment="BT-117 VAT category tax amount"),
    ]


COUNTS = {
    "received": "distinct records that came",
    "staged": "invoices new, changed or unchanged",
    "outside": "records outside the period",
    "rejected": "records that could not be read",
    "frozen": "posted invoices that the vendor has changed",
    "stated": "records that the vendor says there are",
    "new": "invoices not staged before",
    "changed": "invoices with other content than staged",
    "unchanged": "invoices as staged",
    "removed": "invoices that left the slice",
    "invoice": "invoices of the slice",
    "line": "lines of the slice",
    "document": "files of the slice",
}


def texts(**comments: str) -> list[Column[Any]]:
    """Return text columns with their comments."""
    return [Column(name, TEXT, comment=comment) for name, comment in comments.items()]


def task_columns() -> list[Column[Any]]:
    """Return the columns that name a task instance."""
    return texts(dag_id="of the task instance", task_id="of the task instance", run_id="of the task instance")


def sequence() -> Column[Any]:
    """Return the column of a row's position within its load."""
    return Column("sequence", Integer, primary_key=True, autoincrement=False, comment="position, from 1")
