"""How pages of this package look, by light and by dark: the report of a month, and the page in Airflow's UI."""

from __future__ import annotations

_LIGHT = (
    "--text: #1b1f24; --muted: #5a6472; --line: #d8dde3; --back: #ffffff; --raised: #f5f7f9; --link: #0a5fb4;"
    " --error: #b3261e; --warning: #8a5300; --good: #1a7a3c; --busy: #0a5fb4"
)
_DARK = (
    "--text: #e6e9ee; --muted: #9ba6b3; --line: #333a44; --back: #111317; --raised: #1a1e24; --link: #7db7f5;"
    " --error: #ff8a80; --warning: #f0b45b; --good: #6fd58f; --busy: #7db7f5"
)
STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
:root[data-theme=light] {{ color-scheme: light; {_LIGHT} }}
:root[data-theme=dark] {{ color-scheme: dark; {_DARK} }}
body {{ font: 15px/1.45 Inter, system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
  color: var(--text); background: var(--back) }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top }}
th {{ text-align: left }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums }}
td.n, td.d {{ white-space: nowrap }}
tr.error td:first-child {{ color: var(--error); font-weight: 600 }}
code {{ overflow-wrap: anywhere }}
"""
