"""A real job: a grid of ridge regressions, each about 0.2 s, on whatever executor it is given.

argv: process_pool | manyhands | manyhands_url, fits, workers. Prints one line of JSON. The job itself does not know which.
"""

import json
import os
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as many processes as cores; their threads would only get in the way

import numpy as np

ROWS, COLUMNS = 3_000, 60


def fit(penalty, seed):
    """Fit a ridge regression to made-up data by gradient descent; its score on data that it has not seen."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=COLUMNS)
    x, unseen = rng.normal(size=(ROWS, COLUMNS)), rng.normal(size=(ROWS, COLUMNS))
    y, wanted = x @ truth + rng.normal(size=ROWS), unseen @ truth
    weights = np.zeros(COLUMNS)
    for _ in range(STEPS):
        weights -= 0.5 * (x.T @ (x @ weights - y) / ROWS + penalty * weights)
    return float(np.corrcoef(unseen @ weights, wanted)[0, 1])


STEPS = 2_600  # 0.2 s


def executor(kind, workers):
    if kind == "process_pool":
        from concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(workers)
    import manyhands as mh

    return mh.Executor(workers) if kind == "manyhands" else mh.Executor()


def main():
    kind, fits, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    penalties = np.geomspace(1e-6, 1e-1, fits)
    with executor(kind, workers) as pool:
        started = time.perf_counter()
        scores = list(pool.map(fit, penalties, range(fits)))
        seconds = time.perf_counter() - started
    assert len(scores) == fits
    print(json.dumps({"seconds": seconds, "best": float(penalties[int(np.argmax(scores))]), "sum": sum(scores)}))


if __name__ == "__main__":
    main()
