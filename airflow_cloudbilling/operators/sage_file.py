"""The file that goes to Sage, on this machine's disk: made of staged invoices, or a user's own as it is."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any

from airflow_cloudbilling import disk
from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.exact import canonical, exact_sum
from airflow_cloudbilling.parse.records import json_text
from airflow_cloudbilling.parse.values import Unreadable

if TYPE_CHECKING:
    from airflow_cloudbilling.sources.sage_orders import Records
    from airflow_cloudbilling.staging.uploads_intent import Item
    from airflow_cloudbilling.staging.uploads_selection import Selection

_IN_MEMORY = 1024 * 1024  # bytes
_COPY = 1024 * 1024
_LONGEST_ID = 255


class OutgoingFile:
    """A file, closed by its user; memory does not grow with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.content: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - __exit__ closes it
        self.size = 0
        self.count: int | None = None
        self.accounts: set[tuple[str, str, str]] = set()
        self.totals: dict[str, Decimal] = {}
        self._digest = hashlib.sha256()
        self._items: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - __exit__ closes it

    def __enter__(self) -> OutgoingFile:
        return self

    def __exit__(self, *_: object) -> None:
        disk.discard(self.content)
        disk.discard(self._items)

    @property
    def sha256(self) -> str:
        """Hex digest of the content."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Add to the content."""
        self.content.write(data)
        self._digest.update(data)
        self.size += len(data)

    def add(self, invoice: dict[str, Any], record: dict[str, Any]) -> None:
        """Add an invoice's record; the same invoices always give the same bytes.

        :raises ConfigurationError: when the record holds what JSON cannot, or floats, which are not exact.
        """
        try:
            text = json_text(record)
        except Unreadable as error:
            message = f"the record of invoice {invoice['invoice_id']!r}: {error}."
            raise ConfigurationError(message, field="mapping") from None
        self.write(b",\n" if self.count else b"[\n")
        self.write(text.encode())
        self.count = (self.count or 0) + 1
        self._note(invoice, str(record.get("id", "")))

    def end(self) -> None:
        """Write the end of the list."""
        self.write(b"\n]\n" if self.count else b"[]\n")

    def items(self) -> Iterator[Item]:
        """Yield the invoices in the file, in their order."""
        from airflow_cloudbilling.staging.uploads_intent import Item

        self._items.seek(0)
        for line in self._items:
            yield Item(*json.loads(line))

    def _note(self, invoice: dict[str, Any], record_key: str) -> None:
        if len(record_key) > _LONGEST_ID:
            message = f"the record id of invoice {invoice['invoice_id']!r} is longer than {_LONGEST_ID} characters."
            raise ConfigurationError(message, field="mapping")
        names = ("provider", "account", "kind", "invoice_id", "content_hash")
        self._items.write(json.dumps([*(invoice[name] for name in names), record_key]).encode() + b"\n")
        self.accounts.add((invoice["provider"], invoice["account"], invoice["kind"]))
        currency, gross = invoice["currency"] or "", invoice["gross_amount"]
        self.totals[currency] = exact_sum(self.totals.get(currency, Decimal(0)), gross or Decimal(0))

    def words(self) -> str:
        """Return what the file holds, in numbers."""
        if self.count is None:
            return f"{self.name}, {self.size} bytes, SHA-256 {self.sha256}"
        sums = ", ".join(f"{currency} {canonical(total)}" for currency, total in sorted(self.totals.items()))
        return f"{self.count} invoices, gross {sums or 'nothing'}, {self.size} bytes, SHA-256 {self.sha256}"


def file_of_invoices(selection: Selection, records: Records, name: str, *, raw: bool) -> OutgoingFile:
    """Return the file of the free invoices of a selection.

    :param raw: whether the mapping may want what the vendor sent.
    :raises ConfigurationError: when a record cannot be made; it names every field that is missing.
    """
    file = OutgoingFile(name)
    file.count = 0
    try:
        for invoice, lines in selection.invoices(raw=raw):
            file.add(invoice, records.record(invoice, lines))
        records.check()
        file.end()
    except BaseException:
        file.__exit__()
        raise
    return file


def file_of_source(location: str) -> OutgoingFile:
    """Return a copy of a user's own file, which may change meanwhile.

    :param location: a path, or an address that Airflow's ``ObjectStoragePath`` opens.
    :raises ConfigurationError: when it is no such address, is not there, or is empty.
    """
    from airflow_cloudbilling.object_storage import Place

    place = Place(location, "source")
    file = OutgoingFile(location.rstrip("/").rpartition("/")[2])
    try:
        with place.failing("cannot be read", place.root), place.fs.open(place.root, "rb") as source:
            while piece := source.read(_COPY):
                file.write(piece)
        if not file.size:
            raise ConfigurationError(f"{location!r} is empty; there is nothing to send.", field="source")
    except BaseException:
        file.__exit__()
        raise
    return file
