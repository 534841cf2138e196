"""A proxy on TCP: passes bytes on to a port of this machine, and breaks connections where a test says so."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from airflow_cloudbilling.sandbox.wire import reset


class Break(NamedTuple):
    """How a connection ends before its time.

    :param after: bytes of the answers that are still passed on.
    :param how: ``reset`` (TCP RST), ``close`` (an ordinary end), ``stall`` (nothing comes any more).
    """

    after: int
    how: str = "reset"


class Proxy:
    """Listens from entering the context until leaving it.

    :param port: where everything goes.
    :param plan: says of each connection, by its number from 0, where it breaks.
    """

    def __init__(self, port: int, plan: Callable[[int], Break | None] = lambda number: None) -> None:
        self.plan = plan
        self.mute = False  # what is asked passes, the next answer does not: the connection is reset instead
        self.passed: list[int] = []  # bytes of answers, of each connection
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._stopping = threading.Event()
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number = len(self.passed)
            self.passed.append(0)
            threading.Thread(target=self._serve, args=(client, number), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        fault = self.plan(number)
        with suppress(OSError), client, socket.create_connection(self._target) as server:
            if fault and not fault.after:
                return self._end(client, fault.how)
            while not self._stopping.is_set():
                for source in select.select([client, server], [], [], 0.2)[0]:
                    data = source.recv(65536)
                    if not data:
                        return None
                    if source is client:
                        server.sendall(data)
                    elif self.mute:
                        return self._end(client, "reset")
                    elif not self._answered(client, data, number, fault):
                        return None
        return None

    def _answered(self, client: socket.socket, data: bytes, number: int, fault: Break | None) -> bool:
        """Pass an answer on, or what is left of it; return whether the connection goes on."""
        left = len(data) if fault is None else fault.after - self.passed[number]
        client.sendall(data[:left])
        self.passed[number] += min(len(data), left)
        if fault is None or left > len(data):
            return True
        self._end(client, fault.how)
        return False

    def _end(self, client: socket.socket, how: str) -> None:
        if how == "reset":
            reset(client)
        elif how == "stall":
            self._stopping.wait()
