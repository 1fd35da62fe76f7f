"""The package's PTX on this GPU: loaded by each library, every kernel found in it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from gpucheck.base import Absent, Context, Finding, gpu


def check(context: Context) -> Iterator[Finding]:
    from segcam.kernels.cuda.ptx import KERNEL_FILES, read_ptx

    for kind in ("pycuda", "cuda-python"):
        try:
            with gpu(context, kind) as driver:
                for file in KERNEL_FILES:
                    data = read_ptx(file)
                    begun = time.perf_counter()
                    module = driver.load_module(data)
                    load_ms = (time.perf_counter() - begun) * 1e3
                    names = re.findall(r"\.visible \.entry (\w+)\(", data.decode())
                    for name in names:
                        module.function(name)
                    module.close()
                    words = f"{len(names)} kernels, compiled for this GPU in {load_ms:.0f} ms (or taken from its cache)"
                    yield context.found(f"{kind}: {file}", bool(names), words, load_ms=round(load_ms, 1))
        except Absent as absent:
            yield context.absent(kind, str(absent))
