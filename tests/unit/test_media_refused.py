"""Bad media: each is refused by name, and none takes the worker's memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import ErrorInfo, LifecycleError
from shared.settings import MediaSettings
from tests import media_samples as samples
from workers.inference.media import MediaLoader

#: A worker's memory may rise by so much at most while it looks at bad media.
FLAT_BYTES = 48 * 1024 * 1024

#: File names: what is wrong, the task's field, and the code of the refusal.
BAD: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty.wav": (lambda: b"", "audio", "media_corrupt"),
    "empty.png": (lambda: b"", "image", "media_corrupt"),
    "noise": (lambda: bytes(range(256)), "image", "media_type_unsupported"),
    "sound.png": (lambda: samples.audio("mp3"), "image", "media_type_unsupported"),
    "image.wav": (lambda: samples.image("png"), "audio", "media_type_unsupported"),
    "image.mp4": (lambda: samples.image("jpeg"), "video", "media_type_unsupported"),
    "sound.mp4": (samples.m4a, "video", "media_type_unsupported"),
    "silent.mp4": (samples.mp4, "audio", "media_type_unsupported"),
    "sound.pdf": (lambda: samples.audio("flac"), "document", "media_type_unsupported"),
    "page.html": (lambda: b"<html>no medium</html>", "document", "media_type_unsupported"),
    "playlist.mp4": (lambda: b"#EXTM3U\nfile:///etc/passwd\n", "video", "media_type_unsupported"),
    "bomb.png": (samples.image_bomb, "image", "media_too_large"),
    "bomb-as-document.png": (samples.image_bomb, "document", "media_too_large"),
    "three-hours.wav": (lambda: samples.endless_wav(3 * 3600), "audio", "media_too_large"),
    "three-hours.flac": (lambda: samples.endless_flac(3 * 3600), "audio", "media_too_large"),
    "index-bomb.m4a": (samples.index_bomb, "audio", "media_corrupt"),
    "no-sound.wav": (lambda: samples.audio("wav", samples.tone(0)), "audio", "media_corrupt"),
    "broken.pdf": (lambda: b"%PDF-1.4\nnothing\n%%EOF", "document", "media_corrupt"),
    "encrypted.pdf": (samples.encrypted_pdf, "document", "media_encrypted"),
}
WHOLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "wav": (lambda: samples.audio("wav"), "audio"),
    "mp3": (lambda: samples.audio("mp3"), "audio"),
    "flac": (lambda: samples.audio("flac"), "audio"),
    "m4a": (samples.m4a, "audio"),
    "mp4": (samples.mp4, "video"),
    "faststart.mp4": (lambda: samples.mp4(movflags="faststart"), "video"),
    "png": (lambda: samples.image("png", samples.noise()), "image"),
    "jpeg": (lambda: samples.image("jpeg", samples.noise()), "image"),
    "webp": (lambda: samples.image("webp", samples.noise()), "image"),
    "pdf": (samples.pdf, "document"),
}


def look_at(loader: MediaLoader, value: str, kind: str) -> object:
    """Decode a medium as the task's handler does."""
    field = f"data.{kind}"
    if kind == "audio":
        return loader.audio(value, field, 16_000)
    if kind == "video":
        return loader.video(value, field, 8)
    return loader.image(value, field) if kind == "image" else loader.document(value, field)


def refusal(loader: MediaLoader, value: str, kind: str) -> ErrorInfo:
    with pytest.raises(LifecycleError) as caught:
        look_at(loader, value, kind)
    return caught.value.info()


@pytest.fixture
def loader(tmp_path: Path) -> MediaLoader:
    return MediaLoader(MediaSettings(files_url=str(tmp_path / "files"), roots=(tmp_path,)))


@pytest.mark.parametrize("name", BAD)
def test_bad_medium_is_refused_by_its_field(name: str, loader: MediaLoader, tmp_path: Path) -> None:
    make, kind, code = BAD[name]
    (tmp_path / name).write_bytes(make())
    info = refusal(loader, name, kind)
    assert (info.code, info.category) == (code, "invalid_input"), info.detail
    assert info.errors[0].field == f"data.{kind}"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", WHOLE)
def test_truncated_medium_is_refused(
    name: str, share: float, loader: MediaLoader, tmp_path: Path
) -> None:
    make, kind = WHOLE[name]
    whole = make()
    (tmp_path / name).write_bytes(whole)
    look_at(loader, name, kind)
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    assert refusal(loader, name, kind).code == "media_corrupt"


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_caps_hold_where_no_header_says_how_long_it_is(
    kind: str, loader: MediaLoader, tmp_path: Path
) -> None:
    (tmp_path / "live").write_bytes(samples.live(kind, seconds=3))
    look_at(loader, "live", kind)
    strict = MediaSettings(roots=(tmp_path,), max_audio_seconds=2, max_video_seconds=2)
    info = refusal(MediaLoader(strict), "live", kind)
    assert (info.code, "longer than the 2 s" in info.detail) == ("media_too_large", True)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("max_video_seconds", 2, "lasts 3 s; at most 2 s"),
        ("max_video_pixels", 1000, "64 x 48 pixels; at most 1000"),
        ("max_bytes", 100, "at most 100 are taken"),
    ],
)
def test_video_beyond_a_limit_is_refused(
    setting: str, value: int, says: str, tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(samples.mp4())
    settings = MediaSettings(files_url=str(tmp_path / "files"), roots=(tmp_path,))
    loader = MediaLoader(settings.model_copy(update={setting: value}))
    info = refusal(loader, "a.mp4", "video")
    assert info.code == "media_too_large"
    assert says in info.detail


def test_memory_of_the_worker_stays_flat(tmp_path: Path, figure: Callable[[str], None]) -> None:
    """A process of its own, so that no other test's memory is counted."""
    for name, (make, kind, _) in BAD.items():
        (tmp_path / f"{kind}--{name}").write_bytes(make())
    script = "from tests.unit.test_media_refused import measure; measure()"
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    risen = json.loads(run.stdout)
    worst = max(risen, key=risen.__getitem__)
    figure(f"peak memory over bad media: {worst} +{risen[worst] / 2**20:.1f} MiB")
    assert len(risen) == len(BAD)
    assert risen[worst] < FLAT_BYTES, risen


def measure() -> None:
    """Print by how many bytes each file of a directory raises this process's peak memory."""
    directory = Path(sys.argv[1])
    loader = MediaLoader(MediaSettings(roots=(directory,)))
    look_at_all = {path.name: path.name.partition("--")[0] for path in directory.iterdir()}
    risen = {}
    for name, kind in look_at_all.items():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _peak_bytes()
        try:
            look_at(loader, name, kind)
        except LifecycleError:
            risen[name] = _peak_bytes() - before
    print(json.dumps(risen))  # noqa: T201 - read by the test


def _peak_bytes() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024
