"""Freed memory is used again in place of being fetched from the kernel anew.

glibc maps every block above 32 MiB for itself and gives it back when it is freed. The activations of a batch are such
blocks, so each step pays a page fault for every 4 KiB of them: a third of a CPU's training time (bench/memory.py).
"""

from __future__ import annotations

import ctypes
import logging
import platform

log = logging.getLogger(__name__)

#: Parameters of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
#: Blocks below this come from the heap; freed memory at its end stays with the process.
HEAP_BLOCK_BYTES, KEPT_BYTES = 2**30, 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library to keep what this process frees; False where it is not glibc, and nothing changes.

    The process then holds the most that it ever needed until it ends. Tensors above 1 GiB are returned as before.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        tune = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError) as error:
        log.debug("No mallopt here: %s", error)
        return False
    tune.argtypes, tune.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(tune(M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES)) and bool(tune(M_TRIM_THRESHOLD, KEPT_BYTES))
