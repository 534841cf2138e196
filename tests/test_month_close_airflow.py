"""Under a real scheduler: the last vendor's invoices start the close, a person decides, Sage gets it once.

All tests share one Airflow, each has months of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from closing import SOON, MonthClose, example, kept
from real_airflow import SECONDS, real_airflow, until
from staged import Erp, rows

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox.server import Sandbox

pytestmark = pytest.mark.processes

# A backfill's span is of partitions; before Airflow 3.3 it was of the moments at which they are due, a month later.
AHEAD = int(tuple(map(int, version("apache-airflow-core").split(".")[:2])) < (3, 3))
IMPORTS = {"twotcloud": "sales", "orange_cloudstore": "purchase", "cloudonex": "sales", "store365": "purchase"}
# One DAG for each vendor. None starts by itself: tests say in which order the months come.
IMPORT = """
import pendulum
from airflow.sdk import DAG, CronPartitionTimetable, Param
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator

with DAG(
    "import_{vendor}",
    schedule=CronPartitionTimetable("0 6 3 * *", timezone="UTC", run_offset=-1, key_format="%Y-%m"),
    start_date=pendulum.datetime(2999, 1, 1),
    params={{"period": Param(None, type=["null", "string"])}},
    default_args={{"retries": 2, "retry_delay": 1}},
):
    StageInvoicesOperator(
        task_id="stage", conn_id="{vendor}_default", kind="{kind}", staging_conn_id="erp_staging",
        period="{{{{ params.period }}}}",
    )
"""
# There is one kind of each vendor.
CHANGED = SOON | {
    '        ("twotcloud_default", "purchase"),\n': "",
    '        ("cloudonex_default", "purchase"),\n': "",
}


class Closing(MonthClose):
    """The close of this module's imports, each a DAG of its own."""

    def imports(self, month: str | None, vendors: Iterable[str] = IMPORTS, **conf: str) -> None:
        """Import a month of some vendors, and wait until that is done."""
        runs = {vendor: self.airflow.run(f"import_{vendor}", month, **conf) for vendor in vendors}
        for vendor, run_id in runs.items():
            assert self.ended(f"import_{vendor}", run_id) == "success", self.told(run_id, "stage")[-3000:]


@pytest.fixture(scope="module")
def closing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closing]:
    """Boot Airflow with four imports and the example's close, whose uploads are not accepted at once."""
    folder = tmp_path_factory.mktemp("closing")
    erp = Erp("sqlite", folder)
    with Sandbox(months=10, last_month=date(2026, 10, 1), invoices=3) as sandbox, pytest.MonkeyPatch.context() as patch:
        for name, value in sandbox.environment().items():
            patch.setenv(name, value)
        patch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(erp.connection))
        patch.setenv("AIRFLOW_VAR_CLOUDBILLING_REPORTS", str(folder / "reports"))
        home = folder / "airflow"
        home.mkdir()
        with kept(sandbox) as received, real_airflow(home) as airflow:
            for vendor, kind in IMPORTS.items():
                (airflow.dags / f"import_{vendor}.py").write_text(IMPORT.format(vendor=vendor, kind=kind))
            (airflow.dags / "month_close.py").write_text(example("month_close", CHANGED))
            airflow.ready()
            for dag_id in ("month_close", "month_close_deadline", *(f"import_{vendor}" for vendor in IMPORTS)):
                until(lambda dag_id=dag_id: airflow.call("GET", f"/api/v2/dags/{dag_id}"))
            yield Closing(airflow, sandbox, erp, [*IMPORTS.items()], received)
    shutil.rmtree(folder)


def test_a_backfill_of_six_months_is_six_closes_each_of_its_own_month(closing: Closing) -> None:
    months, before = closing.sandbox.months[:6], len(closing.received)
    first, last = (Period.parse(months[n]).shifted(AHEAD).start.isoformat() for n in (0, 5))
    for vendor in IMPORTS:
        span = {"from_date": f"{first}T00:00:00Z", "to_date": f"{last[:8]}28T00:00:00Z"}
        closing.airflow.call("POST", "/api/v2/backfills", {"dag_id": f"import_{vendor}", **span})
    until(lambda: all(closing.closes(month) for month in months), 2 * SECONDS)
    runs = {month: run_id for month in months for run_id in closing.closes(month)}
    for month, run_id in runs.items():
        question = closing.asked(run_id)
        assert f"**{month}**" in question
        assert len(question) <= 4000
    for run_id in runs.values():
        closing.answer(run_id, "Approve")
    for month, run_id in runs.items():
        assert closing.ended("month_close", run_id) == "success"
        result = closing.result(run_id, "reconcile")
        assert result["period"] == str(Period.parse(month))
        assert result["findings"]["error"] == 0
        totals = {c: {n: Decimal(a) for n, a in own.items()} for c, own in result["totals"].items()}
        assert totals == closing.true_totals(month)
        assert closing.closes(month) == [run_id]
        assert "DEFERRED" in closing.told(run_id, "upload")
    assert closing.sent_sales(before) == closing.true_sales(*months)
    assert len(closing.received) - before == 6
    decided = rows(closing.erp, "close", "period, status, approved_by")
    assert decided == sorted((str(Period.parse(month)), "approved", "admin") for month in months)


