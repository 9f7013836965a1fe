#!/usr/bin/env python3
"""Get every archive of a vault of Amazon Glacier as a file, without Firn: boto3 is all that is needed.

    glacier-get.py REGION VAULT DIRECTORY

It asks for the vault's inventory, then for the archives, and waits: hours, with the service. It may be interrupted and
run again: files that are there and whole are kept, and jobs that run are found again. Names come from the descriptions:
of mt-aws-glacier and of Firn's mirrors (mt2, with the time of change), of Firn's sets (SET-SNAPSHOT-PART.tar.zst.age and
so on), else the description itself. Of several archives of one name the newest has it, older ones have their id added.
Nothing is written outside of DIRECTORY. For each archive its file and its id are printed.
"""
import base64, binascii, calendar, json, os, sys, time, urllib.parse
import boto3
from botocore.utils import calculate_tree_hash

CHUNK = 1 << 20


def named(a):
    """The path of an archive, and its time of change or None."""
    d, when = a["ArchiveDescription"].strip(), None
    if d.startswith("mt2 "):
        try:
            text = d[4:].split()[0]
            m = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            return m["filename"], calendar.timegm(time.strptime(m["mtime"], "%Y%m%dT%H%M%SZ"))
        except (ValueError, KeyError, IndexError, binascii.Error):
            pass
    if d.startswith("firn/1 "):
        f = dict(w.split("=", 1) for w in d.split()[1:] if "=" in w)
        part = f.get("part", "")
        ends = {"zstd": ".zst", "gzip": ".gz", "bzip2": ".bz2", "age": ".age", "openpgp": ".gpg"}
        name = "-".join(filter(None, [f.get("set"), f.get("snap"), part.zfill(6) if part.isdigit() else part]))
        return urllib.parse.unquote(name) + "".join(ends.get(c, "") for c in f.get("codec", "").split(",")), None
    return urllib.parse.unquote(d) or a["ArchiveId"], when


def inside(directory, name, mark=""):
    """A path below directory, which any file system takes."""
    name = name.encode("utf-8", "replace").decode().replace("\0", "_")
    parts = [p for p in name.split("/") if p not in ("", ".", "..")] or ["archive"]
    if mark:
        parts = ["_".join(parts).encode()[:90].decode(errors="ignore") + mark]
    return os.path.join(directory, *(p if len(p.encode()) < 250 else p[:60] for p in parts))


def place(directory, name, key, files, dirs):
    """The path of an archive: a file is no directory of another, and no two are one file."""
    path = inside(directory, name)
    above = [path[:i] for i in range(len(directory) + 1, len(path)) if path[i] == "/"]
    if path in files or path in dirs or files.intersection(above):
        path, above = inside(directory, name, "~" + key), [directory]
    files.add(path)
    dirs.update(above)
    return path


def jobs(client, vault):
    for page in client.get_paginator("list_jobs").paginate(accountId="-", vaultName=vault):
        yield from page["JobList"]


def ready(client, vault, wanted, pause):
    """Yield wanted[archive id or None] with its job as soon as that is done; jobs that are not there are begun."""
    while wanted:
        begun = set()
        for j in sorted(jobs(client, vault), key=lambda j: j["CreationDate"], reverse=True):
            key = j.get("ArchiveId")
            whole = key is None or j.get("RetrievalByteRange", "0-") in ("0-", "0-%d" % (wanted.get(key, {}).get("Size", 0) - 1))
            form = j.get("InventoryRetrievalParameters") or {}
            whole = whole and form.get("Format", "JSON") == "JSON" and not {"Limit", "Marker", "StartDate", "EndDate"} & form.keys()
            if key not in wanted or key in begun or not whole or j["StatusCode"] == "Failed":
                continue
            if j["StatusCode"] != "Succeeded":
                begun.add(key)
            else:
                yield wanted.pop(key), j["JobId"]
        for key in wanted:
            if key not in begun:
                parameters = {"Type": "archive-retrieval", "ArchiveId": key} if key else {"Type": "inventory-retrieval", "Format": "JSON"}
                client.initiate_job(accountId="-", vaultName=vault, jobParameters=parameters)
                pause = 1
        if wanted:
            time.sleep(pause)
            pause = min(pause * 2, 600)


def fetch(client, vault, job, a, path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    body = client.get_job_output(accountId="-", vaultName=vault, jobId=job)["body"]
    with open(path + ".part", "wb") as f:
        for chunk in iter(lambda: body.read(CHUNK), b""):
            f.write(chunk)
    if not same(path + ".part", a):
        sys.exit("%s: the bytes that came are not those of archive %s" % (path, a["ArchiveId"]))
    os.replace(path + ".part", path)


def same(path, a):
    if not os.path.isfile(path) or os.path.getsize(path) != a["Size"]:
        return False
    with open(path, "rb") as f:
        return calculate_tree_hash(f) == a["SHA256TreeHash"]


def main(region, vault, directory):
    client = boto3.client("glacier", region_name=region, endpoint_url=os.environ.get("AWS_ENDPOINT_URL_GLACIER"))
    [(_, job)] = ready(client, vault, {None: {}}, 60)
    inventory = json.load(client.get_job_output(accountId="-", vaultName=vault, jobId=job)["body"])
    wanted, files, dirs = {}, set(), set()
    for a in sorted(inventory["ArchiveList"], key=lambda a: (a["CreationDate"], a["ArchiveId"]), reverse=True):
        name, a["When"] = named(a)
        a["Path"] = place(directory, name, a["ArchiveId"], files, dirs)
        if same(a["Path"], a):
            print(a["Path"], a["ArchiveId"], sep="\t")
        else:
            wanted[a["ArchiveId"]] = a
    for a, job in ready(client, vault, wanted, 60):
        fetch(client, vault, job, a, a["Path"])
        if a["When"] is not None:
            os.utime(a["Path"], (a["When"], a["When"]))
        print(a["Path"], a["ArchiveId"], sep="\t", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
