"""The routes of `HubServer`: what a Hub answers to each request, and the repositories behind it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

if TYPE_CHECKING:
    from hub_server import HubServer

TOKEN = "hf_loopback"  # who sends it may write, and read what is private
LARGE_FILE_SUFFIXES = (".safetensors", ".parquet", ".wav")


class HubError(Exception):
    """A reply that is an error, with the code that the clients look at."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Repository:
    """Commits by their hash, each a mapping of path to content, and the names that point to one."""

    repo_id: str
    repo_type: str
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit("main", {".gitattributes": b""}, "initial commit")

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Path to content at a branch, a pull request or a commit."""
        return self.commits[self.hash_of(revision)]

    def hash_of(self, revision: str) -> str:
        """The commit that a revision names."""
        found = self.refs.get(revision, revision)
        if found not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def commit(self, ref: str, files: dict[str, bytes], message: str) -> str:
        """Moves a ref to a new commit, at once or not at all."""
        tree = [(path, _blob_id(content)) for path, content in sorted(files.items())]
        commit_hash = hashlib.sha1(repr((len(self.commits), tree)).encode()).hexdigest()
        self.commits[commit_hash] = files
        self.refs[ref] = commit_hash
        self.messages.append(message)
        return commit_hash


class HubHandler(BaseHTTPRequestHandler):
    """One connection. The methods `on_...` answer a route, see `ROUTES`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *arguments: Any) -> None:
        """Nothing is logged: `HubServer.requests` has it."""

    @property
    def hub(self) -> HubServer:
        hub: HubServer = self.server.hub  # type: ignore[attr-defined]
        return hub

    def _answer(self) -> None:
        target = urlsplit(self.path)
        self.query = parse_qs(target.query)
        request = f"{self.command} {target.path}"
        self.hub.requests.append(request)
        for method, name, pattern in ROUTES:
            found = re.fullmatch(pattern, target.path)
            if found is None or self.command not in method.split():
                continue
            parts = _unquoted(found)
            failure = self.hub.take_failure(name, parts.get("repo_id"))
            if failure is not None and failure.status is None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                if failure is not None:
                    raise HubError(failure.status or 0, "the server is out of order")
                with self.hub.lock:
                    getattr(self, f"on_{name}")(body, **parts)
            except HubError as error:
                self._send_error(error)
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.unknown_requests.append(request)
        self._send_error(HubError(404, f"no such route: {request}"))

    def _send_error(self, error: HubError) -> None:
        headers = {"X-Error-Message": str(error)}
        if error.code is not None:
            headers["X-Error-Code"] = error.code
        self._send_json({"error": str(error)}, error.status, headers)

    def _send_json(
        self, value: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        headers = {"Content-Type": "application/json", **(headers or {})}
        self._send(json.dumps(value).encode(), status, headers)

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _check_writer(self) -> None:
        if not self._is_known():
            message = "Invalid credentials in Authorization header"
            raise HubError(401, message)

    def _repository(self, kind: str | None, repo_id: str) -> Repository:
        repo_type = (kind or "models").removesuffix("s")
        found = self.hub.repositories.get((repo_type, repo_id))
        if found is None or (found.private and not self._is_known()):
            raise HubError(401, "Repository not found", "RepoNotFound")
        return found

    def on_create(self, body: bytes) -> None:
        self._check_writer()
        asked = json.loads(body)
        repo_type, repo_id = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
        prefix = "" if repo_type == "model" else f"{repo_type}s/"
        reply = {"url": f"{self.hub.url}/{prefix}{repo_id}"}
        if (repo_type, repo_id) in self.hub.repositories:
            self._send_json({**reply, "error": "You already created this repo"}, 409)
            return
        private = asked.get("visibility") == "private"
        self.hub.repositories[repo_type, repo_id] = Repository(repo_id, repo_type, private)
        self._send_json(reply)

    def on_validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        front = re.match(r"---\r?\n(.*?)\r?\n---", content, re.DOTALL)
        try:
            valid = front is None or isinstance(yaml.safe_load(front[1]), dict)
        except yaml.YAMLError:
            valid = False
        errors = [] if valid else [{"message": "the metadata is no YAML mapping"}]
        warnings = [] if front else [{"message": "empty or missing yaml metadata in repo card"}]
        self._send_json({"errors": errors, "warnings": warnings}, 200 if valid else 400)

    def on_branch(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        self._check_writer()
        repository = self._repository(kind, repo_id)
        if revision in repository.refs:
            raise HubError(409, "Reference already exists")
        start = json.loads(body or b"{}").get("startingPoint", "main")
        repository.refs[revision] = repository.hash_of(start)
        self._send_json({})

    def on_info(self, body: bytes, kind: str, repo_id: str, revision: str | None) -> None:
        repository = self._repository(kind, repo_id)
        commit_hash = repository.hash_of(revision or "main")
        siblings = [{"rfilename": path} for path in repository.commits[commit_hash]]
        self._send_json(
            {
                "id": repo_id,
                "sha": commit_hash,
                "private": repository.private,
                "siblings": siblings,
                "tags": [],
            }
        )

    def on_tree(
        self, body: bytes, kind: str, repo_id: str, revision: str, path: str | None
    ) -> None:
        files = self._repository(kind, repo_id).files(revision)
        folder = f"{path}/" if path else ""
        below = {name: content for name, content in files.items() if name.startswith(folder)}
        if not below and folder:
            raise HubError(404, f"{path} does not exist", "EntryNotFound")
        entries = [*_tree_entries(below)]
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            entries = [one for one in entries if "/" not in one["path"][len(folder) :]]
        self._send_json([one for one in entries if one["path"].startswith(folder)])

    def on_preupload(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        self._check_writer()
        stored = self._repository(kind, repo_id).files(revision)
        paths = [asked["path"] for asked in json.loads(body)["files"]]
        files = [
            {
                "path": path,
                "uploadMode": "lfs" if path.endswith(LARGE_FILE_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": self._oid(path, stored.get(path)),
            }
            for path in paths
        ]
        self._send_json({"files": files})

    def _oid(self, path: str, content: bytes | None) -> str | None:
        if content is None:
            return None
        is_large = path.endswith(LARGE_FILE_SUFFIXES)
        return hashlib.sha256(content).hexdigest() if is_large else _blob_id(content)

    def on_batch(self, body: bytes, kind: str | None, repo_id: str) -> None:
        self._check_writer()
        self._repository(kind, repo_id)
        objects: list[dict[str, Any]] = []
        for asked in json.loads(body)["objects"]:
            one = {"oid": asked["oid"], "size": asked["size"]}
            if (repo_id, asked["oid"]) not in self.hub.large_files:
                href = f"{self.hub.url}/lfs/{repo_id}/{asked['oid']}"
                one["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(one)
        self._send_json({"transfer": "basic", "objects": objects})

    def on_lfs(self, body: bytes, repo_id: str, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise HubError(400, "the content is not what was announced")
        self.hub.large_files[repo_id, oid] = body
        self._send_json({})

    def on_commit(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        self._check_writer()
        repository = self._repository(kind, repo_id)
        files = dict(repository.files(revision))
        message = ""
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                message = value["summary"]
                parent = value.get("parentCommit")
                if parent not in (None, repository.hash_of(revision)):
                    raise HubError(
                        412, "A commit has happened since. Please refresh and try again."
                    )
            else:
                self._apply(repo_id, files, operation["key"], value)
        reply: dict[str, Any] = {}
        if "create_pr" in self.query:
            number = sum(name.startswith("refs/pr/") for name in repository.refs) + 1
            revision = f"refs/pr/{number}"
            reply["pullRequestUrl"] = f"{self._web(repository)}/discussions/{number}"
        elif revision not in repository.refs:
            raise HubError(400, "commits go to a branch")
        commit_hash = repository.commit(revision, files, message)
        reply["commitOid"] = commit_hash
        reply["commitUrl"] = f"{self._web(repository)}/commit/{commit_hash}"
        self._send_json(reply)

    def _apply(
        self, repo_id: str, files: dict[str, bytes], key: str, value: dict[str, Any]
    ) -> None:
        path = value["path"]
        if key == "file":
            files[path] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if (repo_id, value["oid"]) not in self.hub.large_files:
                raise HubError(400, f"{path}: its content was never uploaded")
            files[path] = self.hub.large_files[repo_id, value["oid"]]
        elif key == "deletedFile":
            del files[path]
        elif key == "deletedFolder":
            for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
                del files[name]
        else:
            raise HubError(400, f"unknown operation {key}")

    def _web(self, repository: Repository) -> str:
        prefix = "" if repository.repo_type == "model" else f"{repository.repo_type}s/"
        return f"{self.hub.url}/{prefix}{repository.repo_id}"

    def on_resolve(
        self, body: bytes, kind: str | None, repo_id: str, revision: str, path: str
    ) -> None:
        repository = self._repository(kind, repo_id)
        commit_hash = repository.hash_of(revision)
        content = repository.commits[commit_hash].get(path)
        if content is None:
            headers = {"X-Repo-Commit": commit_hash, "X-Error-Code": "EntryNotFound"}
            self._send_json({"error": "Entry not found"}, 404, headers)
            return
        headers = {
            "X-Repo-Commit": commit_hash,
            "ETag": f'"{self._oid(path, content)}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(content, 200, headers)
            return
        start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
        part = content[start : end + 1]
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        self._send(part, 206, headers)


_API = "/api/(?P<kind>models|datasets)/(?P<repo_id>[^/]+/[^/]+)"
_WEB = "/(?:(?P<kind>datasets)/)?(?P<repo_id>[^/]+/[^/]+)"
_REVISION = "(?P<revision>[^/]+)"
# Methods, name of the route, pattern of the path; the first that fits is taken.
ROUTES = (
    ("POST", "create", "/api/repos/create"),
    ("POST", "validate", "/api/validate-yaml"),
    ("POST", "branch", f"{_API}/branch/{_REVISION}"),
    ("GET", "info", f"{_API}(?:/revision/{_REVISION})?"),
    ("GET", "tree", f"{_API}/tree/{_REVISION}(?:/(?P<path>.+))?"),
    ("POST", "preupload", f"{_API}/preupload/{_REVISION}"),
    ("POST", "commit", f"{_API}/commit/{_REVISION}"),
    ("POST", "batch", f"{_WEB}[.]git/info/lfs/objects/batch"),
    ("PUT", "lfs", "/lfs/(?P<repo_id>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})"),
    ("GET HEAD", "resolve", f"{_WEB}/resolve/{_REVISION}/(?P<path>.+)"),
)


def _unquoted(found: re.Match[str]) -> dict[str, Any]:
    return {
        name: value if value is None else unquote(value)
        for name, value in found.groupdict().items()
    }


def _blob_id(content: bytes) -> str:
    """What git calls the content: its clients tell by it what has changed."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _tree_entries(files: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    folders = {
        "/".join(parts[:depth])
        for parts in (path.split("/") for path in files)
        for depth in range(1, len(parts))
    }
    for folder in sorted(folders):
        yield {"type": "directory", "path": folder, "oid": _blob_id(folder.encode())}
    for path, content in sorted(files.items()):
        yield {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}
