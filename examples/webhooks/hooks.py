"""Webhooks, part 1: the task. Its module is imported by whoever submits and by the workers, and starts nothing by itself."""

import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime

import msgspec

import manyhands as mh


@dataclass
class Event:
    number: int
    what: str
    at: datetime


@mh.task(queue="webhooks", max_attempts=5, retry_on=OSError, backoff_s=1.0, timeout_s=10.0)
def deliver(url: str, event: Event) -> int:
    """POST one event as JSON; returns the status with which it was taken.

    taken (2xx)                     done
    it says 429 and Retry-After     again after so many seconds
    it says 5xx, or is not there    again, after up to 1, 2, 4 … s; after five attempts a dead letter
    it says anything else (404)     a dead letter at once
    it hangs                        stopped after 10 s, which counts as an attempt
    """
    now = mh.current()
    request = urllib.request.Request(url, msgspec.json.encode(event), {"Idempotency-Key": now.id})
    print(f"event {event.number}, attempt {now.attempt}", flush=True)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:  # an OSError, so that what is raised again is tried again
        with error:
            if error.code == 429:
                raise mh.TryAgain(delay_s=float(error.headers["Retry-After"])) from error
            if error.code < 500:
                raise mh.GiveUp(f"{url} says {error.code} {error.reason}") from error
        raise
