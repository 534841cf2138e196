"""The e-invoices of the sandbox's Orange: EN 16931 as UBL and as CII, written from the books, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from xml.sax.saxutils import escape, quoteattr

from airflow_cloudbilling.sandbox.bills import Bill, Charge
from airflow_cloudbilling.sandbox.catalogue import Customer
from airflow_cloudbilling.sandbox.orange_books import vat

XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
UBL = "urn:oasis:names:specification:ubl:schema:xsd:"
CII = "urn:un:unece:uncefact:data:standard:"
UNITS = {"GB": "E34", "Piece": "H87"}  # UN/ECE recommendation 20; C62 is "one"


def element(name: str, *content: str, **attributes: str) -> str:
    """Return an element; content is XML already."""
    named = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items())
    return f"<{name}{named}>{''.join(content)}</{name}>"


def _money(name: str, value: Decimal, bill: Bill) -> str:
    return element(name, f"{value:f}", currencyID=bill.currency.code)


def _unit(charge: Charge) -> str:
    return UNITS.get(charge.product.unit, "C62")


def _vat_id(party: Customer) -> str:
    return f"{party.country}{party.account:09d}B01"


def number_of(bill: Bill) -> str:
    """Return the invoice's own number (BT-1), which is not the document's id."""
    return f"F{bill.invoice_id}"


def ubl(bill: Bill) -> Iterator[str]:
    """Yield the invoice as UBL 2.1 (EN 16931), line by line."""
    root = "CreditNote" if bill.credit else "Invoice"
    yield (
        f'{XML}<{root} xmlns="{UBL}{root}-2" xmlns:cac="{UBL}CommonAggregateComponents-2"'
        f' xmlns:cbc="{UBL}CommonBasicComponents-2">'
    )
    yield element("cbc:CustomizationID", "urn:cen.eu:en16931:2017")
    yield element("cbc:ID", number_of(bill)) + element("cbc:IssueDate", str(bill.issued))
    yield "" if bill.credit else element("cbc:DueDate", str(bill.due))
    yield element(f"cbc:{root}TypeCode", "381" if bill.credit else "380")
    yield element("cbc:DocumentCurrencyCode", bill.currency.code)
    yield element("cac:AccountingSupplierParty", _ubl_party(bill.seller))
    yield element("cac:AccountingCustomerParty", _ubl_party(bill.buyer))
    yield element("cac:PaymentMeans", element("cbc:PaymentMeansCode", "30"), _ubl_due(bill)) if bill.credit else ""
    yield from _ubl_totals(bill)
    for charge in bill.charges:
        yield _ubl_line(charge, bill, "Credited" if bill.credit else "Invoiced", root)
    yield f"</{root}>\n"


def _ubl_due(bill: Bill) -> str:
    return element("cbc:PaymentDueDate", str(bill.due))


def _ubl_party(party: Customer) -> str:
    scheme = element("cac:TaxScheme", element("cbc:ID", "VAT"))
    return element(
        "cac:Party",
        element("cac:PartyIdentification", element("cbc:ID", str(party.account))),
        element("cac:PostalAddress", element("cac:Country", element("cbc:IdentificationCode", party.country))),
        element("cac:PartyTaxScheme", element("cbc:CompanyID", _vat_id(party)), scheme),
        element("cac:PartyLegalEntity", element("cbc:RegistrationName", escape(party.name))),
    )


def _ubl_category(name: str, bill: Bill) -> str:
    scheme = element("cac:TaxScheme", element("cbc:ID", "VAT"))
    return element(name, element("cbc:ID", "S"), element("cbc:Percent", f"{bill.currency.tax_rate:f}"), scheme)


def _ubl_totals(bill: Bill) -> Iterator[str]:
    net, tax = bill.total("net"), vat(bill)
    subtotal = element(
        "cac:TaxSubtotal",
        _money("cbc:TaxableAmount", net, bill),
        _money("cbc:TaxAmount", tax, bill),
        _ubl_category("cac:TaxCategory", bill),
    )
    yield element("cac:TaxTotal", _money("cbc:TaxAmount", tax, bill), subtotal)
    names = ("LineExtensionAmount", "TaxExclusiveAmount", "TaxInclusiveAmount", "PayableAmount")
    values = (net, net, net + tax, net + tax)
    amounts = (_money(f"cbc:{name}", value, bill) for name, value in zip(names, values, strict=True))
    yield element("cac:LegalMonetaryTotal", *amounts)


def _ubl_line(charge: Charge, bill: Bill, quantity: str, root: str) -> str:
    allowance = element(
        "cac:AllowanceCharge", element("cbc:ChargeIndicator", "false"), _money("cbc:Amount", charge.discount, bill)
    )
    return element(
        f"cac:{root}Line",
        element("cbc:ID", str(charge.line)),
        element(f"cbc:{quantity}Quantity", f"{charge.quantity:f}", unitCode=_unit(charge)),
        _money("cbc:LineExtensionAmount", charge.net, bill),
        element(
            "cac:InvoicePeriod",
            element("cbc:StartDate", str(charge.start)),
            element("cbc:EndDate", str(charge.end)),
        ),
        allowance if charge.discount else "",
        element(
            "cac:Item",
            element("cbc:Name", escape(charge.product.name)),
            element("cac:SellersItemIdentification", element("cbc:ID", charge.product.sku)),
            _ubl_category("cac:ClassifiedTaxCategory", bill),
        ),
        element("cac:Price", _money("cbc:PriceAmount", charge.unit_price, bill)),
    )


def cii(bill: Bill) -> Iterator[str]:
    """Yield the invoice as UN/CEFACT CII D16B (EN 16931), which Factur-X embeds."""
    yield (
        f'{XML}<rsm:CrossIndustryInvoice xmlns:rsm="{CII}CrossIndustryInvoice:100"'
        f' xmlns:ram="{CII}ReusableAggregateBusinessInformationEntity:100" xmlns:udt="{CII}UnqualifiedDataType:100">'
    )
    guideline = element("ram:GuidelineSpecifiedDocumentContextParameter", element("ram:ID", "urn:cen.eu:en16931:2017"))
    yield element("rsm:ExchangedDocumentContext", guideline)
    yield element(
        "rsm:ExchangedDocument",
        element("ram:ID", number_of(bill)),
        element("ram:TypeCode", "381" if bill.credit else "380"),
        _cii_day("ram:IssueDateTime", bill.issued),
    )
    yield "<rsm:SupplyChainTradeTransaction>"
    for charge in bill.charges:
        yield _cii_line(charge, bill)
    yield element(
        "ram:ApplicableHeaderTradeAgreement",
        _cii_party("ram:SellerTradeParty", bill.seller),
        _cii_party("ram:BuyerTradeParty", bill.buyer),
    )
    yield "<ram:ApplicableHeaderTradeDelivery/>" + _cii_settlement(bill)
    yield "</rsm:SupplyChainTradeTransaction></rsm:CrossIndustryInvoice>\n"


def _cii_day(name: str, day: date) -> str:
    return element(name, element("udt:DateTimeString", f"{day:%Y%m%d}", format="102"))


def _cii_party(name: str, party: Customer) -> str:
    return element(
        name,
        element("ram:ID", str(party.account)),
        element("ram:Name", escape(party.name)),
        element("ram:PostalTradeAddress", element("ram:CountryID", party.country)),
        element("ram:SpecifiedTaxRegistration", element("ram:ID", _vat_id(party), schemeID="VA")),
    )


def _cii_tax(bill: Bill, *amounts: str) -> str:
    rate = element("ram:RateApplicablePercent", f"{bill.currency.tax_rate:f}")
    kind, category = element("ram:TypeCode", "VAT"), element("ram:CategoryCode", "S")
    calculated, basis = amounts or ("", "")
    return element("ram:ApplicableTradeTax", calculated, kind, basis, category, rate)


def _cii_settlement(bill: Bill) -> str:
    net, tax = bill.total("net"), vat(bill)
    tax_total = element("ram:TaxTotalAmount", f"{tax:f}", currencyID=bill.currency.code)
    return element(
        "ram:ApplicableHeaderTradeSettlement",
        element("ram:InvoiceCurrencyCode", bill.currency.code),
        _cii_tax(bill, element("ram:CalculatedAmount", f"{tax:f}"), element("ram:BasisAmount", f"{net:f}")),
        element("ram:SpecifiedTradePaymentTerms", _cii_day("ram:DueDateDateTime", bill.due)),
        element(
            "ram:SpecifiedTradeSettlementHeaderMonetarySummation",
            element("ram:LineTotalAmount", f"{net:f}"),
            element("ram:TaxBasisTotalAmount", f"{net:f}"),
            tax_total,
            element("ram:GrandTotalAmount", f"{net + tax:f}"),
            element("ram:DuePayableAmount", f"{net + tax:f}"),
        ),
    )


def _cii_line(charge: Charge, bill: Bill) -> str:
    indicator = element("ram:ChargeIndicator", element("udt:Indicator", "false"))
    allowance = element(
        "ram:SpecifiedTradeAllowanceCharge", indicator, element("ram:ActualAmount", f"{charge.discount:f}")
    )
    price = element("ram:NetPriceProductTradePrice", element("ram:ChargeAmount", f"{charge.unit_price:f}"))
    quantity = element("ram:BilledQuantity", f"{charge.quantity:f}", unitCode=_unit(charge))
    total = element("ram:LineTotalAmount", f"{charge.net:f}")
    return element(
        "ram:IncludedSupplyChainTradeLineItem",
        element("ram:AssociatedDocumentLineDocument", element("ram:LineID", str(charge.line))),
        _cii_product(charge),
        element("ram:SpecifiedLineTradeAgreement", price),
        element("ram:SpecifiedLineTradeDelivery", quantity),
        element(
            "ram:SpecifiedLineTradeSettlement",
            _cii_tax(bill),
            _cii_period(charge),
            allowance if charge.discount else "",
            element("ram:SpecifiedTradeSettlementLineMonetarySummation", total),
        ),
    )


def _cii_product(charge: Charge) -> str:
    sku, name = charge.product.sku, escape(charge.product.name)
    return element("ram:SpecifiedTradeProduct", element("ram:SellerAssignedID", sku), element("ram:Name", name))


def _cii_period(charge: Charge) -> str:
    start, end = _cii_day("ram:StartDateTime", charge.start), _cii_day("ram:EndDateTime", charge.end)
    return element("ram:BillingSpecifiedPeriod", start, end)
