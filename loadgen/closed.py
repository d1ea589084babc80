"""ApacheBench's workload: each of c users waits for its answer before it asks again, until n answers or t seconds.

The workload is closed, so there is no plan of arrivals and no start lag. Each request has a new connection unless
keep-alive is wanted, and is HTTP/1.0 as `ab` speaks it. Failures are counted as `ab -r` counts them: a broken connection
does not end the test; more than ten in a row that could not be opened do.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from traceback import print_exception
from typing import Any

import gevent
import numpy as np

from loadgen.clock import WallOffset, now_ns
from loadgen.engine import Progress, Stage
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import FILED, NO_HEAD, Exchange, Failure, TimeLimits
from loadgen.http.response import ResponseHead
from loadgen.http.route import Origin
from loadgen.http.tls import TlsRoute, TlsSettings
from loadgen.recorder import ANSWER_COLUMNS, NO_ENDPOINT, ColumnBuffer, Recorder
from reports import names
from reports.formats.apachebench import AbFailures, AbSamples

_REFUSED_MAX = 10
_TIMEOUTS = ("ETIMEDOUT", "ERR_SOCKET_TIMEOUT")


@dataclass(frozen=True, slots=True)
class Workload:
    """What each user of a closed run asks for, and how often."""

    origin: Origin
    path: str
    requests: int = 1
    concurrency: int = 1
    duration_s: float | None = None
    """After this time no more requests are sent, even if some are left."""
    keep_alive: bool = False
    method: str = "GET"
    headers: Sequence[tuple[str, str]] = ()
    credentials: Sequence[tuple[str, str]] = ()
    """Headers with cookies and passwords; `ab` writes them above those that describe the body."""
    body: bytes | None = None
    content_type: str = "text/plain"
    timeout_s: float = 30.0
    any_length: bool = False
    """Whether answers may differ in length; otherwise one that is not as long as the first counts as failed."""
    proxy: Origin | None = None
    """The HTTP proxy to ask instead of the origin itself."""
    tls: TlsSettings = TlsSettings(verify=False)  # noqa: RUF009 - frozen
    """Like ab, accept any certificate unless told otherwise."""
    prepare: Callable[[Any], None] | None = None
    """What is done with each socket before it is connected."""
    see: Callable[[Exchange], None] | None = None
    """What is done with each answer, its body included."""

    @property
    def keeps_connections(self) -> bool:
        """Whether a connection is used again: with `keep_alive`, unless a header of the user's own says otherwise."""
        own = [value.lower() for name, value in self.headers if name.lower() == "connection"]
        return self.keep_alive and all("keep-alive" in value for value in own)

    def request_bytes(self, agent: str) -> bytes:
        """The bytes of the request, as `ab` writes them: headers of the user's own stand before Host.

        Such a header replaces the default of the same name.
        """
        default_port = {"http": 80, "https": 443}[self.origin.scheme]
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        host = host if self.origin.port == default_port else f"{host}:{self.origin.port}"
        own = {name.lower() for name, _ in self.headers}
        connection = [("Connection", "Keep-Alive")] if self.keep_alive else []
        content = [("Content-length", str(len(self.body or b""))), ("Content-type", self.content_type)]
        about = [("Host", host), ("User-Agent", agent), ("Accept", "*/*")]
        connection, content, about = (
            [field for field in fields if field[0].lower() not in own]
            for fields in (connection, [] if self.body is None else content, about)
        )
        fields = (*connection, *self.credentials, *content, *self.headers, *about)
        lines = [f"{name}: {value}" for name, value in fields]
        path = self.path if self.proxy is None else f"{self.origin.scheme}://{host}{self.path}"
        head = "\r\n".join([f"{self.method} {path} HTTP/1.0", *lines, "", ""])
        return head.encode("latin-1", "replace") + (self.body or b"")


def _never_sent(failure: Failure) -> bool:
    """Whether no connection could be opened for the request, for whatever reason but time; it is to be sent again then."""
    return failure.stage == "connect" and failure.name not in _TIMEOUTS


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


