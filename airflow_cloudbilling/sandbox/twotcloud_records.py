"""The shape of 2tCloud's invoices in JSON and in XML (vendor facts 1b and 1d): one record, two spellings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from airflow_cloudbilling.sandbox.bills import Bill, Charge, Repeated, Share, Subscription
from airflow_cloudbilling.sandbox.catalogue import COUNTRIES, Customer
from airflow_cloudbilling.sandbox.render import KEY_MARK, LINE_MARK, Ordered, Repeating, to_json, to_xml

Record = dict[str, Any]
NAMESPACES = 'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'
# The tags of the XML in its order (vendor facts 1b), and those that are named otherwise in JSON.
XML_SENDER = (
    "AccountID", "CompanyName", "Address", "PostalCode", "City", "CountryCode", "Country", "Telephone", "Fax",
    "ChamberOfCommerce", "BankAccount", "IBAN", "BIC", "VATNumber", "Website", "Logo",
)  # fmt: skip
XML_RECEIVER = (
    "AccountID", "CustomerNumber", "CompanyName", "VATNumber", "ContactFirstName", "ContactMiddleName",
    "ContactLastName", "Street", "Zip", "City", "Country", "Telephone", "Email",
)  # fmt: skip
JSON_NAMES = {"PostalCode": "Zip", "Street": "Address"}
UNUSED = {
    "TaxZoneID": "",
    "RatePeriodID": None,
    "SubPONumber": None,
    "ConsumerCompanyName": "",
    "ConsumerCompanyNumber": "",
}


def invoice_record(bill: Bill, version: str = "v2") -> Record:
    """Return an invoice with the names of the JSON answer (vendor facts 1b and 1d), its lines as an iterable."""
    record: Record = {
        "Header": _header(bill),
        "Sender": _sender(bill.seller),
        "Receiver": _receiver(bill.buyer),
        "Customers": [_customer(share, version, bill.kind == "consolidated") for share in bill.shares],
    }
    if bill.totals_stated:
        net, tax = bill.total("net"), bill.total("tax")
        record["Totals"] = {"TotalExclVAT": net, "TotalVAT": tax, "TotalInclVAT": net + tax}
    elif bill.issued.day % 2:
        record["Totals"] = None
    if bill.revision:
        record["Header"]["SandboxRevision"] = bill.revision
    return _reversed(record) if bill.reordered else record


def _header(bill: Bill) -> Record:
    return {
        "InvoiceID": bill.invoice_id,
        "Date": bill.issued,
        "ExpirationDate": bill.due,
        "Currency": bill.currency.code,
        "Description": f"Cloud services {bill.issued:%m-%Y}",
        "TermsOfPaymentDays": 30,
        "TaxZoneID": bill.currency.tax_zone,
        "TaxPercentage": bill.currency.tax_rate,
        "Type": "Credit" if bill.credit else "Invoice",
        "TypeIdentifier": 381 if bill.credit else 380,
        "LanguageCode": "nl",
        "Language": "Dutch",
    }


def _party(company: Customer) -> Record:
    return {
        "AccountID": company.account,
        "CompanyName": company.name,
        "VATNumber": f"{company.country}{company.account:09d}B01",
        "Address": f"Teststraat {company.account % 100}",
        "Zip": "5600 AA",
        "City": "Eindhoven",
        "Country": COUNTRIES[company.country],
        "CountryCode": company.country,
        "Telephone": "+31400000000",
        "Fax": None,
    }


def _sender(company: Customer) -> Record:
    bank = {"ChamberOfCommerce": "00000000", "BankAccount": None, "IBAN": "NL00TEST0000000000", "BIC": "TESTNL2A"}
    return {**_party(company), **bank, "Website": "https://distribution.example.test/?a=1&b=2", "Logo": None}


def _receiver(company: Customer) -> Record:
    contact = {"ContactFirstName": "Zoë", "ContactMiddleName": "", "ContactLastName": "d'Arc", "Type": 2}
    return {**_party(company), **contact, "CustomerNumber": company.number, "Email": "billing@example.test"}


def _customer(share: Share, version: str, consolidated: bool) -> Record:
    return {
        "AccountID": share.customer.account,
        "CustomerNumber": share.customer.number,
        "CompanyName": share.customer.name,
        "CustomerCostCenter" if consolidated else "CostCenter": "",
        "Subscriptions": [_subscription(one, version, consolidated) for one in share.subscriptions],
    }


def _subscription(subscription: Subscription, version: str, consolidated: bool) -> Record:
    product = subscription.product
    record: Record = {
        "SubscriptionID": subscription.number,
        "SubscriptionName": product.name,
        "SubscriptionPONumber": subscription.purchase_order,
        "PlanID": 500 + len(product.plan),
        "PlanName": product.plan,
        "PlanCategoryName": product.category,
        "BillingModel": 2 if product.charge_type == "Usage Fee" else 1,
        "StartDate": subscription.start,
        "PriceLines": _lines(subscription, version, consolidated),
    }
    if version != "v1" and product.charge_type == "Usage Fee":
        detail = {"Attribute": "Region", "AttributeValue": "westeurope", "AttributeDescription": None, "noshow": 0}
        record["SubscriptionDetails"] = [detail]
    return record


def _lines(subscription: Subscription, version: str, consolidated: bool) -> Iterable[Record] | Repeating:
    charges = subscription.charges
    if not isinstance(charges, Repeated):
        return [_line(charge, version, consolidated) for charge in charges]
    block = [charge._replace(line=LINE_MARK, key=KEY_MARK) for charge in charges.block]
    records = [_line(charge, version, consolidated) for charge in block]
    return Repeating(records, len(charges), lambda index: (index + 1, charges.key(index)))


def _line(charge: Charge, version: str, consolidated: bool) -> Record:
    record: Record = {
        "LineId": charge.line,
        "SKU": charge.product.sku,
        "UID": f"u{charge.key}",
        "Description": f"{charge.product.name} ({charge.product.charge_type}) – {charge.start:%m-%Y}",
        "StartDate": charge.start,
        "EndDate": charge.end,
        "Duration": "1",
        "DurationType": "Month",
        "Quantity": charge.quantity,
        "QuantityType": charge.product.unit,
        "UnitPrice": charge.unit_price,
        "Discount": charge.discount,
        "ExtendedPrice": charge.net,
        "TaxPercentage": charge.tax_rate,
        "VAT": charge.tax,
        **UNUSED,
    }
    if version != "v1":
        later = {"BillingFrequency": "Monthly", "ChargeType": charge.product.charge_type, "InvoiceRowHash": charge.key}
        record |= later
    if consolidated:
        record |= {"PurchasePrice": charge.purchase_price, "PurchaseDiscount": charge.purchase_discount}
    return record


def as_json(records: Iterable[Record]) -> Iterator[str]:
    """Yield the JSON answer: ``Invoices``, whose keys come in alphabetical order."""
    yield '{"Invoices":['
    for nth, record in enumerate(records):
        for name in ("TaxZoneID", "TaxPercentage"):
            del record["Header"][name]
        yield "," if nth else ""
        yield from to_json(record, ascii_only=nth % 2 == 1)  # both spellings of non-ASCII text occur
    yield "]}"


def as_xml(records: Iterable[Record]) -> Iterator[str]:
    """Yield the XML answer: root ``InvoiceResponse`` with ``Invoice`` elements directly under it."""
    yield f"{DECLARATION}<InvoiceResponse {NAMESPACES}>"
    for record in records:
        header = record["Header"]
        shaped = {
            "Header": {name: value for name, value in header.items() if name != "Description"},
            "Sender": _tagged(record["Sender"], XML_SENDER),
            "Receiver": _tagged(record["Receiver"], XML_RECEIVER),
        }
        yield from to_xml("Invoice", {name: shaped.get(name, value) for name, value in record.items()})
    yield "</InvoiceResponse>"


def _tagged(record: Record, tags: Iterable[str]) -> Record:
    return {tag: record[JSON_NAMES.get(tag, tag)] for tag in tags}


def _reversed(value: Any) -> Any:
    """Return the record with the fields of every object in another order; lists keep theirs."""
    if isinstance(value, dict):
        return Ordered((name, _reversed(value[name])) for name in sorted(value, key=str.lower, reverse=True))
    return [_reversed(item) for item in value] if isinstance(value, list) else value
