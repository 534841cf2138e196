"""Sage's API key: rotated when it has expired, once for all who meet that, kept for the next task, shown nowhere."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from forked import forked
from sages import CONN_ID, connect, upload
from tiny import FileStore

from airflow_cloudbilling.errors import (
    ConfigurationError,
    ExpiredKeyError,
    MalformedReplyError,
    RefusedError,
    UnavailableError,
)
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.http import credentials, shared_token
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer

TRACKING = "/sage/api/files/{}/tracking"
ROTATION = "/sage/api/apikey"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    """Configure a store of keys that lies in files; no process knows a key but from it."""
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    monkeypatch.setenv("TINY_STORE", str(tmp_path))
    forget()
    return FileStore(tmp_path)


def forget() -> None:
    """Make this process as ignorant as another one."""
    credentials._KNOWN.clear()
    credentials._REFUSED.clear()


@pytest.fixture
def tracking_id(sage: Sage, store: FileStore) -> str:
    """Give an upload to ask for."""
    return upload(SageConnectedCloudHook())


def asked(vendor: Sandbox) -> list[str]:
    """Return method and status of each request, in order."""
    return [f"{seen.method} {seen.status}" for seen in vendor.requests]


# One after the other


def test_an_expired_key_is_rotated_once_kept_and_the_call_repeated_once(
    vendor: Sandbox, sage: Sage, store: FileStore, tracking_id: str
) -> None:
    sage.expire_key()
    assert SageConnectedCloudHook().track(tracking_id).status == "validating"
    assert asked(vendor) == ["POST 202", "GET 401", "PATCH 200", "GET 200"]
    assert store.read(CONN_ID) == sage.key


def test_the_next_task_begins_with_the_key_that_is_kept(
    vendor: Sandbox, sage: Sage, store: FileStore, tracking_id: str
) -> None:
    sage.expire_key()
    SageConnectedCloudHook().track(tracking_id)
    forget()
    SageConnectedCloudHook().track(tracking_id)
    assert asked(vendor)[-2:] == ["GET 200", "GET 200"]
    assert sage.rotations == 1


def test_the_initial_key_rotates_for_ever(sage: Sage, store: FileStore, tracking_id: str) -> None:
    for turn in range(1, 4):
        sage.expire_key()
        SageConnectedCloudHook().track(tracking_id)
        assert (sage.rotations, store.read(CONN_ID)) == (turn, sage.key)


def test_a_key_that_expires_after_some_requests_costs_a_rotation_each_time(
    sage: Sage, store: FileStore, tracking_id: str
) -> None:
    sage.key_uses = 5
    hook = SageConnectedCloudHook()
    with hook.get_conn() as client:
        for _ in range(20):
            hook.track(tracking_id, client)
    assert sage.rotations == 4


def test_a_key_that_another_task_rotated_is_taken_from_the_store(
    vendor: Sandbox, sage: Sage, store: FileStore, tracking_id: str
) -> None:
    sage.expire_key()
    SageConnectedCloudHook().track(tracking_id)
    known = dict(credentials._KNOWN)
    sage.expire_key()
    SageConnectedCloudHook().track(tracking_id)
    forget()
    credentials._KNOWN.update(known)  # this process still has the key before
    SageConnectedCloudHook().track(tracking_id)
    assert asked(vendor)[-2:] == ["GET 401", "GET 200"]
    assert sage.rotations == 2


def test_an_upload_that_meets_an_expired_key_goes_again_after_the_rotation(
    vendor: Sandbox, sage: Sage, store: FileStore
) -> None:
    sage.expire_key()
    upload(SageConnectedCloudHook())
    assert asked(vendor) == ["POST 401", "PATCH 200", "POST 202"]
    assert sage.contents.total() == 1


def test_a_second_401_is_the_end(vendor: Sandbox, sage: Sage, store: FileStore, tracking_id: str) -> None:
    vendor.serve(TRACKING.format(tracking_id), Answer.text(401, "never"))
    with pytest.raises(RefusedError, match=r"no longer accepts the API key.*a new credential cannot be had"):
        SageConnectedCloudHook().track(tracking_id)
    assert asked(vendor) == ["POST 202", "GET 401", "PATCH 200", "GET 401"]


class Overtaken(FileStore):
    """A store in which another task has put the key of a later rotation at once."""

    sage: Sage
    later = "key-of-a-later-rotation"

    def write(self, conn_id: str, text: str) -> None:
        if text == self.sage.key:
            self.sage.key = text = self.later
        super().write(conn_id, text)


@pytest.mark.parametrize("good", [True, False])
def test_after_a_second_401_the_store_is_read_once_more(
    good: bool, vendor: Sandbox, sage: Sage, store: FileStore, tracking_id: str
) -> None:
    sage.expire_key()
    overtaken = Overtaken(store.folder)
    overtaken.sage = sage
    hook = SageConnectedCloudHook()
    if not good:
        vendor.serve(TRACKING.format(tracking_id), Answer.text(401, "never"))
    with Client(hook.source, hook.settings, store=overtaken) as client, nullcontext() if good else refusal():
        hook.track(tracking_id, client)
    end = "GET 200" if good else "GET 401"
    assert asked(vendor) == ["POST 202", "GET 401", "PATCH 200", "GET 401", end]


def refusal() -> Any:
    return pytest.raises(RefusedError, match="no longer accepts the API key")


@pytest.mark.parametrize("field", ["password", "secret"])
def test_a_refused_rotation_is_the_end(
    field: str, vendor: Sandbox, sage: Sage, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(vendor, monkeypatch, **{field: "another-one"})
    sage.expire_key()
    with pytest.raises(RefusedError, match=r"PATCH .* was refused with HTTP 401: compare password.*and secret"):
        hook.track("1")
    assert asked(vendor) == ["GET 401", "PATCH 401"]
    assert store.read(CONN_ID) is None


def test_without_the_secret_it_is_said_that_nothing_can_be_rotated(
    vendor: Sandbox, sage: Sage, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(vendor, monkeypatch, secret="")
    sage.expire_key()
    with pytest.raises(RefusedError, match="without the field secret it cannot be rotated"):
        hook.track("1")
    with pytest.raises(ConfigurationError, match="'secret': is empty"):
        hook.rotate_api_key()
    assert asked(vendor) == ["GET 401"]


@pytest.mark.parametrize("name", ["apikey", "apiKey", "api_key", "APIKEY"])
def test_the_new_key_may_be_spelled_in_many_ways(name: str, vendor: Sandbox, sage: Sage, store: FileStore) -> None:
    vendor.serve(ROTATION, json.dumps({name: "key-in-another-spelling"}))
    SageConnectedCloudHook().rotate_api_key()
    assert store.read(CONN_ID) == "key-in-another-spelling"


@pytest.mark.parametrize(
    "body", ["", "[]", "<html>", '{"apikey": null}', '{"apikey": "line\\nbreak"}', '{"key": "key-of-another-name"}']
)
def test_an_answer_without_a_key_is_named_and_the_old_one_stays(
    body: str, vendor: Sandbox, sage: Sage, store: FileStore
) -> None:
    vendor.serve(ROTATION, body)
    with pytest.raises(MalformedReplyError, match=r"PATCH .*API key") as caught:
        SageConnectedCloudHook().rotate_api_key()
    assert "key-of-another-name" not in str(caught.value)
    assert store.read(CONN_ID) is None


def test_a_rotation_that_is_to_wait_waits(vendor: Sandbox, sage: Sage, store: FileStore, tracking_id: str) -> None:
    vendor.inject("status", match=ROTATION, status=429, headers={"Retry-After": "1"})
    sage.expire_key()
    began = time.monotonic()
    SageConnectedCloudHook().track(tracking_id)
    assert time.monotonic() - began >= 1
    assert sage.rotations == 1


def test_a_key_may_be_rotated_while_it_is_good(sage: Sage, store: FileStore, tracking_id: str) -> None:
    hook = SageConnectedCloudHook()
    for turn in (1, 2):
        hook.rotate_api_key()
        assert (sage.rotations, store.read(CONN_ID)) == (turn, sage.key)
    hook.track(tracking_id)
    assert sage.rotations == 2


def test_when_a_good_key_cannot_be_rotated_it_stays_in_use(
    vendor: Sandbox, sage: Sage, store: FileStore, tracking_id: str
) -> None:
    vendor.serve(ROTATION, Answer.text(404, "not here"))
    with pytest.raises(RefusedError):
        SageConnectedCloudHook().rotate_api_key()
    SageConnectedCloudHook().track(tracking_id)
    assert asked(vendor) == ["POST 202", "PATCH 404", "GET 200"]


# Many together


def test_twenty_threads_that_meet_an_expired_key_rotate_once(sage: Sage, store: FileStore, tracking_id: str) -> None:
    sage.expire_key()
    sage.rotation_seconds = 0.2
    with ThreadPoolExecutor(20) as threads:
        said = list(threads.map(lambda _: SageConnectedCloudHook().track(tracking_id), range(20)))
    assert (len(said), sage.rotations) == (20, 1)


def test_twenty_tasks_of_a_loop_that_meet_an_expired_key_rotate_once(
    sage: Sage, store: FileStore, tracking_id: str
) -> None:
    async def many() -> int:
        hook = SageConnectedCloudHook()
        await hook.aget_settings()
        async with await asyncio.to_thread(hook.get_conn) as client:
            return len(await asyncio.gather(*(hook.atrack(tracking_id, client) for _ in range(20))))

    sage.expire_key()
    assert (asyncio.run(many()), sage.rotations) == (20, 1)


TASK = """
    import os, signal
    from tiny import FileStore
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
    import airflow_cloudbilling.http.client

    class Last(FileStore):
        def write(self, conn_id, text):
            if not text.startswith("{"):  # the lease is JSON
                os.kill(os.getpid(), signal.SIGKILL)
            super().write(conn_id, text)

    def task(tracking_id, last=""):
        hook = SageConnectedCloudHook()
        if not last:
            hook.track(tracking_id)
            return
        with airflow_cloudbilling.http.client.Client(hook.source, hook.settings, store=Last()) as client:
            hook.track(tracking_id, client)
