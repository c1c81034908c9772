"""Limits how many wrong tokens an address may send."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

WRONG_A_MINUTE: Final = 5
_MINUTE_S: Final = 60.0
_MOST_ADDRESSES: Final = 10_000


class WrongTokens:
    """Counts wrong tokens by address, for a minute each, and for a bounded number of addresses.

    Args:
        clock: monotonic seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def note(self, address: str) -> int | None:
        """Count one; return the seconds until the next is allowed, or None if it is allowed now."""
        now = self._clock()
        with self._lock:
            times = self._seen.setdefault(address, deque(maxlen=WRONG_A_MINUTE))
            self._seen.move_to_end(address)
            if len(self._seen) > _MOST_ADDRESSES:
                self._seen.popitem(last=False)
            while times and now - times[0] >= _MINUTE_S:
                times.popleft()
            if len(times) < WRONG_A_MINUTE:
                times.append(now)
                return None
            return max(1, math.ceil(_MINUTE_S - (now - times[0])))
