"""Store365's records and books (vendor facts 5d): camelCase in JSON, PascalCase in XML, no tax on lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from typing import Any

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox.bills import Bill, Charge, Subscription
from airflow_cloudbilling.sandbox.catalogue import CUSTOMERS, Customer
from airflow_cloudbilling.sandbox.orange_books import OrangeBooks, OrangeReseller, vat
from airflow_cloudbilling.sandbox.render import Ordered, to_json, to_xml

Record = dict[str, Any]
KIND = "purchase"
NONE: Counter[str] = Counter()


class Copies(OrangeReseller):
    """The data set, of which only some invoices of a month differ in more than their id.

    :param distinct: how many; 0: all.
    """

    def __init__(self, *args: Any, distinct: int, **more: Any) -> None:
        super().__init__(*args, **more)
        self.distinct = distinct
        self._original = lru_cache(maxsize=1024)(super().bill)

    def bill(self, kind: str, month: Period, index: int) -> Bill:
        """Return one invoice of a month."""
        if not 0 < self.distinct <= index:
            return super().bill(kind, month, index)
        bill = self._original(kind, month, index % self.distinct)
        return bill._replace(invoice_id=self.invoice_id(kind, month, index))


class Shelf(OrangeBooks):
    """The books with their ids in order, so that any page is served without those before it."""

    reseller: Copies
    _ids: list[str] | None = None

    def change(self, change: str, **where: Any) -> str:
        """Change the data; see :meth:`~airflow_cloudbilling.sandbox.books.Books.change`."""
        changed = super().change(change, **where)
        self._ids = None
        return changed

    def ids(self) -> list[str]:
        """Return the ids of all invoices, ascending."""
        if self._ids is None:
            self._ids = sorted(self._every())
        return self._ids

    def original(self, invoice_id: str) -> str | None:
        """Return the id of the invoice that one is sent as a copy of, itself or another; None where none is copied."""
        if not self.reseller.distinct or self._changes.get(invoice_id) or invoice_id.endswith("HUGE"):
            return None
        kind, month, index = self.reseller.locate(invoice_id)
        return self.reseller.invoice_id(kind, month, index % self.reseller.distinct)

    def _every(self) -> Iterator[str]:
        reseller = self.reseller
        if reseller.huge_invoice_mb:
            yield reseller.huge(reseller.months[-1]).invoice_id
        for month in reseller.months:
            for index in range(reseller.invoices + self._added[KIND, month.key]):
                invoice_id = reseller.invoice_id(KIND, month, index)
                if not self._changes.get(invoice_id, NONE)["withdraw"]:
                    yield invoice_id


def invoice_record(bill: Bill) -> Record:
    """Return an invoice with the names of the JSON answer."""
    net, tax = bill.total("net"), vat(bill)
    record: Record = {
        "id": bill.invoice_id,
        "invoiceNumber": bill.invoice_id,
        "type": "CreditNote" if bill.credit else "Invoice",
        "invoiceDate": _moment(bill.issued),
        "dueDate": _moment(bill.due),
        "customerId": bill.buyer.account,
        "customerName": bill.buyer.name,
        "currency": bill.currency.code,
        "totalExclVat": net,
        "vatAmount": tax,
        "totalInclVat": net + tax,
        "status": "Open",
        "lines": _lines(bill),
    }
    if bill.revision:
        record["sandboxRevision"] = bill.revision
    return Ordered(reversed(record.items())) if bill.reordered else record


class _Lines:
    """The lines of an invoice, made anew each time that they are read: an invoice may have very many."""

    def __init__(self, bill: Bill) -> None:
        self._bill = bill

    def __iter__(self) -> Iterator[Record]:
        for share in self._bill.shares:
            for subscription in share.subscriptions:
                for charge in subscription.charges:
                    yield _line(charge, subscription, share.customer)


def _lines(bill: Bill) -> _Lines:
    return _Lines(bill)


def _line(charge: Charge, subscription: Subscription, customer: Customer) -> Record:
    return {
        "id": charge.line,
        "productCode": charge.product.sku,
        "description": f"{charge.product.name} ({charge.product.charge_type})",
        "quantity": charge.quantity,
        "unit": charge.product.unit,
        "unitPrice": charge.unit_price,
        "discount": charge.discount,
        "totalExclVat": charge.net,
        "vatPercentage": charge.tax_rate,
        "periodStart": _moment(charge.start),
        "periodEnd": f"{charge.end.isoformat()}T23:59:59Z",
        "subscriptionId": subscription.number,
        "endCustomerId": customer.account,
        "endCustomerName": customer.name,
        "chargeType": charge.product.charge_type,
    }


def customers() -> dict[str, Record]:
    """Return the customers by id."""
    return {
        str(one.account): {"id": one.account, "number": one.number, "name": one.name, "country": one.country}
        for one in CUSTOMERS
    }


def users() -> dict[str, Record]:
    """Return the users by id: one more than a page of the default size holds."""
    return {str(n): {"id": n, "userName": f"user{n}", "email": f"user{n}@example.test"} for n in range(1, 12)}


def as_json(page: Mapping[str, int], records: Iterable[str]) -> Iterator[str]:
    """Yield a page ("Results") in JSON, of records that are rendered already."""
    yield "{" + "".join(f'"{name}": {value}, ' for name, value in page.items()) + '"results": ['
    for nth, record in enumerate(records):
        yield "," if nth else ""
        yield record
    yield "]}"


def as_xml(page: Mapping[str, int], records: Iterable[str]) -> Iterator[str]:
    """Yield a page in XML; the names of root and elements are not in the document."""
    yield '<?xml version="1.0" encoding="utf-8"?>\n<PagedResult>'
    yield "".join(f"<{pascal(name)}>{value}</{pascal(name)}>" for name, value in page.items())
    yield "<Results>"
    yield from records
    yield "</Results></PagedResult>"


def rendered(record: Record, item: str, xml: bool) -> Iterator[str]:
    """Yield a record in the one format or the other; both spellings of non-ASCII text occur in JSON."""
    return to_xml(item, pascal_cased(record)) if xml else to_json(record, ascii_only=str(record["id"])[-1] in "13579")


def pascal_cased(value: Any) -> Any:
    """Return a record with names in PascalCase; its lines are read when they are written."""
    if isinstance(value, Mapping):
        return {pascal(name): pascal_cased(item) for name, item in value.items()}
    return map(pascal_cased, value) if isinstance(value, (list, _Lines)) else value


def pascal(name: str) -> str:
    """Return a name of JSON as XML has it."""
    return name[:1].upper() + name[1:]


def _moment(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"  # "to a precision of seconds"
