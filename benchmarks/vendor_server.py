"""A vendor on loopback whose pages are bytes in memory, so that a measurement shows the client and not the server.

One process, one loop: a request costs a look for its page and one write. Keep-alive, a token endpoint, a wait before
each answer, and what came is counted. ``Vendor`` starts one; run by itself this module is one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from measuring import Result

TOKEN = "token-of-the-benchmark"  # noqa: S105 - of a vendor that lives for minutes, on loopback
NUMBER = re.compile(rb"[?&](?:pageNumber|page)=(\d+)")
SIZE = re.compile(rb"[?&](?:pageSize|limit)=(\d+)")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
TOKEN_BODY = f'{{"access_token": "{TOKEN}", "token_type": "bearer", "expires_in": "3600"}}'.encode()


class Vendor:
    """A vendor in a process of its own, from entering the context until leaving it.

    :param name: ``store365`` or ``cloudonex``.
    :param pages: of a hundred invoices each.
    :param folder: where ``<name>-<state>.json`` says what is true.
    """

    def __init__(self, name: str, pages: int, folder: Path) -> None:
        self.name = name
        self._arguments = {"vendor": name, "pages": pages, "folder": str(folder)}

    def __enter__(self) -> Vendor:
        command = [sys.executable, __file__, json.dumps(self._arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        ready = json.loads(self._process.stdout.readline())
        self.url, self.bytes = ready["url"], ready["bytes"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it ends with its input

    def begin(self, state: str, latency: float) -> None:
        """Choose what is answered, ``present`` or ``changed``, after how many seconds; count from zero."""
        self._control(f"state={state}&latency={latency}")

    def counted(self) -> Result:
        """Return the requests and the connections since then."""
        return self._control("")

    def connection(self, connections: int) -> Result:
        """Return the Airflow connection of this package."""
        if self.name == "store365":
            extra = {"client_id": "bench", "auth_url": f"{self.url}/auth", "max_connections": connections}
            login = {"login": "bench", "password": TOKEN}
            return {"conn_type": "store365", "host": self.url, **login, "extra": extra}
        extra = {"max_connections": connections}
        return {"conn_type": "cloudonex", "host": self.url, "password": TOKEN, "extra": extra}

    def _control(self, query: str) -> Result:
        with urllib.request.urlopen(f"{self.url}/control?{query}", timeout=60) as answer:  # noqa: S310 - loopback
            found: Result = json.load(answer)
        return found


class Pages:
    """The answers and what was asked for.

    :param answers: state → page after page, each with its head.
    :param beyond: what comes after the last page.
    """

    def __init__(self, answers: dict[str, list[bytes]], beyond: bytes) -> None:
        self._answers, self._beyond = answers, beyond
        self.state, self.latency = "present", 0.0
        self.requests = self.connections = 0
        self._key = f"authorization: bearer {TOKEN}\r\n".encode()

    def answer(self, line: bytes, head: bytes) -> tuple[bytes, float]:
        """Return what is sent, and after how many seconds."""
        if b" /control?" in line:
            return self._control(line), 0.0
        self.requests += 1
        if line.startswith(b"POST "):
            return framed(TOKEN_BODY), self.latency
        if self._key not in head.lower():
            return framed(b'{"message": "Bad credentials"}', b"401 Unauthorized"), self.latency
        size, number = SIZE.search(line), NUMBER.search(line)
        if not size or not number or size[1] != b"100":
            return framed(b'{"message": "pages have 100 records here"}', b"400 Bad Request"), self.latency
        pages, page = self._answers[self.state], int(number[1])
        return pages[page - 1] if page <= len(pages) else self._beyond, self.latency

    def _control(self, line: bytes) -> bytes:
        said = dict(part.split("=") for part in line.decode().split(" ")[1].partition("?")[2].split("&") if part)
        counted = framed(json.dumps({"requests": self.requests, "connections": self.connections - 1}).encode())
        if said:
            self.state, self.latency = said["state"], float(said["latency"])
            self.requests = self.connections = 0
        return counted


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, pages: Pages) -> None:
        self._pages, self._came = pages, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._pages.connections += 1

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, end, body = self._came.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            return
        self._came = b""
        answer, latency = self._pages.answer(head.partition(b"\r\n")[0], head + b"\r\n")
        if latency:
            asyncio.get_running_loop().call_later(latency, self._transport.write, answer)
        else:
            self._transport.write(answer)


def framed(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Return an answer with its head."""
    return b"HTTP/1.1 %s\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s" % (
        status, len(body), body,
    )  # fmt: skip


async def serve(vendor: str, pages: int, folder: str) -> None:
    """Make the pages, say where they are, and serve until the input ends."""
    from vendor_books import STATES, Month

    month = Month(vendor, pages)
    for state in STATES:
        Path(folder, f"{vendor}-{state}.json").write_text(json.dumps(month.truth(state)))
    answers = {state: [framed(body) for body in month.bodies(state)] for state in STATES}
    beyond = framed(b'{"pageNumber": 1, "results": []}' if vendor == "store365" else b'{"success":true,"data":[]}')
    served = Pages(answers, beyond)
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(served), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(json.dumps({"url": url, "bytes": sum(map(len, answers["present"]))}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(**json.loads(sys.argv[1])))
