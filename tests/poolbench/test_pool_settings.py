"""One table of pool settings: what the environment, the URL, the strategies, FairPool and the reference say is the same."""

import inspect
from dataclasses import fields

import gevent
import pytest
from sqlalchemy import NullPool, create_engine, exc
from sqlalchemy.pool import Pool, QueuePool

from db.settings import STRATEGY_NAMES, DatabaseSettings, PoolSettings, SettingError
from db.strategies import STRATEGIES, engine_arguments, unhonoured
from poolbench import FairPool
from poolbench.settings import LONGEST_S, MOST_CONNECTIONS, MOST_WAITING, POOL_SETTINGS, documentation
from tests.poolbench.fair_pool_driver import ScriptedDriver, pool_of
from tests.support.paths import ROOT

URL = "postgresql+psycopg2://me:secret@h/db?plugin=poolbench"
PARAMETERS = [(setting, name) for setting in POOL_SETTINGS for name in setting.parameters]


def option(pool, setting):
    """The pool's value of a setting, by FairPool's argument."""
    return pool._pre_ping if setting.argument == "pre_ping" else pool._options[setting.argument]


def sample(setting):
    """A value that is nobody's default, as text and as FairPool keeps it."""
    wanted = setting.kind.wanted
    return ("on", True) if wanted == "on or off" else ("0.5", 0.5) if "to 1" in wanted[-4:] else ("7", 7)


def test_every_argument_of_the_fair_pool_is_in_the_table():
    own = inspect.signature(FairPool.__init__).parameters
    common = inspect.signature(Pool.__init__).parameters
    assert {setting.argument for setting in POOL_SETTINGS} == (own.keys() | {"pre_ping"}) - {"self", "creator", "kw"}
    assert {setting.argument for setting in POOL_SETTINGS} & common.keys() == {"recycle", "pre_ping"}


@pytest.mark.parametrize(("setting", "name"), PARAMETERS, ids=[name for _, name in PARAMETERS])
def test_every_option_is_reachable_from_the_url(setting, name):
    text, value = sample(setting)
    size = "" if name == "pool_size" else "&pool_size=9"
    assert option(create_engine(f"{URL}{size}&{name}={text}").pool, setting) == value


@pytest.mark.parametrize("setting", POOL_SETTINGS, ids=[setting.variable for setting in POOL_SETTINGS])
def test_every_option_is_reachable_from_the_environment(setting):
    text, value = sample(setting)
    # The service's maximum lifetime ends sooner than an age that only a borrower looks at.
    more = {"DB_POOL_MAX_LIFETIME": "0"} if setting.argument == "recycle" else {}
    pool = PoolSettings.from_mapping({setting.variable: text, **more})
    engine = create_engine("postgresql+psycopg2://", **engine_arguments(pool))
    assert isinstance(engine.pool, FairPool) and option(engine.pool, setting) == value
    assert unhonoured(pool) == ()


def test_the_readmes_table_is_the_tables():
    assert "\n".join(documentation()) in (ROOT / "docs" / "reference.md").read_text()


def test_the_settings_of_the_service_have_a_field_for_each():
    named = {field.name for field in fields(PoolSettings)}
    assert {setting.field for setting in POOL_SETTINGS} == named - {"strategy", "reserve", "given"}


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_strategy_gets_what_it_honours_and_names_what_it_does_not(strategy):
    mapping = {"DB_POOL": strategy, **{setting.variable: sample(setting)[0] for setting in POOL_SETTINGS}}
    pool = PoolSettings.from_mapping(mapping)
    arguments = engine_arguments(pool)
    assert arguments["poolclass"] is STRATEGIES[strategy].pool
    honoured = {setting.variable for setting in POOL_SETTINGS if strategy in setting.pools}
    assert set(unhonoured(pool)) == {setting.variable for setting in POOL_SETTINGS} - honoured
    expected = {setting.engine_argument for setting in POOL_SETTINGS if strategy in setting.pools}
    assert arguments.keys() - {"poolclass"} == expected


def test_the_defaults_that_follow_from_others():
    pool = PoolSettings.from_mapping({"DB_POOL_SIZE": "4", "DB_POOL_TIMEOUT": "3", "DB_POOL_RECYCLE": "60"})
    assert (pool.max_waiting, pool.max_wait_s, pool.max_lifetime_s) == (40, 3, 60)
    queue = PoolSettings.from_mapping({"DB_POOL": "queue"})
    assert (queue.max_waiting, queue.max_wait_s, queue.min_size) == (None, None, 0)
    assert PoolSettings.from_mapping({"DB_POOL": "per-request"}).min_size == 5
    largest = PoolSettings.from_mapping({"DB_POOL_SIZE": str(MOST_CONNECTIONS)})
    assert pool_of(ScriptedDriver(), max_waiting=largest.max_waiting).size() and largest.max_waiting == MOST_WAITING


