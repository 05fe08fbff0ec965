"""How requests name media, and which paths and addresses they may name."""

import os
import socket
from base64 import b64encode
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInputError, LifecycleError, NotFoundError, UnavailableError
from shared.media.addresses import AddressPolicy, is_public
from shared.media.references import (
    DataReference,
    FileReference,
    PathReference,
    UrlReference,
    parse_reference,
)
from shared.media.roots import MediaRoots
from shared.media.types import media_type_of

FIELD = "data.image"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("file-" + "0a" * 16, FileReference("file-" + "0a" * 16)),
        ("data:image/png;base64,AA==", DataReference("data:image/png;base64,AA==")),
        ("https://example.org/a.png?b=c", UrlReference("https://example.org/a.png?b=c")),
        ("photos/a b.png", PathReference("photos/a b.png")),
        ("file-of-mine.png", PathReference("file-of-mine.png")),
        ("../a.png", PathReference("../a.png")),
    ],
)
def test_value_is_read_by_its_form(value: str, expected: object) -> None:
    assert parse_reference(value, FIELD) == expected


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "media_reference_invalid"),
        (7, "media_reference_invalid"),
        ("", "media_reference_invalid"),
        ("a\0b", "media_reference_invalid"),
        ("a" * 10_000, "media_reference_invalid"),
        ("file:///etc/passwd", "media_url_refused"),
        ("FILE:/etc/passwd", "media_url_refused"),
        ("ftp://example.org/a.png", "media_url_refused"),
        ("gopher://example.org", "media_url_refused"),
        ("concat:a.mp4", "media_url_refused"),
        ("simplecache::file:///etc/passwd", "media_url_refused"),
        ("zip://a::file:///etc/passwd", "media_url_refused"),
        ("local:///etc/passwd", "media_url_refused"),
        ("s3://bucket/key", "media_url_refused"),
        ("http:/etc/passwd", "media_url_refused"),
        ("http://public.example\\@127.0.0.1/", "media_url_refused"),
        ("file-" + "0a" * 16 + "\n", "media_reference_invalid"),
        ("http://", "media_url_refused"),
        ("http://user:secret@example.org/", "media_url_refused"),
        ("http://example.org:port/", "media_url_refused"),
        ("http://[::1/", "media_url_refused"),
    ],
)
def test_value_that_names_no_medium_is_refused(value: object, code: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_reference(value, FIELD)
    assert (caught.value.specific_code, caught.value.field) == (code, FIELD)
    assert "secret" not in caught.value.detail


# ── data: URIs ───────────────────────────────────────────────────────────────


@given(st.binary(max_size=200))
def test_data_uri_gives_back_its_bytes(content: bytes) -> None:
    reference = DataReference(f"data:image/png;base64,{b64encode(content).decode()}")
    assert reference.decode(len(content), FIELD) == content
    if content:
        with pytest.raises(InvalidInputError, match="more than"):
            reference.decode(len(content) - 1, FIELD)


def test_data_uri_may_be_percent_encoded() -> None:
    assert DataReference("data:,a%20b").decode(10, FIELD) == b"a b"


@pytest.mark.parametrize("uri", ["data:image/png;base64", "data:;base64,!!!!", "data:;base64,AAA"])
def test_broken_data_uri_is_corrupt(uri: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        DataReference(uri).decode(100, FIELD)
    assert caught.value.specific_code == "media_corrupt"


# ── paths ────────────────────────────────────────────────────────────────────


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "a.png").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "root-of-others").mkdir()
    (tmp_path / "root-of-others" / "a.png").write_bytes(b"outside")
    (root / "link-out").symlink_to(tmp_path / "secret")
    (root / "link-up").symlink_to(tmp_path)
    (root / "link-in").symlink_to(root / "inner" / "a.png")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    return root


@pytest.mark.parametrize(
    "path", ["inner/a.png", "inner/../inner/a.png", "link-in", "{}/inner/a.png"]
)
def test_path_under_a_root_is_opened(root: Path, path: str) -> None:
    with MediaRoots([root.parent / "missing", root]).open(path.format(root), FIELD) as file:
        assert file.read() == b"inside"


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "inner/../../secret",
        "link-out",
        "link-up/secret",
        "/etc/passwd",
        "../root-of-others/a.png",
        "{}-of-others/a.png",
        "../no-such-file",
    ],
)
def test_path_out_of_the_roots_is_refused_whether_it_exists_or_not(root: Path, path: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        MediaRoots([root]).open(path.format(root), FIELD)
    assert caught.value.specific_code == "media_path_refused"


@pytest.mark.parametrize("path", ["no-such-file", "inner", "pipe", "inner/a.png/b", "a" * 5000])
def test_what_is_no_file_under_a_root_is_not_found(root: Path, path: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        MediaRoots([root]).open(path, FIELD)
    assert caught.value.specific_code == "media_not_found"


def test_without_roots_no_path_is_taken(root: Path) -> None:
    with pytest.raises(InvalidInputError, match="no media root is configured"):
        MediaRoots([]).open(str(root / "inner" / "a.png"), FIELD)


# ── addresses ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2001:4860:4860::8888"])
def test_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
        *("198.18.0.1", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::"),
        *("2001::1", "2001:db8::1", "192.0.0.192", "168.63.129.16", "100.100.100.200"),
        *("64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "3fff::1", "5f00::1", "fd00:ec2::254"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


def test_one_private_address_among_others_is_enough_to_refuse() -> None:
    policy = AddressPolicy(resolver=lambda _host, _port: ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(InvalidInputError, match="not at a public address") as caught:
        policy.addresses("example.org", 80, FIELD)
    assert caught.value.specific_code == "media_url_refused"
    assert "10.0.0.1" not in caught.value.detail


@pytest.mark.parametrize(
    ("trusted", "allowed"),
    [
        (["Intern.Example"], True),
        (["intern.example:8080"], True),
        (["intern.example:80"], False),
        (["other.example"], False),
    ],
)
def test_private_hosts_are_named_with_or_without_their_port(
    trusted: list[str], allowed: bool
) -> None:
    policy = AddressPolicy(trusted, resolver=lambda _host, _port: ["10.0.0.1"])
    if allowed:
        assert policy.addresses("intern.example", 8080, FIELD) == ["10.0.0.1"]
    else:
        with pytest.raises(InvalidInputError):
            policy.addresses("intern.example", 8080, FIELD)


@pytest.mark.parametrize(
    ("errno", "error"),
    [(socket.EAI_NONAME, NotFoundError), (socket.EAI_AGAIN, UnavailableError)],
)
def test_name_that_does_not_resolve(errno: int, error: type[LifecycleError]) -> None:
    def resolver(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(errno, "no")

    with pytest.raises(error, match="nowhere"):
        AddressPolicy(resolver=resolver).addresses("nowhere.example", 80, FIELD)


# ── types ────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=64))
def test_any_bytes_have_a_type(head: bytes) -> None:
    assert "/" in media_type_of(head)
