"""A Hugging Face Hub on this machine: the part of its HTTP API that uploading a folder uses.

Repositories, tokens, upload modes, large files over the basic transfer of Git LFS, and commits.
Like the Hub, it refuses a large file whose bytes are not those of its hash, a commit that names a
large file it was never given, and an empty commit. It does not know the xet protocol, so clients
set ``HF_HUB_DISABLE_XET=1``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any

LARGE = (".safetensors", ".onnx", ".onnx_data", ".bin")


@dataclass
class Repository:
    """What was pushed to one name.

    Args:
        visibility: ``private`` or ``public``.
        files: Content by path, after the latest commit.
        commits: Message of each commit, oldest first.
    """

    visibility: str
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """What the server holds and what it was asked.

    Args:
        url: Its address.
        may_write: Whether the owner of each token may write.
        repositories: By name.
        large: Content of the large files, by SHA-256 in hexadecimal.
        requests: Method and path of every request, in the order of arrival.
        failing: How often requests of a kind (``preupload``, ``put`` ...) are yet to fail, with
            status 500.
    """

    url: str
    may_write: dict[str, bool]
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    failing: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str) -> int:
        """How many requests of a kind have arrived."""
        method, pattern = ROUTES[kind]
        return sum(method == m and bool(re.fullmatch(pattern, path)) for m, path in self.requests)


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, **body: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": message, **body}


Groups = tuple[str, ...]
_REPO = r"([\w.-]+/[\w.-]+?)"
ROUTES = {
    "create": ("POST", "/api/repos/create"),
    "preupload": ("POST", f"/api/models/{_REPO}/preupload/main"),
    "batch": ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch"),
    "put": ("PUT", r"/large/([0-9a-f]{64})"),
    "verify": ("POST", f"/verify/{_REPO}"),
    "commit": ("POST", f"/api/models/{_REPO}/commit/main"),
    "info": ("GET", f"/api/models/{_REPO}(?:/revision/main)?"),
}


def create(hub: Hub, groups: Groups, body: bytes) -> Any:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    url = f"{hub.url}/{name}"
    if name in hub.repositories:
        raise Refused(409, "You already created this model repo", url=url)
    hub.repositories[name] = Repository(asked.get("visibility", "public"))
    return {"url": url, "name": name}


def preupload(hub: Hub, groups: Groups, body: bytes) -> Any:
    files = repository(hub, groups[0]).files
    return {
        "files": [
            {
                "path": asked["path"],
                "uploadMode": "lfs" if is_large(asked["path"]) else "regular",
                "shouldIgnore": False,
                "oid": known_as(asked["path"], files[asked["path"]])
                if asked["path"] in files
                else None,
            }
            for asked in json.loads(body)["files"]
        ]
    }


def batch(hub: Hub, groups: Groups, body: bytes) -> Any:
    repository(hub, groups[0])
    asked = json.loads(body)
    assert asked["operation"] == "upload"
    assert asked["hash_algo"] == "sha256"
    assert "basic" in asked["transfers"]
    actions = {
        oid: {
            "upload": {"href": f"{hub.url}/large/{oid}"},
            "verify": {"href": f"{hub.url}/verify/{groups[0]}"},
        }
        for oid in (item["oid"] for item in asked["objects"])
        if oid not in hub.large  # what is there needs no action
    }
    objects = [
        {**item, "actions": actions[item["oid"]]} if item["oid"] in actions else item
        for item in asked["objects"]
    ]
    return {"transfer": "basic", "objects": objects}


def put(hub: Hub, groups: Groups, body: bytes) -> Any:
    if hashlib.sha256(body).hexdigest() != groups[0]:
        raise Refused(400, "The bytes are not those of the hash")
    hub.large[groups[0]] = body
    return {}


def verify(hub: Hub, groups: Groups, body: bytes) -> Any:
    asked = json.loads(body)
    if len(hub.large.get(asked["oid"], b"")) != asked["size"]:
        raise Refused(404, "Not that many bytes are here")
    return {}


def commit(hub: Hub, groups: Groups, body: bytes) -> Any:
    repo = repository(hub, groups[0])
    header, *operations = (json.loads(line) for line in body.splitlines())
    assert header["key"] == "header"
    added = {item["value"]["path"]: content(hub, **item) for item in operations}
    if all(repo.files.get(path) == data for path, data in added.items()):
        raise Refused(400, "The commit changes nothing")
    repo.files.update(added)
    repo.commits.append(header["value"]["summary"])
    return {"commitUrl": f"{hub.url}/{groups[0]}/commit/{head(repo)}", "commitOid": head(repo)}


def info(hub: Hub, groups: Groups, body: bytes) -> Any:
    repo = repository(hub, groups[0])
    return {"id": groups[0], "sha": head(repo), "private": repo.visibility == "private"}


ANSWERS = {
    "create": create,
    "preupload": preupload,
    "batch": batch,
    "put": put,
    "verify": verify,
    "commit": commit,
    "info": info,
}


def repository(hub: Hub, name: str) -> Repository:
    if name not in hub.repositories:
        raise Refused(404, "Repository not found")
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
    if is_large(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest()


def head(repo: Repository) -> str:
    """A commit's hash; here of the messages, which is enough to tell commits apart."""
    return hashlib.sha1("\n".join(repo.commits).encode()).hexdigest()


def answer(hub: Hub, method: str, path: str, authorization: str | None, body: bytes) -> Any:
    """What the Hub answers, or Refused."""
    matches = {
        kind: match.groups()
        for kind, (allowed, pattern) in ROUTES.items()
        if method == allowed and (match := re.fullmatch(pattern, path))
    }
    if not matches:
        raise Refused(404, f"No such page: {path}")
    ((kind, groups),) = matches.items()
    if hub.failing[kind] > 0:
        hub.failing[kind] -= 1
        raise Refused(500, "Internal Error")
    if kind != "put":  # on the Hub, the address to upload to is signed and needs no token
        token = (authorization or "").removeprefix("Bearer ")
        if token not in hub.may_write:
            raise Refused(401, "Invalid username or password.")
        if method == "POST" and not hub.may_write[token]:
            raise Refused(403, "You don't have the rights to do this")
    return ANSWERS[kind](hub, groups, body)


@contextmanager
def serve(may_write: dict[str, bool]) -> Iterator[Hub]:
    """Run a Hub on a free port of this machine.

    Args:
        may_write: Whether the owner of each token may write; other tokens are unknown.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            with hub.lock:
                hub.requests.append((self.command, path))
                try:
                    status = 200
                    said = answer(hub, self.command, path, self.headers["Authorization"], body)
                except Refused as refused:
                    status, said = refused.status, refused.body
            data = json.dumps(said).encode()
            self.send_response(status)
            if status == 500:
                self.send_header("Retry-After", "0")  # the client would wait ever longer
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_port}", may_write)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
