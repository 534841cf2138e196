"""From a figure back to load, run, request and body, by the function and by the documentation's query."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from importing import stage
from staged import OCTOBER, Erp, document, invoice, load, open_staging, rows

from airflow_cloudbilling.archive import Archive
from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.staging.explain import explain, in_words
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting
from airflow_cloudbilling.staging.retention import Retention

pytestmark = pytest.mark.each_database

STAGING = (Path(__file__).parents[1] / "docs" / "staging.md").read_text()


def key_of(erp: Erp, **changed: str) -> dict[str, str]:
    found = rows(erp, "invoice", "provider, account, kind, invoice_id")[0]
    return {**dict(zip(("provider", "account", "kind", "invoice_id"), found, strict=True)), **changed}


def test_a_figure_leads_to_its_archived_body(vendor: Any, erp: Erp, tmp_path: Path) -> None:
    folder, month = str(tmp_path / "raw"), vendor.months[-1]
    loaded = stage(month, archive=folder)["slices"][0]
    key = key_of(erp)
    found = explain(open_staging(erp), key, 1, Archive(folder))
    assert json.loads(json.dumps(found)) == found  # plain data, and money is text
    assert {name: found["invoice"][name] for name in key} == key
    assert found["line"]["line_number"] == 1
    assert (found["load"]["load_id"], found["load"]["status"]) == (loaded["load_id"], "committed")
    (request,) = found["requests"]
    assert "/v2/invoices?startDate=" in request["url"]
    assert request["sha256"] == found["body"]["sha256"] == found["invoice"]["source_sha256"]
    assert Path(found["body"]["uri"].removeprefix("file://")).exists()
    assert key["invoice_id"].encode() in Archive(folder).open(found["body"]["sha256"]).read()
    assert found["slices"] == [loaded["period"]]
    words = in_words(found)
    for said in (key["invoice_id"], found["invoice"]["gross_amount"], loaded["load_id"], request["url"], "SHA-256"):
        assert said in words


def test_no_address_is_told_where_nothing_lies(vendor: Any, erp: Erp, tmp_path: Path) -> None:
    month = vendor.months[0]
    stage(month, archive=str(tmp_path / "raw"))
    key, staging = key_of(erp), open_staging(erp)

    def body(folder: str) -> tuple[Any, str]:
        found = explain(staging, key, archive=Archive(str(tmp_path / folder)))
        return found["body"]["kept"], in_words(found)

    assert body("raw")[0] == "yes"
    kept, words = body("elsewhere")
    assert (kept, "not in this archive" in words) == ("no", True)
    Retention(staging, date(2100, 1, 1), include_open=True).run(Archive(str(tmp_path / "raw")))
    kept, words = body("raw")
    assert (kept, "erased from the archive by retention" in words) == ("erased", True)


def test_what_an_archive_keeps_without_secrets_is_found(cloudbilling_sandbox: Any, erp: Erp, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    for name, value in cloudbilling_sandbox.environment().items():
        monkeypatch.setenv(name, value)
    stage(cloudbilling_sandbox.months[0], conn_id="cloudonex_default", kind="sales", archive=str(tmp_path))
    body = explain(open_staging(erp), key_of(erp), archive=Archive(str(tmp_path)))["body"]
    assert body["sha256"] not in body["uri"]  # it lies under the hash of what is kept
    assert Path(body["uri"].removeprefix("file://")).exists()


def test_the_task_run_is_named_and_all_that_hangs_on_the_invoice(erp: Erp) -> None:
    staging = open_staging(erp)
    items = [document("doc-1", "INV-1"), *invoice(1)]
    load(staging, items, run=Run("import", "stage", "scheduled__2026-11", -1, 2))
    key = InvoiceKey("twotcloud", "10001", "purchase", "INV-1")
    Posting(staging).mark([key], "FI-4711")
    load(staging, [document("doc-1", "INV-1"), *invoice(1, "11")])
    found = explain(staging, key)
    assert found["line"] is None
    names = ("dag_id", "task_id", "run_id", "try_number")
    assert [found["load"][name] for name in names] == ["import", "stage", "scheduled__2026-11", 2]
    assert [one["document_id"] for one in found["documents"]] == ["doc-1"]
    assert [one["rule"] for one in found["findings"]] == ["changed-after-posting"]
    words = in_words(found)
    task = "task import.stage, run scheduled__2026-11, try 2"
    for said in (task, "doc-1.pdf", "as FI-4711", "changed-after-posting"):
        assert said in words


def test_the_readmes_query_says_the_same(vendor: Any, erp: Erp, tmp_path: Path) -> None:
    stage(vendor.months[-1])
    key = key_of(erp)
    (query,) = re.findall(r"```sql\n(SELECT.*?)```", STAGING, re.DOTALL)
    ((*figures, url, sha256),) = erp.query(query.rstrip().rstrip(";"), **key)
    found = explain(open_staging(erp), key)
    load_ = found["load"]
    assert figures == [
        *(found["invoice"][name] for name in ("invoice_number", "gross_amount", "currency")),
        *(load_[name] for name in ("load_id", "dag_id", "task_id", "run_id")),
    ]
    assert (url, sha256) == (found["requests"][0]["url"], found["body"]["sha256"])


def test_what_is_not_staged_is_named(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, invoice(1))
    key = ("twotcloud", "10001", "purchase", "INV-1")
    with pytest.raises(ConfigurationError, match=r"'NO'\) is not staged"):
        explain(staging, (*key[:3], "NO"))
    with pytest.raises(ConfigurationError, match="line 9 of"):
        explain(staging, key, 9)
    words = in_words(explain(staging, key, 2))
    assert "Line 2: line 2: 10 EUR" in words
    assert OCTOBER.period.key == "2026-10"
    assert "SHA-256 not known" in words
