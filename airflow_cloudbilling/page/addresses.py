"""Addresses of the page's views and of Airflow's own, which links lead to; no I/O, and nothing is imported."""

from __future__ import annotations

from urllib.parse import quote, urlencode

PREFIX = "/cloudbilling"  # of all views, below Airflow's own address


def view(airflow: str, name: str = "", **params: object) -> str:
    """Return the address of a view.

    :param airflow: Airflow's own address, or its path on the same host, without a slash at its end.
    :param name: such as ``invoices``; empty: the overview.
    :param params: what is empty is left out.
    """
    given = {key: value for key, value in params.items() if value not in (None, "")}
    return f"{airflow}{PREFIX}/{name}{f'?{urlencode(given)}' if given else ''}"


def task_instance(
    airflow: str, dag_id: str, run_id: str, task_id: str | None = None, map_index: int | None = -1
) -> str:
    """Return the address of a task instance in Airflow's UI, or of its run."""
    address = f"{airflow}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"
    if not task_id:
        return address
    mapped = f"/mapped/{map_index}" if map_index is not None and map_index >= 0 else ""
    return f"{address}/tasks/{quote(task_id, safe='')}{mapped}"
