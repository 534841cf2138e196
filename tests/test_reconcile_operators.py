"""The operators around a month's close, as tasks run them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from months import bill, bills, found, stage
from staged import OCTOBER, Erp, rows

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.notifications.findings import FindingsNotifier
from airflow_cloudbilling.operators import approval
from airflow_cloudbilling.operators.approval import ApproveCloseOperator
from airflow_cloudbilling.operators.deciding import AcceptFindingOperator, ReleaseInvoicesOperator
from airflow_cloudbilling.operators.reconcile import MarkPostedOperator, ReconcileInvoicesOperator

pytestmark = pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
OFF = {"gross_amount": "121.01", "payable_amount": "121.01"}
BY_HAND = {"dag_run": SimpleNamespace(triggering_user_name="a.controller", partition_key=None)}
KEY = dict(zip(("provider", "account", "kind", "invoice_id"), (*OCTOBER[:3], "INV-1"), strict=True))


class Task:
    """A task instance, as far as the operators look at it.

    :param states: of the tasks that ask, by run.
    """

    dag_id, task_id, map_index = "dag", "approve", -1

    def __init__(self, run_id: str = "run-1", states: dict[str, str] | None = None) -> None:
        self.run_id = run_id
        self.states = states or {}
        self.xcoms: dict[str, Any] = {}

    def get_task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, dict[str, str]]:
        """Return what Airflow knows of tasks."""
        assert (dag_id, task_ids) == (self.dag_id, [self.task_id])
        return {run_id: {self.task_id: self.states[run_id]} for run_id in run_ids if run_id in self.states}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.xcoms[key] = value


def run(ti: Task | None = None, **arguments: Any) -> dict[str, Any]:
    arguments = {"period": "2026-10", "staging_conn_id": "erp_staging", **arguments}
    result: dict[str, Any] = ReconcileInvoicesOperator(task_id="reconcile", **arguments).execute({"ti": ti or Task()})
    return result


def test_the_result_is_small_and_plain(erp: Erp, tmp_path: Path) -> None:
    stage(erp, [*bill(1), *bill(2, ["1234.567"], "KWD", "5")])
    ti = Task()
    result = run(ti, report=str(tmp_path / "reports" / "2026-10.html"))
    assert result == json.loads(json.dumps(result))
    assert result == {
        "period": "2026-10-01/2026-11-01",
        "close_id": rows(erp, "close", "close_id")[0][0],
        "findings": {"error": 0, "warning": 0},
        "totals": {
            "EUR": {"net": "100", "tax": "21", "gross": "121"},
            "KWD": {"net": "1234.567", "tax": "61.728", "gross": "1296.295"},
        },
        "sha256": rows(erp, "close", "sha256")[0][0],
    }
    assert result["sha256"] in ti.xcoms["approval"]
    assert "1296.295" in (tmp_path / "reports" / "2026-10.html").read_text()
    assert ti.xcoms["report"].endswith("/reports/2026-10.html")


@pytest.mark.parametrize(
    ("items", "fail_on", "fails"),
    [
        (bill(1, **OFF), "error", True),
        (bill(1, **OFF), "warning", True),
        (bill(1, **OFF), "never", False),
        (bill(1, document_type="credit_note", preceding_invoice="F-7"), "error", False),
        (bill(1, document_type="credit_note", preceding_invoice="F-7"), "warning", True),
        (bill(1), "warning", False),
    ],
)
def test_severity_decides_what_fails_after_everything_is_written(
    erp: Erp, items: list[Any], fail_on: str, fails: bool, tmp_path: Path
) -> None:
    stage(erp, items)
    ti, report = Task(), tmp_path / "report.md"
    if fails:
        with pytest.raises(AirflowFailException, match="2026-10 has findings: 1"):
            run(ti, fail_on=fail_on, report=str(report))
        assert sum(ti.xcoms["return_value"]["findings"].values()) == 1
        assert found(erp, "rule")[0][0] in report.read_text()
    else:
        run(ti, fail_on=fail_on, report=str(report))
    assert len(rows(erp, "close")) == 1
    assert set(ti.xcoms) >= {"approval", "report"}


def test_arguments_may_be_templates(erp: Erp) -> None:
    stage(erp, bills([1]))
    fields = set(ReconcileInvoicesOperator.template_fields)
    assert fields >= {"period", "providers", "fail_on", "drift_threshold", "expected", "schema", "report"}
    expected = json.dumps([{"provider": "store365", "account": "1", "kind": "purchase"}])
    assert run(expected=expected, fail_on="never")["findings"]["error"] == 1
    assert run(expected="None", drift_threshold="", report="", providers="")["findings"]["error"] == 0
    assert run(providers="store365, cloudonex", fail_on="never")["totals"] == {}
    month = SimpleNamespace(partition_key="2026-10")
    operator = ReconcileInvoicesOperator(task_id="reconcile", staging_conn_id="erp_staging")
    assert operator.execute({"dag_run": month})["period"] == "2026-10-01/2026-11-01"


@pytest.mark.parametrize(("zone", "month"), [("UTC", "2026-09"), ("Europe/Amsterdam", "2026-10")])
def test_the_month_of_a_run_is_that_of_the_imports_time_zone(erp: Erp, zone: str, month: str) -> None:
    """An interval that begins at midnight in Amsterdam begins in UTC in the month before."""
    interval = {f"data_interval_{end}": datetime(2026, m, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))
                for end, m in (("start", 10), ("end", 11))}  # fmt: skip
    arguments = {"staging_conn_id": "erp_staging", "fail_on": "never", "timezone": zone}
    reconcile = ReconcileInvoicesOperator(task_id="reconcile", **arguments)
    assert Period.parse(reconcile.execute({**interval, "ti": Task()})["period"]).key == month
    told = FindingsNotifier(staging_conn_id="erp_staging", notifiers=[])._told({**interval, "task": reconcile})
    assert told is not None
    assert told["period"] == month


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"fail_on": "sometimes"}, "'sometimes' is none of error, warning, never"),
        ({"drift_threshold": "half"}, "drift_threshold.*'half' is no number"),
        ({"drift_minimum": "NaN"}, "drift_minimum"),
        ({"volume_factor": "0.5"}, "volume_factor"),
        ({"expected": "{"}, "no list of"),
        ({"expected": ["twotcloud"]}, "no list of"),
        ({"expected": [{"vendor": "x"}]}, "is no slice"),
        ({"period": "October"}, "is not a month"),
        ({"report": "report.pdf"}, r"neither in \.md nor in \.html"),
    ],
)
def test_what_cannot_be_is_named(erp: Erp, arguments: dict[str, Any], said: str) -> None:
    stage(erp, bills([1]))
    with pytest.raises(AirflowFailException, match=said):
        run(**arguments)


# A person's word


def accept(context: dict[str, Any] = BY_HAND, **arguments: Any) -> dict[str, int]:
    operator = AcceptFindingOperator(task_id="accept", staging_conn_id="erp_staging", **arguments)
    return operator.execute(context)


def test_findings_are_accepted_by_who_started_the_run(erp: Erp) -> None:
    stage(erp, bills([1, 2, 3], **OFF))
    with pytest.raises(AirflowFailException):
        run()
    one, *others = [row[0] for row in found(erp, "finding_id")]
    assert accept(findings=one, reason="a cent") == {"accepted": 1}
    assert accept(findings=[one, others[0]], reason="a cent", who="B. Controller") == {"accepted": 1}
    assert accept(period="2026-10", rule="BR-CO-15", reason="all of them") == {"accepted": 1}
    assert {row[0] for row in rows(erp, "finding", "accepted_by")} == {"a.controller", "B. Controller"}
    assert run()["findings"] == {"error": 0, "warning": 0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "either findings, or a period and a rule"),
        ({"findings": ["f"], "period": "2026-10", "rule": "BR-CO-15"}, "either findings, or"),
        ({"period": "2026-10"}, "either findings, or"),
        ({"findings": "F-9"}, "no finding 'F-9'"),
        ({"period": "2026-10", "rule": "BR-CO-99"}, "2026-10 has no finding of the rule 'BR-CO-99'"),
        ({"findings": ""}, "is empty; name them by their ids"),
        ({"findings": []}, "is empty; name them by their ids"),
        ({"findings": "F-9", "reason": " "}, "say why"),
        ({"findings": "F-9", "context": {}}, "say who decides"),
    ],
)
def test_what_cannot_be_accepted_is_named(erp: Erp, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(AirflowFailException, match=said):
        accept(**{"reason": "so it is", **arguments})


def test_an_invoice_is_released_and_marked_by_a_person(erp: Erp) -> None:
    stage(erp, bills([1, 2]))
    mark = MarkPostedOperator(
        task_id="mark", staging_conn_id="erp_staging", reference="FI-1", invoices=[KEY], reason="booked by hand"
    )
    assert mark.execute(BY_HAND)["marked"] == 1
    assert ("FI-1 (a.controller: booked by hand)",) in rows(erp, "invoice", "posted_reference")
    two = {**KEY, "invoice_id": "INV-2"}
    release = ReleaseInvoicesOperator(
        task_id="release", staging_conn_id="erp_staging", invoices=[KEY, two], reason="wrong month"
    )
    assert release.execute(BY_HAND) == {"invoices": 2, "released": 1}
    assert rows(erp, "invoice", "posted_reference") == [(None,)] * 2
    columns = "rule, invoice_id, expected, accepted_by, accept_reason"
    told = ("released", "INV-1", "posted as FI-1 (a.controller: booked by hand)", "a.controller", "wrong month")
    assert rows(erp, "finding", columns, "resolved_at IS NOT NULL") == [told]
    assert run()["findings"] == {"error": 0, "warning": 0}


# The question


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each question instead of putting it to Airflow, whose own tests boot it."""
    seen: list[str] = []
    ask = approval.ApprovalOperator

    def execute(self: Any, context: Any) -> None:
        seen.extend((self.subject, self.body))

    monkeypatch.setattr(ask, "execute", execute)
    return seen


