"""The distance to the database: a process that delays, what is measured through it, and the lab at a distance."""

import json
import re
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from random import Random

import numpy as np
import psutil
import psycopg2
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.cli import cli
from loadgen.lab import distance
from loadgen.lab.distance import Delay, address_of, calibrate
from loadgen.lab.distance_findings import crossing_text, distance_section
from loadgen.lab.evidence import Crossing, Distance
from loadgen.lab.experiments import Sizes, experiments
from loadgen.lab.run import Lab, LabError, LabOptions
from loadgen.lab.stack import StackError
from reports import names
from reports.blocks import Page
from reports.formats.apachebench import AbSamples
from reports.model import Period, Report
from reports.sketch import Sketch
from reports.writers.output import written
from tests.support.server_process import ends_with_its_starter


@contextmanager
def listening(answer):
    """A server on loopback; `answer(connection)` has a thread of its own for each."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                answer(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[:2]
        server.shutdown(socket.SHUT_RDWR)


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


@pytest.fixture(scope="module")
def delayed_echo():
    with listening(echo) as address, Delay(address) as delay:
        yield delay


def connected(delay):
    connection = socket.create_connection(("127.0.0.1", delay.port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def received(connection, size):
    parts = b""
    while len(parts) < size:
        data = connection.recv(size - len(parts))
        assert data, "the connection ended early"
        parts += data
    return parts


def round_trip_ms(connection):
    began = time.monotonic()
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    return (time.monotonic() - began) * 1000


@settings(max_examples=20)
@given(st.lists(st.binary(min_size=1, max_size=4000), min_size=1, max_size=8), st.sampled_from([0.0, 0.5]))
def test_bytes_come_back_whole_and_in_order(delayed_echo, chunks, round_trip):
    delayed_echo.set(round_trip)
    with connected(delayed_echo) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        sent = b"".join(chunks)
        assert received(connection, len(sent)) == sent
        assert connection.recv(1) == b""


def test_a_delay_does_not_limit_the_bandwidth(delayed_echo):
    """8 MB there and back at 500 ms: a proxy that waited for each chunk of 256 KB would take 8 s for the delays alone."""
    delayed_echo.set(500)
    block = bytes(range(256)) * 4096 * 8
    with connected(delayed_echo) as connection:
        threading.Thread(target=connection.sendall, args=(block,), daemon=True).start()
        first = received(connection, 1)
        began = time.monotonic()
        assert first + received(connection, len(block) - 1) == block
        assert time.monotonic() - began < 7


def test_a_round_trip_takes_the_time_asked_for_and_may_be_changed_while_connections_live(delayed_echo):
    with connected(delayed_echo) as connection:
        for asked in (10, 30, 0):
            delayed_echo.set(asked)
            round_trip_ms(connection)
            times = [round_trip_ms(connection) for _ in range(12)]
            assert asked <= min(times) < asked + 10


def test_opening_a_connection_costs_the_round_trip_of_its_handshake(delayed_echo):
    """Counted from before it is opened: how long a busy machine takes to say that it is open is part of the round trips."""
    delayed_echo.set(60)
    began = time.monotonic()
    with connected(delayed_echo) as connection:
        round_trip_ms(connection)
        assert time.monotonic() - began >= 0.12
        assert 60 <= min(round_trip_ms(connection) for _ in range(4)) < 110


def test_the_end_of_one_direction_leaves_the_other_open():
    heard = []

    def answer_at_the_end(connection):
        while data := connection.recv(100):
            heard.append(data)
        connection.sendall(b"all of it")

    with listening(answer_at_the_end) as address, Delay(address) as delay:
        delay.set(1)
        with connected(delay) as connection:
            connection.sendall(b"a question")
            connection.shutdown(socket.SHUT_WR)
            assert received(connection, 9) == b"all of it"
            assert connection.recv(1) == b""
    assert b"".join(heard) == b"a question"


def test_a_database_that_hangs_up_or_is_not_there_ends_the_connection():
    with (
        listening(lambda connection: connection.recv(1)) as address,
        Delay(address) as delay,
        connected(delay) as connection,
    ):
        connection.sendall(b"x")
        assert connection.recv(1) == b""
    with Delay(("127.0.0.1", 1)) as nowhere, connected(nowhere) as connection:
        assert connection.recv(1) == b""


def test_it_ends_with_the_process_that_started_it():
    source = (
        "import sys\n"
        "from loadgen.lab.distance import Delay\n"
        "with Delay(('127.0.0.1', 1)) as delay:\n"
        "    print(delay._child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    ends_with_its_starter(source)


def test_a_delay_that_was_killed_is_an_error_and_not_silence():
    with Delay(("127.0.0.1", 1)) as delay:
        psutil.Process(delay._child.pid).kill()
        with pytest.raises(StackError, match="has ended"):
            delay.set(1)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://u:p@db.example/d", ("db.example", 5432)),
        ("postgresql://u:p@[::1]:6432/d?a=b", ("::1", 6432)),
    ],
)
def test_the_address_is_in_the_url(url, address):
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url", ["postgresql:///d", "postgresql://u@%2Frun/d", "postgresql://a,b/d", "postgresql://a:1,b:2/d", "host=/run"]
)
def test_a_database_without_one_tcp_address_is_refused(url):
    with pytest.raises(StackError, match="one host name"):
        address_of(url)


def test_the_way_through_keeps_the_rest_of_the_url():
    delay = Delay(("db.example", 5432))
    delay.port = 7000
    url = "postgresql://u:p%20+@db.example/d?options=-csearch_path%3Ds"
    expected = "postgresql://u:p%20+@db.example:7000/d?options=-csearch_path%3Ds&hostaddr=127.0.0.1"
    assert delay.through(url) == expected


def test_what_the_process_adds_is_measured_and_told(postgres):
    with Delay(address_of(postgres.url)) as delay:
        crossing = calibrate(postgres.url, delay, (5.0,))
        with closing(psycopg2.connect(delay.through(postgres.url))) as connection, connection.cursor() as cursor:
            cursor.execute("select 2")
            assert cursor.fetchone() == (2,)
    assert 0 < crossing.added_ms < 5
    assert crossing.through_ms[5.0] > 5
    text = crossing_text(crossing)
    assert f"{crossing.added_ms:.3f} ms are its own" in text
    assert f"{crossing.through_ms[5.0]:.3f} ms" in text


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_arrangement_is_measured_at_every_distance(postgres, tmp_path, monkeypatch):
    monkeypatch.setattr(distance, "ROUND_TRIPS_MS", (0.0, 25.0))
    monkeypatch.setattr(distance, "STRATEGIES", ("null",))
    monkeypatch.setattr(distance, "USERS", (2,))
    monkeypatch.setattr(distance, "_ROUND_S", 0.4)
    with distance.Session(postgres.url, postgres, tmp_path) as session:
        cells = list(session.run(1, lambda _: None, Random(1)))
        pooled = [] if session.skipped else [distance.NEAR_APP, distance.NEAR_DATABASE]
    assert [(c.round_trip_ms, c.arrangement) for c in cells] == [
        (far, name) for far in (0.0, 25.0) for name in ("null", *pooled)
    ]
    assert all(cell.failed_share == 0 and cell.total_ms.count > 0 for cell in cells)
    by = {(c.round_trip_ms, c.arrangement): c.total_ms.quantile(0.5) for c in cells}
    assert by[25.0, "null"] > 4 * 25  # handshake, login, statement
    if pooled:
        assert by[25.0, distance.NEAR_APP] < by[25.0, distance.NEAR_DATABASE]


def test_distances_and_arrangements_take_turns_in_random_order(tmp_path, monkeypatch):
    order = []
    session = distance.Session("postgresql://127.0.0.1/x", None, tmp_path)
    session._servers = dict.fromkeys(distance.STRATEGIES)
    monkeypatch.setattr(distance.Delay, "set", lambda _, far: order.append(far))
    session._delays = [Delay(("127.0.0.1", 1))]
    monkeypatch.setattr(distance, "_one", lambda *_: None)
    monkeypatch.setattr(distance, "_cell", lambda *cell: (*cell[:3], len(cell[3])))
    cells = list(session.run(5, lambda _: None, Random(1)))
    count = len(distance.USERS) * len(distance.ROUND_TRIPS_MS) * len(distance.STRATEGIES)
    rounds = [tuple(order[i : i + count]) for i in range(0, 5 * count, count)]
    assert len(cells) == count
    assert all(done == 5 for *_, done in cells)
    assert len(set(rounds)) == 5
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds)


def test_without_pgbouncer_the_reason_is_told(postgres, tmp_path, monkeypatch):
    monkeypatch.setattr("loadgen.lab.pgbouncer.shutil.which", lambda *_, **__: None)
    session = distance.Session(postgres.url, postgres, tmp_path)
    assert session._pooled_urls(ExitStack(), Delay(address_of(postgres.url))) == {}
    assert "PgBouncer is not installed" in session.skipped[0]
    given = distance.Session(postgres.url, None, tmp_path)
    assert given._pooled_urls(ExitStack(), Delay(address_of(postgres.url))) == {}
    assert "own database only" in given.skipped[0]


def cell(arrangement, rate, good=100, sent=100):
    report = Report(Period(0, counters={"http.requests": sent, "http.codes.200": good}))
    return Distance(arrangement, 1, 5.0, report, rate, Sketch.of([1.0, 2.0]))


def test_gain_is_good_answers_against_a_connection_per_request():
    crossing, cells = Crossing(0.1, {0.0: 0.15, 5.0: 5.2}), [cell("null", 20.0, good=50), cell("fair", 80.0)]
    section = distance_section(crossing, cells)
    assert [c["gain"] for c in section.data["cells"]] == [1.0, 8.0]
    assert section.data["cells"][0]["failed_share"] == 0.5
    page = Page("", "", (section,))
    text = written(page, "markdown")
    assert re.search(r"\| 5 ms \| null \| 10.0 \| 1.0 \| .* \| 50 % \|", text)
    assert re.search(r"\| 5 ms \| fair \| 80.0 \| 8.0 \| .* \| 0 % \|", text)
    assert "D.rtt: what pooling gains, by the distance to the database" in written(page, "html")


def test_the_spread_over_the_rounds_is_shown():
    crossing, cells = Crossing(0.1, {0.0: 0.15, 5.0: 5.2}), [replace(cell("null", 20.0), rounds=(18.0, 25.0, 17.0))]
    section = distance_section(crossing, cells)
    assert section.data["cells"][0]["rounds"] == [{"good_per_second": rate} for rate in (18.0, 25.0, 17.0)]
    text = written(Page("", "", (section,)), "markdown")
    assert "| good answers/s, lowest round | highest round |" in text
    assert "| 20.0 | 1.0 | 17.0 | 25.0 |" in text


def test_each_round_of_a_cell_counts_only_good_answers():
    class Run:
        def __init__(self, good, seconds):
            counters = {"http.requests": 100, "http.codes.200": good, "http.codes.503": 100 - good}
            sketches = {names.INTENDED: Sketch.of([1.0])}
            self.report = Report.of([Period(0, counters, sketches=sketches)])
            whole = np.zeros(100, np.int64)
            self.samples = AbSamples("127.0.0.1", 80, "/", 1, seconds, whole, whole, whole)

    found = distance._cell(1, 0.0, "null", [Run(100, 1.0), Run(50, 2.0)])
    assert found.rounds == pytest.approx((100.0, 25.0))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_lab_runs_its_experiments_at_a_distance(postgres, tmp_path):
    wanted = tuple(e for e in experiments() if e.id == "B.3.c1")
    sizes = Sizes(requests=30, ab_s=1.0, phase_s=1)
    given = LabOptions(wanted, sizes, tmp_path, database_url=postgres.url, round_trip_ms=20.0)
    evidence = Lab(given, lambda _: None, lambda _: None).run()
    assert evidence.outcomes["B.3.c1"].report.aggregate.sketches[names.RESPONSE_TIME].quantile(0.5) > 20
    assert evidence.crossing.through_ms[20.0] > 20
    document = json.loads((tmp_path / "summary.json").read_text())
    assert any("of its own" in note or "are its own" in note for note in document["notes"])
    assert document["distance"]["crossing"]["added_ms"] == evidence.crossing.added_ms


def test_a_distance_beside_experiments_with_a_way_of_their_own_is_refused(tmp_path):
    with pytest.raises(LabError, match=r"D\.rtt"):
        Lab(
            LabOptions((), Sizes(), tmp_path, distance_rounds=1, round_trip_ms=5.0), lambda _: None, lambda _: None
        ).run()


@pytest.mark.parametrize("text", ["5", "-1ms", "fast", "2m"])
def test_an_invalid_distance_is_one_line(text):
    done = CliRunner().invoke(cli, ["lab", "--only", "B.3.c1", "--db-rtt", text])
    assert done.exit_code == 2
    assert f"Error: --db-rtt {text}" in done.stderr
