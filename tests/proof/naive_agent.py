"""The control of the proof: backs up and restores as one would at first, by read, judge, rename.

It reads a file once to judge it and once more to copy it, and puts the last copy back without looking again.  The proof
must find what that loses; a proof that cannot fail shows nothing.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


def look_after(data: Path, quiet_s: float) -> None:
    """Copy each new state that parses, put the newest copy over each one that does not; never returns."""
    users, backups = data / "users.json", data / "backups"
    backups.mkdir(exist_ok=True)
    done, newest = 0, backups / "none"
    while True:
        time.sleep(0.002)
        changed = users.stat().st_mtime_ns
        if changed == done or time.time_ns() - changed < quiet_s * 1e9:
            continue
        done = changed
        try:
            json.loads(users.read_bytes())
        except ValueError:
            if newest.exists():
                staged = data / "temp/naive.tmp"
                shutil.copyfile(newest, staged)
                staged.rename(users)
            continue
        stamp = time.time_ns() // 1_000_000
        name = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(stamp // 1000)) + f"-{stamp % 1000:03}Z"
        newest = backups / f"users_backup_{name}.json"
        shutil.copyfile(users, newest)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    root, port, quiet = sys.argv[1:]
    server = HTTPServer(("127.0.0.1", int(port)), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    look_after(Path(root) / "data", float(quiet))
