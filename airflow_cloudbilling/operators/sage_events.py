"""What a trigger says of an upload, as an operator and a sensor take it."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, NamedTuple

from airflow.sdk.exceptions import AirflowException, AirflowFailException

_BACKSTOP = 60.0  # seconds that Airflow's own time-out of the deferral comes later than the trigger's
_MOST_BARREN = 5


def deferral_timeout(deadline: float) -> timedelta:
    """Return the time-out of a deferral whose trigger ends by itself.

    :param deadline: the trigger's, seconds since the epoch.
    """
    return timedelta(seconds=max(0.0, deadline - time.time()) + _BACKSTOP)


class Said(NamedTuple):
    """What an event says that lets a task go on.

    Everything stands in the event: ``dag.test()`` loses what a task gives along when it is deferred.

    :param late: whether the time to wait is over.
    :param state: of the upload, as Sage said it last.
    :param deadline: of the whole wait, seconds since the epoch.
    :param barren: how often in a row a triggerer got no answer with a key that a worker had made good.
    """

    tracking_id: str
    late: bool
    state: str
    deadline: float
    barren: int


def read_event(event: Any) -> Said:
    """Return what an event says: the upload has ended, a worker shall renew the API key, or the time is over.

    :raises AirflowException: when the wait has failed; also for an event that is not known.
    """
    status = event.get("status") if isinstance(event, dict) else None
    if status == "failed":
        raise (AirflowFailException if event.get("for_good") else AirflowException)(event["message"])
    try:
        if status not in ("ended", "renew", "timeout"):
            raise KeyError(status)
        barren = event["barren"] + 1 if status == "renew" and not event["answers"] else 0
        said = Said(event["tracking_id"], status == "timeout", str(event["state"]), event["deadline"], barren)
    except KeyError:
        raise AirflowException(f"The trigger ended with an event that is not known: {event!r}.") from None
    if barren > _MOST_BARREN:
        raise AirflowException(
            "The triggerer's API key is refused again and again although a worker's is taken; look whether both read"
            " the same store ([cloudbilling] credential_store)."
        )
    return said
