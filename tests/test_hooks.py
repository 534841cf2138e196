"""From an Airflow connection to a vendor's answers, however the connection is stored."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tiny import KEY, Tiny, serving

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.hooks.billing import BillingHook
from airflow_cloudbilling.hooks.twotcloud import TwoTCloudHook
from airflow_cloudbilling.model import Invoice, Notice, Period
from airflow_cloudbilling.source import Ask
from airflow_cloudbilling.sources import SOURCES

MONTH = Period.month(2026, 10)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register the tiny vendor, serve it on loopback and name it in the connection ``tiny_default``."""
    monkeypatch.setitem(SOURCES, Tiny.conn_type, Tiny())
    with serving(lambda answer: answer.give(body=answer.path.encode())) as server:
        connect(monkeypatch, conn_type="tiny", host=server.url, password=KEY)
        yield server


def connect(monkeypatch: pytest.MonkeyPatch, conn_id: str = "tiny_default", **fields: Any) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def twotcloud_uri(host: str) -> str:
    key = quote("key/with?signs", safe="")
    return f"twotcloud://1000123:{key}@{host}?response_format=xml&timeout=5&allowed_hosts=a.example"


TWOTCLOUD = {
    "conn_type": "twotcloud",
    "login": "1000123",
    "password": "key/with?signs",
    "host": "127.0.0.1",
    "port": 8080,
    "extra": {"response_format": "xml", "timeout": 5, "allowed_hosts": ["a.example"]},
}


def test_a_sixth_vendor_is_one_file(tiny: Any) -> None:
    hook = BillingHook("tiny_default")
    expected = [Notice("/v2/one?month=2026-10"), Notice("/v2/two?month=2026-10")]
    assert list(hook.invoices(Ask("purchase", MONTH))) == expected
    assert hook.test_connection() == (True, f"Tiny Billing answered at {tiny.url} and accepted the credentials.")


def test_both_worlds_give_the_same_items(tiny: Any) -> None:
    async def collect() -> list[Any]:
        return [item async for item in BillingHook("tiny_default").ainvoices(Ask("purchase", MONTH))]

    assert asyncio.run(collect()) == list(BillingHook("tiny_default").invoices(Ask("purchase", MONTH)))


def test_the_constructor_only_stores() -> None:
    assert BillingHook(conn_id="nowhere").conn_id == "nowhere"
    assert TwoTCloudHook(**{TwoTCloudHook.conn_name_attr: "nowhere"}).conn_id == "nowhere"
    assert TwoTCloudHook().conn_id == "twotcloud_default"


def test_json_and_uri_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "same", **TWOTCLOUD)
    as_json = BillingHook("same").settings
    monkeypatch.setenv("AIRFLOW_CONN_SAME", twotcloud_uri("127.0.0.1:8080"))
    assert BillingHook("same").settings == as_json
    assert as_json.base_url == "http://127.0.0.1:8080"
    assert asyncio.run(BillingHook("same").aget_settings()) == as_json


def test_a_secrets_backend_means_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connect(monkeypatch, "same", **TWOTCLOUD)
    backend = f"""
        from airflow.secrets import BaseSecretsBackend

        class Vault(BaseSecretsBackend):
            def get_conn_value(self, conn_id, team_name=None):
                return {json.dumps(TWOTCLOUD)!r} if conn_id == "same" else None
    """
    program = """
        from airflow_cloudbilling.hooks.billing import BillingHook
        settings = BillingHook("same").settings
        print("settings:", settings, settings.login, settings.password, dict(settings.options))
    """
    (tmp_path / "vault.py").write_text(textwrap.dedent(backend))
    environment = {name: value for name, value in os.environ.items() if name != "AIRFLOW_CONN_SAME"}
    environment["AIRFLOW__SECRETS__BACKEND"] = "vault.Vault"
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, check=True
    )
    mine = BillingHook("same").settings
    assert f"settings: {mine} {mine.login} {mine.password} {dict(mine.options)}" in done.stdout


def test_what_the_form_stores_means_the_same_exported_as_a_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.models.connection import Connection

    connect(monkeypatch, "same", **TWOTCLOUD)
    as_json = BillingHook("same").settings
    stored = Connection(**{**TWOTCLOUD, "conn_id": "same", "extra": json.dumps(TWOTCLOUD["extra"])})
    monkeypatch.setenv("AIRFLOW_CONN_SAME", stored.get_uri())
    assert BillingHook("same").settings == as_json


@pytest.mark.parametrize("uri", ["two_t_cloud://a:b@127.0.0.1", "://a:b@127.0.0.1", "http://a:b@127.0.0.1"])
def test_a_connection_of_another_type_is_explained(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD", uri)
    with pytest.raises(ConfigurationError, match=r"'odd', field 'conn_type'.*hyphens"):
        _ = BillingHook("odd").settings


def test_a_face_takes_its_own_type_only(tiny: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not twotcloud"):
        _ = TwoTCloudHook("tiny_default").settings


def test_unknown_keys_are_warned_of_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    connect(monkeypatch, "odd", **{**TWOTCLOUD, "extra": {"versoin": "v1"}})
    hook = BillingHook("odd")
    assert hook.settings is hook.settings
    assert capsys.readouterr().out.count("did you mean 'version'?") == 1


def test_every_form_of_a_secret_is_masked_by_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.log import redact

    connect(monkeypatch, "keys", **{**TWOTCLOUD, "extra": {"customers_api_key": "customers-key"}})
    for secret in SOURCES["twotcloud"].secrets(BillingHook("keys").settings):
        assert secret not in redact(f"found {secret} here")


# The Test button


def test_a_good_connection_is_told(vendor: Any) -> None:
    good, message = TwoTCloudHook().test_connection()
    assert good, message
    assert "2tCloud answered" in message


def test_a_wrong_key_names_both_causes_and_the_button_s_own_address(
    vendor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = json.loads(os.environ["AIRFLOW_CONN_TWOTCLOUD_DEFAULT"])
    connect(monkeypatch, "twotcloud_default", **{**fields, "password": "wrong-key"})
    good, message = TwoTCloudHook().test_connection()
    assert not good
    for words in ("403", "Basic header", "IP address", "API server"):
        assert words in message
    assert "wrong-key" not in message
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": "http://127.0.0.1:1"}, "ConnectError"),
        ({"host": "http://api.example"}, "allow_insecure_http"),
        ({"password": ""}, "enter the API key"),
        ({"conn_type": ""}, "hyphens"),
        ({"extra": "no json"}, "JSON"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    tiny: Any, fields: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, **{"conn_type": "tiny", "host": tiny.url, "password": KEY, **fields})
    good, message = BillingHook("tiny_default").test_connection()
    assert not good
    assert words in message
    assert "tiny_default" in message


def test_a_connection_that_is_not_there_is_an_answer_too() -> None:
    good, message = BillingHook("nowhere").test_connection()
    assert not good
    assert "nowhere" in message


# 2tCloud's own verbs


def test_each_endpoint_has_its_verb(vendor: Any) -> None:
    hook = TwoTCloudHook()
    month = vendor.months[-1]
    for verb in (hook.invoices, hook.customer_invoices, hook.consolidated_invoices):
        assert any(isinstance(item, Invoice) for item in verb(month)), verb
