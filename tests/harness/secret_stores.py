#!/usr/bin/env python3
"""AWS Secrets Manager and Vault's KV 2, as far as tests need them, on one port that is printed.

Signatures are checked by botocore, which is not ours. Credentials: AKID / SECRET, token TOKEN.
`secret_stores.py --client URL NAME` reads a secret as botocore does instead: it holds the fake to
the wire format.
"""
import base64, json, sys, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if sys.argv[1:2] == ["--client"]:
    import botocore.session
    client = botocore.session.get_session().create_client(
        "secretsmanager", region_name="eu-west-1", endpoint_url=sys.argv[2],
        aws_access_key_id="AKID", aws_secret_access_key="SECRET")
    found = client.get_secret_value(SecretId=sys.argv[3])
    sys.stdout.write(found.get("SecretString") or found["SecretBinary"].hex())
    sys.exit()

aws, vault = {}, {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def signed(self, body):
        given = self.headers.get("Authorization", "")
        names = given.split("SignedHeaders=")[-1].split(",")[0].split(";")
        request = AWSRequest("POST", "http://" + self.headers["Host"] + self.path, data=body)
        for name in names:
            request.headers[name] = self.headers.get(name, "")
        request.context["timestamp"] = self.headers["X-Amz-Date"]
        signer = SigV4Auth(Credentials("AKID", "SECRET"), "secretsmanager", "eu-west-1")
        text = signer.string_to_sign(request, signer.canonical_request(request))
        return given.endswith("Signature=" + signer.signature(text, request))

    def do_aws(self, body):
        if not self.signed(body):
            return self.answer(400, {"__type": "InvalidSignatureException"})
        said, operation = json.loads(body), self.headers["X-Amz-Target"].split(".")[1]
        name = said.get("SecretId") or said.get("Name")
        value = {k: said[k] for k in ("SecretString", "SecretBinary") if k in said}
        versions = aws.get(name)
        if operation != "CreateSecret" and versions is None:
            return self.answer(400, {"__type": "ResourceNotFoundException"})
        if operation == "GetSecretValue":
            version, current = versions[-1]
            return self.answer(200, {"Name": name, "VersionId": version, **current})
        if operation == "CreateSecret" and versions is not None:
            return self.answer(400, {"__type": "ResourceExistsException"})
        token = said.get("ClientRequestToken", "")
        if not 32 <= len(token) <= 64 or len(value) != 1:
            return self.answer(400, {"__type": "InvalidParameterException"})
        same = [v for t, v in versions or [] if t == token]
        if same and same[0] != value:
            return self.answer(400, {"__type": "ResourceExistsException"})
        if not same:
            aws.setdefault(name, []).append((token, value))
        return self.answer(200, {"Name": name, "VersionId": token})

    def do_vault(self, body):
        if self.headers.get("X-Vault-Token") != "TOKEN":
            return self.answer(403, {"errors": ["permission denied"]})
        versions = vault.setdefault(self.path, [])
        if self.command == "GET":
            if not versions:
                return self.answer(404, {"errors": []})
            metadata = {"version": len(versions)}
            if versions[-1] is None:
                return self.answer(404, {"data": {"data": None, "metadata": metadata}})
            return self.answer(200, {"data": {"data": versions[-1], "metadata": metadata}})
        said = json.loads(body)
        if said.get("options", {}).get("cas") != len(versions):
            return self.answer(400, {"errors": ["check-and-set parameter did not match"]})
        versions.append(said["data"])
        return self.answer(200, {"data": {"version": len(versions)}})

    def do_GET(self):
        if self.path == "/seen":
            return self.answer(200, {"aws": aws, "vault": vault})
        self.do_vault(b"")

    def do_DELETE(self):
        vault[self.path].append(None)
        self.answer(200, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_vault(body) if self.path.startswith("/v1/") else self.do_aws(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
