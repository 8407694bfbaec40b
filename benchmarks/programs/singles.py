"""One message after the other through a store, all in one program: `singles.py URL KEY N` by us (put, get, task_done),
`singles.py URL bare N` by nats-py alone (publish, fetch, ack)."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import nats

import manyhands as mh

BODY = b"x" * 60


def ours(url: str, key: str, n: int) -> float:
    with mh.connect(url, authkey=key) as client:
        queue = client.queue("singles")
        started = 0.0
        for turn in range(-50, n):
            if turn == 0:
                started = time.perf_counter()
            queue.put(BODY)
            assert queue.get() == BODY
            queue.task_done()
        return n / (time.perf_counter() - started)


async def bare(url: str, n: int) -> float:
    client = await nats.connect([f"nats://{host}" for host in url.partition("://")[2].partition("?")[0].split(",")])
    jetstream = client.jetstream()
    await jetstream.add_stream(name="SINGLES", subjects=["singles"], retention="workqueue")
    subscription = await jetstream.pull_subscribe("singles", "singles")
    started = 0.0
    for turn in range(-50, n):
        if turn == 0:
            started = time.perf_counter()
        await jetstream.publish("singles", BODY)
        (message,) = await subscription.fetch(1, timeout=10)
        assert message.data == BODY
        await message.ack()
    rate = n / (time.perf_counter() - started)
    await client.close()
    return rate


if __name__ == "__main__":
    _, url, key, count = sys.argv
    rate = asyncio.run(bare(url, int(count))) if key == "bare" else ours(url, key, int(count))
    print(json.dumps({"per_s": rate}))
