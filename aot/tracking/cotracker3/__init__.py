"""CoTracker3 as an inference engine: the numbers of the released weights within a bound of memory.

Importing it imports PyTorch. Written from the papers and from measurements of the released model; weights are
CC-BY-NC 4.0, this code is not.
"""

from aot.tracking.cotracker3.model import CoTracker3, load_model
from aot.tracking.cotracker3.offline import track_offline
from aot.tracking.cotracker3.online import OnlineSession, track_online
from aot.tracking.cotracker3.plan import MemoryPlan

__all__ = ["CoTracker3", "MemoryPlan", "OnlineSession", "load_model", "track_offline", "track_online"]
