"""Imports that a vendor makes wait: within its limits, on whatever worker goes on, and no page asked for twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from importing import connect, expected_sums, staged_sums
from staged import Erp, rows, statuses

from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.sandbox.server import Sandbox

pytestmark = pytest.mark.each_database

PAGES = 60
LIMIT, WINDOW = 20, 1.0


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Play a CloudOnex of sixty pages that allows twenty requests in each window."""
    with Sandbox(months=1, invoices=2 * PAGES, cloudonex_style="meta", rate_limit=LIMIT, rate_window=WINDOW) as sandbox:
        connect(sandbox, monkeypatch, conn_id="cloudonex_default")
        yield sandbox


def operator(period: str, **arguments: Any) -> StageInvoicesOperator:
    """Return the task as a worker makes it."""
    known = {"conn_id": "cloudonex_default", "staging_conn_id": "erp_staging", "params": {"limit": "2"}}
    return StageInvoicesOperator(task_id="stage", period=period, **{**known, **arguments})


def context() -> dict[str, Any]:
    """Return the context of one try of a task instance."""
    ti = SimpleNamespace(dag_id="import", task_id="stage", run_id="october", map_index=-1, try_number=1)
    return {"ti": ti}


def run_on_many_workers(period: str, **arguments: Any) -> tuple[dict[str, Any], int]:
    """Run a task that is deferred again and again, each part by an operator of its own; return the number of parts."""
    parts = 1
    try:
        return operator(period, **arguments).execute(context()), parts
    except TaskDeferred as first:
        deferred = first
    while True:
        _, waits = deferred.trigger.serialize()
        time.sleep(max(0.0, (waits["moment"] - waits["moment"].now("UTC")).total_seconds()))
        parts += 1
        try:
            return getattr(operator(period, **arguments), deferred.method_name)(context()), parts
        except TaskDeferred as again:
            deferred = again


def pages_asked_for(sandbox: Sandbox) -> Counter[str]:
    return Counter(seen.query["page"] for seen in sandbox.requests if "page" in seen.query)


def check(sandbox: Sandbox, erp: Erp, result: dict[str, Any]) -> None:
    """Everything is staged, the vendor never had to say no, and no page was asked for twice."""
    month = sandbox.months[-1]
    assert staged_sums(erp, "cloudonex", "sales", month) == expected_sums(sandbox.truth("cloudonex", "sales", month))
    assert result["invoices"] == 2 * PAGES
    assert {seen.status for seen in sandbox.requests} == {200}
    assert pages_asked_for(sandbox) == Counter({str(page): 1 for page in range(1, PAGES + 1)})
    assert statuses(erp) == ["committed"]


@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
def test_a_task_that_sleeps_keeps_to_the_limit(strict: Sandbox, erp: Erp) -> None:
    check(strict, erp, operator(strict.months[-1], deferrable=False).execute(context()))


def test_a_task_that_gives_its_worker_back_goes_on_at_the_page_where_it_was(strict: Sandbox, erp: Erp) -> None:
    result, parts = run_on_many_workers(strict.months[-1], defer_after=0)
    check(strict, erp, result)
    assert parts == PAGES // LIMIT
    assert rows(erp, "spool") == []
    assert len(rows(erp, "request")) == PAGES


@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
@pytest.mark.parametrize("retry_after", [True, False])
def test_a_refusal_for_too_many_requests_is_waited_for_too(
    monkeypatch: pytest.MonkeyPatch, erp: Erp, retry_after: bool
) -> None:
    with Sandbox(months=1, rate_limit=4, rate_window=WINDOW, rate_retry_after=retry_after) as sandbox:
        connect(sandbox, monkeypatch, conn_id="cloudonex_default")
        month = sandbox.months[-1]
        key = sandbox.connections()["cloudonex_default"]["password"]
        spend_all(sandbox.url, key)
        result, _ = run_on_many_workers(month, defer_after=0)
        assert result["invoices"] == 12
        assert set(pages_asked_for(sandbox).values()) <= {1, 2}  # the refused one is asked for again


def test_a_task_of_several_contracts_goes_on_with_the_one_where_it_was(
    monkeypatch: pytest.MonkeyPatch, erp: Erp, tmp_path: Path
) -> None:
    with Sandbox(months=1) as sandbox:
        connect(sandbox, monkeypatch, conn_id="orange_cloudstore_default")
        refused = {"status": 429, "headers": {"Retry-After": "1"}, "times": 1}
        sandbox.inject("status", match="/file", after=9, **refused)  # six files are the first contract's
        archive = str(tmp_path / "raw")
        month, own = sandbox.months[-1], {"conn_id": "orange_cloudstore_default", "params": {}}
        result, parts = run_on_many_workers(month, defer_after=0, archive=archive, **own)
        assert (parts, result["invoices"], result["documents"]) == (2, 12, 12)
        truth = sandbox.truth("orange_cloudstore", "purchase", month)
        assert staged_sums(erp, "orange_cloudstore", "purchase", month) == expected_sums(truth)
        assert statuses(erp) == ["committed", "committed"]
        lists = [seen for seen in sandbox.requests if seen.path.endswith("/documents")]
        assert len(lists) == 2, "neither contract's list was asked for again"
        assert all(uri for (uri,) in rows(erp, "document", "uri"))


@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
def test_files_that_were_read_before_the_wait_are_not_sent_for_early_either(
    monkeypatch: pytest.MonkeyPatch, erp: Erp
) -> None:
    with Sandbox(months=1) as sandbox:
        connect(sandbox, monkeypatch, conn_id="orange_cloudstore_default", max_connections=1)
        sandbox.inject("status", match="/file", after=9, status=429, headers={"Retry-After": "1"}, times=1)
        own = {"conn_id": "orange_cloudstore_default", "params": {}}
        result, parts = run_on_many_workers(sandbox.months[-1], defer_after=0, **own)
        assert (parts, result["invoices"]) == (2, 12)
        asked = Counter(seen.path for seen in sandbox.requests if seen.path.endswith("/file"))
        assert [asked[path] for path in [*asked][:9]] == [1] * 9


def spend_all(url: str, key: str) -> None:
    """Use the window up, as another program with the same key would."""
    from urllib.request import Request, urlopen

    for _ in range(4):
        with urlopen(Request(f"{url}/api/v2/products", headers={"Authorization": f"Bearer {key}"})):
            pass
