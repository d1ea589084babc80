"""Certificates for TLS tests, good and bad, made on the spot."""

import datetime as dt
import ssl
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class Certificates:
    """`ca` signs `good`, `expired` and `elsewhere` (for another host) for 127.0.0.1, ::1 and localhost; `client` for users."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        hosts = ("127.0.0.1", "::1", "localhost")
        self._write("good", self._ca.issue_cert(*hosts))
        self._write("expired", self._ca.issue_cert(*hosts, not_before=LONG_AGO, not_after=LONG_AGO.replace(year=2021)))
        self._write("elsewhere", self._ca.issue_cert("elsewhere.example"))
        self._write("client", self._ca.issue_cert("client@example.com"))
        (folder / "self-signed.pem").write_bytes(_self_signed())

    def _write(self, name, leaf):
        (self.folder / f"{name}.pem").write_bytes(
            leaf.private_key_pem.bytes() + b"".join(p.bytes() for p in leaf.cert_chain_pems)
        )

    def file(self, name):
        """Key and certificate of that name, in one file."""
        return self.folder / f"{name}.pem"

    def server_context(self, name, *, wants_client=False):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file(name))
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_file)
        return context


def make(folder):
    """All of them, as files in that folder."""
    return Certificates(folder)


def _self_signed():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(7).not_valid_before(LONG_AGO).not_valid_after(LONG_AGO.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
