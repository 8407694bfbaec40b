"""Settings and a lock that all machines share, part 2: one of many workers that number their greetings.

    python worker.py NAME [host:port] [HOW_MANY]

The number is read and written in two steps, so a lock must be held in between; it is released when its holder is killed.
"""

import os
import sys

from manyhands.managers import AcquirerProxy, BaseManager, DictProxy

name = sys.argv[1]
host, _, port = (sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:5959").rpartition(":")
how_many = int(sys.argv[3]) if len(sys.argv) > 3 else 20
authkey = os.environ.get("MANYHANDS_AUTHKEY", "a key for the tutorial only")


class SettingsManager(BaseManager):
    """Here both are only known by name."""


SettingsManager.register("get_settings", proxytype=DictProxy)
SettingsManager.register("get_lock", proxytype=AcquirerProxy)

manager = SettingsManager(address=(host, int(port)), authkey=authkey)
manager.connect()
settings, lock = manager.get_settings(), manager.get_lock()
for _ in range(how_many):
    with lock:
        number = settings["sent"] + 1
        settings["sent"] = number
    print(f"{number} {settings['greeting']}, {name}!", flush=True)
