"""Does with libseccomp what runc does with a profile: reads requests, a line of JSON each, and
answers each with a line. Test only; the library is called by ctypes."""

import ctypes
import json
import os
import signal
import sys

try:
    lib = ctypes.CDLL("libseccomp.so.2")
except OSError as missing:
    sys.exit(str(missing))


class Comparison(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


lib.seccomp_init.restype = ctypes.c_void_p
lib.seccomp_init.argtypes = [ctypes.c_uint32]
lib.seccomp_release.argtypes = [ctypes.c_void_p]
lib.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
lib.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
lib.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
lib.seccomp_arch_native.restype = ctypes.c_uint32
lib.seccomp_arch_resolve_name.restype = ctypes.c_uint32
lib.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
lib.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Comparison),
]
lib.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]

OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
OPTIMIZE = 8  # SCMP_FLTATR_CTL_OPTIMIZE


def action(name, errno):
    data = 1 if errno is None else errno
    return {
        "SCMP_ACT_KILL": 0,
        "SCMP_ACT_KILL_THREAD": 0,
        "SCMP_ACT_KILL_PROCESS": 0x80000000,
        "SCMP_ACT_TRAP": 0x00030000,
        "SCMP_ACT_ERRNO": 0x00050000 | data,
        "SCMP_ACT_TRACE": 0x7FF00000 | data,
        "SCMP_ACT_LOG": 0x7FFC0000,
        "SCMP_ACT_ALLOW": 0x7FFF0000,
        "SCMP_ACT_NOTIFY": 0x7FC00000,
    }[name]


def token(name):
    short = name.removeprefix("SCMP_ARCH_").lower()
    return lib.seccomp_arch_resolve_name(short.encode())


def compile(profile, native):
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = lib.seccomp_init(default)
    unknown = []
    try:
        for name in [native, *profile.get("architectures", [])]:
            code = lib.seccomp_arch_add(context, token(name))
            if code not in (0, -17):  # EEXIST
                return {"error": f"{name}: {code}"}
        own = lib.seccomp_arch_native()
        if own != token(native):
            lib.seccomp_arch_remove(context, own)
        rules = profile.get("syscalls", [])
        # runc does so from 33 calls on. Without, libseccomp 2.5 forgets to load the number where x32
        # is allowed and the first rule is on a call that the native architecture has not.
        if rules:
            lib.seccomp_attr_set(context, OPTIMIZE, 2)
        for rule in rules:
            result = action(rule["action"], rule.get("errnoRet"))
            conditions = [
                Comparison(
                    it["index"],
                    OPERATORS[it["op"].removeprefix("SCMP_CMP_")],
                    it.get("value", 0),
                    it.get("valueTwo", 0),
                )
                for it in rule.get("args", [])
            ]
            repeated = len({it.arg for it in conditions}) < len(conditions)
            groups = [[it] for it in conditions] if repeated else [conditions]
            for name in rule["names"]:
                number = lib.seccomp_syscall_resolve_name(name.encode())
                if number == -1:
                    unknown.append(name)
                    continue
                if result == default:
                    continue
                for group in groups:
                    array = (Comparison * len(group))(*group)
                    code = lib.seccomp_rule_add_array(context, result, number, len(group), array)
                    if code != 0:
                        return {"error": f"{name}: {code}"}
        fd = os.memfd_create("program")
        code = lib.seccomp_export_bpf(context, fd)
        if code != 0:
            return {"error": f"export: {code}"}
        os.lseek(fd, 0, os.SEEK_SET)
        with open(fd, "rb") as file:
            return {"program": file.read().hex(), "unknown": unknown}
    finally:
        lib.seccomp_release(context)


def numbers(names, architecture):
    known = token(architecture)
    return [lib.seccomp_syscall_resolve_name_arch(known, name.encode()) for name in names]


# seconds of processor time: some profiles send libseccomp 2.5 round in circles, where no handler of
# Python's would run, but the signal's own action ends the process
PATIENCE = 5

for line in sys.stdin:
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    request = json.loads(line)
    if "profile" in request:
        answer = compile(request["profile"], request["native"])
    else:
        answer = numbers(request["names"], request["architecture"])
    print(json.dumps(answer), flush=True)
