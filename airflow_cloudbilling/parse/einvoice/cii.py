"""Where EN 16931's terms stand in a CII; from CEN/TS 16931-3-3, the binding to UN/CEFACT CrossIndustryInvoice D16B.

The later D22B has the same namespaces and, of these terms, the same places.
"""

from __future__ import annotations

from typing import Any

from airflow_cloudbilling.parse.einvoice.terms import Allowances, Syntax, Term, Terms, expander
from airflow_cloudbilling.parse.values import amount, country, currency, day, identifier, text

_STANDARD = "urn:un:unece:uncefact:data:standard:"
_long = expander({
    "ram": f"{_STANDARD}ReusableAggregateBusinessInformationEntity:100",
    "rsm": f"{_STANDARD}CrossIndustryInvoice:100",
    "udt": f"{_STANDARD}UnqualifiedDataType:100",
})  # fmt: skip
_DOCUMENT = "rsm:ExchangedDocument/"
_SELLER = "rsm:SupplyChainTradeTransaction/ram:ApplicableHeaderTradeAgreement/ram:SellerTradeParty/"
_BUYER = "rsm:SupplyChainTradeTransaction/ram:ApplicableHeaderTradeAgreement/ram:BuyerTradeParty/"
_SETTLEMENT = "rsm:SupplyChainTradeTransaction/ram:ApplicableHeaderTradeSettlement/"
_TOTAL = f"{_SETTLEMENT}ram:SpecifiedTradeSettlementHeaderMonetarySummation/ram:"
_VAT_ID = "ram:SpecifiedTaxRegistration/ram:ID[@schemeID='VA']"
_COUNTRY = "ram:PostalTradeAddress/ram:CountryID"
_DATE = "/udt:DateTimeString"
_PERIOD = "ram:BillingSpecifiedPeriod/ram:"

_LINE = "ram:SpecifiedLineTrade"
_PRICE = f"{_LINE}Agreement/ram:NetPriceProductTradePrice/ram:"
_GROSS_PRICE = f"{_LINE}Agreement/ram:GrossPriceProductTradePrice/ram:"
_QUANTITY = f"{_LINE}Delivery/ram:BilledQuantity"
_LINE_NET = f"{_LINE}Settlement/ram:SpecifiedTradeSettlementLineMonetarySummation/ram:LineTotalAmount"
_PRODUCT = "ram:SpecifiedTradeProduct/ram:"
_LINE_DOCUMENT = "ram:AssociatedDocumentLineDocument/ram:"


def _term(name: str, number: str, read: Any, *paths: str) -> Term:
    return Term(name, number, read, tuple(_long(path) for path in paths))


