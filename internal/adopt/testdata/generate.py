#!/usr/bin/env python3
"""Makes the samples in this directory: what the older tools leave, by their own schemas, with the modules
of Python that they use themselves. Run it here; the samples are kept, so that tests need no Python."""

import datetime, os, pickle, sqlite3

def sqlite(name, *statements):
    if os.path.exists(name):
        os.remove(name)
    db = sqlite3.connect(name)
    for s in statements:
        db.execute(*s) if isinstance(s, tuple) else db.execute(s)
    db.commit()
    db.execute("VACUUM")
    db.close()

ID = "%s-" + "x" * 20
HASH = "9bc1b2a288b26af7257a36277ae3816a7d4f16e89c1e7e77d0a5c48bad62b360"

# btrsend: the active set, and what faulty runs leave: an orphan, an archive of no bytes, one date twice.
TABLE = """CREATE TABLE btrsend (id integer primary key autoincrement, arn varchar(1000) not null, date datetime not null,
    size integer not null, parent date)"""
def row(date, size, parent=None, mark=""):
    return ("INSERT INTO btrsend (arn, date, size, parent) VALUES (?, ?, ?, ?)", (ID % ("b" + date + mark), date, size, parent))
sqlite("btrsend.db", TABLE, row("2023-01-01", 5000), row("2023-01-07", 300, "2023-01-01"), row("2023-01-14", 400, "2023-01-07"))
sqlite("btrsend-faulty.db", TABLE, row("2023-06-01", 700, "2023-02-21"), row("2023-06-07", 9000), row("2023-06-14", 0, "2023-06-07"),
       row("2023-06-21", 50, "2023-06-14"), row("2023-06-21", 51, "2023-06-14", "again"))
sqlite("btrsend-empty.db", TABLE)
sqlite("btrsend-nodate.db", TABLE, row("yesterday", 1))

# hopkiw: a database whose table somebody made, one as released, without any; a row of date 0; the same path twice.
UPLOADS = "CREATE TABLE uploads (path text, name text, archive_id text, uploaded_date integer)"
def up(path, name, mark, date):
    return ("INSERT INTO uploads VALUES (?, ?, ?, ?)", (path, name, ID % mark, date))
sqlite("glacier.backups.sqlite3", UPLOADS, up("/srv/backups/a.tar.gz", "a.tar.gz", "h1", 1616194800), up("/srv/backups/dir 1", "dir_1.tar", "h2", 1616194900),
       up("/srv/backups/a.tar.gz", "a.tar.gz", "h3", 1616294900), up("/srv/never", "never", "h4", 0), up("/srv/lost", "lost", "", 1616294900)[:1] + (("/srv/lost", "lost", None, 1616294900),))
sqlite("glacier.'quoted'.sqlite3", UPLOADS, up("/srv/q", "q", "q1", 1616194800))
if os.path.exists("glacier.released.sqlite3"):
    os.remove("glacier.released.sqlite3")
db = sqlite3.connect("glacier.released.sqlite3"); db.execute("PRAGMA user_version = 0"); db.execute("VACUUM"); db.close()
with open("hopkiw.conf", "w") as f:
    f.write("""[main]
account_id='-'
vault_name='backups'
logfile=''

[DEFAULT]
upload_if_changed=false

# files of a directory
[/srv/backups]
upload_files=true
upload_dirs=true
exclude='tmp_'

[/srv/dir]
upload_single_dir=true
upload_if_changed=true
""")
with open("hopkiw.log", "w") as f:
    f.write("""2021-03-20 01:02:03,456 - root - INFO - checking [/srv/backups]
2021-03-20 01:02:04,456 - root - INFO - Starting backup for path /srv/backups/dir 1
2021-03-20 01:02:04,457 - root - INFO - creating tar achive for /srv/backups/dir 1
2021-03-20 01:02:05,456 - root - INFO - starting upload for /srv/backups/dir 1
2021-03-20 01:03:05,456 - root - INFO - completing upload up-1
2021-03-20 01:03:06,456 - root - INFO - upload up-1 is complete, archive id is %s
Traceback (most recent call last):
  File "glacier_backup.py", line 1, in <module>
sqlite3.OperationalError: no such table: uploads
2021-03-21 01:02:04,456 - root - INFO - Starting backup for path /srv/backups/b
2021-03-21 01:02:05,456 - root - ERROR - failed to upload /srv/backups/b: error uploading parts
""" % (ID % "log1"))

# glacier-backup.py: pickles of all protocols; the second has one write of the two.
def answer(mark, vault="home-backup"):
    i = ID % mark
    return {"archiveId": i, "checksum": HASH, "location": "/123456789012/vaults/%s/archives/%s" % (vault, i)}
docs = datetime.datetime(2014, 1, 2, 3, 4, 5, 678901)
whole = {"last backup": {"/home/me/my docs": docs, "/home/me/größe": datetime.datetime(2014, 2, 3, 4, 5, 6)},
         "glacier metadata": {"/home/me/my docs": answer("p1"), "/home/me/größe": answer("p2")}}
for protocol in range(6):
    with open("backup-%d.db" % protocol, "wb") as f:
        pickle.dump(whole, f, protocol)
half = {"last backup": {"/home/me/my docs": docs, "new": docs}, "glacier metadata": {"/home/me/my docs": answer("p1"), "old": answer("p3")}}
with open("backup-half.db", "wb") as f:
    pickle.dump(half, f)
