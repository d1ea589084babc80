"""Runs `loadgen doctor` on applications with one disease each, on their cured twins, and on healthy ones.

Each application of tests/doctor/applications runs once. The cure is compared with the disease by the p99 of the answers to the
script's requests, and by the share of them that failed. With --overhead: what watching costs, in CPU of a loan, and in
throughput of a service.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time_ns
from typing import Any

import sqlalchemy as sa

import poolbench
from db.embedded import temporary_postgres
from loadgen.lab.own_app import OwnAppOptions, arranged
from loadgen.lab.own_server import OwnApplication
from reports import names
from reports.answers import failed_share
from reports.compare.diff import Criteria, compare_runs
from reports.formats.artillery_json import from_json
from reports.model import Report

ROOT = Path(__file__).resolve().parents[1]
APPLICATIONS = ROOT / "tests" / "doctor" / "applications"
PAGE = ROOT / "docs" / "doctor.md"
BEGINS, ENDS = "<!-- benchmarks/doctor.py writes from here -->", "<!-- to here -->"

SICK = {
    "leak": "leak",
    "nested_checkout": "nested-checkout",
    "fork_shared": "fork-shared",
    "pool_per_request": "pool-per-request",
    "connection_per_request": "connection-per-request",
    "idle_in_transaction": "idle-in-transaction",
    "work_while_holding": "work-while-holding",
    "calling_while_holding": "work-while-holding",
    "n_plus_one": "n-plus-one",
    "slow_statement": "slow-statement",
    "starvation": "starvation",
    "pool_too_small": "pool-too-small",
    "pool_too_large": "pool-too-large",
}
"""Applications with one disease, and its kind."""
HEALTHY = ("busy", "streaming", "batches", "retries", "two_engines")

_OPTIONS = {
    "fork_shared": (
        "--server",
        "{python} -m gunicorn --preload -w 2 -k gthread --threads 8 -b {{host}}:{{port}} {module}:app",
    ),
    "work_while_holding": (
        "--server",
        "{python} -m gunicorn -w 2 -k gthread --threads 8 -b {{host}}:{{port}} {module}:app",
    ),
    "pool_too_large": ("--max-connections", "12"),
}


def command(name: str, out: Path, seconds: float, script: str | None = None) -> list[str]:
    """The command line for an application such as `sick/leak`, to be run in the folder of the applications."""
    module, stem = name.replace("/", "."), Path(name).name
    own = APPLICATIONS / f"{stem}.yml"
    filled = {"python": sys.executable, "module": module}
    return [
        *(sys.executable, "-m", "loadgen", "doctor", "--app", f"{module}:app"),
        *("--script", script or str(own if own.exists() else APPLICATIONS / "load.yml"), "--seconds", f"{seconds:g}"),
        *("--servers", "2"),
        *("--setup", f"{sys.executable} setup.py", "--out", str(out), "-o", str(out / "doctor.json")),
        *(each.format(**filled) for each in _OPTIONS.get(stem, ())),
    ]


def sick_line(name: str) -> str:
    """`file:line` of the disease: the line that says so."""
    lines = (APPLICATIONS / f"{name}.py").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if line.endswith("# sick"))
    return f"{name}.py:{number}"


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of load for each application (default 20)")
    parser.add_argument("--only", default="", help="applications to run, separated by commas")
    parser.add_argument("--overhead", action="store_true", help="measure what watching costs instead")
    parser.add_argument("--write", action="store_true", help="write the table into docs/doctor.md")
    options = parser.parse_args()
    if options.overhead:
        print("\n".join(overhead()))
        return
    wanted = options.only.split(",") if options.only else None
    lines = list(_table(options.seconds, wanted))
    print("\n".join(lines))
    if options.write:
        above, rest = PAGE.read_text("utf-8").split(BEGINS)
        PAGE.write_text("\n".join([above + BEGINS, "", *lines, "", ENDS]) + rest.split(ENDS)[1], "utf-8")


def _table(seconds: float, wanted: list[str] | None) -> Any:
    yield "| application | first finding | its line | share | cured: findings | p99 sick → cured | failed sick → cured |"
    yield "| --- | --- | --- | ---: | --- | --- | --- |"
    for stem, kind in SICK.items():
        if wanted is not None and stem not in wanted:
            continue
        sick, cured = _run(f"sick/{stem}", seconds), _run(f"cured/{stem}", seconds)
        first = sick[0]["findings"][0] if sick[0]["findings"] else {"kind": "none", "where": None, "share": 0.0}
        right = first["kind"] == kind and first["where"] == sick_line(f"sick/{stem}")
        yield (
            f"| {stem} | {first['kind']} | {'right' if right else first['where']} | {first['share']:.0%} |"
            f" {_told(cured[0])} | {_p99(sick[1])} → {_p99(cured[1])} ms{_verdict(sick[1], cured[1])} |"
            f" {_failed(sick[1])} → {_failed(cured[1])} |"
        )
    for stem in HEALTHY:
        if wanted is not None and stem not in wanted:
            continue
        found, report = _run(f"healthy/{stem}", seconds)
        yield f"| {stem} (healthy) | {_told(found)} | | | | {_p99(report)} ms | {_failed(report)} |"


def _run(name: str, seconds: float) -> tuple[dict[str, Any], Report]:
    """An application's diagnosis and its report. The cured twin runs under the script of the sick one."""
    print(name, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        done = subprocess.run(
            command(name, out, seconds), cwd=APPLICATIONS, capture_output=True, text=True, check=False
        )
        if done.returncode not in {0, 1}:
            sys.exit(f"{name}: {done.stderr}")
        return json.loads((out / "doctor.json").read_text()), from_json((out / "doctor.report.json").read_text())


def _told(found: dict[str, Any]) -> str:
    return ", ".join(f"{each['kind']} {each['share']:.0%}" for each in found["findings"]) or "none"


def _p99(report: Report) -> str:
    summary = report.aggregate.summaries.get(names.RESPONSE_TIME)
    return f"{summary.p99:,.0f}" if summary else "–"


def _failed(report: Report) -> str:
    return f"{failed_share(report.aggregate.counters):.1%}"


def _verdict(old: Report, new: Report) -> str:
    """Whether p99 is better by more than chance."""
    changes = compare_runs([old], [new], Criteria()).changes
    found = next((each for each in changes if each.name == f"{names.RESPONSE_TIME}.p99"), None)
    return f" ({found.verdict})" if found is not None else ""


def overhead() -> list[str]:
    """What watching costs: CPU of a loan in a process, and answers per second of a service that the command watches."""
    rows = []
    with temporary_postgres() as postgres:
        for name, pool in (("QueuePool", sa.QueuePool), ("FairPool", poolbench.FairPool)):
            plain = sa.create_engine(postgres.url, poolclass=pool)
            watched = sa.create_engine(postgres.url, poolclass=pool)
            poolbench.watch(watched)
            took: dict[str, list[float]] = {"plain": [], "watched": []}
            for _ in range(200):
                for key, engine in (("plain", plain), ("watched", watched)):
                    took[key].append(_loans_us(engine))
            a, b = (statistics.median(values) for values in took.values())
            rows.append(f"| {name}: CPU of connect() and close(), us | {a:.2f} | {b:.2f} | {b - a:+.2f} |")
    rates = _rates()
    a, b = (statistics.median(values) for values in rates.values())
    rows.append(f"| under `loadgen doctor`: answers per second | {a:.0f} | {b:.0f} | {b / a - 1:+.1%} |")
    return ["| what | as it is | watched | difference |", "| --- | ---: | ---: | ---: |", *rows]


def _rates(rounds: int = 5, requests: int = 4000) -> dict[bool, list[float]]:
    """Answers per second of a healthy application to 8 users at a time, as it is and watched, in turns."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    os.chdir(APPLICATIONS)
    with tempfile.TemporaryDirectory() as folder:
        application = OwnApplication(
            "healthy.two_engines:app", APPLICATIONS, Path(sys.executable), None, (f"{sys.executable} setup.py",)
        )
        options = OwnAppOptions(application, str(APPLICATIONS / "load.yml"), Path(folder), servers=1)
        with arranged(options, lambda _: None) as arrangement:
            for _ in range(rounds):
                for watch in (False, True):
                    log = Path(folder) / "server.log"
                    with arrangement.served("own", {}, log, watch=watch) as served:
                        rates[watch].append(_rate(f"{served.servers.url}/posts/7", requests))
    return rates


def _rate(url: str, requests: int) -> float:
    command = ["ab", "-q", "-k", "-c", "8", "-n", str(requests), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Requests per second: +([0-9.]+)", done.stdout)
    assert found is not None
    return float(found[1])


def _loans_us(engine: Any, count: int = 500) -> float:
    began_ns = process_time_ns()
    for _ in range(count):
        engine.connect().close()
    return (process_time_ns() - began_ns) / count / 1000


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
