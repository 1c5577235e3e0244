"""What a Hugging Face Hub answers: the part of its HTTP API that publishing a model uses.

Repositories with branches and tags, tokens, upload modes, large files over the basic and the
multipart transfer of Git LFS, commits, and downloads. Like the Hub, it refuses a large file whose
bytes are not those of its hash, a commit that names a large file it was never given, an empty
commit and metadata that is no YAML. ``local_hub`` serves it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote

LARGE = (".safetensors", ".onnx", ".onnx_data", ".bin")
ATTRIBUTES = ".gitattributes"
USER = "me"
ORGANIZATION = "lab"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Args:
        status: Answer with this, and do nothing; None: do as asked.
        headers: Of that answer.
        cut: Close the connection: ``body`` amid the request's body, of which nothing is kept;
            ``answer`` after doing as asked, so that the client never learns of it.
        wait_s: Seconds to wait first.
        revoke: Let all tokens expire first.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: Literal["body", "answer"] | None = None
    wait_s: float = 0.0
    revoke: bool = False


STUMBLE = Fault(500, {"Retry-After": "0"})  # without it, the client waits ever longer
BUSY = Fault(429, {"Retry-After": "0"})
EXPIRE = Fault(revoke=True)


@dataclass(frozen=True)
class Commit:
    """A commit: its message, its files, its hash."""

    message: str
    files: dict[str, bytes]
    oid: str


@dataclass
class Repository:
    """What was pushed to one name.

    Args:
        visibility: ``private`` or ``public``.
        branches: Commits of each branch, oldest first.
        tags: Hash of a commit, by tag.
    """

    visibility: str
    branches: dict[str, list[Commit]]
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """Content by path on ``main``, without what every repository begins with."""
        return self.on("main")

    @property
    def commits(self) -> list[str]:
        """Messages of the commits to ``main``, without that of its creation."""
        return [commit.message for commit in self.branches["main"][1:]]

    def on(self, branch: str) -> dict[str, bytes]:
        """Content by path on a branch."""
        files = self.branches[branch][-1].files
        return {path: data for path, data in files.items() if path != ATTRIBUTES}

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a hash stands for."""
        if revision in self.branches:
            return self.branches[revision][-1]
        every = {commit.oid: commit for commits in self.branches.values() for commit in commits}
        oid = self.tags.get(revision, revision)
        if oid not in every:
            raise Refused(404, "Invalid rev id", code="RevisionNotFound")
        return every[oid]


@dataclass
class Hub:
    """What the server holds and what it was asked.

    Args:
        url: Its address.
        may_write: Whether the owner of each token may write.
        part_bytes: Large files of more bytes come in parts of so many; None: none does.
        repositories: By name.
        large: Content of the large files, by SHA-256 in hexadecimal.
        parts: What has arrived of files that come in parts, by SHA-256 and number.
        requests: Method and path of every request, in the order of arrival.
        faults: What goes wrong with the next requests of a kind (``preupload``, ``put`` ...); None:
            nothing.
    """

    url: str
    may_write: dict[str, bool]
    part_bytes: int | None = None
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: defaultdict[str, list[Fault | None]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, kind: str, *faults: Fault, after: int = 0) -> None:
        """Let requests of a kind go wrong, after some that do not."""
        self.faults[kind] += [*(None for _ in range(after)), *faults]

    @property
    def pending(self) -> int:
        """Faults that have not happened yet."""
        return sum(fault is not None for faults in self.faults.values() for fault in faults)

    def count(self, kind: str) -> int:
        """How many requests of a kind have arrived."""
        method, pattern = ROUTES[kind]
        return sum(method == m and bool(re.fullmatch(pattern, path)) for m, path in self.requests)


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": message, **body}
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


@dataclass(frozen=True)
class File:
    """An answer that is a file."""

    data: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Asked:
    """One request."""

    groups: tuple[str, ...]
    body: bytes
    token: str

    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


