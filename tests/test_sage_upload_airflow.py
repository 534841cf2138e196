"""Under a real scheduler and triggerer: the task waits without a worker, and a triggerer that dies changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from real_airflow import real_airflow, until
from sages import CONN_ID
from staged import Erp
from uploading import DEFAULTS, items, ledger, seen_once, stage

from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox

pytestmark = pytest.mark.processes

DAG_FILE = f"""
from airflow.sdk import DAG
from airflow_cloudbilling.operators.sage import SageUploadOperator
from airflow_cloudbilling.sensors.sage import SageUploadSensor

with DAG("sends", schedule=None):
    send = SageUploadOperator(
        task_id="send", conn_id={CONN_ID!r}, staging_conn_id="erp_staging", period="2026-10", defaults={DEFAULTS},
        wait=False,
    )
    SageUploadSensor(
        task_id="wait", conn_id={CONN_ID!r}, staging_conn_id="erp_staging", poke_interval=0.5, deferrable=True,
        tracking_id="{{{{ ti.xcom_pull(task_ids='send')['tracking_id'] }}}}",
    ) << send
"""


def test_a_triggerer_that_dies_and_a_key_that_expires_change_nothing(
    tmp_path: Path, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    erp = Erp("sqlite", tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(erp.connection))
    stage(erp)
    sage.statuses = ["in review"]
    home = tmp_path / "airflow"
    home.mkdir()
    with real_airflow(home) as airflow:
        (airflow.dags / "sends.py").write_text(DAG_FILE)
        airflow.ready()
        run_id = airflow.run("sends")
        until(lambda: airflow.states("sends", run_id).get("wait") == "deferred")
        asked(vendor, 3)
        airflow.kill("triggerer")
        sage.expire_key()
        airflow.start("triggerer")
        until(lambda: sage.rotations)  # a worker was asked to, and goes on waiting in the triggerer
        asked(vendor, 3)
        until(lambda: airflow.states("sends", run_id)["wait"] == "deferred")
        next(iter(sage.uploads.values())).statuses = ["accepted"]
        until(lambda: airflow.states("sends", run_id)["wait"] not in ("deferred", "scheduled", "queued", "running"))
        assert airflow.states("sends", run_id) == {"send": "success", "wait": "success"}
        told = airflow.call("GET", f"/api/v2/dags/sends/dagRuns/{run_id}/taskInstances/wait/xcomEntries/return_value")
    assert ledger(erp) == ["accepted"]
    assert items(erp) == {"accepted": 5}
    assert seen_once(sage)
    assert sage.rotations == 1
    written = airflow.everything() + json.dumps(told).encode() + erp.everything().encode()
    (upload,) = sage.uploads.values()
    for secret in (sage.initial_key, sage.secret, sage.key, upload.signature("results")):
        assert secret.encode() not in written


def asked(vendor: Sandbox, times: int) -> None:
    """Wait until Sage has been asked so many times more, and has answered."""
    before = len(vendor.requests)
    until(lambda: sum(one.status == 200 and "tracking" in one.path for one in vendor.requests[before:]) >= times)