def test_zero_is_no_limit_for_every_pool():
    zeros = {"DB_POOL_RECYCLE": "0", "DB_POOL_IDLE": "0", "DB_POOL_MAX_WAIT": "0", "DB_POOL_LEAK_THRESHOLD": "0"}
    fair = create_engine("postgresql+psycopg2://", **engine_arguments(PoolSettings.from_mapping(zeros))).pool
    names = ("recycle", "max_lifetime", "idle_timeout", "max_wait", "leak_threshold")
    assert [fair._options[name] for name in names] == [-1, None, None, None, None]
    queue = PoolSettings.from_mapping({"DB_POOL": "queue", "DB_POOL_RECYCLE": "0"})
    assert create_engine("postgresql+psycopg2://", **engine_arguments(queue)).pool._recycle == -1
    for kind, pool_class in (("fair", FairPool), ("queue", QueuePool), ("null", NullPool)):
        pool = create_engine(f"{URL}&pool={kind}&recycle=0").pool
        assert isinstance(pool, pool_class) and pool._recycle == -1


@pytest.mark.parametrize("name", ["max_lifetime", "recycle"])
def test_a_lifetime_of_zero_opens_one_connection_and_keeps_it(name):
    driver = ScriptedDriver()
    pool = pool_of(driver, **{name: 0})
    for _ in range(3):
        pool.connect().close()
    assert driver.attempts == 1


@pytest.mark.parametrize("name", ["max_lifetime", "recycle"])
def test_a_lifetime_too_short_for_a_loan_neither_opens_twice_nor_makes_anybody_wait(name):
    driver = ScriptedDriver()
    pool = pool_of(driver, **{name: 1e-12})
    loans = [gevent.spawn(lambda: pool.connect().close()) for _ in range(3)]
    gevent.joinall(loans, timeout=1, raise_error=True)
    assert all(loan.successful() for loan in loans) and driver.attempts <= 3


ABSURD = [
    ("pool_size", -1), ("pool_size", 10**8), ("pool_size", 1.5), ("pool_size", True), ("max_overflow", -2),
    ("max_overflow", MOST_CONNECTIONS + 1), ("timeout", -1), ("timeout", 1e300), ("timeout", float("nan")),
    ("timeout", "5"), ("max_waiting", -1), ("min_size", -1), ("max_lifetime", -5), ("max_lifetime", float("inf")),
    ("lifetime_jitter", 1.1), ("idle_timeout", -1), ("maintenance_interval", 0), ("maintenance_interval", -1),
    ("leak_threshold", -1), ("max_wait", -0.1), ("max_wait", LONGEST_S + 1), ("recycle", -2), ("recycle", 1e300),
    ("timeout", 10**400), ("max_lifetime", ""), ("idle_timeout", False), ("recycle", []), ("pre_ping", "5"), ("pre_ping", -1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), ABSURD)
def test_the_constructor_refuses_what_cannot_be_in_one_line(name, value):
    with pytest.raises(exc.ArgumentError, match=rf"^FairPool: {name} must be .*, not ") as error:
        FairPool(ScriptedDriver().connect, **{name: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", POOL_SETTINGS, ids=[setting.variable for setting in POOL_SETTINGS])
@pytest.mark.parametrize("text", ["-2", "1e300", "nan", "many", "--5", "1_0", "٣"])
def test_environment_and_url_refuse_it_too(setting, text):
    with pytest.raises(SettingError, match=rf"^{setting.variable} must be .*, not '{text}'$"):
        PoolSettings.from_mapping({setting.variable: text})
    name = setting.parameters[0]
    with pytest.raises(exc.ArgumentError, match=rf"^{name} must be .*, not '{text}'$"):
        create_engine(f"{URL}&{name}={text}")


def test_a_number_of_five_thousand_digits_is_refused_in_a_short_line():
    with pytest.raises(exc.ArgumentError, match=r"^pool_size must be a whole number from 0 to \d+, not '9+\.\.\.9+'$"):
        create_engine(f"{URL}&pool_size={'9' * 5000}")


def test_a_statement_timeout_beyond_the_servers_range_is_refused():
    mapping = {"DATABASE_URL": "postgresql://h/x", "STATEMENT_TIMEOUT": "2147484"}
    with pytest.raises(SettingError, match=r"^STATEMENT_TIMEOUT must be a number of seconds"):
        DatabaseSettings.from_mapping(mapping)
