"""What a connection's fields mean, and what is said when they mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import KEY, Tiny, tiny_settings

from airflow_cloudbilling.errors import ConfigurationError, RefusedError
from airflow_cloudbilling.settings import Settings, settings_from
from airflow_cloudbilling.source import Request
from airflow_cloudbilling.urls import target


def read(**fields: Any) -> Settings:
    return settings_from(Tiny(), "tiny_default", **{"conn_type": "tiny", "password": KEY, **fields})


def complaint(**fields: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read(**fields)
    assert caught.value.conn_id == "tiny_default"
    assert "'tiny_default'" in str(caught.value)
    assert KEY not in str(caught.value)
    return caught.value


def test_defaults_are_those_of_the_contract() -> None:
    settings = read()
    assert settings.base_url == "https://api.tiny.example"
    assert (settings.timeout, settings.total_timeout, settings.max_wait) == (60, 1800, 86400)
    assert (settings.max_body, settings.max_connections, settings.max_attempts) == (2 * 1024**3, 8, 5)
    assert (settings.verify, settings.proxy, settings.account, settings.allowed_hosts) == (None, None, None, ())
    assert settings.field_map == {}
    assert settings.option("version") == "v2"


def test_text_as_a_uri_has_it_means_the_same_as_json() -> None:
    as_text = {
        "timeout": "5",
        "max_attempts": "3",
        "allow_insecure_http": "True",
        "field_map": '{"net_amount": "Totals.Net"}',
        "allowed_hosts": "a.example, b.example:8443",
        "verify": "true",
    }
    as_json = {
        "timeout": 5,
        "max_attempts": 3,
        "allow_insecure_http": True,
        "field_map": {"net_amount": "Totals.Net"},
        "allowed_hosts": ["a.example", "b.example:8443"],
        "verify": True,
    }
    assert read(extra=as_text) == read(extra=as_json)


def test_empty_values_of_the_form_are_defaults() -> None:
    assert read(extra={"timeout": "", "version": None, "proxy": ""}) == read()


def test_repr_shows_no_secret() -> None:
    settings = read(login="acc", extra={"proxy": "http://me:pr0xypass@127.0.0.1:3128", "second_api_key": "2nd-key"})
    assert not any(secret in repr(settings) for secret in (KEY, "pr0xypass", "2nd-key"))
    assert {KEY, "pr0xypass", "2nd-key"} <= set(settings.secrets)


@pytest.mark.parametrize(
    ("extra", "field", "words"),
    [
        ('{"timeout": 5', "extra", "not valid JSON"),
        ("[1]", "extra", "not a JSON object"),
        ({"timeout": "soon"}, "timeout", "'soon' is not a number"),
        ({"timeout": "nan"}, "timeout", "not a number"),
        ({"timeout": 0}, "timeout", "less than"),
        ({"max_attempts": 2.5}, "max_attempts", "not a whole number"),
        ({"max_attempts": True}, "max_attempts", "not a number"),
        ({"max_wait": 1e9}, "max_wait", "more than"),
        ({"allow_insecure_http": "perhaps"}, "allow_insecure_http", "neither true nor false"),
        ({"version": "v3"}, "version", "'v3' is none of v1, v2"),
        ({"field_map": "{net: 1}"}, "field_map", "not a JSON object"),
        ({"field_map": {"net_amount": 1}}, "field_map", "dotted path"),
        ({"allowed_hosts": [1]}, "allowed_hosts", "list of texts"),
        ({"verify": False}, "verify", "path of a CA bundle"),
        ({"verify": "/no/such/ca.pem"}, "verify", "existing CA bundle"),
        ({"proxy": "proxy.example:3128"}, "proxy", "http://proxy.example.com:3128"),
        ({"user_agent": "a\nb"}, "user_agent", "one line"),
        ({"second_api_key": "abc\ndef"}, "second_api_key", "line break"),
        ({"second_api_key": ["x"]}, "second_api_key", "a text"),
    ],
)
def test_a_malformed_key_is_named_with_the_fix(extra: Any, field: str, words: str) -> None:
    error = complaint(extra=extra)
    assert error.field == field
    assert words in str(error)


def test_an_unknown_key_is_a_warning_with_the_nearest_name() -> None:
    assert read().warnings == ()
    (warning,) = read(extra={"max_atempts": 3}).warnings
    assert "'max_atempts'" in warning
    assert "'max_attempts'" in warning


def test_missing_and_mispasted_credentials() -> None:
    assert "enter the API key" in str(complaint(password=""))
    error = complaint(password="abcdef\n")
    assert error.field == "password"
    assert "line break" in str(error)


@pytest.mark.parametrize("conn_type", ["", None, "generic"])
def test_another_connection_type_is_explained(conn_type: str | None) -> None:
    error = complaint(conn_type=conn_type)
    assert error.field == "conn_type"
    assert "sage-connected-cloud://" in str(error)


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": "api.example"}, "https://api.example"),
        ({"host": "https://api.example/base/"}, "https://api.example/base"),
        ({"host": "api.example/base", "port": 8443}, "https://api.example:8443/base"),
        ({"host": "https://api.example:444", "port": 8443}, "https://api.example:444"),
        ({"host": "api.example", "schema": "https"}, "https://api.example"),
        ({"host": "127.0.0.1", "port": 8080}, "http://127.0.0.1:8080"),
        ({"host": "localhost:8080"}, "http://localhost:8080"),
        ({"host": "::1", "port": 8080}, "http://[::1]:8080"),
        ({"host": "localhost", "schema": "https"}, "https://localhost"),
        ({"host": "http://127.9.9.9"}, "http://127.9.9.9"),
        ({"host": "http://api.example", "extra": {"allow_insecure_http": True}}, "http://api.example"),
    ],
)
def test_host_port_and_schema_make_the_base_url(fields: dict[str, Any], base_url: str) -> None:
    assert read(**fields).base_url == base_url


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": "http://api.example"}, "allow_insecure_http"),
        ({"host": "http://127.0.0.1.api.example"}, "allow_insecure_http"),
        ({"host": "http://localhost.api.example"}, "allow_insecure_http"),
        ({"host": "api.example", "schema": "http"}, "allow_insecure_http"),
        ({"host": "api.example", "schema": "v2/base"}, "base path belongs in host"),
        ({"host": "ftp://api.example"}, "not supported"),
        ({"host": "https://me:pw@api.example"}, "user info"),
        ({"host": "https://api.example?x=1"}, "query"),
        ({"host": "https://api .example"}, "space"),
        ({"host": "https://api.example:http"}, "ort"),
        ({"host": "https://"}, "no host name"),
        ({"host": "api.example", "port": 99999}, "ort"),
    ],
)
def test_a_host_that_cannot_be_asked_safely_is_refused(fields: dict[str, Any], words: str) -> None:
    error = complaint(**fields)
    assert error.field == "host"
    assert words in str(error)


def test_a_ca_bundle_is_a_path(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    assert read(extra={"verify": str(bundle)}).verify == str(bundle)


@pytest.mark.parametrize(
    ("host", "url", "own"),
    [
        ("https://api.example/v", "https://api.example/other?sig=1", True),
        ("https://api.example", "https://API.EXAMPLE:443/x", True),
        ("https://api.example", "https://files.example/x", False),
        ("https://api.example", "https://files.example:8443/x", None),
        ("https://api.example", "https://other.example:8443/x", False),
        ("https://api.example", "https://api.example:8443/x", None),
        ("https://api.example", "http://api.example/x", None),
        ("https://api.example", "http://files.example/x", None),
        ("https://api.example", "https://files.example.evil.example/x", None),
        ("https://api.example", "https://api.example@evil.example/x", None),
        ("https://api.example", "https://evil.example\\@api.example/x", None),
        ("https://api.example", "https://127.0.0.1/x", None),
        ("https://api.example", "ftp://api.example/x", None),
        ("https://api.example", "file://api.example/x", None),
        ("http://127.0.0.1:80", "http://127.0.0.1:8080/x", False),
        ("http://127.0.0.1:80", "http://127.0.0.2:80/x", None),
    ],
)
def test_where_a_vendor_may_send_us(host: str, url: str, own: bool | None) -> None:
    settings = tiny_settings(host, allowed_hosts=["files.example", "other.example:8443"])
    if own is None:
        with pytest.raises(RefusedError) as caught:
            target(Request("GET", url), settings)
        assert "tiny_default" in str(caught.value)
    else:
        reached = target(Request("GET", url), settings)
        assert reached.own is own
        assert "sig" not in reached.shown


def test_a_relative_path_stays_on_the_connections_host() -> None:
    settings = tiny_settings("https://api.example/base")
    assert target(Request("GET", "//evil.example/x"), settings).url == "https://api.example/base/evil.example/x"
    assert target(Request("GET", "v2/x", {"a": "b c"}), settings).shown == "https://api.example/base/v2/x?a=b%20c"
