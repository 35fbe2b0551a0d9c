"""The fonts of figures: Matplotlib's own, then those here that have Chinese, Japanese and Korean characters."""

from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

_OWN = "DejaVu Sans"  # comes with Matplotlib
_WIDER = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("Source Han Sans SC", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("IPAexGothic", "IPAGothic", "TakaoGothic", "NanumGothic", "Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic"),
    *("Malgun Gothic", "PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
)


@cache
def families() -> tuple[str, ...]:
    """The fonts in which a character is looked up, in this order; all are installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return (_OWN, *(name for name in _WIDER if name in installed))


def note_on_boxes(texts: Iterable[str]) -> list[str]:
    """A line if some characters of these texts are in no font, so that figures have boxes in their place; else none."""
    lacking = {text: boxes for text in texts if (boxes := "".join(dict.fromkeys(filter(_is_lacking, text))))}
    if not lacking:
        return []
    text, boxes = next(iter(lacking.items()))
    more = f" and of {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return [
        f"figures: boxes stand for {boxes} of {text}{more}: no font on this machine that is known to have such"
        f" characters. Install one of {', '.join(_WIDER[:3])}, and report again."
    ]


def _is_lacking(char: str) -> bool:
    return not char.isspace() and all(ord(char) not in characters for characters in _characters())


@cache
def _characters() -> tuple[frozenset[int], ...]:
    """The characters of each font, by number."""
    return tuple(frozenset(FT2Font(font_manager.findfont(name)).get_charmap()) for name in families())
