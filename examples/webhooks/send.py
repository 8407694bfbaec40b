"""Webhooks, part 2: sends some events and waits for what became of them. Start a server and workers first:

manyhands serve
manyhands worker --queues webhooks --import hooks       # in this folder; as many as you like, on any machine
python send.py http://localhost:8000/hook http://localhost:8000/other …
"""

import sys
from concurrent.futures import as_completed
from datetime import UTC, datetime

import hooks

futures = {}
for number, url in enumerate(sys.argv[1:], 1):
    future = hooks.deliver.submit(url, hooks.Event(number, "signup", datetime.now(UTC)))
    futures[future] = number
for future in as_completed(futures):
    try:
        print(f"event {futures[future]}: {future.result()}", flush=True)
    except Exception as error:
        print(f"event {futures[future]}: {type(error).__name__}: {error}", flush=True)
