"""How much memory a process uses, as Windows tells. Imported there only."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

_QUERY_LIMITED_INFORMATION = 0x1000


class _Counters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS, https://learn.microsoft.com/windows/win32/api/psapi/ns-psapi-process_memory_counters."""

    _fields_ = (
        ("cb", ctypes.c_uint32),
        ("page_fault_count", ctypes.c_uint32),
        ("peak_working_set_size", ctypes.c_size_t),
        ("working_set_size", ctypes.c_size_t),
        ("quota", ctypes.c_size_t * 4),
        ("pagefile_usage", ctypes.c_size_t),
        ("peak_pagefile_usage", ctypes.c_size_t),
    )


class KernelCalls(NamedTuple):
    """What is called of kernel32."""

    open_process: Callable[[int, bool, int], int | None]
    get_memory_info: Callable[[int, Any, int], int]
    close_handle: Callable[[int], int]


def kernel_calls() -> KernelCalls:
    """The calls of this Windows.

    Raises:
        AttributeError, OSError: it has none of these, or this is no Windows.
    """
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
    calls = KernelCalls(kernel.OpenProcess, kernel.K32GetProcessMemoryInfo, kernel.CloseHandle)
    # A handle is as wide as a pointer; without this ctypes would cut it to an int.
    kernel.OpenProcess.restype = ctypes.c_void_p
    kernel.OpenProcess.argtypes = (ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32)
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Counters), ctypes.c_uint32)
    kernel.CloseHandle.argtypes = (ctypes.c_void_p,)
    return calls


def memory_meter_of(calls: KernelCalls) -> Callable[[int], int]:
    """What tells how many bytes a process has in use (its working set), by its id; 0 when it has ended."""

    def measure(pid: int) -> int:
        handle = calls.open_process(_QUERY_LIMITED_INFORMATION, False, pid)
        if not handle:
            return 0
        try:
            counters = _Counters(cb=ctypes.sizeof(_Counters))
            is_told = calls.get_memory_info(handle, ctypes.byref(counters), counters.cb)
            return int(counters.working_set_size) if is_told else 0
        finally:
            calls.close_handle(handle)

    return measure
