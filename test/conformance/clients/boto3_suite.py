"""The checks with boto3. Numbers in brackets are those of the list of checks in docs/reference/serve-glacier.md."""
import concurrent.futures
import datetime
import hashlib
import io
import json
import os
import unittest

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.utils import calculate_tree_hash

import adapters
from harness import ACCOUNT, KEY, MIB, SECRET, Server, mod251, rows

DAY1, DAY2, DAY3, DAY4 = ("2026-03-0%dT01:00:00Z" % d for d in (2, 3, 4, 5))


def client(server, retries=1, secret=SECRET, key=KEY, **kw):
    if os.environ.get("CONFORMANCE_CLIENT"):
        return adapters.make(server, key, secret, retries)
    return boto3.client("glacier", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id=key,
                        aws_secret_access_key=secret, config=Config(retries={"total_max_attempts": retries, "mode": "standard"}), **kw)


def tree(data):
    return calculate_tree_hash(io.BytesIO(data))


class Case(unittest.TestCase):
    flags, options = (), {}

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.flags, **cls.options)
        cls.addClassCleanup(lambda: cls.server.close())
        cls.c = client(cls.server)

    def setUp(self):
        self.v = self._testMethodName
        self.c.create_vault(vaultName=self.v)

    def refused(self, status, code, call, *args, message=None, **kw):
        with self.assertRaises(ClientError) as caught:
            call(*args, **kw)
        e = caught.exception.response
        self.assertEqual((e["ResponseMetadata"]["HTTPStatusCode"], e["Error"]["Code"]), (status, code), e["Error"])
        if message is not None:
            self.assertIn(message, e["Error"]["Message"])
        return e

    def invalid(self, call, message=None, **kw):
        return self.refused(400, "InvalidParameterValueException", call, message=message, **kw)

    def up(self, data, description="", vault=None, c=None):
        return (c or self.c).upload_archive(vaultName=vault or self.v, archiveDescription=description, body=data)

    def job(self, **parameters):
        return self.c.initiate_job(vaultName=self.v, jobParameters={"Type": "archive-retrieval", **parameters})["jobId"]

    def retrieve(self, archive, **kw):
        return self.c.get_job_output(vaultName=self.v, jobId=self.job(ArchiveId=archive), **kw)

    def describe(self, job):
        return self.c.describe_job(vaultName=self.v, jobId=job)

    def output(self, job, **kw):
        return self.c.get_job_output(vaultName=self.v, jobId=job, **kw)

    def inventory(self, fmt="JSON", **parameters):
        p = {"Type": "inventory-retrieval", "Format": fmt}
        if parameters:
            p["InventoryRetrievalParameters"] = parameters
        job = self.c.initiate_job(vaultName=self.v, jobParameters=p)["jobId"]
        text = self.output(job)["body"].read().decode()
        return (json.loads(text) if fmt == "JSON" else text), self.describe(job)

    def begin(self, part=MIB, description=""):
        return self.c.initiate_multipart_upload(vaultName=self.v, partSize=str(part), archiveDescription=description)["uploadId"]

    def part(self, upload, first, data, **kw):
        return self.c.upload_multipart_part(vaultName=self.v, uploadId=upload, body=data,
                                            range="bytes %d-%d/*" % (first, first + len(data) - 1), **kw)

    def complete(self, upload, data, size=None, checksum=None):
        return self.c.complete_multipart_upload(vaultName=self.v, uploadId=upload, archiveSize=str(size or len(data)),
                                                checksum=checksum or tree(data))


class Transport(Case):
    def test_keys(self):  # [1] [2] [5]
        e = self.refused(403, "InvalidSignatureException", client(self.server, secret="wrong").list_vaults)
        self.assertNotIn("x-amzn-errortype", e["ResponseMetadata"]["HTTPHeaders"])
        self.assertTrue(e["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"])
        self.assertEqual(e["ResponseMetadata"]["HTTPHeaders"]["content-type"], "application/json")
        self.refused(400, "UnrecognizedClientException", client(self.server, key="AKIDNOBODY").list_vaults)
        self.refused(404, "ResourceNotFoundException", self.c.describe_vault, vaultName="nothere",
                     message="Vault not found for ARN: arn:aws:glacier:us-east-1:%s:vaults/nothere" % ACCOUNT)

    def test_account(self):  # [6]
        for account in ("-", ACCOUNT):
            r = self.c.create_vault(accountId=account, vaultName=self.v)
            self.assertEqual(r["location"], "/%s/vaults/%s" % (ACCOUNT, self.v))
        self.refused(403, "AccessDeniedException", self.c.describe_vault, accountId="999999999999", vaultName=self.v)


