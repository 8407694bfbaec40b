"""The queue core: every decision about messages, leases, sessions and results, as one pure state machine."""

from manyhands.lifecycle.core import Core
from manyhands.lifecycle.state import Step

__all__ = ["Core", "Step"]
