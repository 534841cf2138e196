"""The documents of the sandbox's Orange: which ones a contract has, what the list says of each, and its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from airflow_cloudbilling.sandbox.bills import Bill
from airflow_cloudbilling.sandbox.orange_books import OrangeBooks
from airflow_cloudbilling.sandbox.orange_einvoices import cii, ubl
from airflow_cloudbilling.sandbox.orange_files import pdf, report, workbook, zipped
from airflow_cloudbilling.sandbox.render import batches

# What an id begins with → document type (vendor facts 2b: sic, one of them) and the file's suffix.
FORMS = {
    "INV": ("invoices", ""),
    "SCAN": ("invoices", "pdf"),
    "BIL": ("bills", "xlsx"),
    "PBL": ("partialBills", "xlsx"),
    "REP": ("reports", "pdf"),
    "RPT": ("comsumptionRatedReports", "csv"),
    "PCR": ("partialConsumptionRatedReports", "csv"),
}
TYPES = tuple(dict.fromkeys(name for name, _ in FORMS.values()))
IN_BOOKS = {"INV": "purchase", "RPT": "usage"}
EINVOICES = ("xml", "xml", "pdf", "csv")  # UBL, CII, Factur-X, and CII in a ZIP that is named .csv


class Name(NamedTuple):
    """An id in its parts: ``INV-202610-00003``; beyond the books the number is the contract's, and a running one."""

    prefix: str
    month: str
    number: int

    @classmethod
    def of(cls, document_id: str) -> Name:
        """Return the parts of an id; the huge invoice counts as the first.

        :raises ValueError: when it is none.
        """
        prefix, month, number = document_id.split("-")[:3]
        return cls(prefix, month, 0 if number == "HUGE" else int(number))


class Shelf:
    """Every document of every contract.

    :param contracts: the books' invoices are dealt out to them in turn.
    :param padding: bytes that files are made longer by.
    :param unreadable: further invoices in each month and contract whose files have no readable amounts.
    """

    def __init__(self, books: OrangeBooks, contracts: list[str], padding: int, unreadable: int) -> None:
        self.books = books
        self.contracts = contracts
        self.padding = padding
        self.unreadable = unreadable

    def ids(self, contract: str, asked: str) -> Iterator[str]:
        """Yield the ids of a contract's documents of a type; of all types for an empty one."""
        own = self.contracts.index(contract)
        months = self.books.reseller.months
        for prefix in (prefix for prefix, (name, _) in FORMS.items() if asked in ("", name)):
            if prefix in IN_BOOKS:
                bills = self.books.bills(IN_BOOKS[prefix], months[0].start, months[-1].end)
                yield from (bill.invoice_id for bill in bills if self.contract(bill.invoice_id) == contract)
                continue
            times = self.unreadable if prefix == "SCAN" else 1
            for month in months[-1:] if prefix in ("PBL", "PCR") else months:
                yield from (f"{prefix}-{month.start:%Y%m}-{own:05d}-{nth}" for nth in range(times))

    def contract(self, document_id: str) -> str:
        """Return the contract that a document belongs to."""
        return self.contracts[Name.of(document_id).number % len(self.contracts)]

    def has(self, document_id: str, contract: str) -> bool:
        """Whether a contract has a document."""
        try:
            name = Name.of(document_id)
            if self.contract(document_id) != contract:
                return False
        except ValueError:
            return False
        if name.prefix in IN_BOOKS:
            return self.books.bill(document_id) is not None
        return name.prefix in FORMS and document_id in self.ids(contract, FORMS[name.prefix][0])

    def record(self, document_id: str) -> dict[str, Any]:
        """Return what the list says; the period comes in the forms that were seen or may be."""
        name = Name.of(document_id)
        created = f"{name.month[:4]}-{name.month[4:]}-28T08:12:00Z"
        return {
            "id": document_id,
            "filename": self.filename(document_id),
            "period": name.month + ("" if name.number % 3 else "01"),
            "documentType": FORMS[name.prefix][0],
            "createdAt": created,
            "updatedAt": created,
        }

    def filename(self, document_id: str) -> str:
        """Return the file's name, whose suffix is not always its form."""
        suffix = FORMS[Name.of(document_id).prefix][1] or EINVOICES[self._form(document_id)]
        return f"{document_id.replace('-', '_')}_{self.contract(document_id)}.{suffix}"

    def content(self, document_id: str) -> Iterable[bytes]:
        """Return a file's bytes, piece by piece."""
        prefix = Name.of(document_id).prefix
        if prefix in ("BIL", "PBL"):
            return (workbook("Billing Report", document_id),)
        if prefix in ("SCAN", "REP"):
            return (pdf(None, self.padding),)
        if prefix in ("RPT", "PCR"):
            return self._report(document_id)
        bill = self._bill(document_id)
        form = self._form(document_id)
        if form == 2:
            return (pdf("".join(cii(bill)).encode(), self.padding),)
        if form == 3:
            return (zipped(invoice__xml="".join(cii(bill)).encode()),)
        return batches((*([] if form else ubl(bill)), *(cii(bill) if form else []), self._comment()))

    def _report(self, document_id: str) -> Iterable[bytes]:
        rows = batches(report(self._bill(document_id), self.contract(document_id)))
        return (zipped(report__csv=b"".join(rows)),) if self._form(document_id) == 3 else rows

    def _form(self, document_id: str) -> int:
        return Name.of(document_id).number // len(self.contracts) % len(EINVOICES)

    def _bill(self, document_id: str) -> Bill:
        """Return what is billed; a partial report has the rows of the month's first one."""
        if bill := self.books.bill(document_id):
            return bill
        month = next(m for m in self.books.reseller.months if f"{m.start:%Y%m}" == Name.of(document_id).month)
        return self.books.reseller.bill("usage", month, Name.of(document_id).number)

    def _comment(self) -> str:
        return f"<!--{'padding ' * (self.padding // 8)}-->\n" if self.padding else ""
