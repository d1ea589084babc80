"""What the commands that run a user's application say where it does not come to a result."""

import signal

import pytest

from loadgen.commands.application import one_line_errors
from loadgen.runner import Interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_there_is_anything_to_show_is_one_line(number, code, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors(None):
        raise Interrupted(number)
    assert ended.value.code == code
    assert capsys.readouterr().err == "Interrupted\n"
