"""The recorded answers of jsonpath-plus are those of the version that is installed with Artillery."""

import json
from pathlib import Path

from tests.peers.jsonpath_plus import GOLDEN, found_by_jsonpath_plus


def test_the_recorded_answers_are_those_of_the_library(artillery):
    recorded = json.loads(GOLDEN.read_text())
    modules = Path(artillery[0]).resolve().parent
    modules = next(each for each in (modules, *modules.parents) if each.name == "node_modules")
    assert found_by_jsonpath_plus(modules, recorded["document"], recorded["paths"]) == recorded["found"]
