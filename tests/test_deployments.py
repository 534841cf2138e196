"""A month's close over all five vendors, by Airflow's REST API, in each deployment: it ends with the truth.

What users set up is set up as they do it: connections and variables by the API, the example DAGs as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import pytest
from closing import SOON, MonthClose, example, kept
from importing import expected_sums, staged_sums
from real_airflow import OnCelery, OnPostgres, RealAirflow, Standalone, real_airflow, until
from staged import Erp

from airflow_cloudbilling.sandbox.server import Sandbox

pytestmark = pytest.mark.processes

IMPORTS = (
    ("twotcloud", "purchase"),
    ("twotcloud", "sales"),
    ("orange_cloudstore", "purchase"),
    ("cloudonex", "sales"),
    ("cloudonex", "purchase"),
    ("store365", "purchase"),
)
DEPLOYMENTS: dict[str, tuple[type[RealAirflow], str]] = {
    "standalone": (Standalone, "sqlite"),
    "local": (OnPostgres, "postgres"),
    "celery": (OnCelery, "mysql"),
}


class Deployed(MonthClose):
    """A deployment with the two examples, its staging database, and the place where its objects are kept."""

    objects: ClassVar[Path]

    def set_up(self, connections: dict[str, Any], **variables: str) -> None:
        """Make connections and variables, as a user does."""
        for conn_id, fields in connections.items():
            own = {name: value for name, value in fields.items() if name != "extra"}
            named = {"host": "host", "login": "login", "password": "password", "port": "port", "schema": "schema"}
            body = {"connection_id": conn_id, "conn_type": own["conn_type"]}
            body |= {there: own[name] for name, there in named.items() if own.get(name) is not None}
            if extra := fields.get("extra"):
                body["extra"] = extra if isinstance(extra, str) else json.dumps(extra)
            self.airflow.call("POST", "/api/v2/connections", body)
        for name, value in variables.items():
            self.airflow.call("POST", "/api/v2/variables", {"key": name, "value": value})

    def staged(self, month: str) -> dict[tuple[str, str], Any]:
        """Return what the staging tables say of a month."""
        return {one: staged_sums(self.erp, *one, month) for one in self.imported}

    def truth(self, month: str) -> dict[tuple[str, str], Any]:
        """Return the same by the vendors' books."""
        return {one: expected_sums(self.sandbox.truth(*one, month)) for one in self.imported}

    def import_month(self, month: str) -> str:
        """Start the monthly import of a month."""
        return self.airflow.run("monthly_invoice_import", month, lookback_months=0)

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """Return the tasks of an import."""
        path = f"/api/v2/dags/monthly_invoice_import/dagRuns/{run_id}/taskInstances?limit=100"
        return list(self.airflow.call("GET", path)["task_instances"])

    def alone(self, run_id: str) -> dict[str, Any]:
        """Return the one task of an import that runs when no other does or may; nothing else as long as others do."""
        busy = [one for one in self.tasks(run_id) if one["state"] in ("running", "queued", "scheduled")]
        return busy[0] if len(busy) == 1 and busy[0]["state"] == "running" and busy[0]["pid"] else {}

    def task(self, run_id: str, like: dict[str, Any]) -> dict[str, Any]:
        """Return how a task is now."""
        own = ("task_id", "map_index")
        return next(one for one in self.tasks(run_id) if all(one[name] == like[name] for name in own))

    def close_month(self, month: str) -> None:
        """Wait for the close that the import has started, approve it, and wait for its end."""
        run_id = self.begun(month)
        assert f"**{month}**" in self.asked(run_id)
        self.answer(run_id, "Approve")
        assert self.ended("month_close", run_id) == "success", self.states(run_id)
        assert set(self.states(run_id).values()) == {"success"}

    def begun(self, month: str) -> str:
        """Return the run that closes a month, at the latest the one that the deadline starts.

        On PostgreSQL, Airflow may count one of two assets that are told of in the same moment for nothing, and then
        starts nothing by itself (apache/airflow#71070); the example has its second DAG for that.
        """
        with suppress(AssertionError):
            (run_id,) = until(lambda: self.closes(month), 30)
            return str(run_id)
        deadline = self.airflow.run("month_close_deadline", month)
        assert self.ended("month_close_deadline", deadline) == "success"
        return f"deadline__{month}"


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def deployed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Deploy Airflow with the examples; nothing of it is told by this process's environment."""
    airflow_of, database = DEPLOYMENTS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    home = folder / "airflow"
    home.mkdir()
    erp = Erp(database, folder)
    objects = folder / "objects"
    try:
        with (
            Sandbox(months=4, last_month=date(2026, 10, 1), invoices=6) as sandbox,
            kept(sandbox) as received,
            real_airflow(home, airflow_of) as airflow,
        ):
            by_hand = {"start_date=pendulum.datetime(2026, 1, 1": "start_date=pendulum.datetime(2999, 1, 1"}
            retried = {"timedelta(minutes=10)": SOON["timedelta(minutes=10)"]}
            airflow.lay("monthly_invoice_import.py", example("monthly_invoice_import", by_hand | retried))
            airflow.lay("month_close.py", example("month_close", by_hand | SOON))
            airflow.ready()
            one = Deployed(airflow, sandbox, erp, IMPORTS, received)
            vendors = {
                name.removeprefix("AIRFLOW_CONN_").lower(): json.loads(value)
                for name, value in sandbox.environment().items()
                if name.startswith("AIRFLOW_CONN_")
            }
            places = {"cloudbilling_archive": f"{objects}/archive", "cloudbilling_reports": f"{objects}/reports"}
            one.set_up({**vendors, "erp_staging": erp.connection}, **places)
            one.objects = objects
            for dag_id in ("monthly_invoice_import", "month_close", "month_close_deadline"):
                until(lambda dag_id=dag_id: airflow.call("GET", f"/api/v2/dags/{dag_id}"))
            yield one
    finally:
        erp.drop()


