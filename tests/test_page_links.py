"""From a task in Airflow to what it has done, on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pages import Reader
from staged import NAMED, Erp, invoices, load

from airflow_cloudbilling.operators.database import open_staging
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.page_link import PageLink, view_of
from airflow_cloudbilling.operators.reconcile import ReconcileInvoicesOperator
from airflow_cloudbilling.page.addresses import view

DAG_FILE = """
from airflow.sdk import DAG
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.reconcile import ReconcileInvoicesOperator

with DAG("linked"):
    StageInvoicesOperator(
        task_id="stage", conn_id="twotcloud_default", staging_conn_id="erp_staging", period="{month}", kind="sales"
    ) >> ReconcileInvoicesOperator(
        task_id="reconcile", staging_conn_id="erp_staging", period="{month}", fail_on="never"
    )
"""


def link_of(task_id: str, name: str) -> str:
    """Return the link that Airflow has kept of a task."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    own = XComModel.dag_id == "linked", XComModel.task_id == task_id, XComModel.key == f"_link_{name}"
    chosen = select(XComModel).where(*own)
    with create_session() as session:
        (row,) = session.scalars(chosen).all()
        return str(XComModel.deserialize_value(row))


def test_a_task_leads_to_its_invoices_and_findings(vendor: Any, staging: Path, dags_folder: Path, run_dag: Any) -> None:
    month = vendor.months[-1]
    file = dags_folder / "linked.py"
    file.write_text(DAG_FILE.format(month=month))
    run_dag(file)
    address = link_of("stage", "PageLink")
    assert f"/cloudbilling/invoices?staging=erp_staging&period={month}&provider=twotcloud&kind=sales" in address
    assert "2tCloud, sales" in Reader("all").read(address.partition("/cloudbilling/")[2])
    assert f"Findings {month}" in Reader("all").read(link_of("reconcile", "PageLink").partition("/cloudbilling/")[2])


OF_TWO = [{"provider": provider, "account": "1", "kind": "sales", "period": "2026-10"} for provider in "ab"]


@pytest.mark.parametrize(
    ("result", "end"),
    [
        ({"upload_id": "u-1", "status": "accepted"}, "upload?id=u-1"),
        ({"period": "2026-10", "close_id": "c-1"}, "findings?period=2026-10"),
        ({"periods": ["2026-09", "2026-10"]}, "margin?period=2026-10"),
        (
            {"slices": [{"provider": p, "account": "1", "kind": "sales", "period": "2026-10"} for p in "ab"]},
            "?until=2026-10",
        ),
        ({}, ""),
    ],
)
def test_each_kind_of_result_has_its_view(result: dict[str, Any], end: str) -> None:
    name, params = view_of(result)
    assert view("", name, **params) == f"/cloudbilling/{end}"


def test_a_task_that_failed_leads_to_its_month(staging: Path) -> None:
    task = StageInvoicesOperator(task_id="stage", conn_id="c", staging_conn_id="erp_staging", period="2026-10")
    assert PageLink().get_link(task, ti_key=None) == "/cloudbilling/?staging=erp_staging&until=2026-10"
    undecided = StageInvoicesOperator(task_id="stage", conn_id="c", staging_conn_id="erp_staging", period="October")
    assert PageLink().get_link(undecided, ti_key=None) == "/cloudbilling/?staging=erp_staging"


@pytest.mark.bare
@pytest.mark.parametrize("erp", [kind for kind in NAMED if kind == "postgres"], indirect=True)
def test_a_task_leads_to_the_schema_that_its_tables_are_in(erp: Erp, monkeypatch: pytest.MonkeyPatch) -> None:
    load(open_staging("erp_staging", "billing"), invoices([1]))
    assert Reader().get().status_code == 404  # the default schema has no tables
    task = ReconcileInvoicesOperator(
        task_id="reconcile", staging_conn_id="erp_staging", schema="billing", period="2026-10"
    )
    link = PageLink().get_link(task, ti_key=None).partition("/cloudbilling/")[2]
    assert Reader().get(link).status_code == 400  # nobody has said that the page may show it
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__STAGING_CONN_IDS", "erp_staging, erp_staging:billing")
    assert "2tCloud" in Reader().read(link)
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__STAGING_CONN_IDS", "erp_staging:billing")
    assert "INV-1" in Reader().read("invoices", period="2026-10", provider="twotcloud", kind="purchase")
