"""What every test stands on: an Airflow of its own, no network but loopback, a vendor and a staging database.

Airflow reads its settings when it is first imported, so they are set here, before any test module is.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import figures
import pytest
import staged

ROOT = Path(__file__).parents[1]
MEMORY = Path("/dev/shm")  # what lies there is never synced to a disk: most of what many small databases cost
if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 1024**3:
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)
HOME = Path(tempfile.mkdtemp(prefix="cloudbilling-tests-"))
DAGS = HOME / "dags"
LONGEST = ("test_uploads_kill.py", "test_staging_kill.py", "test_uploads_race.py", "test_soak.py", "test_time.py")

for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]  # nothing of the user's own Airflow takes part
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/execution/",  # tasks run in the test's own process
    "AIRFLOW__CORE__FERNET_KEY": "",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
        [
            {
                "name": name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(folder)},
            }
            for name, folder in (("examples", ROOT / "example_dags"), ("tests", DAGS))
        ]
    ),
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
    "SCARF_ANALYTICS": "false",
}


class NetworkError(RuntimeError):
    """A test tried to reach another machine."""


def only_loopback(event: str, args: tuple[Any, ...]) -> None:
    """Refuse a connection to any address but this machine's own.

    :param event: name of a Python audit event.
    :param args: of ``socket.connect``: the socket and the address.
    """
    if event != "socket.connect" or not isinstance(args[1], tuple):
        return
    host = str(args[1][0])
    if host != "localhost" and host != "::1" and not host.startswith("127."):
        raise NetworkError(f"a test tried to connect to {host}; tests talk to loopback only")


def pytest_configure(config: pytest.Config) -> None:
    """Guard the network and lay a migrated metadata database, made once for each version of Airflow."""
    sys.addaudithook(only_loopback)
    DAGS.mkdir()
    version = importlib.metadata.version("apache-airflow-core")
    template = Path(config.rootpath, ".pytest_cache", f"airflow-{version}.db")
    if not template.exists():
        sys.stderr.write(f"Making Airflow {version}'s metadata database, once …\n")
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
        template.parent.mkdir(exist_ok=True)
        scratch = template.with_suffix(f".{os.getpid()}")
        shutil.copy(HOME / "airflow.db", scratch)
        scratch.replace(template)
    shutil.copy(template, HOME / "airflow.db")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which databases were left out, and how to take them in."""
    for kind, variable in staged.SERVERS.items():
        if kind not in staged.NAMED:
            terminalreporter.write_line(f"Left out: every check on {kind}. Name a server in {variable} to run them.")
    if "CLOUDBILLING_TEST_THOROUGH" in os.environ:
        figures.write(terminalreporter.getreports("passed"))


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    staged.Erp.drop_kept()
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to targets of their own what takes long on a database server, and what is many tests on each of them.

    What takes longest begins first, so that no core waits for another at the end.
    """
    for item in items:
        if not getattr(item, "callspec", None) or item.callspec.params.get("erp", "sqlite") == "sqlite":
            continue
        if item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.slow)
        elif item.get_closest_marker("each_database"):
            item.add_marker(pytest.mark.servers)
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def dags_folder() -> Iterator[Path]:
    """Give an empty folder that Airflow reads DAG files from."""
    yield DAGS
    for file in DAGS.glob("*.py"):
        file.unlink()


@pytest.fixture
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name an empty SQLite staging database in the connection ``erp_staging`` and return its path."""
    path = tmp_path / "erp_staging.db"
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


@pytest.fixture(params=["sqlite", *staged.NAMED])
def erp(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[staged.Erp]:
    """Name an empty database of each kind in turn in the connection ``erp_staging`` and return it.

    With the mark ``bare`` it has no tables either.
    """
    database = staged.Erp(request.param, tmp_path, bare=request.node.get_closest_marker("bare") is not None)
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(database.connection))
    yield database
    database.drop()


@pytest.fixture
def vendor(cloudbilling_sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the sandbox vendor, name it in the connection ``twotcloud_default`` and return it."""
    for name, value in cloudbilling_sandbox.environment().items():
        monkeypatch.setenv(name, value)
    return cloudbilling_sandbox


@pytest.fixture
def sage(vendor: Any) -> Any:
    """Run the sandbox and return its Sage, which ``sage_connected_cloud_default`` names."""
    return vendor.vendors["sage_connected_cloud"]


@pytest.fixture
def run_dag() -> Callable[..., dict[str, Any]]:
    """Return a function that runs a DAG as Airflow does, in this process, and returns each task's results.

    :return: ``run(file, partition_key=None, **conf)`` → task id → result, or the list of results by map index of a
        mapped task. The DAG file is read anew for each run, since a run's conf stays in the DAG object's params.
    :raises AssertionError: when the run does not succeed.
    """
    return _run


def _run(file: Path, *, partition_key: str | None = None, **conf: Any) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dagrun import DagRun
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import event, select

    def partitioned(_mapper: object, _connection: object, run: DagRun) -> None:
        run.partition_key = partition_key  # dag.test() has no argument for it; the scheduler sets this column

    bag = DagBag(file)
    assert not bag.import_errors, bag.import_errors
    (dag,) = bag.dags.values()
    event.listen(DagRun, "before_insert", partitioned)
    try:
        run = dag.test(run_conf=conf, **({"logical_date": None} if partition_key else {}))
    finally:
        event.remove(DagRun, "before_insert", partitioned)
    assert run.state == "success", {ti.task_id: ti.state for ti in run.get_task_instances()}
    results: dict[str, Any] = {}
    with create_session() as session:
        chosen = select(XComModel).where(XComModel.run_id == run.run_id, XComModel.key == "return_value")
        for row in session.scalars(chosen.order_by(XComModel.map_index)):
            value = XComModel.deserialize_value(row)
            if row.map_index < 0:
                results[row.task_id] = value
            else:
                results.setdefault(row.task_id, []).append(value)
    return results
