"""Sending staged invoices, or a file, to Sage Connected Cloud: once, whatever dies when."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pendulum
from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf

from airflow_cloudbilling.errors import ConfigurationError, WaitError
from airflow_cloudbilling.hooks.lineage import of_file, of_vendor
from airflow_cloudbilling.operators.arguments import given
from airflow_cloudbilling.operators.failing import failing_for_good
from airflow_cloudbilling.operators.lineage import External, Lineage, Traced
from airflow_cloudbilling.operators.loading import task_instance
from airflow_cloudbilling.operators.page_link import PageLink
from airflow_cloudbilling.operators.sage_events import deferral_timeout, read_event
from airflow_cloudbilling.operators.sage_stopping import Stoppable

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
    from airflow_cloudbilling.operators.sage_following import Following
    from airflow_cloudbilling.operators.sage_outbox import Outbox, Unit
    from airflow_cloudbilling.sources.sage_orders import Mapper
    from airflow_cloudbilling.staging.uploads import Upload, Uploads

_DEFER_AFTER = 60.0  # seconds: for a longer wait before a file is taken, neither its lock is held nor a worker


class SageResultLink(BaseOperatorLink):
    """The link from a task to the result file at Sage; Sage asks there for a login, since no signature goes with it."""

    name = "Sage result"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address of the result file, empty as long as there is none; the worker asks, after the task."""
        result = getattr(operator, "page_result", None) or {}
        return str(result.get("result_uri") or "")


