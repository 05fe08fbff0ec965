"""Objects: upload, download, list, copy, delete."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from lakefs.branch import Branch
from lakefs.client import Client
from lakefs.exceptions import ObjectExistsException, ObjectNotFoundException
from lakefs.repository import Repository
from lakefs_sdk.exceptions import ApiException

from tests.integration.lakefs_contract.steps import commit, paths


@pytest.mark.parametrize("path", ["plain.bin", "deep/er/é ü&+%?.txt"])
def test_an_object_comes_back_as_it_went_in(main: Branch, path: str) -> None:
    data = os.urandom(100_000)
    main.object(path).upload(data, content_type="text/x-special", metadata={"origin": "test"})
    stat = main.object(path).stat()
    assert (stat.path, stat.size_bytes, stat.content_type) == (path, len(data), "text/x-special")
    assert stat.checksum == hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert stat.metadata == {"origin": "test"}
    assert main.object(path).reader("rb").read() == data
    assert main.object(path).exists()


def test_an_empty_object_is_an_object(main: Branch) -> None:
    main.object("empty").upload(b"")
    assert main.object("empty").stat().size_bytes == 0
    assert main.object("empty").reader("rb").read() == b""


def test_a_form_upload_is_taken_like_a_raw_one(client: Client, main: Branch) -> None:
    data = b"\r\n--not the boundary\r\n" * 5000
    stat = client.sdk_client.objects_api.upload_object(
        main.repo_id, "main", "form.bin", content=data
    )
    assert stat.size_bytes == len(data)
    assert stat.content_type == "application/octet-stream"
    assert main.object("form.bin").reader("rb").read() == data


def test_ranges_of_an_object_are_read(main: Branch) -> None:
    main.object("digits").upload("0123456789")
    reader = main.object("digits").reader("r")
    reader.seek(3)
    assert reader.read(4) == "3456"
    assert reader.read() == "789"
    reader.seek(-2, os.SEEK_END)
    assert reader.read() == "89"
    reader.seek(100)
    assert main.object("digits").reader("rb").read(100) == b"0123456789"


def test_headers_of_a_download(client: Client, main: Branch) -> None:
    main.object("digits").upload("0123456789")
    objects = client.sdk_client.objects_api
    whole = objects.get_object_with_http_info(main.repo_id, "main", "digits")
    etag = whole.headers["ETag"]
    assert etag == f'"{hashlib.md5(b"0123456789", usedforsecurity=False).hexdigest()}"'
    assert whole.headers["Content-Length"] == "10"
    part = objects.get_object_with_http_info(main.repo_id, "main", "digits", range="bytes=2-4")
    assert (part.status_code, part.data) == (206, b"234")
    assert part.headers["Content-Range"] == "bytes 2-4/10"
    suffix = objects.get_object_with_http_info(main.repo_id, "main", "digits", range="bytes=-3")
    assert suffix.data == b"789"
    head = objects.head_object_with_http_info(main.repo_id, "main", "digits")
    assert (head.headers["ETag"], head.headers["Content-Length"]) == (etag, "10")
    with pytest.raises(ApiException) as unchanged:
        objects.get_object(main.repo_id, "main", "digits", if_none_match=etag)
    assert unchanged.value.status == 304
    with pytest.raises(ApiException) as beyond:
        objects.get_object(main.repo_id, "main", "digits", range="bytes=10-")
    assert beyond.value.status == 416
    assert beyond.value.headers["Content-Range"] == "bytes */10"


def test_an_existing_object_can_be_protected(main: Branch) -> None:
    main.object("once").upload("first", mode="x")
    with pytest.raises(ObjectExistsException):
        main.object("once").upload("second", mode="x")
    main.object("once").upload("third")
    assert main.object("once").reader("r").read() == "third"


def test_the_precondition_holds_at_the_server(client: Client, main: Branch) -> None:
    main.object("once").upload("first")
    with pytest.raises(ApiException) as failure:
        client.sdk_client.objects_api.upload_object(
            main.repo_id, "main", "once", content=b"second", if_none_match="*"
        )
    assert failure.value.status == 412


def test_what_is_missing_is_not_found(client: Client, main: Branch) -> None:
    assert not main.object("nothing").exists()
    with pytest.raises(ObjectNotFoundException):
        main.object("nothing").stat()
    with pytest.raises(ObjectNotFoundException):
        main.object("nothing").reader("rb").read()
    with pytest.raises(ApiException) as failure:
        client.sdk_client.objects_api.upload_object(main.repo_id, "nowhere", "a", content=b"x")
    assert failure.value.status == 404


def test_objects_are_listed_by_prefix_and_page(client: Client, main: Branch) -> None:
    for path in ("a", "b/1", "b/2", "b/c/3", "bb", "c"):
        main.object(path).upload(path)
    assert paths(main) == ["a", "b/1", "b/2", "b/c/3", "bb", "c"]
    assert paths(main, prefix="b") == ["b/1", "b/2", "b/c/3", "bb"]
    assert paths(main, after="b/2", max_amount=2) == ["b/c/3", "bb"]
    assert paths(main, delimiter="/") == ["a", "b/", "bb", "c"]
    assert paths(main, prefix="b/", delimiter="/") == ["b/1", "b/2", "b/c/"]
    page = client.sdk_client.objects_api.list_objects(main.repo_id, "main", delimiter="/", amount=2)
    assert page.pagination.has_more
    assert page.pagination.next_offset == "b/"
    assert paths(main, delimiter="/", after="b/") == ["bb", "c"]
    assert paths(main, amount=1) == paths(main)


def test_objects_are_copied_and_deleted(repository: Repository, main: Branch) -> None:
    commit(main, "one", a="1", b="2", c="3")
    repository.branch("dev").create("main")
    main.object("a").upload("changed", metadata={"k": "v"})
    main.object("a").copy("dev", "copy/of/a")
    copied = repository.branch("dev").object("copy/of/a")
    assert copied.reader("r").read() == "changed"
    assert copied.stat().metadata == {"k": "v"}
    main.object("a").delete()
    main.object("never there").delete()
    main.delete_objects(["b", "nor there"])
    assert paths(main) == ["c"]
    assert paths(repository.ref("main@")) == ["a", "b", "c"]


def test_uploads_at_once_all_arrive(main: Branch) -> None:
    names = [f"part-{number:02}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: main.object(name).upload(name * 1000), names))
    assert paths(main) == names
    main.commit("all")
    assert main.object("part-07").reader("r").read() == "part-07" * 1000
