"""The picture of ``bench.py``: how long the first load takes at each latency, and in what memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench_task import CLOUDBILLING, CONTENDERS

SHADES = ("#1b6ca8", "#7aa6c9", "#c3d7e6")
OTHERS = ("#6b6b6b", "#a3a3a3", "#d0d0d0")


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the first loads into the database that was measured first: Store365's into PostgreSQL.

    :param found: what ``bench.json`` holds.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    from matplotlib import pyplot

    good = _first_loads(found)
    if not good:
        return
    names = [name for name in reversed(CONTENDERS) if any(one["contender"] == name for one in good)]
    size = (11, 1.2 + 0.55 * len(names))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=size, width_ratios=(3, 2), sharey=True)
    latencies = sorted({one["latency"] for one in good})
    for place, latency in enumerate(latencies):
        _bars(left, names, [one for one in good if one["latency"] == latency], place, len(latencies), "seconds")
    _bars(right, names, [one for one in good if one["latency"] == latencies[0]], 0, 1, "peak_bytes")
    left.set_yticks(range(len(names)), names)
    shown = ", ".join(f"{latency * 1000:g}" for latency in latencies)
    left.set_xlabel(f"seconds; latency {shown} ms from top to bottom; hatched: wrong totals")
    right.set_xlabel("peak memory above a bare task, MB")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    server = found["servers"][good[0]["database"]]
    figure.suptitle(f"{found['pages']} pages, {good[0]['rows']:,} rows, first load into {server}", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _first_loads(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the first loads of one vendor into one database: the ones that were measured first."""
    good = [one for one in found["results"] if one["scenario"] == "first" and not one["failed"]]
    return [one for one in good if (one["vendor"], one["database"]) == (good[0]["vendor"], good[0]["database"])]


def _bars(axes: Any, names: list[str], ones: list[dict[str, Any]], place: int, of: int, what: str) -> None:
    """Draw one bar for each contender, with its number at the end."""
    height = 0.8 / of
    for one in ones:
        value = one[what] / 1e6 if what == "peak_bytes" else one[what]
        shades = SHADES if one["contender"].startswith(CLOUDBILLING) else OTHERS
        at = names.index(one["contender"]) + 0.4 - height * (place + 0.5)
        bar = axes.barh(at, value, height * 0.92, color=shades[place % len(shades)])
        if not one["exact"]:
            bar.patches[0].set(hatch="////", edgecolor="white")
        axes.bar_label(bar, [f"{value:,.0f}" if value >= 100 else f"{value:.1f}"], padding=3, fontsize=8)
