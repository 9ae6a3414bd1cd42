"""What is in a file, and whether all of it can be decoded: by Pillow and PyAV, one of which may be missing.

Strangers wrote these files. So this is imported in a helper process only (:mod:`mirror.media.worker`), formats are
listed by name, and nothing here opens anything but the file that is handed in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO

from mirror.media import heif, webp
from mirror.media.look import starts_like_media

_PICTURES = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM", "ICO")
_FILMS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,flv,ogg,gif,apng,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe"
_OPTIONS = {
    "format_whitelist": _FILMS,
    "protocol_whitelist": "none",  # no demuxer follows a URL that a file names
    "formatprobesize": str(64 << 10),
    "probesize": str(2 << 20),
    "analyzeduration": str(5_000_000),
}
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_AVIF = (b"avif", b"avis")
_FIRST_CHUNK = 12
_CHUNKS = 16
_LONGEST_EXIF = 64 << 10
"""What is looked through for the Exif data of a WebP."""

Told = dict[str, Any]


class Undecodable(Exception):
    """The library that knows this format cannot decode the file, and says why."""


class Unopened(Undecodable):
    """No library can open it, though it begins like a picture or a film."""


class Hindered(Exception):
    """It is not the file that keeps it from being decoded: a library is not to be loaded, no thread to be started."""


def describe(file: BinaryIO) -> Told | None:
    """The facts of a picture or film, as :class:`mirror.models.Media` names them; None where no library knows it."""
    for read in _in_order(file, _picture, _film):
        file.seek(0)
        try:
            found: Told | None = read(file)
        except Exception:  # noqa: BLE001, S112  # nosec B112 # whatever a library raises: another one may know it
            continue
        if found is not None:
            return found
    return None


def decode(file: BinaryIO) -> bool:
    """Decode every frame and every pixel. False where no library knows the format.

    Raises:
        Undecodable: it is a picture or a film, and cannot be decoded whole.
        MemoryError: it takes more memory than there is.
        Hindered: the machine is at fault.
    """
    for read in _in_order(file, _decode_picture, _decode_film):
        file.seek(0)
        try:
            if read(file):
                return True
        except (MemoryError, Undecodable):
            raise
        except (ImportError, BlockingIOError) as error:
            raise Hindered(_in_words(error)) from None
        except Exception as error:  # noqa: BLE001  whatever a library raises is its word on this file
            told = _in_words(error)
            if told.startswith("can't start new thread"):
                raise Hindered(told) from None
            raise Undecodable(told) from None
    file.seek(0)
    if starts_like_media(file.read(12)):
        raise Unopened("nothing can open it, though it begins like a picture or a film")
    return False


def _in_order(file: BinaryIO, picture: Callable[..., Any], film: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    head = file.read(12)
    is_film = head[4:8] in (b"ftyp", b"moov", b"mdat") and not heif.begins_so(head)
    yield from (film, picture) if is_film else (picture, film)


# Pillow --------------------------------------------------------------------------------------------


def _open_picture(file: BinaryIO) -> Any:
    """The picture, its pixels not read; None where Pillow is missing, or cannot open it."""
    try:
        from PIL import Image  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    Image.MAX_IMAGE_PIXELS = None  # memory is bounded for this process as a whole
    warnings.simplefilter("ignore")
    Image.init()
    try:
        return Image.open(file, formats=[name for name in _PICTURES if name in Image.OPEN])
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  some formats' plugins raise what they like
        return None


def _picture(file: BinaryIO) -> Told | None:
    """Of the header only. Sizes are as it is shown: a photograph may say that it is to be turned."""
    head = file.read(webp.HEAD)
    size = webp.size_of(head)  # Pillow would read all of the file
    if size is not None:
        return _image(size, _exif_of_webp(file) if webp.has_exif(head) else b"", "webp")
    file.seek(0)
    if head[8:12] in _AVIF:
        size = heif.size_of(file.read(heif.HEAD))
        if size is not None:
            return _image(size, b"", "avif")
        file.seek(0)
    picture = _open_picture(file)
    if picture is None:
        return None
    codec = "jpeg" if picture.format == "MPO" else str(picture.format).lower()
    return _image(picture.size, picture.info.get("exif", b""), codec)


def _image(size: tuple[int, int], exif: bytes, codec: str) -> Told:
    width, height = reversed(size) if _orientation(exif) in _TURNED else size
    return {"kind": "image", "width": width, "height": height, "codec": codec}


def _exif_of_webp(file: BinaryIO) -> bytes:
    """Its Exif data; none where that is not to be had with a few reads."""
    at = _FIRST_CHUNK
    try:
        for _ in range(_CHUNKS):
            file.seek(at)
            header = file.read(8)
            length = int.from_bytes(header[4:], "little")
            if header.startswith(b"EXIF"):
                return file.read(min(length, _LONGEST_EXIF))
            at += len(header) + length + length % 2
    except OSError:  # it stands elsewhere, and cannot be read there
        pass
    return b""


def _orientation(exif: bytes) -> int:
    try:
        from PIL import Image  # noqa: PLC0415

        told = Image.Exif()
        told.load(exif)
        return int(told.get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001  Exif is often broken, and says nothing then; Pillow may be missing
        return 1


def _decode_picture(file: BinaryIO) -> bool:
    picture = _open_picture(file)
    if picture is None:
        return False
    for number in range(getattr(picture, "n_frames", 1)):
        picture.seek(number)
        picture.load()
    return True


# PyAV ----------------------------------------------------------------------------------------------


class _Nameless:
    """A file without a name: PyAV would choose a format by it, and one of them reads whole series of files."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


