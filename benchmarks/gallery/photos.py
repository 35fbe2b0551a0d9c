"""The two photographs that the pictures are made of; they come with scikit-learn, under CC BY 2.0.

temple: danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035
flower: vultilion, https://www.flickr.com/photos/vultilion/6056698931
"""

from functools import cache

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

SIDE_PX = 224
CREDIT = "Photograph: danielbuechele, CC BY 2.0, changed"
_LEFT_PX = {"china.jpg": 0, "flower.jpg": 95}  # of the square that is cut out


def temple() -> np.ndarray:
    """A pagoda above a lake: edges, texture, colours and sky; uint8 [224, 224, 3]."""
    return _square("china.jpg").copy()


def flower() -> np.ndarray:
    """A dahlia, uint8 [224, 224, 3]: the partner where a method mixes images."""
    return _square("flower.jpg").copy()


@cache
def _square(name: str) -> np.ndarray:
    image = Image.fromarray(load_sample_image(name))
    left, side = _LEFT_PX[name], image.height
    return np.asarray(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS, box=(left, 0, left + side, side)))
