"""Tasks: functions that are known by name, called with plain data. Pure: no sockets, threads or clocks.

submitter                                           worker
Task.make_message   checked, packed, sealed   ->    open_body    the registered task and its arguments
                                                    running      mh.current() inside
read_outcome        value or error            <-    pack_value / pack_error, as policy.after says
"""

from manyhands.tasks.attempts import Current as Current
from manyhands.tasks.attempts import Home as Home
from manyhands.tasks.attempts import current as current
from manyhands.tasks.attempts import home as home
from manyhands.tasks.attempts import live_at as live_at
from manyhands.tasks.attempts import running as running
from manyhands.tasks.bodies import Body as Body
from manyhands.tasks.bodies import TaskCall as TaskCall
from manyhands.tasks.bodies import open_body as open_body
from manyhands.tasks.bodies import read_body as read_body
from manyhands.tasks.options import TaskOptions as TaskOptions
from manyhands.tasks.policy import Verdict as Verdict
from manyhands.tasks.policy import after as after
from manyhands.tasks.registry import NEED as NEED
from manyhands.tasks.registry import REGISTRY as REGISTRY
from manyhands.tasks.registry import Registry as Registry
from manyhands.tasks.results import pack_error as pack_error
from manyhands.tasks.results import pack_value as pack_value
from manyhands.tasks.results import read_outcome as read_outcome
from manyhands.tasks.showing import Shown as Shown
from manyhands.tasks.showing import shown as shown
from manyhands.tasks.task import Task as Task
