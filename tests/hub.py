"""A loopback stand-in for the Hub's HTTP interface: repositories, LFS, commits, trees, tags."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repo:
    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"*.parquet lfs\n"}])
    tags: dict[str, int] = field(default_factory=dict)

    def at(self, revision: str) -> dict[str, bytes] | None:
        if revision == "main":
            return self.commits[-1]
        number = self.tags.get(revision, int(revision, 16) if re.fullmatch("[0-9a-f]{40}", revision) else -1)
        return self.commits[number] if 0 <= number < len(self.commits) else None


def commit_id(number: int) -> str:
    return f"{number:040x}"


@dataclass
class Hub:
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Method, path with query, body of every request."""
    fail_at: int | None = None
    after: bool = False
    """The request that fails is carried out first: only its answer is lost."""
    status: int = 418
    spoil: bool = False
    """Whether what is uploaded is damaged on its way."""
    address: str = ""
    lock: Any = field(default_factory=threading.Lock)

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        with self.lock:
            self.seen.append((method, target, body))
            failing = self.fail_at == len(self.seen)
            if failing and not self.after:
                return self.status, {"error": "interrupted"}
            done = self._act(method, unquote(urlsplit(target).path), body)
            return (self.status, {"error": "interrupted"}) if failing else done

    def _act(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            url = {"url": f"{self.address}/datasets/{name}"}
            if name in self.repos:
                return 409, {"error": "exists", **url}
            self.repos[name] = Repo(private=asked.get("visibility") == "private")
            return 200, url
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if method == "PUT" and path.startswith("/lfs/"):
            body = body + b"!" if self.spoil else body
            self.objects[path.removeprefix("/lfs/")] = body
            return 200, {}
        if re.fullmatch(r"/datasets/(.+)\.git/info/lfs/objects/batch", path):
            return 200, {"objects": [self._instructions(one) for one in json.loads(body)["objects"]]}
        if found := re.fullmatch(
            r"/(?:api/)?datasets/([^/]+/[^/]+)/(\w[\w-]*)(?:/([^/]+))?(?:/(.*))?",
            f"{path}/info" if path.count("/") == 4 and path.startswith("/api") else path,
        ):
            name, verb, revision, rest = found.groups()
            repo = self.repos.get(name)
            return (404, {"error": "not found"}) if repo is None else self._on(repo, verb, revision, rest, body)
        return 404, {"error": f"no {path}"}

    def _instructions(self, one: dict[str, Any]) -> dict[str, Any]:
        if one["oid"] in self.objects:
            return one
        return {**one, "actions": {"upload": {"href": f"{self.address}/lfs/{one['oid']}"}}}

    def _on(self, repo: Repo, verb: str, revision: str | None, rest: str | None, body: bytes) -> tuple[int, Any]:
        files = repo.at(revision or "main")
        if files is None:
            return 404, {"error": "no such revision"}
        if verb == "tree":
            return 200, _tree(files, rest or "")
        if verb == "refs":
            refs = [
                {"name": t, "ref": f"refs/tags/{t}", "targetCommit": commit_id(n)} for t, n in repo.tags.items()
            ]
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit_id(len(repo.commits) - 1)}
            return 200, {"branches": [main], "converts": [], "tags": refs}
        if verb == "preupload":
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(".parquet") else "regular",
                 "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            return 200, {"files": modes}
        if verb == "tag":
            repo.tags[json.loads(body)["tag"]] = int(revision or "0", 16)
            return 200, {}
        if verb == "commit":
            return self._commit(repo, dict(files), body)
        if verb in ("info", "revision"):
            number = next(n for n, commit in enumerate(repo.commits) if commit is files)
            siblings = [{"rfilename": name} for name in sorted(files)]
            return 200, {"id": "lab/demo", "sha": commit_id(number), "siblings": siblings, "private": repo.private}
        if verb == "paths-info":
            asked = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode())["paths"]
            return 200, [_entry(name, files[name]) for name in asked if name in files]
        if verb == "resolve" and rest in files:
            return 200, files[rest]
        return 404, {"error": "not found"}

    def _commit(self, repo: Repo, files: dict[str, bytes], body: bytes) -> tuple[int, Any]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        repo.commits.append(files)
        number = commit_id(len(repo.commits) - 1)
        return 200, {"commitUrl": f"{self.address}/datasets/o/n/commit/{number}", "commitOid": number}


def _tree(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    """Everything below a folder, folders included: those who asked for less look no further than they asked."""
    inside = {name: content for name, content in files.items() if not folder or name.startswith(f"{folder}/")}
    folders = {str(parent) for name in inside for parent in PurePosixPath(name).parents} - {".", folder}
    folders = {name for name in folders if not folder or name.startswith(f"{folder}/")}
    directories = [{"type": "directory", "path": name, "oid": "1" * 40, "size": 0} for name in sorted(folders)]
    return [*directories, *(_entry(name, content) for name, content in sorted(inside.items()))]


def _entry(name: str, content: bytes) -> dict[str, Any]:
    blob = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry = {"type": "file", "path": name, "size": len(content), "oid": blob}
    if name.endswith(".parquet"):
        stored = {"oid": sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return {**entry, "oid": "0" * 40, "lfs": stored}
    return entry


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """Serve from another thread until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            status, said = hub.answer(self.command, self.path, body)
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            newest = max((len(repo.commits) for repo in hub.repos.values()), default=1) - 1
            self.send_header("X-Repo-Commit", commit_id(newest))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{sha256(data).hexdigest()}"')
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = _reply

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
