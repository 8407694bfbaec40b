"""Settings and a lock that all machines share, part 1: the master has them.

    python master.py [host:port]       # then workers, on this machine or others: python worker.py NAME host:port

While it runs, each line typed here changes a setting for everybody: `greeting Good morning`. An empty line, or the end of
the input, ends it.
"""

import os
import sys
import threading

from manyhands.managers import AcquirerProxy, BaseManager, DictProxy

host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5959").rpartition(":")
authkey = os.environ.get("MANYHANDS_AUTHKEY", "a key for the tutorial only")

settings: dict[str, object] = {"greeting": "Hello", "sent": 0}
lock = threading.Lock()


class SettingsManager(BaseManager):
    """Both live here, in the master; workers call them."""


SettingsManager.register("get_settings", callable=lambda: settings, proxytype=DictProxy)
SettingsManager.register("get_lock", callable=lambda: lock, proxytype=AcquirerProxy)

manager = SettingsManager(address=(host, int(port)), authkey=authkey)
manager.start()
print("Workers can connect to {}:{}".format(*manager.address), flush=True)
for line in sys.stdin:
    name, _, value = line.strip().partition(" ")
    if not name:
        break
    settings[name] = value  # the object itself: the next worker that looks sees it
    print(f"{name} is now {value!r}", flush=True)
print(f"{settings['sent']} greetings were sent", flush=True)
manager.shutdown()
