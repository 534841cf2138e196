"""FOCUS 1.4's InvoiceDetail and BillingPeriod as queries over the staging tables, in FOCUS's own spelling.

InvoiceDetail has a row for each line, and one for what an invoice says beside its lines: VAT, allowances, charges,
rounding, what was paid already, and what all these lack of the amount due. So the rows of an invoice add up to that
(BT-115): as the vendor states it, else BT-112 - BT-113 + BT-114. Credit notes are negative. Usage reports are no
invoices, and consolidated ones would count purchases and sales twice; both are left out.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    String,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    null,
    or_,
    select,
)
from sqlalchemy import union_all as all_of

from airflow_cloudbilling.model import NOT_ISSUED
from airflow_cloudbilling.staging.closes import in_approved_close
from airflow_cloudbilling.staging.columns import AMOUNT, TEXT
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.reading import credited_number, same_invoice
from airflow_cloudbilling.staging.tables import Tables

KINDS = ("purchase", "sales")
PAID, ROUNDING, DIFFERENCE = "paid", "rounding", "difference"  # the last part of such a row's InvoiceDetailId
DIFFERENCE_WORDS = "Difference between the amount due and its parts"
_MEASURES = ("quantity", "unit", "unit_price", "discount", "tax_rate", "tax_amount")
_MEASURE_NAMES = ("x_Quantity", "x_Unit", "x_UnitPrice", "x_Discount", "x_TaxRate", "x_TaxAmount")
_GRAIN = {"SubAccountId": "customer_id", "ResourceId": "subscription_id", "SkuId": "item_code"}


class Focus:
    """The two datasets in one database's dialect.

    :param dialect_name: SQLAlchemy's name for it.
    :param only: which rows of ``cloudbilling_invoice``; ``None`` for all.
    """

    def __init__(self, tables: Tables, dialect_name: str, only: ColumnElement[bool] | None = None) -> None:
        self.tables = tables
        billed = tables.invoice.c.kind.in_(KINDS)
        self.only = billed if only is None else and_(billed, only)
        self.name = dialect_name
        self.dialect = dialect_of(dialect_name)

    def invoice_detail(self) -> Any:
        """Return InvoiceDetail."""
        invoice = self.tables.invoice
        has_lines, net = self._has_lines(), self._net()
        whole = case((invoice.c.document_type == "credit_note", "Credit"), else_="Purchase")
        parts = [
            ("total", net, whole, "Invoice total without VAT", and_(~has_lines, net.is_not(None))),
            ("tax", invoice.c.tax_amount, "Tax", "VAT", _is_some(invoice.c.tax_amount)),
            (ROUNDING, invoice.c.rounding_amount, "Adjustment", "Rounding", _is_some(invoice.c.rounding_amount)),
        ]
        allowance, charge, paid = invoice.c.allowance_total, invoice.c.charge_total, invoice.c.paid_amount
        less = self.dialect.negated(allowance)
        parts.append(("allowance", less, "Credit", "Allowances", and_(has_lines, _is_some(allowance))))
        parts.append(("charge", charge, "Purchase", "Charges", and_(has_lines, _is_some(charge))))
        if self.dialect.sums:  # elsewhere the package adds them up, see focus_rows
            lacking = self._lacking()
            parts.append((DIFFERENCE, lacking, "Adjustment", DIFFERENCE_WORDS, lacking != 0))
        parts.append((PAID, self.dialect.negated(paid), "Adjustment", "Paid already", _is_some(paid)))
        return all_of(self._of_lines(), *(self._part(*part) for part in parts))

    def billing_period(self) -> Any:
        """Return BillingPeriod: a period of an issuer is closed once a person has approved all that is in it."""
        invoice, load = self.tables.invoice, self.tables.load
        issuer, approved = self._issuer().label("issuer"), case((in_approved_close(self.tables), 1), else_=0)
        columns = (issuer, invoice.c.slice_period, invoice.c.load_id, approved.label("approved"))
        known = select(*columns).where(self.only).subquery()
        moments = {
            "BillingPeriodCreated": self._moment(func.min(load.c.started_at)),
            "BillingPeriodLastUpdated": self._moment(func.max(load.c.started_at)),
        }
        named = {
            "BillingPeriodCreated": moments["BillingPeriodCreated"],
            "BillingPeriodEnd": _midnight(func.substr(known.c.slice_period, 12, 10)),
            "BillingPeriodLastUpdated": moments["BillingPeriodLastUpdated"],
            "BillingPeriodStart": _midnight(func.substr(known.c.slice_period, 1, 10)),
            "BillingPeriodStatus": case((func.min(known.c.approved) == 1, "Closed"), else_="Open"),
            "InvoiceIssuerName": known.c.issuer,
        }
        found = select(*(value.label(name) for name, value in named.items()))
        loaded = found.join_from(known, load, load.c.load_id == known.c.load_id)
        return loaded.group_by(known.c.issuer, known.c.slice_period)

    def _of_lines(self) -> Select[Any]:
        invoice, line = self.tables.invoice, self.tables.invoice_line
        charge = func.lower(line.c.charge_type)
        category = case(  # of 2tCloud's ChargeType; whatever else it is, somebody bought it
            (charge.like("usage%"), "Usage"), (charge.like("correction%"), "Adjustment"), else_="Purchase"
        )
        measures = [line.c[name] for name in _MEASURES]
        number = cast(line.c.line_number, String(12))
        row = self._row(
            number, line.c.net_amount, category, line.c.description, self._grain(), measures, number=line.c.line_number
        )
        lines = row.join_from(invoice, line, same_invoice(line, invoice))
        return lines.where(line.c.net_amount.is_not(None))

    def _part(self, name: str, cost: Any, category: Any, words: str, where: ColumnElement[bool]) -> Select[Any]:
        """Return a row of an invoice that is none of its lines."""
        measures = [cast(null(), self.tables.invoice_line.c[name].type) for name in _MEASURES]
        paid = self.tables.invoice.c.paid_amount if name == PAID else None
        row = self._row(literal(name), cost, _text(category), literal(words), None, measures, paid=paid)
        return row.select_from(self.tables.invoice).where(where)

    def _row(
        self,
        part: Any,
        cost: Any,
        category: Any,
        description: Any,
        grain: Any,
        measures: list[Any],
        *,
        number: Any = None,
        paid: Any = None,
    ) -> Select[Any]:
        """Return the columns of InvoiceDetail; periods are half-open, all moments UTC."""
        invoice, load = self.tables.invoice, self.tables.load
        shown = func.coalesce(invoice.c.invoice_number, invoice.c.invoice_id)
        changed = self._moment(select(load.c.started_at).where(load.c.load_id == invoice.c.load_id).scalar_subquery())
        columns = {
            "BilledCost": cost,
            "BillingAccountId": invoice.c.account,
            "BillingCurrency": invoice.c.currency,
            "BillingPeriodEnd": _midnight(func.substr(invoice.c.slice_period, 12, 10)),
            "BillingPeriodStart": _midnight(func.substr(invoice.c.slice_period, 1, 10)),
            "ChargeCategory": category,
            "InvoiceDetailCreated": changed,
            "InvoiceDetailDescription": description,
            "InvoiceDetailGrain": cast(null(), TEXT) if grain is None else grain,
            "InvoiceDetailId": invoice.c.invoice_id.concat("/").concat(part),  # one number may come twice
            "InvoiceDetailLastUpdated": changed,
            "InvoiceId": shown,
            "InvoiceIssueDate": _midnight(invoice.c.issue_date),
            "InvoiceIssueStatus": self._status(),
            "InvoiceIssuerName": self._issuer(),
            "PaymentCurrency": invoice.c.currency,
            "PaymentDueDate": _midnight(invoice.c.due_date),
            "PaymentTerms": self._terms(),
            "ReferenceInvoiceId": func.coalesce(credited_number(invoice), invoice.c.preceding_invoice, shown),
            **dict(zip(_MEASURE_NAMES, measures, strict=True)),
            "x_PaidAmount": cast(null(), AMOUNT) if paid is None else paid,
            "x_InvoiceTotal": self._total(),
            "x_PayableAmount": invoice.c.payable_amount,
            "x_InvoiceStatus": invoice.c.status,
            "x_Provider": invoice.c.provider,
            "x_Kind": invoice.c.kind,
            "x_InvoiceId": invoice.c.invoice_id,
            "x_LineNumber": cast(null(), Integer) if number is None else number,
        }
        return select(*(value.label(name) for name, value in columns.items())).where(self.only)

    def _lacking(self) -> Any:
        """Return what the rows of an invoice lack of the amount due: nothing, unless the vendor cannot add up."""
        invoice, line = self.tables.invoice, self.tables.invoice_line
        added = select(func.coalesce(func.sum(line.c.net_amount), 0))
        lines = added.where(same_invoice(line, invoice)).scalar_subquery()
        names = ("allowance_total", "charge_total", "tax_amount", "rounding_amount", "paid_amount")
        less, more, tax, rounding, paid = (func.coalesce(invoice.c[name], 0) for name in names)
        total, net = self._total(), func.coalesce(self._net(), 0)
        beside = rounding - paid
        parts = case((self._has_lines(), lines - less + more), else_=net) + tax + beside
        due = func.coalesce(invoice.c.payable_amount, total + beside)
        return case((total.is_not(None), due - parts), else_=0)

    def _total(self) -> Any:
        """Return BT-112, of an invoice that does not say it BT-109."""
        return func.coalesce(self.tables.invoice.c.gross_amount, self.tables.invoice.c.net_amount)

    def _net(self) -> Any:
        """Return BT-109; without VAT the total is that too."""
        invoice = self.tables.invoice
        return func.coalesce(invoice.c.net_amount, case((~_is_some(invoice.c.tax_amount), invoice.c.gross_amount)))

    def _has_lines(self) -> ColumnElement[bool]:
        """Return the condition that an invoice has lines with an amount, which is what makes them rows."""
        invoice, line = self.tables.invoice, self.tables.invoice_line
        with_amount = exists().where(same_invoice(line, invoice), line.c.net_amount.is_not(None))
        return and_(invoice.c.line_count > 0, with_amount)

    def _issuer(self) -> Any:
        """Return the seller's name; who sells through a vendor and is not named goes by the account there."""
        invoice = self.tables.invoice
        nameless = case((invoice.c.kind == "sales", invoice.c.account), else_=invoice.c.provider)
        return func.coalesce(invoice.c.seller_name, nameless)

    def _status(self) -> Any:
        said = func.lower(self.tables.invoice.c.status)
        return case(*((said.in_(words), status) for status, words in NOT_ISSUED.items()), else_="Issued")

    def _terms(self) -> Any:
        """Return ``Net 30`` for an invoice that is due 30 days after its date."""
        issued, due = self.tables.invoice.c.issue_date, self.tables.invoice.c.due_date
        if self.name == "sqlite":
            days: Any = cast(func.julianday(due) - func.julianday(issued), Integer)
        else:
            days = due - issued if self.name == "postgresql" else func.datediff(due, issued)
        known = and_(issued.is_not(None), due.is_not(None), or_(due >= issued))
        return case((known, literal("Net ").concat(cast(days, String(8)))), else_="As on the invoice")

    def _moment(self, value: Any) -> Any:
        """Return a moment of the ledger as ISO 8601 to the second."""
        if self.name == "postgresql":
            return func.to_char(func.timezone("UTC", value), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        if self.name == "sqlite":
            return func.replace(func.substr(value, 1, 19), " ", "T").concat("Z")
        return func.replace(func.substr(cast(value, String(26)), 1, 19), " ", "T").concat("Z")

    def _grain(self) -> Any:
        """Return what tells lines apart, as JSON without what a vendor does not say."""
        line = self.tables.invoice_line
        pairs = [part for key, column in _GRAIN.items() for part in (literal(key), line.c[column])]
        if self.name == "postgresql":
            found: Any = cast(func.json_strip_nulls(func.json_build_object(*pairs)), TEXT)
        else:
            patch = func.json_patch if self.name == "sqlite" else func.json_merge_patch
            found = patch("{}", func.json_object(*pairs))
        return func.nullif(found, "{}")


def _is_some(amount: Any) -> ColumnElement[bool]:
    return and_(amount.is_not(None), amount != cast(literal(0), AMOUNT))  # never NULL, so it may be negated


def _text(value: Any) -> Any:
    return literal(value) if isinstance(value, str) else value


def _midnight(day: Any) -> Any:
    return cast(day, String(10)).concat("T00:00:00Z")
