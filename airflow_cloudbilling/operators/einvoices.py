"""Staged invoices as UBL files, one after the other, and what each lacks as rows of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from airflow_cloudbilling.einvoicing.terms import Draft
from airflow_cloudbilling.operators.api import stored
from airflow_cloudbilling.operators.files import keeping

if TYPE_CHECKING:
    from airflow_cloudbilling.einvoicing.defaults import Defaults
    from airflow_cloudbilling.object_storage import Place
    from airflow_cloudbilling.staging.invoices import StagedInvoices
    from airflow_cloudbilling.staging.posting import InvoiceKey

NOT_WRITTEN = "not written"
_TOLD = 20  # gaps named in the log


class _Column(NamedTuple):
    name: str
    type: str = "text"


COLUMNS = tuple(map(_Column, ("provider", "account", "kind", "invoice_id", "file", "what", "term", "words")))


class InvoiceFiles:
    """Writes invoices and counts."""

    def __init__(self, place: Place, staged: StagedInvoices, defaults: Defaults) -> None:
        self._place = place
        self._staged = staged
        self._defaults = defaults
        self.counts = dict.fromkeys(("invoices", "complete", "incomplete", "not_written"), 0)
        self.terms: Counter[str] = Counter()
        self.first: list[str] = []

    def rows(self, keys: Iterable[InvoiceKey]) -> Iterator[dict[str, str]]:
        """Write each invoice, and yield its gaps as rows of the report."""
        for key in keys:
            gaps, file = self._write(key)
            self.counts["invoices"] += 1
            kinds = {what for what, _, _ in gaps}
            self.counts["not_written" if NOT_WRITTEN in kinds else "incomplete" if gaps else "complete"] += 1
            self.terms.update({term for _, term, _ in gaps})
            room = max(_TOLD - len(self.first), 0)
            self.first += [f"{key.invoice_id}: {' '.join(gap)}" for gap in islice(gaps, room)]
            yield from (
                {**key._asdict(), "file": file, **dict(zip(("what", "term", "words"), g, strict=True))} for g in gaps
            )

    def _write(self, key: InvoiceKey) -> tuple[list[tuple[str, ...]], str]:
        from airflow_cloudbilling.einvoicing.ubl import write_ubl

        draft = self._draft(key)
        if draft.unwritable:
            told = (words.partition(" ") for words in draft.unwritable)
            return [(NOT_WRITTEN, term.rstrip(":"), f"no {words}") for term, _, words in told], ""
        parts = (
            *(stored(part, "") for part in (key.kind, key.provider, key.account)),
            stored(f"{key.invoice_id}.xml", ".xml"),
        )
        with keeping(self._place, *parts) as file:
            write_ubl(file.stream, draft, map(draft.line, self._staged.lines(key)))
        return [(*gap,) for gap in draft.gaps()], "/".join(parts)

    def _draft(self, key: InvoiceKey) -> Draft:
        draft = Draft(self._staged.head(key), self._staged.taxes(key), self._defaults)
        for row in self._staged.lines(key):
            draft.take(row)
        return draft