class ClosedRun:
    """One run of one workload.

    `refused` is the name of the error if the run was given up because too many connections in a row could not be opened; else
    None.
    """

    def __init__(
        self,
        workload: Workload,
        recorder: Recorder,
        wall: WallOffset,
        agent: str,
        completed: Callable[[int], None] | None = None,
    ) -> None:
        """`completed`, if given, is called with the number of finished requests, after each of them."""
        self._completed = completed
        self._work = workload
        self._request = workload.request_bytes(agent)
        self._recorder = recorder
        self._wall = wall
        limits = TimeLimits(int(workload.timeout_s * 1e9), int(workload.timeout_s * 1e9))
        self._dialer = Dialer(limits, wall, TlsRoute(workload.tls), workload.prepare)
        # For each request four numbers: nanoseconds to connect, of waiting for the first byte, and in all; and its start.
        self._times = array("q")
        # Most answers are only counted, and all of them at once: see `_count_rows`.
        self._rows = ColumnBuffer(*ANSWER_COLUMNS, "connected_ns", "read_ns")
        self._left = workload.requests
        self._begun = 0
        self._ends_ns = 0
        self._started_ns = self._finished_ns = 0
        self._first: Exchange | None = None
        self._tls = ""
        self._failed = dict.fromkeys(("connect", "receive", "length", "exceptions"), 0)
        self._length_bytes = 0
        self._latest, self._alike = NO_HEAD, 0
        self._stays = False
        self._answered = self._write_errors = self._non_2xx = self._kept = self._head_bytes = self._html_bytes = 0
        self._users: list[gevent.Greenlet] = []
        self.served: list[int] = []
        """For each user that has ended: the number of its answers within the run's time."""
        self.refused: str | None = None
        self._raised: list[Exception] = []
        self.interrupted = False
        # Whether no more requests are to be begun: the run was interrupted or given up.
        self._over = False
        # How many connections in a row could not be opened, and how many requests were finished at the last of them.
        self._refusals = self._finished_before = 0

    def run(self, tick: Callable[[Progress], None] = lambda _: None) -> AbSamples:
        """Carry out the run and return what was measured, also after an interrupt. `tick` is called once a second."""
        self._started_ns = self._finished_ns = now_ns()
        if self._work.duration_s is not None:
            self._ends_ns = self._started_ns + int(self._work.duration_s * 1e9)
        self._users = [gevent.spawn(self._user) for _ in range(self._work.concurrency)]
        ticker = gevent.spawn(self._tick, tick)
        gevent.joinall(self._users)
        ticker.kill()
        self._dialer.close()
        return self.samples()

    def defects(self) -> tuple[str, ...]:
        """A sentence on users that a defect of this program ended; empty as a rule. The first traceback was printed."""
        if not self._raised:
            return ()
        first = f"{type(self._raised[0]).__name__}: {self._raised[0]}".partition("\n")[0]
        return (f"a defect of this program ended {len(self._raised)} of its users: {first}",)

    def stop(self) -> None:
        """End the run now."""
        self.interrupted = self._over = True
        gevent.killall(self._users, block=False)

    def samples(self) -> AbSamples:
        """What has been measured so far."""
        self._count_rows()
        self._tally()
        times_us = np.frombuffer(self._times, np.int64).reshape(-1, 4) // 1000
        work, first = self._work, self._first
        return AbSamples(
            answered=self._answered,
            host=work.origin.host,
            port=work.origin.port,
            path=work.path,
            concurrency=work.concurrency,
            time_taken_s=(self._finished_ns - self._started_ns) / 1e9,
            connect_us=times_us[:, 0],
            waiting_us=times_us[:, 1],
            total_us=times_us[:, 2],
            started_us=times_us[:, 3] + self._wall.wall_ns // 1000,
            # ab shows the first word.
            server_software=((first.header("server") or "") if first else "").partition(" ")[0],
            document_length=None if work.any_length else (first.body_bytes if first else 0),
            total_bytes=self._head_bytes + self._html_bytes,
            html_bytes=self._html_bytes,
            failures=AbFailures(**self._failed),
            write_errors=self._write_errors,
            non_2xx=self._non_2xx,
            tls_protocol=self._tls or None,
            tls_server_name=work.origin.host
            if self._tls and work.tls.names_server and not _is_address(work.origin.host)
            else None,
            keep_alive=self._kept if work.keep_alive else None,
            body_sent_bytes=None if work.body is None else len(self._request) * self._begun,
        )

    def _user(self) -> None:
        connections = Connections(self._dialer)
        head_only, see = self._work.method == "HEAD", self._work.see
        server, keeps_connections = self._work.proxy or self._work.origin, self._work.keeps_connections
        record, requested, request = self._recorder.answers(), self._recorder.request, self._request
        exchange, completed = connections.exchange, self._completed
        table = self._rows
        pack, buffer, row, size = table.pack, table.buffer, table.row, table.size
        ends_ns = self._ends_ns
        served = 0
        # When the answer before was read, which is when the next request is begun.
        read_ns = now_ns()
        looked_at, under_way = True, False

        def file(
            head: ResponseHead,
            written_ns: int,
            first_byte_ns: int,
            last_byte_ns: int,
            started_ns: int,
            body_bytes: int,
            stamped: int,
            plain: bool,
        ) -> None:
            nonlocal read_ns
            if looked_at or not plain:
                record(head, written_ns, first_byte_ns, last_byte_ns, started_ns, body_bytes, stamped, plain)
                return
            # ab's total time ends when ab has read the answer, so that users and requests agree (Little's law).
            read_ns = now_ns()
            if head is not self._latest:
                self._begin_alike(head)
            self._alike += 1
            end = table.end
            pack(
                buffer,
                end,
                head.status,
                written_ns,
                first_byte_ns,
                last_byte_ns,
                started_ns,
                body_bytes,
                stamped,
                NO_ENDPOINT,
                connections.connected_ns,
                read_ns,
            )
            table.end = end = end + row
            if end == size:
                self._count_rows()

        self._recorder.count(names.VUSERS_CREATED)
        try:
            while self._left and not self._over and not (ends_ns and read_ns >= ends_ns):
                self._left -= 1
                self._begun += 1
                # Most answers are only counted: numbers will do for them.
                looked_at, under_way = self._first is None or see is not None, True
                answer = exchange(server, request, head_only, see is not None, file, 0, looked_at)
                under_way = False
                if answer is FILED:
                    served += not ends_ns or read_ns < ends_ns
                elif isinstance(answer, Failure):
                    requested(answer.started_ns)
                    self._finished_ns = read_ns = now_ns()
                    if _never_sent(answer):
                        self._refuse(answer)
                        # On loopback the refusal comes without a wait, and nothing else could run: no tick, no interrupt.
                        gevent.sleep(0)
                        continue
                    self._fail(answer)
                else:
                    requested(answer.started_ns)
                    self._finished_ns = read_ns = now_ns()
                    if self._first is None:
                        self._first, self._length_bytes = answer, answer.body_bytes
                        self._tls = connections.encryption(server)
                    self._take(answer, read_ns)
                    served += not ends_ns or read_ns < ends_ns
                    if see is not None:
                        see(answer)
                if completed is not None:
                    completed(len(self._times) // 4 + table.end // row)
                if not (keeps_connections and self._stays):
                    connections.close()
            self._recorder.count(names.VUSERS_COMPLETED)
        except Exception as error:  # noqa: BLE001 - an error of one user must not lose what was measured
            self._recorder.count(names.ERRORS + type(error).__name__)
            if not self._raised:
                print_exception(error)
            self._raised.append(error)
        finally:
            if under_way:
                # The run was interrupted while it waited for this answer.
                requested(read_ns)
            self.served.append(served)
            connections.close()

    def _take(self, answer: Exchange, finished_ns: int) -> None:
        """Count a whole answer that was looked at, or that is not plain."""
        if answer.facts is not self._latest:
            self._begin_alike(answer.facts)
        self._alike += 1
        if answer.body_bytes != self._length_bytes and not self._work.any_length:
            self._failed["length"] += 1
        self._html_bytes += answer.body_bytes
        started_ns = answer.started_ns
        waiting_ns = answer.first_byte_ns - answer.written_ns
        self._times.extend((answer.connected_ns - started_ns, waiting_ns, finished_ns - started_ns, started_ns))

    def _count_rows(self) -> None:
        """Count all answers in `_rows`."""
        rows = self._rows.take()
        if not len(rows):
            return
        started_ns, body_bytes = rows["intended_ns"], rows["body_bytes"]
        # A connection that was kept was open before the request.
        connect_ns = np.maximum(rows["connected_ns"] - started_ns, 0)
        waiting_ns = rows["first_byte_ns"] - rows["written_ns"]
        times_ns = np.column_stack((connect_ns, waiting_ns, rows["read_ns"] - started_ns, started_ns))
        self._times.frombytes(times_ns.tobytes())
        self._finished_ns = max(self._finished_ns, int(rows["read_ns"].max()))
        if not self._work.any_length:
            self._failed["length"] += int(np.count_nonzero(body_bytes != self._length_bytes))
        self._html_bytes += int(body_bytes.sum())
        self._recorder.add_closed(rows)

    def _begin_alike(self, head: ResponseHead) -> None:
        """Take `head` for that of this answer and those after it. Servers repeat their heads, so it is rarely needed."""
        self._tally()
        self._latest = head
        # ab looks for these letters, too. Without them, a server may close the connection that HTTP/1.1 would keep.
        self._stays = b"eep-alive" in head.raw

    def _tally(self) -> None:
        """Add the answers with the latest head to the totals."""
        head, alike = self._latest, self._alike
        self._answered += alike
        self._non_2xx += alike * (not 200 <= head.status < 300)
        self._kept += alike * (self._work.keep_alive and self._stays)
        self._head_bytes += alike * len(head.raw)
        self._alike = 0

    def _refuse(self, failure: Failure) -> None:
        """Count a connection that could not be opened as ab does: its request is tried again, unless too many could not.

        The server may have refused it, or this machine may have no port or file left for it, or no address of the server.
        """
        self._recorder.count(names.ERRORS + failure.name)
        self._failed["connect"] += 1
        self._left += 1
        finished = len(self._times) // 4 + self._rows.end // self._rows.row
        self._refusals = 1 if finished > self._finished_before else self._refusals + 1
        self._finished_before = finished
        if self._refusals > _REFUSED_MAX:
            self.refused, self._over = failure.name, True

    def _fail(self, failure: Failure) -> None:
        """Count a failure after the connection was open, or one of time, as ab does: as a finished request."""
        self._recorder.count(names.ERRORS + failure.name)
        self._write_errors += failure.stage == "send"
        first_byte_ns = failure.response.first_byte_ns - failure.response.written_ns if failure.response else 0
        connect_ns = failure.connected_ns - failure.started_ns if failure.connected_ns else 0
        self._times.extend((connect_ns, first_byte_ns, failure.at_ns - failure.started_ns, failure.started_ns))
        kind = self._kind(failure)
        if kind is not None:
            self._failed[kind] += 1

    def _kind(self, failure: Failure) -> str | None:
        """The kind of failure; None for one that ab does not count."""
        if failure.name in _TIMEOUTS:
            return "exceptions"
        if failure.closed and (self._work.any_length or self._work.method == "HEAD"):
            # To ab, a connection that is closed in good order has given an empty answer.
            return None
        return "length" if failure.closed and self._first is not None else "receive"

    def _tick(self, tick: Callable[[Progress], None]) -> None:
        while True:
            gevent.sleep(1.0)
            self._wall.measure()
            self._count_rows()
            self._recorder.flush()
            elapsed_s = (now_ns() - self._started_ns) / 1e9
            done, users, length_s = self._recorder, self._work.concurrency, self._work.duration_s
            tick(
                Progress(
                    elapsed_s,
                    users,
                    done.requests,
                    done.responses,
                    done.errors,
                    None if length_s is None else Stage("", elapsed_s, length_s),
                    done.recent_ms(0.95),
                    self._started_ns,
                )
            )
