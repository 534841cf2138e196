"""Closing a month: whether what is staged is right and whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_cloudbilling.errors import ConfigurationError, FindingsError
from airflow_cloudbilling.operators.arguments import given, period_of, providers_of
from airflow_cloudbilling.operators.failing import failing_for_good
from airflow_cloudbilling.operators.lineage import Lineage, Traced
from airflow_cloudbilling.operators.page_link import PageLink
from airflow_cloudbilling.operators.posting import MarkPostedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.reconcile.month import Scope
    from airflow_cloudbilling.reconcile.summary import Summary
    from airflow_cloudbilling.staging.loader import Staging

__all__ = ["MarkPostedOperator", "ReconcileInvoicesOperator"]

_FAILING = {"error": ("error",), "warning": ("error", "warning"), "never": ()}


class ReconcileInvoicesOperator(Traced, BaseOperator):
    """Check a month: each invoice's sums, the vendors' counts, and what moved since the month before.

    Findings are written to ``cloudbilling_finding``: once, whatever is repeated; what is mended is resolved, and an
    accepted one stays quiet until its actual value changes. The invoices with their hashes and totals are written to
    ``cloudbilling_close``, for a person to approve and for Sage to be sent: the same state is the same close. The log
    shows the month on one screen. XCom ``approval`` holds the same as a question for an ``ApprovalOperator``.

    :param staging_conn_id: connection of the staging database.
    :param period: ``2026-10`` or ``2026-10-01/2026-11-01``; left out: as of ``StageInvoicesOperator``.
    :param providers: connection types of the vendors, such as ``twotcloud``; ``None``: all that are staged.
    :param fail_on: ``error``, ``warning`` (and errors) or ``never``.
    :param drift_threshold: share by which what a customer or an item comes to may change against the month before;
        empty: by any.
    :param expected: slices that must be there, each ``{provider, account, kind}`` or a part of it, also as JSON;
        ``None``: those of the month before.
    :param drift_minimum: changes of less than this amount, in the invoice's currency, are passed over.
    :param volume_factor: how many times the invoices of the month before are too many, or too few.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :param report: file or object storage that the report is written to; its suffix is ``.md`` or ``.html``. XCom
        ``report`` holds its address.
    :param timezone: in which calendar months are told, where ``period`` is left out.
    :raises AirflowFailException: after everything is written, when there are findings of the severity that fails; or
        when an argument is wrong.
    """

    template_fields: Sequence[str] = (
        "staging_conn_id",
        "period",
        "providers",
        "fail_on",
        "drift_threshold",
        "expected",
        "drift_minimum",
        "volume_factor",
        "schema",
        "report",
        "timezone",
    )
    operator_extra_links = (PageLink(),)
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        staging_conn_id: str,
        period: str | None = None,
        providers: Sequence[str] | str | None = None,
        fail_on: str = "error",
        drift_threshold: str | float | None = "0.5",
        expected: Sequence[Mapping[str, str]] | str | None = None,
        drift_minimum: str | float = "1",
        volume_factor: str | float = "10",
        schema: str | None = None,
        report: str | None = None,
        timezone: str = "UTC",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.staging_conn_id = staging_conn_id
        self.period = period
        self.providers = providers
        self.fail_on = fail_on
        self.drift_threshold = drift_threshold
        self.expected = expected
        self.drift_minimum = drift_minimum
        self.volume_factor = volume_factor
        self.schema = schema
        self.report = report
        self.timezone = timezone

    def execute(self, context: Context) -> dict[str, Any]:
        """Reconcile the month.

        :returns: ``{period, close_id, findings: {error, warning}, totals: {currency: {net, tax, gross}}, sha256}``;
            findings are those that are neither resolved nor accepted, totals those of all its invoices.
        """
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.reconcile.month import reconcile
        from airflow_cloudbilling.reconcile.report import question, screen

        with failing_for_good():
            if self.fail_on not in _FAILING:
                raise ConfigurationError(f"{self.fail_on!r} is none of {', '.join(_FAILING)}.", field="fail_on")
            scope = self._scope(context)
            staging = open_staging(self.staging_conn_id, self.schema)
            summary = reconcile(staging, scope)
            self.log.info("%s", screen(summary))
            pushed = {"approval": question(summary), "report": self._report(staging, scope, summary)}
            self.page_result = result = _result(summary)
            with self.tracing() as lineage:
                self._trace(lineage, summary)
            if any(summary.found(severity) for severity in _FAILING[self.fail_on]):
                _push(context, **pushed, return_value=result)  # Airflow keeps no result of a task that fails
                raise FindingsError(_failure(summary))
        _push(context, **pushed)
        return result

    def expect(self, lineage: Lineage) -> None:
        """Note what is checked, and where findings and the close go."""
        lineage.read(*self.staged("invoice", "invoice_line", "invoice_tax"))
        lineage.wrote(*self.staged("finding", "close", "close_invoice"))

    def _trace(self, lineage: Lineage, summary: Summary) -> None:
        self.expect(lineage)
        invoices, lines = self.staged("invoice", "invoice_line")
        lineage.read(invoices, rows=sum(one.invoices for one in summary.sums.values()))
        lineage.read(lines, rows=sum(one.lines for one in summary.sums.values()))
        lineage.checked[invoices] = sorted({rule for _, rule in summary.counts})

    def _scope(self, context: Context) -> Scope:
        from airflow_cloudbilling.reconcile.history import Limits
        from airflow_cloudbilling.reconcile.month import Scope

        chosen = period_of(context, self.period, self.timezone)
        self.log.info("Period %s: %s.", chosen.period.key, chosen.reason)
        limits = Limits(
            _number("drift_threshold", self.drift_threshold) if given(self.drift_threshold) else None,
            _number("drift_minimum", self.drift_minimum),
            _number("volume_factor", self.volume_factor, least=Decimal(1)),
        )
        return Scope(chosen.period, providers_of(self.providers), _slices(self.expected), limits)

    def _report(self, staging: Staging, scope: Scope, summary: Summary) -> str | None:
        """Write the report; return its address."""
        location = given(self.report)
        if not location:
            return None
        from airflow_cloudbilling.operators.month_report import write_report

        address = write_report(staging, summary, location, scope.providers)
        self.log.info("The report stands in %s.", address)
        return address


def _result(summary: Summary) -> dict[str, Any]:
    return {
        "period": str(summary.period),
        "close_id": summary.close.close_id,
        "findings": {severity: summary.found(severity) for severity in ("error", "warning")},
        "totals": json.loads(summary.close.totals),
        "sha256": summary.close.sha256,
    }


def _failure(summary: Summary) -> str:
    rules = ", ".join(f"{count} {rule} ({severity})" for (severity, rule), count in summary.counts.items())
    return (
        f"{summary.period.key} has findings: {rules}. They stand in the log and in cloudbilling_finding; mend and"
        " import again, or accept them with AcceptFindingOperator, then reconcile again."
    )


def _push(context: Context, **values: Any) -> None:
    ti = context.get("ti")
    for key, value in values.items():
        if ti is not None and value is not None:
            ti.xcom_push(key=key, value=value)


def _number(field: str, value: object, least: Decimal = Decimal(0)) -> Decimal:
    try:
        number = Decimal(str(value).strip())
        if number.is_finite() and number >= least:
            return number
    except InvalidOperation:
        pass
    raise ConfigurationError(f"{value!r} is no number from {least} on, such as '0.5'.", field=field)


def _slices(expected: Sequence[Mapping[str, str]] | str | None) -> list[Mapping[str, Any]] | None:
    """Return the expected slices; a template may have made JSON of them."""
    if expected is None or (isinstance(expected, str) and not given(expected)):
        return None
    try:
        found = json.loads(expected) if isinstance(expected, str) else list(expected)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise ConfigurationError(f"{expected!r} is no list of {{provider, account, kind}}.", field="expected")
    return found
