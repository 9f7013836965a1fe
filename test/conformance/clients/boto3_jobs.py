"""The second half of the boto3 checks: jobs, inventories, configuration, faults and kills."""
import io
import json
import socket
import threading

from botocore.exceptions import ClientError

from boto3_suite import Case, client, tree
from harness import ACCOUNT, MIB, Server, mod251, rows


class Jobs(Case):
    flags = ("--delay", "expedited=3m", "--delay", "standard=4h", "--delay", "bulk=8h", "--delay", "inventory=4h")

    def setUp(self):
        self.server.clock("2026-03-01T00:00:00Z")
        super().setUp()

    def test_refused(self):  # [36] [37] [38]
        a = self.up(mod251(5 * MIB // 2))["archiveId"]
        start = self.c.initiate_job
        r = start(vaultName=self.v, jobParameters={"Type": "archive-retrieval", "ArchiveId": a})
        self.assertEqual(r["ResponseMetadata"]["HTTPStatusCode"], 202)
        self.assertEqual(r["location"], "/%s/vaults/%s/jobs/%s" % (ACCOUNT, self.v, r["jobId"]))
        self.assertRegex(r["jobId"], r"^[A-Za-z0-9_-]{92}$")
        gone = self.up(b"x")["archiveId"]
        self.c.delete_archive(vaultName=self.v, archiveId=gone)
        for unknown in (gone, "nonsense"):
            self.refused(404, "ResourceNotFoundException", self.job, ArchiveId=unknown)
        self.invalid(self.job, ArchiveId=a, Tier="Overnight")
        self.refused(400, "MissingParameterValueException", self.job)
        for p in ({"Type": "copy", "ArchiveId": a}, {"Type": "select", "ArchiveId": a},
                  {"Type": "inventory-retrieval", "ArchiveId": a}, {"Type": "archive-retrieval", "ArchiveId": a, "Format": "CSV"}):
            self.invalid(start, vaultName=self.v, jobParameters=p)
        for r in ("0-1048575", "0-2621439", "1048576-2621439", "2097152-2621439"):
            self.job(ArchiveId=a, RetrievalByteRange=r)
        for r in ("1-1048575", "0-1048574", "0-1048576", "1048576-0", "0-2621440", "3145728-4194303", "x", "0-"):
            self.invalid(self.job, ArchiveId=a, RetrievalByteRange=r)

    def test_life(self):  # [39] [41] [45] [46] [47] [50]
        data = mod251(2 * MIB)
        a = self.up(data, "life")["archiveId"]
        jobs = {t: self.job(ArchiveId=a, Tier=t, Description="d", SNSTopic="arn:t") for t in ("Expedited", "Standard", "Bulk")}
        d = self.describe(jobs["Standard"])
        self.assertEqual((d["StatusCode"], d["Completed"], d.get("CompletionDate"), d.get("StatusMessage")), ("InProgress", False, None, None))
        self.assertEqual((d["Action"], d["ArchiveId"], d["RetrievalByteRange"], d["Tier"], d["JobDescription"], d["SNSTopic"]),
                         ("ArchiveRetrieval", a, "0-2097151", "Standard", "d", "arn:t"))
        self.invalid(self.output, job=jobs["Standard"], message="The job is not currently available for download: " + jobs["Standard"])
        self.refused(404, "ResourceNotFoundException", self.output, "nothere", message="The job ID was not found: nothere")
        for clock, done in (("02:59.999", 0), ("03:00", 1)):
            self.server.clock("2026-03-01T00:%sZ" % (clock if "." in clock else clock + ".000"))
            self.assertEqual([self.describe(j)["Completed"] for j in jobs.values()], [bool(done), False, False])
        self.server.restart()
        type(self).c = client(self.server)
        self.server.clock("2026-03-01T04:00:00Z")
        self.assertEqual([self.describe(j)["StatusCode"] for j in jobs.values()], ["Succeeded", "Succeeded", "InProgress"])
        d = self.describe(jobs["Standard"])
        self.assertEqual((d["CompletionDate"], d["StatusMessage"]), ("2026-03-01T04:00:00.000Z", "Succeeded"))
        self.c.delete_archive(vaultName=self.v, archiveId=a)
        for again in range(2):
            self.assertEqual(self.output(jobs["Standard"])["body"].read(), data)
            d = self.describe(jobs["Bulk"])
            self.assertEqual((d["StatusCode"], d["Completed"]), ("Failed", True))
            self.server.restart()
            type(self).c = client(self.server)
        self.server.clock("2026-03-02T03:59:59Z")
        self.assertEqual(self.output(jobs["Standard"], range="bytes=1048576-2097151")["body"].read(), data[MIB:])
        self.server.clock("2026-03-02T04:00:00Z")
        self.refused(404, "ResourceNotFoundException", self.describe, jobs["Standard"], message="The job ID was not found: ")
        self.refused(404, "ResourceNotFoundException", self.output, jobs["Standard"])

    def test_list(self):  # [49]
        a = self.up(b"x")["archiveId"]
        ids = [self.job(ArchiveId=a, Tier="Expedited" if i % 2 else "Bulk") for i in range(60)]
        ls = lambda **kw: [j["JobId"] for j in self.c.get_paginator("list_jobs").paginate(vaultName=self.v, **kw).search("JobList")]
        self.assertEqual(ls(), ids)
        self.assertEqual(len(self.c.list_jobs(vaultName=self.v)["JobList"]), 50)
        self.assertEqual([j["JobId"] for j in self.c.list_jobs(vaultName=self.v, limit="7")["JobList"]], ids[:7])
        self.server.clock("2026-03-01T00:05:00Z")
        self.assertEqual(ls(completed="true"), ids[1::2])
        self.assertEqual(ls(completed="false"), ids[::2])
        self.assertEqual(ls(statuscode="Succeeded"), ids[1::2])
        self.assertEqual(ls(statuscode="InProgress", completed="false"), ids[::2])
        self.assertEqual(ls(statuscode="InProgress", completed="true"), [])
        self.invalid(self.c.list_jobs, vaultName=self.v, statuscode="finished", message="The job status code is not valid: finished")
        self.invalid(self.c.list_jobs, vaultName=self.v, completed="maybe")
        for limit in ("0", "51"):
            self.invalid(self.c.list_jobs, vaultName=self.v, limit=limit)


class Ranges(Case):
    def test_matrix(self):  # [40] [43] [44]
        archives, all_rows = {}, rows("treehash-range-vectors.csv")
        self.assertEqual(len(all_rows), 140)
        for row in all_rows:
            size, first, last = int(row["archive_size"]), int(row["start"]), int(row["end"])
            if size not in archives:
                a = self.up(mod251(size))
                archives[size] = mod251(size), a, self.job(ArchiveId=a["archiveId"])
            data, a, whole = archives[size]
            want = row["range_treehash"] if row["tree_hash_aligned"] == "1" else None
            o = self.output(whole, range="bytes=%d-%d" % (first, last))
            is_whole = last - first + 1 == size
            self.assertEqual((o["status"], o["contentRange"], o.get("checksum")), (206, "bytes %d-%d/%d" % (first, last, size), want), row)
            self.assertEqual(o["body"].read(), data[first:last + 1])
            part = self.job(ArchiveId=a["archiveId"], RetrievalByteRange=row["start"] + "-" + row["end"])
            d = self.describe(part)
            self.assertEqual((d.get("SHA256TreeHash"), d["ArchiveSHA256TreeHash"]), (want, a["checksum"]), row)
            o = self.output(part)
            self.assertEqual((o["status"], o.get("checksum"), o["body"].read()), (200, want, data[first:last + 1]))
            o = self.output(part, range="bytes=0-%d" % (min(MIB, last - first + 1) - 1))
            self.assertEqual(o.get("checksum"), want and tree(data[first:min(first + MIB, last + 1)]))
            o = self.output(part, range="bytes=5-9")
            self.assertEqual((o["body"].read(), o.get("checksum"), o["contentRange"]),
                             (data[first + 5:first + 10], None, "bytes 5-9/%d" % (last - first + 1)))
        for text in ("bytes=5-4", "bytes=0-13631488", "bytes=13631488-13631489", "items=0-1", "0-1"):
            self.invalid(self.output, job=archives[13631488][2], range=text)


class Inventory(Case):
    def test_formats(self):  # [52] [53] [54] [55]
        texts = ["plain", "a,b", 'say "hi"', "back\\slash", 'both \\"', "", "x" * 1024]
        ids = []
        for i, t in enumerate(texts):
            self.server.clock("2026-03-01T10:%02d:00Z" % i)
            ids.append(self.up(b"x" * (i + 1), t)["archiveId"])
        self.server.clock("2026-03-02T10:00:00Z")
        got, described = self.inventory()
        self.assertEqual(set(got), {"VaultARN", "InventoryDate", "ArchiveList"})
        self.assertEqual([(a["ArchiveId"], a["ArchiveDescription"], a["Size"], a["CreationDate"]) for a in got["ArchiveList"]],
                         [(ids[i], t, i + 1, "2026-03-01T10:%02d:00.000Z" % i) for i, t in enumerate(texts)])
        self.assertEqual(described["InventoryRetrievalParameters"]["Format"], "JSON")
        self.assertIsNone(described.get("SHA256TreeHash"))
        job = self.c.initiate_job(vaultName=self.v, jobParameters={"Type": "inventory-retrieval", "Format": "CSV"})["jobId"]
        o = self.output(job)
        self.assertEqual((o["contentType"], o.get("checksum")), ("text/csv", None))
        lines = o["body"].read().decode().split("\r\n")
        self.assertEqual(lines[0], "ArchiveId,ArchiveDescription,CreationDate,Size,SHA256TreeHash")
        self.assertEqual([l.split(",", 1)[1].rsplit(",", 3)[0] for l in lines[1:-1]],
                         ["plain", '"a,b"', r'"say \"hi\""', "back\\slash", r'"both \\""', "", "x" * 1024])
        o = self.output(job, range="bytes=0-8")
        self.assertEqual((o["status"], o["body"].read()), (206, b"ArchiveId"))
        listed = lambda **kw: [a["ArchiveId"] for a in self.inventory(**kw)[0]["ArchiveList"]]
        self.assertEqual(listed(StartDate="2026-03-01T10:01:00Z", EndDate="2026-03-01T10:04:00Z"), ids[1:4])
        self.assertEqual(listed(StartDate="2026-03-01T10:05:00Z"), ids[5:])
        for bad in ({"StartDate": "yesterday"}, {"Limit": "0"}, {"Limit": "x"}, {"Marker": "nonsense"}):
            self.invalid(self.inventory, **bad)
        seen, marker = [], None
        while True:
            page, described = self.inventory(Limit="3", **({"Marker": marker} if marker else {}))
            seen += [a["ArchiveId"] for a in page["ArchiveList"]]
            marker = described["InventoryRetrievalParameters"].get("Marker")
            self.assertEqual(described["InventoryRetrievalParameters"]["Limit"], "3")
            if not marker:
                break
        self.assertEqual(seen, ids)


class Configuration(Case):
    def setUp(self):
        self.server.clock("2026-03-01T00:00:00Z")
        super().setUp()

    def test_notifications(self):  # [56]
        c, v = self.c, {"vaultName": self.v}
        self.refused(404, "ResourceNotFoundException", c.get_vault_notifications, **v)
        config = {"SNSTopic": "arn:aws:sns:us-east-1:1:t", "Events": ["ArchiveRetrievalCompleted", "InventoryRetrievalCompleted"]}
        self.assertEqual(c.set_vault_notifications(vaultNotificationConfig=config, **v)["ResponseMetadata"]["HTTPStatusCode"], 204)
        self.assertEqual(c.get_vault_notifications(**v)["vaultNotificationConfig"], config)
        self.invalid(c.set_vault_notifications, vaultNotificationConfig={"SNSTopic": "arn:x", "Events": ["Other"]}, **v)
        c.delete_vault_notifications(**v)
        self.refused(404, "ResourceNotFoundException", c.get_vault_notifications, **v)

    def policy(self, action, condition=None, principal="*"):
        s = {"Sid": "s", "Effect": "Deny", "Principal": principal, "Action": action, "Resource": "arn:aws:glacier:*:*:vaults/" + self.v}
        if condition:
            s["Condition"] = condition
        return json.dumps({"Version": "2012-10-17", "Statement": [s]}, indent=3)

    def test_access_policy(self):  # [57]
        c, v = self.c, {"vaultName": self.v}
        a = self.up(b"x")["archiveId"]
        self.refused(404, "ResourceNotFoundException", c.get_vault_access_policy, **v)
        text = self.policy("glacier:DeleteArchive")
        c.set_vault_access_policy(policy={"Policy": text}, **v)
        self.assertEqual(c.get_vault_access_policy(**v)["policy"]["Policy"], text)
        self.refused(403, "AccessDeniedException", c.delete_archive, archiveId=a, **v)
        self.invalid(c.set_vault_access_policy, policy={"Policy": text + " " * (20 * 1024 + 1 - len(text))}, **v)
        for bad in ("{", "{}", json.dumps({"Statement": [{"Effect": "Deny"}]}), text.replace("DeleteArchive", "Explode")):
            self.invalid(c.set_vault_access_policy, policy={"Policy": bad}, **v)
        for _ in range(2):
            self.assertEqual(c.delete_vault_access_policy(**v)["ResponseMetadata"]["HTTPStatusCode"], 204)
        for other in ({"AWS": "arn:aws:iam::%s:user/somebody" % ACCOUNT}, {"AWS": "arn:aws:iam::%s:user/suite" % ACCOUNT}):
            c.set_vault_access_policy(policy={"Policy": self.policy("glacier:Delete*", principal=other)}, **v)
            if "suite" in other["AWS"]:
                self.refused(403, "AccessDeniedException", c.delete_archive, archiveId=a, **v)
            else:
                c.delete_archive(archiveId=a, **v)
        c.delete_vault_access_policy(**v)

    def test_lock(self):  # [58] [59]
        c, v = self.c, {"vaultName": self.v}
        a = self.up(b"x")["archiveId"]
        text = self.policy("glacier:DeleteArchive", {"NumericLessThan": {"glacier:ArchiveAgeInDays": "365"}})
        self.refused(404, "ResourceNotFoundException", c.get_vault_lock, **v)
        r = c.initiate_vault_lock(policy={"Policy": text}, **v)
        self.assertEqual(r["ResponseMetadata"]["HTTPStatusCode"], 201)
        self.refused(403, "AccessDeniedException", c.initiate_vault_lock, policy={"Policy": text}, **v)
        got = c.get_vault_lock(**v)
        self.assertEqual((got["State"], got["ExpirationDate"], got["Policy"]), ("InProgress", "2026-03-02T00:00:00.000Z", text))
        self.refused(403, "AccessDeniedException", c.delete_archive, archiveId=a, **v)
        self.invalid(c.complete_vault_lock, lockId="wrong", **v)
        self.server.clock("2026-03-02T00:00:00Z")
        self.refused(404, "ResourceNotFoundException", c.get_vault_lock, **v)
        lock = c.initiate_vault_lock(policy={"Policy": text}, **v)["lockId"]
        c.abort_vault_lock(**v)
        lock = c.initiate_vault_lock(policy={"Policy": text}, **v)["lockId"]
        self.assertEqual(c.complete_vault_lock(lockId=lock, **v)["ResponseMetadata"]["HTTPStatusCode"], 204)
        self.server.clock("2026-03-09T00:00:00Z")
        got = c.get_vault_lock(**v)
        self.assertEqual((got["State"], got.get("ExpirationDate")), ("Locked", None))
        for call in (lambda: c.abort_vault_lock(**v), lambda: c.complete_vault_lock(lockId="wrong", **v),
                     lambda: c.initiate_vault_lock(policy={"Policy": text}, **v), lambda: c.delete_archive(archiveId=a, **v)):
            self.refused(403, "AccessDeniedException", call)
        self.server.clock("2027-02-28T23:59:59Z")
        self.refused(403, "AccessDeniedException", c.delete_archive, archiveId=a, **v)
        self.server.clock("2027-03-01T00:00:00Z")
        c.delete_archive(archiveId=a, **v)

    def test_tags(self):  # [60]
        c, v = self.c, {"vaultName": self.v}
        self.assertEqual(c.list_tags_for_vault(**v)["Tags"], {})
        tags = {"k%d" % i: "" for i in range(49)} | {"k" * 128: "v" * 255}
        c.add_tags_to_vault(Tags=tags, **v)
        self.refused(400, "LimitExceededException", c.add_tags_to_vault, Tags={"one more": "x"}, **v)
        c.add_tags_to_vault(Tags={"k0": "new"}, **v)
        for bad in ({"aws:x": "1"}, {"k" * 129: "1"}, {"k": "v" * 256}):
            self.invalid(c.add_tags_to_vault, Tags=bad, **v)
        for _ in range(2):
            c.remove_tags_from_vault(TagKeys=["k1", "nothere"], **v)
        self.assertEqual(c.list_tags_for_vault(**v)["Tags"], {k: "new" if k == "k0" else x for k, x in tags.items() if k != "k1"})

    def test_retrieval_policy(self):  # [61]
        c = self.c
        rules = lambda: c.get_data_retrieval_policy()["Policy"]["Rules"]
        put = lambda **rule: c.set_data_retrieval_policy(Policy={"Rules": [rule]})
        self.assertEqual(rules(), [{"Strategy": "None"}])
        a = self.up(mod251(3000))["archiveId"]
        put(Strategy="BytesPerHour", BytesPerHour=7000)
        self.assertEqual(rules(), [{"Strategy": "BytesPerHour", "BytesPerHour": 7000}])
        for _ in range(2):
            self.job(ArchiveId=a)
        self.refused(400, "PolicyEnforcedException", self.job, ArchiveId=a)
        for t in ("Bulk", "Expedited"):
            self.job(ArchiveId=a, Tier=t)
        self.server.clock("2026-03-01T01:00:00Z")
        self.job(ArchiveId=a)
        self.invalid(put, Strategy="FreeTier", BytesPerHour=1)
        self.invalid(put, Strategy="Sometimes")
        for s in ("FreeTier", "None"):
            put(Strategy=s)
            self.assertEqual(rules(), [{"Strategy": s}])
            self.job(ArchiveId=a)


class Capacity(Case):
    flags = ("--provisioned-only",)

    def test_capacity(self):  # [48] [62]
        a = self.up(b"x")["archiveId"]
        self.refused(503, "InsufficientCapacityException", self.job, ArchiveId=a, Tier="Expedited")
        self.job(ArchiveId=a)
        ids = [self.c.purchase_provisioned_capacity()["capacityId"] for _ in range(2)]
        self.refused(400, "LimitExceededException", self.c.purchase_provisioned_capacity)
        self.assertEqual([(x["CapacityId"], x["StartDate"], x["ExpirationDate"]) for x in self.c.list_provisioned_capacity()["ProvisionedCapacityList"]],
                         [(i, "2026-03-01T00:00:00.000Z", "2026-04-01T00:00:00.000Z") for i in ids])
        self.job(ArchiveId=a, Tier="Expedited")
        self.server.clock("2026-04-01T00:00:00Z")
        self.assertEqual(self.c.list_provisioned_capacity()["ProvisionedCapacityList"], [])


class Faults(Case):
    flags = ("--inject", "InitiateJob:400:1:2", "--inject", "UploadArchive:500:1:2", "--inject", "ListTagsForVault:PolicyEnforcedException:1:1",
             "--inject", "UploadMultipartPart:drop:1:2", "--inject", "CompleteMultipartUpload:lose:1:1", "--inject", "ListJobs:408:1:1",
             "--inject", "ListVaults:NoLongerSupportedException:1:1")

    def test_retries(self):  # [63] [64]
        once, c = self.c, client(self.server, retries=4)
        a = c.upload_archive(vaultName=self.v, body=b"x")
        self.assertEqual(a["ResponseMetadata"]["RetryAttempts"], 2)
        j = c.initiate_job(vaultName=self.v, jobParameters={"Type": "archive-retrieval", "ArchiveId": a["archiveId"]})
        self.assertEqual(j["ResponseMetadata"]["RetryAttempts"], 2)
        self.refused(400, "PolicyEnforcedException", c.list_tags_for_vault, vaultName=self.v)
        self.refused(400, "NoLongerSupportedException", c.list_vaults, message="This API is no longer supported for new accounts.")
        self.refused(408, "RequestTimeoutException", once.list_jobs, vaultName=self.v)
        u = self.begin()
        data = mod251(2 * MIB)
        for i in range(2):
            c.upload_multipart_part(vaultName=self.v, uploadId=u, range="bytes %d-%d/*" % (i * MIB, (i + 1) * MIB - 1), body=data[i * MIB:(i + 1) * MIB])
        r = c.complete_multipart_upload(vaultName=self.v, uploadId=u, archiveSize=str(len(data)), checksum=tree(data))
        self.assertEqual(r["ResponseMetadata"]["RetryAttempts"], 1)  # done the first time, and answered the second
        self.assertEqual(self.retrieve(r["archiveId"])["body"].read(), data)


class Kills(Case):
    options = {"keys": False}

    def test_kill(self):  # [23] [70]
        kept, lock, stop = {}, threading.Lock(), threading.Event()
        url = self.server.url

        def work(n):
            c = client(self.server)
            for i in range(10000):
                data = mod251(100000 * n + i + 1) + b"%d" % i
                try:
                    if n % 2:
                        r = c.upload_archive(vaultName=self.v, body=data)
                    else:
                        u = c.initiate_multipart_upload(vaultName=self.v, partSize=str(MIB))["uploadId"]
                        for at in range(0, len(data), MIB):
                            piece = data[at:at + MIB]
                            c.upload_multipart_part(vaultName=self.v, uploadId=u, range="bytes %d-%d/*" % (at, at + len(piece) - 1), body=piece)
                        r = c.complete_multipart_upload(vaultName=self.v, uploadId=u, archiveSize=str(len(data)), checksum=tree(data))
                except Exception:  # the server is dead
                    return
                with lock:
                    kept[r["archiveId"]] = r["checksum"]
                    enough.release()
        for round in range(3):
            enough = threading.Semaphore(0)
            threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 3, 14)]
            for t in threads:
                t.start()
            for _ in range(7 + 5 * round):
                enough.acquire()
            # And one that stands still in the middle of its body.
            half = socket.create_connection(self.server.url.split("/")[2].split(":"))
            half.sendall(b"POST /-/vaults/%s/archives HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\nx-amz-glacier-version: 2012-06-01\r\n"
                         b"x-amz-content-sha256: %s\r\nx-amz-sha256-tree-hash: %s\r\nContent-Length: 1000000\r\n\r\nhalf" % (
                             self.v.encode(), b"0" * 64, b"0" * 64))
            self.server.kill()
            half.close()
            for t in threads:
                t.join()
            self.server.start()
            type(self).c = client(self.server)
        self.server.clock("2026-03-03T00:00:00Z")
        listed, _ = self.inventory()
        have = {a["ArchiveId"]: a["SHA256TreeHash"] for a in listed["ArchiveList"]}
        self.assertLessEqual(kept.items(), have.items())
        self.assertLessEqual(len(have) - len(kept), 3 * 4)  # stored, and the answer lost
        for a, checksum in have.items():
            data = self.retrieve(a)["body"].read()
            self.assertEqual(tree(data), checksum)
        self.assertEqual(self.c.list_multipart_uploads(vaultName=self.v)["UploadsList"], [])
