"""TLS for connections, without Python's TLS sockets: encrypted bytes are decrypted in memory.

So the raw socket is still read by connection.py, and the kernel's receive stamps serve encrypted answers, too: the first
byte of an answer has the stamp of the read that completed its first record. Errors have their names in Node.js.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import tempfile
from typing import Any

from loadgen.http.route import Ended
from loadgen.http.tls import TlsSettings

_PIECE_BYTES = 65536
_VERIFY_NAMES = {
    2: "UNABLE_TO_GET_ISSUER_CERT",
    9: "CERT_NOT_YET_VALID",
    10: "CERT_HAS_EXPIRED",
    18: "DEPTH_ZERO_SELF_SIGNED_CERT",
    19: "SELF_SIGNED_CERT_IN_CHAIN",
    # Python stops at the missing issuer; Node.js goes on and reports this.
    20: "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    21: "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    22: "CERT_CHAIN_TOO_LONG",
    23: "CERT_REVOKED",
    24: "INVALID_CA",
    26: "INVALID_PURPOSE",
    27: "CERT_UNTRUSTED",
    28: "CERT_REJECTED",
    62: "ERR_TLS_CERT_ALTNAME_INVALID",
    64: "ERR_TLS_CERT_ALTNAME_INVALID",
}
"""The names in Node.js of OpenSSL's verification results."""


def handshake_error_name(error: ssl.SSLError) -> str:
    """The name that Node.js gives to an error that ended a handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_NAMES.get(error.verify_code, "CERT_REJECTED")
    return "EPROTO"


_RSA_KEY = re.compile(
    rb"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82..\x00\x30\x82..\x02\x82(..)(.)", re.DOTALL
)
"""The algorithm rsaEncryption, and behind it the length of the modulus and its first octet."""
_EC_KEY = re.compile(
    rb"\x2a\x86\x48\xce\x3d\x02\x01\x06[\x05\x08](\x2a\x86\x48\xce\x3d\x03\x01\x07|\x2b\x81\x04\x00[\x22\x23])"
)
_CURVE_BITS = {
    bytes.fromhex("2a8648ce3d030107"): 256,
    bytes.fromhex("2b81040022"): 384,
    bytes.fromhex("2b81040023"): 521,
}


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """The TLS context of all connections of a run. Raises ValueError, which names the option that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if settings.verify:
        context.load_default_certs()
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.ca is not None:
        try:
            context.load_verify_locations(cadata=settings.ca.decode("ascii", "replace"))
        except ssl.SSLError as error:
            raise ValueError(f"ca: no PEM certificates ({error.reason or error})") from None
    if settings.cert is not None:
        _load_own(context, settings)
    if settings.ciphers is not None:
        try:
            context.set_ciphers(settings.ciphers)
        except ssl.SSLError:
            raise ValueError(f"no such ciphers: {settings.ciphers}") from None
    if settings.version is not None:
        context.minimum_version = context.maximum_version = settings.version
    return context


def _load_own(context: ssl.SSLContext, settings: TlsSettings) -> None:
    """Load the client's own certificate, which Python can read only from a file. Raises ValueError."""
    with tempfile.NamedTemporaryFile(prefix="poolbench-", suffix=".pem") as file:
        file.write((settings.cert or b"") + b"\n" + (settings.key or b""))
        file.flush()
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(file.name, password=settings.passphrase or "")
        except (ssl.SSLError, ValueError) as error:
            said = getattr(error, "reason", None) or error
            raise ValueError(f"cert and key: not a PEM certificate and its key ({said})") from None


def key_bits(certificate: bytes) -> int:
    """The size of the public key in a certificate (DER), in bits; 0 where it is neither RSA nor on a usual curve."""
    if rsa := _RSA_KEY.search(certificate):
        # The modulus is one octet longer where its highest bit is set: a zero stands before it.
        return (int.from_bytes(rsa[1]) - (rsa[2] == b"\0")) * 8
    curve = _EC_KEY.search(certificate)
    return _CURVE_BITS.get(curve[1], 0) if curve else 0


class TlsSocket:
    """Speaks TLS over a connected non-blocking socket; has those methods of a socket that connection.py uses."""

    def __init__(self, sock: Any, *, context: ssl.SSLContext, server_name: str | None) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        except ValueError:
            # Not a host name, as in `addresses_of`; with a proxy, which resolves names itself, it shows only here.
            raise Ended("ENOTFOUND") from None
        # Encrypted bytes that the kernel has not taken yet, and how many bytes of plain text they hold.
        self._sealed = b""
        self._sealed_bytes = 0

    def encryption(self) -> str:
        """Version, cipher, bits of the server's key and bits of the cipher: `TLSv1.3,TLS_AES_256_GCM_SHA384,2048,256`."""
        name, _, bits = self._tls.cipher() or ("", "", 0)
        certificate = self._tls.getpeercert(binary_form=True) or b""
        return f"{self._tls.version()},{name},{key_bits(certificate)},{bits}"

    def advance(self) -> TlsSocket | None:
        """Go on with the handshake. Returns this socket when it is done, None while the peer has yet to answer.

        Raises OSError, Ended.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                try:
                    data = self._sock.recv(_PIECE_BYTES)
                except BlockingIOError:
                    return None
                if not data:
                    raise Ended("ECONNRESET") from None
                self._incoming.write(data)
            except ssl.SSLError as error:
                # Send the alert that tells the peer why.
                with contextlib.suppress(OSError):
                    self._flush()
                raise Ended(handshake_error_name(error)) from None
            else:
                self._flush()
                return self

    def send(self, data: bytes) -> int:
        """Send some of `data` and return how many bytes: a piece counts once all of its records are sent.

        Raises BlockingIOError, as a socket does.
        """
        if not self._sealed:
            piece = data[:_PIECE_BYTES]
            self._tls.write(piece)
            self._sealed_bytes = len(piece)
        self._flush()
        return self._sealed_bytes

    def _flush(self) -> None:
        self._sealed += self._outgoing.read()
        while self._sealed:
            self._sealed = self._sealed[self._sock.send(self._sealed) :]

    def recv(self, _size: int, _flags: int = 0) -> bytes:
        """The bytes that can be read, perhaps more than asked for; empty at the end. Raises BlockingIOError, Ended."""
        return self._opened(self._sock.recv(_PIECE_BYTES))

    def recvmsg(self, size: int, room: int) -> tuple[bytes, Any, int, Any]:
        """The same as `recv`, with the kernel's stamp of the bytes that completed a record."""
        data, stamps, flags, sender = self._sock.recvmsg(size, room)
        return self._opened(data), stamps, flags, sender

    def _opened(self, data: bytes) -> bytes:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        parts = []
        try:
            while part := self._tls.read(_PIECE_BYTES):
                parts.append(part)
        except ssl.SSLWantReadError:
            # What arrived was a session ticket or part of a record.
            if not parts:
                raise BlockingIOError from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError as error:
            raise Ended(f"ERR_SSL_{error.reason}") from None
        return b"".join(parts)

    def fileno(self) -> int:
        """The descriptor of the socket beneath."""
        return int(self._sock.fileno())

    def close(self) -> None:
        """Close at once, without TLS's closing message, as the agents of Node.js do."""
        self._sock.close()
