"""The contract suite: every promise of an engine as one named test, for our engines and for those that others write.

    import pytest
    pytest.register_assert_rewrite("manyhands.testing.contract")   # in conftest.py: failures show their values

    from manyhands.testing.contract import EngineContract

    class TestMyEngine(EngineContract):
        def make_factory(self, tmp_path):
            return MyFactory(tmp_path)       # an EngineFactory: open(limits), restart(), close()

An engine declares in its `Features` what it does not offer; those tests are skipped and say why. See docs/testing.md.
"""

from manyhands.testing.contract.accounting import AccountingPromises
from manyhands.testing.contract.admin import AdminPromises
from manyhands.testing.contract.bounds import BoundPromises
from manyhands.testing.contract.cancelling import CancellingPromises
from manyhands.testing.contract.counting import CountingPromises
from manyhands.testing.contract.fencing import FencingPromises
from manyhands.testing.contract.hygiene import HygienePromises
from manyhands.testing.contract.leases import LeasePromises
from manyhands.testing.contract.moving import MovePromises
from manyhands.testing.contract.order import OrderPromises
from manyhands.testing.contract.packs import PackPromises
from manyhands.testing.contract.parents import ParentPromises
from manyhands.testing.contract.parking import ParkingPromises
from manyhands.testing.contract.peer import Peer, Pending, eventually, message
from manyhands.testing.contract.resend import ResendPromises
from manyhands.testing.contract.results import ResultPromises
from manyhands.testing.contract.sessions import SessionPromises
from manyhands.testing.contract.stage import CALM, EngineFactory, Stage, needs
from manyhands.testing.contract.stopping import StoppingPromises
from manyhands.testing.contract.streams import StreamPromises
from manyhands.testing.contract.waiting import WaitingPromises


class EngineContract(
    OrderPromises,
    BoundPromises,
    FencingPromises,
    LeasePromises,
    SessionPromises,
    CountingPromises,
    ResendPromises,
    ResultPromises,
    StreamPromises,
    PackPromises,
    ParentPromises,
    CancellingPromises,
    ParkingPromises,
    AccountingPromises,
    MovePromises,
    StoppingPromises,
    WaitingPromises,
    AdminPromises,
    HygienePromises,
):
    """All promises. Subclass it with a name that pytest collects and give it a `make_factory`."""


__all__ = ["CALM", "EngineContract", "EngineFactory", "Peer", "Pending", "Stage", "eventually", "message", "needs"]
