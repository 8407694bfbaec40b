"""Celery over Redis: pre-forked workers, results in Redis."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.peers import interface, work

app = Celery("benchmarks.peers.celery", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
noop, echo, sleep = app.task(work.noop), app.task(work.echo), app.task(work.sleep)


class Peer(interface.Peer):
    payload_type = str

    def start(self, workers):
        self.run("celery", "-A", "benchmarks.peers.celery", "worker", "--concurrency", workers, "--loglevel", "WARNING")
        self.configuration = f"broker and result backend Redis, celery worker --concurrency {workers} (prefork), JSON"

    def send(self, function, argument):
        return globals()[function.__name__].delay(argument)

    def value(self, handle):
        return handle.get(timeout=interface.TIMEOUT_S)
