"""A notifier that tells a month's open findings through any other: Slack, mail, Teams, whatever Airflow can send."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from airflow_cloudbilling.operators.arguments import given, period_of
from airflow_cloudbilling.operators.page_link import address_of, staging_of

if TYPE_CHECKING:
    from airflow.sdk import Context

_WHICH = {"error": ("error",), "warning": ("error", "warning")}


class FindingsNotifier(BaseNotifier):
    """Say what of a month is open, through other notifiers; nothing is sent when nothing is.

    Their templates have ``findings``: ``findings.subject``, ``findings.text``, ``findings.slack``, ``findings.html``,
    ``findings.errors``, ``findings.warnings``, ``findings.period`` and ``findings.address``, that of the page.

    :param staging_conn_id: connection of the staging database.
    :param notifiers: through which it is sent, such as ``SlackWebhookNotifier(text="{{ findings.slack }}")`` or
        ``SmtpNotifier(to=…, subject="{{ findings.subject }}", html_content="{{ findings.html }}")``.
    :param period: which month; empty: that of the task that it is a callback of, else the run's.
    :param severity: ``warning``: both; ``error``: errors alone.
    :param most: how many findings are named; the others are counted.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    """

    template_fields: Sequence[str] = ("staging_conn_id", "period", "schema")

    def __init__(
        self,
        *,
        staging_conn_id: str,
        notifiers: Sequence[BaseNotifier],
        period: str | None = None,
        severity: str = "warning",
        most: int = 10,
        schema: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.staging_conn_id = staging_conn_id
        self.notifiers = notifiers
        self.period = period
        self.severity = severity
        self.most = most
        self.schema = schema

    def notify(self, context: Context) -> None:
        """Read the findings, and hand them to each of the notifiers."""
        told = self._told(context)
        if told is None:
            self.log.info("Nothing is open, so nobody is told.")
            return
        for notifier in self.notifiers:
            copy(notifier)({**context, "findings": told})  # which renders its own templates, once and for all

    def _told(self, context: Context) -> dict[str, Any] | None:
        from airflow_cloudbilling.operators.database import look_into_staging
        from airflow_cloudbilling.reconcile.findings import OpenFindings
        from airflow_cloudbilling.reconcile.message import message_of

        task = context.get("task")
        asked = given(self.period) or given(getattr(task, "period", None))
        period = period_of(context, asked, given(getattr(task, "timezone", None)) or "UTC").period
        staging = look_into_staging(self.staging_conn_id, given(self.schema))
        with staging.engine.connect() as connection:
            found = OpenFindings(connection, staging.tables, period)
            counts = {key: count for key, count in found.counts().items() if key[0] in _WHICH[self.severity]}
            first = [one for one in found.listed(self.most) if one.severity in _WHICH[self.severity]]
        if not counts:
            return None
        address = address_of("findings", staging=staging_of(self.staging_conn_id, self.schema), period=period.key)
        return message_of(period, counts, first, address)
