"""Messages on a pipe: one letter, the length of what follows (4 bytes, network order), then that. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator

JOB, START, RENEW, INTERRUPT = b"J", b"S", b"R", b"I"
"""What a shard on another machine is told: its job, when to begin (JSON), go on, an interrupt."""
READY, FAILED = b"R", b"F"
"""What only such a shard says: it could begin; why it cannot go on."""

_HEAD = struct.Struct("!cI")


def message(kind: bytes, content: bytes = b"") -> bytes:
    """As it goes down the pipe; `kind` is one letter."""
    return _HEAD.pack(kind, len(content)) + content


def parted(pending: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the whole messages that a buffer begins with; they are taken out of it."""
    while len(pending) >= _HEAD.size:
        kind, length = _HEAD.unpack_from(pending)
        end = _HEAD.size + length
        if len(pending) < end:
            break
        content = bytes(pending[_HEAD.size : end])
        del pending[:end]
        yield kind, content