_REPO = r"([\w.-]+/[\w.-]+?)"
_REV = r"([^/]+)"
ROUTES = {
    "whoami": ("GET", "/api/whoami-v2"),
    "validate": ("POST", "/api/validate-yaml"),
    "create": ("POST", "/api/repos/create"),
    "auth": ("GET", f"/api/models/{_REPO}/auth-check/write"),
    "branch": ("POST", f"/api/models/{_REPO}/branch/{_REV}"),
    "tag": ("POST", f"/api/models/{_REPO}/tag/{_REV}"),
    "refs": ("GET", f"/api/models/{_REPO}/refs"),
    "tree": ("GET", f"/api/models/{_REPO}/tree/{_REV}"),
    "preupload": ("POST", f"/api/models/{_REPO}/preupload/{_REV}"),
    "batch": ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch"),
    "put": ("PUT", r"/large/([0-9a-f]{64})"),
    "part": ("PUT", r"/part/([0-9a-f]{64})/(\d+)"),
    "complete": ("POST", r"/complete/([0-9a-f]{64})"),
    "verify": ("POST", f"/verify/{_REPO}"),
    "commit": ("POST", f"/api/models/{_REPO}/commit/{_REV}"),
    "info": ("GET", f"/api/models/{_REPO}(?:/revision/{_REV})?"),
    "head": ("HEAD", f"/{_REPO}/resolve/{_REV}/(.+)"),
    "get": ("GET", f"/{_REPO}/resolve/{_REV}/(.+)"),
}
SIGNED = ("put", "part", "complete")
"""On the Hub, the addresses to upload to are signed and need no token."""


def whoami(hub: Hub, asked: Asked) -> Any:
    role = "write" if hub.may_write[asked.token] else "read"
    token = {"displayName": "tests", "role": role}
    return {
        "type": "user",
        "name": USER,
        "orgs": [{"type": "org", "name": ORGANIZATION}],
        "auth": {"type": "access_token", "accessToken": token},
    }


def validate(hub: Hub, asked: Asked) -> Any:
    import yaml

    content = asked.json()["content"]
    matched = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    try:
        read = yaml.safe_load(matched[1]) if matched else None
    except yaml.YAMLError as error:
        raise Refused(400, "Invalid metadata", errors=[{"message": str(error)}]) from error
    if read is not None and not isinstance(read.get("tags", []), list):
        raise Refused(400, "Invalid metadata", errors=[{"message": '"tags" must be an array'}])
    empty = [] if read else [{"message": "empty or missing yaml metadata in repo card"}]
    return {"errors": [], "warnings": empty}


def create(hub: Hub, asked: Asked) -> Any:
    given = asked.json()
    name = f"{given['organization']}/{given['name']}"
    url = f"{hub.url}/{name}"
    if name in hub.repositories:
        raise Refused(409, "You already created this model repo", url=url)
    first = committed([], "initial commit", {ATTRIBUTES: b"*.onnx filter=lfs\n"})
    hub.repositories[name] = Repository(given.get("visibility", "public"), {"main": [first]})
    return {"url": url, "name": name}


def auth(hub: Hub, asked: Asked) -> Any:
    repository(hub, asked.groups[0])
    if not hub.may_write[asked.token]:
        raise Refused(403, "You don't have the rights to do this")
    return {}


def branch(hub: Hub, asked: Asked) -> Any:
    repo, name = repository(hub, asked.groups[0]), asked.groups[1]
    if name in repo.branches:
        raise Refused(409, f"Reference already exists: {name}")
    repo.branches[name] = list(repo.branches[asked.json().get("startingPoint", "main")])
    return {}


def tag(hub: Hub, asked: Asked) -> Any:
    repo = repository(hub, asked.groups[0])
    name = asked.json()["tag"]
    if name in repo.tags:
        raise Refused(409, f"Tag reference exists already: {name}")
    repo.tags[name] = repo.at(asked.groups[1]).oid
    return {}


