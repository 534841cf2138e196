"""Sage's calls of a notification URL: a web server that takes them, and what Airflow's database says afterwards."""

from __future__ import annotations

import http.client
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import uvicorn
from airflow.models.asset import AssetDagRunQueue, AssetEvent, AssetModel
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sages import CONN_ID
from sqlalchemy import delete, select

from airflow_cloudbilling.assets import scope_asset

DAG_FILE = """
from airflow.sdk import DAG, task
from airflow_cloudbilling.assets import scope_asset

with DAG({dag_id!r}, schedule=[scope_asset({conn_id!r}, {scope!r})], is_paused_upon_creation=False):

    @task
    def get():
        pass

    get()
"""


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application on loopback, with uvicorn's own log of what is asked; return its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, log_level="debug"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        logging.getLogger("uvicorn.access").setLevel(logging.NOTSET)


class Answered(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


def ask(url: str, body: Any = b"", method: str = "POST") -> Answered:
    """Send one request, and return what is answered; a body of parts goes out without its length."""
    where = urlsplit(url)
    with closing(http.client.HTTPConnection(where.netloc, timeout=20)) as connection:
        connection.request(method, f"{where.path}?{where.query}".rstrip("?"), body)
        answer = connection.getresponse()
        return Answered(answer.status, dict(answer.headers), answer.read())


def waiting(folder: Path, scope: str, conn_id: str = CONN_ID) -> str:
    """Let a DAG wait for a scope, as the DAG processor finds it; return its id."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    dag_id = f"waits_for_{scope}_of_{conn_id}"
    file = folder / f"{dag_id}.py"
    file.write_text(DAG_FILE.format(dag_id=dag_id, conn_id=conn_id, scope=scope))
    bag = DagBag(file)
    assert not bag.import_errors
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(bag, "tests", None)
    return dag_id


def told(scope: str, conn_id: str = CONN_ID) -> list[Any]:
    """Return the extras of a scope's events, the oldest first."""
    chosen = select(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id).order_by(AssetEvent.id)
    with create_session() as session:
        found = session.scalars(chosen.where(AssetModel.uri == scope_asset(conn_id, scope).uri))
        return [one.extra for one in found]


def queued() -> set[str]:
    """Return the DAGs of which the scheduler is to make a run."""
    with create_session() as session:
        return set(session.scalars(select(AssetDagRunQueue.target_dag_id)))


def variable(name: str) -> tuple[str, str]:
    """Return a Variable that holds a key, as it stands in the database and as Airflow reads it."""
    with create_session() as session:
        row = session.scalars(select(Variable).where(Variable.key == f"cloudbilling_api_key__{name}")).one()
        return str(row._val), str(row.get_val())


def advice(name: str) -> str:
    """Return what Airflow's UI says of a Variable that holds a key."""
    with create_session() as session:
        chosen = select(Variable.description).where(Variable.key == f"cloudbilling_api_key__{name}")
        return str(session.scalars(chosen).one())


def forget() -> None:
    """Remove what the functions above show."""
    with create_session() as session:
        for model in (AssetDagRunQueue, AssetEvent):
            session.execute(delete(model))
        session.execute(delete(Variable).where(Variable.key.startswith("cloudbilling_api_key__")))
