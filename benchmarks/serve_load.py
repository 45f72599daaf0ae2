"""Many clients at once on `fimaq-deploy serve`: lost and wrong answers, latency, throughput and memory.

    python benchmarks/serve_load.py BUILD [--clients 50] [--seconds 60] [--batch 16] [--delay-ms 1]

Each client asks for one image after the other over a connection of its own, with binary tensors, and compares every
answer with that of the engine in this process. Server and clients share the machine. Ends in one line of JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from fimaq_deploy.engines.load import load_engine
from fimaq_deploy.runtime.artifact import open_artifact
from fimaq_deploy.serving.tensors import HEADER

IMAGES = 32
TOLERANCE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--delay-ms", type=float, default=1)
    given = parser.parse_args()
    options = ["--batch", str(given.batch), "--delay-ms", str(given.delay_ms), "--threads", "1", "--port", "0"]
    command = [sys.executable, "-m", "fimaq_deploy", "serve", f"m={given.build}", "--target", "onnxruntime-cpu"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = next(found[1] for line in server.stderr if (found := re.search(r"http://(\S+)", line)))
            print(json.dumps({**vars(given), "build": str(given.build), **measured(address, server.pid, given)}))
        finally:
            server.terminate()


def measured(address: str, pid: int, given: Any) -> dict[str, Any]:
    """Everything about one run."""
    bodies, headers, answers = requests(given.build)
    seconds: list[float] = []
    wrong, lost, end = [0], [0], time.perf_counter() + given.seconds
    memory = [resident_bytes(pid)]

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        own, turn = [], number
        while time.perf_counter() < end:
            turn = (turn + 1) % IMAGES
            started = time.perf_counter()
            try:
                connection.request("POST", "/v2/models/m/infer", bodies[turn], headers)
                response = connection.getresponse()
                data = response.read()
            except (OSError, http.client.HTTPException):
                lost[0] += 1
                continue
            own.append(time.perf_counter() - started)
            size = int(response.headers.get(HEADER, 0))
            found = np.frombuffer(data[size:], "<f4") if response.status == 200 else np.zeros(0)
            wrong[0] += found.shape != answers[turn].shape or not np.allclose(found, answers[turn], atol=TOLERANCE)
        seconds.extend(own)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(given.clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(given.seconds / 12)
        memory.append(resident_bytes(pid))
    took = time.perf_counter() - started
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {
        "answers": len(seconds),
        "wrong": wrong[0],
        "lost": lost[0],
        "per_second": len(seconds) / took,
        "p50_ms": p50,
        "p99_ms": p99,
        "memory_mb": [round(size / 1e6, 1) for size in memory],
    }


def requests(build: Path) -> tuple[list[bytes], dict[str, str], list[Any]]:
    """Bodies, their headers and the right answers."""
    contract = open_artifact(build).contract
    images = np.random.default_rng(0).normal(size=(IMAGES, *contract.shape)).astype(np.float32)
    tensor: dict[str, Any] = {"name": contract.input_name, "datatype": "FP32", "shape": [1, *contract.shape]}
    tensor["parameters"] = {"binary_data_size": images[0].nbytes}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    answers = load_engine(build / "model.onnx", threads=1)(images)
    return [head + image.tobytes() for image in images], {HEADER: str(len(head))}, list(answers)


def resident_bytes(pid: int) -> int:
    """Of a process, where Linux tells."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    return 1024 * int(found[1]) if found else 0


if __name__ == "__main__":
    main()