def refs(hub: Hub, asked: Asked) -> Any:
    repo = repository(hub, asked.groups[0])
    heads = {name: commits[-1].oid for name, commits in repo.branches.items()}
    return {
        "branches": [_ref("heads", name, oid) for name, oid in heads.items()],
        "tags": [_ref("tags", name, oid) for name, oid in repo.tags.items()],
        "converts": [],
    }


def _ref(kind: str, name: str, oid: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}


def tree(hub: Hub, asked: Asked) -> Any:
    files = repository(hub, asked.groups[0]).at(asked.groups[1]).files
    return [
        {"type": "file", "path": path, "size": len(data), "oid": blob(data), **_lfs(path, data)}
        for path, data in files.items()
    ]


def _lfs(path: str, data: bytes) -> dict[str, Any]:
    if not is_large(path):
        return {}
    return {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}


def preupload(hub: Hub, asked: Asked) -> Any:
    files = repository(hub, asked.groups[0]).at(asked.groups[1]).files
    return {
        "files": [
            {
                "path": one["path"],
                "uploadMode": "lfs" if is_large(one["path"]) else "regular",
                "shouldIgnore": False,
                "oid": known_as(one["path"], files[one["path"]]) if one["path"] in files else None,
            }
            for one in asked.json()["files"]
        ]
    }


def batch(hub: Hub, asked: Asked) -> Any:
    repository(hub, asked.groups[0])
    given = asked.json()
    assert given["operation"] == "upload"
    assert given["hash_algo"] == "sha256"
    assert {"basic", "multipart"} <= set(given["transfers"])
    actions = {
        item["oid"]: {
            "upload": _address(hub, item["oid"], item["size"]),
            "verify": {"href": f"{hub.url}/verify/{asked.groups[0]}"},
        }
        for item in given["objects"]
        if item["oid"] not in hub.large  # what is there needs no action
    }
    objects = [
        {**item, "actions": actions[item["oid"]]} if item["oid"] in actions else item
        for item in given["objects"]
    ]
    return {"transfer": "basic", "objects": objects}


