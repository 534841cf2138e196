"""Looking a connection up, with words for the case that there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_cloudbilling.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def connection_of(conn_id: str | None, field: str = "conn_id") -> Connection:
    """Return an Airflow connection.

    :param field: the argument that names it, for the error.
    :raises ConfigurationError: when no name is given.
    :raises AirflowNotFoundException: when there is none of that name, or none that Airflow can read.
    """
    if not conn_id or conn_id == "None":  # what a template renders that finds nothing
        raise ConfigurationError("is empty; name an Airflow connection.", field=field)
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        message = (
            f"{error}: compare the name with Admin, Connections. Airflow says the same of one that it cannot read, such"
            f" as AIRFLOW_CONN_{conn_id.upper()} with broken JSON."
        )
        raise AirflowNotFoundException(message) from None
