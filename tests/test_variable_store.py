"""Access tokens in Airflow Variables, written and read by tasks that Airflow runs; and which store is configured."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.models.crypto import get_fernet
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from cryptography.fernet import Fernet
from forked import forked
from sqlalchemy import select
from tiny import TokenVendor, serving

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.hooks.credential_store import VariableStore, open_store
from airflow_cloudbilling.sandbox.server import Sandbox

RunDag = Callable[..., dict[str, Any]]
DAG_FILE = """
from airflow.sdk import DAG, task
from airflow.sdk.log import mask_secret, redact
from tiny import TinyTokens, token_settings
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.hooks.credential_store import open_store
from airflow_cloudbilling.source import Request

with DAG("{conn_id}", schedule=None):

    @task
    def ask(password):
        # Another password makes a task of this process as ignorant as one of another process.
        settings = token_settings("{host}", "{conn_id}", password=password)
        learnt = []

        def learn(token):
            learnt.append(token)
            mask_secret(token)

        with Client(TinyTokens(), settings, store=open_store(writable=True), learn=learn) as client:
            client.request(Request("GET", "x")).body.close()
        return redact("the token is " + learnt[0])

    ask.expand(password=["password-of-one", "password-of-two", "password-of-three"])
"""
_numbers = itertools.count()


class Run:
    """Three tasks, one after the other, that need a token, and what they left behind."""

    def __init__(self, run_dag: RunDag, folder: Path) -> None:
        self.vendor = TokenVendor()
        self.conn_id = f"variable_store_{next(_numbers)}"
        self._run_dag = run_dag
        self._folder = folder

    def __call__(self) -> list[str]:
        with serving(self.vendor) as server:
            file = self._folder / f"{self.conn_id}.py"
            file.write_text(DAG_FILE.format(host=server.url, conn_id=self.conn_id))
            return list(self._run_dag(file)["ask"])

    @property
    def variable(self) -> Any:
        """The Variable as it stands in the database, and what Airflow reads."""
        with create_session() as session:
            row = session.scalars(select(Variable).where(Variable.key == f"cloudbilling_token__{self.conn_id}")).one()
            return row._val, row.get_val(), row.is_encrypted


@pytest.fixture
def run(run_dag: RunDag, dags_folder: Path) -> Run:
    """Give the three tasks."""
    return Run(run_dag, dags_folder)


def test_tasks_share_a_token_in_a_variable_and_airflow_masks_it(run: Run) -> None:
    assert run() == ["the token is ***"] * 3
    assert run.vendor.asked == 1
    _, text, _ = run.variable
    assert json.loads(text)["value"] == run.vendor.given[0]


def test_the_variable_is_encrypted_where_airflow_has_a_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", Fernet.generate_key().decode())
    get_fernet.cache_clear()
    try:
        run()
        stored, text, encrypted = run.variable
    finally:
        monkeypatch.undo()
        get_fernet.cache_clear()
    assert encrypted
    assert run.vendor.given[0] in text
    assert run.vendor.given[0] not in stored


@pytest.mark.parametrize("hidden_by", ["mine", json.dumps({"for": "x", "value": "v", "lease": "", "until": 9e9})])
def test_a_variable_of_the_environment_that_hides_it_is_named(
    run: Run, hidden_by: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(f"AIRFLOW_VAR_CLOUDBILLING_TOKEN__{run.conn_id.upper()}", hidden_by)
    run()
    assert run.vendor.asked == 3
    assert f"'cloudbilling_token__{run.conn_id}' is hidden by one that is not in the database; remove it" in caplog.text
    assert "this process uses its own" in caplog.text
    assert run.vendor.given[0] not in caplog.text


HOOK_TASK = """
    from airflow_cloudbilling.hooks.billing import BillingHook
    import airflow_cloudbilling.http.client, airflow_cloudbilling.hooks.credential_store

    def task():
        assert list(BillingHook("orange_cloudstore_default").list_records("contracts"))
"""


@pytest.mark.parametrize(("count", "store", "most"), [(50, "tiny.FileStore", 2), (12, "", 12)])
def test_tasks_of_orange_ask_for_about_one_token_with_a_store_and_for_one_each_without(
    count: int, store: str, most: int, vendor: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", store)
    monkeypatch.setenv("TINY_STORE", str(tmp_path))
    assert forked(count, HOOK_TASK) == [0] * count
    asked = [request.path for request in vendor.requests].count("/oauth/v3/token")
    assert asked in range(1, most + 1) if store else asked == most


def test_no_store_is_configured_by_an_empty_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "")
    assert open_store(writable=True) is None


class Own:
    """A store of a user's own."""

    def __init__(self, *, writable: bool) -> None:
        self.writable = writable

    def read(self, conn_id: str) -> str | None:
        return None

    def write(self, conn_id: str, text: str) -> None:
        """Forget it."""


def test_the_configured_class_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store(writable=True), VariableStore)
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", f"{__name__}.Own")
    store = open_store(writable=False)
    assert isinstance(store, Own)
    assert not store.writable


@pytest.mark.parametrize("name", ["no_such_module.Store", "Store", "json.Store", "builtins.dict", "json.loads"])
def test_a_class_that_cannot_be_used_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", name)
    with pytest.raises(ConfigurationError, match=rf"credential_store = '{name}' cannot be used.*leave it empty"):
        open_store(writable=True)
