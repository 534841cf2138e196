"""Where Store365's records hold what is staged: its document has the envelope, the fields are likely names."""

from __future__ import annotations

from airflow_cloudbilling.parse import Names, Shape, amount, country, currency, day, document_type, identifier, text
from airflow_cloudbilling.parse.names import Table

# "Results": the list is called results; a group without pages comes as a bare list or object. XML has the same names in
# PascalCase, under a root and around elements whose names the document does not say.
SHAPE = Shape(
    lists=("Invoices", "Lines"),
    marks=("id", "invoiceId", "guid", "invoiceNumber", "number", "invoiceNo", "documentNumber"),
    root="",
    also=(("Results", 1), ("InvoiceLines", 2), ("LineItems", 2), ("Items", 2), ("Details", 2)),
    null=False,
)
_HEAD: Table = {
    "invoice_id": (identifier, ("id", "invoiceId", "guid")),
    "invoice_number": (text, ("invoiceNumber", "number", "invoiceNo", "documentNumber")),
    "document_type": (document_type, ("type", "documentType", "invoiceType")),
    "issue_date": (day, ("invoiceDate", "date", "issueDate", "createdDate")),
    "due_date": (day, ("dueDate", "expirationDate", "paymentDueDate")),
    "period_start": (day, ("periodStart", "startDate")),
    "period_end": (day, ("periodEnd", "endDate")),
    "currency": (currency, ("currency", "currencyCode", "currency.code")),
    "seller_name": (text, ("sellerName", "seller.name", "supplierName", "supplier.name")),
    "seller_vat_id": (text, ("sellerVatNumber", "seller.vatNumber", "supplier.vatNumber")),
    "seller_country": (country, ("sellerCountry", "seller.country", "supplier.country")),
    "buyer_id": (text, ("customerId", "customer.id")),
    "buyer_name": (text, ("customerName", "customer.name")),
    "buyer_vat_id": (text, ("customerVatNumber", "customer.vatNumber")),
    "buyer_country": (country, ("customerCountry", "customer.country", "customer.countryCode")),
    "net_amount": (amount, ("totalExclVat", "netAmount", "subTotal")),
    "tax_amount": (amount, ("vatAmount", "taxAmount", "totalVat")),
    "gross_amount": (amount, ("totalInclVat", "total", "amount")),
    "allowance_total": (amount, ()),
    "charge_total": (amount, ()),
    "rounding_amount": (amount, ("roundingAmount", "rounding")),
    "paid_amount": (amount, ("paidAmount", "amountPaid")),
    "payable_amount": (amount, ("payableAmount", "amountDue", "outstandingAmount")),
    "status": (text, ("status",)),
    "preceding_invoice": (text, ("originalInvoiceId", "originalInvoiceNumber", "creditedInvoiceId")),
}
_LINE: Table = {
    "line_id": (text, ("id", "lineId", "lineNumber")),
    "item_code": (text, ("productCode", "sku", "product.code")),
    "description": (text, ("description", "productName", "product.name")),
    "quantity": (amount, ("quantity",)),
    "unit": (text, ("unit", "unitOfMeasure")),
    "unit_price": (amount, ("unitPrice", "price")),
    "discount": (amount, ("discount", "discountAmount")),
    "net_amount": (amount, ("totalExclVat", "netAmount", "amount", "lineTotal")),
    "tax_rate": (amount, ("vatPercentage", "taxPercentage", "vatRate", "taxRate")),
    "tax_amount": (amount, ("vatAmount", "taxAmount")),
    "period_start": (day, ("periodStart", "startDate")),
    "period_end": (day, ("periodEnd", "endDate")),
    "subscription_id": (text, ("subscriptionId", "subscription.id")),
    "subscription_name": (text, ("subscriptionName", "subscription.name")),
    "customer_id": (text, ("customerId", "endCustomerId", "customer.id")),
    "customer_name": (text, ("customerName", "endCustomerName", "customer.name")),
    "charge_type": (text, ("chargeType",)),
    "match_key": (text, ()),
}
NAMES = Names(SHAPE, _HEAD, _LINE, {})
