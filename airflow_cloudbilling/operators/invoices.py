"""Importing a period's invoices of any billing vendor into ERP staging."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import pendulum

from airflow_cloudbilling.errors import ConfigurationError, WaitError
from airflow_cloudbilling.model import Portion, Slice
from airflow_cloudbilling.operators.loading import LoadOperator, task_instance
from airflow_cloudbilling.source import Ask

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.archive import Archive
    from airflow_cloudbilling.hooks.billing import BillingHook
    from airflow_cloudbilling.http.client import Client
    from airflow_cloudbilling.staging.loader import Load, Loaded


class StageInvoicesOperator(LoadOperator):
    """Stage the invoices that a vendor billed in a period; again with the same data, nothing is written.

    The connection's type decides which vendor is asked. The result, which is also the ``extra`` of the asset event,
    is small and plain: ``slices`` with counts and totals each, and the same over all slices; money as text.

    :param conn_id: connection of a billing vendor.
    :param staging_conn_id: connection of the staging database.
    :param period: ``2026-10`` or ``2026-10-01/2026-11-01`` (half-open); empty: the run's partition, else the month of
        its data interval's start, else, when the interval has no length, the last full calendar month before it.
    :param kind: ``purchase``, ``sales`` or ``consolidated``, where the vendor tells them apart; ``usage``: Orange's
        reports without its invoices; ``None``: the vendor's default.
    :param document_types: which documents of Orange, in its words; empty: ``invoices``. Reports are staged as slices
        of the kind ``usage`` beside the invoices, and never count in totals.
    :param archive: folder or object storage (``s3://conn_id@bucket/prefix``) that keeps every answer as it came;
        ``RestageInvoicesOperator`` reads it again.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :param timezone: in which calendar months are told.
    :param window_shift_days: moves the window that the vendor is asked for, not the period.
    :param field_map: canonical name → dotted path in the vendor's record; adds to the connection's.
    :param keep_raw: keep what the vendor sent, as text, with every invoice and line.
    :param on_reject: ``fail``, or ``quarantine`` to stage the rest when records cannot be read.
    :param max_removed: share of a slice's invoices that may vanish (``0.1`` or ``"10%"``); one may always.
    :param allow_removals: lift that limit.
    :param defer_after: when the vendor asks for a wait of more seconds, the worker is given back for that time.
    :param deferrable: ``False`` waits on the worker instead.
    :param params: query parameters for the vendor, besides those whose names the DAG has as params.
    :raises AirflowFailException: when no retry can mend it: wrong settings, a refusal, records that cannot be read.
    """

    def __init__(self, *, defer_after: float = 60, deferrable: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.defer_after = defer_after
        self.deferrable = deferrable
        self._client: Client | None = None
        self._loading: Load | None = None
        self._killed = False
        self._waited = False

    def resume(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Take up the load that a wait interrupted, and return what :meth:`execute` returns."""
        self._waited = True  # slices that were committed before the wait are done
        return self._run(context)

    def on_kill(self) -> None:
        """Stop waiting for the vendor; the load then ends as failed, and staging is as before."""
        self._killed = True  # the client may not be there yet
        if self._client is not None:
            self._client.abort()

    def load_slices(self, context: Context) -> Iterator[Loaded]:
        """Ask the vendor for the period, account by account, and stage what it answers."""
        from airflow_cloudbilling.operators.database import open_staging

        hook, rules, period = self._hook(), self._rules(), self._choose(context).period
        kind, archive, run = self._kind(hook), self._open_archive(), task_instance(context)
        ask = self._ask(hook, kind, period)
        staging = open_staging(self.staging_conn_id, self.schema)
        if archive:
            archive.check()
        defer_after = self.defer_after if self.deferrable else None
        try:
            with hook.get_conn(on_exchange=self._exchanged, defer_after=defer_after) as client:
                self._client = client
                if self._killed:
                    client.abort()
                for slice_ in self._slices(hook, client, ask):
                    done = staging.ledger.committed_by(run, slice_) if self._waited else None
                    yield done or self._load(hook, client, ask, staging.load(slice_, run, rules), archive)
        except WaitError as wait:
            self._wait(wait)

    def _slices(self, hook: BillingHook, client: Client, ask: Ask) -> list[Slice]:
        provider, period = hook.source.conn_type, ask.period
        found = list(client.stream(hook.source.slices(ask, hook.settings)))
        slices = [Slice(provider, one.account, one.kind, period) for one in found if isinstance(one, Portion)]
        if not slices:
            raise ConfigurationError(
                f"sees no contract or account at {hook.source.title}; look there at what its credentials may see.",
                conn_id=self.conn_id,
            )
        if len(slices) > 1:
            named = ", ".join(f"{one.account} {one.kind}" for one in slices[:20])
            self.log.info("%s slices of %s: %s", len(slices), period.key, named)
        return slices

    def _wait(self, wait: WaitError) -> NoReturn:
        """Give the worker back until the vendor wants to be asked again."""
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        moment = pendulum.now("UTC").add(seconds=math.ceil(wait.retry_after or 0))
        self.log.info("%s Deferred until %s.", wait, moment)
        self.defer(trigger=DateTimeTrigger(moment), method_name="resume")

    def _exchanged(self, url: str, status: int | None, sha256: str | None) -> None:
        if self._loading is not None:
            self._loading.exchanged(url, status, sha256)

    def _load(self, hook: BillingHook, client: Client, ask: Ask, load: Load, archive: Archive | None) -> Loaded:
        from airflow_cloudbilling.operators.replay import keeper
        from airflow_cloudbilling.operators.waiting_pages import WaitingPages

        slice_, dropped = load.slice, hook.source.dropped_fields
        self.log.info("Asking %s for %s invoices of %s.", slice_.provider, slice_.kind, slice_.period)
        own, began = replace(ask, kind=slice_.kind, account=slice_.account), time.monotonic()
        with load, closing(WaitingPages(load, dropped, archive)) as pages:
            self._loading = load
            try:
                conversation = hook.source.invoices(own, hook.settings)
                self._fill(load, client.stream(conversation, keeper(load, archive, dropped), pages, load.settle))
                return self._commit(load, began)
            except WaitError:
                pages.keep()
                raise
            finally:
                self._loading = None
