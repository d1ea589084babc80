"""Runs rounds of fuzzed answers until one breaks a promise, or replays one.

    python -m tests.loadgen.fuzzing --minutes 10
    python -m tests.loadgen.fuzzing --seed 1234

Each round is a `loadgen run` against a server whose answers are wrong in some way. It must end by itself, without a traceback,
write its report, and account for every user and request. The seed of a round that did not is printed, and the exit code is 1.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter

from tests.loadgen.fuzzing.rounds import ends, run_round


def main():
    """Read the command line, run, and exit 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="run the round of this seed only")
    parser.add_argument("--first", type=int, default=0, help="seed of the first round (default %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=10, help="begin no more rounds after this time (default %(default)s)"
    )
    parser.add_argument("--users", type=int, default=200, help="virtual users of a round (default %(default)s)")
    parser.add_argument("--keep-going", action="store_true", help="go on after a round that failed")
    given = parser.parse_args()
    began_s, seed, total, failures = time.monotonic(), given.first if given.seed is None else given.seed, Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        while True:
            try:
                total += run_round(seed, given.users, folder)
            except Exception as error:
                failures += 1
                print(f"seed {seed} failed: {type(error).__name__}: {error}", flush=True)
            seed += 1
            over = given.seed is not None or time.monotonic() - began_s > given.minutes * 60
            if over or (failures and not given.keep_going):
                break
    rounds = seed - (given.first if given.seed is None else given.seed)
    answered, failed = ends(total)
    print(
        f"{rounds} rounds in {time.monotonic() - began_s:.0f} s (seeds {seed - rounds} to {seed - 1}), {failures} failed"
    )
    print(f"{total['http.requests']} requests, {sum(answered.values())} final answers, {sum(failed.values())} errors:")
    print(", ".join(f"{name} {n}" for name, n in failed.most_common()))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
