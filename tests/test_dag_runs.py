"""The import inside DAGs that Airflow runs: schedules, partitions, assets, mapping, deferral."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Asset
from told import asset_events

from airflow_cloudbilling.assets import invoice_asset
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.sandbox.server import Sandbox

RunDag = Callable[..., dict[str, Any]]
DAG_FILE = """
from datetime import datetime
from airflow.sdk import DAG, CronPartitionTimetable
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator

with DAG("{dag_id}", schedule={schedule}, start_date=datetime(2026, 1, 1), catchup=False, params={params}):
    StageInvoicesOperator{call}
"""
ONE = '(task_id="stage", conn_id="twotcloud_default", staging_conn_id="erp_staging"{more})'
MONTHLY = '"@monthly"'
PARTITIONED = 'CronPartitionTimetable("0 6 3 * *", timezone="UTC", run_offset=-1, key_format="%Y-%m")'


@pytest.fixture
def october(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serve three months up to October 2026, whatever today is."""
    with Sandbox(months=3, last_month=date(2026, 10, 1)) as sandbox:
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        yield sandbox


@pytest.fixture
def dag_file(dags_folder: Path) -> Callable[..., Path]:
    """Return a function that writes a DAG file where Airflow's DAG processor looks."""

    def write(dag_id: str, schedule: str, call: str = ONE.format(more=""), params: str = "{}") -> Path:
        file = dags_folder / f"{dag_id}.py"
        file.write_text(DAG_FILE.format(dag_id=dag_id, schedule=schedule, call=call, params=params))
        return file

    return write


def test_a_plain_monthly_dag_imports_the_month_before(
    october: Sandbox, staging: Path, dag_file: Callable[..., Path]
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (dag,) = DagBag(dag_file("plain_monthly", MONTHLY)).dags.values()
    assert dag.test(logical_date=datetime(2026, 11, 1, tzinfo=timezone.utc)).state == "success"
    truth = october.truth("twotcloud", "purchase", "2026-10")
    uri, _, extra = asset_events()[-1]
    assert uri == "cloudbilling://twotcloud_default/purchase"
    assert extra["slices"][0]["period"] == "2026-10-01/2026-11-01"
    assert extra["invoices"] == sum(t.invoices for t in truth.values()) > 0


def test_a_partitioned_run_imports_its_partition_and_says_so_in_its_asset(
    october: Sandbox, staging: Path, dag_file: Callable[..., Path], run_dag: RunDag
) -> None:
    result = run_dag(dag_file("partitioned", PARTITIONED), partition_key="2026-09")["stage"]
    assert result["slices"][0]["period"] == "2026-09-01/2026-10-01"
    _, key, extra = asset_events()[-1]
    assert (key, extra) == ("2026-09", result)


def test_a_period_wins_over_partition_and_interval(
    october: Sandbox, staging: Path, dag_file: Callable[..., Path], run_dag: RunDag
) -> None:
    call = ONE.format(more=', period="{{ params.period }}"')
    dag = dag_file("with_period", PARTITIONED, call, '{"period": None}')
    before = len(asset_events())
    assert run_dag(dag, partition_key="2026-09")["stage"]["slices"][0]["period"] == "2026-09-01/2026-10-01"
    result = run_dag(dag, partition_key="2026-09", period="2026-08")["stage"]
    assert result["slices"][0]["period"] == "2026-08-01/2026-09-01"
    keys = [key for _, key, _ in asset_events()[before:]]
    assert keys[0] == "2026-09"
    assert keys[1:] in (["2026-08"], [])  # Airflow 3.2 cannot name another partition; then none is told


def test_the_vendor_gets_the_tasks_own_params_only(
    october: Sandbox, staging: Path, dag_file: Callable[..., Path], run_dag: RunDag
) -> None:
    call = ONE.format(more=', period="2026-10", params={"costCenter": "77"}')
    run_dag(dag_file("own_params", "None", call, '{"lookback_months": 1}'), lookback_months=2)
    query = october.requests[-1].query
    assert query == {"startDate": "20261001", "endDate": "20261031", "costCenter": "77"}


def test_connections_can_be_mapped(
    october: Sandbox, staging: Path, dag_file: Callable[..., Path], run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**october.connections()["twotcloud_default"], "extra": json.dumps({"account": "second"})}
    monkeypatch.setenv("AIRFLOW_CONN_TWOTCLOUD_SECOND", json.dumps(fields))
    call = (
        '.partial(task_id="stage", staging_conn_id="erp_staging", period="2026-10", kind="purchase")'
        '.expand(conn_id=["twotcloud_default", "twotcloud_second"])'
    )
    results = run_dag(dag_file("mapped", "None", call))["stage"]
    assert [r["slices"][0]["account"] for r in results] == [fields["login"], "second"]
    assert results[0]["totals"] == results[1]["totals"]


def test_a_long_wait_is_deferred_and_resumed_by_airflow(
    october: Sandbox, staging: Path, dag_file: Callable[..., Path], run_dag: RunDag
) -> None:
    october.inject("status", status=429, headers={"Retry-After": "2"}, times=1)
    call = ONE.format(more=', period="2026-10", defer_after=1')
    result = run_dag(dag_file("deferred", "None", call))["stage"]
    assert result["new"] == result["invoices"] > 0
    assert [r.status for r in october.requests] == [429, 200]


def test_the_asset_is_a_static_outlet() -> None:
    with DAG("outlets", schedule=None):
        more: dict[str, Any] = {"kind": "sales", "outlets": [Asset("x")]}
        task = StageInvoicesOperator(task_id="a", conn_id="my_2t", staging_conn_id="s", **more)
        default = StageInvoicesOperator(task_id="b", conn_id="my_2t", staging_conn_id="s")
        templated = StageInvoicesOperator(task_id="c", conn_id="{{ params.c }}", staging_conn_id="s")
    assert task.outlets == [Asset("x"), invoice_asset("my_2t", "sales")]
    assert default.outlets == [invoice_asset("my_2t", "purchase")]
    assert templated.outlets == []
    assert invoice_asset("my_2t", "sales").uri == "cloudbilling://my_2t/sales"


def test_an_asset_that_a_mapped_task_names_is_updated_once() -> None:
    own = invoice_asset("twotcloud_default", "sales")
    task = StageInvoicesOperator(
        task_id="stage", conn_id="twotcloud_default", staging_conn_id="erp_staging", kind="sales", outlets=[own]
    )
    assert task.outlets == [own]
