#!/usr/bin/env python3
"""The part of Cloudflare's API v4 that a recovery uses, with one account, on a port that is printed.

Cloudflare's own client for Node is used on it as well (cloudflare_client.js): it holds the fake to
the paths, parameters and envelope of the API. The token is TOKEN-CANARY.

POST /control {"answers": [[503, null], [429, "1"]]}  the next requests are answered so
POST /control {"hang_after": "PATCH"}                 the next such change is made, and not answered
POST /control {"connect": "c2"}                       what a new cloudflared does ("run_at": one that
                                                      was away)
GET  /seen                                            the requests, and the state
"""
import datetime, json, re, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "TOKEN-CANARY"
lock = threading.Lock()
control = {"answers": [], "hang_after": None}
seen = []
state = {
    "connectors": {"c1": {"run_at": "2026-01-01T10:20:30.123456Z", "conns": [
        {"colo_name": "ams01", "is_pending_reconnect": False}] * 4}},
    "config": {
        "ingress": [
            {"hostname": "api.example.com", "path": "/v1", "service": "http://old:8080",
             "originRequest": {"connectTimeout": 10, "noTLSVerify": False}},
            {"hostname": "two.example.com", "path": "/a", "service": "http://www:80"},
            {"hostname": "two.example.com", "service": "http://www:81"},
            {"service": "http_status:404"}],
        "warp-routing": {"enabled": False}},
    "version": 7,
    "dns": [
        {"id": "r1", "name": "db.example.com", "type": "A", "content": "192.0.2.1", "ttl": 60,
         "proxied": False, "comment": "kept by hand", "tags": ["a:b"]},
        {"id": "r2", "name": "db.example.com", "type": "TXT", "content": "\"hello\"", "ttl": 1},
        {"id": "r3", "name": "two.example.com", "type": "A", "content": "192.0.2.2", "ttl": 1},
        {"id": "r4", "name": "two.example.com", "type": "A", "content": "192.0.2.3", "ttl": 1}],
    "pool": {
        "id": "p1", "name": "api", "enabled": True, "minimum_origins": 1, "monitor": "m1",
        "origins": [
            {"name": "main", "address": "192.0.2.10", "enabled": True, "weight": 0.7,
             "header": {"Host": ["api.example.com"]}},
            {"name": "other", "address": "192.0.2.11", "enabled": False, "weight": 0.3}]},
}
TUNNEL = "/client/v4/accounts/acc/cfd_tunnel/tun"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, document, headers=()):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status, code, message, headers=()):
        self.send(status, {"success": False, "errors": [{"code": code, "message": message}],
                           "messages": [], "result": None}, headers)

    def ok(self, result, listed=False):
        document = {"success": True, "errors": [], "messages": [], "result": result}
        if listed:
            document["result_info"] = {"page": 1, "per_page": 100, "count": len(result),
                                       "total_count": len(result), "total_pages": 1}
        self.send(200, document)

    def work(self):
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = json.loads(body) if body else {}
        if url.path == "/control":
            if "connect" in said:
                now = datetime.datetime.utcnow().isoformat() + "Z"
                state["connectors"][said["connect"]] = {
                    "run_at": said.get("run_at", now), "conns": [{"colo_name": "fra01"}]}
            control.update({k: v for k, v in said.items() if k in control})
            return self.send(200, {})
        if url.path == "/seen":
            return self.send(200, {"requests": seen, "state": state})
        seen.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") != "Bearer " + TOKEN:
            return self.fail(403, 9109, "Invalid access token")
        if control["answers"]:
            status, after = control["answers"].pop(0)
            if status == 200:
                return self.send(200, after.encode())
            return self.fail(status, 971, "Please wait",
                             [("Retry-After", after)] if after else [])
        if not self.changed(url.path, query, said):
            return self.fail(404, 7003, "Could not route to " + url.path)

    def answer_change(self, result):
        if control["hang_after"] == self.command:
            control["hang_after"] = None
            self.close_connection = True
            threading.Event().wait(20)
            return
        self.ok(result)

    def changed(self, path, query, said):
        if path == TUNNEL + "/connections":
            if self.command == "GET":
                self.ok([{"id": k, "version": "2026.1.0", "arch": "linux_amd64", **v}
                         for k, v in state["connectors"].items()], listed=True)
                return True
            if self.command == "DELETE":
                state["connectors"].pop(query["client_id"], None)
                self.ok(None)
                return True
        if path == TUNNEL + "/configurations":
            if self.command == "PUT":
                if not said["config"]["ingress"] or "hostname" in said["config"]["ingress"][-1]:
                    self.fail(400, 1056, "Bad Configuration: no catch-all rule")
                    return True
                state["config"] = said["config"]
                state["version"] += 1
            result = {"tunnel_id": "tun", "version": state["version"], "config": state["config"],
                      "source": "cloudflare"}
            self.answer_change(result) if self.command == "PUT" else self.ok(result)
            return True
        if path == "/client/v4/zones/zone/dns_records" and self.command == "GET":
            self.ok([] if int(query.get("page", 1)) > 1 else [
                     each for each in state["dns"]
                     if query.get("name.exact", each["name"]).lower() == each["name"]
                     and query.get("type", each["type"]) == each["type"]], listed=True)
            return True
        record = re.fullmatch("/client/v4/zones/zone/dns_records/(r.)", path)
        if record and self.command == "PATCH":
            found = next(each for each in state["dns"] if each["id"] == record[1])
            found.update(said)
            self.answer_change(found)
            return True
        if path == "/client/v4/accounts/acc/load_balancers/pools/p1":
            if self.command == "PATCH":
                state["pool"].update(said)
                self.answer_change(state["pool"])
            else:
                self.ok(state["pool"])
            return True
        return False

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = work


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