"""


def test_twenty_processes_that_meet_an_expired_key_all_succeed_and_the_kept_key_works(
    sage: Sage, store: FileStore, tracking_id: str
) -> None:
    sage.expire_key()
    assert forked(20, TASK, tracking_id) == [0] * 20
    assert store.read(CONN_ID) == sage.key
    assert sage.rotations <= 2


def test_a_task_killed_between_rotation_and_store_loses_nothing(
    sage: Sage, store: FileStore, tracking_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_token, "LEASE", 1.5)
    sage.expire_key()
    assert forked(1, TASK, tracking_id, "killed") == [-signal.SIGKILL]
    assert (sage.rotations, store.read(CONN_ID)) == (1, None)
    SageConnectedCloudHook().track(tracking_id)
    assert (sage.rotations, store.read(CONN_ID)) == (2, sage.key)


# Who never rotates


def test_a_triggerers_client_reads_the_store_again_and_never_rotates(
    vendor: Sandbox, sage: Sage, store: FileStore, tracking_id: str
) -> None:
    async def ask() -> str:
        hook = SageConnectedCloudHook()
        await hook.aget_settings()
        async with await asyncio.to_thread(hook.get_conn, keeps_tokens=False) as client:
            return (await hook.atrack(tracking_id, client)).status

    sage.expire_key()
    with pytest.raises(ExpiredKeyError, match="a task on a worker"):
        asyncio.run(ask())
    assert asked(vendor) == ["POST 202", "GET 401"]
    sage.key = "key-that-a-worker-has-got"
    store.write(CONN_ID, sage.key)
    assert asyncio.run(ask()) == "validating"
    assert sage.rotations == 0


def test_the_button_asks_for_an_upload_that_is_not_there(vendor: Sandbox, sage: Sage, store: FileStore) -> None:
    good, message = SageConnectedCloudHook().test_connection()
    assert good, message
    assert [(seen.path, seen.status) for seen in vendor.requests] == [(TRACKING.format(0), 404)]


def test_the_button_says_that_the_key_has_expired_and_does_not_rotate(
    vendor: Sandbox, sage: Sage, store: FileStore
) -> None:
    sage.expire_key()
    good, message = SageConnectedCloudHook().test_connection()
    assert (good, "the API key has expired" in message) == (False, True)
    assert asked(vendor) == ["GET 401"]
    SageConnectedCloudHook().rotate_api_key()
    forget()
    assert SageConnectedCloudHook().test_connection()[0]


def test_the_button_says_what_is_left_to_do(vendor: Sandbox, store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    good, message = connect(vendor, monkeypatch, login="", password="").test_connection()
    assert (good, "notification URL after consent" in message) == (False, True)
    assert vendor.requests == []


# Stores


def test_a_key_that_a_person_put_into_the_store_is_used(sage: Sage, store: FileStore, tracking_id: str) -> None:
    sage.key = "key-that-came-by-another-way"
    store.write(CONN_ID, f"{sage.key}\n")
    forget()
    assert SageConnectedCloudHook().track(tracking_id).status == "validating"


def test_the_key_of_the_connection_as_it_was_is_not_used(
    vendor: Sandbox, sage: Sage, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    SageConnectedCloudHook().rotate_api_key()
    sage.initial_key = sage.key = "initial-key-of-another-consent"
    hook = connect(vendor, monkeypatch, password=sage.key)
    assert hook.download_scope("Customers").status == 200
    assert asked(vendor) == ["PATCH 200", "GET 200"]
    hook.rotate_api_key()
    assert store.read(CONN_ID) == sage.key


def test_without_a_store_nothing_is_rotated(
    vendor: Sandbox, sage: Sage, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "")
    sage.expire_key()
    with pytest.raises(ConfigurationError, match=f"credential_store is empty.*{CONN_ID}.*name a class"):
        SageConnectedCloudHook().track("1")
    assert asked(vendor) == ["GET 401"]


class Full(FileStore):
    def write(self, conn_id: str, text: str) -> None:
        raise OSError(f"disk full at {text}")


class Forgetful(FileStore):
    def write(self, conn_id: str, text: str) -> None:
        if text.startswith("{"):
            super().write(conn_id, text)


@pytest.mark.parametrize(("kind", "words"), [(Full, "OSError"), (Forgetful, "does not give back what was written")])
def test_a_store_that_does_not_keep_keys_is_an_error(
    kind: type[FileStore], words: str, sage: Sage, store: FileStore
) -> None:
    sage.expire_key()
    hook = SageConnectedCloudHook()
    with (
        Client(hook.source, hook.settings, store=kind(store.folder)) as client,
        pytest.raises(UnavailableError, match=words) as caught,
    ):
        hook.track("1", client)
    assert sage.key not in str(caught.value) or not sage.key


DAG_FILE = """
from airflow.sdk import DAG, task
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook

