"""Under a real scheduler and triggerer: a new file at Sage starts the DAG that waits for it, the same one does not."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from real_airflow import RealAirflow, real_airflow, until
from sages import CONN_ID
from staged import Erp, rows

from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox

pytestmark = pytest.mark.processes

# What a trigger saw is not kept before Airflow 3.3: a triggerer that starts tells of the file again.
RETOLD = int(tuple(map(int, version("apache-airflow-core").split(".")[:2])) < (3, 3))
DAG_FILE = f"""
from airflow.sdk import DAG, AssetWatcher
from airflow_cloudbilling.assets import scope_asset
from airflow_cloudbilling.operators.sage import SageDownloadScopeOperator
from airflow_cloudbilling.triggers.sage_scope import SageScopeTrigger

trigger = SageScopeTrigger({CONN_ID!r}, "Products", poll_interval=0.5)
with DAG("products", schedule=[scope_asset({CONN_ID!r}, "Products", AssetWatcher(name="new", trigger=trigger))]):
    SageDownloadScopeOperator(task_id="get", conn_id={CONN_ID!r}, scope="Products", staging_conn_id="erp_staging")
"""


def test_a_new_file_starts_the_dag_that_waits_for_it(
    tmp_path: Path, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    erp = Erp("sqlite", tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(erp.connection))
    home = tmp_path / "airflow"
    home.mkdir()
    with real_airflow(home) as airflow:
        (airflow.dags / "products.py").write_text(DAG_FILE)
        airflow.ready()
        until(lambda: succeeded(airflow) == 1)
        assert staged(erp) == {one["id"]: one for one in json.loads(sage.shelf.scopes["Products"])}
        not_modified(vendor, 3)
        assert len(events(airflow)) == 1
        airflow.kill("triggerer")
        airflow.start("triggerer")
        not_modified(vendor, 3)
        assert len(events(airflow)) == 1 + RETOLD
        sage.shelf.scopes["Products"] = b'[{"id": "P-1", "netPrice": 1.10}]'
        until(lambda: succeeded(airflow) == 2 + RETOLD)
        assert rows(erp, "scope_record", "raw") == [('{"id": "P-1", "netPrice": 1.10}',)]
        told = events(airflow)
    assert [one["extra"]["payload"]["scope"] for one in told] == ["Products"] * (2 + RETOLD)
    assert {one["uri"] for one in told} == {f"cloudbilling://{CONN_ID}/scope/Products"}
    written = airflow.everything() + json.dumps(told).encode() + erp.everything().encode()
    for secret in (sage.initial_key, sage.secret):
        assert secret.encode() not in written


def succeeded(airflow: RealAirflow) -> int:
    """Return how many of the DAG's runs have succeeded."""
    found = [one["state"] for one in airflow.call("GET", "/api/v2/dags/products/dagRuns")["dag_runs"]]
    assert "failed" not in found
    return found.count("success")


def events(airflow: RealAirflow) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = airflow.call("GET", "/api/v2/assets/events")["asset_events"]
    return found


def staged(erp: Erp) -> dict[str, Any]:
    return {key: json.loads(raw) for key, raw in rows(erp, "scope_record", "record_key, raw")}


def not_modified(vendor: Sandbox, times: int) -> None:
    """Wait until Sage has said so many times more that the file is as it was."""
    before = len(vendor.requests)
    until(lambda: sum(one.status == 304 for one in vendor.requests[before:]) >= times)
