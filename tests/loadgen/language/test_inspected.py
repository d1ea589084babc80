"""Values on the console, as Node's console.log shows them; `node_inspect.json` holds pairs of a value and what Node printed."""

import json

import pytest

from loadgen.language.inspected import inspected
from loadgen.language.values import UNDEFINED
from tests.support.paths import GOLDEN

PAIRS = json.loads((GOLDEN / "node_inspect.json").read_text())


@pytest.mark.parametrize(("value", "shown"), PAIRS, ids=[str(i) for i in range(len(PAIRS))])
def test_a_value_is_shown_as_node_shows_it(value, shown):
    assert inspected(value) == shown


def test_texts_and_missing_values_are_shown_as_they_are():
    assert (inspected("it's [1]"), inspected(UNDEFINED)) == ("it's [1]", "undefined")
