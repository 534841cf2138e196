"""Waiting until Sage has made up its mind about an upload."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_cloudbilling.errors import CloudBillingError, RefusedError
from airflow_cloudbilling.operators.arguments import given
from airflow_cloudbilling.operators.failing import failing_for_good
from airflow_cloudbilling.operators.sage_events import deferral_timeout, read_event
from airflow_cloudbilling.operators.sage_stopping import Stoppable

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
    from airflow_cloudbilling.http.client import Client
    from airflow_cloudbilling.operators.sage_following import Following
    from airflow_cloudbilling.sources.sage_watch import Watch


class SageUploadSensor(Stoppable, BaseSensorOperator):
    """Wait until an upload has ended; the task fails when Sage refused it.

    With ``staging_conn_id`` the progress and the result of every record go into the upload ledger, as
    ``SageUploadOperator`` does it when it waits itself. Sage being out of reach does not end the wait.

    :param conn_id: connection of the type ``sage_connected_cloud``.
    :param tracking_id: Sage's id of the upload; empty when nothing was sent, and then there is nothing to wait for.
    :param staging_conn_id: connection of the staging database whose ledger has the upload; empty: only wait.
    :param success_states: of an upload; ``accepted``. Compared without case, ``_``, ``-`` and spaces.
    :param failure_states: ``failed``, ``rejected``, ``error``, ``invalid``; every other state is pending.
    :param fail_on_rejected_records: fail when Sage rejected records of a file that it accepted; needs the ledger.
    :param grace: seconds for which Sage may not know the upload yet, just after it was sent.
    :param deferrable: wait in the triggerer, without a worker; else as ``mode`` says.
    :param poke_interval: seconds between two questions.
    :param schema: database schema of the staging tables; ``None``: the connection's default.
    :raises AirflowFailException: when Sage refused the upload, or does not know it.
    :raises AirflowSensorTimeout: when it has not ended after ``timeout`` seconds, with its last state.
    """

    template_fields: Sequence[str] = ("conn_id", "tracking_id", "staging_conn_id", "schema")
    ui_color = "#e8f1ea"

    def __init__(
        self,
        *,
        conn_id: str,
        tracking_id: str,
        staging_conn_id: str | None = None,
        success_states: Sequence[str] | None = None,
        failure_states: Sequence[str] | None = None,
        fail_on_rejected_records: bool = True,
        grace: float = 60,
        schema: str | None = None,
        poke_interval: timedelta | float = 30,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.conn_id = conn_id
        self.tracking_id = tracking_id
        self.staging_conn_id = staging_conn_id
        self.success_states = success_states
        self.failure_states = failure_states
        self.fail_on_rejected_records = fail_on_rejected_records
        self.grace = grace
        self.schema = schema
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Wait, and return ``{tracking_id, status, result_uri}``, with the ledger what the operator returns."""
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            raise AirflowSensorTimeout(f"{error} The upload's last state is {self._watch.state}.") from error

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask once. If the upload has not ended, a deferrable sensor is deferred."""
        if self.reschedule and (first := context["ti"].get_first_reschedule_date(context)):
            self._began = first.timestamp()
        found = self._look()
        if found is None and self.deferrable:
            self._defer(time.time() + self.timeout)
        return PokeReturnValue(found is not None, xcom_value=found)

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Take up the result of the wait in the triggerer, and return what :meth:`execute` returns.

        :raises AirflowException: when the wait has ended without a result; also by an event that is not known.
        """
        said = read_event(event)
        if said.late:
            words = f"Sensor has timed out after {self.timeout:.0f} s. The upload's last state is {said.state}."
            raise AirflowSensorTimeout(words)
        found = self._look()
        if found is None:
            self._defer(said.deadline, said.barren)
        return found

    @cached_property
    def _watch(self) -> Watch:
        from airflow_cloudbilling.sources.sage_results import States
        from airflow_cloudbilling.sources.sage_watch import Watch

        states = States(self.success_states, self.failure_states)
        return Watch(states, self.poke_interval, math.inf, grace=self._began + self.grace - time.time())

    @cached_property
    def _began(self) -> float:
        """When the first poke was, in seconds since the epoch."""
        return time.time()

    @property
    def _tracked(self) -> str:
        """Sage's id of the upload; empty when there is none."""
        return given(self.tracking_id) or ""

    def _look(self) -> dict[str, Any] | None:
        """Ask once; return the result when the upload has ended."""
        if not self._tracked:
            self.log.info("There is no upload to wait for: nothing was sent.")
            return {"tracking_id": None, "status": "empty", "result_uri": None}
        with failing_for_good():
            hook = self._hook()
            following = self._following(hook)
            with self._asking(hook, self.poke_interval) as client:
                try:
                    return self._recorded(following, client) if following else self._seen(hook, client)
                except CloudBillingError as error:
                    if self._stop.is_set():
                        raise
                    self._watch.failed(error)
                    self.log.warning("%s", error)
                    return None

    def _seen(self, hook: SageConnectedCloudHook, client: Client) -> dict[str, Any] | None:
        tracking = hook.track(self._tracked, client)
        end = self._watch.said(tracking)
        self.log.info("Upload %s is %s.", self.tracking_id, self._watch.state)
        if end == "failed":
            message = f"Sage refused upload {self.tracking_id}: it is {self._watch.state}."
            raise RefusedError(message, conn_id=self.conn_id)
        return {"tracking_id": self._tracked, "status": end, "result_uri": tracking.result_uri} if end else None

    def _recorded(self, following: Following, client: Client) -> dict[str, Any] | None:
        from airflow_cloudbilling.operators.sage_following import result_of

        ended = following.look(client)
        if ended is None:
            return None
        following.check(ended, fail_on_rejected=self.fail_on_rejected_records)
        return result_of(ended.upload, ended.upload.scope)

    def _following(self, hook: SageConnectedCloudHook) -> Following | None:
        """Return what writes the ledger; None where there is none, or the upload is not in it."""
        if not (staging_conn_id := given(self.staging_conn_id)):
            return None
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.operators.sage_following import Following
        from airflow_cloudbilling.staging.uploads import Uploads

        uploads = Uploads(open_staging(staging_conn_id, given(self.schema)))
        upload = uploads.tracked(self.conn_id, self._tracked)
        if upload is None:
            self.log.warning("The ledger of %s has no upload %s; only waiting.", staging_conn_id, self.tracking_id)
            return None
        return Following(hook, uploads, upload, self._watch, self._stop)

    def _defer(self, deadline: float, barren: int = 0) -> NoReturn:
        from airflow_cloudbilling.triggers.sage import SageUploadTrigger

        trigger = SageUploadTrigger(
            conn_id=self.conn_id,
            tracking_id=self._tracked,
            deadline=deadline,
            poll_interval=self.poke_interval,
            outage=self.timeout,
            success_states=self.success_states,
            failure_states=self.failure_states,
            unknown_until=self._began + self.grace,
            barren=barren,
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=deferral_timeout(deadline))
