"""Files over HTTP, and what workers find of them, on this host's disk and in a store elsewhere."""

import hashlib
import itertools
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.uploads import FilePart
from shared.errors import InvalidInputError, LifecycleError
from shared.media.files import FileStore
from shared.settings import LedgerSettings, MediaSettings, RedisSettings, Settings
from tests import media_samples as samples
from workers.inference.media import MediaLoader

LIMIT = 200_000
DAY = 86_400
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture(params=["disk", "elsewhere"])
def media(request: pytest.FixtureRequest, tmp_path: Path) -> MediaSettings:
    """Storage on this disk, and one that fsspec reaches and no path does."""
    places = {"disk": str(tmp_path / "files"), "elsewhere": f"memory://{uuid.uuid4().hex}"}
    return MediaSettings(files_url=places[request.param], max_bytes=LIMIT, files_kept_seconds=DAY)


@pytest.fixture
def settings(
    media: MediaSettings, redis_settings: RedisSettings, ledger_settings: LedgerSettings
) -> Settings:
    return Settings(media=media, redis=redis_settings, ledger=ledger_settings)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


def stored_names(media: MediaSettings) -> list[str]:
    store = FileStore(media)
    try:
        return [Path(path).name for path in store._fs.ls(store._root, detail=False)]
    except FileNotFoundError:
        return []


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        ("audio/wav", samples.audio("wav")),
        ("audio/mpeg", samples.audio("mp3")),
        ("audio/flac", samples.audio("flac")),
        ("audio/mp4", samples.m4a()),
        ("image/png", samples.image("png")),
        ("image/jpeg", samples.image("jpeg")),
        ("image/webp", samples.image("webp")),
        ("video/mp4", samples.mp4()),
        ("application/pdf", samples.pdf()),
        ("application/octet-stream", b"hello"),
    ],
)
def test_upload_is_described_looked_at_and_deleted(
    client: TestClient, media: MediaSettings, media_type: str, content: bytes
) -> None:
    # What the client says of name and type is not believed.
    response = client.post("/files", files={"file": ("../../etc/passwd", content, "text/html")})
    file = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/files/{file['file_id']}"
    assert file == {
        "file_id": file["file_id"],
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "media_type": media_type,
    }
    assert client.get(f"/files/{file['file_id']}").json() == file
    with MediaLoader(media).open(file["file_id"], "data.image") as opened:
        assert opened.file.read() == content
        assert opened.media_type == media_type
    assert client.delete(f"/files/{file['file_id']}").json() == file
    assert client.get(f"/files/{file['file_id']}").status_code == 404
    assert client.delete(f"/files/{file['file_id']}").status_code == 404
    assert stored_names(media) == []


def test_deleted_file_is_not_found_by_its_field(client: TestClient, media: MediaSettings) -> None:
    file_id = client.post("/files", files={"file": b"x"}).json()["file_id"]
    client.delete(f"/files/{file_id}")
    with pytest.raises(LifecycleError) as caught:
        MediaLoader(media).image(file_id, "data.image")
    assert (caught.value.specific_code, caught.value.field) == ("media_not_found", "data.image")


@pytest.mark.parametrize(
    "file_id", ["no-such-file", "..", "file-", "file-" + "0" * 32, "%2e%2e%2f"]
)
def test_unknown_file_is_404(client: TestClient, file_id: str) -> None:
    for response in (client.get(f"/files/{file_id}"), client.delete(f"/files/{file_id}")):
        assert response.status_code in {404, 405}
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"files": {"file": b""}}, "media_corrupt"),
        ({"files": {"file": bytes(LIMIT + 1)}}, "media_too_large"),
        ({"files": {"file": bytes(LIMIT + 100_000)}}, "media_too_large"),
        ({"files": {"other": b"x"}}, "invalid_input"),
        ({"files": [("file", b"x"), ("file", b"y")]}, "invalid_input"),
        ({"files": {"file": b"x"}, "data": {"more": "y"}}, "invalid_input"),
        ({"content": b"x", "headers": {"Content-Type": "image/png"}}, "invalid_input"),
        ({"content": b"x"}, "invalid_input"),
        ({"content": b"x", "headers": MULTIPART}, "invalid_input"),
        ({"content": b"--b--\r\n", "headers": MULTIPART}, "invalid_input"),
    ],
)
def test_bad_upload_is_refused_and_leaves_nothing(
    client: TestClient, media: MediaSettings, body: dict[str, object], code: str
) -> None:
    response = client.post("/files", **body)  # type: ignore[arg-type]
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, code), problem
    assert problem["errors"][0]["field"] == "file"
    assert stored_names(media) == []


def test_upload_of_unknown_length_is_cut_off_at_the_limit(
    client: TestClient, media: MediaSettings
) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(100):
            sent += 50_000
            yield bytes(50_000)

    response = client.post("/files", content=endless(), headers=MULTIPART)
    assert (response.status_code, response.json()["code"]) == (422, "media_too_large")
    assert stored_names(media) == []


def test_body_that_goes_on_after_the_file_is_cut_off_too(
    client: TestClient, media: MediaSettings
) -> None:
    file = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n'
    after = (bytes(50_000) for _ in range(100))
    response = client.post("/files", content=itertools.chain([file], after), headers=MULTIPART)
    assert (response.status_code, response.json()["code"]) == (422, "media_too_large")
    assert stored_names(media) == []


def test_file_is_taken_out_of_a_body_however_it_is_cut() -> None:
    content = b"\r\n--bound\r\n-" * 3 + bytes(range(256))
    body = (
        b'--boundary\r\ncontent-disposition: form-data; filename="f"; name="file"\r\n'
        b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--boundary--\r\n"
    )
    for size in (1, 2, 3, 7, 50, len(body)):
        part = FilePart('multipart/form-data; boundary="boundary"')
        pieces = [part.feed(body[at : at + size]) for at in range(0, len(body), size)]
        part.finish()
        assert b"".join(pieces) == content
    part = FilePart("multipart/form-data; boundary=boundary")
    part.feed(body[:-20])
    with pytest.raises(InvalidInputError, match="ends before the file"):
        part.finish()


def test_old_files_are_gone_and_swept(media: MediaSettings) -> None:
    store = FileStore(media)
    with store.uploading("file") as upload:
        upload.write(b"x")
        old = upload.finish()
    with store.uploading("file") as upload:
        upload.write(b"left unfinished")
    assert store.sweep() == 0
    assert store.get(old.file_id) == old
    assert stored_names(media) == [old.file_id]
    later = time.time() + DAY + 1
    with mock.patch("shared.media.files.time.time", return_value=later):
        with pytest.raises(LifecycleError, match="there is no file"):
            store.get(old.file_id)
        assert store.sweep() == 1
        assert store.sweep() == 0
    assert stored_names(media) == []


def test_storage_that_is_away_is_a_503(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("no directory")
    media = MediaSettings(files_url=str(tmp_path / "none"))
    with TestClient(create_app(settings.model_copy(update={"media": media}))) as client:
        response = client.post("/files", files={"file": b"x"})
    assert (response.status_code, response.json()["code"]) == (503, "files_unavailable")
