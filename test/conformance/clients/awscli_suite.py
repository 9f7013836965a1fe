"""The AWS command line: each of its 33 glacier commands, and the way of an archive [66], [21].

The two commands that move data run as the program; the others in this process, through the same driver
as the program, for starting it takes longer than all that is asked of it here.
"""
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import unittest

from harness import ACCOUNT, KEY, MIB, SECRET, Server, mod251, rows

os.environ.update(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="us-east-1", AWS_PAGER="", AWS_MAX_ATTEMPTS="1")
from awscli.clidriver import create_clidriver  # noqa: E402 it reads the environment

WHOLE = "9b2474f7359f1464535323bfcd3254903843f74cd482d4b35b8e039bcc88c5bf"  # of 2.5 MiB


class CLI(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(lambda: cls.server.close())
        cls.driver = create_clidriver()
        cls.used = set()

    def words(self, command, args):
        self.used.add(command)
        return ["--endpoint-url", self.server.url, "--output", "json", "glacier", command, "--account-id", "-", *args]

    def aws(self, command, *args, code=0):
        out, err = io.StringIO(), io.StringIO()
        out.buffer = io.BytesIO()  # some versions write bytes
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                got = self.driver.main(self.words(command, args))
            except SystemExit as e:
                got = e.code
        if code == 0:
            self.assertEqual(got, 0, err.getvalue())
            text = out.getvalue() or out.buffer.getvalue().decode()
            return json.loads(text) if text.strip() else {}
        self.assertNotEqual(got, 0)
        return err.getvalue()

    def program(self, command, *args):
        aws = shutil.which("aws")
        if aws is None:
            aws = os.path.join(os.path.dirname(sys.executable), "aws")
        p = subprocess.run([aws, *self.words(command, args)], capture_output=True, text=True)
        self.assertEqual(p.returncode, 0, p.stderr)
        return json.loads(p.stdout)

    def test_all(self):
        aws, v = self.aws, ("--vault-name", "cli")
        path = lambda name: os.path.join(self.server.dir, name)
        self.assertEqual(aws("create-vault", *v)["location"], "/%s/vaults/cli" % ACCOUNT)
        self.assertEqual(aws("describe-vault", *v)["VaultName"], "cli")
        self.assertEqual([x["VaultName"] for x in aws("list-vaults")["VaultList"]], ["cli"])
        self.assertIn("(ResourceNotFoundException)", aws("describe-vault", "--vault-name", "nothere", code=1))
        data = mod251(5 * MIB // 2)
        with open(path("data"), "wb") as f:
            f.write(data)
        up = self.program("upload-archive", *v, "--body", path("data"), "--archive-description", "from the shell")
        self.assertEqual(up["checksum"], WHOLE)
        archive = "--archive-id=" + up["archiveId"]

        m = aws("initiate-multipart-upload", *v, "--part-size", "1048576", "--archive-description", "parts")["uploadId"]
        other = aws("initiate-multipart-upload", *v, "--part-size", "1048576")["uploadId"]
        for i in (2, 0, 1):
            piece = data[i * MIB:(i + 1) * MIB]
            with open(path("part"), "wb") as f:
                f.write(piece)
            aws("upload-multipart-part", *v, "--upload-id=" + m, "--body", path("part"), "--range", "bytes %d-%d/*" % (i * MIB, i * MIB + len(piece) - 1))
        self.assertEqual(len(aws("list-parts", *v, "--upload-id=" + m)["Parts"]), 3)
        self.assertEqual(len(aws("list-multipart-uploads", *v)["UploadsList"]), 2)
        aws("abort-multipart-upload", *v, "--upload-id=" + other)
        done = aws("complete-multipart-upload", *v, "--upload-id=" + m, "--archive-size", str(len(data)), "--checksum", WHOLE)
        self.assertEqual(done["checksum"], WHOLE)
        for bad in ("1", "3145728"):
            self.assertIn("Invalid part size: " + bad, aws("initiate-multipart-upload", *v, "--part-size", bad, code=1))

        parameters = json.dumps({"Type": "archive-retrieval", "ArchiveId": up["archiveId"], "Tier": "Bulk"})
        job = aws("initiate-job", *v, "--job-parameters", parameters)["jobId"]
        self.assertEqual(aws("describe-job", *v, "--job-id=" + job)["StatusCode"], "Succeeded")
        self.assertEqual([j["JobId"] for j in aws("list-jobs", *v)["JobList"]], [job])
        got = self.program("get-job-output", *v, "--job-id=" + job, "--range", "bytes=0-1048575", path("out"))
        self.assertEqual((got["status"], got["contentRange"]), (206, "bytes 0-1048575/2621440"))
        with open(path("out"), "rb") as f:
            self.assertEqual(f.read(), data[:MIB])
        for row in rows("treehash-range-vectors.csv"):
            if row["archive_size"] == str(len(data)):
                got = aws("get-job-output", *v, "--job-id=" + job, "--range", "bytes=%(start)s-%(end)s" % row, path("out"))
                self.assertEqual(got.get("checksum"), row["range_treehash"] if row["tree_hash_aligned"] == "1" else None)

        # An id may begin with a minus.
        i = ""
        for _ in range(2000):
            with open(path("part"), "wb") as f:
                f.write(b"x")
            i = aws("upload-archive", *v, "--body", path("part"))["archiveId"]
            if i.startswith("-"):
                break
        self.assertTrue(i.startswith("-"))
        aws("delete-archive", *v, "--archive-id=" + i)

        self.server.clock("2026-03-02T00:00:00Z")
        job = aws("initiate-job", *v, "--job-parameters", '{"Type": "inventory-retrieval"}')["jobId"]
        aws("get-job-output", *v, "--job-id=" + job, path("out"))
        with open(path("out")) as f:
            listed = {a["ArchiveId"]: a["ArchiveDescription"] for a in json.load(f)["ArchiveList"]}
        self.assertEqual((listed[up["archiveId"]], listed[done["archiveId"]]), ("from the shell", "parts"))
        self.configure(v)
        for i in listed:
            aws("delete-archive", *v, "--archive-id=" + i)
        self.server.clock("2026-03-03T00:00:00Z")
        aws("delete-vault", *v)
        self.assertEqual(aws("list-vaults")["VaultList"], [])
        from botocore import xform_name
        import botocore.session
        operations = botocore.session.get_session().get_service_model("glacier").operation_names
        self.assertEqual(self.used, {xform_name(name, "-") for name in operations})
        self.assertEqual(len(self.used), 33)

    def configure(self, v):
        aws = self.aws
        aws("add-tags-to-vault", *v, "--tags", "a=1,b=2")
        aws("remove-tags-from-vault", *v, "--tag-keys", "a")
        self.assertEqual(aws("list-tags-for-vault", *v)["Tags"], {"b": "2"})
        aws("set-vault-notifications", *v, "--vault-notification-config", '{"SNSTopic": "arn:x", "Events": ["ArchiveRetrievalCompleted"]}')
        self.assertEqual(aws("get-vault-notifications", *v)["vaultNotificationConfig"]["SNSTopic"], "arn:x")
        aws("delete-vault-notifications", *v)
        policy = json.dumps({"Statement": {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": ["glacier:DeleteVault"],
                                           "Resource": ["arn:aws:glacier:us-east-1:%s:vaults/cli" % ACCOUNT]}})
        body = json.dumps({"Policy": policy})
        aws("set-vault-access-policy", *v, "--policy", body)
        self.assertEqual(aws("get-vault-access-policy", *v)["policy"]["Policy"], policy)
        self.assertIn("(AccessDeniedException)", aws("delete-vault", *v, code=1))
        aws("delete-vault-access-policy", *v)
        aws("initiate-vault-lock", *v, "--policy", body)
        self.assertEqual(aws("get-vault-lock", *v)["State"], "InProgress")
        aws("abort-vault-lock", *v)
        harmless = json.dumps({"Policy": policy.replace("DeleteVault", "UploadArchive")})
        lock = aws("initiate-vault-lock", *v, "--policy", harmless)["lockId"]
        aws("complete-vault-lock", *v, "--lock-id=" + lock)
        self.assertEqual(aws("get-vault-lock", *v)["State"], "Locked")
        aws("set-data-retrieval-policy", "--policy", '{"Rules": [{"Strategy": "BytesPerHour", "BytesPerHour": 5}]}')
        self.assertEqual(aws("get-data-retrieval-policy")["Policy"]["Rules"], [{"Strategy": "BytesPerHour", "BytesPerHour": 5}])
        unit = aws("purchase-provisioned-capacity")["capacityId"]
        self.assertEqual([u["CapacityId"] for u in aws("list-provisioned-capacity")["ProvisionedCapacityList"]], [unit])


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