with DAG("sage_keys", schedule=None):

    @task
    def ask():
        try:
            with SageConnectedCloudHook().download_scope("Customers").body as body:
                return len(body.read()) > 0
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    ask()
"""


def variable() -> tuple[str, str]:
    """Return the Variable that holds the key, as it stands in the database and as Airflow reads it."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        row = session.scalars(select(Variable).where(Variable.key == f"cloudbilling_api_key__{CONN_ID}")).one()
        return str(row._val), str(row.get_val())


@pytest.fixture
def ask(run_dag: Callable[..., dict[str, Any]], dags_folder: Path) -> Callable[[], Any]:
    """Return a function that runs a task which needs the key, in Airflow, and returns its result."""
    forget()
    file = dags_folder / "sage_keys.py"
    file.write_text(DAG_FILE)
    return lambda: run_dag(file)["ask"]


def test_the_key_is_kept_in_a_variable_that_airflow_encrypts(
    sage: Sage, ask: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.crypto import get_fernet
    from cryptography.fernet import Fernet

    sage.expire_key()
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", Fernet.generate_key().decode())
    get_fernet.cache_clear()
    try:
        assert ask() is True
        stored, read = variable()
    finally:
        monkeypatch.undo()
        get_fernet.cache_clear()
    assert read == sage.key
    assert sage.key not in stored


def test_a_variable_that_hides_the_key_is_an_error(
    sage: Sage, ask: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sage.expire_key()
    monkeypatch.setenv(f"AIRFLOW_VAR_CLOUDBILLING_API_KEY__{CONN_ID.upper()}", "key-of-the-environment")
    said = ask()
    assert f"ConfigurationError: Connection {CONN_ID!r}: Variable 'cloudbilling_api_key__{CONN_ID}' is hidden" in said
    assert "key-of-the-environment" not in said


# Nothing shows


def forms(secret: str) -> list[str]:
    """Return a secret as it may stand in a text."""
    return [
        secret,
        quote(secret, safe=""),
        base64.b64encode(secret.encode()).decode(),
        base64.urlsafe_b64encode(secret.encode()).decode(),
        json.dumps(secret)[1:-1],
    ]


def test_no_key_and_no_secret_shows_in_a_log_or_an_error(
    vendor: Sandbox, sage: Sage, store: FileStore, tracking_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.sdk.log import redact

    for name in ("", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, name)
    told: list[object] = []
    sage.expire_key()
    SageConnectedCloudHook().track(tracking_id)
    every = [sage.initial_key, sage.key, sage.secret]
    said = " | ".join(form for secret in every for form in forms(secret))
    vendor.serve(TRACKING.format(tracking_id), Answer.text(403, said, X_Echo=said.replace("\n", "")))
    hook = SageConnectedCloudHook()
    with (
        hook.get_conn(on_exchange=lambda *exchange: told.append(exchange)) as client,
        pytest.raises(RefusedError) as caught,
    ):
        hook.track(tracking_id, client)
    masked = redact(" ".join(every))
    assert masked == "*** *** ***"
    shown = f"{caplog.text}{caught.value}{told}{hook.settings}{vendor.requests}"
    assert "httpcore" in caplog.text
    assert [form for secret in every for form in forms(secret) if form in shown] == []
