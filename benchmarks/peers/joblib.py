"""joblib's Parallel for many calls, the loky executor behind it for single ones."""

from __future__ import annotations

import joblib
from loky import get_reusable_executor

from benchmarks.peers import interface


class Peer(interface.Peer):
    has_map = True

    def start(self, workers):
        self._executor = get_reusable_executor(max_workers=workers)
        self._parallel = joblib.Parallel(n_jobs=workers)
        self._parallel.__enter__()
        self.configuration = (
            f"submit: loky.get_reusable_executor({workers}); map: Parallel(n_jobs={workers}), batch_size auto"
        )

    def send(self, function, argument):
        return self._executor.submit(function, argument)

    def value(self, handle):
        return handle.result(interface.TIMEOUT_S)

    def map(self, function, arguments):
        return self._parallel(joblib.delayed(function)(argument) for argument in arguments)

    def stop(self):
        self._parallel.__exit__(None, None, None)
        self._executor.shutdown(kill_workers=True)
