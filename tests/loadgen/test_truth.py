"""Figures are the server's, not the generator's: whole runs against a server process with known behaviour."""

import signal
import sys
import threading
import time
from random import Random

import gevent
import pytest

from loadgen.clock import KERNEL_STAMPS, WallOffset, now_ns
from loadgen.engine import Engine, Listener
from loadgen.recorder import Recorder
from loadgen.runner import run_script
from loadgen.script.model import Phase
from loadgen.script.parse import RunOptions, parse_script
from loadgen.watch.console import Console
from reports import names

SERVER = """
import asyncio, sys, time
delay_s = float(sys.argv[1])
async def serve(reader, writer):
    try:
        while await reader.readuntil(b"\\r\\n\\r\\n"):
            began_s = time.monotonic()
            await asyncio.sleep(delay_s)
            took = b"Server-Timing: total;dur=%.3f\\r\\n" % ((time.monotonic() - began_s) * 1000)
            writer.write(b"HTTP/1.1 200 OK\\r\\n" + took + b"Content-Length: 2\\r\\n\\r\\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture
def delaying(start_process):
    """delaying(delay_s) -> (its process, its base URL)."""

    def start(delay_s):
        process = start_process([sys.executable, "-c", SERVER, str(delay_s)], stderr=None)
        return process, f"http://127.0.0.1:{int(process.stdout.readline())}"

    return start


def report(url, phase, flow):
    text = f"config: {{target: '{url}', phases: [{phase}]}}\nscenarios: [{{flow: {flow}}}]"
    script = parse_script([("s.yml", text)], RunOptions(directory="/"), lambda _: b"")
    return run_script(script, Console(lambda _: None), lambda _: None, 1).report


def run(*plan):
    return report(*plan).aggregate


@pytest.mark.usefixtures("ahead_of_others")
def test_a_frozen_server_shows_in_full_to_those_who_arrive_by_the_plan(delaying):
    process, url = delaying(0)
    frozen_ms = []

    def freeze():
        time.sleep(1)
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        time.sleep(1)
        frozen_ms.append((time.monotonic() - began) * 1000)
        process.send_signal(signal.SIGCONT)

    freezing = threading.Thread(target=freeze)
    freezing.start()
    total = run(url, "{duration: 3, arrivalRate: 100}", "[{get: {url: /}}]")
    freezing.join()
    intended = total.sketches[names.INTENDED]
    assert intended.count == 300
    assert intended.max > 0.95 * frozen_ms[0]
    # One arrival each 10 ms waits 10 ms less than the one before it: half of the 100 that met the stall over half a second.
    waited_half = sum(intended.quantile(q / 299) > 500 for q in range(300))
    expected = (frozen_ms[0] - 500) / 10
    assert expected - 10 <= waited_half <= expected + 20, frozen_ms


@pytest.mark.usefixtures("ahead_of_others")
@pytest.mark.skipif(not KERNEL_STAMPS, reason="this system does not stamp arrivals")
def test_a_busy_generator_reports_what_the_server_took(delaying):
    """By the server's own account of the same answers, since other programs may make it slower in any run."""
    _, url = delaying(0.01)
    hog = gevent.spawn(_hog)
    try:
        sketches = run(url, "{duration: 1, arrivalCount: 5}", "[{loop: [{get: {url: /}}], count: 60}]").sketches
    finally:
        hog.kill()
    server_ms, reported_ms, session_ms = (
        sketches[name].quantile(0.5) for name in ("server.total", names.RESPONSE_TIME, names.SESSION_LENGTH)
    )
    # What the user of the generator's clock would have been told: the read came when the hog let it.
    by_this_clock_ms = session_ms / 60
    assert by_this_clock_ms > 1.3 * server_ms
    assert reported_ms - server_ms < 0.25 * (by_this_clock_ms - server_ms)


def _hog():
    """Holds the event loop for 17 of 20 ms."""
    while True:
        end = now_ns() + 17_000_000
        while now_ns() < end:
            pass
        gevent.sleep(0.003)


def test_times_under_a_millisecond_are_told_apart(delaying):
    _, url = delaying(0)
    sketch = run(url, "{duration: 1, arrivalCount: 1}", "[{loop: [{get: {url: /}}], count: 100}]").sketches
    assert 0 < sketch[names.RESPONSE_TIME].min < 1
    assert len(sketch[names.RESPONSE_TIME].positive.counts) > 3


def test_no_start_of_two_thousand_a_second_is_lost_or_early():
    class Nothing:
        def start_vu(self, intended_ns):
            pass

    wall = WallOffset()
    recorder = Recorder(wall)
    phase = Phase(0, None, 1.0, "1", arrival_rate=2000)
    Engine(Nothing(), (phase,), recorder, wall, Random(1)).run(Listener())
    lag = recorder.report().aggregate.sketches[names.START_LAG]
    assert lag.count == 2000
    assert lag.min >= 0


@pytest.mark.skipif(not KERNEL_STAMPS, reason="this system does not stamp arrivals")
def test_every_answer_is_stamped_even_with_a_connection_each(delaying):
    _, url = delaying(0)
    extras = report(url, "{duration: 1, arrivalRate: 50}", "[{get: {url: /}}]").extras
    assert extras.generator["kernel_stamped"] >= 49  # the kernel may need a moment for the first
