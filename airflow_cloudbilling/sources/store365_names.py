"""Where Store365's records hold what is staged: its document has the envelope, the fields are likely names."""

from __future__ import annotations

from airflow_cloudbilling.parse import Names, Shape
from airflow_cloudbilling.parse.names import Paths

# "Results": the list is called results; a group without pages comes as a bare list or object. XML has the same names in
# PascalCase, under a root and around elements whose names the document does not say.
SHAPE = Shape(
    lists=("Invoices", "Lines"),
    marks=("id", "invoiceId", "guid", "invoiceNumber", "number", "invoiceNo", "documentNumber"),
    root="",
    also=(("Results", 1), ("InvoiceLines", 2), ("LineItems", 2), ("Items", 2), ("Details", 2)),
    null=False,
)
_HEAD: Paths = {
    "invoice_id": ("id", "invoiceId", "guid"),
    "invoice_number": ("invoiceNumber", "number", "invoiceNo", "documentNumber"),
    "document_type": ("type", "documentType", "invoiceType"),
    "issue_date": ("invoiceDate", "date", "issueDate", "createdDate"),
    "due_date": ("dueDate", "expirationDate", "paymentDueDate"),
    "period_start": ("periodStart", "startDate"),
    "period_end": ("periodEnd", "endDate"),
    "currency": ("currency", "currencyCode", "currency.code"),
    "seller_name": ("sellerName", "seller.name", "supplierName", "supplier.name"),
    "seller_vat_id": ("sellerVatNumber", "seller.vatNumber", "supplier.vatNumber"),
    "seller_country": ("sellerCountry", "seller.country", "supplier.country"),
    "buyer_id": ("customerId", "customer.id"),
    "buyer_name": ("customerName", "customer.name"),
    "buyer_vat_id": ("customerVatNumber", "customer.vatNumber"),
    "buyer_country": ("customerCountry", "customer.country", "customer.countryCode"),
    "net_amount": ("totalExclVat", "netAmount", "subTotal"),
    "tax_amount": ("vatAmount", "taxAmount", "totalVat"),
    "gross_amount": ("totalInclVat", "total", "amount"),
    "rounding_amount": ("roundingAmount", "rounding"),
    "paid_amount": ("paidAmount", "amountPaid"),
    "payable_amount": ("payableAmount", "amountDue", "outstandingAmount"),
    "status": ("status",),
    "preceding_invoice": ("originalInvoiceId", "originalInvoiceNumber", "creditedInvoiceId"),
}
_LINE: Paths = {
    "line_id": ("id", "lineId", "lineNumber"),
    "item_code": ("productCode", "sku", "product.code"),
    "description": ("description", "productName", "product.name"),
    "quantity": ("quantity",),
    "unit": ("unit", "unitOfMeasure"),
    "unit_price": ("unitPrice", "price"),
    "discount": ("discount", "discountAmount"),
    "net_amount": ("totalExclVat", "netAmount", "amount", "lineTotal"),
    "tax_rate": ("vatPercentage", "taxPercentage", "vatRate", "taxRate"),
    "tax_amount": ("vatAmount", "taxAmount"),
    "period_start": ("periodStart", "startDate"),
    "period_end": ("periodEnd", "endDate"),
    "subscription_id": ("subscriptionId", "subscription.id"),
    "subscription_name": ("subscriptionName", "subscription.name"),
    "customer_id": ("customerId", "endCustomerId", "customer.id"),
    "customer_name": ("customerName", "endCustomerName", "customer.name"),
    "charge_type": ("chargeType",),
}
NAMES = Names.of(SHAPE, _HEAD, _LINE)
