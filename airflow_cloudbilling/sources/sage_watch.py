"""What is known of an upload while it is waited for: its last state, and how long Sage could not be asked; no I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

from airflow_cloudbilling.errors import CloudBillingError, RefusedError, UnavailableError, VendorError
from airflow_cloudbilling.sources.sage_answers import Tracking
from airflow_cloudbilling.sources.sage_results import States

OUTAGE = 1800.0  # seconds


class Watch:
    """Takes what comes of each question, and says whether to go on.

    :param states: which states are an end.
    :param interval: seconds between two questions.
    :param outage: seconds for which Sage may be out of reach, or answer nothing of use, before the wait ends.
    :param grace: seconds for which the upload may be so new that Sage does not know its id yet.
    """

    def __init__(
        self,
        states: States,
        interval: float,
        outage: float = OUTAGE,
        *,
        grace: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.states = states
        self.interval = interval
        self.outage = outage
        self.answers = 0
        self.state = "not known yet"
        self._clock = clock
        self._grace_ends = clock() + grace
        self._out_since: float | None = None

    def said(self, tracking: Tracking) -> str | None:
        """Take an answer; return ``accepted`` or ``failed`` when it is an end."""
        self._out_since = None
        self.answers += 1
        progress = f", {tracking.progress}" if tracking.progress else ""
        self.state = f"{tracking.status}{progress}"
        return self.states.end(tracking.status)

    def failed(self, error: CloudBillingError) -> float:
        """Take a question that was not answered; return the seconds before the next one.

        :raises CloudBillingError: that error, when another question would not help, or the outage lasts too long.
        """
        now = self._clock()
        too_new = not self.answers and now < self._grace_ends
        if isinstance(error, RefusedError) and not (too_new and error.status == 404):
            raise error
        if not isinstance(error, VendorError):
            raise error
        self._out_since = now if self._out_since is None else self._out_since
        if now - self._out_since >= self.outage:
            raise error
        told = error.retry_after if isinstance(error, UnavailableError) else None
        return max(self.interval, told or 0.0)
