"""The initial API key that Sage announces: it counts when it proves to be ours, and nobody else's ever does."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import forked
from sages import CONN_ID, connect
from test_sage_keys import asked, forget, forms
from tiny import FileStore

from airflow_cloudbilling.errors import ConfigurationError, RefusedError, UnavailableError
from airflow_cloudbilling.hooks import sage_initial_key
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.hooks.sage_initial_key import announce
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer

ROTATION = "/sage/api/apikey"
FOREIGN = "key-of-another-companys-consent"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    """Configure a store of keys that lies in files; no process knows a key but from it."""
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    monkeypatch.setenv("TINY_STORE", str(tmp_path))
    forget()
    return FileStore(tmp_path)


@pytest.fixture
def hook(vendor: Sandbox, sage: Sage, store: FileStore, monkeypatch: pytest.MonkeyPatch) -> SageConnectedCloudHook:
    """Give the hook of a connection without an API key: the on-boarding is not done."""
    return connect(vendor, monkeypatch, password="")


def consent(sage: Sage, store: FileStore) -> str:
    """Let a person consent, and Sage's call come in; return the new initial key."""
    hook = SageConnectedCloudHook()
    sage.consent(hook.create_passcode().passcode)
    announce(store, CONN_ID, sage.initial_key)
    return sage.initial_key


def download(hook: SageConnectedCloudHook | None = None) -> int:
    """Do what needs an API key."""
    reply = (hook or SageConnectedCloudHook()).download_scope("Products")
    with reply.body:
        return reply.status


def announced(store: FileStore) -> str | None:
    return store.read(f"{CONN_ID}__announced")


# Ours


def test_the_first_key_is_in_force_when_the_next_task_has_tried_it(
    vendor: Sandbox, sage: Sage, store: FileStore, hook: SageConnectedCloudHook
) -> None:
    with pytest.raises(ConfigurationError, match="'password': is empty"):
        download()
    consent(sage, store)
    assert download(hook) == 200
    assert asked(vendor) == ["POST 201", "PATCH 200", "GET 200"]
    assert (announced(store), store.read(CONN_ID)) == ("", sage.key)


def test_every_later_task_has_it_too_and_it_rotates_every_later_key(
    vendor: Sandbox, sage: Sage, store: FileStore, hook: SageConnectedCloudHook
) -> None:
    key = consent(sage, store)
    download()
    for turn in range(2, 4):
        forget()  # as another process
        sage.expire_key()
        assert download() == 200
        assert (sage.rotations, store.read(CONN_ID)) == (turn, sage.key)
    assert SageConnectedCloudHook().settings.password == key
    assert SageConnectedCloudHook().test_connection()[0]


def test_a_key_of_a_later_consent_takes_the_place_of_the_one_entered(
    vendor: Sandbox, sage: Sage, store: FileStore
) -> None:
    sage.expire_key()
    download()  # there is a rotated key of the consent before
    key = consent(sage, store)
    before = len(vendor.requests)
    assert download() == 200
    assert asked(vendor)[before:] == ["PATCH 200", "GET 200"]
    forget()
    sage.expire_key()
    assert download() == 200
    assert SageConnectedCloudHook().settings.password == key


