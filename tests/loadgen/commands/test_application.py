"""What the commands that run a user's application say where it does not come to a result."""

import signal

import click
import psycopg2
import pytest

from db.binaries import EmbeddedPostgresError
from loadgen.commands.application import one_line_errors
from loadgen.lab.own_app import NothingAnsweredError
from loadgen.lab.own_database import DatabaseError
from loadgen.lab.stack import PartError, StackError
from loadgen.runner import Interrupted, SectionFailed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_there_is_anything_to_show_is_one_line(number, code, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors(None):
        raise Interrupted(number)
    assert ended.value.code == code
    assert capsys.readouterr().err == "Interrupted\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StackError("no module x"), 2),
        (DatabaseError("no URL"), 2),
        (PartError("the servers did not start"), 3),
        (EmbeddedPostgresError("no postgres"), 3),
        (SectionFailed("before", "ECONNREFUSED"), 3),
        (NothingAnsweredError("503"), 3),
    ],
)
def test_an_error_is_one_line_whose_exit_code_says_whose_fault_it_is(error, code):
    with pytest.raises(click.ClickException) as ended, one_line_errors(None):
        raise error
    assert (ended.value.exit_code, str(error) in ended.value.message) == (code, True)


@pytest.mark.parametrize(("url", "code"), [(None, 3), ("postgresql://u:secret@h/d", 2)])
def test_a_database_is_the_users_own_fault_if_the_user_gave_it(url, code):
    with pytest.raises(click.ClickException) as ended, one_line_errors(url):
        raise psycopg2.OperationalError("refused\nsecret")
    assert ended.value.exit_code == code
    assert "\n" not in ended.value.message and (url is None or "secret" not in ended.value.message)
