"""Messages on a pipe: one letter, the length of the content (4 bytes, network order), and the content. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator

JOB, START, RENEW, INTERRUPT = b"J", b"S", b"R", b"I"
"""Kinds of messages to a shard on another machine: its job, when to begin (JSON), to go on, an interrupt."""
READY, FAILED = b"R", b"F"
"""Kinds of messages that only such a shard sends: that it is ready to begin, and why it cannot go on."""

_HEAD = struct.Struct("!cI")


def message(kind: bytes, content: bytes = b"") -> bytes:
    """The bytes of a message; `kind` is one letter."""
    return _HEAD.pack(kind, len(content)) + content


def parted(pending: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Take the whole messages at the beginning of a buffer out of it, and give the kind and content of each."""
    while len(pending) >= _HEAD.size:
        kind, length = _HEAD.unpack_from(pending)
        end = _HEAD.size + length
        if len(pending) < end:
            break
        content = bytes(pending[_HEAD.size : end])
        del pending[:end]
        yield kind, content
