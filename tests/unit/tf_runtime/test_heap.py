from __future__ import annotations

import subprocess
import sys

_THREADS_ALLOCATE = """
import ctypes, sys, threading
from tf_runtime import heap

if sys.argv[1] == "small":
    heap.keep_small()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
meeting = threading.Barrier(5)

def allocate():
    meeting.wait()
    libc.malloc(1000)
    meeting.wait()

for _ in range(4):
    threading.Thread(target=allocate).start()
meeting.wait()
meeting.wait()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def arenas(how: str) -> int:
    """Return how many arenas glibc has once four threads have allocated at the same time (malloc_info(3))."""
    command = [sys.executable, "-c", _THREADS_ALLOCATE, how]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("<heap nr=")


def test_all_threads_share_one_arena() -> None:
    assert arenas("as it is") > 1
    assert arenas("small") == 1
