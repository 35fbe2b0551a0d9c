"""Instructions that several threads execute together: barriers, exchanges and votes of a warp."""

from typing import Any

from tests.ptx.layout import NO_SLOT
from tests.ptx.operations import EXCHANGES, REDUCTIONS, VOTES
from tests.ptx.parsing import UnknownPtxError

BARRIER, WARP = "barrier", "warp"
_REDUX = {"add": "sum", "min": "least", "max": "most", "and": "all_bits", "or": "any_bits", "xor": "odd_bits"}


def _barrier(to: Any, mnemonic: str, operands: list[str]) -> None:
    """`bar.sync a{, b}`, `barrier.cta.sync.aligned a{, b}`, `bar.red.popc.u32 d, a{, b}, c`, `bar.warp.sync mask`."""
    to.kind = BARRIER
    parts = [part for part in mnemonic.split(".") if part not in ("bar", "barrier", "cta", "aligned")]
    if parts[:2] == ["warp", "sync"]:
        to.emit("warp_barrier", [to.source(operands[0], "u32")])
        return
    result, condition, action = NO_SLOT, NO_SLOT, 0
    if parts[0] == "red":
        action = REDUCTIONS.index({"popc": "popc", "and": "and_all", "or": "or_any"}[parts[1]])
        result, condition = to.register(operands[0])[0], to.source(operands[-1], "pred")
        operands = operands[1:-1]
    elif parts[0] != "sync":
        raise UnknownPtxError(f"{mnemonic} is not known")
    threads = to.source(operands[1], "u32") if len(operands) > 1 else NO_SLOT
    to.emit("barrier", [to.source(operands[0], "u32"), threads, result, condition], action=action)


def _exchange(to: Any, mnemonic: str, operands: list[str]) -> None:
    """`shfl.sync.idx.b32 d{|p}, a, b, c, mask`."""
    to.kind = WARP
    _, sync, mode, _ = mnemonic.split(".")
    if sync != "sync":
        raise UnknownPtxError(f"{mnemonic} is not known")
    result, _, valid = operands[0].partition("|")
    slots = [to.source(operand, "u32") for operand in operands[1:]]
    valid_slot = to.destination(valid, 0)[0] if valid else NO_SLOT
    to.emit("exchange", [to.destination(result, 4)[0], valid_slot, *slots], action=EXCHANGES.index(mode))


def _vote(to: Any, mnemonic: str, operands: list[str]) -> None:
    """`vote.sync.any.pred d, a, mask`, and `vote.sync.ballot.b32 d, a, mask`."""
    to.kind = WARP
    action = VOTES.index(mnemonic.split(".")[2])
    slots = [to.register(operands[0])[0], to.source(operands[1], "pred"), to.source(operands[2], "u32")]
    to.emit("vote", slots, action=action)


def _active_mask(to: Any, mnemonic: str, operands: list[str]) -> None:
    to.kind = WARP
    to.emit("vote", [to.register(operands[0])[0]], action=VOTES.index("active_mask"))


def _match(to: Any, mnemonic: str, operands: list[str]) -> None:
    """`match.any.sync.b32 d, a, mask`, and `match.all.sync.b32 d{|p}, a, mask`."""
    to.kind = WARP
    _, mode, _, kind = mnemonic.split(".")
    size = int(kind[1:]) // 8
    result, _, valid = operands[0].partition("|")
    valid_slot = to.destination(valid, 0)[0] if valid else NO_SLOT
    slots = [to.destination(result, 4)[0], to.source(operands[1], f"u{8 * size}"), to.source(operands[2], "u32")]
    to.emit("vote", [*slots, valid_slot], action=VOTES.index(f"match_{mode}"), bytes=size)


def _reduce(to: Any, mnemonic: str, operands: list[str]) -> None:
    """`redux.sync.add.u32 d, a, mask`."""
    to.kind = WARP
    _, _, action, kind = mnemonic.split(".")
    slots = [to.register(operands[0])[0], to.source(operands[1], "u32"), to.source(operands[2], "u32")]
    to.emit("vote", slots, action=VOTES.index(_REDUX[action]), is_signed=int(kind[0] == "s"))


FAMILIES = {
    "bar": _barrier,
    "barrier": _barrier,
    "shfl": _exchange,
    "vote": _vote,
    "activemask": _active_mask,
    "match": _match,
    "redux": _reduce,
}
