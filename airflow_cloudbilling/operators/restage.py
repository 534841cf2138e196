"""Reading a period's invoices again from the archive: a mended mapping is replayed, and no vendor is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.hooks.lineage import Dataset, of_file
from airflow_cloudbilling.http.drivers import drive
from airflow_cloudbilling.model import Period, Portion, Slice
from airflow_cloudbilling.operators.arguments import given
from airflow_cloudbilling.operators.lineage import Lineage
from airflow_cloudbilling.operators.loading import LoadOperator, task_instance

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.archive import Archive
    from airflow_cloudbilling.hooks.billing import BillingHook
    from airflow_cloudbilling.staging.changes import Changes
    from airflow_cloudbilling.staging.ledger import Original
    from airflow_cloudbilling.staging.loader import Load, Loaded, Staging

_TOLD = 20  # changed invoices named in the log


class RestageInvoicesOperator(LoadOperator):
    """Stage a period once more from the answers that the archive keeps, as they would be read today.

    The same guarantees hold as for an import, and the result is the same; the log says besides which invoices changed.
    The reading counts from when the vendor was asked, so whatever was imported since stays. The vendor's connection is
    read for its account and settings; no request is sent.

    :param conn_id: connection of the billing vendor that was asked.
    :param staging_conn_id: connection of the staging database.
    :param archive: where ``StageInvoicesOperator`` kept the answers.
    :param period: as of ``StageInvoicesOperator``; may be left out when ``load_id`` is given.
    :param kind: likewise.
    :param load_id: the load to read again, which may be a failed one; ``None``: the slice's last committed one.
    :param field_map: canonical name → dotted path in the vendor's record; adds to the connection's.
    :param schema: as of ``StageInvoicesOperator``, and likewise ``timezone``, ``keep_raw``, ``on_reject``,
        ``max_removed`` and ``allow_removals``.
    :param window_shift_days: as it was when the vendor was asked, and likewise ``params``.
    :raises AirflowFailException: when no retry can mend it, as for an import, or when there is no such load, or it
        recorded no answer to what is asked.
    """

    template_fields: Sequence[str] = (*LoadOperator.template_fields, "load_id")

    def __init__(self, *, archive: str, load_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(archive=archive, **kwargs)
        self.load_id = load_id

    def load_slices(self, context: Context) -> Iterator[Loaded]:
        """Replay the loads' answers, and stage what they say."""
        from airflow_cloudbilling.operators.database import open_staging

        hook, rules, archive = self._hook(), self._rules(), self._open_archive()
        if archive is None:
            raise ConfigurationError("is empty; name the archive that the import wrote to.", field="archive")
        staging = open_staging(self.staging_conn_id, self.schema)
        for original in self._originals(context, hook, staging):
            words = "Reading the answers to load %s (%s, asked at %s UTC) again; no vendor is asked."
            self.log.info(words, original.load_id, original.status, original.fetch_started_at)
            load = staging.load(original.slice, task_instance(context), rules, original)
            yield self._replay(hook, load, archive)

    def expect(self, lineage: Lineage) -> None:
        """Note the archive and the staging tables."""
        lineage.read(of_file(str(self.archive)))
        lineage.wrote(*self.staged("invoice", "invoice_line"))

    def origin(self, slice_: Slice) -> Dataset:
        """Return the archive."""
        return of_file(str(self.archive))

    def _replay(self, hook: BillingHook, load: Load, archive: Archive) -> Loaded:
        from airflow_cloudbilling.operators.replay import Replay
        from airflow_cloudbilling.staging.changes import Changes

        assert load.original is not None
        load_id = load.original.load_id
        replay = Replay(archive, hook.settings, load_id, load.ledger.answers(load_id))
        slice_ = load.slice
        ask = self._ask(hook, slice_.kind, slice_.period, slice_.account)
        conversation = hook.source.invoices(ask, hook.settings)
        changes, began = Changes(load, _TOLD), time.monotonic()
        with load:
            self._fill(load, drive(conversation, replay.answer, lambda: None))
            loaded = self._commit(load, began)
        self._tell_changes(changes, loaded)
        return loaded

    def _tell_changes(self, changes: Changes, loaded: Loaded) -> None:
        made = changes.made() if loaded.merged.changed else []
        for change in made:
            self.log.info("Invoice %s changed: gross %s → %s.", *change)
        if loaded.merged.changed > len(made):
            self.log.info("… and %d more.", loaded.merged.changed - len(made))

    def _originals(self, context: Context, hook: BillingHook, staging: Staging) -> list[Original]:
        if load_id := given(self.load_id):
            return [self._named(load_id, context, hook, staging)]
        period, kind = self._choose(context).period, self._kind(hook)
        return [_last(staging, slice_) for slice_ in self._slices(hook, staging, kind, period)]

    def _slices(self, hook: BillingHook, staging: Staging, kind: str, period: Period) -> list[Slice]:
        """Return the slices that the connection means; which accounts it has, the ledger says where nobody else can."""
        provider, found = hook.source.conn_type, []
        for step in hook.source.slices(self._ask(hook, kind, period), hook.settings):
            if isinstance(step, Portion):
                found.append(Slice(provider, step.account, step.kind, period))
                continue
            accounts = staging.ledger.accounts(provider, kind, period)
            if not accounts:
                message = f"{provider} has no committed load of {kind}, {period.key}."
                raise ConfigurationError(message, field="period")
            return [Slice(provider, account, kind, period) for account in accounts]
        return found

    def _named(self, load_id: str, context: Context, hook: BillingHook, staging: Staging) -> Original:
        found = staging.ledger.load(load_id)
        if found is None:
            raise ConfigurationError(f"there is no load {load_id!r} in {staging.tables.load}.", field="load_id")
        if found.status in ("running", "waiting"):
            raise ConfigurationError(f"load {load_id} is still {found.status}; wait for its end.", field="load_id")
        period = self._choose(context).period if given(self.period) else found.slice.period
        kind = self._kind(hook, found.slice.kind)
        wanted = Slice(hook.source.conn_type, found.slice.account, kind, period)
        alone = self._slices(hook, staging, kind, period)
        if wanted != found.slice or found.slice not in alone:
            message = f"load {load_id} is of {_name(found.slice)}, not of {', '.join(map(_name, alone))}."
            raise ConfigurationError(message, field="load_id")
        return found


def _last(staging: Staging, slice_: Slice) -> Original:
    if found := staging.ledger.original(slice_, "committed"):
        return found
    failed = staging.ledger.original(slice_, "failed")
    hint = f" The last one failed; load_id={failed.load_id!r} reads that one again." if failed else ""
    raise ConfigurationError(f"{_name(slice_)} has no committed load.{hint}", field="period")


def _name(slice_: Slice) -> str:
    return f"{slice_.provider} account {slice_.account!r}, {slice_.kind}, {slice_.period.key}"
