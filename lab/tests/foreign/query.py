"""Asks for the programs of a cgroup with arguments of several sizes, and tells which bytes behind each the kernel wrote."""

import ctypes
import os
import platform
import struct
import sys

CALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_QUERY = 16
EGRESS = 1  # BPF_CGROUP_INET_EGRESS
PATTERN = 0xAA
# include/uapi/linux/bpf.h: prog_attach_flags from 40 on, revision from 56 on.
SIZES = (32, 40, 56, 64)

libc = ctypes.CDLL(None, use_errno=True)
group = os.open("/sys/fs/cgroup", os.O_RDONLY)
behind = 0
for size in SIZES:
    argument = ctypes.create_string_buffer(bytes([PATTERN]) * 128, 128)
    struct.pack_into("<IIIIQII", argument, 0, group, EGRESS, 0, 0, 0, 0, 0)
    answer = libc.syscall(CALL, PROG_QUERY, argument, size)
    error = os.strerror(ctypes.get_errno()) if answer < 0 else "ok"
    written = [at for at in range(size, 128) if argument.raw[at] != PATTERN]
    behind += bool(written)
    print(f"{size} bytes: {error}, written behind: {written or 'nothing'}")
sys.exit(1 if behind else 0)
