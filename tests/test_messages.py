"""What a person reads who has made a mistake: the message alone says where, what was expected and what to do."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.operators.api import ListRecordsOperator, UpdateRecordOperator
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.reconcile import ReconcileInvoicesOperator
from airflow_cloudbilling.sandbox.server import Sandbox

OCTOBER = "2026-10"


@pytest.fixture
def vendors(staging: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Serve every vendor, with their connections in the environment."""
    with Sandbox(last_month=date(2026, 10, 1), months=1) as sandbox:
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        yield sandbox


@pytest.fixture
def told(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that changes a connection, imports with it, and returns what a person reads."""

    def message(conn_id: str, *, drop: str = "", extra: Any = None, **fields: Any) -> str:
        connection = vendors.connections()[conn_id]
        if not isinstance(extra, str):
            extra = {k: v for k, v in {**connection["extra"], **(extra or {})}.items() if k != drop}
        given = json.dumps({**connection, "extra": extra, **fields})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", given)
        return failure(StageInvoicesOperator, conn_id=conn_id, staging_conn_id="erp_staging", period=OCTOBER)

    return message


def failure(operator: Any, **arguments: Any) -> str:
    """Return the words with which a task fails."""
    with pytest.raises((AirflowFailException, CloudBillingError, AirflowNotFoundException)) as failed:
        operator(task_id="task", **arguments).execute({})
    return str(failed.value)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


STORE, ORANGE, ONEX, SAGE = (
    "store365_default",
    "orange_cloudstore_default",
    "cloudonex_default",
    "sage_connected_cloud_default",
)
ONCE = {"max_attempts": 1}


# Connections


@pytest.mark.parametrize(
    ("conn_id", "changed", "words"),
    [
        (STORE, {"drop": "client_id", "extra": {"clientid": "x"}}, ("'client_id': is empty", "'clientid' in extra")),
        (ORANGE, {"drop": "api_key", "extra": {"apikey": "x"}}, ("'api_key': is empty", "'apikey' in extra")),
        (STORE, {"extra": {"field_map": "gross"}}, ("'field_map': 'gross' is not a JSON object",)),
        (STORE, {"extra": "[1]"}, ("'extra': is not a JSON object",)),
        (STORE, {"host": "https://store.invalid:abc"}, ("'host': its port is not a number", "https://host:port/path")),
        (STORE, {"host": "https://"}, ("'host': has no host name; write it as https://host/path",)),
        (ORANGE, {"extra": {"base_path": "/cloud/b2b/v9"}}, ("HTTP 404: compare base_path and host",)),
        (ONEX, {"password": "Schlüssel"}, ("'password': holds a character that is not ASCII", "Authorization")),
        (ORANGE, {"extra": {"api_key": "Schlüssel"}}, ("'api_key': holds a character that is not ASCII", "X-API-Key")),
    ],
)
def test_a_field_is_named_with_what_was_expected(
    told: Callable[..., str], conn_id: str, changed: dict[str, Any], words: tuple[str, ...]
) -> None:
    message = told(conn_id, **changed)
    for part in (f"Connection '{conn_id}'", *words):
        assert part in message
    assert "Schl" not in message


def test_a_server_that_is_not_reached_says_what_to_compare(told: Callable[..., str], vendors: Sandbox) -> None:
    nowhere = told(ONEX, host=f"http://127.0.0.1:{closed_port()}", extra=ONCE)
    assert "compare host, and see that this machine can reach it" in nowhere
    of_tokens = told(STORE, extra={"auth_url": f"http://127.0.0.1:{closed_port()}/auth", **ONCE})
    assert "compare the address in extra" in of_tokens
    no_tls = told(ONEX, host=vendors.url.replace("http:", "https:"), extra=ONCE)
    assert "what answers there speaks no https: compare scheme and port" in no_tls


def test_a_proxy_that_is_not_reached_is_named_without_its_password(
    told: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = f"127.0.0.1:{closed_port()}"
    own = told(ONEX, extra={"proxy": f"http://me:geheim@{closed}", **ONCE})
    assert f"through the proxy http://{closed}: compare proxy in extra" in own
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:geheim@{closed}")
    environment = told(ONEX, host="https://cloudonex.invalid", extra=ONCE)
    assert f"through the proxy http://{closed}" in environment
    assert "geheim" not in own + environment


def test_a_connection_that_is_not_there_says_where_to_look(vendors: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", '{"conn_type": "store365", ')
    for conn_id in ("nowhere", "broken"):
        message = failure(StageInvoicesOperator, conn_id=conn_id, staging_conn_id="erp_staging", period=OCTOBER)
        assert f"`{conn_id}` isn't defined" in message
        assert f"AIRFLOW_CONN_{conn_id.upper()} with broken JSON" in message
    message = failure(StageInvoicesOperator, conn_id=STORE, staging_conn_id=None, period=OCTOBER)
    assert message == "Argument 'staging_conn_id': is empty; name an Airflow connection."


def test_a_staging_connection_whose_extra_is_no_json_is_refused(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"conn_type": "postgres", "host": "127.0.0.1", "schema": "erp", "extra": '{"sslmode": "verify-full"'}
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(fields))  # Airflow makes nothing of it: no TLS
    message = failure(StageInvoicesOperator, conn_id=STORE, staging_conn_id="erp_staging", period=OCTOBER)
    assert "Connection 'erp_staging', field 'extra': is not valid JSON" in message


def test_the_test_button_of_sage_tells_a_new_user_what_to_compare(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook

    fields = {**vendors.connections()[SAGE], "password": "mistyped"}
    monkeypatch.setenv(f"AIRFLOW_CONN_{SAGE.upper()}", json.dumps(fields))
    good, message = SageConnectedCloudHook(SAGE).test_connection()
    assert not good
    assert "If no task has ever run with it, compare password, key_header and key_prefix" in message


# Arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "purchases"}, "Argument 'kind': 'purchases' is none of purchase, sales"),
        ({"conn_id": ""}, "Argument 'conn_id': is empty; name a vendor's connection"),
        ({"timezone": "Europe/Amsterdm"}, "Argument 'timezone': 'Europe/Amsterdm' is not a time zone"),
        ({"period": "2026-13"}, "period '2026-13' is not a month (2026-10)"),
    ],
)
def test_an_argument_is_named(vendors: Sandbox, arguments: dict[str, Any], words: str) -> None:
    given = {"conn_id": STORE, "staging_conn_id": "erp_staging", "period": OCTOBER, **arguments}
    assert words in failure(StageInvoicesOperator, **given)


@pytest.mark.parametrize("providers", [["twotcluod"], "2tCloud", "store365,sage_connected_cloud"])
def test_a_vendor_that_is_none_is_no_finding(vendors: Sandbox, providers: Any) -> None:
    message = failure(ReconcileInvoicesOperator, staging_conn_id="erp_staging", period=OCTOBER, providers=providers)
    assert "Argument 'providers'" in message
    assert "is none of twotcloud, orange_cloudstore, store365, cloudonex" in message


def test_a_resource_that_is_not_there_is_answered_with_the_nearest_or_the_operators(vendors: Sandbox) -> None:
    misspelt = failure(ListRecordsOperator, conn_id=ONEX, resource="costumers")
    assert misspelt.endswith("to list; did you mean 'customers'?")
    of_sage = failure(ListRecordsOperator, conn_id=SAGE, resource="Items")
    assert "SageDownloadScopeOperator" in of_sage
    unknown = failure(UpdateRecordOperator, conn_id="twotcloud_default", resource="customers", record_id="1", data={})
    assert "StageInvoicesOperator" in unknown
    no_contract = failure(ListRecordsOperator, conn_id=ORANGE, resource="documents")
    assert "contract_id in the task's query" in no_contract


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        ("s4://bucket/raw", "Unsupported filesystem"),
        ("abfs://bucket/raw", "It needs apache-airflow-providers-microsoft-azure."),
    ],
)
def test_an_archive_that_cannot_be_opened_says_what_is_missing(vendors: Sandbox, archive: str, words: str) -> None:
    given = {"conn_id": STORE, "staging_conn_id": "erp_staging", "period": OCTOBER, "archive": archive}
    message = failure(StageInvoicesOperator, **given)
    assert f"Argument 'archive': '{archive}' cannot be opened as object storage" in message
    assert words in message


# The command line, where no log is seen


def command(*words: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, and what it wrote to both streams."""
    from airflow.cli import cli_parser

    args = cli_parser.get_parser().parse_args(["cloudbilling", *words])
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            args.func(args)
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("verb", ["stage", "preview"])
def test_a_command_shows_what_a_task_s_log_would_warn_of(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    fields = vendors.connections()[ORANGE]
    fields["extra"] = {**fields["extra"], "time_out": 5, "key_expires": "2026-01-01"}
    monkeypatch.setenv(f"AIRFLOW_CONN_{ORANGE.upper()}", json.dumps(fields))
    code, out, err = command(verb, "--conn-id", ORANGE, "--period", OCTOBER, "--json")
    assert code == 0, err
    assert json.loads(out)
    assert "unknown key 'time_out' in extra is ignored; did you mean 'timeout'?" in err
    assert "the X-API-Key" in err


def test_a_month_of_another_year_is_told(vendors: Sandbox) -> None:
    code, out, err = command("stage", "--conn-id", STORE, "--period", "2062-10", "--json")
    assert (code, json.loads(out)[0]["invoices"]) == (0, 0)
    assert "2062-10 lies in the future: nobody has billed it yet. Was another year meant?" in err


def test_a_mistake_in_a_command_is_one_sentence(vendors: Sandbox) -> None:
    for words, said in (
        (("stage", "--conn-id", STORE, "--period", OCTOBER, "--kind", "purchases"), "'purchases' is none of"),
        (("reconcile", "--period", OCTOBER, "--providers", "2tCloud"), "'2tCloud' is none of"),
        (("stage", "--conn-id", "nowhere", "--period", OCTOBER), "isn't defined"),
    ):
        code, _, err = command(*words)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert said in err
        assert "Traceback" not in err


def test_a_sandbox_on_a_port_that_is_taken_says_so(vendors: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    from airflow_cloudbilling.sandbox.__main__ import main

    port = vendors.url.rpartition(":")[2]
    with pytest.raises(SystemExit):
        main(["--port", port, "--months", "1"])
    assert f"127.0.0.1, port {port}: Address already in use; --port 0 takes any that is free" in capsys.readouterr().err