def answer(choice: str, **user: str) -> dict[str, Any]:
    from airflow.sdk import timezone

    by = user or None
    return {"chosen_options": [choice], "params_input": {}, "responded_at": timezone.utcnow(), "responded_by_user": by}


def question(close_id: str) -> ApproveCloseOperator:
    return ApproveCloseOperator(task_id="approve", staging_conn_id="erp_staging", close_id=close_id)


def test_a_person_is_asked_and_the_answer_is_kept(erp: Erp, asked: list[str]) -> None:
    stage(erp, bills([1]))
    result = run()
    operator = question(result["close_id"])
    operator.execute({})
    assert asked[0] == "May the invoices of 2026-10 be sent?"
    assert result["sha256"] in asked[1]
    told = operator.execute_complete({}, answer("Approve", id="7", name="A. Controller"))
    assert told["chosen_options"] == ["Approve"]
    assert rows(erp, "close", "status, approved_by") == [("approved", "A. Controller")]
    assert question(result["close_id"]).execute({})["chosen_options"] == ["Approve"]
    assert len(asked) == 2


def test_silence_never_approves_and_may_reject(erp: Erp, asked: list[str]) -> None:
    stage(erp, bills([1]))
    own = {"task_id": "approve", "staging_conn_id": "erp_staging", "close_id": run()["close_id"]}
    for defaults in ("Approve", ["Approve"]):
        with pytest.raises(ConfigurationError, match="would let a timeout approve"):
            ApproveCloseOperator(**own, defaults=defaults)
    with pytest.raises(AirflowFailException, match="approved by nobody"):
        question(own["close_id"]).execute_complete({}, answer("Approve"))
    assert rows(erp, "close", "status") == [("open",)]
    ApproveCloseOperator(**own, defaults="Reject").execute_complete({}, answer("Reject"))
    assert rows(erp, "close", "status, approved_by") == [("rejected", "nobody in time, by default")]


