"""The functions that every peer runs."""

from __future__ import annotations

import time


def noop(n):
    return n


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def echo(payload):
    return payload
