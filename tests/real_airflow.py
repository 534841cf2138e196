"""A real Airflow on loopback, as it is deployed: on one machine, on PostgreSQL, with Celery's workers."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import psutil
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

ROOT = Path(__file__).parents[1]
SECONDS = 180.0  # for anything; a machine that tests is busy
_FERNET = "bXktdmVyeS1vd24ta2V5LWZvci10ZXN0cy1vbmx5ISE="


class RealAirflow:
    """Airflow's processes, on SQLite; :attr:`home` holds its database, its logs and its DAGs.

    :param home: an empty folder.
    """

    # Those that others talk to come last: so they are ended.
    commands: ClassVar[dict[str, tuple[str, ...]]] = {
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "triggerer": ("triggerer", "--skip-serve-logs"),
        "dag-processor": ("dag-processor",),
        "api-server": ("api-server",),
    }
    end: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, home: Path) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (home / "passwords.json").write_text('{"admin": "admin"}')
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token = ""
        self.prepare()

    def prepare(self) -> None:
        """Lay a metadata database."""
        version = importlib.metadata.version("apache-airflow-core")
        shutil.copy(ROOT / ".pytest_cache" / f"airflow-{version}.db", self.home / "airflow.db")

    def start(self, name: str) -> None:
        """Start one of the processes."""
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *self.commands[name]],
                cwd=self.home,
                env=self.environment() | self.own_environment(name),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill one of the processes, with all that it has started, at once."""
        process, started = self._processes.pop(name), []
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(process.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()

    def stop(self) -> None:
        """End all processes, those that others talk to last."""
        for name in self.commands:
            if name in self._processes:
                self._processes[name].send_signal(self.end)
                with suppress(subprocess.TimeoutExpired):
                    self._processes[name].wait(5)
                self.kill(name)

    def lay(self, name: str, source: str) -> None:
        """Put a DAG file where every process finds it."""
        (self.dags / name).write_text(source)

    def started_by(self, pid: int) -> str:
        """Return which of the processes has started one, itself or by others."""
        above = {pid, *(one.pid for one in psutil.Process(pid).parents())}
        return next(name for name, process in self._processes.items() if process.pid in above)

    def printed(self, name: str) -> list[str]:
        """Return the lines that one of the processes has printed."""
        return (self.home / f"{name}.log").read_text(errors="replace").splitlines()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call Airflow's API, and return what it answers; ask again when its SQLite was locked."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            answer = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            if error.code != 500:
                raise
            time.sleep(1)
            answer = urllib.request.urlopen(request, timeout=30)
        with answer:
            return json.loads(answer.read() or b"null")

    def ready(self) -> None:
        """Wait until all is healthy, and log in."""

        def healthy() -> bool:
            parts = self.call("GET", "/api/v2/monitor/health")
            return all(parts[name]["status"] == "healthy" for name in ("scheduler", "triggerer", "dag_processor"))

        until(healthy)
        login = {"username": "admin", "password": "admin"}
        self._token = self.call("POST", "/auth/token", login)["access_token"]

    def run(self, dag_id: str, month: str | None = None, **conf: Any) -> str:
        """Start a run of a DAG, once that is parsed; return the run's id.

        :param month: its partition.
        """
        until(lambda: self.call("GET", f"/api/v2/dags/{dag_id}"))
        asked = {"logical_date": None, "partition_key": month, "conf": conf}
        return str(self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", asked)["dag_run_id"])

    def runs(self, dag_id: str, month: str | None = None) -> dict[str, str]:
        """Return a DAG's runs, the oldest first, with their states.

        :param month: only those of this partition.
        """
        found = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns?limit=100&order_by=id")["dag_runs"]
        return {one["dag_run_id"]: one["state"] for one in found if month in (None, one["partition_key"])}

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the tasks' states."""
        found = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances")
        return {one["task_id"]: one["state"] for one in found["task_instances"]}

    def everything(self) -> bytes:
        """Return all that it has written: its database, and every log."""
        return b"".join(file.read_bytes() for file in self.home.rglob("*") if file.is_file())

    def own_environment(self, name: str) -> dict[str, str]:
        """Return what only one of the processes finds in its environment."""
        return {}

    def environment(self) -> dict[str, str]:
        """Return what every process finds in its environment."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        return own | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__SECRET_KEY": "0" * 64,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "1" * 64,
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": _FERNET,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",  # a file that is new is read at once
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "NO_PROXY": "127.0.0.1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # standalone calls airflow
        }


class Standalone(RealAirflow):
    """``airflow standalone``, which starts all the others itself."""

    commands: ClassVar = {"standalone": ("standalone",)}
    end: ClassVar = signal.SIGINT

    def printed(self, name: str) -> list[str]:
        return super().printed("standalone")

    def environment(self) -> dict[str, str]:
        ports = {name: str(free_port()) for name in ("WORKER_LOG_SERVER_PORT", "TRIGGER_LOG_SERVER_PORT")}
        return super().environment() | {f"AIRFLOW__LOGGING__{name}": port for name, port in ports.items()}


class OnPostgres(RealAirflow):
    """Airflow's processes with their database on PostgreSQL."""

    def prepare(self) -> None:
        self.server = make_url(os.environ["CLOUDBILLING_TEST_POSTGRES"]).set(drivername="postgresql+psycopg")
        self.name = f"cloudbilling_airflow_{uuid4().hex[:12]}"
        self._on_server(f"CREATE DATABASE {self.name}")
        with (self.home / "migrate.log").open("wb") as log:
            migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
            subprocess.run(migrate, env=self.environment(), check=True, stdout=log, stderr=log)

    def stop(self) -> None:
        super().stop()
        self._on_server(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")

    def environment(self) -> dict[str, str]:
        url = self.server.set(database=self.name).render_as_string(hide_password=False)
        return super().environment() | {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url,  # psycopg knows both ways
        }

    def _on_server(self, sql: str) -> None:
        with create_engine(self.server, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql(sql)


class OnCelery(OnPostgres):
    """Airflow on PostgreSQL with Redis and two workers of Celery, each as on a machine of its own.

    A worker has its own home, DAGs, logs and temporary files; the machine's names are all that they share.
    """

    workers = ("worker-1", "worker-2")
    commands: ClassVar = {
        **{name: ("celery", "worker", "--skip-serve-logs", "--concurrency", "2", "-H", name) for name in workers},
        **RealAirflow.commands,
    }

    def prepare(self) -> None:
        super().prepare()
        for name in self.workers:
            (self.home / name / "tmp").mkdir(parents=True)
            (self.home / name / "dags").mkdir()

    def lay(self, name: str, source: str) -> None:
        super().lay(name, source)
        for worker in self.workers:
            (self.home / worker / "dags" / name).write_text(source)

    def environment(self) -> dict[str, str]:
        redis = os.environ.get("CLOUDBILLING_TEST_REDIS", "redis://127.0.0.1:6379/0")
        return super().environment() | {
            "AIRFLOW__CELERY__BROKER_URL": redis,
            "AIRFLOW__CELERY__RESULT_BACKEND": redis,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__OPERATORS__DEFAULT_QUEUE": self.name,  # of this Airflow alone
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",  # a worker that died is noticed soon
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        }

    def own_environment(self, name: str) -> dict[str, str]:
        if name not in self.workers:
            return {}
        own = self.home / name
        return {
            "AIRFLOW_HOME": str(own),
            "AIRFLOW__CORE__DAGS_FOLDER": str(own / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////none/of/a/worker",  # it asks the API server
            "HOME": str(own),
            "TMPDIR": str(own / "tmp"),
        }


@contextmanager
def real_airflow(home: Path, kind: type[RealAirflow] = RealAirflow) -> Iterator[RealAirflow]:
    """Run a real Airflow, and leave no process behind."""
    airflow = kind(home)
    try:
        for name in airflow.commands:
            airflow.start(name)
        yield airflow
    except AssertionError:
        for log in sorted(home.rglob("*.log")):
            sys.stderr.write("\n".join([log.name, *log.read_text(errors="replace").splitlines()[-15:], ""]))
        raise
    finally:
        airflow.stop()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait for something to be true, and return it; an Airflow that does not answer yet is no error."""
    end = time.monotonic() + seconds
    while True:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if found := condition():
                return found
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.3)
