"""Asking a person whether a reconciled month may be sent, with Airflow's own question for approval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.operators.failing import failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.reconcile.approval import Asker
    from airflow_cloudbilling.staging.loader import Staging

_ENDED = (None, "success", "failed", "skipped", "upstream_failed", "removed")  # states of a task that asks no more


class ApproveCloseOperator(ApprovalOperator):
    """Ask a person whether a close may be sent, show what is in it, and write the answer to ``cloudbilling_close``.

    Everything else is as of Airflow's ``ApprovalOperator``: "Reject" skips what follows. A close that was approved
    before is not asked for again. This task, and what follows, ends skipped when another run asks for the same close
    just now, or when Sage has accepted it, unless some of its invoices may go again: Sage rejected them, or a person
    released them.

    :param staging_conn_id: connection of the staging database.
    :param close_id: the result's ``close_id`` of ``ReconcileInvoicesOperator``.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :param subject: headline; ``None``: names the month.
    :param body: the question, in Markdown; ``None``: the month's totals and findings.
    :raises ConfigurationError: when ``defaults`` would approve it where nobody answers in time; "Reject" it may be.
    :raises AirflowFailException: when there is no such close, or what is staged is no longer what was reconciled.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "staging_conn_id", "close_id", "schema")

    def __init__(
        self,
        *,
        staging_conn_id: str,
        close_id: str,
        schema: str | None = None,
        subject: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(subject=subject or "", **kwargs)
        self.staging_conn_id = staging_conn_id
        self.close_id = close_id
        self.schema = schema

    def validate_defaults(self) -> None:
        """See that nobody's silence approves."""
        super().validate_defaults()
        if self.APPROVE in (self.defaults or ()):
            message = f'would let a timeout approve what nobody has looked at; leave it out, or take "{self.REJECT}".'
            raise ConfigurationError(message, field="defaults")

    def execute(self, context: Context) -> Any:
        """Ask, unless it is decided already."""
        from airflow_cloudbilling.reconcile.approval import summary_of
        from airflow_cloudbilling.reconcile.closes import APPROVED, read, unsent, uploads_of
        from airflow_cloudbilling.reconcile.report import question

        with failing_for_good():
            staging = self._staging()
            close = read(staging, self.close_id)
            with staging.engine.connect() as connection:
                sent = uploads_of(connection, staging.tables, self.close_id, ["accepted"])
            if sent and not unsent(staging, sent):
                raise AirflowSkipException(f"Close {self.close_id} went with upload {sent[0]} already.")
            summary = summary_of(staging, self.close_id)
        if close.status == APPROVED:
            self.log.info("Close %s was approved by %s at %s.", self.close_id, close.approved_by, close.approved_at)
            return {"chosen_options": [self.APPROVE], "params_input": {}, "responded_by_user": None}
        self._ask_alone(staging, context)
        self.subject = self.subject or f"May the invoices of {summary.period.key} be sent?"
        self.body = self.body or question(summary)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write what the person said, and go on or skip what follows."""
        from airflow_cloudbilling.reconcile.approval import approve, reject

        if "error" not in event:
            with failing_for_good():
                decide, who = approve if self.APPROVE in event["chosen_options"] else reject, _person(event)
                if decide is approve and not who:
                    raise ConfigurationError("was approved by nobody; ask again.", field="close_id")
                close = decide(self._staging(), self.close_id, who or "nobody in time, by default")
            self.log.info("Close %s is %s by %s.", self.close_id, close.status, close.approved_by)
        return super().execute_complete(context, event)

    def _ask_alone(self, staging: Staging, context: Context) -> None:
        """Note that this task asks, unless another one waits for the answer: its answer decides for both."""
        from airflow_cloudbilling.reconcile.approval import Asker, ask, asker_of

        if (ti := context.get("ti")) is None:
            return
        own, noted = Asker(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index), False
        while not noted:
            before = asker_of(staging, self.close_id)
            if before and before != own and _waits(ti, before):
                told = f"Close {self.close_id} is asked for in run {before.run_id!r} already; that answer decides."
                raise AirflowSkipException(told)
            noted = ask(staging, self.close_id, own, before)

    def _staging(self) -> Staging:
        from airflow_cloudbilling.operators.database import open_staging

        return open_staging(self.staging_conn_id, self.schema)


def _waits(ti: Any, asker: Asker) -> bool:
    """Whether a task instance has not ended yet."""
    name = asker.task_id if asker.map_index < 0 else f"{asker.task_id}_{asker.map_index}"
    states = ti.get_task_states(dag_id=asker.dag_id, task_ids=[asker.task_id], run_ids=[asker.run_id])
    return states.get(asker.run_id, {}).get(name) not in _ENDED


def _person(event: dict[str, Any]) -> str:
    """Return who answered; empty where the time ran out and there is a default."""
    user = event.get("responded_by_user") or {}
    return str(user.get("name") or user.get("id") or "")
