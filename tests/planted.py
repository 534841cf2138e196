"""Secrets that tests plant in every connection and field, the forms they may take, and where any of them shows."""

from __future__ import annotations

import base64
import gzip
import json
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote, quote_plus

from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming, Vendor

PROXIED = ("twotcloud", "orange_cloudstore", "cloudonex", "store365", "sage_connected_cloud")
KEPT_BY_CLOUDONEX = {  # what its records give away → name of what stands there instead
    b"$2y$10$sandboxhash001": "customer's password",
    b"customer-token-1": "customer's token",
    b"autologin-1": "autologin",
    b"1000000007": "vtoken",
    b"p-token-of-the-sandbox": "ptoken",
}


class Planted:
    """Thirty secrets of one sandbox: of its connections and proxies, of its records, of the staging databases."""

    def __init__(self, vendor: Sandbox) -> None:
        vendors: dict[str, Any] = vendor.vendors
        self.twotcloud, self.orange, self.cloudonex = (vendors[n] for n in PROXIED[:3])
        self.store365, self.sage = vendors["store365"], vendors["sage_connected_cloud"]
        self.twotcloud.keys = {api: _odd() for api in self.twotcloud.keys}
        self.orange.secret, self.orange.api_key, self.cloudonex.key, self.store365.password = (
            _odd(),
            _odd(),
            _odd(),
            _odd(),
        )
        self.sage.initial_key = self.sage.key = _odd()
        self.sage.secret = _odd()
        self.proxies = {name: _odd() for name in PROXIED}
        self.databases = {"postgres": _odd(), "mysql": _odd()}
        self.records = {name: str(10**9 + int(token_hex(3), 16)) for name in KEPT_BY_CLOUDONEX.values()}
        self.redirect = token_hex(16)
        replace_in_answers(
            self.cloudonex, {old: self.records[name].encode() for old, name in KEPT_BY_CLOUDONEX.items()}
        )

    def known(self) -> dict[str, str]:
        """Return what must show nowhere by now: name → secret; tokens, keys and signatures come as they are given."""
        sage, signed = self.sage, [*self.sage.uploads.values()]
        given = {
            **{f"orange token {n}": token for n, token in enumerate(self.orange._tokens)},
            **{f"store365 token {n}": token for n, token in enumerate(self.store365._tokens)},
            **{f"passcode {n}": code for n, code in enumerate(sage.passcodes)},
            **{
                f"signature {kind} {n}": one.signature(kind)
                for n, one in enumerate(signed)
                for kind in ("uploads", "results")
            },
            "sage key in force": sage.key,
        }
        return {
            **{f"2tCloud {api} key": key for api, key in self.twotcloud.keys.items() if api != "revoked"},
            **{f"proxy of {name}": password for name, password in self.proxies.items()},
            **{f"password of {kind}": password for kind, password in self.databases.items()},
            "orange secret": self.orange.secret,
            "orange api_key": self.orange.api_key,
            "cloudonex key": self.cloudonex.key,
            "store365 password": self.store365.password,
            "sage initial key": sage.initial_key,
            "sage secret": sage.secret,
            "signature of a redirect": self.redirect,
            **self.records,
            **{name: secret for name, secret in given.items() if secret},
        }


def replace_in_answers(vendor: Vendor, texts: dict[bytes, bytes]) -> None:
    """Let a vendor of the sandbox say something else in place of some texts."""

    def answer(request: Incoming) -> Answer:
        right = type(vendor).answer(vendor, request)
        body = b"".join(right.body)
        for old, new in texts.items():
            body = body.replace(old, new)
        return Answer(right.status, (body,), right.content_type, right.headers)

    vendor.answer = answer


def _odd() -> str:
    """Return a secret with whatever some encoding writes in its own way."""
    return f"{token_hex(8)}+/=\"&<%'\\{token_hex(8)}"


def forms(secret: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each form in which a secret may stand somewhere."""
    data = secret.encode()
    yield "plain", secret
    for shift in range(
        3
    ):  # where it begins within a group of three bytes, as behind "login:", decides what it looks like
        whole = (shift + len(data)) // 3 * 4
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield "base64" if shift == 0 else "Basic", encode(b"\0" * shift + data).decode()[4 if shift else 0 : whole]
    for quoted in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield "URL", quoted
        yield "URL", re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
    yield "JSON", json.dumps(secret)[1:-1]
    yield "JSON", json.dumps(secret)[1:-1].replace("/", "\\/")
    yield "hex", data.hex()
    yield "hex", data.hex().upper()
    yield "reversed", secret[::-1]


def shows(secrets: dict[str, str], text: str) -> list[str]:
    """Return which secrets show in a text, and in which form.

    One that is split over two lines has a half on each, so half a secret is too much already.
    """
    found = set()
    for name, secret in secrets.items():
        for form, written in forms(secret):
            if written in text:
                found.add(f"{name} ({form})")
            elif len(written) >= 24 and any(half in text for half in (written[:12], written[-12:])):
                found.add(f"{name} ({form}, split)")
    return sorted(found)


def shown(error: BaseException | None) -> str:
    """Return all that a tool could show of an error: its texts, its fields, and what each frame's variables are."""
    parts = []
    while error is not None:
        parts += [*traceback.format_exception(error), repr(error), repr(vars(error))]
        frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
        parts += [repr(dict(f.f_locals)) for f in frames if Path(__file__).parent != Path(f.f_code.co_filename).parent]
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


def files(folder: Path) -> str:
    """Return the names and the contents of all files below a folder, unpacked."""
    parts = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        content = path.read_bytes()
        parts += [str(path), (gzip.decompress(content) if path.suffix == ".gz" else content).decode("latin-1")]
    return "\n".join(parts)