def _open_film(file: BinaryIO) -> Any:
    """The container; None where PyAV is missing, or does not know it."""
    try:
        import av  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    av.logging.set_level(av.logging.PANIC)
    try:
        return av.open(_Nameless(file), container_options=_OPTIONS, metadata_errors="replace")
    except (av.error.InvalidDataError, av.error.ArgumentError):
        return None


def _film(file: BinaryIO) -> Told | None:
    container = _open_film(file)
    if container is None:
        return None
    with container:
        stream = next((each for each in container.streams.video), None)
        if stream is None:
            return None
        codec = stream.codec_context
        found = {"width": codec.width or None, "height": codec.height or None, "codec": codec.name}
        if container.format.name.endswith("_pipe"):
            return {"kind": "image", **found}
        rate = stream.average_rate
        return {
            "kind": "image" if container.format.name in ("gif", "apng") else "video",
            **found,
            "seconds": _seconds(container, stream),
            "frame_rate": round(float(rate), 3) if rate else None,
        }


def _seconds(container: Any, stream: Any) -> float | None:
    if stream.duration and stream.time_base:
        return round(float(stream.duration * Fraction(stream.time_base)), 3)
    return round(container.duration / 1_000_000, 3) if container.duration else None


def _decode_film(file: BinaryIO) -> bool:
    container = _open_film(file)
    if container is None:
        return False
    with container:
        streams = [*container.streams.video, *container.streams.audio]
        if not streams:
            return False
        frames = dict.fromkeys((stream.index for stream in streams), 0)
        for stream in streams:
            stream.codec_context.thread_count = 1
        for packet in container.demux(streams):
            if packet.is_corrupt:
                raise Undecodable("a packet is damaged")
            for frame in packet.decode():
                frames[packet.stream.index] += 1
                if frame.is_corrupt:
                    raise Undecodable(f"frame {frames[packet.stream.index]} is damaged")
        if not all(frames[stream.index] for stream in container.streams.video):
            raise Undecodable("it has no frame")
    return True


def _in_words(error: Exception) -> str:
    """What a library says, in one printable line: it may quote the file."""
    text = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
    return "".join(each if each.isprintable() else "?" for each in text)[:200]