with open("backup-empty.db", "wb") as f:
    pickle.dump({"last backup": {}, "glacier metadata": {}}, f)
with open("backup-cut.db", "wb") as f:
    f.write(pickle.dumps(whole)[:200])
class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/firn-was-here",))
with open("backup-evil.db", "wb") as f:
    pickle.dump({"last backup": {}, "glacier metadata": {}, "x": Evil()}, f)
with open("backup-zone.db", "wb") as f:
    pickle.dump({"last backup": {"a": datetime.datetime(2014, 1, 1, tzinfo=datetime.timezone.utc)}, "glacier metadata": {}}, f)
# Python 2, protocol 0, as its cPickle writes it.
with open("backup-python2.db", "wb") as f:
    f.write(b"(dp1\nS'last backup'\np2\n(dp3\nS'/home/me/gr\\xc3\\xb6\\xc3\\x9fe'\np4\ncdatetime\ndatetime\np5\n(S'\\x07\\xde\\x01\\x02\\x03\\x04\\x05\\n[\\xf5'\ntRp6\nss"
            b"S'glacier metadata'\np7\n(dp8\ng4\n(dp9\nVarchiveId\np10\nV" + (ID % "y1").encode() + b"\np11\nsVchecksum\np12\nV" + HASH.encode() +
            b"\np13\nsVlocation\np14\nV/123456789012/vaults/home-backup/archives/" + (ID % "y1").encode() + b"\np15\nsss.")
with open("glacier-backup-py.ini", "w") as f:
    f.write("""[default]
aws_profile = home
cache_dir = /var/backup/glacier-cache/
gpg_key_name = me@example.org
min_age = 90
tar_options = -p --ignore-failed-read --exclude-tag=NOGLACIERBACKUP
vault_name = home-backup

""")

# mt-aws-glacier: all versions of lines; a deletion, a foreign archive, a line that was cut off.
with open("mt.journal", "w", encoding="utf-8") as f:
    f.write("\t".join(["B", "1351924200", "CREATED", ID % "m1", "1234", "1351924178", HASH, "file/a"]) + "\n")
    f.write("\t".join(["A", "1351924201", "CREATED", ID % "m2", "5", "1352124178", HASH, "директория/файл"]) + "\n")
    f.write("\t".join(["C", "1351924202", "CREATED", ID % "m3", "6", "NONE", HASH, ID % "m3"]) + "\n")
    f.write("\t".join(["B", "1351924203", "RETRIEVE_JOB", ID % "m1", "job1"]) + "\n")
    f.write("\t".join(["B", "1351924204", "CREATED", ID % "m4", "7", "1352124178", HASH, "gone"]) + "\n")
    f.write("\t".join(["B", "1351924205", "DELETED", ID % "m4", "gone"]) + "\n")
    f.write(" ".join(["1351924206", "CREATED", ID % "m5", "8", HASH, "with a blank"]) + "\n")
    f.write("\t".join(["B", "1351924207", "CREATED", ID % "m6"]))
with open("mt.cfg", "w") as f:
    f.write("key=AKIDEXAMPLE\nsecret=never-shown\nregion=eu-west-1\nprotocol=http\nvault=photos\ndir=/srv/photos\njournal=mt.journal\n")
with open("mt-hostile.journal", "w") as f:
    f.write("\t".join(["B", "1351924200", "CREATED", ID % "m1", "1234", "1351924178", HASH, "../../etc/passwd"]) + "\n")

# glacier-cmd: inventory as JSON and CSV, search, upload; an inventory job's output.
import csv, json
inventory = [{"ArchiveId": ID % "c1", "ArchiveDescription": "No description.", "CreationDate": "2013-01-01T02:03:04Z", "Size": 4194304, "SHA256TreeHash": HASH},
             {"ArchiveId": ID % "c2", "ArchiveDescription": 'a "quoted", text', "CreationDate": "2013-02-01T02:03:04Z", "Size": 12, "SHA256TreeHash": HASH}]
json.dump(inventory, open("cmd-inventory.json", "w"))
with open("cmd-inventory.csv", "w", newline="") as f:
    w = csv.writer(f, quoting=csv.QUOTE_ALL)
    w.writerow(inventory[0].keys())
    for i in inventory:
        w.writerow(i.values())
json.dump({"VaultARN": "arn:aws:glacier:us-east-1:123456789012:vaults/timemachineJan13", "InventoryDate": "2013-03-01T00:00:00Z", "ArchiveList": inventory}, open("cmd-job.json", "w"))
json.dump([{"region": "us-east-1", "vault": "timemachineJan13", "filename": "home/me.tar.bz2", "archive_id": ID % "c1", "hash": HASH, "size": "4194304",
            "location": "/123456789012/vaults/timemachineJan13/archives/" + ID % "c1", "description": "No description.", "date": "2013-01-01 02:03:04"}], open("cmd-search.json", "w"))
json.dump({"Uploaded file": "x/y.iso", "Created archive with ID": ID % "c3", "Archive SHA256 tree hash": HASH}, open("cmd-upload.json", "w"))
with open("glacier-cmd.ini", "w") as f:
    f.write("[aws]\naccess_key=AKIDEXAMPLE\nsecret_key=never%shown\n\n[glacier]\nregion=us-east-1\nbookkeeping=True\noutput=print\n\n[SNS:done]\nvaults=a,b\nmethod=email,me@example.org\n")
