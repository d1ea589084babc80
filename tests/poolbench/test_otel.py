"""OpenTelemetry's metrics of the pool, read with its real SDK."""

import gc
import subprocess
import sys

import gevent
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sqlalchemy import NullPool, create_engine, exc, text

from poolbench.otel import observe
from tests.support.paths import ROOT

URL = "sqlite:///file:otel?mode=memory&uri=true&plugin=poolbench&pool_size=1&max_overflow=1&pool_timeout=0.5&max_waiting=9"


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    provider = MeterProvider(metric_readers=[reader])
    yield provider
    provider.shutdown()


def figures(reader):
    """Metric (without its prefix) and state -> value, of the only pool."""
    found = {}
    data = reader.get_metrics_data()
    for scope in data.resource_metrics[0].scope_metrics if data else ():
        assert scope.scope.name == "poolbench"
        for metric in scope.metrics:
            for point in metric.data.data_points:
                state = point.attributes.get("db.client.connection.state")
                name = metric.name.removeprefix("db.client.connection.") + (f" {state}" if state else "")
                found[name] = point.value if hasattr(point, "value") else point
    return found


def test_the_metrics_are_the_pools(reader, provider):
    engine = create_engine(URL + "&min_size=1")
    observe(engine, provider, "orders")
    held = [engine.connect(), engine.connect()]
    with pytest.raises(exc.TimeoutError):
        engine.connect()
    waiter = gevent.spawn(engine.connect)
    gevent.sleep(0)
    busy = figures(reader)
    create_time, wait_time = busy.pop("create_time"), busy.pop("wait_time")
    assert busy == {
        "count used": 2, "count idle": 0, "max": 2, "idle.max": 1, "idle.min": 1, "pending_requests": 1, "timeouts": 1,
    }  # fmt: skip
    assert create_time.count == 2 and 0 < create_time.sum < 1
    assert create_time.attributes == {"db.client.connection.pool.name": "orders"}
    assert wait_time.count == 2, "neither the one that timed out nor the one that waits"
    gevent.sleep(0.05)
    for connection in held:
        connection.close()
    waiter.get().close()
    calm = figures(reader)
    wait_time, use_time = calm["wait_time"], calm["use_time"]
    assert (wait_time.count, use_time.count) == (3, 3)
    assert 0.05 < wait_time.max < 0.5 < use_time.max < 5
    assert sum(0 < bound <= 0.05 for bound in wait_time.explicit_bounds) >= 3, "they tell waits of milliseconds apart"
    assert wait_time.attributes == use_time.attributes == {"db.client.connection.pool.name": "orders"}
    assert (calm["count used"], calm["count idle"], calm["pending_requests"]) == (0, 1, 0)
    engine.dispose()
    assert figures(reader)["count idle"] == 0, "the new pool's"
    engine.connect().close()
    assert figures(reader)["use_time"].count == 4


def test_a_pool_is_named_by_its_url_and_an_engine_that_is_gone_is_not_reported(reader, provider):
    engine = create_engine("postgresql+psycopg2://me:secret@db.example:5433/shop?plugin=poolbench")
    observe(engine, provider)
    observe(engine, provider)
    points = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert {point.attributes["db.client.connection.pool.name"] for point in points} == {"db.example:5433/shop"}
    del engine
    gc.collect()
    assert figures(reader) == {}


def test_a_loan_is_reported_however_it_ends_and_to_each_provider(reader, provider):
    engine, other = create_engine(URL), InMemoryMetricReader()
    observe(engine, provider, "shop")
    observe(engine, MeterProvider(metric_readers=[other]), "shop")
    connection = engine.connect()
    connection.invalidate()
    connection.close()
    loan = engine.raw_connection()
    loan.detach()
    loan.close()
    loan = engine.raw_connection()
    del loan
    gc.collect()
    for each in (reader, other):
        found = figures(each)
        assert (found["wait_time"].count, found["use_time"].count, found["create_time"].count) == (3, 3, 3)


def test_another_pool_has_no_such_metrics(provider):
    with pytest.raises(TypeError, match="this engine has a NullPool"):
        observe(create_engine("sqlite://", poolclass=NullPool), provider)


def test_the_url_switches_them_on_for_the_global_provider():
    code = f"""
import sys
from sqlalchemy import create_engine
create_engine({URL!r}).connect().close()
assert "opentelemetry" not in sys.modules
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.metrics import set_meter_provider
reader = InMemoryMetricReader()
engine = create_engine({URL + "&otel=on&watch=on"!r})
set_meter_provider(MeterProvider(metric_readers=[reader]))
engine.connect().close()
print(*sorted(metric.name for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    names = "count create_time idle.max idle.min max pending_requests timeouts use_time wait_time"
    assert done.stdout.split() == [f"db.client.connection.{name}" for name in names.split()]


def test_what_cannot_be_had_is_one_clear_line():
    with pytest.raises(exc.ArgumentError, match="otel must be on or off"):
        create_engine(URL + "&otel=perhaps")
    with pytest.raises(exc.ArgumentError, match="otel: pool=null has no such parameter"):
        create_engine("sqlite://?plugin=poolbench&pool=null&otel=on")
    code = f"""
import sys
sys.modules["opentelemetry"] = None
from sqlalchemy import create_engine
try:
    create_engine({URL + "&otel=on"!r})
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "otel=on: the package opentelemetry-api is not installed", done.stderr


def test_a_real_engine_works_with_them(postgres):
    engine = create_engine(
        postgres.url.replace("postgresql://", "postgresql+psycopg2://") + "?plugin=poolbench&otel=on"
    )
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()
