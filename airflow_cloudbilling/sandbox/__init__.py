"""The vendors on loopback: real HTTP, real authentication, a fixed data set with known sums, and faults on demand.

``python -m airflow_cloudbilling.sandbox --help`` serves it; in tests use the fixture ``cloudbilling_sandbox`` or
``with Sandbox() as sandbox:``. Standard library only, and nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_cloudbilling.sandbox.server import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    """Import the server on first use: pytest loads this package at every start, for the fixture."""
    if name == "Sandbox":
        from airflow_cloudbilling.sandbox.server import Sandbox

        return Sandbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
