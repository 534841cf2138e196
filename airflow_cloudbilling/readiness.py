"""Whether a vendor has invoices of a period yet: one light conversation over all accounts of a connection."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.found import Item
from airflow_cloudbilling.model import Document, Invoice, Invoices, Period, Portion
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Ahead, Ask, Conversation, Reply, Request, Source

EXPECTATIONS = ("any", "all")


class Readiness:
    """A question to a vendor, and the answer once :meth:`conversation` has been held.

    :param kind: one that the vendor has.
    :param period: ``2026-10`` or ``2026-10-01/2026-11-01``.
    :param expect: ``any``: ready when one account of the connection has invoices of the period; ``all``: when every
        one of them has.
    :param document_types: which documents count, in the vendor's words; empty: those of the kind.
    :param query: further query parameters.
    :param window_shift_days: moves the window that is asked for, not the period.
    :raises ConfigurationError: when the period is none, or ``expect`` neither.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        *,
        kind: str,
        period: str,
        expect: str = "any",
        document_types: Sequence[str] = (),
        query: Mapping[str, str] | None = None,
        window_shift_days: int = 0,
    ) -> None:
        if expect not in EXPECTATIONS:
            raise ConfigurationError(f"{expect!r} is neither 'any' nor 'all'.", field="expect")
        self._source = source
        self._settings = settings
        self._ask = Ask(
            kind=kind,
            period=Period.parse(period),
            window_shift_days=window_shift_days,
            params=query or {},
            keep_raw=False,
            document_types=tuple(document_types),
        )
        self._expect = expect
        self.ready = False
        self.words = f"{source.title} was not asked"

    def conversation(self) -> Conversation:
        """Ask account by account, no longer than needed; nothing but requests is yielded."""
        found = yield from _requests_until(self._source.slices(self._ask, self._settings))
        portions = [item for item in found if isinstance(item, Portion)]
        with_some = 0
        for asked, portion in enumerate(portions, 1):
            ask = replace(self._ask, kind=portion.kind, account=portion.account)
            invoices = self._source.ready(ask, self._settings)
            with_some += bool((yield from _requests_until(invoices, (Invoice, Invoices, Document))))
            self.ready = with_some > 0 if self._expect == "any" else with_some == len(portions)
            if self.ready or (self._expect == "all" and with_some < asked):
                break
        period, kind = self._ask.period.key, self._ask.kind
        has = "has" if self.ready else "has not yet"
        wanted = "" if len(portions) == 1 else f" ({self._expect} of {len(portions)} accounts)"
        self.words = f"{self._source.title} {has} {kind} invoices of {period}{wanted}"


def _requests_until(
    conversation: Conversation, enough: tuple[type, ...] = ()
) -> Generator[Request | Ahead | Item, Reply | None, list[Item]]:
    """Hold a conversation up to the first item of the types that are enough, or to its end; return the items."""
    found: list[Item] = []
    reply = None
    try:
        while True:
            try:
                step = conversation.send(reply)
            except StopIteration:
                return [] if enough else found
            reply = None
            if isinstance(step, Request):
                reply = yield step
            elif isinstance(step, enough):
                return [step]  # type: ignore[list-item] # the types are those of items
            elif not enough and not isinstance(step, Ahead):
                found.append(step)
    finally:
        conversation.close()
