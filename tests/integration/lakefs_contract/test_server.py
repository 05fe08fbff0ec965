"""The server itself, repositories, branches and tags."""

import uuid

import lakefs
import pytest
from lakefs.branch import Branch
from lakefs.client import Client
from lakefs.exceptions import (
    BadRequestException,
    ConflictException,
    ForbiddenException,
    NotAuthorizedException,
    NotFoundException,
)
from lakefs.repository import Repository
from lakefs_sdk.exceptions import ApiException

from tests.integration.lakefs_contract.steps import commit, message_of, namespace
from tests.integration.lakefs_server import connect


def test_the_server_says_what_it_is(client: Client) -> None:
    sdk = client.sdk_client
    assert client.version
    assert sdk.config_api.get_config().storage_config.blockstore_type
    assert sdk.auth_api.get_current_user().user.id
    sdk.health_check_api.health_check()


def test_a_server_is_set_up_once(client: Client) -> None:
    internal = client.sdk_client.internal_api
    assert internal.get_setup_state().state == "initialized"
    key = {"access_key_id": "someone", "secret_access_key": "else"}
    with pytest.raises(ApiException) as failure:
        internal.setup({"username": "somebody", "key": key})
    assert failure.value.status == 409
    assert "lakeFS already initialized" in failure.value.body


def test_a_wrong_secret_is_refused(client: Client) -> None:
    stranger = connect(client.config.host, "someone", "else")
    with pytest.raises(NotAuthorizedException) as failure:
        Repository("some-repository", stranger).metadata  # noqa: B018 - a request
    assert message_of(failure) == "error authenticating request"


def test_a_new_repository_has_one_commit_on_its_default_branch(repository: Repository) -> None:
    assert repository.properties.default_branch == "main"
    (first,) = repository.branch("main").log()
    assert first.message == "Repository created"
    assert first.parents == []


def test_repositories_are_listed_by_prefix(client: Client, repository: Repository) -> None:
    found = lakefs.repositories(client, prefix=repository.id)
    assert [item.id for item in found] == [repository.id]


def test_a_repository_name_is_taken_once(repository: Repository, client: Client) -> None:
    again = Repository(repository.id, client)
    with pytest.raises(ConflictException):
        again.create(namespace(uuid.uuid4().hex))
    again.create(namespace(uuid.uuid4().hex), exist_ok=True)


def test_a_storage_namespace_is_used_once(repository: Repository, client: Client) -> None:
    other = Repository(f"contract-{uuid.uuid4().hex[:16]}", client)
    with pytest.raises(BadRequestException, match="already in use"):
        other.create(namespace(repository.id))


def test_a_repository_name_follows_the_pattern(client: Client) -> None:
    with pytest.raises(BadRequestException):
        list(Repository("No_Good", client).branches())


def test_an_unknown_repository_is_not_found(client: Client) -> None:
    with pytest.raises(NotFoundException) as failure:
        list(Repository("no-such-repository", client).branches())
    assert message_of(failure) == "repository not found"


def test_branches_are_created_listed_and_deleted(repository: Repository, main: Branch) -> None:
    for name in ("dev", "draft", "other"):
        repository.branch(name).create("main")
    assert [item.id for item in repository.branches(prefix="d")] == ["dev", "draft"]
    assert [item.id for item in repository.branches(after="dev", max_amount=2)] == ["draft", "main"]
    assert repository.branch("dev").head.id == main.head.id
    repository.branch("dev").delete()
    with pytest.raises(NotFoundException) as failure:
        repository.branch("dev").head  # noqa: B018 - a request
    assert message_of(failure) == "branch not found"


def test_a_branch_needs_a_free_name_and_a_source(repository: Repository) -> None:
    with pytest.raises(ConflictException):
        repository.branch("main").create("main")
    with pytest.raises(NotFoundException):
        repository.branch("dev").create("nowhere")
    with pytest.raises(BadRequestException):
        repository.branch("no good").create("main")


def test_the_default_branch_cannot_be_deleted(main: Branch) -> None:
    with pytest.raises(ForbiddenException) as failure:
        main.delete()
    assert message_of(failure) == "cannot delete repository default branch"


def test_hidden_branches_are_listed_only_on_request(repository: Repository) -> None:
    repository.branch("secret").create("main", hidden=True)
    assert [item.id for item in repository.branches()] == ["main"]
    assert [item.id for item in repository.branches(show_hidden=True)] == ["main", "secret"]


def test_tags_are_created_listed_and_deleted(repository: Repository, main: Branch) -> None:
    first = commit(main, "one", a="1")
    repository.tag("v1").create("main")
    commit(main, "two", a="2")
    repository.tag("v2").create("main")
    assert repository.tag("v1").get_commit().id == first
    assert [item.id for item in repository.tags()] == ["v1", "v2"]
    with pytest.raises(ConflictException):
        repository.tag("v1").create("main")
    with pytest.raises(ConflictException):
        repository.tag("main").create("main")
    repository.tag("v1").delete()
    assert [item.id for item in repository.tags()] == ["v2"]
    with pytest.raises(NotFoundException):
        repository.tag("v1").delete()
