"""A real Airflow on loopback: API server, scheduler, DAG processor and triggerer, each a process of its own."""

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
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 180.0  # for anything; a machine that tests is busy
_FERNET = "bXktdmVyeS1vd24ta2V5LWZvci10ZXN0cy1vbmx5ISE="
_COMMANDS = {
    "api-server": ("api-server", "--host", "127.0.0.1", "--port"),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}


class RealAirflow:
    """Airflow's processes; :attr:`home` holds its database, its logs and its DAGs.

    :param home: an empty folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        version = importlib.metadata.version("apache-airflow-core")
        shutil.copy(ROOT / ".pytest_cache" / f"airflow-{version}.db", home / "airflow.db")
        (home / "passwords.json").write_text('{"admin": "admin"}')
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token = ""

    def start(self, name: str) -> None:
        """Start one of the processes."""
        command = [*_COMMANDS[name], *([str(self.port)] if name == "api-server" else ())]
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill one of the processes, with all that it has started, at once."""
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all processes, those that others talk to last."""
        for name in ("scheduler", "triggerer", "dag-processor", "api-server"):
            if name in self._processes:
                self._processes[name].send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    self._processes[name].wait(5)
                self.kill(name)

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

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        return own | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
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
        }


@contextmanager
def real_airflow(home: Path) -> Iterator[RealAirflow]:
    """Run a real Airflow, and leave no process behind."""
    airflow = RealAirflow(home)
    try:
        for name in _COMMANDS:
            airflow.start(name)
        yield airflow
    except AssertionError:
        for log in sorted(home.rglob("*.log")):
            sys.stderr.write("\n".join([log.name, *log.read_text(errors="replace").splitlines()[-15:], ""]))
        raise
    finally:
        airflow.stop()


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait for something to be true, and return it; an Airflow that does not answer yet is no error."""
    end = time.monotonic() + seconds
    while True:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if found := condition():
                return found
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.3)
