"""``make fuzz``: atheris draws bytes for each parser and keeps those that reach further into it.

Bytes that break a parser go to ``data/fuzz``, where ``test_fuzz.py`` tries them from then on; how much was tried goes
to ``benchmarks/results/fuzz.md``. It goes on from where the last run in the same virtual environment ended.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "fuzz.json"
CORPUS = Path(sys.prefix) / "corpus"
SECONDS = 100  # of each parser: ten minutes of all six
LIMITS = ("-timeout=10", "-rss_limit_mb=1024", "-max_len=16384", "-print_final_stats=1")
HEAD = ("parser", "executions", "seconds", "inputs that reach something of their own", "broke it")


def main() -> int:
    """Fuzz one parser after the other; return 1 when one broke."""
    arguments = argparse.ArgumentParser(description="Draw bytes for the parsers and keep what breaks them.")
    arguments.add_argument("parsers", nargs="*", help="json, xml, csv, einvoice, record, file; by default all of them")
    arguments.add_argument("--seconds", type=int, default=SECONDS, help="for each parser (default: %(default)s)")
    chosen = arguments.parse_args()
    from parsers import ODD, TARGETS

    broken = 0
    for name in chosen.parsers or TARGETS:
        seeds = CORPUS / name
        seeds.mkdir(parents=True, exist_ok=True)
        for seed in TARGETS[name].seeds():
            (seeds / sha256(seed).hexdigest()).write_bytes(seed)
        with tempfile.TemporaryDirectory() as folder:
            words = Path(folder, "words")
            words.write_text("".join(f'"{_escaped(word)}"\n' for word in ODD))
            found = _fuzzed(name, chosen.seconds, words, Path(folder))
        _keep(name, found)
        broken += found["broke it"]
    return min(broken, 1)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02X}" for byte in word)


def _fuzzed(name: str, seconds: int, words: Path, folder: Path) -> dict[str, int]:
    """Fuzz a parser in a process of its own, and return the figures."""
    print(f"{name}: {seconds} s …", flush=True)  # noqa: T201 - a command line program
    options = [*LIMITS, f"-max_total_time={seconds}", f"-dict={words}", f"-artifact_prefix={folder}/broke-"]
    command = [sys.executable, __file__, "--draw", name, *options, str(CORPUS / name)]
    began = time.monotonic()
    done = subprocess.run(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, errors="replace")
    culprits = [*folder.glob("broke-*")]
    for culprit in culprits:
        kept = HERE / "data" / "fuzz" / name / sha256(culprit.read_bytes()).hexdigest()[:16]
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(culprit, kept)
        print(f"{done.stdout[-6000:]}\n{name} broke; the bytes are in {kept}", flush=True)  # noqa: T201 - a command line program
    if done.returncode and not culprits:
        raise SystemExit(f"{done.stdout[-6000:]}\nfuzzing {name} ended with {done.returncode}")
    executions = int(re.findall(r"stat::number_of_executed_units: +(\d+)", done.stdout)[-1])
    inputs = len([*(CORPUS / name).iterdir()])
    told = re.findall(r"Done \d+ runs in (\d+) second", done.stdout)  # where nothing broke; without the time to start
    took = int(told[-1]) if told else round(time.monotonic() - began)
    return {"executions": executions, "seconds": took, HEAD[3]: inputs, HEAD[4]: len(culprits)}


def _keep(name: str, found: dict[str, int]) -> None:
    """Write a parser's figures in place of those of its last run."""
    sys.path.append(str(RESULTS.parents[1]))
    from measuring import marked_down
    from report import machine, processor_line

    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"parsers": {}}
    kept = {"machine": machine(), "parsers": {**kept["parsers"], name: found}}
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    rows = [(one, *(f"{figures[column]:,}" for column in HEAD[1:])) for one, figures in kept["parsers"].items()]
    sums = [f"{sum(figures[column] for figures in kept['parsers'].values()):,}" for column in HEAD[1:]]
    lines = [marked_down([HEAD, *rows, ("all", *sums)]), "", processor_line(kept["machine"]), ""]
    RESULTS.with_suffix(".md").write_text("\n".join(lines))


def draw(name: str, *options: str) -> None:
    """Be the process that draws, until libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["airflow_cloudbilling"]):
        from parsers import TARGETS

        for seed in TARGETS[name].seeds():  # what is imported where it is needed is watched too
            TARGETS[name].read(seed)
    atheris.Setup([sys.argv[0], *options], TARGETS[name].read)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(draw(*sys.argv[2:]) if sys.argv[1:2] == ["--draw"] else main())
