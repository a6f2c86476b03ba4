#!/usr/bin/env bash
# Guess: a feature that LLVM finds on the host is one that a process may execute; that is how AVX-512 is told, where the
# system's part in it (XCR0) is looked at as well.
# Seen: on a processor with AMX llvmlite lists amx-tile and amx-bf16, in what it says of the host and in what Numba
# compiles for, while Linux has not granted this process the tiles: it has to ask with arch_prctl first. After that the
# list is the same, and the grant is there.
# Why it matters: a library that chooses its code by these features, as they are meant to be used, compiles code here
# that ends the process at its first tile.
set -euo pipefail
unset PYTHONPATH
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv && venv/bin/python -m pip install --quiet llvmlite==0.50.0 numba==0.68.1 || exit 2

cat >main.py <<'PYTHON'
import ctypes
import platform
import sys

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core.codegen import get_host_cpu_features

flags = open("/proc/cpuinfo").read() if sys.platform == "linux" else ""
if platform.machine() != "x86_64" or " amx_bf16" not in flags:
    print("not tried: no Linux on a processor with AMX")
    sys.exit(2)
# Linux, Documentation/arch/x86/xstate.rst: the calls, and the number of the tiles' state
ARCH_PRCTL, GET_PERMISSION, REQUEST_PERMISSION, TILE_DATA = 158, 0x1022, 0x1023, 18
libc = ctypes.CDLL(None, use_errno=True)


def granted():
    mask = ctypes.c_uint64()
    assert libc.syscall(ARCH_PRCTL, GET_PERMISSION, ctypes.byref(mask)) == 0
    return bool(mask.value >> TILE_DATA & 1)


def listed():
    return llvm.get_host_cpu_features()["amx-bf16"] and "+amx-bf16" in get_host_cpu_features().split(",")


print("llvmlite", llvmlite.__version__, "LLVM", llvm.llvm_version_info, "numba", numba.__version__)
before = listed(), granted()
print("before asking: listed, granted =", before)
assert libc.syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0
after = listed(), granted()
print("after asking:  listed, granted =", after)
if (before, after) != ((True, False), (True, True)):
    sys.exit("changed")
PYTHON
venv/bin/python main.py
