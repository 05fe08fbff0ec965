"""Small real media of every format, made on the spot."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 220)
#: EXIF's tag for how the camera was held, and its value for "turn clockwise by 90 degrees".
ORIENTATION, TURN_RIGHT = 0x0112, 6


def tone(seconds: float = 1.0, rate: int = 22_050, hertz: float = 440.0) -> NDArray[np.float32]:
    """Return a sine wave at half of the full scale."""
    times = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def audio(kind: str, samples: NDArray[np.float32] | None = None, rate: int = 22_050) -> bytes:
    """Return a wav, mp3 or flac file of samples (frames, or frames and channels)."""
    file = io.BytesIO()
    soundfile.write(file, tone() if samples is None else samples, rate, format=kind.upper())
    return file.getvalue()


def endless_wav(seconds: int, rate: int = 16_000) -> bytes:
    """Return a WAV file whose header promises so many seconds, and that has a tenth of one."""
    data = bytes(rate // 10 * 2)
    declared = seconds * rate * 2
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", declared + 36, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16
    )
    return head + struct.pack("<4sI", b"data", declared) + data


def endless_flac(seconds: int, rate: int = 22_050) -> bytes:
    """Return a FLAC file of a second whose header promises so many."""
    file = bytearray(audio("flac", rate=rate))
    # The 36 bits of STREAMINFO for how many samples there are; see RFC 9639, section 8.2.
    file[21] = file[21] & 0xF0 | (seconds * rate) >> 32
    struct.pack_into(">I", file, 22, (seconds * rate) & 0xFFFFFFFF)
    return bytes(file)


def m4a(seconds: float = 1.0, rate: int = 44_100) -> bytes:
    """Return an AAC file in MP4."""
    file = io.BytesIO()
    with av.open(file, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(seconds, rate)[None, :], "fltp", "mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def mp4(
    colours: Sequence[Any] = (RED,) * 10 + (GREEN,) * 10 + (BLUE,) * 10,
    size: tuple[int, int] = (64, 48),
    fps: int = 10,
    movflags: str = "",
) -> bytes:
    """Return a video with a frame of each colour, or row of colours; flags place its index."""
    with NamedTemporaryFile(suffix=".mp4") as file:
        with av.open(
            file.name, "w", options={"movflags": movflags} if movflags else {}
        ) as container:
            stream = container.add_stream("libx264", rate=fps, options={"g": "8", "bf": "2"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for colour in colours:
                frame = np.full((size[1], size[0], 3), colour, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode(None))
        return Path(file.name).read_bytes()


def rotated_mp4() -> bytes:
    """Return a video, red on its left and blue on its right, that says: turn me to the right."""
    row = (RED,) * 32 + (BLUE,) * 32
    file = bytearray(mp4([row]))
    turned = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", file, file.find(b"tkhd") + 44, *turned)
    return bytes(file)


def live(kind: str, seconds: int) -> bytes:
    """Return a WebM recording of a live stream, which says nowhere how long it is."""
    with NamedTemporaryFile(suffix=".webm") as file:
        with av.open(file.name, "w", options={"live": "1"}) as container:
            if kind == "audio":
                sound = container.add_stream("libopus", rate=48_000, layout="mono")
                part = av.AudioFrame.from_ndarray(tone(seconds, 48_000)[None, :], "flt", "mono")
                part.sample_rate = 48_000
                container.mux(sound.encode(part))
                container.mux(sound.encode(None))
            else:
                stream = container.add_stream("libvpx-vp9", rate=10)
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                for _ in range(10 * seconds):
                    frame = np.full((48, 64, 3), RED, np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
                container.mux(stream.encode(None))
        return Path(file.name).read_bytes()


def noise(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Return an image that no format makes much smaller."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(pixels)


def picture(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Return an image whose left half is red and whose right half is blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def image(kind: str, source: Image.Image | None = None, **options: Any) -> bytes:
    """Return a png, jpeg or webp file."""
    file = io.BytesIO()
    (source or picture()).save(file, kind.upper(), **options)
    return file.getvalue()


def rotated(kind: str) -> bytes:
    """Return a photo that must be turned to the right to be upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = TURN_RIGHT
    return image(kind, exif=exif, quality=95)


def pdf(
    colours: Sequence[tuple[int, int, int]] = (RED, GREEN, BLUE), size: tuple[int, int] = (200, 100)
) -> bytes:
    """Return a document with a page of each colour."""
    pages = [Image.new("RGB", size, colour) for colour in colours]
    file = io.BytesIO()
    pages[0].save(file, "PDF", save_all=True, append_images=pages[1:], resolution=72)
    return file.getvalue()


def image_bomb() -> bytes:
    """Return a PNG of a few hundred kilobytes with 20000 x 20000 pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG", compress_level=9)
    return file.getvalue()


def encrypted_pdf() -> bytes:
    """Return a document that no password opens: enough to be asked for one."""
    secret = b"<" + b"5a" * 32 + b">"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[]/Count 0>>",
        b"<</Filter/Standard/V 1/R 2/P -4/O " + secret + b"/U " + secret + b">>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer<</Size 4/Root 1 0 R/Encrypt 3 0 R/ID[<00><00>]>>"
    end = b"startxref\n%d\n%%%%EOF\n" % len(body)
    return body + b"xref\n0 4\n0000000000 65535 f \n" + table + trailer + b"\n" + end


def index_bomb() -> bytes:
    """Return an MP4 file of some kilobytes whose index promises 2**27 samples."""
    file, promised = bytearray(m4a()), 2**27
    sizes, chunks, times = (file.find(box) for box in (b"stsz", b"stsc", b"stts"))
    struct.pack_into(">II", file, sizes + 8, 1, promised)
    struct.pack_into(">I", file, chunks + 16, promised)
    struct.pack_into(">I", file, times + 12, promised)
    return bytes(file)
