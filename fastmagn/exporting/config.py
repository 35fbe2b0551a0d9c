"""What `python -m fastmagn.export` writes. Kept apart from its code so that `--help` need not import PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastmagn.errors import check


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which run to export, and to which file.

    Args:
        run: Folder of the run.
        format: onnx (checked in onnxruntime; needs the extra onnx), or safetensors.
        out: The file, whose name ends in .onnx or .safetensors. The model card is written beside it, to FILE.md.
            Existing files are replaced.
        weights: The last step's weights (last), or their average (ema); by default the run's eval.weights.
        push: Repository of the Hugging Face Hub, OWNER/NAME, that the file and its card are then sent to (needs the
            extra hub, and a token: `hf auth login`). If it does not exist, it is made, private.
        licence: Licence of the weights, such as Apache-2.0, for the card; without it the card asks for one.
        record: Where the run's own files are kept, such as an address, for the card.
        input: For onnx: uint8, images [B, H, W, 3] as decoders give them (the default), or float, [B, 3, H, W] in
            [0, 1].
    """

    run: Path
    format: Literal["onnx", "safetensors"]
    out: Path
    weights: Literal["last", "ema"] | None = None
    push: str | None = None
    licence: str | None = None
    record: str | None = None
    input: Literal["uint8", "float"] | None = None

    def __post_init__(self) -> None:
        check(self.out.suffix == f".{self.format}", "out", str(self.out), f"a name that ends in .{self.format}")
        check(self.input is None or self.format == "onnx", "input", self.input, "none: it is for --format onnx")
