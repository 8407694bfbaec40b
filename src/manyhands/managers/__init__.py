"""Drop-in for `multiprocessing.managers`: change the import line, keep the program.

from manyhands.managers import BaseManager
"""

from manyhands.managers.base import BaseManager, Server
from manyhands.managers.proxies import QueueProxy

__all__ = ["BaseManager", "QueueProxy", "Server"]
