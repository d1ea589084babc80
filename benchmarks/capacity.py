"""Does `loadgen capacity` find the capacity of a server whose capacity is known? Ten searches on each of two servers.

A server has a number of slots and holds each for a fixed time, in a process of its own; its capacity is slots / time, where
the time is the one that it measures itself, as sleeping takes a little longer than asked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.request import urlopen

from db.child import Child

SERVER = """
import sys, time
import gevent
from gevent.lock import BoundedSemaphore
from gevent.pywsgi import WSGIServer
slots, held_s = int(sys.argv[1]), float(sys.argv[2])
free, held = BoundedSemaphore(slots), []
def answer(environ, start_response):
    if environ["PATH_INFO"] == "/held":
        body = str(sum(held) / len(held)).encode()
    else:
        with free:
            started = time.monotonic()
            gevent.sleep(held_s)
            held.append(time.monotonic() - started)
        body = b"ok"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
server = WSGIServer(("127.0.0.1", 0), answer, log=None)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
"""
SERVERS = ((4, 0.02), (2, 0.005))


def search(slots: int, held_s: float, folder: Path) -> tuple[float, float, float]:
    """One search on a new server: the rate that was found, the one that is known, and the seconds that it took."""
    with Child([sys.executable, "-c", SERVER, str(slots), str(held_s)], stdout=subprocess.PIPE, text=True) as server:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        script = folder / "script.json"
        phases = [{"duration": 1, "arrivalRate": 20}]
        flow = [{"flow": [{"get": {"url": "/"}}]}]
        script.write_text(json.dumps({"config": {"target": url, "phases": phases}, "scenarios": flow}))
        command = [sys.executable, "-m", "loadgen", "capacity", str(script), "--p99", "250", "--format", "json"]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        with urlopen(f"{url}/held") as answer:
            held = float(answer.read())
    return found["rate"], slots / held, sum(step["seconds"] for step in found["steps"])


def main() -> None:
    """Search each server several times, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=10)
    repetitions = parser.parse_args().repetitions
    print("| server | known, users/s | found, median | furthest off | deviation between searches | seconds of steps |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for slots, held_s in SERVERS:
            runs = [search(slots, held_s, Path(folder)) for _ in range(repetitions)]
            off = [rate / known - 1 for rate, known, _ in runs]
            rates = [rate for rate, _, _ in runs]
            print(
                f"| {slots} slots of {held_s * 1000:g} ms | {statistics.median(known for _, known, _ in runs):.0f} "
                f"| {statistics.median(rates):.0f} | {max(off, key=abs):+.1%} "
                f"| {statistics.stdev(rates) / statistics.mean(rates):.1%} "
                f"| {statistics.median(seconds for _, _, seconds in runs):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
