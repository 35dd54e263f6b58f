"""What the daemon costs while nothing happens: resident memory and processor time, for a few and for many files.

    python benchmarks/idle.py --seconds 600 --files 3 10000
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--files", type=int, nargs="+", default=[3, 10_000])
    args = parser.parse_args()
    runs = [Run(count, 9300 + i) for i, count in enumerate(args.files)]
    try:
        for run in runs:
            run.await_ready()
        before = [run.cpu_s() for run in runs]
        time.sleep(args.seconds)
        for run, was in zip(runs, before, strict=True):
            share = (run.cpu_s() - was) / args.seconds * 100
            print(f"{run.count:>6} files: {run.rss_mib():.1f} MiB resident, {share:.3f} % of one core over {args.seconds} s", flush=True)
    finally:
        for run in runs:
            run.stop()


class Run:
    """One daemon over a folder of small files."""

    def __init__(self, count: int, port: int) -> None:
        self.count, self._port = count, port
        self._folder = tempfile.mkdtemp(prefix="idle-")
        data = os.path.join(self._folder, "data")
        for i in range(count):
            folder = os.path.join(data, f"guild{i % 100}") if count > 100 else data
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, f"file{i}.json"), "w", encoding="utf-8") as stream:
                json.dump({str(n): {"name": f"user {n}", "cartridge": n} for n in range(80)}, stream)
        config = os.path.join(self._folder, "config.yaml")
        with open(config, "w", encoding="utf-8") as stream:
            stream.write(f"data_dir: {data}\nmetrics: {{listen: '127.0.0.1:{port}'}}\nlog: {{format: json, level: warning}}\n")
        self._began = time.monotonic()
        self._process = subprocess.Popen([sys.executable, "-m", "agent.cli", "run", "--config", config])

    def await_ready(self) -> None:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5).close()
                break
            except OSError:
                time.sleep(0.02)
        print(f"{self.count:>6} files: first protection done after {time.monotonic() - self._began:.2f} s", flush=True)

    def cpu_s(self) -> float:
        with open(f"/proc/{self._process.pid}/stat", encoding="ascii") as stream:
            fields = stream.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        with open(f"/proc/{self._process.pid}/status", encoding="ascii") as stream:
            return next(int(line.split()[1]) / 1024 for line in stream if line.startswith("VmRSS"))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        shutil.rmtree(self._folder)


if __name__ == "__main__":
    main()
