"""The guard that keeps a user's application away from other databases: it is there however a driver is imported and used."""

import importlib.util
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.machinery import ModuleSpec

import psycopg
import psycopg2
import pytest
from psycopg.rows import class_row, dict_row, scalar_row
from psycopg2.extras import LoggingConnection, NamedTupleCursor, RealDictCursor

from loadgen.lab import attached
from loadgen.lab.attached import _AfterImport
from loadgen.lab.own_evidence import Evidence
from tests.support.own_app import attachment

Row = namedtuple("Row", "nothing of the kind")  # noqa: PYI024 - a class of rows that none fits


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """driver(source) -> the name of a module, told about in the list `told`."""
    monkeypatch.syspath_prepend(tmp_path)
    told = []

    def write(source=""):
        (tmp_path / "a_driver.py").write_text(source)
        monkeypatch.setattr(sys, "meta_path", [_AfterImport({"a_driver": told.append}), *sys.meta_path])
        return told

    yield write
    sys.modules.pop("a_driver", None)


def imported():
    return importlib.import_module("a_driver")


def test_a_driver_that_was_looked_for_before_is_told_when_it_is_imported(driver):
    told = driver()
    assert importlib.util.find_spec("a_driver") is not None
    assert told == []
    assert told == [imported()]


def test_a_driver_whose_first_import_failed_is_told_after_the_next(driver, monkeypatch):
    told = driver("import os\nif 'A_DRIVER' not in os.environ: raise ImportError('not yet')")
    with pytest.raises(ImportError, match="not yet"):
        imported()
    monkeypatch.setenv("A_DRIVER", "")
    assert told == [imported()]


@pytest.mark.parametrize("place", [0, 1])
def test_a_driver_is_told_once_where_another_finder_asks_all_finders(driver, place):
    class Asking:
        """As the finders of tracing libraries do."""

        is_asking = False

        def find_spec(self, name, _path=None, _target=None) -> ModuleSpec | None:
            if self.is_asking:
                return None
            self.is_asking = True
            try:
                return importlib.util.find_spec(name)
            finally:
                self.is_asking = False

    told = driver()
    sys.meta_path.insert(place, Asking())
    assert told == [imported()]


def connected(ours, url, **options):
    """A connection of a guarded driver, that of the row's or cursor's class which the options name."""
    if "row_factory" in options:
        inner = partial(ours._guarded(psycopg.Connection.connect.__func__, psycopg), psycopg.Connection)
    else:
        inner = ours._guarded(psycopg2.connect, psycopg2)
    return inner(url, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"cursor_factory": RealDictCursor},
        {"cursor_factory": NamedTupleCursor},
        {"connection_factory": LoggingConnection},
        {"row_factory": dict_row},
        {"row_factory": scalar_row},
        {"row_factory": class_row(Row)},
    ],
    ids=["psycopg2 dict", "psycopg2 named", "psycopg2 logging", "psycopg dict", "psycopg scalar", "psycopg class"],
)
def test_rows_of_any_kind_leave_the_guard_at_work(postgres, tmp_path, options):
    # By another name of the same host, so that the server has to be asked.
    url = postgres.url.replace("127.0.0.1", "localhost")
    connected(attachment(postgres, tmp_path), url, **options).close()
    assert any(Evidence.read(tmp_path).of("connected"))
    with pytest.raises((psycopg.OperationalError, psycopg2.OperationalError), match="keeps the application away"):
        connected(attachment(postgres, tmp_path, identity="another"), url, **options)


def test_a_connection_that_cannot_be_asked_for_its_place_is_closed(postgres, tmp_path, monkeypatch):
    monkeypatch.setattr(attached, "IDENTITY", "SELECT nothing")
    opened = []

    def connect(url):
        opened.append(psycopg2.connect(url))
        return opened[0]

    guarded = attachment(postgres, tmp_path)._guarded(connect, psycopg2)
    with pytest.raises(psycopg2.errors.UndefinedColumn):
        guarded(postgres.url.replace("127.0.0.1", "localhost"))
    assert opened[0].closed


@pytest.mark.parametrize("module", [psycopg2, psycopg])
def test_a_process_opens_no_more_connections_than_it_may(postgres, tmp_path, module):
    ours = attachment(postgres, tmp_path, most=3)
    most, guarded = [], ours._guarded(module.connect, module)

    def open_one(_):
        with suppress(module.OperationalError):
            connection = guarded(postgres.url)
            with ours._counting:
                most.append(sum(not each.closed for each in ours._open))
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(open_one, range(40)))
    assert 1 <= max(most) <= 3
    kept = [guarded(postgres.url) for _ in range(3)]
    with pytest.raises(module.OperationalError, match="loadgen lets each process open 3"):
        guarded(postgres.url)
    kept.pop().close()
    kept.append(guarded(postgres.url))
    for each in kept:
        each.close()


@pytest.mark.parametrize("module", [psycopg2, psycopg])
def test_connections_that_could_not_be_opened_take_no_place(postgres, tmp_path, module):
    guarded = attachment(postgres, tmp_path, most=1)._guarded(module.connect, module)
    for _ in range(2):
        with pytest.raises(module.OperationalError, match="does not exist"):
            guarded(f"{postgres.url.rsplit('/', 1)[0]}/nosuch")
        with pytest.raises(module.ProgrammingError):
            guarded("nosuch option")
    guarded(postgres.url).close()
