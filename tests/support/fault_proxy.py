"""A network between the service and its database that can be slow, cut, or dead without a word.

A process of its own, so that the delay it adds is its timer's and not a busy test's. It takes orders on stdin, one a line:
`delay SECONDS` (each way, per chunk of bytes, order kept), `silence` (forwards nothing more, closes nothing: half-open),
`cut` (resets every connection and refuses new ones), `pass` (as at first; what silence held back is forwarded now).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from db.child import Child
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from db.embedded import EmbeddedPostgres


class Proxy:
    """The process, seen from the test; `url` is where the database seems to be."""

    def __init__(self, database: EmbeddedPostgres) -> None:
        command = [sys.executable, "-m", __name__, str(database.port)]
        self._child = Child(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = int(self._child.stdout.readline())
        self.url = database.url.replace(f":{database.port}/", f":{port}/")

    def order(self, *words: object) -> float:
        """Carry out an order; the instant at which it was in force."""
        print(*words, file=self._child.stdin, flush=True)
        assert self._child.stdout.readline() == "done\n"
        return time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()


class Network:
    """The process itself."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._delay_s = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()

    def obey(self, order: str, argument: str = "0") -> None:
        self._refusing = order == "cut"
        self._delay_s = float(argument)
        if order == "silence":
            self._flowing.clear()
        else:
            self._flowing.set()
        if order == "cut":
            for writer in self._writers:
                _reset(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        self._writers |= {writer, there}
        with contextlib.suppress(asyncio.CancelledError):  # at the end of the process
            await asyncio.gather(self._pump(reader, there), self._pump(there_reader, writer))
        for each in (writer, there):
            self._writers.discard(each)
            each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._send(chunks, writer))
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                chunks.put_nowait((asyncio.get_running_loop().time() + self._delay_s, data))
        chunks.put_nowait((0.0, b""))
        await sender

    async def _send(self, chunks: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                due_s, data = await chunks.get()
                await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
                await self._flowing.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main(upstream_port: int) -> None:
    """Forward until stdin ends."""
    network = Network(upstream_port)
    server = await asyncio.start_server(network.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        network.obey(*line.decode().split())
        print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
