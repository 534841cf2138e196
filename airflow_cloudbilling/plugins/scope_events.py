"""Asset events of Sage's scopes, which start the DAGs that wait for them; told by the API server, to its database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from airflow.assets.manager import asset_manager
from airflow.models.asset import AssetEvent, AssetModel
from airflow.utils.session import create_session
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from airflow_cloudbilling.assets import scope_asset


def tell(conn_id: str, scope: str, since: datetime, window: timedelta, now: datetime) -> float:
    """Tell Airflow that Sage may have new data: an event for each of the connection's scopes that DAGs name.

    At most one in each window, so that calls in a row start one run and no more.

    :param scope: the one that is meant; empty, or known to no DAG: all of them.
    :param since: when Sage said so; an event that is not older says it too.
    :param now: in UTC.
    :returns: seconds until it can be told what could not be told within the window; 0: all is told.
    """
    with create_session() as session:
        waits = [_tell(session, one, since, window, now) for one in _assets(session, conn_id, scope)]
    return max(waits, default=0.0)


def _tell(session: Session, asset: AssetModel, since: datetime, window: timedelta, now: datetime) -> float:
    as_it_is = {"id": asset.id, "updated_at": AssetModel.updated_at}
    session.execute(update(AssetModel).where(AssetModel.id == asset.id).values(as_it_is))  # locks it, on any database
    last = session.scalar(select(func.max(AssetEvent.timestamp)).where(AssetEvent.asset_id == asset.id))
    if last is not None and last >= since:
        return 0.0
    if last is not None and last + window > now:
        return (last + window - now).total_seconds()
    asset_manager.register_asset_change(asset=asset, extra={"from_notification": True}, session=session)
    return 0.0


def _assets(session: Session, conn_id: str, scope: str) -> Sequence[AssetModel]:
    """Return the assets to tell of, in the order in which all tell of them, so that none waits for another."""
    prefix = scope_asset(conn_id, "-").uri.removesuffix("-")
    known = select(AssetModel).where(AssetModel.uri.startswith(prefix, autoescape=True), AssetModel.active.has())
    every = session.scalars(known.order_by(AssetModel.id)).all()
    return _named(every, scope_asset(conn_id, scope).uri) if scope else every


def _named(every: Sequence[AssetModel], uri: str) -> Sequence[AssetModel]:
    return [one for one in every if one.uri.lower() == uri.lower()] or every
