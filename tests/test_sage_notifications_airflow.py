"""Under a real API server and scheduler: Sage's call starts the DAG that waits, and the key that it brings is used."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from documentation import Block, blocks
from pages import TOKEN
from real_airflow import ROOT, RealAirflow, real_airflow, until
from sages import CONN_ID, connect
from staged import Erp, rows

from airflow_cloudbilling.assets import scope_asset
from airflow_cloudbilling.plugins.sage_notifications import WINDOW
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox

pytestmark = pytest.mark.processes
DAG_FILE = (ROOT / "example_dags" / "sage_notified.py").read_text()
DAG_ID = "sage_notified"


class Notified(RealAirflow):
    """An Airflow whose API server takes Sage's calls."""

    def environment(self) -> dict[str, str]:
        tokens = {"AIRFLOW__CLOUDBILLING__SAGE_NOTIFICATION_TOKENS": json.dumps({CONN_ID: TOKEN})}
        return super().environment() | tokens

    @property
    def notification_url(self) -> str:
        return f"{self.url}/cloudbilling/notifications/{TOKEN}"


def test_sages_calls_start_the_dag_and_its_key_comes_into_force(
    tmp_path: Path, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    erp = Erp("sqlite", tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(erp.connection))
    hook = connect(vendor, monkeypatch, password="")
    home = tmp_path / "airflow"
    home.mkdir()
    with real_airflow(home, Notified) as airflow:
        assert isinstance(airflow, Notified)
        airflow.ready()
        airflow.lay("sage_notified.py", DAG_FILE)  # its daily run, which comes at once, fails without a key
        until(lambda: known(airflow))
        hook.register_developer({"application": {"notificationUrl": airflow.notification_url}})
        sage.consent(hook.create_passcode().passcode)
        assert sage.notified == [202]
        until(lambda: started(airflow) == ["success"])
        assert staged(erp) == held(sage)
        key = sage.initial_key
        for price in ("1.10", "1.20", "1.30"):
            sage.publish("Products", [{"id": "P-1", "netPrice": price}])
        assert sage.notified == [202] * 4
        until(lambda: started(airflow) == ["success"] * 2)
        assert staged(erp) == held(sage)
        first, second = told(airflow, "Products")
        assert second - first >= WINDOW  # however often Sage calls within it
        everything = airflow.everything() + erp.everything().encode()
    assert b"/cloudbilling/notifications/hidden" in everything
    for secret in (TOKEN, key, sage.key, sage.secret):
        assert secret.encode() not in everything


def test_a_service_of_ones_own_does_the_same_by_airflows_rest_api(
    tmp_path: Path, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    erp = Erp("sqlite", tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(erp.connection))
    hook = connect(vendor, monkeypatch, password="")
    home = tmp_path / "airflow"
    home.mkdir()
    with real_airflow(home) as airflow:
        airflow.ready()
        airflow.lay("sage_notified.py", DAG_FILE)  # its daily run, which comes at once, fails without a key
        until(lambda: known(airflow))
        sage.consent(hook.create_passcode().passcode)
        new_data, new_key = blocks("sh", page="docs/sage-notifications.md")
        for number, block in enumerate((new_key, new_data, new_key, new_data), 1):
            run_as_documented(block, airflow, NEW_API_KEY=sage.initial_key)
            if block is new_data:
                until(lambda number=number: started(airflow) == ["success"] * (number // 2))
        assert staged(erp) == held(sage)
        assert sage.initial_key not in json.dumps(airflow.call("GET", "/api/v2/variables"))


def known(airflow: RealAirflow) -> Any:
    """Return whether Airflow knows the assets that the DAG waits for."""
    return airflow.call("GET", f"/api/v2/assets?dag_ids={DAG_ID}")["total_entries"] == 2


def started(airflow: RealAirflow) -> list[str]:
    """Return the states of the runs that events have started."""
    runs = airflow.runs(DAG_ID).items()
    return [state for run_id, state in runs if run_id.startswith("asset_triggered__")]


def told(airflow: RealAirflow, scope: str) -> list[datetime]:
    """Return when a scope's DAGs were told that there may be new data."""
    events = airflow.call("GET", "/api/v2/assets/events?order_by=timestamp")["asset_events"]
    moments = [one["timestamp"] for one in events if one["uri"] == scope_asset(CONN_ID, scope).uri]
    return [datetime.fromisoformat(one.replace("Z", "+00:00")) for one in moments]


def run_as_documented(block: Block, airflow: RealAirflow, **names: str) -> None:
    """Run a recipe of the documentation, with the token of a user of this Airflow."""
    login = airflow.call("POST", "/auth/token", {"username": "admin", "password": "admin"})
    own = {**os.environ, "AIRFLOW": airflow.url, "TOKEN": login["access_token"], "NO_PROXY": "127.0.0.1", **names}
    subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], env=own, check=True, timeout=60)


def held(sage: Sage) -> dict[str, Any]:
    """Return what Sage has."""
    every = (json.loads(sage.shelf.scopes[scope]) for scope in ("Customers", "Products"))
    return {one["id"]: one for records in every for one in records}


def staged(erp: Erp) -> dict[str, Any]:
    return {key: json.loads(raw) for key, raw in rows(erp, "scope_record", "record_key, raw")}
