"""A stand-in for the Hugging Face hub on this machine: repositories to download from, and to upload to."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

UPLOAD = re.compile("^api/models/.*/(preupload|commit)/")
REFUSED = b"Access to this model is restricted"


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories, each at one revision, by the part of the hub's protocol that its client uses.

    Paths are `<id>` for models and `datasets/<id>` for data sets. A private repository wants the token.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories, self.asked, self.uploaded, self.created = {}, [], {}, {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def add(self, path, revision, folder, private=False):
        self.repositories[path] = (revision, folder, private)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.server.asked.append((path, token))
        api = path.startswith("api/")
        if self.command == "POST" and (path in ("api/repos/create", "api/validate-yaml") or UPLOAD.search(path)):
            if token != "secret":
                return self.send(401, REFUSED, {"X-Error-Code": "GatedRepo", "X-Error-Message": REFUSED.decode()})
            return self.upload(path.removeprefix("api/"), body)
        path = path.removeprefix("api/").removeprefix("models/") if api else path
        for repository, (revision, folder, private) in self.server.repositories.items():
            if path == repository or path.startswith(f"{repository}/"):
                if private and token != "secret":
                    return self.send(401, REFUSED, {"X-Error-Code": "GatedRepo", "X-Error-Message": REFUSED.decode()})
                what, _, rest = path.removeprefix(repository).strip("/").partition("/")
                return (self.describe if api else self.file)(what, rest, revision, folder, repository, body)
        return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_GET = do_HEAD = do_POST = answer

    def upload(self, path, body):
        """Repositories are made, asked how they take a file, and given a commit of files in base64."""
        if path == "repos/create":
            wanted = json.loads(body)
            name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            self.server.created[name] = wanted.get("private")
            answer = {"url": f"{self.server.url}/{name}", "name": name}
        elif path == "validate-yaml":
            answer = {"errors": [], "warnings": []}
        elif "/preupload/" in path:
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            answer = {"files": files}
        else:
            name = path.removeprefix("models/").partition("/commit/")[0]
            lines = [json.loads(line) for line in body.splitlines()]
            files = {v["value"]["path"]: base64.b64decode(v["value"]["content"]) for v in lines if v["key"] == "file"}
            self.server.uploaded.setdefault(name, {}).update(files)
            answer = {
                "commitUrl": f"{self.server.url}/{name}/commit/{'a' * 40}",
                "commitOid": "a" * 40,
                "success": True,
            }
        return self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def describe(self, what, rest, revision, folder, repository, body):
        paths = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*"))}
        entries = [
            {"type": "file" if p.is_file() else "directory", "path": name, "size": p.stat().st_size, "oid": tag(p)}
            for name, p in paths.items()
        ]
        asked, _, inside = rest.partition("/")
        if asked not in ("", "main", revision):
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if what == "tree":
            entries = [entry for entry in entries if str(Path(entry["path"]).parent) == (inside or ".")]
        elif what == "paths-info":
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
            entries = [entry for entry in entries if entry["path"] in wanted]
        else:
            entries = {
                "id": repository.removeprefix("datasets/"),
                "sha": revision,
                "private": False,
                "tags": [],
                "siblings": [{"rfilename": name} for name, p in paths.items() if p.is_file()],
            }
        return self.send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def file(self, what, rest, revision, folder, repository, body):
        asked, _, name = rest.partition("/")
        path = folder / name
        if what != "resolve" or asked not in ("main", revision):
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if not path.is_file():
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": revision})
        return self.send(200, path.read_bytes(), {"ETag": f'"{tag(path)}"', "X-Repo-Commit": revision})

    def send(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def tag(path):
    return hashlib.sha1(path.read_bytes() if path.is_file() else b"").hexdigest()
