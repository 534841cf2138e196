"""An Airflow of the demo's own, in ``.demo/``, that has nothing to do with the user's."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / ".demo"
HOME = DEMO / "airflow"
LOG = DEMO / "airflow.log"
STAGING = DEMO / "erp_staging.db"
DAG_ID = "monthly_invoice_import"
AIRFLOW = [sys.executable, "-m", "airflow"]


def airflow_env() -> dict[str, str]:
    """Return an environment in which Airflow is the demo's own and knows the staging database."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    staging = {"conn_type": "sqlite", "host": str(STAGING), "description": "ERP staging of the demo"}
    return env | {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW_CONN_ERP_STAGING": json.dumps(staging),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
        "PYTHONUNBUFFERED": "1",
        "SCARF_ANALYTICS": "false",
    }


def start_log() -> None:
    """Make the folder, and the log anew."""
    HOME.mkdir(parents=True, exist_ok=True)
    LOG.write_text("")


def run_airflow(env: dict[str, str], *arguments: str, complaint: str) -> None:
    """Run one of Airflow's commands, its output to the log.

    :param complaint: what to say when it fails.
    """
    with LOG.open("ab") as log:
        if subprocess.run([*AIRFLOW, *arguments], env=env, stdout=log, stderr=log).returncode:
            fail(complaint)


def migrate(env: dict[str, str]) -> None:
    """Make Airflow's metadata database, once for each version of Airflow."""
    version = importlib.metadata.version("apache-airflow-core")
    done = HOME / f"migrated-{version}"
    if not done.exists():
        say(f"Airflow {version} makes its metadata database in {shown(HOME)} (once, about 15 seconds)")
        run_airflow(env, "db", "migrate", complaint="Airflow could not make its metadata database.")
        done.touch()


def say(text: str) -> None:
    """Print what is done now."""
    print(f"==> {text}", flush=True)


def fail(text: str) -> NoReturn:
    """Print the end of Airflow's log and end with exit code 1."""
    print("\n".join(f"    {line[:300]}" for line in LOG.read_text(errors="replace").splitlines()[-25:]))
    sys.exit(f"{text} All of its log is in {shown(LOG)}.")


def shown(path: Path) -> str:
    """Return a path as one would type it here."""
    return os.path.relpath(path)
