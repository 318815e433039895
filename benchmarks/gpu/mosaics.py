"""CIFAR-10 from lossless pictures of all images of a file: `python -m benchmarks.gpu.mosaics PICTURE FILE`.

A picture NAME.webp, 3200 x 3200, holds the 10,000 images of NAME.bin in rows of 100, and NAME.labels one byte for each:
17 MB instead of 31. The file is written as the official archive has it, which its SHA-1 shows.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

SIDE, ACROSS = 32, 100

SHA1 = {
    "data_batch_1": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch": "67eb016db431130d61cd03c7ad570b013799c88c",
}
"""Of the official files."""


def main() -> None:
    """Write the file of a picture, or say in one line why not."""
    picture, file = map(Path, sys.argv[1:])
    try:
        from PIL import Image
    except ImportError:
        sys.exit(f"Pillow, which reads {picture.name}, is missing: give its wheel by --wheels")
    Image.MAX_IMAGE_PIXELS = None
    mosaic = np.asarray(Image.open(picture).convert("RGB"))
    images = mosaic.reshape(-1, SIDE, ACROSS, SIDE, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3 * SIDE * SIDE)
    labels = np.frombuffer(picture.with_suffix(".labels").read_bytes(), np.uint8)
    data = np.concatenate([labels[:, None], images], axis=1).tobytes()
    if (found := hashlib.sha1(data, usedforsecurity=False).hexdigest()) != SHA1.get(picture.stem, found):
        sys.exit(f"{picture} is not the official file: its SHA-1 is {found}")
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(data)
    part.rename(file)


if __name__ == "__main__":
    main()
