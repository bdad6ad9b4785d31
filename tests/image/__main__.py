"""Builds the image, starts a proxy out of it several times, and writes what docs/image.md is rendered from."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.results import commit, machine, now, spread
from tests.image.build import BASE, IMAGE, PACKAGES, SUITE, VERSION, Builder, tree_bytes
from tests.image.start import started

RESULT = Path(__file__).with_name("results") / "image.json"
STARTS = 7


def main() -> None:
    """Build, measure, write."""
    if os.geteuid() != 0:
        sys.exit("building the image without a daemon needs root: sudo make image")
    builder = Builder(Path(tempfile.mkdtemp(prefix="cohort-image-")))
    try:
        builder.make_base()
        began = time.monotonic()
        builder.make_image(VERSION)
        result = measure(builder) | {"build_s": round(time.monotonic() - began)}
    finally:
        builder.close()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def measure(builder: Builder) -> dict[str, Any]:
    """Sizes, and the time from a proxy's first instruction until it is ready."""
    load = os.getloadavg()[0]
    with builder.tree(IMAGE) as tree:
        configuration = builder.inspect(IMAGE)["OCIv1"]["config"]
        starts = [_start(tree, configuration) for _ in range(STARTS + 1)][1:]  # the first one reads from the disk
        ours = tree_bytes(tree / "opt/cohort")
        whole = tree_bytes(tree)
    return {
        "date": now(),
        "commit": commit(),
        "machine": machine(),
        "load": round(load, 1),
        "base": f"Debian {SUITE}, debootstrap's minbase with {PACKAGES.replace(',', ', ')}",
        "starts": STARTS,
        "ready_s": spread([round(one, 3) for one in starts]),
        "bytes": {"whole": whole, "ours": ours},
        "compressed_bytes": {"whole": (size := builder.compressed(IMAGE)), "ours": size - builder.compressed(BASE)},
    }


def _start(tree: Path, configuration: Any) -> float:
    with (
        socket.create_server(("127.0.0.1", 0)) as service,
        tempfile.TemporaryDirectory() as folder,
        started(tree, configuration, Path(folder), service.getsockname()[1]) as proxy,
    ):
        return proxy.ready_s


if __name__ == "__main__":
    main()
