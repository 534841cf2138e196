"""The vendors that this package knows; a new one is one file beside this one and one entry here."""

from __future__ import annotations

from airflow_cloudbilling.source import Source
from airflow_cloudbilling.sources.cloudonex import CloudOnex
from airflow_cloudbilling.sources.orange import OrangeCloudStore
from airflow_cloudbilling.sources.sage import SageConnectedCloud
from airflow_cloudbilling.sources.store365 import Store365
from airflow_cloudbilling.sources.twotcloud import TwoTCloud

SOURCES: dict[str, Source] = {
    source.conn_type: source
    for source in (TwoTCloud(), OrangeCloudStore(), Store365(), CloudOnex(), SageConnectedCloud())
}
