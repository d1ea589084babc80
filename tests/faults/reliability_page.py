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
# Reliability: faults, and what clients saw; the stack; bad input

Each line is a test with real processes (`tests/faults/`): gunicorn with its workers, PostgreSQL, and a load that writes down
what became of each single request. Afterwards the database is asked for every write. A write counts as acknowledged when its
client had 201 (a link) or 301 (a click); all of those must be found, none twice. A write whose client had an error or no
answer may be there too, once: the commit may have come before the fault.

Recovery runs from the repair to the end of the last request that failed; 0.0 s means that none failed after it.
The figures are of one run, made by the commands below, on the machine named there; the tests hold the limits. All processes
of a test, its load included, share that machine.

```sh
{commands}
```

"""

STACK = """
## The stack in containers

What `tests/compose/` measured on the stack of docker-compose.yml, built from nothing; load, engine and all containers share the
machine (docs/compose.md).

"""

TRIED = """
## Bad input

Each line is a test, by its name, with the number of inputs it tried; all got what the name says.

| given to | promise | inputs |
| :-- | :-- | --: |
"""

TAIL = """
## What the limits are, and where they come from

| what | limit | where it is set |
| :-- | :-- | :-- |
| waiting for a connection | `DB_POOL_TIMEOUT` (5 s), or refused at once when `DB_POOL_MAX_WAITING` wait | `poolbench/` |
| connections that analytics may hold | all but `DB_POOL_RESERVE` (0) | `db/database.py` |
| opening a connection | 5 s, or `?connect_timeout=` | `db/database.py` |
| a statement, while the network lives | `STATEMENT_TIMEOUT` (10 s), ended by the server: 504 | the server |
| a statement, when the server falls silent | 2 s more: the connection is given up, 503 | `db/green.py` |
| a peer that is gone without a word | 10 to 16 s, by keepalive probes and TCP_USER_TIMEOUT on both sides | `db/database.py` |
| `/health` | `HEALTH_TIMEOUT` in all (none; 2 s in these tests), for a balancer that waits no longer | `app.py` |
| a stop (SIGTERM) | as long as the running requests take, at most 20 s; kept connections get 1 s for a last request | `wsgi/` |

## What a balancer and a supervisor should know

- `/live` says that the process serves, `/health` that it reaches the database. Restart a server by the first. Taking servers out
  by the second takes out all of them at once when the database is slow, and with them what needs no database.
- A killed worker takes its running requests with it, without an answer; the others go on, and the master starts another.
- Workers whose master is killed finish what they are doing, and let go of the port at once, so that the next master can have it.
- Overload of the database is shed before the pool, at the price of an error answer. Where a worker's own CPU is the bottleneck
  an error costs about as much as an answer, so a worker takes one new connection at a time, and what it cannot take waits in
  the kernel's backlog (2048): at two to three times the capacity goodput stayed at its peak, and nobody was refused, but the
  median wait was 4 s after eight seconds of it. Taking all that come was tried: goodput fell to a twentieth. Bounding that wait
  is the balancer's part: deploy/haproxy.cfg limits the requests at each server (maxconn) and the time in its own queue.
- A full disk fails writes with 507 and no `Retry-After`: repeating does not help until somebody makes room. The write-ahead log
  belongs on another disk than the tables: PostgreSQL panics when it cannot write that.
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