def test_a_month_is_closed_once_whatever_comes_when(closing: Closing) -> None:
    month, before = closing.sandbox.months[6], len(closing.received)
    for vendor in reversed(IMPORTS):
        assert closing.closes(month) == []
        closing.imports(month, [vendor])
    (rejected,) = until(lambda: closing.closes(month))
    closing.asked(rejected)
    closing.imports(month)  # the same again, while a person is asked
    _, second = until(lambda: len(found := closing.closes(month)) == 2 and found)
    assert closing.ended("month_close", second) == "success"
    assert closing.states(second)["approve"] == closing.states(second)["upload"] == "skipped"
    assert f"is asked for in run '{rejected}' already" in closing.told(second, "approve")
    closing.answer(rejected, "Reject")
    assert closing.ended("month_close", rejected) == "success"
    assert {"approve": "success", "upload": "skipped", "report": "skipped"}.items() <= closing.states(rejected).items()
    own = f"period = '{Period.parse(month)}'"
    assert rows(closing.erp, "close", "status, approved_by", own) == [("rejected", "admin")]

    closing.imports(month)
    *_, approved = until(lambda: len(found := closing.closes(month)) == 3 and found)
    closing.asked(approved)
    closing.answer(approved, "Approve")
    assert closing.ended("month_close", approved) == "success"
    assert closing.sent_sales(before) == closing.true_sales(month)
    assert rows(closing.erp, "close", "status, approved_by", own) == [("approved", "admin")]
    assert "approved" in Path(urlsplit(closing.result(approved, "report")).path).read_text()

    closing.sandbox.change("add", kind="sales", month=month)
    closing.imports(month)
    *_, again = until(lambda: len(found := closing.closes(month)) == 4 and found)
    assert closing.ended("month_close", again) == "success"
    assert closing.states(again) == {
        "not_sent_yet": "success",
        **dict.fromkeys(("reconcile", "approve", "upload", "report"), "skipped"),
    }
    told = closing.told(again, "not_sent_yet")
    assert f"{month} was closed: admin approved it" in told
    assert "1 staged sales invoices did not go with it" in told
    assert len(closing.received) == before + 1

    by_hand = closing.airflow.run("month_close", month, again=True)
    closing.asked(by_hand)
    closing.answer(by_hand, "Approve")
    assert closing.ended("month_close", by_hand) == "success"
    assert closing.result(by_hand, "upload")["records"] == 1
    assert closing.sent_sales(before) == closing.true_sales(month)


def test_a_vendor_that_is_late_is_named_and_the_close_waits_for_it(closing: Closing) -> None:
    month = closing.sandbox.months[7]
    closing.imports(month, IMPORTS.keys() - {"store365"})
    deadline = closing.airflow.run("month_close_deadline", month)
    assert closing.ended("month_close_deadline", deadline) == "failed"
    late = f"{month} is late: cloudbilling://store365_default/purchase has not been imported."
    assert late in closing.told(deadline, "nobody_is_late")
    assert closing.closes(month) == []
    closing.imports(month, ["store365"])
    (run_id,) = until(lambda: closing.closes(month))
    closing.asked(run_id)
    again = closing.airflow.run("month_close_deadline", month)
    assert closing.ended("month_close_deadline", again) == "success"
    assert closing.airflow.states("month_close_deadline", again)["start_close"] == "skipped"
    assert closing.closes(month) == [run_id]


def test_a_month_that_came_by_hand_is_started_at_the_deadline(closing: Closing) -> None:
    month = closing.sandbox.months[8]
    # such a run has no partition, so that Airflow does not know for which month it is
    closing.imports(None, period=month)
    deadline = closing.airflow.run("month_close_deadline", month)
    assert closing.ended("month_close_deadline", deadline) == "success"
    assert f"**{month}**" in closing.asked(f"deadline__{month}")
    again = closing.airflow.run("month_close_deadline", month)
    assert closing.ended("month_close_deadline", again) == "success"
    assert closing.airflow.states("month_close_deadline", again)["start_close"] == "skipped"
