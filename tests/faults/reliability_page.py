"""Writes docs/reliability.md from what the tests of faults, of the stack and of bad input have filed.

    python -m tests.faults.reliability_page docs/reliability.json bad-input.xml

The commands that file it stand in the page itself (`COMMANDS`). Without the second file (pytest's --junitxml) the bad inputs
of the last time stay.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

BAD_INPUT = {
    "tests/wsgi/test_security_http.py": "the service, as HTTP",
    "tests/app/test_security_service.py": "the service, as requests",
    "tests/loadgen/script/test_security_scripts.py": "`loadgen run`: scripts, options, answers of servers",
    "tests/loadgen/http/test_misbehaving_servers.py": "`loadgen run`: servers",
    "tests/reports/test_security_reports.py": "`loadgen report` and `diff`: reports, exports",
}
"""Test files, and what is given the bad input in them."""

COMMANDS = f"""\
make test-faults ARGS='--table docs/reliability.json'
.venv/bin/python -m pytest tests/faults/test_fault_soak.py --minutes 10 --table docs/reliability.json
make test-compose ARGS='--table docs/reliability.json'
.venv/bin/python -m pytest --junitxml bad-input.xml {" ".join(BAD_INPUT)}
.venv/bin/python -m tests.faults.reliability_page docs/reliability.json bad-input.xml > docs/reliability.md"""

HEAD = """\
# Reliability: faults, the stack, and bad input

Each row is a test with real processes (`tests/faults/`): gunicorn with its workers, PostgreSQL, and a load that records
the result of every request. Afterwards the test looks for every write in the database. A write counts as acknowledged
if its client got 201 (a link) or 301 (a click); each of those must be there, and only once. A write whose client got an
error or no answer may be there too, once, because it may have been committed before the fault.

Recovery is the time from the repair to the end of the last request that failed; 0.0 s means that none failed after the
repair. The figures are from one run of the commands below, on the machine named below the table; the tests check the
limits. All processes of a test, including its load, share that machine.

```sh
{commands}
```

"""

STACK = """
## The stack in containers

What `tests/compose/` measured on the stack of docker-compose.yml, built from nothing. Load, engine and all containers
share the machine (see docs/compose.md).

"""

TRIED = """
## Bad input

Each row is a test, by its name, with the number of inputs that it tried; all passed.

| given to | promise | inputs |
| :-- | :-- | --: |
"""

TAIL = """
## Limits, and where they are set

| what | limit | where it is set |
| :-- | :-- | :-- |
| waiting for a connection | `DB_POOL_TIMEOUT` (5 s); refused at once if `DB_POOL_MAX_WAITING` already wait | `poolbench/` |
| connections that analytics may hold | all but `DB_POOL_RESERVE` (0) | `db/database.py` |
| opening a connection | 5 s for each host, or `?connect_timeout=` | `db/database.py` |
| the start, while the database is silent or locked | 3 s; the service listens then, answers 503 and goes on trying | `wsgi/` |
| a lock while the tables are brought up to date | 2 s; then 503, and the next request tries again | `db/database.py` |
| folding clicks into the roll-ups, or checking them | 10 min | `db/rollups.py` |
| a statement, while the network works | `STATEMENT_TIMEOUT` (10 s), enforced by the database: 504 | the database |
| a statement, if the database falls silent | 2 s more; then the connection is given up: 503 | `db/green.py` |
| a peer that disappeared | 10 to 16 s, by keepalive probes and TCP_USER_TIMEOUT on both sides | `db/database.py` |
| `/health` | `HEALTH_TIMEOUT` in all (default none; 2 s in these tests), for balancers that do not wait longer | `app.py` |
| a stop (SIGTERM) | as long as running requests take, at most 20 s; kept connections get 1 s for a last request | `wsgi/` |

## What a balancer and a supervisor should know

- `/live` says that the process works, `/health` that it reaches the database. Use `/live` to decide on a restart. A
  balancer that removes servers because of `/health` removes all of them at once when the database is slow, even for
  requests that need no database.
- The running requests of a killed worker get no answer. The other workers continue, and the master starts a new one.
- Workers whose master is killed finish their requests and release the port at once, so that the next master can use it.
- If the database is overloaded, requests are refused before they enter the pool, which costs only an error answer. If a
  worker's own CPU is the bottleneck, an error costs about as much as an answer. So a worker accepts one new connection
  at a time, and the rest wait in the kernel's backlog (2048). At two to three times the capacity, goodput stayed at its
  peak and no request was refused, but after eight seconds the median wait was 4 s. When workers accepted every
  connection at once, goodput fell to a twentieth. To bound the wait is the balancer's task: deploy/haproxy.cfg limits
  the requests at each server (maxconn) and the time in its own queue.
- With several hosts in DATABASE_URL and `target_session_attrs=read-write`, a promoted standby is found by itself. No
  acknowledged write is lost if replication is synchronous (`synchronous_standby_names`); otherwise the last moments may be.
  A silent host costs each new connection its `connect_timeout`, so set that to a second or two.
- On a full disk, writes fail with 507 and no `Retry-After`: a retry cannot succeed until somebody frees space. Keep the
  write-ahead log on a different disk than the tables: PostgreSQL panics if it cannot write the log.
"""


def page(table: dict[str, Any]) -> str:
    """The page, in Markdown."""
    columns = "| fault | load | what clients saw | longest answer | recovery | writes acknowledged / found / doubled |"
    lines = [columns, "| :-- | :-- | :-- | --: | :-- | --: |", *(line(row) for row in table["rows"])]
    where = f"\nMeasured {table['measured']} on {table['machine']}.\n"
    stack = "".join(f"- {each}\n" for each in table.get("stack", ()))
    tried = "".join(
        f"| {BAD_INPUT[file]} | {promise} | {count} |\n" for file, promise, count in table.get("bad_input", ())
    )
    return HEAD.format(commands=COMMANDS) + "\n".join(lines) + "\n" + where + STACK + stack + TRIED + tried + TAIL


def tried(junit: str) -> list[tuple[str, str, int]]:
    """File, promise (the test's name, in words) and number of cases of each test; raises ValueError if one did not pass."""
    counts: Counter[tuple[str, str]] = Counter()
    for case in ET.fromstring(junit).iter("testcase"):
        name = str(case.get("name")).partition("[")[0]
        if len(case):
            raise ValueError(f"{name} did not pass")
        counts[str(case.get("classname")).replace(".", "/") + ".py", name.removeprefix("test_").replace("_", " ")] += 1
    return [(file, promise, count) for (file, promise), count in counts.items()]


def line(row: dict[str, Any]) -> str:
    """One row."""
    writes = "-" if row["acknowledged"] is None else f"{row['acknowledged']} / {row['found']} / {row['doubled']}"
    cells = row["fault"], row["load"], row["saw"], f"{row['longest_answer_s']:.2f} s", row["recovery"], writes
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    path, *junit = (Path(each) for each in sys.argv[1:])
    given = json.loads(path.read_text())
    if junit:
        given["bad_input"] = tried(junit[0].read_text())
        path.write_text(json.dumps(given, indent=2) + "\n")
    sys.stdout.write(page(given))
