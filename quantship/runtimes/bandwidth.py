"""How fast this machine reads its memory: ``python -m quantship.runtimes.bandwidth THREADS``.

Decoding one token at batch 1 reads every weight once and multiplies it once, so no runtime can
decode faster than the weights come out of memory. What is measured is what bounds that: reading
alone, in order, from an array that no cache holds, by all threads at once. The reader is BLAS's dot
product of a slice with itself, which loads each number once from memory; sums and maxima of numpy
were slower than memory here. A process of its own has a fresh heap and BLAS on one thread each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from quantship import hardware, stopping

ARRAY_BYTES = 2**30
"""Far larger than any cache; less on machines of less than 8 GiB."""
PASSES = 6
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def measure(threads: int) -> float:
    """Bytes a second that so many threads read together: the best of a few passes.

    The best, because it is the bound: whatever disturbs a pass only makes it slower.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    num_bytes = min(ARRAY_BYTES, hardware.memory_bytes() // 8)
    array = np.ones(num_bytes // 4, np.float32)  # written, so that each page has memory of its own
    slices = np.array_split(array, threads)
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(PASSES):
            began = time.perf_counter()
            list(pool.map(np.dot, slices, slices))
            seconds.append(time.perf_counter() - began)
    return array.nbytes / min(seconds)


def measure_apart(threads: int) -> float:
    """The same, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "quantship.runtimes.bandwidth", str(threads)],
        env={**os.environ, **dict.fromkeys(BLAS_THREADS, "1")},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    stopping.end_with_parent()
    json.dump(measure(int(sys.argv[1])), sys.stdout)
