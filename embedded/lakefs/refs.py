"""Ref expressions: a branch, tag, commit id or its prefix, then `~n`, `^n` or `@`."""

import re
from dataclasses import dataclass

from embedded.lakefs import commits
from embedded.lakefs.database import Transaction
from embedded.lakefs.errors import InvalidError, NotFoundError

_EXPRESSION = re.compile(r"(?P<base>[^\s~^@$]+)(?P<modifiers>(?:[~^]\d*)*|@)")
_MODIFIER = re.compile(r"([~^])(\d*)")
_COMMIT_ID = re.compile(r"[0-9a-f]{64}")
_COMMIT_PREFIX = re.compile(r"[0-9a-f]{1,63}")


@dataclass(frozen=True, slots=True)
class Resolved:
    """What an expression stands for."""

    commit_id: str
    #: The branch whose staged changes count too; none for every other kind of expression.
    branch: str | None = None


def resolve(tx: Transaction, repository_id: str, expression: str, failing: str = "") -> Resolved:
    """Find the commit that `expression` stands for; `failing` is what lakeFS failed to do."""
    try:
        return _resolve(tx, repository_id, expression)
    except NotFoundError as error:
        raise NotFoundError(f"{failing}{error}") from error


def _resolve(tx: Transaction, repository_id: str, expression: str) -> Resolved:
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise InvalidError("ref: invalid value: validation error")
    base = _base(tx, repository_id, match["base"])
    if match["modifiers"] == "@":
        if base.branch is None:
            raise InvalidError("ref: invalid value: validation error")
        return Resolved(base.commit_id)
    if not match["modifiers"]:
        return base
    commit_id = base.commit_id
    for sign, number in _MODIFIER.findall(match["modifiers"]):
        commit_id = _walk(tx, repository_id, commit_id, sign, int(number or 1))
    return Resolved(commit_id)


def _base(tx: Transaction, repository_id: str, name: str) -> Resolved:
    """Try a full commit id, a branch, a tag and a commit prefix, in lakeFS's order."""
    if _COMMIT_ID.fullmatch(name) and commits.find(tx, repository_id, name):
        return Resolved(name)
    for table in ("branches", "tags"):
        query = f"SELECT commit_id FROM {table} WHERE repository = ? AND id = ?"  # noqa: S608
        if row := tx.one(query, repository_id, name):
            return Resolved(row["commit_id"], name if table == "branches" else None)
    if _COMMIT_PREFIX.fullmatch(name):
        query = "SELECT id FROM commits WHERE repository = ? AND id >= ? AND id < ? LIMIT 2"
        matches = tx.all(query, repository_id, name, name + "g")  # "g" follows every hex digit
        if len(matches) == 1:
            return Resolved(matches[0]["id"])
    raise NotFoundError("not found")


def _walk(tx: Transaction, repository_id: str, commit_id: str, sign: str, number: int) -> str:
    if sign == "~":
        for _ in range(number):
            parents = commits.get(tx, repository_id, commit_id).parents
            if not parents:
                raise NotFoundError("not found")
            commit_id = parents[0]
        return commit_id
    if number == 0:
        return commit_id
    parents = commits.get(tx, repository_id, commit_id).parents
    if number > len(parents):
        raise InvalidError("ref: invalid value: validation error")
    return parents[number - 1]