def _address(hub: Hub, oid: str, size: int) -> dict[str, Any]:
    if hub.part_bytes is None or size <= hub.part_bytes:
        return {"href": f"{hub.url}/large/{oid}"}
    num_parts = -(-size // hub.part_bytes)
    parts = {str(n): f"{hub.url}/part/{oid}/{n}" for n in range(1, num_parts + 1)}
    return {
        "href": f"{hub.url}/complete/{oid}",
        "header": {"chunk_size": str(hub.part_bytes), **parts},
    }


def put(hub: Hub, asked: Asked) -> Any:
    if hashlib.sha256(asked.body).hexdigest() != asked.groups[0]:
        raise Refused(400, "The bytes are not those of the hash")
    hub.large[asked.groups[0]] = asked.body
    return {}


def part(hub: Hub, asked: Asked) -> Any:
    hub.parts[asked.groups[0], int(asked.groups[1])] = asked.body
    return File(b"", {"ETag": f'"{hashlib.md5(asked.body).hexdigest()}"'})


def complete(hub: Hub, asked: Asked) -> Any:
    oid = asked.groups[0]
    numbers = [one["partNumber"] for one in asked.json()["parts"]]
    data = b"".join(hub.parts[oid, number] for number in numbers)
    if hashlib.sha256(data).hexdigest() != oid:
        raise Refused(400, "The bytes are not those of the hash")
    hub.large[oid] = data
    return {}


def verify(hub: Hub, asked: Asked) -> Any:
    given = asked.json()
    if len(hub.large.get(given["oid"], b"")) != given["size"]:
        raise Refused(404, "Not that many bytes are here")
    return {}


def commit(hub: Hub, asked: Asked) -> Any:
    repo = repository(hub, asked.groups[0])
    commits = repo.branches[asked.groups[1]]
    header, *operations = (json.loads(line) for line in asked.body.splitlines())
    assert header["key"] == "header"
    before = commits[-1].files
    deleted = {one["value"]["path"] for one in operations if one["key"] == "deletedFile"}
    if not deleted <= before.keys():
        raise Refused(404, "A file with this name doesn't exist", code="EntryNotFound")
    added = {
        one["value"]["path"]: content(hub, **one)
        for one in operations
        if one["key"] != "deletedFile"
    }
    files = {path: data for path, data in before.items() if path not in deleted} | added
    if files == before:
        raise Refused(400, "The commit changes nothing")
    commits.append(committed(commits, header["value"]["summary"], files))
    oid = commits[-1].oid
    return {"commitUrl": f"{hub.url}/{asked.groups[0]}/commit/{oid}", "commitOid": oid}


def info(hub: Hub, asked: Asked) -> Any:
    repo = repository(hub, asked.groups[0])
    found = repo.at(asked.groups[1] or "main")
    return {
        "id": asked.groups[0],
        "sha": found.oid,
        "private": repo.visibility == "private",
        "siblings": [{"rfilename": path} for path in found.files],
    }


def get(hub: Hub, asked: Asked) -> Any:
    name, revision, path = asked.groups
    found = repository(hub, name).at(revision)
    if path not in found.files:
        raise Refused(404, "Entry not found", code="EntryNotFound")
    data = found.files[path]
    return File(data, {"X-Repo-Commit": found.oid, "ETag": f'"{known_as(path, data)}"'})


ANSWERS = {
    "whoami": whoami,
    "validate": validate,
    "create": create,
    "auth": auth,
    "branch": branch,
    "tag": tag,
    "refs": refs,
    "tree": tree,
    "preupload": preupload,
    "batch": batch,
    "put": put,
    "part": part,
    "complete": complete,
    "verify": verify,
    "commit": commit,
    "info": info,
    "head": get,
    "get": get,
}


def repository(hub: Hub, name: str) -> Repository:
    if name not in hub.repositories:
        raise Refused(404, "Repository not found", code="RepoNotFound")
    return hub.repositories[name]


def content(hub: Hub, key: str, value: dict[str, Any]) -> bytes:
    """Bytes of one file of a commit."""
    if key == "file":
        assert value["encoding"] == "base64"
        assert not is_large(value["path"])
        return base64.b64decode(value["content"])
    assert key == "lfsFile"
    if len(hub.large.get(value["oid"], b"")) != value["size"]:
        raise Refused(400, f"{value['path']}: its bytes were never uploaded")
    return hub.large[value["oid"]]


def is_large(path: str) -> bool:
    return PurePosixPath(path).suffix in LARGE


def known_as(path: str, data: bytes) -> str:
    """The hash by which the client sees that a file is unchanged."""
    return hashlib.sha256(data).hexdigest() if is_large(path) else blob(data)


def blob(data: bytes) -> str:
    """Git's hash of a file."""
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest()


def committed(before: list[Commit], message: str, files: dict[str, bytes]) -> Commit:
    """A commit after others; its hash is of all of them."""
    whole = hashlib.sha1((before[-1].oid if before else "").encode() + message.encode())
    for path, data in sorted(files.items()):
        whole.update(f"{path}\0{known_as(path, data)}\n".encode())
    return Commit(message, files, whole.hexdigest())


def kind_of(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """Which request it is, and what stands in its address."""
    matches = {
        kind: match.groups()
        for kind, (allowed, pattern) in ROUTES.items()
        if method == allowed and (match := re.fullmatch(pattern, path))
    }
    if not matches:
        raise Refused(404, f"No such page: {path}")
    ((kind, groups),) = matches.items()
    return kind, tuple(unquote(group) if group else group for group in groups)


def answer(hub: Hub, kind: str, method: str, asked: Asked) -> Any:
    """What the Hub answers, or Refused."""
    if kind not in SIGNED:
        if asked.token not in hub.may_write:
            raise Refused(401, "Invalid username or password.")
        if method == "POST" and not hub.may_write[asked.token]:
            raise Refused(403, "You don't have the rights to do this")
    return ANSWERS[kind](hub, asked)
