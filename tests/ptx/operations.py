"""The operations that `machine.cpp` executes, and the numbers by which both sides name them."""

import ctypes

MOST_SLOTS = 8
KINDS = (
    *("nothing", "compute", "jump", "branch", "jump_by_table", "leave", "exit_thread", "trap", "call", "copy_own"),
    *("load", "store", "atomic", "barrier", "warp_barrier", "exchange", "vote", "carry"),
)
SPACES = ("generic", "global_memory", "shared", "local", "constant_memory", "param", "own", "read_only")
ATOMICS = ("add", "min", "max", "and_", "or_", "xor_", "inc", "dec", "exch", "cas")
EXCHANGES = ("up", "down", "bfly", "idx")
VOTES = (
    *("all", "any", "uni", "ballot", "active_mask", "match_any", "match_all"),
    *("sum", "least", "most", "all_bits", "any_bits", "odd_bits"),
)
REDUCTIONS = ("no_reduction", "popc", "and_all", "or_any")
CARRIES = ("add", "sub", "product_low", "product_high")
TYPES = ("unsigned_number", "signed_number", "float_number")
FAULTS = (
    *("race", "out of bounds", "misaligned", "write to read-only memory", "written twice", "read before it is written"),
    *("divergent barrier", "exit before a barrier", "divergent exchange", "division by zero", "trap", "endless loop"),
    *("deadlock", "read through the read-only cache of what the kernel writes"),
)


class Operation(ctypes.Structure):
    """As in machine.hpp."""

    _fields_ = (
        ("compute", ctypes.c_void_p),
        ("offset", ctypes.c_int64),
        ("slots", ctypes.c_uint32 * MOST_SLOTS),
        ("guard", ctypes.c_uint32),
        ("target", ctypes.c_uint32),
        ("end", ctypes.c_uint32),
        ("rank", ctypes.c_uint32),
        ("statement", ctypes.c_uint32),
        ("kind", ctypes.c_uint16),
        *((name, ctypes.c_uint8) for name in ("guard_negated", "counted", "leads", "space", "bytes", "elements")),
        *((name, ctypes.c_uint8) for name in ("register_bytes", "address_bytes", "is_signed", "action", "type")),
        ("table_size", ctypes.c_uint32),
        ("table_begin", ctypes.c_uint32),
    )


def names_header() -> str:
    """Return the C++ header that numbers all of these names."""
    enums = {"kinds": KINDS, "spaces": SPACES, "atomics": ATOMICS, "exchanges": EXCHANGES, "votes": VOTES}
    enums |= {"reductions": REDUCTIONS, "carries": CARRIES, "types": TYPES}
    enums["faults"] = tuple(name.replace(" ", "_").replace("-", "_") for name in FAULTS)
    lines = [f"namespace {space} {{ enum Name {{ {', '.join(names)} }}; }}" for space, names in enums.items()]
    return "\n".join(["#pragma once", *lines, ""])
