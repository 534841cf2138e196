"""``make ui``: Airflow's own UI on 127.0.0.1, with the sandbox as the vendors and the connections ready."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from airflow_cloudbilling.sandbox import Sandbox
from local_airflow import (
    AIRFLOW,
    DAG_ID,
    HOME,
    LOG,
    STAGING,
    airflow_env,
    fail,
    migrate,
    run_airflow,
    say,
    shown,
    start_log,
)

PATIENCE = 180  # seconds until all parts of Airflow must be up


def main() -> int:
    """Run the UI until Ctrl-C, and return the exit code."""
    start_log()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job would ignore
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Sandbox() as sandbox:
            say(f"The sandbox plays the vendors at {sandbox.url}")
            return show_ui(sandbox)
    except KeyboardInterrupt:
        return 0


def show_ui(sandbox: Sandbox) -> int:
    """Run Airflow's UI, scheduler and triggerer until Ctrl-C."""
    port = free_port(8080)
    env = airflow_env() | ui_env(port)
    migrate(env)
    add_connections(env, sandbox)
    say("Airflow starts (airflow standalone), about 20 seconds")
    with LOG.open("ab") as log:
        airflow = subprocess.Popen(
            [*AIRFLOW, "standalone"], env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", airflow)
            print(f"""
Airflow's UI:  http://127.0.0.1:{port}    user admin, password admin
    Dags → {DAG_ID}: the scheduled run of the last full month starts by itself
        Trigger imports any month again; leave it empty for the last full one
    Cloud billing: what is staged, once that run is through
    Admin → Connections: the vendors' forms and their Test buttons
Staging:       {shown(STAGING)}
Log:           {shown(LOG)}
Ctrl-C stops all of it.""")
            return airflow.wait()
        finally:
            say("Stopping Airflow")
            stop(airflow)


def ui_env(port: int) -> dict[str, str]:
    """Return the settings of a UI that only this machine reaches; its keys are new at every start."""
    passwords = HOME / "passwords.json"
    passwords.write_text(json.dumps({"admin": "admin"}))
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # standalone calls `airflow`
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
    }


def add_connections(env: dict[str, str], sandbox: Sandbox) -> None:
    """Put the sandbox's connections where the UI shows them: into Airflow's own database."""
    say("The sandbox's connections go into Airflow")
    file = HOME / "connections.json"
    file.write_text(json.dumps(sandbox.connections()))
    arguments = ("connections", "import", "--overwrite", str(file))
    run_airflow(env, *arguments, complaint="Airflow did not take the connections.")


def wait_until_healthy(url: str, airflow: subprocess.Popen[bytes]) -> None:
    """Wait until every part of Airflow says that it is healthy."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and airflow.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as reply:  # noqa: S310 - own loopback
                parts = json.load(reply)
            if all(parts[name]["status"] == "healthy" for name in ("metadatabase", "scheduler", "dag_processor")):
                return
        except (urllib.error.URLError, OSError, KeyError, ValueError):
            pass  # not up yet
        time.sleep(1)
    fail("Airflow did not start.")


def stop(airflow: subprocess.Popen[bytes]) -> None:
    """End Airflow with all its parts, some of which are in process groups of their own."""
    if airflow.poll() is None:
        parts = psutil.Process(airflow.pid).children(recursive=True)
        airflow.send_signal(signal.SIGINT)  # on SIGTERM it would leave its parts running
        _, left = psutil.wait_procs([psutil.Process(airflow.pid), *parts], timeout=20)
        for process in left:
            process.kill()
        airflow.wait()


def free_port(wanted: int) -> int:
    """Return the port that is wanted, or any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # taken
            return int(probe.getsockname()[1])
    raise OSError("no free port")


if __name__ == "__main__":
    sys.exit(main())
