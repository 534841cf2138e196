"""Sage's calls of the notification URL: what is taken, what of it counts, how often, and what no log ever shows."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from fastapi import FastAPI
from notified import Answered, ask, forget, queued, serving, told, variable, waiting
from pages import NOTIFIED, TOKEN, airflow_app
from sages import CONN_ID
from tiny import FileStore

from airflow_cloudbilling.errors import ConfigurationError, MalformedReplyError
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.plugins import sage_notifications
from airflow_cloudbilling.plugins.app import create_app
from airflow_cloudbilling.plugins.sage_notifications import Notifications, Unlogged, read_tokens
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sources.sage_notifications import LONGEST, Hint, hint_of

KEY = "an-initial+/api-key=="
SECONDS = 20.0  # for anything; a machine that tests is busy


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let what came of a notification go."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # as Airflow's API server has it
    forget()
    yield
    forget()


@pytest.fixture
def products(dags_folder: Path) -> str:
    """Give a DAG that waits for the scope Products."""
    return waiting(dags_folder, "Products")


class Site:
    """The address for notifications, served by itself.

    :param window: seconds in which a scope's DAGs are started once.
    """

    def __init__(self, tokens: Mapping[str, str] | None = None, window: float = 60.0) -> None:
        self.app = FastAPI()
        take = Notifications(tokens or {CONN_ID: TOKEN}, timedelta(seconds=window)).take
        self.app.add_api_route("/notifications/{token}", take, methods=["POST"])
        self.app.add_middleware(Unlogged)
        self._held = ExitStack()

    def __enter__(self) -> Site:
        self.url = self._held.enter_context(serving(self.app))
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def post(self, body: Any = None, token: str = TOKEN) -> Answered:
        """Be Sage."""
        content = body if isinstance(body, bytes | Iterator) else json.dumps(body).encode()
        return ask(f"{self.url}/notifications/{token}", content)


@pytest.fixture
def site() -> Iterator[Site]:
    """Serve the address."""
    with Site() as opened:
        yield opened


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


# What is said


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", Hint()),
        (b"null", Hint()),
        (b"[1, 2]", Hint()),
        (b"ping", Hint()),
        (b"<xml/>", Hint()),
        (b"\xff\xfe\x00", Hint()),
        (b"[" * LONGEST, Hint()),
        (b"{" * LONGEST, Hint()),
        (b'{"id": 7}', Hint()),
        (b'{"scope": 7}', Hint()),
        (b'{"scope": "Pro\\nducts"}', Hint()),
        (b'{"scope": "Products"}', Hint(scope="Products")),
        (b'\xef\xbb\xbf{"Scope": "Products"}', Hint(scope="Products")),
        (b'{"data": {"scopeName": "Products"}}', Hint(scope="Products")),
        (b"scope=Products&id=7", Hint(scope="Products")),
        *(
            (json.dumps(body).encode(), Hint(KEY))
            for body in (
                {"apikey": KEY},
                {"apiKey": KEY, "scope": "Products"},
                {"api_key": f" {KEY}\n"},
                {"initialApikey": KEY},
                {"payload": {"APIKEY": KEY}},
            )
        ),
        (f"apikey={quote(KEY)}".encode(), Hint(KEY)),
    ],
)
def test_a_notification_is_a_key_or_news_of_a_scope_or_just_news(body: bytes, hint: Hint) -> None:
    assert hint_of(body) == hint
    assert KEY not in repr(hint_of(body))


@pytest.mark.parametrize("key", [None, 7, "", "short", "k" * 1025, "key with blanks", "key\nof-lines", "schlüssel", {}])
def test_a_key_that_can_be_none_is_refused_and_not_shown(key: Any, site: Site, caplog: Any) -> None:
    with pytest.raises(MalformedReplyError, match="8 to 1024 characters") as caught:
        hint_of(json.dumps({"apikey": key}).encode())
    assert not key or str(key) not in str(caught.value)
    assert site.post({"apikey": key}).status == 400
    assert f"Connection {CONN_ID!r}: a notification of Sage holds an API key that is none" in caplog.text


# New data


def test_new_data_starts_the_dags_that_wait_for_it(site: Site, products: str, dags_folder: Path) -> None:
    other = waiting(dags_folder, "Products", "sage_of_somebody_else")
    assert (site.post({"scope": "Products"}).status, told("Products")) == (202, [{"from_notification": True}])
    assert products in queued()
    assert other not in queued()


@pytest.mark.parametrize(
    ("body", "customers", "products"),
    [
        ({"scope": "Products"}, 0, 1),
        ({"scope": "products"}, 0, 1),
        ({"scope": "Orders"}, 1, 1),
        ({"scope": "%"}, 1, 1),
        ({}, 1, 1),
        (b"", 1, 1),
    ],
)
def test_what_is_not_clear_is_news_of_every_scope(
    body: Any, customers: int, products: int, site: Site, dags_folder: Path
) -> None:
    waiting(dags_folder, "Customers")
    waiting(dags_folder, "Products")
    assert site.post(body).status == 202
    assert (len(told("Customers")), len(told("Products"))) == (customers, products)


def test_without_a_dag_that_waits_nothing_is_told_and_nobody_learns_that(site: Site) -> None:
    assert site.post({"scope": "Nobodys"}).status == 202
    assert told("Nobodys") == []


def test_the_same_call_again_and_again_starts_a_run_now_and_one_when_the_window_is_over(products: str) -> None:
    with Site(window=1.5) as site:
        assert {site.post({"scope": "Products"}).status for _ in range(10)} == {202}
        assert len(told("Products")) == 1
        until(lambda: len(told("Products")) == 2)  # what came later may be newer than what the run has fetched
        time.sleep(1.8)
        assert len(told("Products")) == 2


def test_calls_that_come_together_and_at_several_servers_start_one_run(products: str) -> None:
    with Site() as one, Site() as two:
        answers: list[int] = []
        senders = [
            threading.Thread(target=lambda site=site: answers.append(site.post().status)) for site in (one, two) * 5
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    assert answers == [202] * 10
    assert len(told("Products")) == 1


# Who may


def test_a_wrong_token_is_answered_like_an_address_that_is_not_there(site: Site, products: str) -> None:
    absent = ask(f"{site.url}/elsewhere")
    for token in ("guessed", TOKEN[:-1], f"{TOKEN}x", f"{TOKEN}/x", TOKEN.upper(), "%00", "%C3%A9"):
        answer = site.post(token=token)
        assert (answer.status, answer.content) == (404, absent.content)
    assert told("Products") == []


def test_connections_may_share_a_token(dags_folder: Path) -> None:
    for conn_id in ("sage_a", "sage_b", "sage_c"):
        waiting(dags_folder, "Products", conn_id)
    with Site({"sage_a": TOKEN, "sage_b": TOKEN, "sage_c": TOKEN[::-1]}) as site:
        assert site.post().status == 202
    assert [len(told("Products", conn_id)) for conn_id in ("sage_a", "sage_b", "sage_c")] == [1, 1, 0]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_a_post_is_taken(method: str, site: Site, products: str) -> None:
    assert ask(f"{site.url}/notifications/{TOKEN}", method=method).status == 405
    assert told("Products") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON object"),
        ("[]", "no JSON object"),
        (f'"{TOKEN}"', "no JSON object"),
        ('{"sage": "short"}', "'sage' must be 32 to 256 letters"),
        (json.dumps({"sage": TOKEN + "/"}), "'sage' must be 32 to 256 letters"),
        ('{"sage": null}', "'sage' must be 32 to 256 letters"),
    ],
)
def test_wrong_tokens_are_named_and_the_address_is_off(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_tokens(text)
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__SAGE_NOTIFICATION_TOKENS", text)
    assert not any("notifications" in route.path for route in create_app().routes)
    assert "Sage's notifications are not taken" in caplog.text
    assert TOKEN not in caplog.text


# How much


@pytest.mark.parametrize("announced", [True, False])
def test_a_long_one_is_cut_off(announced: bool, site: Site, products: str) -> None:
    parts = [b"x" * 1024] * (LONGEST // 1024)
    fits, too_long = b"".join(parts), [*parts, b"x"]
    assert site.post(fits).status == 202
    assert site.post(b"".join(too_long) if announced else iter(too_long)).status == 413
    assert len(told("Products")) == 1


def test_one_that_never_ends_is_given_up(site: Site, products: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sage_notifications, "_PATIENCE", 0.3)
    where = urlsplit(site.url)
    with socket.create_connection((where.hostname, where.port), SECONDS) as slow:
        slow.sendall(f"POST /notifications/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{{".encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection((where.hostname, where.port), SECONDS) as gone:
        gone.sendall(f"POST /notifications/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{{".encode())
    assert told("Products") == []


def test_too_many_are_told_when_to_come_again_each_connection_by_itself() -> None:
    with Site({"sage_a": TOKEN, "sage_b": TOKEN[::-1]}) as site:
        assert [site.post().status for _ in range(31)] == [202] * 30 + [429]
        assert 1 <= int(site.post().headers["retry-after"]) <= 61
        assert site.post(token="guessed").status == 404
        assert site.post(token=TOKEN[::-1]).status == 202


class Slow(FileStore):
    """Takes its time, as a vault in another country does."""

    def write(self, conn_id: str, text: str) -> None:
        time.sleep(1)
        super().write(conn_id, text)


class Full(FileStore):
    def write(self, conn_id: str, text: str) -> None:
        raise OSError(f"disk full at {text}")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FileStore]:
    """Return a function that configures a store of keys that lies in files."""

    def configure(name: str = "tiny.FileStore") -> FileStore:
        monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", name)
        monkeypatch.setenv("TINY_STORE", str(tmp_path))
        return FileStore(tmp_path)

    return configure


def test_the_server_goes_on_while_a_key_is_kept(site: Site, store: Callable[[str], FileStore]) -> None:
    kept = store(f"{__name__}.Slow")
    sender = threading.Thread(target=site.post, args=({"apikey": KEY},))
    sender.start()
    slowest = 0.0
    while sender.is_alive():
        began = time.monotonic()
        ask(f"{site.url}/elsewhere")
        slowest = max(slowest, time.monotonic() - began)
    assert kept.read(f"{CONN_ID}__announced") == KEY
    assert slowest < 0.9


# New keys


def test_a_key_is_kept_apart_in_a_variable_that_airflow_encrypts(
    site: Site, products: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.models.crypto import get_fernet
    from cryptography.fernet import Fernet

    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", Fernet.generate_key().decode())
    get_fernet.cache_clear()
    try:
        assert site.post({"apikey": KEY}).status == 202
        stored, read = variable(f"{CONN_ID}__announced")
    finally:
        monkeypatch.undo()
        get_fernet.cache_clear()
    assert (read, KEY in stored) == (KEY, False)
    assert told("Products") == [{"from_notification": True}]
    assert products in queued()
    assert KEY not in caplog.text


@pytest.mark.parametrize(("name", "words"), [(f"{__name__}.Full", "OSError"), ("", "credential_store is empty")])
def test_a_key_that_cannot_be_kept_is_to_come_again(
    name: str, words: str, site: Site, store: Callable[[str], FileStore], caplog: pytest.LogCaptureFixture
) -> None:
    store(name)
    answer = site.post({"apikey": KEY})
    assert (answer.status, answer.headers["retry-after"]) == (503, "61")
    assert f"Connection {CONN_ID!r}: a notification of Sage cannot be kept" in caplog.text
    assert words in caplog.text
    assert KEY not in caplog.text


# In Airflow


def test_no_log_of_airflows_server_shows_the_token(
    products: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    asked = f"/cloudbilling/notifications/{TOKEN}?apikey={quote(KEY)}"
    with serving(airflow_app()) as url:
        assert ask(f"{url}{asked}", b'{"scope": "Products"}').status == 202
        assert ask(f"{url}{asked}", method="GET").status == 405
        for path in (f"/notifications/{TOKEN}wrong", f"/notifications/{TOKEN}/", f"//notifications/{TOKEN}"):
            assert ask(f"{url}/cloudbilling{path}").status == 404
        headers = ask(f"{url}{asked}").headers
    assert len(told("Products")) == 1
    printed = "".join(capfd.readouterr())
    ours = [one.getMessage() for one in caplog.records if one.name == "uvicorn.access"]
    assert sum('"POST /cloudbilling/notifications/hidden HTTP/1.1" 202' in one for one in ours) == 2
    assert "/cloudbilling/notifications/hidden" in printed  # Airflow's own log of requests
    said = "\n".join([printed, *(str(vars(one)) for one in caplog.records if not one.name.startswith("http"))])
    assert [secret for secret in (TOKEN, KEY, quote(KEY)) if secret in said] == []
    assert headers["cache-control"] == "no-store"


def test_sages_own_calls_come_in(
    vendor: Sandbox, sage: Sage, products: str, store: Callable[[], FileStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, hook = store(), SageConnectedCloudHook(NOTIFIED)
    with serving(airflow_app()) as url:
        where = f"{url}/cloudbilling/notifications/{TOKEN}"
        hook.register_developer({"name": "X", "application": {"name": "Y", "notificationUrl": where}})
        sage.steer(publish={"Products": [{"id": "P-1"}]})
        assert (sage.notified, len(told("Products"))) == ([202], 1)
        with pytest.raises(ValueError, match="'guessed' is no passcode"):
            sage.steer(consent="guessed")
        sage.steer(consent=hook.create_passcode().passcode)
        assert (sage.notified, kept.read(f"{NOTIFIED}__announced")) == ([202, 202], sage.initial_key)
    sage.publish("Products", [])
    assert sage.notified[-1] == 0  # nobody is there any more
    hook.register_application({"notificationUrl": "https://airflow.example/cloudbilling/notifications/x"})
    with pytest.raises(ValueError, match="calls this machine only"):
        sage.publish("Products", [])
