"""boto3's resource interface: the whole way of an archive [65]."""
import unittest

import boto3
from botocore.config import Config

from harness import ACCOUNT, KEY, MIB, SECRET, Server, mod251


class Resource(unittest.TestCase):
    def test_cycle(self):
        server = Server()
        self.addCleanup(server.close)
        glacier = boto3.resource("glacier", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id=KEY,
                                 aws_secret_access_key=SECRET, config=Config(retries={"total_max_attempts": 1}))
        account = glacier.Account("-")
        vault = account.create_vault(vaultName="resource")
        self.assertEqual(vault.vault_arn, "arn:aws:glacier:us-east-1:%s:vaults/resource" % ACCOUNT)
        self.assertEqual([v.name for v in account.vaults.all()], ["resource"])
        data = mod251(2 * MIB)
        archive = vault.upload_archive(archiveDescription="first", body=data)
        up = vault.initiate_multipart_upload(archiveDescription="second", partSize=str(MIB))
        for at in (0, MIB):
            up.upload_part(range="bytes %d-%d/*" % (at, at + MIB - 1), body=data[at:at + MIB])
        self.assertEqual(len(up.parts()["Parts"]), 2)
        self.assertEqual([u.id for u in vault.multipart_uploads.all()], [up.id])
        second = up.complete(archiveSize=str(2 * MIB), checksum="bf4dff263ae686b64403208c35a3767e38453d6477e841947588d13d04e1d816")
        self.assertTrue(second["archiveId"])
        vault.initiate_multipart_upload(partSize=str(MIB)).abort()
        job = archive.initiate_archive_retrieval()
        job.load()
        self.assertTrue(job.completed)
        self.assertEqual(job.get_output()["body"].read(), data)
        self.assertEqual([j.id for j in vault.succeeded_jobs.all()], [job.id])
        server.clock("2026-03-02T00:00:00Z")
        job = vault.initiate_inventory_retrieval()
        self.assertIn(b"second", job.get_output()["body"].read())
        note = vault.Notification()
        note.set(vaultNotificationConfig={"SNSTopic": "arn:x", "Events": ["ArchiveRetrievalCompleted"]})
        self.assertEqual(note.sns_topic, "arn:x")
        note.delete()
        archive.delete()
        glacier.Archive("-", "resource", second["archiveId"]).delete()
        server.clock("2026-03-03T00:00:00Z")
        vault.delete()
        self.assertEqual(list(account.vaults.all()), [])


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
