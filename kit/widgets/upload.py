"""A picture file from anybody, read safely and made to fit."""

import io

from PIL import Image
from torch import Tensor

from utils import UsageError
from utils.pictures import nr_frames, to_tensor, why_unreadable

UPLOAD_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # decoders that call no other program
MAX_UPLOAD_PIXELS = 50_000_000


def read_upload(content: bytes, image_size: int) -> tuple[Tensor, str]:
    """A picture file from anybody -> uint8 (3, S, S), read as `pictures.as_shown` does, and a sentence that says how it
    was made to fit.

    Raises:
        UsageError: no picture, a damaged one, or one so large that unpacking it could take all memory; the header
            says how large it is before anything is unpacked.
    """
    try:
        with Image.open(io.BytesIO(content), formats=UPLOAD_FORMATS) as file:
            (width, height), mode = file.size, file.mode
            if width * height > MAX_UPLOAD_PIXELS:
                raise Image.DecompressionBombError
            image, frames = to_tensor(file, image_size), nr_frames(file)
    except Image.UnidentifiedImageError:
        raise UsageError(f"it is no picture of a known kind: choose a {', '.join(UPLOAD_FORMATS)} file") from None
    except Exception as error:  # decoders raise all kinds of them for damaged files
        raise UsageError(f"it cannot be read as a picture: {why_unreadable(error)}") from None
    changes = [f"a picture of {width}x{height} pixels"]
    if frames > 1:
        changes.append(f"the first of {frames} frames")
    if (width, height) != (image_size, image_size):
        changes.append(f"resized to {image_size}x{image_size}")
    if mode != "RGB":
        changes.append(f"turned from mode {mode} into RGB")
    return image, ", ".join(changes)


def newest_upload(value) -> tuple[str, bytes]:
    """Name and bytes from a FileUpload's value: in ipywidgets 7 a dict by name, in 8 a tuple."""
    file = list(value.values() if isinstance(value, dict) else value)[-1]
    return file["metadata"]["name"] if "metadata" in file else file["name"], bytes(file["content"])
