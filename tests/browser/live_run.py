"""A small real run with its live page, for the browser's tests; the service it loads answers in the same process.

`python -m tests.browser.live_run SECONDS` prints the page's address and token as one line of JSON, then the outcome as another.
"""

import json
import sys
from random import Random

import gevent
from gevent.pywsgi import WSGIServer

from loadgen.clock import WallOffset
from loadgen.engine import Engine, Listener, Progress
from loadgen.health import HealthWatch
from loadgen.http.dialer import Connections, Dialer
from loadgen.http.exchange import TimeLimits
from loadgen.recorder import Recorder
from loadgen.runner import agent, extras
from loadgen.script.parse import RunOptions, parse_script
from loadgen.vu.program import CompiledScript
from loadgen.watch.live import LiveServer, snapshot_of

SCRIPT = """
config:
  target: http://127.0.0.1:%d
  phases: [{duration: %d, arrivalRate: 40}]
scenarios:
  - flow: [{get: {url: /}}]
"""


def service(environ, start_response):
    gevent.sleep(0.004)
    timing = "pool;dur=1.5, connect;dur=0, db;dur=2, total;dur=4"
    start_response("200 OK", [("Server-Timing", timing), ("Content-Length", "2")])
    return [b"ok"]


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(seconds):
    server = WSGIServer(("127.0.0.1", 0), service, log=None, error_log=None)
    server.start()
    script = parse_script([("live.yml", SCRIPT % (server.server_port, seconds))], RunOptions(), lambda _: b"")
    wall, rng = WallOffset(), Random(1)
    recorder = Recorder(wall)
    dialer = Dialer(TimeLimits(2_000_000_000, 2_000_000_000), wall)
    program = CompiledScript(
        script, recorder, lambda: Connections(dialer), rng, agent=agent(), write_line=lambda _: None
    )
    engine = Engine(program, script.phases, recorder, wall, rng)
    watch, latest = HealthWatch(), [Progress(0.0, 0, 0, 0, 0)]

    def snapshot():
        periods = recorder.report().periods
        return snapshot_of(latest[-1], periods[-1] if periods else None, planned_s=seconds)

    with LiveServer(("127.0.0.1", 0), snapshot, engine.stop) as live:
        say(url=live.url, token=live.token)
        engine.run(Listener(tick=latest.append))
        report = recorder.report(extras(watch, recorder, "open", partial=engine.interrupted))
        live.finish(report)
    say(interrupted=engine.interrupted, requests=report.aggregate.counters["http.requests"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
