"""Standard-library peers on the manager's port: unmodified `multiprocessing.managers` programs use our master.

socket ── wire.stock.StockWire ── speech (bytes <-> calls) ── connection ── consumer (leases) ── engine
                                                                 │
                                                                 ├── hosts (orderly end, or lost?)
                                                                 └── offers: the program's callables and objects
"""

from manyhands.managers.stock.gateway import StockGateway

__all__ = ["StockGateway"]
