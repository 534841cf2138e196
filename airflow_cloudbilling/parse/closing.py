"""What closes an invoice: of its header and the sums of its lines becomes an invoice, or a reject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.model import Invoice, Reject
from airflow_cloudbilling.parse.fields import Fields, Values, Wanted, fold
from airflow_cloudbilling.parse.header import Header, said
from airflow_cloudbilling.parse.names import Names, undivided_amounts
from airflow_cloudbilling.parse.totals import RunningSum, Totals
from airflow_cloudbilling.parse.values import shown

_LONGEST_REJECT = 64 * 1024
_NESTED = frozenset({dict, list})


class Closing:
    """Makes invoices, or rejects, of what came of them.

    :param names: with the user's ``field_map`` in it.
    :param keep_raw: whether items carry what the vendor sent.
    :param sha256: of the body.
    """

    _written: Callable[[Any], str] = staticmethod(said)  # makes a text of a value whose source text was not kept

    def __init__(self, names: Names, *, keep_raw: bool, sha256: str | None) -> None:
        self._names = names
        self._keep_raw = keep_raw
        self._sha256 = sha256
        self._head = Fields([Wanted(name, *how) for name, how in names.head.items()])
        self._id, self._day = (Fields([Wanted(name, *names.head[name])]) for name in ("invoice_id", "issue_date"))
        self._money = undivided_amounts(names)
        self._element = names.shape.lists[0].removesuffix("s")
        self._sum = RunningSum()  # of the invoice's lines
        self._bad: RecordError | None = None  # what is wrong with them
        self._bad_raw = ""
        self.computed = 0
        self.rejected_day: str | None = None  # the day of the record that was rejected last, where it can be read

    def _end(self, header: Header, values: Values | RecordError) -> Invoice | Reject:
        try:
            if self._bad or header.bad:
                raise self._bad or header.bad  # type: ignore[misc] # one of them is there
            self._no_objects_for_money(header.members)
            if isinstance(values, RecordError):
                raise values
            return self._invoice(dict(zip(self._names.head, values, strict=True)), header)
        except RecordError as error:
            raw = "\n".join(part for part in (self._bad_raw, header.source_text(self._element, self._written)) if part)
            self.rejected_day = _readable(self._day, header.flat)
            return Reject(error.reason, raw[:_LONGEST_REJECT], _readable(self._id, header.flat))

    def _no_objects_for_money(self, members: Mapping[str, Any]) -> None:
        """Refuse an object where an amount should stand: taking no notice of it would lose the amount in silence."""
        for name, value in members.items() if not _NESTED.isdisjoint(map(type, members.values())) else ():
            if type(value) in _NESTED and value and (canonical := self._money.get(fold(name))):
                raise RecordError(f"field {canonical} ({name}): expected a decimal amount, came {shown(value)}")

    def _invoice(self, values: dict[str, str | None], header: Header) -> Invoice:
        for name in ("invoice_id", "currency"):
            if values[name] is None:
                raise RecordError(f"field {name} ({self._names.head[name][1][0]}): expected a value, nothing came")
        totals = self._sum.complete(values["net_amount"], values["tax_amount"], values["gross_amount"])
        self.computed += totals.origin == "computed"
        kind = values["document_type"] or "invoice"
        found = values | {
            "document_type": kind,
            "net_amount": totals.net,
            "tax_amount": totals.tax,
            "gross_amount": totals.gross,
            "totals_origin": totals.origin,
            "raw": header.source_text(self._element, self._written) if self._keep_raw else None,
            "source_sha256": self._sha256,
        }
        return Invoice(**found, sign=-1 if kind == "credit_note" and stated_positive(totals) else 1)  # type: ignore[arg-type] # texts


def _readable(fields: Fields, flat: Mapping[str, Any]) -> str | None:
    try:
        return fields.read(flat)[0]
    except RecordError:
        return None


def stated_positive(totals: Totals) -> bool:
    """Whether a credit note's total is stated the EN 16931 way, as a positive amount."""
    decisive = totals.gross if totals.gross not in (None, "0") else totals.net
    return decisive not in (None, "0") and not str(decisive).startswith("-")
