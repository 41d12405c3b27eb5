"""The process's heap: what is freed goes back to the kernel. Called once by a daemon's `main`, before it has threads.

glibc keeps an arena for each of many threads, and after the first large block is freed it takes larger ones from the
heap, too, where what is left between them is lost (mallopt(3)). A daemon that builds large tables and answers now and
then on short-lived threads grows by a quarter for it.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 128 << 10
"""glibc's own first value; to set it is to keep it."""


def keep_small() -> None:
    """Have one arena for all threads, and large blocks from the kernel. Another C library is left as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
