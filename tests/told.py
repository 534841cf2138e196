"""What Airflow was told of assets."""

from __future__ import annotations

from typing import Any


def asset_events() -> list[tuple[str, str | None, dict[str, Any]]]:
    """Return uri, partition key and extra of all asset events, oldest first."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        events = session.scalars(select(AssetEvent).order_by(AssetEvent.id)).all()
        return [(event.uri, event.partition_key, event.extra) for event in events]
