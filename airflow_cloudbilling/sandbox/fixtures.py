"""A pytest plugin with one fixture: the vendors on loopback, fresh for every test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_cloudbilling.sandbox.server import Sandbox


@pytest.fixture
def cloudbilling_sandbox() -> Iterator[Sandbox]:
    """Serve the vendors for one test, with a small fixed data set (3 months of 12 invoices) and no faults."""
    from airflow_cloudbilling.sandbox.server import Sandbox

    with Sandbox(months=3) as sandbox:
        yield sandbox
