"""What a person decides about a month: a finding that is accepted, an invoice that is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.arguments import given, keys_of, needed
from airflow_cloudbilling.operators.failing import failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context


def who_decides(context: Context, who: str | None) -> str:
    """Return the person who decides: the argument, else who started the run.

    :raises ConfigurationError: when neither is known, as of a scheduled run.
    """
    person = given(who) or getattr(context.get("dag_run"), "triggering_user_name", None)
    if not person:
        raise ConfigurationError("is empty, and nobody started this run by hand; say who decides.", field="who")
    return str(person)


def _reason(reason: str) -> str:
    if not (found := given(reason)):
        raise ConfigurationError("is empty; say why, it is kept with what you decide.", field="reason")
    return found


class AcceptFindingOperator(BaseOperator):
    """Accept findings: they fail nothing any more, until their actual value changes.

    :param staging_conn_id: connection of the staging database.
    :param reason: why; kept with each finding.
    :param findings: their ids, as the log and the report show them: one, or several.
    :param period: instead, with ``rule``: all of this rule in this period that are open.
    :param rule: such as ``amount-drift``.
    :param who: the person; ``None``: who started the run.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :raises AirflowFailException: when an argument is wrong or there is no such finding.
    """

    template_fields: Sequence[str] = ("staging_conn_id", "findings", "period", "rule", "reason", "who", "schema")
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        staging_conn_id: str,
        reason: str,
        findings: Sequence[str] | str | None = None,
        period: str | None = None,
        rule: str | None = None,
        who: str | None = None,
        schema: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.staging_conn_id = staging_conn_id
        self.reason = reason
        self.findings = findings
        self.period = period
        self.rule = rule
        self.who = who
        self.schema = schema

    def execute(self, context: Context) -> dict[str, int]:
        """Accept the findings.

        :returns: ``{accepted}``: how many were not accepted before.
        """
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.staging.findings import accept, open_ones

        with failing_for_good():
            period, rule, who, reason = given(self.period), given(self.rule), *self._words(context)
            if (self.findings is None) == (period is None) or (period is None) != (rule is None):
                raise ConfigurationError("give either findings, or a period and a rule.", field="findings")
            staging = open_staging(self.staging_conn_id, self.schema)
            if period and rule:
                ids: Sequence[str] = open_ones(staging, Period.parse(period), rule)
            else:
                found = self.findings or ()
                ids = found.replace(",", " ").split() if isinstance(found, str) else list(map(str, found))
                needed(" ".join(ids), "findings", "them by their ids")
            accepted = accept(staging, ids, who, reason)
        self.log.info("%s findings accepted by %s: %s", accepted, who, reason)
        return {"accepted": accepted}

    def _words(self, context: Context) -> tuple[str, str]:
        return who_decides(context, self.who), _reason(self.reason)


class ReleaseInvoicesOperator(BaseOperator):
    """Release posted invoices: they follow the vendor again, and may go to Sage again.

    :param staging_conn_id: connection of the staging database.
    :param invoices: keys: mappings with ``provider, account, kind, invoice_id``, or these four in order.
    :param reason: why; kept with each invoice in ``cloudbilling_finding``, and with its upload.
    :param who: the person; ``None``: who started the run.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :raises AirflowFailException: when an argument is wrong, an invoice is not staged, or is on its way to Sage.
    """

    template_fields: Sequence[str] = ("staging_conn_id", "invoices", "reason", "who", "schema")
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        staging_conn_id: str,
        invoices: Sequence[Mapping[str, str] | Sequence[str]],
        reason: str,
        who: str | None = None,
        schema: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.staging_conn_id = staging_conn_id
        self.invoices = invoices
        self.reason = reason
        self.who = who
        self.schema = schema

    def execute(self, context: Context) -> dict[str, int]:
        """Release the invoices.

        :returns: ``{invoices, released}``: how many were named, and how many of them were posted or on their way.
        """
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.staging.posting import Posting

        with failing_for_good():
            who, reason = who_decides(context, self.who), _reason(self.reason)
            keys = keys_of(self.invoices)
            released = Posting(open_staging(self.staging_conn_id, self.schema)).release(keys, who, reason)
        self.log.info("%s invoices released by %s: %s", released, who, reason)
        return {"invoices": len(keys), "released": released}
