"""One piece of work at a time beside the calling thread: a batch is sent while the next one is put together."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Beside:
    """Runs work on a thread of its own; waiting for it gives way to Ctrl-C and to signal handlers."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Begin a piece of work when the one before is done.

        :raises BaseException: what the one before raised.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name="cloudbilling-staging", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is under way.

        :raises BaseException: what the last piece of work raised.
        """
        self.end(None)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def end(self, seconds: float | None) -> None:
        """Wait for what is under way, whatever becomes of it.

        :param seconds: at most so long; ``None`` for as long as it takes.
        """
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