def test_a_rejection_is_kept_and_asked_again(erp: Erp, asked: list[str]) -> None:
    stage(erp, bills([1]))
    close_id = run()["close_id"]
    question(close_id).execute_complete({}, answer("Reject", id="7"))
    assert rows(erp, "close", "status, approved_by") == [("rejected", "7")]
    question(close_id).execute({})
    assert len(asked) == 2


@pytest.mark.parametrize("state", ["deferred", "awaiting_input", "running", "up_for_retry"])
def test_two_runs_do_not_ask_the_same_at_once(erp: Erp, asked: list[str], state: str) -> None:
    stage(erp, bills([1]))
    close_id = run()["close_id"]
    states = {"run-1": state}
    for _ in range(2):  # a try of its own asks again
        question(close_id).execute({"ti": Task("run-1", states)})
    assert len(asked) == 4
    with pytest.raises(AirflowSkipException, match="asked for in run 'run-1' already"):
        question(close_id).execute({"ti": Task("run-2", states)})
    for number, ended in enumerate(("failed", "skipped", "success"), 2):
        ti = Task(f"run-{number}", {f"run-{number - 1}": ended})
        question(close_id).execute({"ti": ti})
    assert len(asked) == 10


def test_a_month_that_was_sent_ends_skipped(erp: Erp, asked: list[str]) -> None:
    stage(erp, bills([1]))
    close_id = run()["close_id"]
    columns = "(upload_id, conn_id, scope, close_id, content_sha256, status)"
    erp.execute(f"INSERT INTO cloudbilling_upload {columns} VALUES ('u1', 's', 'O', '{close_id}', '0', 'accepted')")
    with pytest.raises(AirflowSkipException, match="upload u1"):
        question(close_id).execute({})
    assert asked == []


