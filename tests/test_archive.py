"""The archive: bodies as received, once, whole or not at all; and a period staged again from it, asking nobody."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import signal
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
import staged
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.io import attach
from conversations import reply_to
from fsspec.implementations.memory import MemoryFileSystem
from staged import Erp, dump, rows, statuses
from test_staging_kill import ended_by, in_child
from tiny import Answer, Tiny, serving, tiny_settings

from airflow_cloudbilling.archive import Archive
from airflow_cloudbilling.errors import ArchiveError, ConfigurationError, MalformedReplyError, WaitError
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.replay import request_key
from airflow_cloudbilling.operators.restage import RestageInvoicesOperator
from airflow_cloudbilling.parse.json_cut import without_fields
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.source import Ask, Conversation, Reply, Request
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.loader import Load

pytestmark = pytest.mark.each_database

BODY = b'{"Invoices": []}' * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()
ASKED = Request("GET", "/v2/invoices")


def reply(body: bytes | IO[bytes] = BODY, size: int = len(BODY), sha256: str = SHA256) -> Reply:
    """Return a good answer."""
    if isinstance(body, bytes):
        return reply_to(ASKED, body)
    return Reply(ASKED, "https://vendor.test/", 200, {}, body, size, sha256)


def objects(folder: Path) -> dict[str, bytes]:
    """Return what the archive holds, but for the note that shows that it can be written."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name != "README.txt"}


