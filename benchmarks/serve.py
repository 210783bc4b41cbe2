"""Load on `tag2mask serve`: several clients, one photo after the other, for a minute.

    python benchmarks/serve.py runs/mine photos/ --json serve.json

The server runs in a process of its own at a free port. Each client sends photos as fast as they are answered; every
tenth request is bad: no photo, half a photo, a path, a decompression bomb, JSON that is none. Shown are requests and
seconds to the answer (50% and 95% within), how many were lost (no answer, or another than 200 for a photo and 4xx for a
bad request), the server's memory at most, and whether it still answers at the end.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from tag2mask.data.photos import photos_by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("photos", type=Path, help="a folder of photos; 64 of them are sent")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    files = list(photos_by_name(args.photos).values())
    photos = [file.read_bytes() for file in files[:: max(1, len(files) // 64)][:64]]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tag2mask", "--quiet", "serve", str(args.run), "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        found = load(f"http://127.0.0.1:{port}", server.pid, photos, args.clients, args.seconds)
    finally:
        server.terminate()
        server.wait(60)
    print(", ".join(f"{key} {value}" for key, value in found.items()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def load(url: str, pid: int, photos: list[bytes], clients: int, seconds: float) -> dict[str, object]:
    """Return what the clients saw."""
    wait_for(url)
    ask(url, photos[0])  # compiles the CRF
    bad = bad_requests(photos[0])
    times: list[float] = []
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            turn += 1
            is_bad = turn % 10 == 0
            content, kind = bad[turn // 10 % len(bad)] if is_bad else (photos[turn % len(photos)], "")
            started = time.monotonic()
            status = ask(url, content, kind)
            if not is_bad:
                times.append(time.monotonic() - started)
            counts["bad requests" if is_bad else "photos"] += 1
            counts["lost"] += not (400 <= status < 500 if is_bad else status == 200)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    most, process = 0, psutil.Process(pid)
    while any(thread.is_alive() for thread in threads):
        most = max(most, process.memory_info().rss)
        time.sleep(0.2)
    half, nearly_all = np.percentile(times, [50, 95])
    return {
        "clients": clients, "seconds": seconds, "photos": counts["photos"], "bad requests": counts["bad requests"],
        "lost": counts["lost"], "p50 s": round(half, 2), "p95 s": round(nearly_all, 2),
        "photos a second": round(counts["photos"] / seconds, 2), "MB at most": most // 2**20,
        "answers at the end": ask(url, photos[0]) == 200,
    }  # fmt: skip


def bad_requests(photo: bytes) -> list[tuple[bytes, str]]:
    """Return bodies that must be refused, and what kind they say that they are."""
    bomb = BytesIO()
    Image.new("1", (20000, 20000)).save(bomb, "PNG")
    task = {"tasks": [{"data": {"image": "/etc/passwd"}}], "label_config": "<View/>"}
    return [
        (b"no photo", ""), (photo[: len(photo) // 2], ""), (bomb.getvalue(), ""), (b"{", "application/json"),
        (json.dumps(task).encode(), "application/json"), (b"--x", "multipart/form-data; boundary=x"),
    ]  # fmt: skip


def ask(url: str, content: bytes, kind: str = "") -> int:
    """Return the status of the answer to a request; 0 for none."""
    request = urllib.request.Request(f"{url}/predict", content, {"Content-Type": kind or "application/octet-stream"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_for(url: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server does not start")


if __name__ == "__main__":
    main()
