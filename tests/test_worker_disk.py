"""A worker whose disk is full, wherever in a task that happens: words say what to do, and the retry ends right."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import small_disk
from airflow.sdk.exceptions import AirflowFailException
from importing import connect, expected_sums, stage, staged_sums
from staged import THOROUGH, Erp, dump, open_staging, rows, statuses
from uploading import Task, ledger, seen_once, upload
from uploading import stage as stage_sales

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.operators.export import ExportFocusOperator
from airflow_cloudbilling.sandbox.server import Sandbox

pytestmark = [
    pytest.mark.parametrize("disk", small_disk.FOLDERS, indirect=True),
    pytest.mark.parametrize("erp", ["sqlite"], indirect=True),
]
Tried = Callable[[Callable[[], object], Callable[[], object]], None]
STEP = 200_000 if THOROUGH else 800_000  # bytes that the disk has more, each time that the task is tried again
BILLS = 200  # in a month: an answer of more than a megabyte, which is more than stays in memory


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a disk of a few megabytes, on which temporary files lie."""
    folder = tmp_path / "disk"
    with small_disk.mounted(folder):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))  # where TMPDIR leads, which is read once
        yield folder


@pytest.fixture
def bills(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(months=1, invoices=BILLS) as vendor:
        connect(vendor, monkeypatch)
        yield vendor


@pytest.fixture
def tried(disk: Path, record_property: Callable[[str, object], None]) -> Tried:
    """Give a function that tries work again and again, with more room each time, until all goes well."""
    failed = 0

    def until_there_is_room(work: Callable[[], object], left_as_it_was: Callable[[], object]) -> None:
        nonlocal failed
        before, files = left_as_it_was(), there(disk)
        for number in count():
            small_disk.fill(disk, number * STEP)
            said = said_by(work)
            small_disk.free(disk)
            if not said:
                break
            failed += 1
            assert "No space left on device" in said
            assert "ree space" in said
            assert left_as_it_was() == before
            assert all(whole(file) for file in there(disk) - files)
        assert number > 0
        record_property("times that a disk was full", failed)

    return until_there_is_room


def said_by(work: Callable[[], object]) -> str:
    """Return in which words work fails, empty when it does not."""
    try:
        work()
    except (CloudBillingError, AirflowFailException) as error:
        return str(error)
    return ""


def there(disk: Path) -> set[Path]:
    return {path for path in disk.rglob("*") if path.is_file()}


def whole(file: Path) -> bool:
    """Whether a file is one of an archive, up to its end; nothing else may lie on the disk after a task has failed."""
    return file.name == "README.txt" or (file.suffix == ".gz" and bool(gzip.decompress(file.read_bytes())))


@pytest.mark.parametrize("archive", ["archive", pytest.param("", marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["json", pytest.param("xml", marks=pytest.mark.slow)])
def test_an_import_without_room(
    bills: Sandbox, erp: Erp, disk: Path, form: str, archive: str, monkeypatch: pytest.MonkeyPatch, tried: Tried
) -> None:
    """The vendor's answer, lines that wait for what is said of them later, the archive; the second time, what is held
    back because nothing of it has changed.
    """
    connect(bills, monkeypatch, response_format=form)
    open_staging(erp)
    month, arguments = bills.months[0], {"archive": str(disk / archive)} if archive else {}

    def work() -> dict[str, Any]:
        return stage(month, **arguments)

    tried(work, lambda: dump(erp))
    expected = expected_sums(bills.truth("twotcloud", "purchase", month))
    assert staged_sums(erp, "twotcloud", "purchase", month) == expected
    bills.change("amount", invoice_id=rows(erp, "invoice", "invoice_id")[0][0])
    tried(work, lambda: dump(erp))
    assert staged_sums(erp, "twotcloud", "purchase", month) != expected
    assert work()["unchanged"] == BILLS
    assert set(statuses(erp)) == {"committed", "failed"}


def test_an_upload_without_room(erp: Erp, vendor: Sandbox, sage: Any, tried: Tried) -> None:
    """The file to send is made before anything is written or sent."""
    stage_sales(erp, range(2_000))

    def work() -> None:
        assert upload(Task())["accepted"] == 2_000

    tried(work, lambda: (ledger(erp), len(sage.records)))
    assert seen_once(sage, 2_000)
    assert ledger(erp) == ["accepted"]


def test_an_export_without_room(erp: Erp, disk: Path, tried: Tried) -> None:
    stage_sales(erp, range(2_000))
    named = {"staging_conn_id": "erp_staging", "period": "2026-10", "kind": "sales", "destination": str(disk)}
    task = ExportFocusOperator(task_id="export", **named)
    tried(lambda: task.execute({}), lambda: None)
    assert {file.suffix for file in there(disk)} == {".csv"}