@pytest.fixture(params=["folder", "file", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Name an empty archive, as a user would."""
    MemoryFileSystem.store.clear()
    if request.param == "memory":  # stands for S3 and its like: no folders, no rename
        attach(protocol="memory", fs=MemoryFileSystem())
        return "memory://bucket/raw"
    folder = tmp_path / "raw"
    return str(folder) if request.param == "folder" else folder.as_uri()


class TestArchive:
    def test_gives_back_the_bytes_as_received(self, location: str) -> None:
        archive = Archive(location)
        archive.check()
        answer = reply()
        uri = archive.put(answer)
        assert uri.endswith(f"/raw/{SHA256[:2]}/{SHA256}.gz")
        assert answer.body.read() == BODY, "and leaves the body at its beginning"
        with archive.open(SHA256) as kept:
            assert kept.read() == BODY

    def test_writes_a_body_once(self, tmp_path: Path) -> None:
        archive = Archive(str(tmp_path))
        path = tmp_path / SHA256[:2] / f"{SHA256}.gz"
        archive.put(reply())
        before = path.stat()
        archive.put(reply())
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)

    def test_writes_the_same_file_for_the_same_body(self, tmp_path: Path) -> None:
        for name in "ab":
            Archive(str(tmp_path / name)).put(reply())
        assert objects(tmp_path / "a") == objects(tmp_path / "b")
        (packed,) = objects(tmp_path / "a").values()
        assert packed[4:8] == b"\0\0\0\0", "no time of day"
        assert gzip.decompress(packed) == BODY

    def test_writes_a_torn_object_anew(self, location: str) -> None:
        archive = Archive(location)
        uri = archive.put(reply())
        fs = MemoryFileSystem() if location.startswith("memory") else archive._fs
        path = uri if location.startswith("memory") else uri.removeprefix("file://")
        fs.pipe_file(path, fs.cat_file(path)[:-9])
        archive.put(reply())
        with archive.open(SHA256) as kept:
            assert kept.read() == BODY

    def test_an_error_in_the_middle_leaves_nothing(self, location: str, tmp_path: Path) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell():
                    raise OSError("disk gone")
                return super().read(1000)

        archive = Archive(location)
        with pytest.raises(ArchiveError, match="disk gone"):
            archive.put(reply(Broken(BODY)))
        assert objects(tmp_path) == {}
        assert not [name for name in MemoryFileSystem.store if SHA256 in name]
        archive.put(reply())
        with archive.open(SHA256) as kept:
            assert kept.read() == BODY

    def test_a_kill_in_the_middle_leaves_nothing_that_counts(self, tmp_path: Path) -> None:
        class Deadly(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() >= self.end:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().read(500_000)

        body = os.urandom(3_000_000)
        answer = reply(body)
        name = f"{answer.sha256[:2]}/{answer.sha256}.gz"
        for end in range(0, len(body) + 1, 500_000):
            folder = tmp_path / str(end)

            def put(folder: Path = folder, end: int = end) -> None:
                deadly = Deadly(body)
                deadly.end = end
                Archive(str(folder)).put(replace(answer, body=deadly))

            assert ended_by(in_child(put)) == signal.SIGKILL
            assert name not in objects(folder)
            Archive(str(folder)).put(answer)
            with Archive(str(folder)).open(answer.sha256) as kept:
                assert kept.read() == body

    @pytest.mark.parametrize("harm", ["flipped", "cut", "foreign", "no gzip"])
    def test_names_an_object_that_is_damaged(self, tmp_path: Path, harm: str) -> None:
        archive = Archive(str(tmp_path))
        archive.put(reply())
        (path,) = tmp_path.rglob("*.gz")
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(
            {
                "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
                "cut": whole[:middle],
                "foreign": gzip.compress(b"another body"),
                "no gzip": b"PK\3\4",
            }[harm]
        )
        with archive.open(SHA256) as kept, pytest.raises(ArchiveError, match=f"{SHA256}.gz is damaged"):
            kept.read()

    def test_says_that_a_body_is_not_there(self, location: str) -> None:
        with pytest.raises(ArchiveError, match=f"has no body with the SHA-256 {SHA256}"):
            Archive(location).open(SHA256)

    @pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, f"{SHA256}\n"])
    def test_looks_up_digests_only(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ArchiveError, match="no SHA-256"):
            Archive(str(tmp_path)).open(name)

    @pytest.mark.parametrize(
        ("location", "words"), [("nowhere://bucket/raw", "nowhere"), ("s3://key:secret@bucket/raw", "connection")]
    )
    def test_an_address_that_cannot_be_opened_is_named(self, location: str, words: str) -> None:
        with pytest.raises(ConfigurationError, match=words) as caught:
            Archive(location)
        assert "secret@" not in str(caught.value)

    def test_memory_does_not_grow_with_the_body(self, tmp_path: Path) -> None:
        path = tmp_path / "body"
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for n in range(30):
                block = f"{n}".encode() * 500_000
                file.write(block)
                digest.update(block)
        archive = Archive(str(tmp_path / "raw"))
        tracemalloc.start()
        with path.open("rb") as body:
            archive.put(reply(body, path.stat().st_size, digest.hexdigest()))
        with archive.open(digest.hexdigest()) as kept:
            while kept.read(1_000_000):
                pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12_000_000 < path.stat().st_size


def in_this_thread(client: Client, conversation: Conversation, on_reply: Callable[[Reply], None]) -> list[Any]:
    with client:
        return list(client.stream(conversation, on_reply))


def on_a_loop(client: Client, conversation: Conversation, on_reply: Callable[[Reply], None]) -> list[Any]:
    async def all_of_it() -> list[Any]:
        async with client:
            return [item async for item in client.astream(conversation, on_reply)]

    return asyncio.run(all_of_it())


class TestDroppedFields:
    SENT = b'{"rows": [{"Token": "s3cret", "total": 1.10, "n": 1E+2, "a": {"vtoken": {"x": 1}, "b": [true, null]}}]}'

    def test_are_left_out_at_any_depth_and_the_rest_stays_as_written(self) -> None:
        kept = without_fields(self.SENT, ("token", "vtoken"))
        assert kept == b'{"rows": [{"total": 1.10, "n": 1E+2, "a": {"b": [true, null]}}]}'
        assert without_fields(kept, ("token", "vtoken")) is kept

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ('{"rows":[{"id":1,"TOKEN":"x"}],"rows":[]}', '{"rows": [{"id": 1}], "rows": []}'),
            ('{"a" :"say \\"token\\": é","token":[{"a":1}]}', '{"a": "say \\"token\\": é"}'),
            ('{"a":"half \\ud800","token":1}', '{"a": "half \\ud800"}'),
            ('[{"tok\\u0065n":1}, NaN]', "[{}, NaN]"),
            ('\ufeff{"token":1}', "{}"),
        ],
    )
    def test_are_left_out_of_what_is_written_in_any_way(self, sent: str, kept: str) -> None:
        assert without_fields(sent.encode(), ("token",)).decode().replace("\\u00e9", "é") == kept

    def test_of_what_is_nested_too_deeply_nothing_is_written(self) -> None:
        for deep in (b'{"token": 1, "a": %s1%s}' % (b"[" * 600, b"]" * 600), b'{"a":' * 99_999 + b"1" + b"}" * 99_999):
            with pytest.raises(ValueError, match="nested too deeply"):
                without_fields(deep, ("token",))

    def test_are_not_in_the_archive_and_the_body_is_found_by_its_hash_as_received(self, location: str) -> None:
        archive, answer = Archive(location), reply(self.SENT)
        archive.put(answer, ("token", "vtoken"))
        with archive.open(answer.sha256) as kept:
            assert kept.read() == without_fields(self.SENT, ("token", "vtoken"))
        assert answer.body.read() == self.SENT

    def test_a_body_that_cannot_be_cleaned_is_not_kept(self, tmp_path: Path) -> None:
        with pytest.raises(MalformedReplyError, match="token"):
            Archive(str(tmp_path)).put(reply(b"<html>s3cret"), ("token",))
        assert objects(tmp_path) == {}

    @pytest.mark.parametrize("drive", [in_this_thread, on_a_loop])
    def test_of_a_whole_conversation(self, tmp_path: Path, drive: Callable[..., list[Any]]) -> None:
        archive, seen = Archive(str(tmp_path)), []

        def keep(answer: Reply) -> None:
            seen.append(answer.request.path)
            archive.put(answer, ("token",))

        def page(answer: Answer) -> None:
            answer.give(body=b'{"token": "s3cret", "page": %d}' % answer.number)

        with serving(page) as server:
            settings = tiny_settings(server.url)
            conversation = Tiny().invoices(Ask("purchase", Period.parse("2026-10")), settings)
            found = drive(Client(Tiny(), settings), conversation, keep)
        assert seen == ["v2/one", "v2/two"]
        assert [item.message for item in found] == ['{"token": "s3cret", "page": 1}', '{"token": "s3cret", "page": 2}']
        bodies = [gzip.decompress(data) for name, data in objects(tmp_path).items() if name.endswith(".gz")]
        assert sorted(bodies) == [b'{"page": 1}', b'{"page": 2}']


def stage(period: str | None, operator: type[Any] = StageInvoicesOperator, **arguments: Any) -> dict[str, Any]:
    """Run the operator as a task would, and return the task's result."""
    arguments = {"conn_id": "twotcloud_default", "staging_conn_id": "erp_staging", **arguments}
    result: dict[str, Any] = operator(task_id="stage", period=period, **arguments).execute({})
    return result


def restage(period: str | None, archive: Path, **arguments: Any) -> dict[str, Any]:
    """Run the replay as a task would, and return the task's result."""
    return stage(period, RestageInvoicesOperator, archive=str(archive), **arguments)


def counts(result: dict[str, Any]) -> tuple[int, ...]:
    return tuple(result[name] for name in ("new", "changed", "unchanged", "removed"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return the folder of an archive."""
    return tmp_path / "raw"


class TestStaging:
    def test_each_invoice_leads_to_the_body_that_it_came_in(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:
        result = stage(vendor.months[-1], archive=str(raw))
        ((sha256,),) = rows(erp, "invoice", "DISTINCT source_sha256")
        assert list(objects(raw)) == [f"{sha256[:2]}/{sha256}.gz"]
        with Archive(str(raw)).open(sha256) as kept:
            assert len(json.load(kept)["Invoices"]) == result["invoices"]

    def test_only_good_answers_are_kept_and_no_key(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:
        vendor.inject("status", status=503, headers={"Retry-After": "0"}, times=1)
        stage(vendor.months[-1], archive=str(raw))
        (kept,) = objects(raw).values()
        key = vendor.connections()["twotcloud_default"]["password"]
        assert key.encode() not in gzip.decompress(kept)
        answers = [row[1:] for row in rows(erp, "request", "sequence, status, method, headers")]
        assert answers == [(503, None, None), (200, "GET", '{"content-type": "application/json; charset=utf-8"}')]

    def test_the_evidence_is_there_when_the_answer_cannot_be_read(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:
        vendor.serve("/v2/invoices", "<html>Sorry</html>", "text/html")
        with pytest.raises(MalformedReplyError):
            stage(vendor.months[-1], archive=str(raw))
        assert [gzip.decompress(data) for data in objects(raw).values()] == [b"<html>Sorry</html>"]

    def test_an_archive_that_cannot_be_written_is_told_before_the_vendor_is_asked(
        self, vendor: Sandbox, erp: Erp, tmp_path: Path
    ) -> None:
        (tmp_path / "raw").write_text("a file where a folder should be")
        with pytest.raises(ArchiveError, match="raw"):
            stage(vendor.months[-1], archive=str(tmp_path / "raw"))
        with pytest.raises(AirflowFailException, match="nowhere"):
            stage(vendor.months[-1], archive="nowhere://bucket")
        assert vendor.requests == []

    def test_without_raw_texts_the_archive_alone_has_them(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:
        stage(vendor.months[-1], archive=str(raw), keep_raw=False)
        assert rows(erp, "invoice", "COUNT(*), COUNT(raw)") == [(12, 0)]
        assert [row[1] for row in rows(erp, "invoice_line", "COUNT(*), COUNT(raw)")] == [0]
        before = dump(erp)
        assert counts(stage(vendor.months[-1])) == (0, 0, 12, 0), "what is verbatim counts as no change"
        assert dump(erp) == before

    @pytest.mark.thorough
    def test_a_huge_answer_is_kept_and_read_again(self, erp: Erp, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Sandbox(months=1, huge_invoice_mb=50) as vendor:
            for name, value in vendor.environment().items():
                monkeypatch.setenv(name, value)
            result = stage(vendor.months[-1], archive=str(raw), keep_raw=False)
        (packed,) = objects(raw).values()
        assert int.from_bytes(packed[-4:], "little") > 45_000_000 > 5 * len(packed)
        again = restage(vendor.months[-1], raw, keep_raw=False)
        assert (again["unchanged"], again["lines"], again["totals"]) == (13, result["lines"], result["totals"])


class TestRestaging:
    def test_gives_the_same_rows_and_writes_none(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:
        first = stage(vendor.months[-1], archive=str(raw))
        before, asked = dump(erp), len(vendor.requests)
        for _ in range(2):  # a replay can be replayed
            again = restage(vendor.months[-1], raw)
            assert counts(again) == (0, 0, first["invoices"], 0)
            assert (again["totals"], again["lines"]) == (first["totals"], first["lines"])
        assert dump(erp) == before
        assert len(vendor.requests) == asked
        loads = rows(erp, "load", "started_at, load_id, replay_of, fetch_started_at, received_count")
        assert [row[2] for row in loads] == [None, loads[0][1], loads[0][1]]
        assert {row[3:] for row in loads} == {loads[0][3:]}

    def test_into_an_empty_database_gives_what_the_vendor_gave(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:
        stage(vendor.months[-1], archive=str(raw))
        before = dump(erp, with_load=False)
        for table in staged.BUSINESS:
            erp.execute(f"DELETE FROM cloudbilling_{table}")
        assert counts(restage(vendor.months[-1], raw)) == (12, 0, 0, 0)
        assert dump(erp, with_load=False) == before

    def test_with_a_mended_mapping_changes_what_it_should_and_says_so(
        self, vendor: Sandbox, erp: Erp, raw: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        month = vendor.months[-1]
        stage(month, archive=str(raw), field_map={"gross_amount": "Totals.TotalExclVAT"})
        wrong = dict(rows(erp, "invoice", "invoice_id, gross_amount"))
        vendor.change("withdraw", invoice_id=next(iter(wrong)))  # at the vendor, which nobody asks
        asked = len(vendor.requests)
        capsys.readouterr()
        result = restage(month, raw, field_map={})
        right = dict(rows(erp, "invoice", "invoice_id, gross_amount"))
        changed = sorted(i for i in right if right[i] != wrong[i])
        assert counts(result) == (0, len(changed), len(right) - len(changed), 0)
        assert changed
        currencies = dict(rows(erp, "invoice", "invoice_id, currency"))
        said = capsys.readouterr().out
        for i in changed:
            assert f"Invoice {i} changed: gross {wrong[i]} {currencies[i]} → {right[i]} {currencies[i]}." in said
        assert said.count(" changed: gross ") == len(changed)
        assert len(vendor.requests) == asked

    def test_a_failed_load_can_be_read_again_with_a_mended_mapping(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:
        month = vendor.months[-1]
        with pytest.raises(AirflowFailException, match="could not be read"):
            stage(month, archive=str(raw), field_map={"gross_amount": "Header.InvoiceID"})
        ((load_id,),) = rows(erp, "load", "load_id")
        with pytest.raises(AirflowFailException, match=f"load_id='{load_id}'"):
            restage(month, raw)
        assert counts(restage(None, raw, load_id=load_id)) == (12, 0, 0, 0)
        assert counts(restage(month, raw)) == (0, 0, 12, 0), "now it is the last committed one"
        assert len(vendor.requests) == 1

    def test_an_older_load_is_superseded(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:
        month = vendor.months[-1]
        old = stage(month, archive=str(raw))["slices"][0]["load_id"]
        vendor.change("amount", invoice_id=next(iter(vendor.records("twotcloud", "purchase", month))).invoice_id)
        stage(month, archive=str(raw))
        before = dump(erp)
        (late,) = restage(None, raw, load_id=old)["slices"]
        assert (late["status"], late["unchanged"]) == ("superseded", 12)
        assert dump(erp) == before
        assert statuses(erp) == ["committed", "committed", "superseded"]

    def test_after_a_wait_only_the_answers_since_count(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:

        staging, run = staged.open_staging(erp), Run("dag", "task", "run", -1, 1)

        def answer(digit: str) -> Load:
            with staging.load(staged.OCTOBER, run) as load:
                load.exchanged("https://vendor.test/one", 200, digit * 64)
                load.answered("GET", "{}", request_key(ASKED))
                if digit == "1":
                    raise WaitError("ask later", retry_after=100)
                load.commit()
            return load

        with pytest.raises(WaitError):
            answer("1")
        load = answer("2")
        assert [answer.sha256 for answer in staging.ledger.answers(load.load_id)] == ["2" * 64]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"window_shift_days": 3}, "recorded no answer to GET http.*startDate"),
            ({"kind": "sales"}, "has no committed load"),
            ({"load_id": "none-such"}, "none-such"),
            ({"load_id": "the first", "kind": "sales"}, "is of twotcloud"),
            ({"load_id": "the first", "period": "2019-01"}, "2019-01"),
            ({"archive": " "}, "archive"),
        ],
    )
    def test_what_cannot_be_replayed_is_said(
        self, vendor: Sandbox, erp: Erp, raw: Path, arguments: dict[str, Any], words: str
    ) -> None:
        first = stage(vendor.months[-1], archive=str(raw))["slices"][0]["load_id"]
        before = dump(erp)
        if arguments.get("load_id") == "the first":
            arguments = {**arguments, "load_id": first}
        arguments = {"period": vendor.months[-1], "archive": str(raw), **arguments}
        with pytest.raises(AirflowFailException, match=words):
            stage(operator=RestageInvoicesOperator, **arguments)
        assert dump(erp) == before

    def test_a_damaged_body_is_named_before_any_of_it_is_read(self, vendor: Sandbox, erp: Erp, raw: Path) -> None:
        stage(vendor.months[-1], archive=str(raw))
        (name,) = objects(raw)
        (raw / name).write_bytes(gzip.compress(b'{"Invoices": []}'))
        before = dump(erp)
        with pytest.raises(ArchiveError, match=name):
            restage(vendor.months[-1], raw, allow_removals=True)
        assert dump(erp) == before
        assert statuses(erp) == ["committed", "failed"]

    def test_in_a_dag_the_load_may_come_from_another_task(
        self, vendor: Sandbox, erp: Erp, raw: Path, dags_folder: Path, run_dag: Callable[..., dict[str, Any]]
    ) -> None:
        file = dags_folder / "restage.py"
        file.write_text(
            f"""
from airflow.sdk import DAG
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.restage import RestageInvoicesOperator

shared = {{"conn_id": "twotcloud_default", "staging_conn_id": "erp_staging", "archive": "{{{{ params.raw }}}}"}}
with DAG("restage", schedule=None, default_args=shared, params={{"raw": {str(raw)!r}}}):
    staged = StageInvoicesOperator(task_id="staged", period="{vendor.months[-1]}")
    load_id = "{{{{ ti.xcom_pull('staged')['slices'][0]['load_id'] }}}}"
    staged >> RestageInvoicesOperator(task_id="restaged", load_id=load_id, period="{{{{ none }}}}")
"""
        )
        results = run_dag(file)
        assert (results["staged"]["new"], results["restaged"]["unchanged"]) == (12, 12)
