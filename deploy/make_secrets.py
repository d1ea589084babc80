# ruff: noqa: INP001 - a script by itself
"""Makes the stack's secrets in /secrets on the first start, each readable by the one that needs it. Later starts change nothing.

The database is given the role's secret and never its password, and PgBouncer the same secret: it can then check a client, and
log in with the client's own key, without the thousands of hashes that a login by password costs each time.
"""

import base64
import hashlib
import hmac
import os
import secrets
import string
from pathlib import Path

FOLDER = Path("/secrets")
LAST = FOLDER / "api-token"
POSTGRES_UID, POOLBENCH_UID = (int(os.environ[name]) for name in ("POSTGRES_UID", "POOLBENCH_UID"))


def main() -> None:
    """All of them or, where they are there already, none; one that was broken off is done again."""
    os.umask(0o077)
    FOLDER.chmod(0o711)
    if LAST.exists():
        return
    password = random_text()
    secret = scram_secret(password)
    write(FOLDER / "postgres-password", random_text(), POSTGRES_UID)
    write(FOLDER / "poolbench-secret", secret, POSTGRES_UID)
    write(FOLDER / "userlist.txt", f'"poolbench" "{secret}"\n', POOLBENCH_UID)
    write(FOLDER / "app.pgpass", f"*:*:poolbench:poolbench:{password}\n", POOLBENCH_UID)
    write(LAST, random_text(), POOLBENCH_UID)


def write(path: Path, text: str, uid: int) -> None:
    """A whole file, for that user alone."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.chown(new, uid, uid)
    new.rename(path)


def random_text() -> str:
    """40 letters and digits: 238 bits."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(40))


def scram_secret(password: str, iterations: int = 4096) -> str:
    """What PostgreSQL keeps of a password (RFC 5803, as in its pg_authid.rolpassword)."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt64}${stored64}:{server64}"


if __name__ == "__main__":
    main()
