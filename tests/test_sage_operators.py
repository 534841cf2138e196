"""Sage's operators as DAG authors call them: on-boarding with its steps for people, keys, tracking, downloads."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperator, ObjectStoragePath
from airflow.sdk.exceptions import AirflowFailException
from sages import CONN_ID, connect, upload
from tiny import FileStore

from airflow_cloudbilling.errors import ConfigurationError, MalformedReplyError, UnavailableError
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.operators import sage as operators
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer
from airflow_cloudbilling.sensors.invoices import InvoicesReadySensor
from airflow_cloudbilling.sources.sage_answers import moment

DETAILS = {"name": "Example", "notificationUrl": "https://erp.example.test/sage"}
DEVELOPERS = "/sage/api/developers"


def run(operator: type[BaseOperator], **arguments: Any) -> Any:
    return operator(task_id="call", **arguments).execute({})


# On-boarding


def test_registering_says_what_people_have_to_do(
    vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connect(vendor, monkeypatch, login="", password="", secret="", application_id="")
    result = run(operators.SageRegisterDeveloperOperator, data=DETAILS)
    assert sage.developers == [DETAILS]
    assert result["registrationUrl"] == "https://portal.example.test/captcha/1" == result["answer"]["registrationUrl"]
    steps = "\n".join(result["next_steps"])
    for words in ("captcha/1 in a web browser", "e-mail", "login", "passcode", "notificationUrl", "password", CONN_ID):
        assert words in steps
    assert json.loads(json.dumps(result)) == result
    assert result["next_steps"][0] in capsys.readouterr().out


def test_what_sage_tells_of_secrets_is_not_returned(vendor: Sandbox, sage: Sage) -> None:
    told = {"registrationUrl": "https://x.test/1", "secret": "of-sage", "apiKey": "a-key", "note": sage.secret}
    told |= {"clientSecret": "of-sage", "access-token": "a-token", "applications": [{"id": 7, "Initial_Password": "p"}]}
    vendor.serve(DEVELOPERS, json.dumps(told))
    result = run(operators.SageRegisterDeveloperOperator, data=DETAILS)
    assert result["answer"] == {"registrationUrl": "https://x.test/1", "note": "***", "applications": [{"id": 7}]}


@pytest.mark.parametrize("developer_id", [None, "", "dev-1"])
def test_a_further_application_is_the_connections_developers_or_anothers(developer_id: str | None, sage: Sage) -> None:
    result = run(operators.SageRegisterApplicationOperator, data=DETAILS, developer_id=developer_id)
    assert sage.applications == [DETAILS]
    assert result["registrationUrl"].endswith("/app/1")


def test_on_boarding_goes_without_a_key(vendor: Sandbox, sage: Sage) -> None:
    run(operators.SageRegisterDeveloperOperator, data=DETAILS)
    run(operators.SageCreatePasscodeOperator)
    assert all("apikey" not in seen.headers for seen in vendor.requests)


@pytest.mark.parametrize(
    ("operator", "field"),
    [
        (operators.SageRegisterApplicationOperator, "login"),
        (operators.SageCreatePasscodeOperator, "login"),
        (operators.SageCreatePasscodeOperator, "application_id"),
        (operators.SageCreatePasscodeOperator, "secret"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_asked(
    operator: type[BaseOperator], field: str, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(vendor, monkeypatch, **{field: ""})
    more = {"data": DETAILS} if operator is operators.SageRegisterApplicationOperator else {}
    with pytest.raises(AirflowFailException, match=f"'{CONN_ID}', field '{field}': is empty; enter"):
        run(operator, **more)
    assert vendor.requests == []


@pytest.mark.parametrize("fault", ["reset", "cut", "status", "html"])
def test_a_registration_in_doubt_is_never_sent_again(fault: str, vendor: Sandbox, sage: Sage) -> None:
    vendor.inject(fault, match=DEVELOPERS)
    with pytest.raises(AirflowFailException, match="Look whether the vendor"):
        run(operators.SageRegisterDeveloperOperator, data=DETAILS)
    assert len(sage.developers) == 1


def test_a_passcode_is_returned_only_to_who_asks_and_never_logged(
    sage: Sage, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(operators.SageCreatePasscodeOperator)
    assert set(result) == {"expires"}
    assert datetime.fromisoformat(result["expires"]) > datetime.now(tz=timezone.utc)
    shown = run(operators.SageCreatePasscodeOperator, return_passcode=True)
    assert shown["passcode"] == sage.passcodes[1]
    printed = capsys.readouterr().out
    assert "Enable External Integration" in printed
    assert not any(passcode in printed for passcode in sage.passcodes)


def test_airflow_masks_the_passcode(sage: Sage) -> None:
    from airflow.sdk.log import redact

    found = SageConnectedCloudHook().create_passcode()
    assert redact(f"it is {found.passcode}") == "it is ***"
    assert found.passcode not in repr(found)


def test_a_passcodes_end_may_be_written_in_many_ways() -> None:
    exact = datetime(2026, 11, 21, 18, tzinfo=timezone.utc)
    for written in (
        "2026-11-21T18:00:00Z",
        "2026-11-21T19:00:00+01:00",
        "2026-11-21 18:00:00",
        1795284000,
        1795284000000,
    ):
        assert moment(written) == exact, written
    for span in (900, "900", "PT15M"):
        left = moment(span) - datetime.now(tz=timezone.utc)
        assert timedelta(minutes=14) < left <= timedelta(minutes=15), span
    assert [moment(odd) for odd in (None, "", "soon", "9" * 30, {}, True)] == [None] * 6


def test_an_end_that_cannot_be_read_is_returned_as_sage_wrote_it(vendor: Sandbox, sage: Sage) -> None:
    path = f"{DEVELOPERS}/{sage.developer_id}/applications/{sage.application_id}/passcodes"
    vendor.serve(path, json.dumps({"passcode": "K7Q9-42", "expires": "end of business"}))
    assert run(operators.SageCreatePasscodeOperator) == {"expires": "end of business"}


# Keys, tracking


def test_a_scheduled_rotation_keeps_the_new_key(sage: Sage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    monkeypatch.setenv("TINY_STORE", str(tmp_path))
    result = run(operators.SageRotateApiKeyOperator)
    assert datetime.fromisoformat(result["rotated_at"]) <= datetime.now(tz=timezone.utc)
    assert FileStore(tmp_path).read(CONN_ID) == sage.key
    sage.secret = "another-one"
    with pytest.raises(AirflowFailException, match="HTTP 401"):
        run(operators.SageRotateApiKeyOperator)


def test_an_upload_is_asked_for_once_and_its_signature_stays_here(sage: Sage) -> None:
    sage.statuses = ["accepted"]
    tracking_id = upload(SageConnectedCloudHook())
    assert run(operators.SageTrackUploadOperator, tracking_id=tracking_id) == {
        "status": "accepted",
        "progress": "100",
        "downloadResultUrl": f"{sage.files_url}/results/{tracking_id}",
    }
    with pytest.raises(AirflowFailException, match="HTTP 404"):
        run(operators.SageTrackUploadOperator, tracking_id="../apikey")


# Downloads


def test_a_scope_is_kept_whole(sage: Sage, tmp_path: Path) -> None:
    destination = f"file://{tmp_path}/new/products.json"
    result = run(operators.SageDownloadScopeOperator, scope="Products", destination=destination)
    kept = (tmp_path / "new/products.json").read_bytes()
    assert kept == sage.shelf.scopes["Products"] == ObjectStoragePath(result["uri"]).read_bytes()
    assert result == {
        "scope": "Products",
        "uri": destination,
        "size": len(kept),
        "sha256": hashlib.sha256(kept).hexdigest(),
        "records": len(json.loads(kept)),
    }


def test_a_scope_goes_into_a_folder_under_its_name_or_a_hash(sage: Sage, tmp_path: Path) -> None:
    sage.shelf.scopes["../odd"] = b"{}"
    for scope, name in (("Products", "Products.json"), ("../odd", "[0-9a-f]{64}.json")):
        for destination in (str(tmp_path), f"{tmp_path}/new/"):
            result = run(operators.SageDownloadScopeOperator, scope=scope, destination=destination)
            assert re.fullmatch(f"file://{tmp_path}(/new)?/{name}", result["uri"]), result
    assert result["records"] is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("", "empty|expected"),
        ("<html>", "expected a JSON object or list"),
        ('[{"id": 1}, {"id"', "JSON"),
        (Answer.text(404, "gone"), "HTTP 404"),
    ],
)
def test_a_failed_download_leaves_what_was_there(
    answer: str | Answer, words: str, vendor: Sandbox, tmp_path: Path
) -> None:
    vendor.serve("/sage/api/files/Products", answer)
    kept = tmp_path / "products.json"
    kept.write_text("before")
    with pytest.raises((MalformedReplyError, AirflowFailException), match=words):
        run(operators.SageDownloadScopeOperator, scope="Products", destination=str(kept))
    assert [path.name for path in tmp_path.iterdir()] == ["products.json"]
    assert kept.read_text() == "before"


def test_a_download_that_breaks_off_leaves_nothing(
    vendor: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(vendor, monkeypatch, max_attempts=2)
    vendor.inject("cut", match="Products", times=None, at=50)
    with pytest.raises(UnavailableError, match="given up after 2 attempts"):
        run(operators.SageDownloadScopeOperator, scope="Products", destination=f"{tmp_path}/p.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (operators.SageTrackUploadOperator, {"tracking_id": ""}),
        (operators.SageDownloadScopeOperator, {"scope": " ", "staging_conn_id": "erp_staging"}),
    ],
)
def test_what_rendered_empty_is_named_before_anything_is_asked(
    vendor: Sandbox, sage: Sage, staging: Path, operator: Any, arguments: dict[str, str]
) -> None:
    with pytest.raises(AirflowFailException, match=rf"{next(iter(arguments))}.*is empty"):
        run(operator, conn_id=CONN_ID, **arguments)
    assert vendor.requests == []


# What Sage is not


def test_there_are_no_invoices_to_import_from_sage(vendor: Sandbox, staging: Path) -> None:
    for kind in (None, "sales"):
        stage = StageInvoicesOperator(
            task_id="stage", conn_id=CONN_ID, staging_conn_id="erp_staging", period="2026-10", kind=kind
        )
        with pytest.raises(AirflowFailException, match=f"'{CONN_ID}'.*where staged invoices go.*SageUploadOperator"):
            stage.execute({})
    ready = InvoicesReadySensor(task_id="ready", conn_id=CONN_ID, period="2026-10")
    with pytest.raises(AirflowFailException, match="where staged invoices go"):
        ready.poke({})
    with pytest.raises(ConfigurationError, match=f"'{CONN_ID}'.*no resource 'orders' to list; there is Sage"):
        list(SageConnectedCloudHook().list_records("orders"))
    assert vendor.requests == []
