"""Views over the staging tables: invoice details in FOCUS 1.4's terms, and purchase against sales.

They carry single amounts only: SQLite's ``SUM`` over text is a float, so sums are the package's work there.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, String, Table, and_, case, cast, exists, func, literal, null, select, union_all
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.staging.tables import Tables

_DIALECTS: dict[str, Any] = {
    "sqlite": sqlite.dialect,
    "postgresql": postgresql.dialect,
    "mysql": mysql.dialect,
    "mariadb": mysql.dialect,
}
_KEY = ("provider", "account", "kind", "invoice_id")


def view_statements(tables: Tables, dialect_name: str) -> list[str]:
    """Return the CREATE VIEW statements in a dialect; they may be repeated."""
    dialect = _DIALECTS[dialect_name]()
    create = "CREATE VIEW IF NOT EXISTS" if dialect_name == "sqlite" else "CREATE OR REPLACE VIEW"
    schema = tables.metadata.schema
    prefix = f"{dialect.identifier_preparer.quote_schema(schema)}." if schema else ""
    views = {"focus_invoice_detail": _focus_invoice_detail(tables, dialect_name), "margin": _margin(tables)}
    options = {"literal_binds": True}
    return [
        f"{create} {prefix}cloudbilling_{name} AS {query.compile(dialect=dialect, compile_kwargs=options)}"
        for name, query in views.items()
    ]


def _focus_invoice_detail(tables: Tables, dialect_name: str) -> Any:
    """Return InvoiceDetail: one row for each line, for an invoice's VAT, and for an invoice that has no lines."""
    invoice, line = tables.invoice, tables.invoice_line
    of_line = _focus_row(
        tables,
        cost=line.c.net_amount,
        category=_charge_category(line),
        detail_id=literal("line-").concat(cast(line.c.line_number, String(12))),
        description=line.c.description,
        grain=_grain(line, dialect_name),
        measures=[line.c[name] for name in ("quantity", "unit", "unit_price", "tax_rate")],
    ).join(line, and_(*(line.c[name] == invoice.c[name] for name in _KEY)))
    whole: dict[str, Any] = {"grain": null(), "measures": [null()] * 4}
    vat, net = literal("VAT"), literal("Invoice total without VAT")
    of_tax = _focus_row(
        tables, cost=invoice.c.tax_amount, category=literal("Tax"), detail_id=literal("tax"), description=vat, **whole
    ).where(invoice.c.tax_amount.is_not(None), cast(invoice.c.tax_amount, String(64)).not_in(["0", "0.000000000000"]))
    kind = case((invoice.c.document_type == "credit_note", literal("Credit")), else_=literal("Purchase"))
    of_total = _focus_row(
        tables, cost=invoice.c.net_amount, category=kind, detail_id=literal("total"), description=net, **whole
    ).where(invoice.c.line_count == 0, invoice.c.net_amount.is_not(None))
    return union_all(of_line, of_tax, of_total)


def _focus_row(
    tables: Tables,
    *,
    cost: Any,
    category: Any,
    detail_id: Any,
    description: Any,
    grain: Any,
    measures: list[Any],
) -> Select[Any]:
    """Return the columns of InvoiceDetail, in FOCUS's spelling; periods half-open in UTC."""
    invoice, load = tables.invoice, tables.load
    number = func.coalesce(invoice.c.invoice_number, invoice.c.invoice_id)
    changed = select(load.c.started_at).where(load.c.load_id == invoice.c.load_id).scalar_subquery()
    columns = {
        "BilledCost": cost,
        "BillingAccountId": invoice.c.account,
        "BillingCurrency": invoice.c.currency,
        "BillingPeriodStart": _midnight(func.substr(invoice.c.slice_period, 1, 10)),
        "BillingPeriodEnd": _midnight(func.substr(invoice.c.slice_period, 12, 10)),
        "ChargeCategory": category,
        "InvoiceDetailCreated": changed,
        "InvoiceDetailDescription": description,
        "InvoiceDetailGrain": grain,
        "InvoiceDetailId": detail_id,
        "InvoiceDetailLastUpdated": changed,
        "InvoiceId": number,
        "InvoiceIssueDate": _midnight(cast(invoice.c.issue_date, String(10))),
        "InvoiceIssueStatus": literal("Issued"),
        "InvoiceIssuerName": func.coalesce(invoice.c.seller_name, invoice.c.provider),
        "PaymentCurrency": invoice.c.currency,
        "PaymentDueDate": _midnight(cast(invoice.c.due_date, String(10))),
        "PaymentTerms": literal("As on the invoice"),
        "ReferenceInvoiceId": func.coalesce(invoice.c.preceding_invoice, number),
        **dict(zip(("x_Quantity", "x_Unit", "x_UnitPrice", "x_TaxRate"), measures, strict=True)),
        "x_Provider": invoice.c.provider,
        "x_Kind": invoice.c.kind,
    }
    return select(*(value.label(name) for name, value in columns.items())).select_from(invoice)


