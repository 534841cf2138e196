"""An invoice as UBL 2.1, line by line; from CEN/TS 16931-3-2, the binding of EN 16931 to ISO/IEC 19845."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from lxml import etree

from airflow_cloudbilling.einvoicing.defaults import Party
from airflow_cloudbilling.einvoicing.gaps import EXEMPT
from airflow_cloudbilling.einvoicing.terms import Draft, Group, Line, readable

_SCHEMA = "urn:oasis:names:specification:ubl:schema:xsd:"
_CAC, _CBC = f"{_SCHEMA}CommonAggregateComponents-2", f"{_SCHEMA}CommonBasicComponents-2"
CUSTOMIZATION = "urn:cen.eu:en16931:2017"  # BT-24


class Node(NamedTuple):
    """An element: with a text, or with elements; one without either is left out, if it may be."""

    tag: str
    content: str | list[Node] | None
    attributes: Mapping[str, str] = MappingProxyType({})
    always: bool = False


def write_ubl(file: IO[bytes], draft: Draft, lines: Iterable[Line]) -> None:
    """Write an invoice or credit note whose :attr:`Draft.unwritable` is empty; memory does not grow with its lines.

    :param lines: in their order, from :meth:`Draft.line`.
    """
    kind = "CreditNote" if draft.is_credit else "Invoice"
    namespace = f"{_SCHEMA}{kind}-2"
    with etree.xmlfile(file, encoding="utf-8") as out:
        out.write_declaration()
        with out.element(f"{{{namespace}}}{kind}", nsmap={None: namespace, "cac": _CAC, "cbc": _CBC}):
            for node in _head(draft):
                _write(out, node)
            for line in lines:
                _write(out, _line(draft, line))
            out.write("\n")


def _write(out: Any, node: Node, depth: int = 1) -> None:
    if _is_empty(node) and not node.always:
        return
    space = _CAC if isinstance(node.content, list) else _CBC
    out.write("\n" + "  " * depth)
    with out.element(f"{{{space}}}{node.tag}", dict(node.attributes)):
        if isinstance(node.content, list):
            for child in node.content:
                _write(out, child, depth + 1)
            out.write("\n" + "  " * depth)
        else:
            out.write(readable(node.content) or "")


def _is_empty(node: Node) -> bool:
    return all(map(_is_empty, node.content)) if isinstance(node.content, list) else not node.content


def _head(draft: Draft) -> Iterator[Node]:
    head, defaults = draft.head, draft.defaults
    yield Node("CustomizationID", CUSTOMIZATION)
    yield Node("ID", draft.number)
    yield Node("IssueDate", head["issue_date"])
    if not draft.is_credit:  # a credit note has no place for it but its terms
        yield Node("DueDate", head["due_date"])
    yield Node("CreditNoteTypeCode", "381") if draft.is_credit else Node("InvoiceTypeCode", "380")
    yield Node("Note", defaults.note)
    yield Node("DocumentCurrencyCode", draft.currency)
    yield Node("BuyerReference", defaults.buyer_reference)
    yield _period(head["period_start"], head["period_end"])
    yield Node("BillingReference", [Node("InvoiceDocumentReference", [Node("ID", head["preceding_invoice"])])])
    yield Node("AccountingSupplierParty", [_party(draft.seller)], always=True)
    yield Node("AccountingCustomerParty", [_party(draft.buyer)], always=True)
    terms = defaults.payment_terms
    if draft.is_credit and head["due_date"]:
        terms = terms or f"Due on {head['due_date']}"
    yield Node("PaymentTerms", [Node("Note", terms)])
    yield _allowance(draft, "allowance_total", "false", defaults.allowance_reason)
    yield _allowance(draft, "charge_total", "true", defaults.charge_reason)
    subtotals = [_subtotal(draft, group) for group in draft.groups if group.tax is not None]
    tax = draft.amount("tax_amount")
    yield Node("TaxTotal", [] if tax is None else [_money(draft, "TaxAmount", tax), *subtotals])
    yield _totals(draft)


def _totals(draft: Draft) -> Node:
    names = {
        "TaxExclusiveAmount": "net_amount",
        "TaxInclusiveAmount": "gross_amount",
        "AllowanceTotalAmount": "allowance_total",
        "ChargeTotalAmount": "charge_total",
        "PrepaidAmount": "paid_amount",
        "PayableRoundingAmount": "rounding_amount",
        "PayableAmount": "payable_amount",
    }
    amounts = [_money(draft, tag, draft.amount(name)) for tag, name in names.items()]
    return Node("LegalMonetaryTotal", [_money(draft, "LineExtensionAmount", draft.line_total), *amounts])


def _party(party: Party) -> Node:
    scheme = {"schemeID": party.endpoint_scheme} if party.endpoint_scheme else {}
    country = Node("Country", [Node("IdentificationCode", party.country)])
    address = [Node("StreetName", party.street), Node("CityName", party.city), Node("PostalZone", party.postcode)]
    tax = [Node("CompanyID", party.vat_id), _VAT] if party.vat_id else []
    legal = [Node("RegistrationName", party.name), Node("CompanyID", party.registration)]
    parts = [
        Node("EndpointID", party.endpoint, scheme),
        Node("PartyIdentification", [Node("ID", party.id)]),
        Node("PostalAddress", [*address, country]),
        Node("PartyTaxScheme", tax),
        Node("PartyLegalEntity", legal),
    ]
    return Node("Party", parts)


_VAT = Node("TaxScheme", [Node("ID", "VAT")])


def _category(tag: str, category: str | None, rate: Decimal | None, reason: str | None = None) -> Node:
    percent = None if category == "O" else _text(rate)
    return Node(tag, [Node("ID", category), Node("Percent", percent), Node("TaxExemptionReason", reason), _VAT])


def _subtotal(draft: Draft, group: Group) -> Node:
    reason = draft.defaults.exemption_reason if group.category in EXEMPT else None
    amounts = [_money(draft, "TaxableAmount", group.taxable), _money(draft, "TaxAmount", group.tax)]
    return Node("TaxSubtotal", [*amounts, _category("TaxCategory", group.category, group.rate, reason)])


def _allowance(draft: Draft, name: str, is_charge: str, reason: str) -> Node:
    amount = draft.amount(name)
    if not amount:
        return Node("AllowanceCharge", [])
    groups = draft.groups
    category = [_category("TaxCategory", groups[0].category, groups[0].rate)] if len(groups) == 1 else []
    parts = [Node("ChargeIndicator", is_charge), Node("AllowanceChargeReason", reason), _money(draft, "Amount", amount)]
    return Node("AllowanceCharge", [*parts, *category])


def _line(draft: Draft, line: Line) -> Node:
    tag, quantity = ("CreditNoteLine", "CreditedQuantity") if draft.is_credit else ("InvoiceLine", "InvoicedQuantity")
    reference = [Node("ID", line.object_id), Node("DocumentTypeCode", "130")] if line.object_id else []
    item = [
        Node("Name", line.name),
        Node("SellersItemIdentification", [Node("ID", line.item_code)]),
        *([_category("ClassifiedTaxCategory", line.category, line.rate)] if line.category or line.rate else []),
    ]
    base = Node("BaseQuantity", _text(line.base), {"unitCode": line.unit})
    parts = [
        Node("ID", line.id),
        Node(quantity, _text(line.quantity), {"unitCode": line.unit}),
        _money(draft, "LineExtensionAmount", line.net),
        _period(line.start, line.end),
        Node("DocumentReference", reference),
        Node("Item", item, always=True),
        Node("Price", [_money(draft, "PriceAmount", line.price), base]),
    ]
    return Node(tag, parts)


def _period(start: str | None, end: str | None) -> Node:
    return Node("InvoicePeriod", [Node("StartDate", start), Node("EndDate", end)])


def _money(draft: Draft, tag: str, amount: Decimal | None) -> Node:
    """Return an amount: with two decimals, or with as many as it has."""
    text = None
    if amount is not None:
        whole, _, decimals = f"{amount:f}".partition(".")
        text = f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"
    return Node(tag, text, {"currencyID": str(draft.currency)})


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