class Vaults(Case):
    def test_create(self):  # [9] [12] [16]
        first = self.c.describe_vault(vaultName=self.v)
        self.server.clock("2026-03-01T00:00:00.250Z")
        r = self.c.create_vault(vaultName=self.v)
        self.assertEqual(r["ResponseMetadata"]["HTTPStatusCode"], 201)
        self.assertEqual(self.c.describe_vault(vaultName=self.v)["CreationDate"], first["CreationDate"])
        self.assertRegex(first["CreationDate"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertIsNone(first.get("LastInventoryDate"))
        self.assertEqual(first["VaultARN"], "arn:aws:glacier:us-east-1:%s:vaults/%s" % (ACCOUNT, self.v))

    def test_names(self):  # [10]
        for name in ("a", "x" * 255, "A-Z_a.9"):
            self.assertEqual(self.c.create_vault(vaultName=name)["ResponseMetadata"]["HTTPStatusCode"], 201)
        for name in ("x" * 256, "a b", "é", "a/b"):
            self.invalid(self.c.create_vault, vaultName=name)
        for name in ("a", "x" * 255, "A-Z_a.9"):
            self.c.delete_vault(vaultName=name)

    def test_waiters(self):  # [14] [15]
        self.c.get_waiter("vault_exists").wait(vaultName=self.v)
        for _ in range(2):
            self.assertEqual(self.c.delete_vault(vaultName=self.v)["ResponseMetadata"]["HTTPStatusCode"], 204)
        self.c.get_waiter("vault_not_exists").wait(vaultName=self.v)


class ManyVaults(Case):
    flags = ("--max-vaults", "25")

    def test_list(self):  # [11] [13]
        names = sorted([self.v] + ["v%d" % i for i in range(20)] + ["B", "a.b", "a-b", "_"])
        for n in names:
            self.c.create_vault(vaultName=n)
        self.refused(400, "LimitExceededException", self.c.create_vault, vaultName="one-more")
        pages, marker = [], None
        while True:
            r = self.c.list_vaults(**({"marker": marker} if marker else {}))
            pages.append([v["VaultName"] for v in r["VaultList"]])
            marker = r.get("Marker")
            if not marker:
                break
        self.assertEqual([len(p) for p in pages], [10, 10, 5])
        self.assertEqual(sum(pages, []), names)
        self.assertEqual([v["VaultName"] for v in self.c.get_paginator("list_vaults").paginate().search("VaultList")], names)
        self.assertEqual(len(self.c.list_vaults(limit="3")["VaultList"]), 3)
        for limit in ("0", "11"):
            self.invalid(self.c.list_vaults, limit=limit)


class Archives(Case):
    def test_vectors(self):  # [17] [42]
        known = {r["size"]: r["treehash"] for r in rows("treehash-vectors.csv") if r["pattern"] == "mod251"}
        for size in (1, MIB - 1, MIB, MIB + 1, 5 * MIB // 2, 33 * MIB):
            data = mod251(size)
            r = self.up(data, "size %d" % size)
            self.assertEqual(r["ResponseMetadata"]["HTTPStatusCode"], 201)
            self.assertEqual(r["checksum"], known.get(str(size), tree(data)))
            o = self.retrieve(r["archiveId"])
            self.assertEqual((o["status"], o["checksum"], o["acceptRanges"], o["contentType"], o["archiveDescription"]),
                             (200, r["checksum"], "bytes", "application/octet-stream", "size %d" % size))
            self.assertEqual(hashlib.sha256(o["body"].read()).digest(), hashlib.sha256(data).digest())

    def test_refused(self):  # [18] [19] [20] [22]
        self.invalid(self.c.upload_archive, vaultName=self.v, body=b"abc", checksum="0" * 64, message="Checksum mismatch: expected 000")
        self.invalid(self.c.upload_archive, vaultName=self.v, body=b"abc", checksum="nonsense")
        # The SDK for Go sends an empty hash of an empty body.
        self.refused(400, getattr(self.c, "empty_body", "InvalidParameterValueException"), self.c.upload_archive, vaultName=self.v, body=b"")
        d = "".join(chr(0x21 + i % 94) for i in range(1024))
        self.assertEqual(self.retrieve(self.up(b"x", d)["archiveId"])["archiveDescription"], d)
        self.invalid(self.up, data=b"x", description=d + "x")
        self.refused(404, "ResourceNotFoundException", self.up, b"x", vault="nothere")

    def test_ids(self):  # [21] [24]
        ids = {self.up(b"same")["archiveId"] for _ in range(2)}
        self.assertEqual(len(ids), 2)
        for i in ids:
            self.assertRegex(i, r"^[A-Za-z0-9_-]{138}$")
            for _ in range(2):
                self.assertEqual(self.c.delete_archive(vaultName=self.v, archiveId=i)["ResponseMetadata"]["HTTPStatusCode"], 204)
        self.c.create_vault(vaultName="other")
        other = self.up(b"x", vault="other")["archiveId"]
        self.invalid(self.c.delete_archive, vaultName=self.v, archiveId=other, message="Invalid vault name: arn:")
        self.invalid(self.c.delete_archive, vaultName=self.v, archiveId="nonsense")

    def test_empty_then_delete(self):  # [15] [51] [52]
        self.server.clock("2026-03-01T02:00:00Z")
        self.refused(404, "ResourceNotFoundException", self.inventory)
        i = self.up(b"x")["archiveId"]
        self.invalid(self.c.delete_vault, vaultName=self.v, message="Vault not empty or recently written to: arn:")
        self.server.clock("2026-03-02T02:00:00Z")
        d = self.c.describe_vault(vaultName=self.v)
        self.assertEqual((d["NumberOfArchives"], d["SizeInBytes"]), (1, 1))
        self.up(b"yy")
        listed, described = self.inventory()
        self.assertEqual([a["ArchiveId"] for a in listed["ArchiveList"]], [i])
        self.assertEqual(listed["InventoryDate"], d["LastInventoryDate"])
        self.assertEqual(described["InventorySizeInBytes"], len(json.dumps(listed, separators=(",", ":"))))
        self.server.clock("2026-03-03T02:00:00Z")
        listed, _ = self.inventory()
        self.assertEqual(len(listed["ArchiveList"]), 2)
        self.server.clock("2026-03-05T02:00:00Z")
        again, _ = self.inventory()
        self.assertEqual(again["InventoryDate"], listed["InventoryDate"])
        for a in listed["ArchiveList"]:
            self.assertEqual(set(a), {"ArchiveId", "ArchiveDescription", "CreationDate", "Size", "SHA256TreeHash"})
            self.c.delete_archive(vaultName=self.v, archiveId=a["ArchiveId"])
        self.invalid(self.c.delete_vault, vaultName=self.v)
        self.server.clock("2026-03-06T02:00:00Z")
        self.assertEqual(self.c.delete_vault(vaultName=self.v)["ResponseMetadata"]["HTTPStatusCode"], 204)
        self.server.clock("2026-03-01T00:00:00Z")


class Multipart(Case):
    def test_part_sizes(self):  # [25]
        for size in (MIB, 4 << 30):
            self.begin(size)
        for size in (0, 3 * MIB // 2, 3 * MIB, 8 << 30):
            self.invalid(self.begin, part=size, message="Invalid part size: %d. Part size must not be null, must be a power of two and be between 1048576 and 4294967296 bytes." % size)

    def test_parts(self):  # [26] [27] [28] [29] [30] [31]
        data = mod251(7 * MIB // 2)
        u = self.begin(description="in parts")
        order = [3, 1, 0, 2]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: self.part(u, i * MIB, b"other" + data[i * MIB + 5:(i + 1) * MIB]), order))
            for i, r in zip(order, pool.map(lambda i: self.part(u, i * MIB, data[i * MIB:(i + 1) * MIB]), order)):
                self.assertEqual((r["ResponseMetadata"]["HTTPStatusCode"], r["checksum"]), (204, tree(data[i * MIB:(i + 1) * MIB])))
        put = self.c.upload_multipart_part
        for text in ("bytes 5-9/*", "bytes 0-8/*", "bytes 0-4", "0-4/*", "bytes 4-0/*", "nonsense"):
            self.invalid(put, vaultName=self.v, uploadId=u, range=text, body=b"12345")
        self.invalid(put, vaultName=self.v, uploadId=u, range="bytes 0-8/*", body=b"12345",
                     message="Content-Range: bytes 0-8/* is incompatible with Content-Length: 5")
        self.invalid(self.part, upload=u, first=0, data=mod251(MIB + 1), message="Invalid Content-Range: bytes 0-1048576/*")
        self.part(u, MIB, b"short")
        self.invalid(self.complete, upload=u, data=data)
        self.part(u, MIB, data[MIB:2 * MIB])
        self.invalid(self.complete, upload=u, data=data, size=len(data) - 1)
        self.invalid(self.complete, upload=u, data=data, size=len(data) + MIB)
        self.invalid(self.complete, upload=u, data=data, checksum="0" * 64, message="Invalid x-amz-sha256-tree-hash: 000")
        self.assertEqual([x["MultipartUploadId"] for x in self.c.list_multipart_uploads(vaultName=self.v)["UploadsList"]], [u])
        r = self.complete(u, data)
        self.assertEqual((r["ResponseMetadata"]["HTTPStatusCode"], r["checksum"]), (201, tree(data)))
        self.assertEqual(r["location"], "/%s/vaults/%s/archives/%s" % (ACCOUNT, self.v, r["archiveId"]))
        self.assertEqual(self.complete(u, data)["archiveId"], r["archiveId"])
        self.refused(404, "ResourceNotFoundException", self.c.list_parts, vaultName=self.v, uploadId=u)
        self.assertEqual(self.c.list_multipart_uploads(vaultName=self.v)["UploadsList"], [])
        self.refused(404, "ResourceNotFoundException", self.c.abort_multipart_upload, vaultName=self.v, uploadId=u)
        o = self.retrieve(r["archiveId"])
        self.assertEqual((o["body"].read(), o["archiveDescription"]), (data, "in parts"))
        u = self.begin()
        for _ in range(2):
            self.assertEqual(self.c.abort_multipart_upload(vaultName=self.v, uploadId=u)["ResponseMetadata"]["HTTPStatusCode"], 204)
        self.refused(404, "ResourceNotFoundException", self.part, u, 0, b"x")

    def test_missing_part(self):  # [29]
        u = self.begin()
        self.part(u, 0, mod251(MIB))
        self.part(u, 2 * MIB, b"end")
        self.invalid(self.complete, upload=u, data=mod251(2 * MIB) + b"end")

    def test_lists(self):  # [32] [33] [34]
        u = self.begin(description="many")
        for i in reversed(range(120)):
            self.part(u, i * MIB, b"%d" % i)
        first = self.c.list_parts(vaultName=self.v, uploadId=u)
        self.assertEqual((len(first["Parts"]), first["PartSizeInBytes"], first["ArchiveDescription"]), (50, MIB, "many"))
        pages = list(self.c.get_paginator("list_parts").paginate(vaultName=self.v, uploadId=u))
        self.assertEqual([len(p["Parts"]) for p in pages], [50, 50, 20])
        self.assertEqual([p["RangeInBytes"].split("-")[0] for page in pages for p in page["Parts"]], [str(i * MIB) for i in range(120)])
        for limit in ("0", "51"):
            self.invalid(self.c.list_parts, vaultName=self.v, uploadId=u, limit=limit)
            self.invalid(self.c.list_multipart_uploads, vaultName=self.v, limit=limit)
        self.invalid(self.part, upload=u, first=10000 * MIB, data=b"x")
        mine = {u} | {self.begin() for _ in range(54)}
        got = [x["MultipartUploadId"] for x in self.c.get_paginator("list_multipart_uploads").paginate(vaultName=self.v).search("UploadsList")]
        self.assertEqual((len(got), set(got)), (55, mine))
        self.server.clock("2026-03-01T23:59:59Z")
        self.part(u, 0, b"still there")
        self.server.clock("2026-03-02T12:00:00Z")
        self.assertEqual([x["MultipartUploadId"] for x in self.c.list_multipart_uploads(vaultName=self.v)["UploadsList"]], [u])
        self.server.clock("2026-03-03T00:00:00Z")
        self.refused(404, "ResourceNotFoundException", self.part, u, 0, b"x")
        self.assertEqual(self.c.list_multipart_uploads(vaultName=self.v)["UploadsList"], [])
        self.server.clock("2026-03-01T00:00:00Z")

    def test_workers(self):  # [26]
        def one(n):
            data = mod251(2 * MIB + n)
            u = self.begin()
            for i in (2, 0, 1):
                self.part(u, i * MIB, data[i * MIB:(i + 1) * MIB])
            return self.complete(u, data)["checksum"] == tree(data) == self.up(data)["checksum"]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            self.assertTrue(all(pool.map(one, range(1, 25))))


if __name__ == "__main__":
    from boto3_jobs import *  # noqa: F401,F403 the other half of the suite
    unittest.main(verbosity=2, warnings="ignore")
