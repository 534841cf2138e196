"""Disks of a few megabytes that really fill up, for a worker or a database; servers are of the test's own.

It takes the right to mount, and for a server its programs on this machine: :data:`KINDS` are the databases that can be
tried, :data:`FOLDERS` the disks of a worker.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool
from staged import DRIVERS, SERVERS, Erp

SIZE = 32_000_000  # bytes
BALLAST = "ballast"  # the file that fills a disk
LEFT = 200_000  # bytes, on a full disk: enough for what is there, too little for a load
MOUNT = 1 << 21  # CAP_SYS_ADMIN, in the kernel's capability.h
_USERS = {"postgres": "postgres", "mysql": "mysql"}  # who a server runs as when root starts it


def _program(name: str) -> str | None:
    """Return where a server's program is; Debian keeps PostgreSQL's off the path."""
    there = sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))
    return shutil.which(name) or (there[-1] if there else None)


def _kinds() -> list[str]:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    if os.geteuid() or not int(status["CapEff"], 16) & MOUNT:
        return []
    programs = {"postgres": ("initdb", "postgres"), "mysql": ("mariadb-install-db", "mariadbd")}
    return ["sqlite", *(kind for kind, names in programs.items() if all(map(_program, names)))]


KINDS = _kinds()
FOLDERS = ["tmpfs"] if KINDS else []


def fill(disk: Path, left: int) -> None:
    """Leave so many bytes on a disk, or less than a block more."""
    room = os.statvfs(disk)
    (disk / BALLAST).write_bytes(b"\0" * max(room.f_bavail * room.f_bsize - left, 0))


def free(disk: Path) -> None:
    """Make room again."""
    (disk / BALLAST).unlink(missing_ok=True)


class Small(NamedTuple):
    """A staging database, and the disk that it lies on."""

    erp: Erp
    disk: Path
    server: Server | None = None

    def fill(self) -> None:
        """Leave hardly any room on the disk."""
        fill(self.disk, LEFT)

    def free(self) -> None:
        """Make room again, as a person would; MariaDB ends itself on a full disk, and is started again."""
        free(self.disk)
        if self.server and self.server.process.poll() is not None:
            self.server.start()


@contextmanager
def small(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Small]:
    """Run a database on a small disk, and name it in the connection ``erp_staging``; it has no tables yet."""
    with ExitStack() as after:
        folder = Path(tempfile.mkdtemp(prefix="cloudbilling-disk-"))
        after.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # a server has a user of its own
        disk = folder / "disk"
        if kind == "sqlite":
            after.enter_context(mounted(disk))
            yield Small(Erp(kind, disk), disk)
            return
        server = after.enter_context(Server(kind, folder / "data"))
        monkeypatch.setenv(SERVERS[kind], server.url)
        erp = Erp(kind, folder, bare=True)
        if kind == "postgres":
            after.enter_context(mounted(disk, kind))
            erp._on_server(f"CREATE TABLESPACE small LOCATION '{disk}'")
            erp._on_server(f"ALTER DATABASE {erp.name} SET default_tablespace = small")
        else:  # a database is a folder
            disk = folder / "data" / erp.name
            options = (disk / "db.opt").read_bytes()
            after.enter_context(mounted(disk, kind))
            (disk / "db.opt").write_bytes(options)
        yield Small(erp, disk, server)


@contextmanager
def mounted(folder: Path, kind: str = "") -> Iterator[None]:
    """Let a folder be a disk of :data:`SIZE`.

    :param kind: of the server that owns it; empty: this process.
    """
    folder.mkdir(exist_ok=True)
    owner = f",uid={_USERS[kind]},gid={_USERS[kind]}" if kind else ""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700{owner}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Server:
    """A database server of a test's own, from entering the context until leaving it.

    :param data: the folder that it makes for what it holds.
    """

    process: subprocess.Popen[bytes]

    def __init__(self, kind: str, data: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._made_by, self._run, self.url, self._stop = {"postgres": _postgres, "mysql": _mariadb}[kind](data, port)
        self._kind, self._data = kind, data

    def __enter__(self) -> Server:
        self._data.mkdir(mode=0o700)
        shutil.chown(self._data, *[_USERS[self._kind]] * 2)
        subprocess.run(self._made_by, check=True, **self._as_its_user)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(self._stop)
        self.process.wait(60)

    @property
    def _as_its_user(self) -> dict[str, Any]:
        user, quiet = _USERS[self._kind], subprocess.DEVNULL
        return {"user": user, "group": user, "extra_groups": [], "stdout": quiet, "stderr": quiet, "cwd": "/"}

    def start(self) -> None:
        """Run it, and wait until it answers."""
        self.process = subprocess.Popen(self._run, **self._as_its_user)
        url = self.url.replace(self.url.partition(":")[0], DRIVERS[self._kind], 1)
        for _ in range(600):  # a minute; who connects next says why it does not answer
            if self.process.poll() is not None or _answers(url):
                return
            time.sleep(0.1)


def _postgres(data: Path, port: int) -> tuple[list[str], list[str], str, signal.Signals]:
    make = [_program("initdb") or "", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    run = [_program("postgres") or "", "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
    return make, run, f"postgresql://postgres@127.0.0.1:{port}/postgres", signal.SIGINT


def _mariadb(data: Path, port: int) -> tuple[list[str], list[str], str, signal.Signals]:
    where = ["--no-defaults", f"--datadir={data}"]
    make = [_program("mariadb-install-db") or "", *where, "--auth-root-authentication-method=normal", "--skip-test-db"]
    own = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={data}/socket", f"--pid-file={data}/pid"]
    run = [_program("mariadbd") or "", *where, *own, "--innodb-buffer-pool-size=32M", "--skip-log-bin"]
    return make, run, f"mysql://root@127.0.0.1:{port}/mysql", signal.SIGTERM


def _answers(url: str) -> bool:
    try:
        with create_engine(url, poolclass=NullPool).connect():
            return True
    except SQLAlchemyError:
        return False
