"""Decoders on real files of every format: what models get to see and hear of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from transformers.audio_utils import load_audio

from shared.cancellation import CancelToken
from shared.errors import CancelledError, InvalidInputError
from shared.settings import MediaSettings
from tests import media_samples as samples
from workers.inference.media import (
    MediaLoader,
    decode_audio,
    decode_document,
    decode_image,
    decode_video,
)
from workers.inference.media.video import evenly

LIMITS = MediaSettings()
LOSSY = 12


def near(pixel: Any, colour: tuple[int, int, int]) -> bool:
    return max(abs(int(a) - b) for a, b in zip(pixel, colour, strict=True)) <= LOSSY


# ── images ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff", "avif"])
def test_image_of_every_format_is_rgb(kind: str) -> None:
    decoded = decode_image(samples.image(kind, quality=95), limits=LIMITS)
    assert (decoded.image.mode, decoded.image.size) == ("RGB", (40, 20))
    assert near(decoded.image.getpixel((5, 10)), samples.RED)
    assert near(decoded.image.getpixel((35, 10)), samples.BLUE)
    assert decoded.metadata == {"media_type": f"image/{kind}", "width": 40, "height": 20}


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_image_is_turned_as_its_exif_says(kind: str) -> None:
    decoded = decode_image(samples.rotated(kind), limits=LIMITS)
    assert decoded.image.size == (20, 40), "what was left is at the top"
    assert near(decoded.image.getpixel((10, 5)), samples.RED)
    assert near(decoded.image.getpixel((10, 35)), samples.BLUE)
    assert (decoded.metadata["width"], decoded.metadata["height"]) == (20, 40)
    assert ImageOps.exif_transpose(decoded.image).size == (20, 40), "nobody turns it again"


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_what_is_transparent_is_white(kind: str) -> None:
    glass = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    glass.paste((0, 0, 0, 128), (2, 0, 4, 2))
    image = decode_image(samples.image(kind, glass, lossless=True), limits=LIMITS).image
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert near(image.getpixel((3, 0)), (127, 127, 127))


def test_palette_with_a_transparent_colour_is_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 30, 200, 30])
    image.putpixel((1, 0), 1)
    decoded = decode_image(samples.image("png", image, transparency=0), limits=LIMITS).image
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (30, 200, 30)]


def test_sixteen_bits_of_grey_are_scaled() -> None:
    grey = Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16))
    image = decode_image(samples.image("png", grey), limits=LIMITS).image
    assert [image.getpixel((x, 0)) for x in range(3)] == [(x, x, x) for x in (0, 128, 255)]


# ── audio ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "ogg"])
@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_audio_is_what_transformers_reads(kind: str, rate: int, tmp_path: Path) -> None:
    path = tmp_path / f"tone.{kind}"
    path.write_bytes(samples.audio(kind, samples.tone(seconds=3)))
    decoded = decode_audio(path, rate, limits=LIMITS)
    expected = load_audio(str(path), sampling_rate=rate, backend="soundfile")
    assert decoded.waveform.dtype == np.float32
    np.testing.assert_array_equal(decoded.waveform, expected)
    assert decoded.metadata["duration_seconds"] == pytest.approx(3, abs=0.1)
    assert (decoded.metadata["sampling_rate"], decoded.metadata["channels"]) == (22_050, 1)


def test_m4a_has_the_tone_that_was_encoded() -> None:
    decoded = decode_audio(samples.m4a(seconds=2), 16_000, limits=LIMITS)
    middle = decoded.waveform[8_000:24_000]
    assert np.abs(np.fft.rfft(middle)).argmax() == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)
    assert len(decoded.waveform) / 16_000 == pytest.approx(
        decoded.metadata["duration_seconds"], abs=0.001
    )
    assert decoded.metadata["duration_seconds"] == pytest.approx(2, abs=0.1)


def test_channels_are_averaged() -> None:
    left = samples.tone()
    stereo = np.stack([left, -left / 2], axis=1)
    decoded = decode_audio(samples.audio("flac", stereo), 22_050, limits=LIMITS)
    np.testing.assert_allclose(decoded.waveform, left / 4, atol=1e-4)
    assert decoded.metadata["channels"] == 2


def test_sound_of_a_piped_recording_has_no_declared_end() -> None:
    file = bytearray(samples.audio("wav"))
    for size_at in (4, file.find(b"data") + 4):
        file[size_at : size_at + 4] = b"\xff\xff\xff\xff"
    assert decode_audio(bytes(file), 16_000, limits=LIMITS).metadata["duration_seconds"] == 1


# ── video ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("flags", ["", "faststart", "frag_keyframe+empty_moov"])
def test_video_frames_are_spread_from_first_to_last(flags: str) -> None:
    video = decode_video(samples.mp4(movflags=flags), 4, limits=LIMITS)
    assert video.frames.shape == (4, 48, 64, 3)
    assert video.indices == (0, 10, 19, 29)
    assert list(video.timestamps_seconds) == [0.0, 1.0, 1.9, 2.9]
    colours = (samples.RED, samples.GREEN, samples.GREEN, samples.BLUE)
    for frame, colour in zip(video.images, colours, strict=True):
        assert near(frame.getpixel((30, 20)), colour)
    assert video.metadata == {
        "media_type": "video/mp4",
        "duration_seconds": 3,
        "fps": 10,
        "total_frames": 30,
        "sampled_frames": 4,
        "width": 64,
        "height": 48,
    }


def test_jumping_finds_the_frames_that_reading_all_finds(tmp_path: Path) -> None:
    """Every frame shows its own number; with B-frames, packets are in another order."""
    path = tmp_path / "numbers.mp4"
    shades = [(8 * number, 8 * number, 8 * number) for number in range(30)]
    path.write_bytes(samples.mp4(shades))
    with av.open(str(path)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for wanted in (1, 2, 5, 7, 30, 99):
        video = decode_video(path, wanted, limits=LIMITS)
        assert len(video.frames) == min(wanted, 30)
        np.testing.assert_array_equal(video.frames, [every[index] for index in video.indices])


def test_video_of_a_phone_held_upright_is_turned() -> None:
    video = decode_video(samples.rotated_mp4(), 1, limits=LIMITS)
    assert (video.metadata["width"], video.metadata["height"]) == (48, 64)
    (image,) = video.images
    assert near(image.getpixel((24, 10)), samples.RED), "what was left is at the top"
    assert near(image.getpixel((24, 54)), samples.BLUE)


def test_frames_are_no_more_than_allowed() -> None:
    limits = LIMITS.model_copy(update={"max_video_frames": 3})
    assert decode_video(samples.mp4(), 30, limits=limits).metadata["sampled_frames"] == 3


def test_evenly_takes_first_and_last() -> None:
    assert evenly(10, 1) == (0,)
    assert evenly(10, 2) == (0, 9)
    assert evenly(3, 8) == (0, 1, 2)
    assert evenly(1000, 5) == (0, 250, 500, 749, 999)


# ── documents ────────────────────────────────────────────────────────────────


def test_pdf_gives_all_pages_or_the_one_that_is_chosen() -> None:
    whole = decode_document(samples.pdf(), limits=LIMITS)
    assert whole.page_numbers == (1, 2, 3)
    for image, colour in zip(whole.images, (samples.RED, samples.GREEN, samples.BLUE), strict=True):
        assert (image.mode, image.size) == ("RGB", (400, 200)), "144 dpi of a page at 72"
        assert near(image.getpixel((200, 100)), colour)
    one = decode_document(samples.pdf(), limits=LIMITS, page=2)
    assert one.page_numbers == (2,)
    assert near(one.images[0].getpixel((5, 5)), samples.GREEN)
    assert one.metadata == {
        "media_type": "application/pdf",
        "pages": 3,
        "page_numbers": [2],
        "width": 400,
        "height": 200,
    }


def test_poster_is_drawn_smaller() -> None:
    poster = samples.pdf([samples.RED], size=(5000, 5000))
    image = decode_document(poster, limits=LIMITS).images[0]
    assert image.size == (2000, 2000)


def test_image_is_a_document_of_one_page() -> None:
    scan = Image.new("RGB", (60, 30), "white")
    ImageDraw.Draw(scan).rectangle((0, 0, 10, 10), samples.RED)
    decoded = decode_document(samples.image("png", scan), limits=LIMITS)
    assert (decoded.metadata["pages"], decoded.page_numbers) == (1, (1,))
    assert near(decoded.images[0].getpixel((5, 5)), samples.RED)


@pytest.mark.parametrize("page", [0, 4, -1])
def test_page_that_is_not_there_is_an_error_of_its_own_field(page: int) -> None:
    with pytest.raises(InvalidInputError, match="the document has 3") as caught:
        decode_document(samples.pdf(), limits=LIMITS, page=page)
    assert caught.value.field == "data.page"


def test_page_of_a_long_document_can_be_chosen() -> None:
    limits = LIMITS.model_copy(update={"max_document_pages": 2})
    with pytest.raises(InvalidInputError, match="3 pages; at most 2"):
        decode_document(samples.pdf(), limits=limits)
    assert decode_document(samples.pdf(), limits=limits, page=3).page_numbers == (3,)


# ── all ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "decode",
    [
        lambda token: decode_audio(samples.audio("wav"), 16_000, limits=LIMITS, token=token),
        lambda token: decode_video(samples.mp4(), 4, limits=LIMITS, token=token),
        lambda token: decode_document(samples.pdf(), limits=LIMITS, token=token),
    ],
    ids=["audio", "video", "document"],
)
def test_decoding_stops_when_told_to(decode: Callable[[CancelToken], object]) -> None:
    token = CancelToken()
    token.cancel(CancelledError("by the client"))
    with pytest.raises(CancelledError):
        decode(token)


def test_loader_decodes_what_a_value_names(tmp_path: Path) -> None:
    settings = MediaSettings(files_url=str(tmp_path / "files"), roots=(tmp_path,))
    for name, content in {
        "a.png": samples.image("png"),
        "a.wav": samples.audio("wav"),
        "a.mp4": samples.mp4(),
        "a.pdf": samples.pdf(),
    }.items():
        (tmp_path / name).write_bytes(content)
    loader = MediaLoader(settings)
    assert loader.image("a.png", "data.image").metadata["width"] == 40
    assert loader.audio("a.wav", "data.audio", 8_000).waveform.shape == (8_000,)
    assert loader.video("a.mp4", "data.video", 2).indices == (0, 29)
    assert loader.document("a.pdf", "data.document", 3).page_numbers == (3,)
    with loader.open("a.pdf", "data.document") as media:
        assert (media.kind, media.media_type) == ("document", "application/pdf")
        assert media.size_bytes == len(media.file.read())
    assert media.file.closed
