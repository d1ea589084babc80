"""The fair pool under minutes of random kills, timeouts and failures, and two restarts of its database.

    python -m benchmarks.soak [--minutes 5] [--seed N]

A hundred greenlets borrow from ten connections. Some give up waiting, some are killed at a random instant, some leave what
they borrowed to the garbage collector. At the end no greenlet may be waiting, every slot must be back, and the pool must
serve as it did at the start. Otherwise the command says what is wrong and exits 1.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import gc  # noqa: E402
import random  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402

import gevent  # noqa: E402
from psycogreen.gevent import patch_psycopg  # noqa: E402
from sqlalchemy import Engine, create_engine, exc, text  # noqa: E402

from db.embedded import EmbeddedPostgres, temporary_postgres  # noqa: E402
from poolbench import FairPool  # noqa: E402

SIZE, USERS, TIMEOUT_S = 10, 100, 2.0
CHECK = "-c client_connection_check_interval=50"


def borrow(engine: Engine, rng: random.Random, seen: Counter) -> None:
    """Borrow once: a query, and now and then a mishap."""
    try:
        with gevent.Timeout(rng.uniform(0.001, 0.2)) if rng.random() < 0.1 else gevent.Timeout(None):
            connection = engine.connect()
            if rng.random() < 0.02:
                seen["leaked"] += 1
                connection = None  # for the collector to find
                return
            with connection:
                connection.execute(text("SELECT pg_sleep(:s)"), {"s": rng.choice((0, 0, 0.002, 0.02))})
                if rng.random() < 0.01:
                    connection.invalidate()
        seen["served"] += 1
    except gevent.Timeout:
        seen["given up"] += 1
    except exc.TimeoutError:
        seen["pool timeout"] += 1
    except exc.DBAPIError:
        seen["database failure"] += 1
        gevent.sleep(0.02)


def user(engine: Engine, rng: random.Random, seen: Counter, end: float) -> None:
    """Borrow until the end; a killed user is replaced."""
    while time.monotonic() < end:
        visit = gevent.spawn(borrow, engine, rng, seen)
        if rng.random() < 0.05:
            gevent.sleep(rng.uniform(0, 0.02))
            if not visit.dead:
                visit.kill(block=False)
                seen["killed"] += 1
        visit.join()
        gevent.sleep(rng.uniform(0, 0.01))


def watch(postgres: EmbeddedPostgres, engine: Engine, seen: Counter, end: float) -> None:
    """Restart the database at one third and two thirds; check the limits and print a line every ten seconds."""
    began, restarts = time.monotonic(), 0
    while (now := time.monotonic()) < end:
        snapshot = engine.pool.snapshot()
        if snapshot.in_use + snapshot.idle > SIZE:
            sys.exit(f"more connections than {SIZE}: {snapshot}")
        if restarts < 2 and now - began > (end - began) * (restarts + 1) / 3:
            restarts += 1
            postgres.restart()
            seen["restarts"] += 1
        if int(now - began) % 10 == 0:
            gc.collect()
            print(f"{now - began:4.0f} s  {dict(seen)}  waiting {snapshot.waiting}", flush=True)
        gevent.sleep(1.0)


def verdict(engine: Engine, seen: Counter) -> str | None:
    """What is wrong at the end, or None."""
    gc.collect()
    deadline = time.monotonic() + 10
    while engine.pool.checkedout() and time.monotonic() < deadline:
        gevent.sleep(0.05)
    snapshot = engine.pool.snapshot()
    if snapshot.in_use or snapshot.waiting or snapshot.connecting:
        return f"not idle: {snapshot}"
    held = []
    try:
        held = [engine.connect() for _ in range(SIZE)]
        for connection in held:
            connection.execute(text("SELECT 1"))
    except exc.SQLAlchemyError as error:
        return f"only {len(held)} of {SIZE} slots are left: {error}"
    finally:
        for connection in held:
            connection.close()
    if engine.pool.checkedin() != SIZE:
        return f"{engine.pool.checkedin()} of {SIZE} idle"
    if seen["served"] < 1000 or not seen["killed"] or seen["restarts"] < 2:
        return f"too little happened: {dict(seen)}"
    longest_s = snapshot.wait.quantile_ns(1.0) / 1e9
    return f"somebody waited {longest_s:.1f} s past a limit of {TIMEOUT_S} s" if longest_s > TIMEOUT_S * 1.25 else None


def main() -> None:
    """Run the soak and exit with its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    patch_psycopg()
    rng, seen = random.Random(given.seed), Counter()
    with temporary_postgres(settings={"fsync": "off"}) as postgres:
        url = postgres.url.replace("postgresql://", "postgresql+psycopg2://")
        engine = create_engine(
            url, poolclass=FairPool, pool_size=SIZE, max_overflow=0, pool_timeout=TIMEOUT_S, min_size=3,
            connect_args={"options": CHECK},
        )  # fmt: skip
        end = time.monotonic() + given.minutes * 60
        memory = []
        users = [gevent.spawn(user, engine, random.Random(rng.random()), seen, end) for _ in range(USERS)]
        watcher = gevent.spawn(watch, postgres, engine, seen, end)
        gevent.sleep(min(30.0, given.minutes * 20))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        gevent.joinall([*users, watcher], raise_error=True)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        wrong = verdict(engine, seen)
        snapshot = engine.pool.snapshot()
        engine.dispose()
    print(f"{given.minutes:g} minutes: {dict(seen)}")
    print(f"{snapshot.checkouts} loans, {snapshot.handed_over} handed over, {snapshot.created} connections opened")
    print(
        f"wait p99 {snapshot.wait.quantile_ns(0.99) / 1e6:.0f} ms; peak memory {memory[0] // 1024} -> {memory[1] // 1024} MB"
    )
    if wrong:
        sys.exit(wrong)
    print("every slot is back, nobody waits")


if __name__ == "__main__":
    main()
