"""What systemd, a container engine or any other supervisor does: start a program, and start it again whenever it ends.

SIGTERM ends the program, and then the supervisor.
"""

import signal
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    """Until SIGTERM."""
    asked_to_stop = False
    child = subprocess.Popen(command)

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    while not asked_to_stop:
        child.wait()
        if not asked_to_stop:
            time.sleep(0.1)  # systemd's RestartSec
            child = subprocess.Popen(command)
    child.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
