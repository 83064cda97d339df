"""A loader with libbpf's own functions: by_libbpf.py LIBRARY OBJECT PROGRAM DEVICE attaches the program to a netkit device."""

import ctypes
import os
import socket
import sys

library, path, name, device = sys.argv[1:]
libbpf = ctypes.CDLL(library, use_errno=True)
for function in ("bpf_object__open_file", "bpf_object__find_program_by_name", "bpf_program__attach_netkit"):
    getattr(libbpf, function).restype = ctypes.c_void_p


def done(what, value):
    """Ends the program where libbpf gave no object."""
    if not value:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")
    return ctypes.c_void_p(value)


loaded = done("open", libbpf.bpf_object__open_file(path.encode(), None))
done("load", libbpf.bpf_object__load(loaded) == 0)
program = done("find", libbpf.bpf_object__find_program_by_name(loaded, name.encode()))
done("attach", libbpf.bpf_program__attach_netkit(program, socket.if_nametoindex(device), None))
print("attached")
