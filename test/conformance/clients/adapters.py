"""Other clients behind boto3's methods, so that they are asked the same: CONFORMANCE_CLIENT=awscli, the AWS command line
(its own driver, in this process), or =go, the AWS SDK for Go (a child process, see driver_test.go). What a client does not tell, such as
the status of a success, equals everything here."""
import contextlib
import io
import json
import os
import re
import subprocess
import tempfile
import threading
from unittest import mock

import botocore.session
from botocore import xform_name
from botocore.exceptions import ClientError

MODEL = botocore.session.get_session().get_service_model("glacier")
OPERATIONS = {xform_name(name): MODEL.operation_model(name) for name in MODEL.operation_names}
PAGED = {"list_jobs": "JobList", "list_multipart_uploads": "UploadsList", "list_parts": "Parts", "list_vaults": "VaultList"}
LOCK = threading.Lock()


class Untold(dict):
    def __missing__(self, key):
        return mock.ANY


class Pages:
    def __init__(self, client, method):
        self.client, self.method = client, method

    def paginate(self, **kw):
        self.pages = self.client.pages(self.method, kw)
        return self

    def __iter__(self):
        return iter(self.pages)

    def search(self, key):
        return (x for page in self.pages for x in page[key])


class Waiter:
    def __init__(self, client, name):
        self.client, self.name = client, name

    def wait(self, **kw):
        self.client.wait(self.name, kw)


class Client:
    def __getattr__(self, method):
        if method not in OPERATIONS:
            raise AttributeError(method)
        return lambda **kw: self.answer(self.call(method, {"accountId": "-"} | kw))

    def answer(self, got):
        return got | {"ResponseMetadata": Untold(HTTPHeaders=Untold())}

    def get_paginator(self, method):
        return Pages(self, method)

    def get_waiter(self, name):
        return Waiter(self, name)

    def fail(self, method, code, message, status=mock.ANY):
        raise ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": Untold()}}, method)


class AWSCLI(Client):
    def __init__(self, server, key, secret, retries):
        from awscli.clidriver import create_clidriver
        self.server = server
        self.env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1", "AWS_PAGER": "",
                    "AWS_MAX_ATTEMPTS": str(retries), "AWS_RETRY_MODE": "standard"}
        with LOCK, mock.patch.dict(os.environ, self.env):
            self.driver = create_clidriver()
            self.driver.session.get_credentials()
        self.dir = tempfile.mkdtemp(dir=server.dir)

    def run(self, method, words):
        out, err = io.StringIO(), io.StringIO()
        out.buffer = io.BytesIO()  # some versions write bytes
        with LOCK, mock.patch.dict(os.environ, self.env), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = self.driver.main(["--endpoint-url", self.server.url, "--output", "json", "glacier", *words])
            except SystemExit as e:
                code = e.code
        if code:
            told = re.search(r"An error occurred \((\w+)\) when calling the \w+ operation(?: \(reached max retries: \d+\))?: (.*)", err.getvalue(), re.S)
            if not told:
                raise RuntimeError("aws %s: exit %s: %s" % (" ".join(words), code, err.getvalue()))
            self.fail(method, told.group(1), told.group(2))
        text = out.getvalue() or out.buffer.getvalue().decode()
        return json.loads(text) if text.strip() else {}

    def words(self, method, kw):
        words, shape = [xform_name(OPERATIONS[method].name, "-")], OPERATIONS[method].input_shape
        for name, value in kw.items():
            option, kind = "--" + xform_name(name, "-"), shape.members[name].type_name
            if kind == "blob":
                with tempfile.NamedTemporaryFile(dir=self.dir, delete=False) as f:
                    f.write(value if isinstance(value, bytes) else value.read())
                words += [option, f.name]
            else:
                words.append(option + "=" + (json.dumps(value) if kind in ("structure", "map", "list") else str(value)))
        return words

    def call(self, method, kw, paged=False):
        words, out = self.words(method, kw), None
        if method == "get_job_output":
            out = os.path.join(self.dir, "out%d" % threading.get_ident())
            words.append(out)
        if method in PAGED and not paged:
            words.append("--no-paginate")
        got = self.run(method, words)
        if out:
            with open(out, "rb") as f:
                got["body"] = io.BytesIO(f.read())
        return got

    def pages(self, method, kw):  # the command line puts them together
        got = self.call(method, {"accountId": "-"} | kw, paged=True)
        if method != "list_parts":
            return [got]
        parts = got["Parts"]
        return [{"Parts": parts[i:i + 50]} for i in range(0, len(parts), 50)]

    def wait(self, name, kw):
        self.run("wait", ["wait", name.replace("_", "-"), "--account-id", "-", "--vault-name", kw["vaultName"]])


class Go(Client):
    empty_body = "MissingParameterValueException"

    def __init__(self, server, key, secret, retries):
        env = os.environ | {"CONFORMANCE_IS_GO": "1", "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1",
                            "AWS_MAX_ATTEMPTS": str(retries)}
        self.child = subprocess.Popen([os.environ["FIRN"], server.url], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.server, self.lock = server, threading.Lock()
        self.dir = tempfile.mkdtemp(dir=server.dir)
        server.children.append(self.child)

    def ask(self, method, question):
        with self.lock:
            self.child.stdin.write(json.dumps(question) + "\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        got = json.loads(line)
        if "code" in got:
            self.fail(method, got["code"], got["message"], got["status"] or mock.ANY)
        if "error" in got:
            raise RuntimeError(got["error"])
        return got["output"]

    def call(self, method, kw):
        model = OPERATIONS[method]
        question = {"op": model.name, "input": {k: v for k, v in kw.items() if k != "body"}}
        if "limit" in kw:
            question["input"]["limit"] = int(kw["limit"])
        if "body" in kw:
            with tempfile.NamedTemporaryFile(dir=self.dir, delete=False) as f:
                f.write(kw["body"] if isinstance(kw["body"], bytes) else kw["body"].read())
            question["body"] = f.name
        if method == "get_job_output":
            question["out"] = os.path.join(self.dir, "out%d" % threading.get_ident())
        got = named(model.output_shape, self.ask(method, question))
        if method == "get_job_output":
            with open(question["out"], "rb") as f:
                got["body"] = io.BytesIO(f.read())
        return got

    def pages(self, method, kw):
        return [named(OPERATIONS[method].output_shape, page) for page in self.ask(method, {"op": OPERATIONS[method].name, "input": {"accountId": "-"} | kw, "pages": True})]

    def wait(self, name, kw):
        self.ask("wait", {"wait": name, "input": {"accountId": "-"} | kw})


def named(shape, value):
    """A value with the names of botocore's model, and without what is not there."""
    if shape is None or value is None:
        return value or {}
    if shape.type_name == "structure":
        lower = {k.lower(): v for k, v in value.items() if v not in (None, "")}
        return {n: named(m, lower[n.lower()]) for n, m in shape.members.items() if n.lower() in lower and m.type_name != "blob"}
    if shape.type_name == "list":
        return [named(shape.member, v) for v in value]
    return value


def make(server, key, secret, retries):
    return {"awscli": AWSCLI, "go": Go}[os.environ["CONFORMANCE_CLIENT"]](server, key, secret, retries)
