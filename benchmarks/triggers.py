"""What thousands of uploads that wait for Sage cost one triggerer: memory, the event loop's lag, connections, requests.

The triggers run on one event loop, in a process of its own, against a sandbox in another one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import in_process, marked_down, memory, processor_seconds, tell

HERE = Path(__file__).parent
CONN_ID = "sage_connected_cloud_default"
SANDBOX = """
import json, sys
from airflow_cloudbilling.sandbox import Sandbox

count, pending = int(sys.argv[1]), int(sys.argv[2])
with Sandbox(months=1, invoices=1) as sandbox:
    sage, ids = sandbox.vendors["sage_connected_cloud"], []
    for _ in range(count):
        upload = sage.shelf.begin("Orders", ["in review"] * pending + ["accepted"])
        upload.receive(b"[]", ())
        ids.append(upload.tracking_id)
    print(json.dumps([sandbox.connections()["sage_connected_cloud_default"], ids]), flush=True)
    sys.stdin.read()
    print(json.dumps(sum(upload.polls for upload in sage.uploads.values())), flush=True)
"""


def main() -> None:
    """Measure, print the table, and write it down."""
    options = _options()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    from report import machine, processor_line

    found = [run(options, count) for count in (options.uploads // 10, options.uploads)]
    head = (
        "waiting uploads",
        "memory for each",
        "connections",
        "requests",
        "requests/s",
        "lag 99 %",
        "longest lag",
        "CPU",
    )
    lines = [
        marked_down([head, *map(_row, found)]),
        "",
        f"Every {options.interval:g} s, {options.answers} answers each. {processor_line(machine())}",
    ]
    print("\n".join(lines))
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "triggers.md").write_text("\n".join(lines) + "\n")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    lag, longest = (f"{one[name] * 1000:.0f} ms" for name in ("lag", "longest_lag"))
    each, rate = f"{one['bytes'] / one['uploads'] / 1000:.1f} kB", f"{one['requests'] / one['seconds']:.0f}"
    counts = (f"{one['uploads']:,}", each, str(one["connections"]), f"{one['requests']:,}", rate)
    return *counts, lag, longest, f"{100 * one['processor'] / one['seconds']:.0f} %"


def run(options: argparse.Namespace, uploads: int) -> dict[str, Any]:
    """Measure so many uploads in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="cloudbilling-bench-") as folder:
        own = {"uploads": uploads, "interval": options.interval, "answers": options.answers}
        found: dict[str, Any] = {**own, **in_process(__file__, own, AIRFLOW_HOME=folder)}
    tell(", ".join(_row(found)))
    return found


def measure(uploads: int, interval: float, answers: int) -> dict[str, Any]:
    """Wait for so many uploads on one event loop.

    :param interval: seconds between two questions for one upload.
    :param answers: how many it takes until an upload has ended.
    :raises SystemExit: when a trigger has not seen the end of its upload, or one was asked for once too often.
    """
    command = [sys.executable, "-c", SANDBOX, str(uploads), str(answers - 1)]
    vendor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert vendor.stdout
        connection, ids = json.loads(vendor.stdout.readline())
        os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps(connection)
        os.environ["AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE"] = ""
        found = asyncio.run(_measured(ids, interval))
    finally:
        told = vendor.communicate()[0]
    found["requests"] = json.loads(told)
    if found.pop("ended") != uploads or found["requests"] != uploads * answers:
        raise SystemExit(f"expected {uploads} uploads to end after {answers} answers each: {found}")
    return found


async def _measured(ids: list[str], interval: float) -> dict[str, Any]:
    from airflow_cloudbilling.triggers.sage import SageUploadTrigger

    await _wait(SageUploadTrigger(CONN_ID, "warms-up", time.time() + 1, 0.1, 1.0))  # imports all
    watcher = Watcher()
    before, used, began = memory("VmRSS", reset=True), processor_seconds(), time.perf_counter()
    deadline = time.time() + 3600
    watching, waits = asyncio.create_task(watcher.watch()), []
    for one in ids:
        await asyncio.sleep(0)  # as Airflow's triggerer does it
        waits.append(asyncio.create_task(_wait(SageUploadTrigger(CONN_ID, one, deadline, interval, 600.0))))
    states = await asyncio.gather(*waits)
    watching.cancel()
    seconds = time.perf_counter() - began
    return {
        "ended": states.count("ended"),
        "seconds": seconds,
        "bytes": memory("VmHWM") - before,
        "processor": processor_seconds() - used,
        "connections": watcher.connections,
        "lag": sorted(watcher.lags)[int(0.99 * len(watcher.lags))],
        "longest_lag": max(watcher.lags),
    }


async def _wait(trigger: Any) -> str:
    (event,) = [event.payload async for event in trigger.run()]
    return str(event["status"])


class Watcher:
    """Looks, a hundred times a second, how late the event loop is and how many connections there are."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.connections = 0
        self._before = _sockets()

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.01)
            self.lags.append(time.perf_counter() - began - 0.01)
            if len(self.lags) % 10 == 0:
                self.connections = max(self.connections, _sockets() - self._before)


def _sockets() -> int:
    """Return how many sockets this process has open."""
    return sum(file.is_socket() for file in Path("/proc/self/fd").iterdir())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=5000, help="that wait at once [5000]")
    parser.add_argument("--interval", type=float, default=30, help="seconds between two questions [30]")
    parser.add_argument("--answers", type=int, default=2, help="until an upload has ended [2]")
    parser.add_argument("--output", default=str(HERE / "results"), help="folder of triggers.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
