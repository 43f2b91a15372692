"""A small stand-in for a hub of models: as much of its HTTP interface as the client's uploads and downloads use.

Files come by commits, small ones in the commit itself and large ones (those of safetensors, as on the hub) by git
LFS: a batch request, a PUT of the content, a verification. A repository is one branch of commits, each of which has
files.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"


class HubServer(ThreadingHTTPServer):
    """What the hub holds: by repository its commits, the newest last; and the objects of git LFS."""

    daemon_threads = True

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, repository: str) -> dict[str, bytes]:
        """The newest files of a repository, which may be changed."""
        return self.commits[repository][-1]

    def sha(self, repository: str, place: int) -> str:
        return hashlib.sha1(f"{repository} {place}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of the client."""

    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) if not self._chunked() else self._chunks()
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"POST {path}")
        if path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if path == "/lfs/verify":
            given = json.loads(body)
            right = len(self.server.objects.get(given["oid"], b"")) == given["size"]
            return self._send({}, 200 if right else 422)
        if match := re.fullmatch(r"/api/models/(.+)/(preupload|commit)/main", path):
            repository, what = match.groups()
            if repository not in self.server.commits:
                return self._missing("RepoNotFound")
            return self._preupload(json.loads(body)) if what == "preupload" else self._commit(repository, body)
        return self._missing("EntryNotFound")

    def do_PUT(self) -> None:
        oid = self.path.rpartition("/")[2]
        content = self.rfile.read(int(self.headers["Content-Length"])) if not self._chunked() else self._chunks()
        self.server.asked.append("PUT lfs")
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.objects[oid] = content
        self._send({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._info(*match.groups())
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*match.groups())
        return self._missing("EntryNotFound")

    def _create(self, given: dict[str, Any]) -> None:
        name = f"{given.get('organization') or 'me'}/{given['name']}"
        if name in self.server.commits:
            return self._send({"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}, 409)
        self.server.commits[name] = [{".gitattributes": b"*.safetensors filter=lfs\n"}]
        if given.get("private") or given.get("visibility") == "private":
            self.server.private.add(name)
        return self._send({"url": f"{self.server.url}/{name}", "name": name})

    def _preupload(self, given: dict[str, Any]) -> None:
        modes = [
            {"path": of["path"], "uploadMode": "lfs" if of["path"].endswith(".safetensors") else "regular"}
            for of in given["files"]
        ]
        self._send({"files": [{**mode, "shouldIgnore": False} for mode in modes]})

    def _batch(self, given: dict[str, Any]) -> None:
        def action(oid: str) -> dict[str, Any]:
            upload = {"href": f"{self.server.url}/lfs/{oid}"}
            return {"actions": {"upload": upload, "verify": {"href": f"{self.server.url}/lfs/verify"}}}

        objects = [{**of, **({} if of["oid"] in self.server.objects else action(of["oid"]))} for of in given["objects"]]
        self._send({"transfer": "basic", "objects": objects})

    def _commit(self, repository: str, body: bytes) -> None:
        files = dict(self.server.files(repository))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.server.commits[repository].append(files)
        sha = self.server.sha(repository, len(self.server.commits[repository]) - 1)
        self._send({"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{repository}/commit/{sha}"})

    def _place(self, repository: str, revision: str | None) -> int | None:
        commits = self.server.commits.get(repository)
        allowed = repository not in self.server.private or self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if commits is None or not allowed:
            self._missing("RepoNotFound")
            return None
        shas = [self.server.sha(repository, place) for place in range(len(commits))]
        if revision in (None, "main"):
            return len(commits) - 1
        if revision not in shas:
            self._missing("RevisionNotFound")
            return None
        return shas.index(revision)

    def _info(self, repository: str, revision: str | None) -> None:
        place = self._place(repository, revision)
        if place is not None:
            files = self.server.commits[repository][place]
            siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
            sha = self.server.sha(repository, place)
            self._send({"id": repository, "modelId": repository, "sha": sha, "siblings": siblings, "tags": []})

    def _file(self, repository: str, revision: str, name: str) -> None:
        place = self._place(repository, revision)
        if place is None:
            return
        content = self.server.commits[repository][place].get(name)
        if content is None:
            return self._missing("EntryNotFound")
        if self.command == "GET":
            self.server.fetched.append(name)
        etag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": self.server.sha(repository, place), "ETag": f'"{etag}"'}
        self._send(content, 200, {**headers, "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))})

    def _missing(self, code: str) -> None:
        self._send({"error": "not found"}, 404, {"X-Error-Code": code})

    def _send(self, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        kind = "application/octet-stream" if isinstance(answer, bytes) else "application/json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _chunked(self) -> bool:
        return self.headers.get("Transfer-Encoding") == "chunked"

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A hub that runs in a thread of this process."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
