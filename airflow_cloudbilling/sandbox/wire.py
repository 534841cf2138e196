"""Answers as bytes on the wire: HTTP/1.1 framing, sound or broken on purpose."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from http import HTTPStatus
from itertools import chain, islice

from airflow_cloudbilling.sandbox.faults import Fault
from airflow_cloudbilling.sandbox.vendor import Answer

HELD = 4  # pieces that are gathered before a body counts as too big for a Content-Length
TICK = 0.02


def frame(answer: Answer, *, chunks: bool = True, close: bool = False) -> Iterator[bytes]:
    """Yield the head of the answer, then its body: with a length if it is small, else in chunks.

    :param chunks: whether the client knows chunks (HTTP/1.1); else the end of the connection ends the body.
    """
    pieces = iter(answer.body)
    held = list(islice(pieces, HELD))
    if len(held) < HELD:
        length = [] if answer.status == 204 else [f"Content-Length: {sum(map(len, held))}"]
        yield head(answer, length, close)
        yield from held
    elif chunks:
        yield head(answer, ["Transfer-Encoding: chunked"], close)
        yield from (chunk(piece) for piece in chain(held, pieces) if piece)
        yield b"0\r\n\r\n"
    else:
        yield head(answer, [], True)
        yield from chain(held, pieces)


def head(answer: Answer, framing: list[str], close: bool) -> bytes:
    """Return the status line and the headers."""
    reason = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else "Unknown"
    lines = [f"HTTP/1.1 {answer.status} {reason}", "Server: cloudbilling-sandbox", *framing]
    lines += [f"Content-Type: {answer.content_type}"] if answer.content_type else []
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(piece: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def cut(answer: Answer, fault: Fault) -> Iterator[bytes]:
    """Yield an answer whose body stops early, at ``fault.at`` bytes or in the middle of its first piece."""
    start = b""
    for piece in answer.body:
        start += piece
        if len(start) > (fault.at or 0):
            break
    body = start[: len(start) // 2 if fault.at is None else fault.at]
    if fault.how == "chunked":
        yield head(answer, ["Transfer-Encoding: chunked"], True)
        yield chunk(body)
    else:
        announced = len(body) if fault.how == "clean" else max(len(start), len(body) + 1)
        yield head(answer, [f"Content-Length: {announced}"], True)
        yield body


def first_bytes(stream: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Yield no more than ``count`` bytes of a stream."""
    for piece in stream:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


def dripped(stream: Iterator[bytes], fault: Fault, stop: threading.Event) -> Iterator[bytes]:
    """Yield the stream at ``fault.rate`` bytes a second, its head at once unless ``how`` is ``head``."""
    if fault.how != "head":
        yield next(stream)
    step = max(1, int(fault.rate * TICK))
    for piece in stream:
        for at in range(0, len(piece), step):
            if stop.wait(step / fault.rate):
                return
            yield piece[at : at + step]


def reset(connection: socket.socket) -> None:
    """Close a connection with a TCP RST, as a crashed server or a firewall does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.close(connection.detach())
