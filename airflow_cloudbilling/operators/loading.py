"""What every operator that loads a slice of invoices shares: its period, its rules, its result and its asset."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_cloudbilling.assets import SCHEME, invoice_asset
from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.found import Item
from airflow_cloudbilling.hooks.lineage import Dataset, came_from, of_asset, of_vendor, went_to
from airflow_cloudbilling.hooks.metrics import count_load
from airflow_cloudbilling.model import KINDS, Period, Slice
from airflow_cloudbilling.operators.arguments import document_types_of, given, kind_of, needed, period_of, share_of
from airflow_cloudbilling.operators.failing import failing_for_good
from airflow_cloudbilling.operators.lineage import Lineage, Traced
from airflow_cloudbilling.operators.page_link import PageLink
from airflow_cloudbilling.operators.run_period import Chosen
from airflow_cloudbilling.operators.summary import result_of, summary_line
from airflow_cloudbilling.source import Ask

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from airflow_cloudbilling.archive import Archive
    from airflow_cloudbilling.hooks.billing import BillingHook
    from airflow_cloudbilling.staging.ledger import Run
    from airflow_cloudbilling.staging.loader import Load, Loaded, Rules

_PROGRESS_SECONDS = 10.0
_GUESSED_KIND = "purchase"


class LoadOperator(Traced, BaseOperator):
    """Base of the operators that bring a slice of staging up to date; :meth:`load_slice` says from where.

    Parameters as of :class:`~airflow_cloudbilling.operators.invoices.StageInvoicesOperator`.
    """

    template_fields: Sequence[str] = (
        "conn_id",
        "staging_conn_id",
        "period",
        "kind",
        "document_types",
        "schema",
        "timezone",
        "archive",
    )
    operator_extra_links = (PageLink(),)
    ui_color = "#e8f1ea"
    progress_seconds = _PROGRESS_SECONDS
    _vendor: BillingHook | None = None

    def __init__(
        self,
        *,
        conn_id: str,
        staging_conn_id: str,
        period: str | None = None,
        kind: str | None = None,
        document_types: Sequence[str] = (),
        archive: str | None = None,
        schema: str | None = None,
        timezone: str = "UTC",
        window_shift_days: int = 0,
        field_map: Mapping[str, str] | None = None,
        keep_raw: bool = True,
        on_reject: str = "fail",
        max_removed: float | str = "10%",
        allow_removals: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.staging_conn_id = staging_conn_id
        self.period = period
        self.kind = kind
        self.document_types = document_types
        self.archive = archive
        self.schema = schema
        self.timezone = timezone
        self.window_shift_days = window_shift_days
        self.field_map = field_map
        self.keep_raw = keep_raw
        self.on_reject = on_reject
        self.max_removed = max_removed
        self.allow_removals = allow_removals
        self._add_outlet()

    def execute(self, context: Context) -> dict[str, Any]:
        """Load the period and return what changed.

        :returns: ``{slices: [{provider, account, kind, period, load_id, status, invoices, lines, new, changed,
            unchanged, removed, rejected, frozen, documents, totals}], …}`` and the same over all slices.
        """
        return self._run(context)

    def _run(self, context: Context) -> dict[str, Any]:
        """Load and tell; apart from ``execute``, which Airflow lets nobody but itself call."""
        loaded: list[Loaded] = []
        started = time.monotonic()
        with failing_for_good():
            try:
                for one in self.load_slices(context):
                    self._tell(one, time.monotonic() - started)
                    loaded.append(one)
                    started = time.monotonic()
            finally:
                with self.tracing() as lineage:
                    self._trace(lineage, loaded)
        self.page_result = result = result_of(loaded)
        self._tell_asset(context, loaded[0].slice.period, loaded[0].slice.kind, result)
        return result

    def _tell(self, one: Loaded, seconds: float) -> None:
        self.log.info(summary_line(one, seconds))
        if one.status == "superseded":
            self.log.warning("A load that began later was committed first; this one changes nothing.")

    def load_slices(self, context: Context) -> Iterator[Loaded]:
        """Load the slices one after the other, at least one."""
        raise NotImplementedError

    def expect(self, lineage: Lineage) -> None:
        """Note the staging tables, and the vendor's invoices where the connection says the account."""
        hook = self._hook()
        account = hook.settings.account or hook.source.account(hook.settings)
        if account:
            lineage.read(of_vendor(hook.settings, account, self._kind(hook)))
        lineage.wrote(*self.staged("invoice", "invoice_line"))

    def origin(self, slice_: Slice) -> Dataset:
        """Return where a slice's records come from."""
        return of_vendor(self._hook().settings, slice_.account, slice_.kind)

    def _trace(self, lineage: Lineage, loaded: Sequence[Loaded]) -> None:
        """Note what was read and staged, for Airflow's hook lineage too."""
        written = [one.merged for one in loaded if one.status == "committed"]
        for one in loaded:
            lineage.read(self.origin(one.slice), rows=one.received)
            came_from(self._hook(), one.slice.kind, account=one.slice.account, records=one.received)
        if not written:
            return
        invoices, lines, documents = self.staged("invoice", "invoice_line", "document")
        counts = {invoices: sum(one.invoices for one in written), lines: sum(one.lines for one in written)}
        if files := sum(one.documents for one in written):
            counts[documents] = files
        for table, rows in counts.items():
            lineage.wrote(table, rows=rows)
            went_to(self._hook(), table, rows=rows)
        for asset in (one for one in self.outlets if str(getattr(one, "uri", "")).startswith(f"{SCHEME}://")):
            lineage.wrote(of_asset(asset.uri))

    def _commit(self, load: Load, began: float) -> Loaded:
        """Merge what came, and count it in Airflow's metrics.

        :param began: on the monotonic clock.
        """
        loaded = load.commit()
        count_load(loaded, time.monotonic() - began)
        return loaded

    def _choose(self, context: Context) -> Chosen:
        chosen = period_of(context, self.period, self.timezone)
        self.log.info("Period %s: %s.", chosen.period.key, chosen.reason)
        if chosen.period.start > datetime.now(timezone.utc).date() + timedelta(days=1):  # it is tomorrow somewhere
            self.noticed(f"{chosen.period.key} lies in the future: nobody has billed it yet. Was another year meant?")
        return chosen

    def _kind(self, hook: BillingHook, default: str | None = None) -> str:
        return kind_of(hook.source, self.kind, default)

    def _fill(self, load: Load, items: Iterable[Item]) -> None:
        load.notices = self.noticed
        began = told = time.monotonic()
        for item in items:
            load.add(item)
            if time.monotonic() - told > self.progress_seconds:
                told = time.monotonic()
                self.progressed(load, told - began)
        self.log.info("Read %s in %.1f s.", load.progress(), time.monotonic() - began)

    def noticed(self, words: str) -> None:
        """Say what a person should know of a load that goes on."""
        self.log.warning("%s", words)

    def progressed(self, load: Load, seconds: float) -> None:
        """Say how far a load is, after every ``progress_seconds``."""
        self.log.info("%s, %.0f s", load.progress(), seconds)

    def _ask(self, hook: BillingHook, kind: str, period: Period, account: str = "") -> Ask:
        if type(self.window_shift_days) is not int:
            raise ConfigurationError(f"{self.window_shift_days!r} is no number of days.", field="window_shift_days")
        return Ask(
            kind=kind,
            period=period,
            account=account,
            document_types=document_types_of(self.document_types),
            window_shift_days=self.window_shift_days,
            params=self._vendor_params(),
            field_map={**hook.settings.field_map, **(self.field_map or {})},
            keep_raw=self.keep_raw,
        )

    def _vendor_params(self) -> dict[str, str]:
        """Return the task's own params: Airflow merges the DAG's into them, and those are not the vendor's business."""
        inherited = self.dag.params if self.has_dag() else {}  # type: ignore[no-untyped-call] # Airflow has no types here
        return {name: str(value) for name, value in dict(self.params).items() if name not in inherited}

    def _hook(self) -> BillingHook:
        from airflow_cloudbilling.hooks.billing import BillingHook

        if self._vendor is None:
            self._vendor = BillingHook(self.conn_id)
        return self._vendor

    def _open_archive(self) -> Archive | None:
        from airflow_cloudbilling.archive import Archive

        location = given(self.archive)
        return Archive(location) if location else None

    def _rules(self) -> Rules:
        from airflow_cloudbilling.staging.loader import Rules

        if self.on_reject not in ("fail", "quarantine"):
            raise ConfigurationError(f"{self.on_reject!r} is neither 'fail' nor 'quarantine'.", field="on_reject")
        return Rules(share_of(self.max_removed, "max_removed"), self.allow_removals, self.on_reject == "quarantine")

    def _add_outlet(self) -> None:
        """Declare the asset where both its parts are known when the DAG is read."""
        if _is_literal(self.conn_id) and (self.kind is None or _is_literal(self.kind)):
            kind = self.kind or _GUESSED_KIND
            needed(self.conn_id, "conn_id", "a vendor's connection")
            if kind not in KINDS:  # the asset would say so too, in words about its address
                raise ConfigurationError(f"{kind!r} is none of {', '.join(KINDS)}.", field="kind")
            asset = invoice_asset(self.conn_id, kind)
            if asset not in self.outlets:  # which a mapped task has to be given, as Airflow cannot see it here
                self.outlets = [*self.outlets, asset]

    def _tell_asset(self, context: Context, period: Period, kind: str, result: dict[str, Any]) -> None:
        """Put the result into the asset's event, under the partition that was staged."""
        asset = invoice_asset(self.conn_id, kind)
        if asset not in self.outlets:
            self._replace_outlet(asset)
        events = context.get("outlet_events")
        if events is None or asset not in self.outlets:
            return
        events[asset].extra = result
        key = getattr(context.get("dag_run"), "partition_key", None)
        own = self.dag.timetable if self.has_dag() else None  # type: ignore[no-untyped-call] # Airflow has no types here
        at_run_time = type(own).__name__ == "PartitionedAtRuntime"  # of Airflow 3.3
        if (key or at_run_time) and key != period.key:
            self._move_event(events[asset], asset, period)

    def _replace_outlet(self, asset: Asset) -> None:
        own = [o for o in self.outlets if str(getattr(o, "uri", "")).startswith(f"{SCHEME}://{self.conn_id}/")]
        self.outlets = [asset if o in own else o for o in self.outlets]
        if own:
            self.log.warning(
                "The asset of this import is %s; give the task kind=%r so that the DAG says so.",
                asset.uri,
                asset.uri.rsplit("/", 1)[1],
            )

    def _move_event(self, event: Any, asset: Asset, period: Period) -> None:
        """Let the event name the period that was staged, not the run's; Airflow 3.2 cannot, so there it is left out."""
        if hasattr(event, "add_partitions"):
            event.add_partitions(period.key)
        else:
            self.outlets = [o for o in self.outlets if o != asset]


def _is_literal(value: object) -> bool:
    return isinstance(value, str) and "{{" not in value and "{%" not in value


def task_instance(context: Context) -> Run:
    """Return the task instance as the ledger names it."""
    from airflow_cloudbilling.staging.ledger import Run

    ti = context.get("ti")
    if ti is None:
        return Run()
    return Run(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.try_number)