def test_what_a_person_enters_afterwards_is_in_force(
    vendor: Sandbox, sage: Sage, store: FileStore, hook: SageConnectedCloudHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(sage, store)
    download()
    assert connect(vendor, monkeypatch, password="entered-by-hand").settings.password == "entered-by-hand"
    assert connect(vendor, monkeypatch, password="").settings.password == sage.initial_key


def test_a_key_may_be_announced_as_the_plain_text_of_a_variable(
    sage: Sage, store: FileStore, hook: SageConnectedCloudHook
) -> None:
    sage.consent(hook.create_passcode().passcode)
    store.write(f"{CONN_ID}__announced", f"{sage.initial_key}\n")  # by a person, or by Airflow's REST API
    assert download() == 200


TASK = """
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
    import airflow_cloudbilling.http.client

    def task():
        SageConnectedCloudHook().download_scope("Products").body.close()
"""


def test_tasks_that_find_it_at_the_same_moment_all_get_on(
    sage: Sage, store: FileStore, hook: SageConnectedCloudHook
) -> None:
    key = consent(sage, store)
    assert forked(6, TASK) == [0] * 6
    assert (SageConnectedCloudHook().settings.password, announced(store)) == (key, "")
    assert download() == 200


# Heard before


def test_the_key_in_force_is_not_tried_again(vendor: Sandbox, sage: Sage, store: FileStore) -> None:
    announce(store, CONN_ID, sage.initial_key)
    assert download() == 200
    assert (asked(vendor), announced(store)) == (["GET 200"], "")


def test_an_old_announcement_brings_no_old_key_back(
    vendor: Sandbox, sage: Sage, store: FileStore, hook: SageConnectedCloudHook
) -> None:
    first = consent(sage, store)
    download()
    second = consent(sage, store)
    download()
    before = len(vendor.requests)
    for old in (first, second):
        announce(store, CONN_ID, old)
        download()
        assert announced(store) == ""
    assert asked(vendor)[before:] == ["GET 200", "GET 200"]
    assert SageConnectedCloudHook().settings.password == second


def test_a_key_that_is_announced_while_another_is_tried_is_not_lost(
    sage: Sage, store: FileStore, hook: SageConnectedCloudHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent(sage, store)
    prove = sage_initial_key.prove

    def meanwhile(*args: Any) -> str:
        current = prove(*args)
        announce(store, CONN_ID, "announced-meanwhile")
        return current

    monkeypatch.setattr("airflow_cloudbilling.hooks.sage.prove", meanwhile)
    assert download() == 200
    assert announced(store) == "announced-meanwhile"


# Not ours


@pytest.mark.parametrize("working", [True, False])
def test_a_key_of_somebody_elses_consent_is_never_in_force(
    working: bool,
    vendor: Sandbox,
    sage: Sage,
    store: FileStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(vendor, monkeypatch, password=sage.initial_key if working else "")
    sage.key, own = FOREIGN, sage.key  # a good key, of another account: it lacks our secret
    announce(store, CONN_ID, FOREIGN)
    if working:
        sage.key = own
        assert download() == 200
        assert asked(vendor) == ["PATCH 401", "GET 200"]
        said = capsys.readouterr().out
        assert "is not in force, the next task tries it again" in said
        assert FOREIGN not in said
    else:
        with pytest.raises(UnavailableError, match="the next task tries it again"):
            download()
        assert asked(vendor) == ["PATCH 401"]
    monkeypatch.setattr(sage_initial_key, "_PATIENCE", 0.0)  # Sage had time enough
    if working:
        assert download() == 200
    else:
        with pytest.raises(ConfigurationError, match="'password': is empty"):
            download()
    assert (announced(store), store.read(f"{CONN_ID}__initial")) == ("", None)
    before = len(vendor.requests)
    if working:
        download()
        assert asked(vendor)[before:] == ["GET 200"]


def test_a_key_that_is_good_only_a_little_later_is_taken_then(
    vendor: Sandbox, sage: Sage, store: FileStore, hook: SageConnectedCloudHook
) -> None:
    consent(sage, store)
    vendor.inject("status", match=ROTATION, status=401)
    with pytest.raises(UnavailableError, match=r"was refused with HTTP 401.*secret"):
        download()
    assert download() == 200


def test_the_clock_of_a_refusal_may_be_wrong(sage: Sage, store: FileStore) -> None:
    store.write(f"{CONN_ID}__announced", json.dumps({"api_key": FOREIGN, "refused": time.time() + 7200}))
    assert download() == 200
    assert announced(store) == ""


def test_without_our_secret_nothing_is_proved_and_it_is_said(
    vendor: Sandbox, sage: Sage, store: FileStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connect(vendor, monkeypatch, secret="")
    announce(store, CONN_ID, FOREIGN)
    assert download() == 200
    assert asked(vendor) == ["GET 200"]
    assert "'secret': is empty" in capsys.readouterr().out
    assert announced(store) == FOREIGN


# Sage, or the store, is of no use


@pytest.mark.parametrize("answer", [Answer.text(404, "not here"), Answer(200, (b"<html>",)), Answer.text(503, "down")])
def test_a_sage_that_gives_no_answer_of_use_is_asked_again_later(
    answer: Answer,
    vendor: Sandbox,
    sage: Sage,
    store: FileStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(vendor, monkeypatch, max_attempts=1)
    vendor.serve(ROTATION, answer)
    announce(store, CONN_ID, FOREIGN)
    assert download() == 200
    assert announced(store) == FOREIGN
    assert "the next task tries it again" in capsys.readouterr().out
    connect(vendor, monkeypatch, max_attempts=1, password="")
    with pytest.raises(UnavailableError, match="the next task tries it again"):
        download()


def test_on_boarding_goes_on_whatever_is_announced(
    vendor: Sandbox, store: FileStore, hook: SageConnectedCloudHook
) -> None:
    announce(store, CONN_ID, FOREIGN)
    assert hook.create_passcode().passcode
    assert asked(vendor) == ["POST 201"]


def test_a_triggerer_tries_none_and_uses_the_one_that_was_taken(
    vendor: Sandbox, sage: Sage, store: FileStore, hook: SageConnectedCloudHook
) -> None:
    consent(sage, store)
    with SageConnectedCloudHook().get_conn(keeps_tokens=False):
        assert announced(store) == sage.initial_key
    download()
    forget()
    fresh = SageConnectedCloudHook()
    with fresh.get_conn(keeps_tokens=False) as client:
        client.request(fresh.sage.download("Products", fresh.settings)).body.close()
    assert sage.rotations == 1


class Broken(FileStore):
    def read(self, conn_id: str) -> str | None:
        raise OSError("unreachable, with api_key=secret")


@pytest.mark.parametrize("password", ["", "a-key-of-its-own"])
def test_a_store_that_does_not_answer_is_named(
    password: str, vendor: Sandbox, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(vendor, monkeypatch, password=password)
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", f"{__name__}.Broken")
    with pytest.raises(UnavailableError, match=r"store of API keys cannot be used \(OSError\)") as caught:
        download(hook)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"api_key": 7}', '{"api_key": "k"}', '{"former": []}', "\0", " "])
def test_garbage_in_the_store_is_ignored(text: str, vendor: Sandbox, sage: Sage, store: FileStore) -> None:
    store.write(f"{CONN_ID}__initial", text)
    assert download() == 200
    assert SageConnectedCloudHook().settings.password == sage.initial_key


@pytest.mark.parametrize("text", ["{", "{}", '{"api_key": 7}', '{"api_key": ""}', " "])
def test_no_key_is_no_key(text: str, vendor: Sandbox, sage: Sage, store: FileStore) -> None:
    store.write(f"{CONN_ID}__announced", text)
    assert download() == 200
    assert asked(vendor) == ["GET 200"]


# In Airflow


DAG_FILE = """
from airflow.sdk import DAG, task
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook

with DAG("announced_key", schedule=None):

    @task
    def ask():
        with SageConnectedCloudHook().download_scope("Customers").body as body:
            return len(body.read()) > 0

    ask()
"""


def test_a_task_takes_it_from_the_variable_that_the_server_wrote(
    vendor: Sandbox,
    sage: Sage,
    run_dag: Callable[..., dict[str, Any]],
    dags_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import notified

    from airflow_cloudbilling.hooks.credential_store import open_store

    forget()
    notified.forget()
    connect(vendor, monkeypatch, password="")
    sage.consent(SageConnectedCloudHook().create_passcode().passcode)
    server = open_store(writable=True, keys=True, in_server=True)
    assert server is not None
    with monkeypatch.context() as patch:
        patch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        announce(server, CONN_ID, sage.initial_key)
    file = dags_folder / "announced_key.py"
    file.write_text(DAG_FILE)
    assert run_dag(file)["ask"] is True
    assert json.loads(notified.variable(f"{CONN_ID}__initial")[1])["api_key"] == sage.initial_key
    assert notified.variable(CONN_ID)[1] == sage.key
    assert notified.variable(f"{CONN_ID}__announced")[1] == ""
    assert [name for name in ("", "__initial", "__announced") if "not delete" in notified.advice(CONN_ID + name)] == [
        "__initial"
    ]
    notified.forget()


def test_no_key_shows_in_a_log_or_an_error(
    vendor: Sandbox, sage: Sage, store: FileStore, hook: SageConnectedCloudHook, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.sdk.log import redact

    for name in ("", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, name)
    key = consent(sage, store)
    said = " | ".join(forms(key))
    vendor.serve(ROTATION, Answer.text(403, said, X_Echo=said))
    with pytest.raises(UnavailableError) as caught:
        download()
    vendor.serve(ROTATION, json.dumps({"apikey": "key-that-the-proof-brings", "said": said}))
    with pytest.raises(RefusedError):
        download()
    every = [key, sage.secret, "key-that-the-proof-brings"]
    assert redact(" ".join(every)) == "*** *** ***"
    shown = f"{caplog.text}{caught.value}{vendor.requests}"
    assert [form for secret in every for form in forms(secret) if form in shown] == []
