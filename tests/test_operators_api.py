"""A vendor's API as DAG authors call it: exact values, files that are whole, and nothing that is created twice."""

from __future__ import annotations

import hashlib
import json
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.exceptions import AirflowFailException
from tiny import KEY, Answer, Server, Tiny, serving

from airflow_cloudbilling.errors import ArchiveError, MalformedReplyError, UnavailableError
from airflow_cloudbilling.found import Record
from airflow_cloudbilling.operators import api
from airflow_cloudbilling.parse.record_lists import Records
from airflow_cloudbilling.parse.records import read_value
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Conversation, Request
from airflow_cloudbilling.sources import SOURCES

PDF = b"%PDF-1.7 " + b"x" * 3_000_000
CUSTOMERS: dict[str, Any] = {"conn_id": "twotcloud_default", "resource": "customers"}
THINGS: dict[str, Any] = {"conn_id": "tiny_default", "resource": "things"}


class Shop(Tiny):
    """A vendor with records and files; one answer a call, read as a stream."""

    def list_records(self, resource: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        reply = yield Request("GET", resource, params)
        assert reply
        for value in Records(reply.body, ("data",), ("id",)):
            yield Record(value)

    def create_record(self, resource: str, data: Any, settings: Settings) -> Conversation:
        reply = yield Request("POST", resource, json=data)
        assert reply
        if reply.head(1) != b"{":
            raise MalformedReplyError("that is no record.", conn_id=settings.conn_id)
        yield Record(read_value(reply.body))

    def update_record(self, resource: str, record_id: str, data: Any, settings: Settings) -> Conversation:
        reply = yield Request("PUT", f"{resource}/{record_id}", json=data)
        assert reply
        yield Record(read_value(reply.body))

    def delete_record(self, resource: str, record_id: str, settings: Settings) -> Conversation:
        yield Request("DELETE", f"{resource}/{record_id}")
        yield Record(None)

    def file_request(self, resource: str, record_id: str, params: Mapping[str, str], settings: Settings) -> Request:
        return Request("GET", f"{resource}/file", {"id": record_id, **params})


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve a vendor whose answer the test gives as ``shop.script``, in the connection ``tiny_default``."""
    monkeypatch.setitem(SOURCES, Shop.conn_type, Shop())
    monkeypatch.setattr(Answer, "do_PUT", Answer.do_GET, raising=False)
    monkeypatch.setattr(Answer, "do_DELETE", Answer.do_GET, raising=False)
    with serving(lambda answer: answer.give(body=b"[]")) as server:
        fields = {"conn_type": "tiny", "host": server.url, "password": KEY, "extra": {"max_attempts": 1}}
        monkeypatch.setenv("AIRFLOW_CONN_TINY_DEFAULT", json.dumps(fields))
        yield server


def run(operator: type[api.ApiOperator], context: Any = None, **arguments: Any) -> Any:
    return operator(task_id="call", **arguments).execute(context or {})


def gives(body: bytes, status: int = 200, **headers: str) -> Callable[[Answer], None]:
    return lambda answer: answer.give(status, body, **headers)


# Lists


def test_a_small_list_is_the_result_with_exact_amounts_as_text(shop: Server) -> None:
    shop.script = gives(b'{"data": [{"id": 1, "amount": 12345678901234567.890, "parts": [0.1]}, {"id": 2}]}')
    result = run(api.ListRecordsOperator, **THINGS, query={"page": 3})
    assert result == [{"id": 1, "amount": "12345678901234567.890", "parts": ["0.1"]}, {"id": 2}]
    assert json.loads(json.dumps(result)) == result
    assert shop.seen[0].path == "/things?page=3"


def test_a_list_in_a_file_is_one_exact_record_a_line(shop: Server, tmp_path: Path) -> None:
    shop.script = gives(b'[{"id": 1, "amount": 12345678901234567.890}, {"id": 2, "name": "\\u00e9\\n"}]')
    destination = f"file://{tmp_path}/new/things.jsonl"
    result = run(api.ListRecordsOperator, **THINGS, destination=destination)
    written = (tmp_path / "new/things.jsonl").read_bytes()
    assert written.decode() == '{"id": 1, "amount": 12345678901234567.890}\n{"id": 2, "name": "é\\n"}\n'
    sha256 = hashlib.sha256(written).hexdigest()
    assert result == {"uri": destination, "records": 2, "bytes": len(written), "sha256": sha256}
    assert ObjectStoragePath(result["uri"]).read_bytes() == written


def test_a_long_list_asks_for_a_file_and_is_not_read_on(shop: Server) -> None:
    def long(answer: Answer) -> None:
        answer.send_response_only(200)
        answer.end_headers()
        answer.wfile.write(b"[0")
        for _ in range(300):
            answer.wfile.write(b',{"id": 12345}' * 1000)
        answer.wfile.write(b"]")
        answer.close_connection = True

    shop.script = long
    tracemalloc.start()
    with pytest.raises(
        AirflowFailException, match=r"'destination'.*longer than max_xcom_bytes \(1000\), after \d+ rec"
    ):
        run(api.ListRecordsOperator, **THINGS, max_xcom_bytes=1000)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_what_breaks_off_leaves_no_file_and_the_one_before(shop: Server, tmp_path: Path) -> None:
    shop.script = gives(b'[{"id": 1}, {"id"')
    kept = tmp_path / "things.jsonl"
    kept.write_text("before")
    with pytest.raises(Exception, match="JSON"):
        run(api.ListRecordsOperator, **THINGS, destination=str(kept))
    assert [path.name for path in tmp_path.iterdir()] == ["things.jsonl"]
    assert kept.read_text() == "before"


@pytest.mark.parametrize(
    ("destination", "words"), [("s3://key:secret@bucket/x", "holds a password"), ("/tmp/x/", "is a folder")]
)
def test_a_destination_that_is_none_is_told_before_the_vendor_is_asked(
    shop: Server, destination: str, words: str
) -> None:
    with pytest.raises(AirflowFailException, match=words):
        run(api.ListRecordsOperator, **THINGS, destination=destination)
    assert shop.seen == []


def test_a_place_that_cannot_be_written_is_named(shop: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match=r"cannot be written.*Look at the destination"):
        run(api.ListRecordsOperator, **THINGS, destination=f"{tmp_path}/file/things.jsonl")


# One record


def test_records_of_a_vendor_are_created_got_and_listed(vendor: Any) -> None:
    orders = CUSTOMERS | {"resource": "cloudstore:orders"}
    created = run(api.CreateRecordOperator, **orders, data={"Price": Decimal("12345678901234567.89"), "Name": "É"})
    assert created == {"OrderId": 1, "Price": "12345678901234567.89", "Name": "É"}
    assert run(api.GetRecordOperator, **orders, record_id="1") == created
    assert run(api.ListRecordsOperator, **orders) == [created]
    assert len(run(api.ListRecordsOperator, **CUSTOMERS)) > 2


def test_records_are_changed_and_deleted(shop: Server) -> None:
    shop.script = gives(b'{"id": 7, "price": 1.10}')
    assert run(api.UpdateRecordOperator, **THINGS, record_id=7, data={"price": "1.10"}) == {"id": 7, "price": "1.10"}
    assert run(api.DeleteRecordOperator, **THINGS, record_id=7) is None
    assert [(seen.command, seen.path) for seen in shop.seen] == [("PUT", "/things/7"), ("DELETE", "/things/7")]


@pytest.mark.parametrize("operator", [api.GetRecordOperator, api.DeleteRecordOperator])
@pytest.mark.parametrize("record_id", ["", "None"])
def test_an_id_that_rendered_empty_is_not_all_records(shop: Server, operator: Any, record_id: str) -> None:
    with pytest.raises(AirflowFailException, match=r"record_id.*is empty; name the record by its id"):
        run(operator, **THINGS, record_id=record_id)
    assert shop.seen == []


def test_what_a_vendor_lacks_is_told(vendor: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"2tCloud has no resource 'customers' to update; there is StageInv"):
        run(api.UpdateRecordOperator, **CUSTOMERS, record_id="1", data={})
    with pytest.raises(AirflowFailException, match="no resource 'orders'"):
        run(api.ListRecordsOperator, **CUSTOMERS | {"resource": "orders"})
    assert vendor.requests == []


def test_a_refusal_ends_the_task_for_good(vendor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = vendor.connections()["twotcloud_default"] | {"extra": {"customers_api_key": "wrong-key"}}
    monkeypatch.setenv("AIRFLOW_CONN_TWOTCLOUD_DEFAULT", json.dumps(fields))
    with pytest.raises(AirflowFailException, match="field customers_api_key") as refused:
        run(api.ListRecordsOperator, **CUSTOMERS)
    assert "wrong-key" not in str(refused.value)
    assert len(vendor.requests) == 1


# Nothing is created twice


class Store(dict[str, Any]):
    """Airflow 3.3's task state store, as far as it is used."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Try:
    """A task instance's tries."""

    max_tries = 3


@pytest.mark.parametrize(
    "script",
    [
        lambda answer: answer.connection.shutdown(socket.SHUT_RDWR),
        gives(b"oops", 502),
        gives(b"<html>Thank you</html>"),
    ],
)
def test_a_creation_in_doubt_ends_the_task_for_good_and_says_what_to_look_at(
    shop: Server, script: Callable[[Answer], None]
) -> None:
    shop.script = script
    with pytest.raises(AirflowFailException, match=r"Look whether .*'tiny_default' has this record among its 'things'"):
        run(api.CreateRecordOperator, **THINGS, data={"id": 1})
    assert len(shop.seen) == 1


def test_a_creation_is_not_repeated_after_a_worker_was_killed_until_a_person_clears_it(shop: Server) -> None:
    shop.script = gives(b'{"id": 1}')
    task: Any = {"task_state_store": Store(), "ti": Try()}
    run(api.CreateRecordOperator, task, **THINGS, data={"id": 1})
    with pytest.raises(AirflowFailException, match=r"an earlier try .* Look whether"):
        run(api.CreateRecordOperator, task, **THINGS, data={"id": 1})
    assert len(shop.seen) == 1
    task["ti"].max_tries = 5
    assert run(api.CreateRecordOperator, task, **THINGS, data={"id": 1}) == {"id": 1}


def test_what_was_surely_not_created_may_be_tried_again(shop: Server) -> None:
    task: Any = {"task_state_store": Store(), "ti": Try()}
    shop.script = gives(b"slowly", 429)
    with pytest.raises(UnavailableError):
        run(api.CreateRecordOperator, task, **THINGS, data={"id": 1})
    shop.script = gives(b'{"id": 1}')
    assert run(api.CreateRecordOperator, task, **THINGS, data={"id": 1}) == {"id": 1}


# Files


def test_a_file_is_kept_whole_with_what_is_known_of_it(shop: Server, tmp_path: Path) -> None:
    shop.script = gives(PDF, Content_Disposition='attachment; filename="Invoice 7.csv"', Content_Type="text/csv")
    result = run(api.DownloadFileOperator, **THINGS, record_id="7", destination=f"{tmp_path}", query={"v": 1})
    assert shop.seen[0].path == "/things/file?id=7&v=1"
    assert result == {
        "uri": f"file://{tmp_path}/7/Invoice 7.csv",
        "filename": "Invoice 7.csv",
        "size": len(PDF),
        "content_type": "application/pdf",
        "sha256": hashlib.sha256(PDF).hexdigest(),
    }
    assert (tmp_path / "7/Invoice 7.csv").read_bytes() == PDF
    assert [path.name for path in (tmp_path / "7").iterdir()] == ["Invoice 7.csv"]


def test_a_file_needs_a_place(shop: Server) -> None:
    with pytest.raises(AirflowFailException, match=r"destination.*is empty; name a folder"):
        run(api.DownloadFileOperator, **THINGS, record_id="7", destination="")


@pytest.mark.parametrize("record_id", ["../../etc", "..", "a/b", "a\0b", "/tmp/x"])
def test_a_name_or_an_id_that_leads_elsewhere_becomes_a_hash(shop: Server, tmp_path: Path, record_id: str) -> None:
    name = '"../' + "x" * 400 + '.pdf"'
    shop.script = gives(PDF, Content_Disposition=f"attachment; filename={name}")
    run(api.DownloadFileOperator, **THINGS, record_id=record_id, destination=f"{tmp_path}/deep/er")
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    folder = hashlib.sha256(record_id.encode()).hexdigest()
    assert file == tmp_path / "deep/er" / folder / (hashlib.sha256(name[1:-1].encode()).hexdigest() + ".pdf")


@pytest.mark.parametrize(("body", "words"), [(b"", "zero bytes"), (b"<!DOCTYPE html><p>Log in", "a web page")])
def test_what_is_no_file_is_not_kept(shop: Server, tmp_path: Path, body: bytes, words: str) -> None:
    shop.script = gives(body)
    with pytest.raises(MalformedReplyError, match=words):
        run(api.DownloadFileOperator, **THINGS, record_id="7", destination=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# As Airflow runs them

ENDING = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_cloudbilling.operators.api import CreateRecordOperator

class Dies(CreateRecordOperator):
    def call(self, hook, context):
        super().call(hook, context)
        raise RuntimeError("the worker is lost, and with it what the vendor answered")

with DAG("ending", schedule=None):
    {operator}(
        task_id="create", conn_id="tiny_default", resource="things", data={{}}, retries=2, retry_delay=timedelta(0),
        execution_timeout=timedelta(seconds=2),
    )
"""


@pytest.mark.parametrize(("operator", "seconds"), [("CreateRecordOperator", 6), ("Dies", 0)])
def test_in_a_dag_a_creation_without_an_end_is_not_tried_again(
    shop: Server, dags_folder: Path, operator: str, seconds: float
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    def slowly(answer: Answer) -> None:
        time.sleep(seconds)
        answer.give(body=b"{}")

    shop.script = slowly
    file = dags_folder / "ending.py"
    file.write_text(ENDING.format(operator=operator))
    (dag,) = DagBag(file).dags.values()
    assert dag.test().state == "failed"
    assert len(shop.seen) == 1


def test_in_a_dag_arguments_are_templates_and_results_go_on(
    vendor: Any, dags_folder: Path, run_dag: Any, tmp_path: Path
) -> None:
    file = dags_folder / "api.py"
    file.write_text(f"""
from airflow.sdk import DAG
from airflow_cloudbilling.operators.api import CreateRecordOperator, GetRecordOperator, ListRecordsOperator

with DAG("api", schedule=None, params={{"city": "Lyon", "day": "20261001"}}):
    to = {{"conn_id": "twotcloud_default", "resource": "customers"}}
    file = "{tmp_path}/{{{{ params.day }}}}.jsonl"
    created = CreateRecordOperator(task_id="create", **to, data={{"City": "{{{{ params.city }}}}"}})
    again = GetRecordOperator(task_id="get", **to, record_id="{{{{ ti.xcom_pull('create')['AccountId'] }}}}")
    listed = ListRecordsOperator(task_id="list", **to, query={{"day": "{{{{ params.day }}}}"}}, destination=file)
    created >> again >> listed
""")
    results = run_dag(file)
    assert results["get"] == results["create"]
    assert results["create"]["City"] == "Lyon"
    lines = (tmp_path / "20261001.jsonl").read_text().splitlines()
    assert results["list"]["records"] == len(lines)
    assert json.loads(lines[-1]) == results["create"]
    assert vendor.requests[-1].query == {"day": "20261001"}