def test_a_month_is_imported_approved_and_sent(deployed: Deployed) -> None:
    month, before = deployed.sandbox.months[-1], len(deployed.received)
    run_id = deployed.import_month(month)
    assert deployed.ended("monthly_invoice_import", run_id) == "success"
    deployed.close_month(month)
    assert deployed.staged(month) == deployed.truth(month)
    assert deployed.sent_sales(before) == deployed.true_sales(month)
    assert any((deployed.objects / "archive").rglob("*.gz"))
    assert "approved" in (deployed.objects / "reports" / f"month-{month}.html").read_text()


@pytest.mark.parametrize("deployed", ["celery"], indirect=True)
def test_a_worker_that_dies_in_the_middle_of_an_import_is_followed_by_the_other(deployed: Deployed) -> None:
    month, before = deployed.sandbox.months[-3], len(deployed.received)
    deployed.sandbox.inject("delay", match=f"/documents/INV-{month.replace('-', '')}", seconds=120, after=2)
    run_id = deployed.import_month(month)
    until(lambda: any(seen.fault == "delay" for seen in deployed.sandbox.requests) and deployed.alone(run_id))
    waiting = deployed.alone(run_id)
    assert isinstance(deployed.airflow, OnCelery)
    dead = deployed.airflow.started_by(waiting["pid"])
    (left,) = set(deployed.airflow.workers) - {dead}
    deployed.airflow.kill(dead)
    assert deployed.ended("monthly_invoice_import", run_id) == "success"
    again = deployed.task(run_id, waiting)
    assert again["try_number"] == waiting["try_number"] + 1
    assert again["pid"] != waiting["pid"]
    deployed.close_month(month)
    assert deployed.staged(month) == deployed.truth(month)
    assert deployed.sent_sales(before) == deployed.true_sales(month)
    own = f"run_id={run_id}/task_id={waiting['task_id']}"
    for worker, attempt in ((dead, waiting), (left, again)):
        logs = (deployed.airflow.home / worker).rglob(f"attempt={attempt['try_number']}.log")
        assert any(own in str(log) for log in logs)
