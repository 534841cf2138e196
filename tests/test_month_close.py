"""The month's close without a scheduler: what it waits for, its steps, and that a month which was sent is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from staged import Erp, open_staging
from test_example_dags import EXAMPLES
from uploading import SALES, close, stage, upload

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.approval import approve
from airflow_cloudbilling.reconcile.month import Scope, reconcile
from airflow_cloudbilling.reconcile.sent import sent
from airflow_cloudbilling.sandbox.sage import Sage

OCTOBER = Period.parse("2026-10")


@pytest.fixture(scope="module")
def dags() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(EXAMPLES).dags


@pytest.mark.matrix
def test_a_close_waits_for_all_that_the_monthly_import_emits(dags: Any) -> None:
    emitted = {asset.uri for task in dags["monthly_invoice_import"].tasks for asset in task.outlets}
    assert {asset.uri for asset in dags["month_close"].timetable.asset_condition.objects} == emitted
    assert {asset.uri for asset in dags["month_close_deadline"].get_task("nobody_is_late").inlets} == emitted


@pytest.mark.matrix
def test_nothing_is_sent_before_a_person_has_approved(dags: Any) -> None:
    close_dag, order = dags["month_close"], ["not_sent_yet", "reconcile", "approve", "upload", "report"]
    for task_id, following in zip(order, [*order[1:], None], strict=True):
        assert close_dag.get_task(task_id).downstream_task_ids == {following} - {None}


def test_a_month_is_sent_when_an_upload_of_its_close_is_on_its_way(erp: Erp, sage: Sage) -> None:
    stage(erp)
    staging = open_staging(erp)
    assert sent(staging, OCTOBER, "sales") == ""
    close(erp, 1, 3)
    assert sent(staging, OCTOBER, "sales") == ""
    result = upload(close_id="C-1", period=None)
    told = sent(staging, OCTOBER, "sales")
    assert told.startswith(f"2026-10 was closed: somebody approved it, and upload {result['upload_id']} is accepted.")
    assert "3 staged sales invoices did not go with it" in told
    assert sent(staging, OCTOBER.shifted(-1), "sales") == ""
    assert "did not go" not in sent(staging, OCTOBER, "purchase")


def test_a_month_of_which_nothing_is_to_be_sent_is_closed_when_it_is_approved(erp: Erp, sage: Sage) -> None:
    bought = SALES._replace(kind="purchase")
    staging = stage(erp, slice_=bought)
    close_id = reconcile(staging, Scope(OCTOBER)).close.close_id
    approve(staging, close_id, "Jo")
    with pytest.raises(AirflowFailException, match="has no sales invoices, it has purchase"):
        upload(close_id=close_id, period=None)  # nobody looked for any: perhaps another kind is meant
    stage(erp, [], slice_=SALES)
    assert sent(staging, OCTOBER, "sales") == ""
    assert reconcile(staging, Scope(OCTOBER)).close.close_id == close_id
    assert upload(close_id=close_id, period=None)["status"] == "empty"
    assert (
        sent(staging, OCTOBER, "sales") == "2026-10 was closed: Jo approved it, and no sales invoices were to be sent."
    )
    stage(erp)
    assert sent(staging, OCTOBER, "sales") == ""
    assert sage.uploads == {}


def test_a_run_for_a_month_that_was_sent_skips_all(
    staging: Path, sage: Sage, tmp_path: Path, dags: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    erp = Erp("sqlite", tmp_path)
    erp.connection["host"] = str(staging)
    close(erp, 1, 3)
    upload(close_id="C-1", period=None)
    run = dags["month_close"].test(run_conf={"period": "2026-10"})
    assert run.state == "success"
    assert {ti.task_id: ti.state for ti in run.get_task_instances()} == {
        "not_sent_yet": "success",
        **dict.fromkeys(("reconcile", "approve", "upload", "report"), "skipped"),
    }
    assert len(sage.uploads) == 1
