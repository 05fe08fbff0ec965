"""Presigned links; a server without them says so."""

import os

import pytest
import urllib3
from lakefs.branch import Branch
from lakefs.client import Client
from lakefs.exceptions import BadRequestException
from lakefs_sdk.exceptions import ApiException
from lakefs_sdk.models.abort_presign_multipart_upload import AbortPresignMultipartUpload
from lakefs_sdk.models.complete_presign_multipart_upload import CompletePresignMultipartUpload
from lakefs_sdk.models.upload_part import UploadPart


def test_a_signed_link_downloads_without_credentials(client: Client, main: Branch) -> None:
    main.object("a").upload("0123456789")
    if not client.storage_config.pre_sign_support:
        with pytest.raises(BadRequestException, match="operation not supported"):
            main.object("a").stat(pre_sign=True)
        return
    url = main.object("a").stat(pre_sign=True).physical_address
    objects = client.sdk_client.objects_api
    (listed,) = objects.list_objects(main.repo_id, "main", presign=True).results
    with urllib3.PoolManager() as pool:
        assert pool.request("GET", url).data == b"0123456789"
        assert (
            pool.request("GET", listed.physical_address, headers={"Range": "bytes=2-3"}).data
            == b"23"
        )


def test_an_object_is_uploaded_in_parts(client: Client, main: Branch) -> None:
    api = client.sdk_client.experimental_api
    if not client.sdk_client.config_api.get_config().storage_config.pre_sign_multipart_upload:
        with pytest.raises(ApiException) as failure:
            api.create_presign_multipart_upload(main.repo_id, "main", "big", parts=2)
        assert failure.value.status == 501
        return
    chunks = [os.urandom(5 * 1024 * 1024), b"the end"]
    upload = api.create_presign_multipart_upload(main.repo_id, "main", "big", parts=2)
    with urllib3.PoolManager() as pool:
        etags = [
            pool.request("PUT", url, body=chunk).headers["ETag"]
            for url, chunk in zip(upload.presigned_urls, chunks, strict=True)
        ]
    parts = [UploadPart(part_number=number, etag=etag) for number, etag in enumerate(etags, 1)]
    stat = api.complete_presign_multipart_upload(
        main.repo_id,
        "main",
        upload.upload_id,
        "big",
        complete_presign_multipart_upload=CompletePresignMultipartUpload(
            physical_address=upload.physical_address,
            parts=parts,
            user_metadata={"k": "v"},
            content_type=None,
        ),
    )
    assert stat.size_bytes == sum(map(len, chunks))
    assert stat.metadata == {"k": "v"}
    assert main.object("big").reader("rb").read() == b"".join(chunks)


def test_an_upload_in_parts_can_be_given_up(client: Client, main: Branch) -> None:
    api = client.sdk_client.experimental_api
    if not client.sdk_client.config_api.get_config().storage_config.pre_sign_multipart_upload:
        return
    upload = api.create_presign_multipart_upload(main.repo_id, "main", "big", parts=1)
    api.abort_presign_multipart_upload(
        main.repo_id,
        "main",
        upload.upload_id,
        "big",
        abort_presign_multipart_upload=AbortPresignMultipartUpload(
            physical_address=upload.physical_address
        ),
    )
    assert not main.object("big").exists()
