"""Where EN 16931's terms stand in UBL 2 Invoice and CreditNote; from CEN/TS 16931-3-2, the binding to ISO/IEC 19845."""

from __future__ import annotations

from typing import Any

from airflow_cloudbilling.parse.einvoice.terms import Allowances, Syntax, Term, Terms, expander
from airflow_cloudbilling.parse.values import amount, country, currency, day, identifier, text

_SCHEMA = "urn:oasis:names:specification:ubl:schema:xsd:"
_long = expander({"cac": f"{_SCHEMA}CommonAggregateComponents-2", "cbc": f"{_SCHEMA}CommonBasicComponents-2"})
_VAT_ID = "cac:PartyTaxScheme/cac:TaxScheme[cbc:ID='VAT']/../cbc:CompanyID"
_SELLER, _BUYER = "cac:AccountingSupplierParty/cac:Party/", "cac:AccountingCustomerParty/cac:Party/"
_NAME = ("cac:PartyLegalEntity/cbc:RegistrationName", "cac:PartyName/cbc:Name")
_COUNTRY = "cac:PostalAddress/cac:Country/cbc:IdentificationCode"
_TOTAL = "cac:LegalMonetaryTotal/cbc:"


def _term(name: str, number: str, read: Any, *paths: str) -> Term:
    return Term(name, number, read, tuple(_long(path) for path in paths))


_HEAD = Terms(
    _term("invoice_number", "BT-1", identifier, "cbc:ID"),
    _term("issue_date", "BT-2", day, "cbc:IssueDate"),
    _term("type_code", "BT-3", text, "cbc:InvoiceTypeCode", "cbc:CreditNoteTypeCode"),
    _term("currency", "BT-5", currency, "cbc:DocumentCurrencyCode"),
    # A credit note has no DueDate of its own.
    _term("due_date", "BT-9", day, "cbc:DueDate", "cac:PaymentMeans/cbc:PaymentDueDate",
          "cac:PaymentTerms/cbc:PaymentDueDate"),
    _term("preceding_invoice", "BT-25", text, "cac:BillingReference/cac:InvoiceDocumentReference/cbc:ID",
          "cac:BillingReference/cac:CreditNoteDocumentReference/cbc:ID"),
    _term("seller_name", "BT-27", text, *(_SELLER + name for name in _NAME)),
    _term("seller_vat_id", "BT-31", text, _SELLER + _VAT_ID),
    _term("seller_country", "BT-40", country, _SELLER + _COUNTRY),
    _term("buyer_name", "BT-44", text, *(_BUYER + name for name in _NAME)),
    _term("buyer_id", "BT-46", text, _BUYER + "cac:PartyIdentification/cbc:ID"),
    _term("buyer_vat_id", "BT-48", text, _BUYER + _VAT_ID),
    _term("buyer_country", "BT-55", country, _BUYER + _COUNTRY),
    _term("period_start", "BT-73", day, "cac:InvoicePeriod/cbc:StartDate"),
    _term("period_end", "BT-74", day, "cac:InvoicePeriod/cbc:EndDate"),
)  # fmt: skip
_MONEY = (
    _term("allowance_total", "BT-107", amount, _TOTAL + "AllowanceTotalAmount"),
    _term("charge_total", "BT-108", amount, _TOTAL + "ChargeTotalAmount"),
    _term("net_amount", "BT-109", amount, _TOTAL + "TaxExclusiveAmount"),
    _term("tax_amount", "BT-110", amount, "cac:TaxTotal/cbc:TaxAmount"),
    _term("gross_amount", "BT-112", amount, _TOTAL + "TaxInclusiveAmount"),
    _term("paid_amount", "BT-113", amount, _TOTAL + "PrepaidAmount"),
    _term("rounding_amount", "BT-114", amount, _TOTAL + "PayableRoundingAmount"),
    _term("payable_amount", "BT-115", amount, _TOTAL + "PayableAmount"),
)
_TAXES = Terms(
    _term("taxable_amount", "BT-116", amount, "cbc:TaxableAmount"),
    _term("tax_amount", "BT-117", amount, "cbc:TaxAmount"),
    _term("currency", "BT-117", currency, "cbc:TaxAmount/@currencyID"),
    _term("category", "BT-118", text, "cac:TaxCategory/cbc:ID"),
    _term("rate", "BT-119", amount, "cac:TaxCategory/cbc:Percent"),
)


def _lines(quantity: str) -> Terms:
    return Terms(
        _term("line_id", "BT-126", text, "cbc:ID"),
        # XP Z12-014, EXT-FR-FE-163: DETAIL; GROUP, which sums up others; INFORMATION.
        _term("status", "EXT-FR-FE-163", text,
              "cac:BillingReference/cac:InvoiceDocumentReference/cbc:DocumentStatusCode"),
        _term("subscription_id", "BT-128", text, "cac:DocumentReference[cbc:DocumentTypeCode='130']/cbc:ID"),
        _term("quantity", "BT-129", amount, quantity),
        _term("unit", "BT-130", text, f"{quantity}/@unitCode"),
        _term("net_amount", "BT-131", amount, "cbc:LineExtensionAmount"),
        _term("line_currency", "BT-131", currency, "cbc:LineExtensionAmount/@currencyID"),
        _term("period_start", "BT-134", day, "cac:InvoicePeriod/cbc:StartDate"),
        _term("period_end", "BT-135", day, "cac:InvoicePeriod/cbc:EndDate"),
        _term("unit_price", "BT-146", amount, "cac:Price/cbc:PriceAmount"),
        _term("base_quantity", "BT-149", amount, "cac:Price/cbc:BaseQuantity"),
        _term("base_unit", "BT-150", text, "cac:Price/cbc:BaseQuantity/@unitCode"),
        _term("tax_rate", "BT-152", amount, "cac:Item/cac:ClassifiedTaxCategory/cbc:Percent"),
        _term("description", "BT-153", text, "cac:Item/cbc:Name", "cac:Item/cbc:Description"),
        _term("item_code", "BT-155", text, "cac:Item/cac:SellersItemIdentification/cbc:ID",
              "cac:Item/cac:StandardItemIdentification/cbc:ID"),
    )  # fmt: skip


def _syntax(kind: str, quantity: str) -> Syntax:
    return Syntax(
        line=_long(f"cac:{kind}Line"),
        within="",
        head=_HEAD,
        money=_MONEY,
        lines=_lines(f"cbc:{quantity}"),
        allowances=Allowances(_long("cac:AllowanceCharge"), _long("cbc:ChargeIndicator"), _long("cbc:Amount")),
        breakdown=_long("cac:TaxTotal/cac:TaxSubtotal"),
        taxes=_TAXES,
    )


INVOICE_ROOT = f"{{{_SCHEMA}Invoice-2}}Invoice"
CREDIT_NOTE_ROOT = f"{{{_SCHEMA}CreditNote-2}}CreditNote"
INVOICE = _syntax("Invoice", "InvoicedQuantity")
CREDIT_NOTE = _syntax("CreditNote", "CreditedQuantity")