def _midnight(day: Any) -> Any:
    return cast(day, String(10)).concat(literal("T00:00:00Z"))


def _charge_category(line: Table) -> Any:
    """Return FOCUS's category for 2tCloud's ChargeType values; what has none is a purchase."""
    charge = func.lower(line.c.charge_type)
    return case(
        (charge.like("usage%"), literal("Usage")),
        (charge.like("correction%"), literal("Adjustment")),
        else_=literal("Purchase"),
    )


def _grain(line: Table, dialect_name: str) -> Any:
    build = func.json_build_object if dialect_name == "postgresql" else func.json_object
    keys = {"SubAccountId": "customer_id", "ResourceId": "subscription_id", "SkuId": "item_code"}
    pairs = [part for key, column in keys.items() for part in (literal(key), line.c[column])]
    return cast(build(*pairs), line.c.raw.type) if dialect_name == "postgresql" else build(*pairs)


def _margin(tables: Tables) -> Any:
    """Return purchase lines beside the sales lines of the same charge, with what stands on one side only."""
    bought, sold = tables.invoice_line.alias("bought"), tables.invoice_line.alias("sold")
    pair = and_(*_same_charge(bought, sold), sold.c.kind == "sales")
    first = (
        _margin_row(tables, bought, sold).select_from(bought.outerjoin(sold, pair)).where(bought.c.kind == "purchase")
    )
    partner = exists().where(*_same_charge(bought, sold), bought.c.kind == "purchase").correlate(sold)
    second = _margin_row(tables, None, sold).select_from(sold).where(sold.c.kind == "sales", ~partner)
    return union_all(first, second)


def _same_charge(bought: Any, sold: Any) -> list[ColumnElement[bool]]:
    return [bought.c[name] == sold.c[name] for name in ("provider", "account", "match_key")]


def _margin_row(tables: Tables, bought: Any, sold: Any) -> Select[Any]:
    own = sold if bought is None else bought
    shared = [
        "provider",
        "account",
        "match_key",
        "customer_id",
        "customer_name",
        "subscription_id",
        "item_code",
        "description",
    ]
    columns = [own.c[name].label(name) for name in shared]
    state = (
        literal("sold only") if bought is None else case((sold.c.invoice_id.is_(None), "bought only"), else_="matched")
    )
    columns.append(state.label("state"))
    for prefix, line in (("purchase", bought), ("sales", sold)):
        names = ("invoice_id", "line_number", "quantity", "net_amount")
        columns += [(null() if line is None else line.c[name]).label(f"{prefix}_{name}") for name in names]
        columns.append((null() if line is None else _of_invoice(tables, line, "currency")).label(f"{prefix}_currency"))
    columns.append(_of_invoice(tables, own, "slice_period").label("period"))
    return select(*columns)


def _of_invoice(tables: Tables, line: Any, column: str) -> Any:
    invoice = tables.invoice
    match = and_(*(invoice.c[name] == line.c[name] for name in _KEY))
    return select(invoice.c[column]).where(match).scalar_subquery()