_HEAD = Terms(
    _term("invoice_number", "BT-1", identifier, f"{_DOCUMENT}ram:ID"),
    _term("issue_date", "BT-2", day, f"{_DOCUMENT}ram:IssueDateTime{_DATE}"),
    _term("type_code", "BT-3", text, f"{_DOCUMENT}ram:TypeCode"),
    _term("currency", "BT-5", currency, f"{_SETTLEMENT}ram:InvoiceCurrencyCode"),
    _term("due_date", "BT-9", day, f"{_SETTLEMENT}ram:SpecifiedTradePaymentTerms/ram:DueDateDateTime{_DATE}"),
    _term("preceding_invoice", "BT-25", text, f"{_SETTLEMENT}ram:InvoiceReferencedDocument/ram:IssuerAssignedID"),
    _term("seller_name", "BT-27", text, f"{_SELLER}ram:Name"),
    _term("seller_vat_id", "BT-31", text, _SELLER + _VAT_ID),
    _term("seller_country", "BT-40", country, _SELLER + _COUNTRY),
    _term("buyer_name", "BT-44", text, f"{_BUYER}ram:Name"),
    _term("buyer_id", "BT-46", text, f"{_BUYER}ram:ID", f"{_BUYER}ram:GlobalID"),
    _term("buyer_vat_id", "BT-48", text, _BUYER + _VAT_ID),
    _term("buyer_country", "BT-55", country, _BUYER + _COUNTRY),
    _term("period_start", "BT-73", day, f"{_SETTLEMENT}{_PERIOD}StartDateTime{_DATE}"),
    _term("period_end", "BT-74", day, f"{_SETTLEMENT}{_PERIOD}EndDateTime{_DATE}"),
)
_MONEY = (
    _term("allowance_total", "BT-107", amount, f"{_TOTAL}AllowanceTotalAmount"),
    _term("charge_total", "BT-108", amount, f"{_TOTAL}ChargeTotalAmount"),
    _term("net_amount", "BT-109", amount, f"{_TOTAL}TaxBasisTotalAmount"),
    _term("tax_amount", "BT-110", amount, f"{_TOTAL}TaxTotalAmount"),
    _term("gross_amount", "BT-112", amount, f"{_TOTAL}GrandTotalAmount"),
    _term("paid_amount", "BT-113", amount, f"{_TOTAL}TotalPrepaidAmount"),
    _term("rounding_amount", "BT-114", amount, f"{_TOTAL}RoundingAmount"),
    _term("payable_amount", "BT-115", amount, f"{_TOTAL}DuePayableAmount"),
)
_LINES = Terms(
    _term("line_id", "BT-126", text, f"{_LINE_DOCUMENT}LineID"),
    # Factur-X EXTENDED: DETAIL; GROUP, which sums up others; INFORMATION.
    _term("status", "BT-X-8", text, f"{_LINE_DOCUMENT}LineStatusReasonCode"),
    _term("subscription_id", "BT-128", text,
          f"{_LINE}Settlement/ram:AdditionalReferencedDocument[ram:TypeCode='130']/ram:IssuerAssignedID"),
    _term("quantity", "BT-129", amount, _QUANTITY),
    _term("unit", "BT-130", text, f"{_QUANTITY}/@unitCode"),
    _term("net_amount", "BT-131", amount, _LINE_NET),
    _term("line_currency", "BT-131", currency, f"{_LINE_NET}/@currencyID"),
    _term("period_start", "BT-134", day, f"{_LINE}Settlement/{_PERIOD}StartDateTime{_DATE}"),
    _term("period_end", "BT-135", day, f"{_LINE}Settlement/{_PERIOD}EndDateTime{_DATE}"),
    _term("unit_price", "BT-146", amount, f"{_PRICE}ChargeAmount"),
    _term("base_quantity", "BT-149", amount, f"{_PRICE}BasisQuantity", f"{_GROSS_PRICE}BasisQuantity"),
    _term("base_unit", "BT-150", text, f"{_PRICE}BasisQuantity/@unitCode", f"{_GROSS_PRICE}BasisQuantity/@unitCode"),
    _term("tax_rate", "BT-152", amount, f"{_LINE}Settlement/ram:ApplicableTradeTax/ram:RateApplicablePercent"),
    _term("description", "BT-153", text, f"{_PRODUCT}Name", f"{_PRODUCT}Description"),
    _term("item_code", "BT-155", text, f"{_PRODUCT}SellerAssignedID", f"{_PRODUCT}GlobalID"),
)  # fmt: skip
_TAXES = Terms(
    _term("taxable_amount", "BT-116", amount, "ram:BasisAmount"),
    _term("tax_amount", "BT-117", amount, "ram:CalculatedAmount"),
    _term("currency", "BT-117", currency, "ram:CalculatedAmount/@currencyID"),
    _term("category", "BT-118", text, "ram:CategoryCode"),
    _term("rate", "BT-119", amount, "ram:RateApplicablePercent"),
)
ROOT = _long("rsm:CrossIndustryInvoice")
CII = Syntax(
    line=_long("ram:IncludedSupplyChainTradeLineItem"),
    within=_long("rsm:SupplyChainTradeTransaction"),
    head=_HEAD,
    money=_MONEY,
    lines=_LINES,
    allowances=Allowances(
        _long(f"{_LINE}Settlement/ram:SpecifiedTradeAllowanceCharge"),
        _long("ram:ChargeIndicator/udt:Indicator"),
        _long("ram:ActualAmount"),
    ),
    breakdown=_long(f"{_SETTLEMENT}ram:ApplicableTradeTax"),
    taxes=_TAXES,
)
