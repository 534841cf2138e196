"""Waiting until a vendor has billed a period."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import pendulum
from airflow.sdk import BaseSensorOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
)

from airflow_cloudbilling.errors import UnavailableError
from airflow_cloudbilling.operators.arguments import document_types_of, kind_of, period_of
from airflow_cloudbilling.operators.failing import failing_for_good

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.hooks.billing import BillingHook
    from airflow_cloudbilling.http.client import Client

_BACKSTOP = 60.0  # seconds that Airflow's own time-out of the deferral comes later than the trigger's


class InvoicesReadySensor(BaseSensorOperator):
    """Wait until a vendor has invoices of a period; nothing is staged.

    The vendor is asked for the first invoice (or document) only. One that cannot be reached now does not end the wait;
    a refusal does, at once.

    :param conn_id: connection of a billing vendor.
    :param period: which one, as of :class:`~airflow_cloudbilling.operators.invoices.StageInvoicesOperator`.
    :param kind: ``purchase``, ``sales`` or ``consolidated``, where the vendor tells them apart; ``None``: its default.
    :param document_types: which documents count, in the vendor's words; empty: those of the kind.
    :param query: further query parameters for the vendor.
    :param timezone: in which calendar months are told.
    :param window_shift_days: moves the window that the vendor is asked for, not the period.
    :param expect: when a connection has several accounts (contracts of Orange): ``any``, one with invoices is enough;
        ``all``, every one must have some.
    :param deferrable: wait in the triggerer, without a worker; else as ``mode`` says.
    :param poke_interval: seconds between two questions; a vendor that names a longer wait is not asked before.
    :raises AirflowFailException: when no waiting helps: wrong settings, a refusal.
    :raises AirflowSensorTimeout: when there are none after ``timeout`` seconds.
    """

    template_fields: Sequence[str] = ("conn_id", "period", "kind", "document_types", "query", "timezone")
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        conn_id: str,
        period: str | None = None,
        kind: str | None = None,
        document_types: Sequence[str] = (),
        query: Mapping[str, str] | None = None,
        timezone: str = "UTC",
        window_shift_days: int = 0,
        expect: str = "any",
        poke_interval: timedelta | float = 300,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.conn_id = conn_id
        self.period = period
        self.kind = kind
        self.document_types = document_types
        self.query = query
        self.timezone = timezone
        self.window_shift_days = window_shift_days
        self.expect = expect
        self.deferrable = deferrable
        self._not_before = 0.0
        self._client: Client | None = None
        self._killed = False

    def poke(self, context: Context) -> bool:
        """Ask the vendor once; whether it has invoices of the period. If not, a deferrable sensor is deferred."""
        if time.time() < self._not_before:
            return False
        with failing_for_good():
            hook = self._hook()
            question = self._question(context, hook)
            ready, wait = self._asked(hook, question)
        if not ready and self.deferrable:
            self._defer(question)
        if wait > self.poke_interval and self.reschedule and not self.never_fail:  # which would take it for a failure
            moment = pendulum.now("UTC").add(seconds=math.ceil(wait))
            raise AirflowRescheduleException(moment)
        self._not_before = time.time() + wait
        return ready

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """Take up the result of the wait in the triggerer.

        :raises AirflowException: when there are no invoices, by what the event says; also for one that is not known.
        """
        status = event.get("status") if isinstance(event, dict) else None
        if status == "ready":
            self.log.info("%s.", event["message"])
            return
        if status == "timeout":
            raise AirflowSensorTimeout(f"Sensor has timed out after {self.timeout:.0f} s: {event['message']}.")
        if status == "failed":
            raise (AirflowFailException if event.get("for_good") else AirflowException)(event["message"])
        raise AirflowException(f"The trigger ended with an event that is not known: {event!r}.")

    def on_kill(self) -> None:
        """Stop waiting for the vendor's answer."""
        self._killed = True  # the client may not be there yet
        if self._client is not None:
            self._client.abort()

    def _hook(self) -> BillingHook:
        from airflow_cloudbilling.hooks.billing import BillingHook

        return BillingHook(self.conn_id)

    def _question(self, context: Context, hook: BillingHook) -> dict[str, Any]:
        """Return what is asked, as plain values."""
        chosen = period_of(context, self.period, self.timezone)
        self.log.info("Period %s: %s.", chosen.period.key, chosen.reason)
        return {
            "kind": kind_of(hook.source, self.kind),
            "period": chosen.period.key,
            "expect": self.expect,
            "document_types": list(document_types_of(self.document_types)),
            "query": {name: str(value) for name, value in (self.query or {}).items()},
            "window_shift_days": self.window_shift_days,
        }

    def _asked(self, hook: BillingHook, question: dict[str, Any]) -> tuple[bool, float]:
        """Ask; return whether there are invoices, and the seconds in which the vendor wants no further question."""
        from airflow_cloudbilling.readiness import Readiness

        readiness = Readiness(hook.source, hook.settings, **question)
        try:
            with hook.get_conn(defer_after=self.poke_interval) as client:
                self._client = client
                if self._killed:
                    client.abort()
                for _ in client.stream(readiness.conversation()):
                    pass
        except UnavailableError as error:
            if self._killed:
                raise
            self.log.warning("%s", error)
            return False, error.retry_after or 0
        self.log.info("%s.", readiness.words)
        return readiness.ready, 0

    def _defer(self, question: dict[str, Any]) -> NoReturn:
        from airflow_cloudbilling.triggers.invoices import InvoicesReadyTrigger

        trigger = InvoicesReadyTrigger(self.conn_id, question, time.time() + self.timeout, self.poke_interval)
        backstop = timedelta(seconds=self.timeout + _BACKSTOP)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=backstop)
