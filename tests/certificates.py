"""Certificates of the tests' own: an authority, and what it vouches for, sound or not."""

from __future__ import annotations

import itertools
import ssl
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOUR = timedelta(hours=1)
_numbers = itertools.count()


class Shown(NamedTuple):
    """The files of a certificate that a server shows, and of its key."""

    certificate: str
    key: str

    @property
    def context(self) -> ssl.SSLContext:
        """What a server with that certificate is made of."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self)
        return context


class Authority:
    """Somebody who vouches for servers to whoever has its bundle."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"Test CA {next(_numbers)}")
        now = datetime.now(timezone.utc)
        bundle = (
            x509.CertificateBuilder(self._name, self._name, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(now - 30 * 24 * HOUR)
            .not_valid_after(now + HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_may_sign(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.bundle = _written(folder, bundle)
        self.itself = Shown(self.bundle, _written(folder, self._key))  # what a server shows that is its own authority

    def vouches(self, host: str = "127.0.0.1", since: timedelta = -HOUR, until: timedelta = HOUR) -> Shown:
        """Return a certificate for a host, good between two moments, counted from now."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
        other = x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            x509.CertificateBuilder(self._name, _name(host), key.public_key(), x509.random_serial_number())
            .not_valid_before(now + since)
            .not_valid_after(now + until)
            .add_extension(x509.SubjectAlternativeName([other]), critical=False)
            .add_extension(signer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Shown(_written(self._folder, certificate), _written(self._folder, key))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _may_sign() -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    no = dict.fromkeys((*names, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **no)


def _written(folder: Path, what: x509.Certificate | ec.EllipticCurvePrivateKey) -> str:
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    if isinstance(what, x509.Certificate):
        content = what.public_bytes(pem)
    else:
        content = what.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    path = folder / f"{next(_numbers)}.pem"
    path.write_bytes(content)
    return str(path)
