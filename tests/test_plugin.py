"""The plugin's macros, as templates see them."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.plugins.cloudbilling import last_full_month, shift_month

DAG_WITH_MACROS = """
from airflow.sdk import DAG, task

with DAG("macros"):

    @task
    def months(*months: str) -> list[str]:
        return list(months)

    months(
        "{{ macros.cloudbilling.shift_month(dag_run.partition_key, -1) }}",
        "{{ macros.cloudbilling.last_full_month(dag_run.run_after) }}",
    )
"""


@pytest.mark.parametrize(
    ("month", "months", "shifted"),
    [("2026-10", -1, "2026-09"), ("2026-01", -1, "2025-12"), ("2026-12", 1, "2027-01"), ("2026-10", 0, "2026-10")],
)
def test_months_shift_over_the_turn_of_the_year(month, months, shifted):
    assert shift_month(month, months) == shifted


def test_a_month_that_is_none_is_named():
    with pytest.raises(ConfigurationError, match="2026-13"):
        shift_month("2026-13", -1)


def test_the_last_full_month_is_reckoned_in_utc():
    east = timezone(timedelta(hours=9))
    assert last_full_month(datetime(2026, 11, 1, 8, tzinfo=east)) == "2026-09"
    assert last_full_month(datetime(2026, 11, 1, 9, tzinfo=east)) == "2026-10"
    assert last_full_month(datetime(2026, 1, 31, tzinfo=timezone.utc)) == "2025-12"


@pytest.mark.matrix
def test_macros_render_in_a_template(dags_folder, run_dag):
    file = dags_folder / "macros.py"
    file.write_text(DAG_WITH_MACROS)
    months = run_dag(file, partition_key="2026-10")["months"]
    assert months == ["2026-09", last_full_month(datetime.now(timezone.utc))]


def test_the_plugin_brings_no_web_framework_into_workers():
    code = (
        "import sys; from airflow.sdk.plugins_manager import AirflowPlugin; before = set(sys.modules);"
        "import airflow_cloudbilling.plugins.cloudbilling;"
        "print([name for name in set(sys.modules) - before if not name.startswith('airflow_cloudbilling')])"
    )
    added = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert added.strip() == "[]"
