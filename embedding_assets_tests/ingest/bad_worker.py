"""A PDF worker that misbehaves as its first argument says: run in place of the real one by the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from embedding_assets.ingest.pdf_frames import write_frame

HANG_S = 600


def _begin() -> None:
    write_frame(sys.stdout.buffer, "document", pages=3, title="Bad")
    write_frame(sys.stdout.buffer, "page", page=2)


def main() -> None:
    """Misbehaves."""
    how = sys.argv[1]
    if how == "hang at once":
        time.sleep(HANG_S)
    _begin()
    if how == "hang":
        time.sleep(HANG_S)
    elif how == "hang with a child":
        child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({HANG_S})"])
        write_frame(sys.stdout.buffer, "image", page=2, verdict="rejected", reason=str(child.pid))
        time.sleep(HANG_S)
    elif how == "drip":
        while True:
            sys.stdout.buffer.write(b" ")
            sys.stdout.buffer.flush()
            time.sleep(0.01)
    elif how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "exit":
        sys.exit("something went wrong")
    elif how == "half a frame":
        sys.stdout.buffer.write(b'{"record": "image", "page": 2, "serial": 0, "bytes": 1000}\nshort')
    elif how == "garbage":
        sys.stdout.buffer.write(b"\x00\x01 no json\n")
    elif how == "endless line":
        sys.stdout.buffer.write(b"x" * 10_000_000)
    elif how == "too large":
        sys.stdout.buffer.write(b'{"record": "image", "page": 2, "serial": 0, "bytes": 99999999999}\n')
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