class SageUploadOperator(Stoppable, Traced, BaseOperator):
    """Send what is staged and not yet sent to Sage, wait for its answer, and write what became of each invoice.

    Every invoice goes once, and again only when Sage rejected it. A retry finds its upload again; where nobody can
    know whether a file has reached Sage, the task fails until a person says so with ``resolve``.

    :param conn_id: connection of the type ``sage_connected_cloud``.
    :param staging_conn_id: connection of the staging database.
    :param scope: of the file at Sage.
    :param period: which invoices, as of :class:`~airflow_cloudbilling.operators.invoices.StageInvoicesOperator`;
        empty: the run's own.
    :param kind: of the invoices; with ``close_id`` it may be None, which means all kinds.
    :param close_id: instead of a period, an approved set: exactly that is sent, or the task fails and names what has
        changed since.
    :param source: instead of staged invoices, a file or an address of object storage, sent as it is.
    :param mapping: invoice → record: a function of an invoice and its lines that returns the record, or
        field → expression, such as ``{"customer.email": "invoice.raw.Receiver.Email"}``, which for ``Orders`` comes
        before the built-in mapping. Numbers as ``Decimal``.
    :param defaults: field → value, for what staging and the mapping leave open; dotted or nested.
    :param dry_run: log and return what would go; nothing is sent and nothing written.
    :param wait: wait for Sage's answer; else ``SageUploadSensor`` may do that.
    :param deferrable: wait in the triggerer, without a worker.
    :param poll_interval: seconds between two questions.
    :param timeout: seconds of waiting, in each try; the next one goes on.
    :param outage: seconds for which Sage may be out of reach while it is waited for.
    :param success_states: of an upload; ``accepted``. Compared without case, ``_``, ``-`` and spaces.
    :param failure_states: ``failed``, ``rejected``, ``error``, ``invalid``; every other state is pending.
    :param fail_on_rejected_records: fail when Sage rejected records of a file that it accepted.
    :param resend: why the content of ``source`` is sent again although it was sent before; each reason sends once.
    :param resolve: a person's word for an upload that is unknown: ``sent``, with ``tracking_id``, or ``not_sent``. One
        that stood in the task already when a file was sent is not taken for that file.
    :param tracking_id: Sage's id of the upload that ``resolve`` is about; with ``not_sent`` the ledger's does too.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :param timezone: in which calendar months are told.
    :raises AirflowFailException: when no retry can mend it: wrong settings, missing fields, a refusal, rejected
        records, an upload of which nobody knows.
    """

    template_fields: Sequence[str] = (
        "conn_id",
        "staging_conn_id",
        "scope",
        "period",
        "kind",
        "close_id",
        "source",
        "defaults",
        "resend",
        "resolve",
        "tracking_id",
        "schema",
        "timezone",
    )
    operator_extra_links = (SageResultLink(), PageLink())
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        conn_id: str,
        staging_conn_id: str,
        scope: str = "Orders",
        period: str | None = None,
        kind: str | None = "sales",
        close_id: str | None = None,
        source: str | None = None,
        mapping: Mapper | Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        wait: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 30,
        timeout: float = 3600,
        outage: float = 1800,
        success_states: Sequence[str] | None = None,
        failure_states: Sequence[str] | None = None,
        fail_on_rejected_records: bool = True,
        resend: str | None = None,
        resolve: str | None = None,
        tracking_id: str | None = None,
        schema: str | None = None,
        timezone: str = "UTC",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.staging_conn_id = staging_conn_id
        self.scope = scope
        self.period = period
        self.kind = kind
        self.close_id = close_id
        self.source = source
        self.mapping = mapping
        self.defaults = defaults
        self._dry_run = dry_run  # BaseOperator has a method of that name
        self.wait = wait
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.outage = outage
        self.success_states = success_states
        self.failure_states = failure_states
        self.fail_on_rejected_records = fail_on_rejected_records
        self.resend = resend
        self.resolve = resolve
        self.tracking_id = tracking_id
        self.schema = schema
        self.timezone = timezone

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what is to be sent, unless that was done before, and wait for Sage's answer.

        :returns: ``{upload_id, tracking_id, status, scope, records, accepted, rejected, result_uri}``; ``status`` is
            ``accepted``, ``submitted`` without waiting, ``empty`` when there is nothing to send, or ``dry_run``.
        """
        from airflow_cloudbilling.operators.sage_following import result_of
        from airflow_cloudbilling.operators.sage_outbox import Outbox
        from airflow_cloudbilling.operators.sage_resolving import Word
        from airflow_cloudbilling.operators.sage_units import show, unit_of

        with failing_for_good():
            hook, uploads = self._hook(), self._uploads()
            unit = unit_of(self, context, uploads)
            if self._dry_run:
                return {**result_of(None, self.scope, "dry_run"), "records": show(unit, uploads, self.scope)}
            word = Word(what, given(self.tracking_id)) if (what := given(self.resolve)) else None
            connect = partial(self._asking, hook, _DEFER_AFTER, sending=True)
            outbox = Outbox(hook, uploads, task_instance(context), self.scope, self._stop, connect, word)
            outbox.resolve(unit)
            deadline = time.time() + self.timeout
            upload = self._find_or_send(outbox, unit, deadline)
            if upload is None or (upload.status == "submitted" and not self.wait):
                result = result_of(upload, self.scope)
                with self.tracing() as lineage:
                    self._trace(lineage, result)
                return result
            return self._follow(self._following(hook, uploads, upload), deadline)

    def send_again(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Do, after Sage wanted to be left alone, what :meth:`execute` does."""
        return self.execute(context)

    def resume(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Take up the wait in the triggerer: write how the upload has ended, or rotate the key and defer again.

        :returns: what :meth:`execute` returns.
        :raises AirflowException: when the wait has ended without a result; also by an event that is not known.
        """
        said = read_event(event)
        with failing_for_good():
            hook, uploads = self._hook(), self._uploads()
            upload = uploads.tracked(self.conn_id, said.tracking_id)
            if upload is None:
                raise ConfigurationError(f"the ledger has no upload {said.tracking_id!r}.", field="staging_conn_id")
            following = self._following(hook, uploads, upload)
            if said.late:
                uploads.progressed(upload.upload_id, said.state)
                raise following.too_late(said.state)
            return self._follow(following, said.deadline, said.barren)

    def expect(self, lineage: Lineage) -> None:
        """Note what the file is made of, and Sage's scope where it goes."""
        if source := given(self.source):
            lineage.read(of_file(source))
        else:
            lineage.read(*self.staged("invoice", "invoice_line"))
        if not self._dry_run:
            lineage.wrote(of_vendor(self._hook().settings, "scope", self.scope))

    def _trace(self, lineage: Lineage, result: Mapping[str, Any]) -> None:
        self.expect(lineage)
        lineage.wrote(*lineage.outputs, rows=result["records"])
        if result["tracking_id"]:
            lineage.external = External(result["tracking_id"], next(iter(lineage.outputs)).namespace)

    def _find_or_send(self, outbox: Outbox, unit: Unit, deadline: float) -> Upload | None:
        """Find or send the upload; where Sage wants no file for long, nothing is held meanwhile."""
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        while True:
            try:
                return outbox.find_or_send(unit, deadline)
            except WaitError as wait:  # noqa: PERF203 # once a minute at most
                seconds = wait.retry_after or 0.0
                if time.time() + seconds >= deadline:
                    raise
                self.log.info("%s Nothing was sent; once more in %.0f s.", wait, seconds)
                if self.deferrable:
                    moment = pendulum.now("UTC").add(seconds=math.ceil(seconds))
                    self.defer(trigger=DateTimeTrigger(moment), method_name="send_again")
                if self._stop.wait(seconds):
                    raise

    def _uploads(self) -> Uploads:
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.staging.uploads import Uploads

        return Uploads(open_staging(self.staging_conn_id, given(self.schema)))

    def _following(self, hook: SageConnectedCloudHook, uploads: Uploads, upload: Upload) -> Following:
        from airflow_cloudbilling.operators.sage_following import Following
        from airflow_cloudbilling.sources.sage_results import States
        from airflow_cloudbilling.sources.sage_watch import Watch

        states = States(self.success_states, self.failure_states)
        watch = Watch(states, self.poll_interval, self.outage, grace=self.outage)
        return Following(hook, uploads, upload, watch, self._stop)

    def _follow(self, following: Following, deadline: float, barren: int = 0) -> dict[str, Any]:
        """Wait for the end, here or in the triggerer, and return the result."""
        from airflow_cloudbilling.operators.sage_following import result_of

        with self._asking(following.hook, self.poll_interval) as client:
            if not self.deferrable:
                ended = following.wait(client, deadline)
            elif (looked := following.look_once(client)) is None:
                self._defer(following, deadline, barren)
            else:
                ended = looked
        self.page_result = result_of(ended.upload, self.scope)
        with self.tracing() as lineage:
            self._trace(lineage, self.page_result)
        following.check(ended, fail_on_rejected=self.fail_on_rejected_records)
        return self.page_result

    def _defer(self, following: Following, deadline: float, barren: int) -> NoReturn:
        from airflow_cloudbilling.triggers.sage import SageUploadTrigger

        trigger = SageUploadTrigger(
            conn_id=self.conn_id,
            tracking_id=following.upload.tracking_id or "",
            deadline=deadline,
            poll_interval=self.poll_interval,
            outage=self.outage,
            success_states=self.success_states,
            failure_states=self.failure_states,
            unknown_until=time.time() + self.outage,
            barren=barren,
        )
        self.defer(trigger=trigger, method_name="resume", timeout=deferral_timeout(deadline))
