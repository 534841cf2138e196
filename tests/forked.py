"""The same at the same moment in many processes, as tasks of Airflow are; a module loads once for all of them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

_RUN = """
    import multiprocessing, os, sys, threading, time

    def waiting(start, *args):
        start.wait()
        task(*args)

    count, *rest = sys.argv[1:]
    context = multiprocessing.get_context("fork")
    start = context.Barrier(int(count))
    # a joined thread may still hold OpenSSL's locks on its way out, and a process that is forked then has them for good
    while len(os.listdir("/proc/self/task")) > threading.active_count():
        time.sleep(0.001)
    processes = [context.Process(target=waiting, args=(start, *rest)) for _ in range(int(count))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(*(process.exitcode for process in processes))
"""


def forked(count: int, program: str, *args: object) -> list[int]:
    """Run a program's function ``task`` in so many processes and return how they ended.

    :param program: Python that defines ``task``; the modules of ``tests`` are there.
    :param args: for the task, as texts.
    """
    script = textwrap.dedent(program) + textwrap.dedent(_RUN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "."])}
    command = [sys.executable, "-c", script, str(count), *map(str, args)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    return [int(code) for code in done.stdout.splitlines()[-1].split()]
