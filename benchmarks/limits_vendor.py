"""Vendors for the limits: the sandbox in a process of its own, with bodies that cost it next to nothing to send."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from airflow_cloudbilling.sandbox import Sandbox
from airflow_cloudbilling.sandbox.bills import Bill, Repeated, Subscription
from airflow_cloudbilling.sandbox.orange import BASE
from airflow_cloudbilling.sandbox.orange_books import vat
from airflow_cloudbilling.sandbox.orange_einvoices import cii, number_of, ubl
from airflow_cloudbilling.sandbox.orange_files import pdf, report
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming

MONTH = "2026-10"
CONTRACT = "OCB0001234"
REPORTS = "comsumptionRatedReports"  # sic: the vendor's own spelling
PARTS = ("net", "tax", "gross")
DRAFTS = 24  # files that differ in more than their number
JSON_LINE, XML_LINE = 532, 700  # bytes

Vendor = tuple[Sandbox, dict[str, Any], dict[str, Any]]  # with the connection's extra, and what staging must hold


def main() -> None:
    """Serve until the standard input ends; print the connection, and the invoices and totals that must be staged."""
    name, options = sys.argv[1], json.loads(sys.argv[2])
    sandbox, extra, truth = VENDORS[name](**options)
    connection = sandbox.connections()[f"{name}_default"]
    connection["extra"] = {**connection.get("extra", {}), **extra}
    print(json.dumps([connection, truth]), flush=True)
    sys.stdin.read()


def _sandbox(**options: Any) -> Sandbox:
    return Sandbox(months=1, last_month=date(2026, 10, 1), **options).__enter__()


def _truth(sandbox: Sandbox, name: str) -> dict[str, Any]:
    sums = sandbox.truth(name, "purchase", MONTH)
    totals = {currency: {part: str(getattr(one, part)) for part in PARTS} for currency, one in sums.items()}
    invoices, lines = (sum(getattr(one, what) for one in sums.values()) for what in ("invoices", "lines"))
    return {"invoices": invoices, "lines": lines, "totals": totals}


def twotcloud(megabytes: int, response_format: str) -> Vendor:
    """Answer with one invoice of that size."""
    size = megabytes if response_format == "json" else megabytes * JSON_LINE // XML_LINE
    sandbox = _sandbox(invoices=0, huge_invoice_mb=size)
    return sandbox, {"response_format": response_format}, _truth(sandbox, "twotcloud")


def store365(pages: int, invoices: int) -> Vendor:
    """Answer with pages of so many invoices."""
    sandbox = _sandbox(invoices=pages * invoices, distinct_invoices=min(pages * invoices, 500))
    return sandbox, {"page_size": invoices}, _truth(sandbox, "store365")


def orange_cloudstore(files: int, kilobytes: int, latency: float, form: str) -> Vendor:
    """Answer with files of one contract.

    :param latency: seconds before each answer begins.
    :param form: ``pdf``, in which no amount can be read; ``facturx``, the same with an e-invoice of a few lines in it;
        ``xml``, an e-invoice that is all lines; ``csv``, a consumption report.
    """
    sandbox = _sandbox(invoices=DRAFTS)
    drafts = [_draft(sandbox, nth, kilobytes * 1000, form) for nth in range(DRAFTS)]
    listed, lines = [], 0
    totals: dict[str, Counter[str]] = {}
    for nth in range(files):
        draft, document_id = drafts[nth % DRAFTS], f"INV-202610-{nth:05d}"
        record = {"id": document_id, "filename": f"{document_id}.{form}", "period": "202610"}
        listed.append({**record, "documentType": REPORTS if form == "csv" else "invoices"})
        sandbox.serve(f"{BASE}/documents/{document_id}/file", draft.answer(nth))
        lines += draft.lines
        if draft.lines:
            totals.setdefault(draft.currency, Counter()).update(draft.totals)
    sandbox.serve(f"{BASE}/documents", json.dumps(listed))
    sandbox.inject("delay", seconds=latency, times=None)
    stated = {currency: {part: str(total) for part, total in sums.items()} for currency, sums in totals.items()}
    truth = {"invoices": files, "lines": lines, "totals": stated}
    return sandbox, {"contract_id": CONTRACT}, truth


class _Draft(NamedTuple):
    """A file that is sent under many numbers.

    :param number: bytes that stand in it once.
    :param totals: net, tax and gross; of a report, net alone.
    """

    body: bytes
    number: bytes
    lines: int = 0
    currency: str = ""
    totals: Mapping[str, Decimal] = {}

    def answer(self, nth: int) -> Callable[[Incoming], Answer]:
        """Return what answers a request; the file is made each time, none is kept."""
        number = b"%0*d" % (len(self.number), nth)
        return lambda request: Answer(200, (self.body.replace(self.number, number, 1),), "application/octet-stream")


def _draft(sandbox: Sandbox, nth: int, size: int, form: str) -> _Draft:
    mark = b"%08d" % nth
    if form == "pdf":
        return _Draft(_marked(pdf(None, size), mark), mark)
    reseller = sandbox.vendors["orange_cloudstore"].books.reseller
    bill = reseller.bill("usage" if form == "csv" else "purchase", reseller.months[0], nth)
    if form == "facturx":
        body = _marked(pdf("".join(cii(bill)).encode(), size), mark)
    else:
        bill = _longer(bill, size, form)
        body = _written(bill, form)
        mark = b"env=prod" if form == "csv" else number_of(bill).encode()
    lines = sum(len(one.charges) for one in bill.subscriptions)
    net, tax = bill.sign * bill.total("net"), bill.sign * vat(bill)
    totals = {"net": net} if form == "csv" else {"net": net, "tax": tax, "gross": net + tax}
    return _Draft(body, mark, lines, bill.currency.code, totals)


def _marked(body: bytes, mark: bytes) -> bytes:
    return body.replace(b"\0" * len(mark), mark, 1)  # in the padding


def _written(bill: Bill, form: str) -> bytes:
    return "".join(report(bill, CONTRACT) if form == "csv" else ubl(bill)).encode()


def _longer(bill: Bill, size: int, form: str) -> Bill:
    """Return the bill with its lines so often that its file has about that many bytes."""

    def times(number: int) -> Bill:
        def repeated(one: Subscription) -> Subscription:
            return one._replace(charges=Repeated(one.charges, number))

        shares = [share._replace(subscriptions=tuple(map(repeated, share.subscriptions))) for share in bill.shares]
        return bill._replace(shares=tuple(shares))

    once, twice = len(_written(times(1), form)), len(_written(times(2), form))
    return times(max(1, (size - once) // (twice - once) + 1))


VENDORS: dict[str, Callable[..., Vendor]] = {
    "twotcloud": twotcloud,
    "store365": store365,
    "orange_cloudstore": orange_cloudstore,
}

if __name__ == "__main__":
    main()
