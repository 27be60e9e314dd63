"""A directory service that answers for a million accounts: a module for the C library's name service, made by the assembler."""

from __future__ import annotations

import contextlib
import ctypes
import pathlib
import subprocess
from collections.abc import Iterator

ACCOUNTS = 1_000_000
PLACE = pathlib.Path("/usr/lib/libnss_stub.so.2")
SWITCH = pathlib.Path("/etc/nsswitch.conf")

# Each account is called "directory"; `asked` counts how often anybody was told of one. A passwd has seven fields: where its texts are,
# and the two numbers between them.
SOURCE = f"""
.globl _nss_stub_setpwent, _nss_stub_endpwent, _nss_stub_getpwent_r, _nss_stub_getpwnam_r, _nss_stub_getpwuid_r, asked
.data
asked: .quad 0
told: .quad 0
name: .asciz "directory"
.text
_nss_stub_setpwent:
    movq $0, told(%rip)
_nss_stub_endpwent:
    movl $1, %eax
    ret
_nss_stub_getpwent_r:
    cmpq ${ACCOUNTS}, told(%rip)
    jae _nss_stub_getpwnam_r
    incq told(%rip)
    movq asked@GOTPCREL(%rip), %rax
    incq (%rax)
    leaq name(%rip), %rax
    movq %rax, (%rdi)
    movq %rax, 8(%rdi)
    movl $5000, 16(%rdi)
    movl $5000, 20(%rdi)
    movq %rax, 24(%rdi)
    movq %rax, 32(%rdi)
    movq %rax, 40(%rdi)
    movl $1, %eax
    ret
_nss_stub_getpwnam_r:
_nss_stub_getpwuid_r:
    xorl %eax, %eax
    ret
.section .note.GNU-stack,"",@progbits
"""


@contextlib.contextmanager
def directory() -> Iterator[ctypes.c_uint64]:
    """Put it behind the local files; yields how many of its accounts this process was told of."""
    made = PLACE.with_suffix(".o")
    subprocess.run(["as", "-o", str(made), "-"], input=SOURCE.encode(), check=True, capture_output=True)
    subprocess.run(["ld", "-shared", "-soname", PLACE.name, "-o", str(PLACE), str(made)], check=True, capture_output=True)
    made.unlink()
    kept = SWITCH.read_text(encoding="utf-8")
    SWITCH.write_text("passwd: files stub\ngroup: files\nshadow: files\n", encoding="utf-8")
    try:
        yield ctypes.c_uint64.in_dll(ctypes.CDLL(str(PLACE)), "asked")
    finally:
        SWITCH.write_text(kept, encoding="utf-8")
        PLACE.unlink()
