"""Sums and products in parts, which pass a carry from one instruction to the next."""

from typing import Any

from tests.ptx.operations import CARRIES
from tests.ptx.table import ALU

FAMILIES = ("addc", "subc", "madc")


def emit(to: Any, mnemonic: str, operands: list[str]) -> None:
    """Append `add.cc.u32`, `addc{.cc}.u32`, `sub.cc`, `subc{.cc}`, `mad{c}.lo{.cc}` or `mad{c}.hi{.cc}`."""
    to.kind = ALU
    base, *parts = mnemonic.split(".")
    kind = parts[-1]
    product = "product_low" if "lo" in parts else "product_high"
    action = {"add": "add", "sub": "sub", "mad": product}[base.removesuffix("c")]
    slots = [to.source(operand, f"u{kind[1:]}") for operand in operands[1:]]
    to.emit(
        "carry",
        [to.register(operands[0])[0], *slots],
        action=CARRIES.index(action),
        bytes=int(kind[1:]) // 8,
        is_signed=int(kind[0] == "s"),
        type=int(base.endswith("c")) + 2 * int("cc" in parts),
    )