def test_what_sage_rejected_or_a_person_released_goes_again_with_its_close(erp: Erp, asked: list[str]) -> None:
    stage(erp, bills([1, 2]))
    close_id = run()["close_id"]
    question(close_id).execute_complete({}, answer("Approve", name="A. Controller"))
    columns = "(upload_id, conn_id, scope, close_id, content_sha256, status)"
    erp.execute(f"INSERT INTO cloudbilling_upload {columns} VALUES ('u1', 's', 'O', '{close_id}', '0', 'accepted')")
    key = "provider, account, kind, invoice_id"
    items = f"INSERT INTO cloudbilling_upload_item (upload_id, {key}, status)"
    erp.execute(f"{items} SELECT 'u1', {key}, 'accepted' FROM cloudbilling_invoice WHERE invoice_id = 'INV-1'")
    erp.execute(f"{items} SELECT 'u1', {key}, 'accepted' FROM cloudbilling_invoice WHERE invoice_id = 'INV-2'")
    with pytest.raises(AirflowSkipException, match="upload u1"):
        question(close_id).execute({})
    erp.execute("UPDATE cloudbilling_upload_item SET status = 'rejected' WHERE invoice_id = 'INV-2'")
    assert question(close_id).execute({})["chosen_options"] == ["Approve"]
    assert asked == []


def test_nobody_approves_what_changed_while_they_thought(erp: Erp, asked: list[str]) -> None:
    stage(erp, bills([1]))
    operator = question(run()["close_id"])
    operator.execute({})
    stage(erp, bill(1, ["1"]))
    with pytest.raises(AirflowFailException, match="INV-1 was changed"):
        operator.execute_complete({}, answer("Approve", name="A. Controller"))
    assert rows(erp, "close", "status") == [("open",)]
