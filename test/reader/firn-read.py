#!/usr/bin/env python3
"""firn-read.py ARCHIVES KEYFILE SET WHEN DEST [SIGNER...]: restores without Firn, written from docs/design/format.md alone.
ARCHIVES: directory of archives by id (a dir: vault's archives/). KEYFILE: age identities (gpg has a keyring). SET: name or id.
WHEN: a snapshot's id, "latest" or the beginning of a UTC time ("2026-11-22"). DEST: absent or empty. SIGNER: public keys,
ed25519:…, one of which must have signed; without any, those that did are told."""
import base64, functools, glob, hashlib, json, os, stat, subprocess, sys, tempfile

ARCHIVES, KEYFILE, SET, WHEN, DEST, *SIGNERS = map(os.fsencode, sys.argv[1:])
TOOLS = {"age": 'age -d -i "$1"', "openpgp": "gpg --batch -qd", "none": "cat", "zstd": "zstd -dcq", "gzip": "gzip -dc", "bzip2": "bzip2 -dc"}
SUFFIX = {b"age": "age", b"gpg": "openpgp", b"zst": "zstd", b"gz": "gzip", b"bz2": "bzip2", b"jsonl": "none"}
KNOWN = set("""firn-manifest min-reader must setid set label host snap n at made kind base base-manifest stream compress encrypt
    paths volume archive size tree-hash leaves raw raw-sha256 frames header tail path type mode uid gid user group mtime link dev
    links xattrs torn vol off stored sparse sha256 deleted problem reason totals signature""".split())
faults, volumes, order = [], {}, lambda path: path.replace(b"/", b"\0")
sys.tracebacklimit = 0

def fault(path, why):
    faults.append(path)
    print("firn-read:", os.fsdecode(path), why, file=sys.stderr)
def need(ok, *why):
    if not ok:
        raise ValueError(" ".join(map(str, why)))
def raw(record, key):  # a string of a record, as bytes
    return base64.b64decode(record[key + "64"]) if key + "64" in record else record.get(key, "").encode()

@functools.lru_cache(2)
def decode(path, *tools):
    out, script = tempfile.TemporaryFile(), "set -o pipefail; " + " | ".join(TOOLS[t] for t in tools)
    subprocess.run(["bash", "-c", script, "bash", KEYFILE], stdin=open(path, "rb"), stdout=out, check=True)
    out.seek(0)
    return out

def signed(digest, signature):
    key = bytes.fromhex("302a300506032b6570032100") + base64.b64decode(signature["key"])
    with tempfile.TemporaryDirectory() as d:
        for name, data in ("key", key), ("sig", base64.b64decode(signature["sig"])), ("text", f"firn-manifest-1\n{digest}\n".encode()):
            open(f"{d}/{name}", "wb").write(data)
        return subprocess.run("openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in text -sigfile sig >&2", shell=True, cwd=d).returncode == 0

def find():  # the set's manifests, not checked yet: snapshot -> [(header, how to decode it)]
    found = {}
    for path in glob.glob(glob.escape(ARCHIVES) + b"/**/manifest*.jsonl*", recursive=True):
        try:
            where = path, *[SUFFIX[s] for s in reversed(os.path.basename(path).split(b".")[1:])]
            h = json.loads(decode(*where).readline())
            need(h["min-reader"] <= 1 and {k.removesuffix("64") for k in h["must"]} <= KNOWN, path, "needs a newer reader")
            if SET in (h["setid"].encode(), raw(h, "set")):
                found.setdefault(h["snap"], []).append((h, where))
        except Exception as why:
            fault(path, why)
    need(len({h["setid"] for copies in found.values() for h, _ in copies}) == 1, "no set, or several sets, named", SET)
    return found

def read(h, where, want):  # a manifest's header and records, all checked; None if its hash is not the one wanted
    records, changes, whole = [], [], hashlib.sha256()
    f = decode(*where)
    f.seek(0)
    for line in f:
        before = whole.hexdigest()
        whole.update(line)
        records.append(r := json.loads(line))
        for kind in {"path", "path64", "deleted", "deleted64"} & r.keys():
            changes.append((p := raw(r, kind.removesuffix("64")), r))
            need(b"\0" not in p and not {b"", b".", b".."} & set(p.split(b"/")), "hostile path", p)
            need(len(changes) < 2 or order(changes[-2][0]) < order(p), "wrong order at", p)
    if want not in (None, whole.hexdigest()): return None
    need("signature" in r and signed(before, r["signature"]), h["snap"], "is unsigned, or was changed")
    signer, totals = "ed25519:" + r["signature"]["key"].translate({43: "-", 47: "_", 61: ""}), records[-2]["totals"]
    need(not SIGNERS or signer.encode() in SIGNERS, h["snap"], "is signed by a foreign key", signer)
    need(totals["entries"] + totals["deleted"] == len(changes), "wrong totals")
    print(f"snapshot {h['n']} of {h['at']}, {h['kind']}, signed by {signer}", file=sys.stderr)
    return h, records, changes

def tree(found):  # path -> entry as of WHEN; fills volumes: (n, number) -> (header, record)
    when, chain, entries, want = WHEN.decode(), [], {}, None
    heads = [copies[0][0] for copies in found.values()]
    heads = [h for h in heads if h["snap"] == when] or [h for h in heads if when == "latest" or h["at"][:len(when)] <= when]
    need(heads, "no snapshot of that time")
    snap = max(heads, key=lambda h: h["n"])["snap"]
    while snap:
        good = [m for m in (read(h, where, want) for h, where in found.get(snap, [])) if m]
        need(good, "the manifest of", snap, "is missing, or not the one that the chain names")
        chain.insert(0, good[0])
        snap, want = good[0][0].get("base"), good[0][0].get("base-manifest")
    for h, records, changes in chain:
        volumes.update({(h["n"], r["volume"]): (h, r) for r in records if "volume" in r})
        for p, r in changes:
            entries[p] = {"n": h["n"], "size": 0, **r}
            if {"deleted", "deleted64"} & r.keys(): del entries[p]
    return entries

def content(e):  # the stored bytes of a file, checked
    n, vol, off, left = e["n"], e["vol"], e["off"], e.get("stored", e["size"])
    sha, out = hashlib.sha256(), tempfile.SpooledTemporaryFile(1 << 24)
    while left:
        h, v = volumes[n, vol]
        f = decode(os.path.join(ARCHIVES, raw(v, "archive")), h["encrypt"], h["compress"])
        f.seek(off)
        data = f.read(min(left, 1 << 20, v["raw"] - off))
        need(data or off == v["raw"], "volume", vol, "of snapshot", n, "is cut short")
        sha.update(data)
        out.write(data)
        off, left = off + len(data), left - len(data)
        vol, off = (vol, off) if off < v["raw"] else (vol + 1, 0)
    need(sha.hexdigest() == e["sha256"], "is damaged")
    out.seek(0)
    return out

def make(path, e):
    if e["type"] == "l": return os.symlink(raw(e, "link"), path)
    if e["type"] != "f": return os.mknod(path, {"p": stat.S_IFIFO, "c": stat.S_IFCHR, "b": stat.S_IFBLK}[e["type"]], os.makedev(*e.get("dev", (0, 0))))
    data, extents = content(e) if "vol" in e else tempfile.TemporaryFile(), [0, e["size"]]
    with open(path, "xb") as out:
        if e.get("sparse"):
            extents = [int(data.readline()) for _ in range(2 * int(data.readline()))]
            data.seek(-data.tell() % 512, 1)
        for offset, size in zip(extents[::2], extents[1::2]):
            out.seek(offset)
            while size and (piece := data.read(min(size, 1 << 20))):
                size -= out.write(piece)
        out.truncate(e["size"])

def dress(path, e):  # all but the content, in an order in which nothing undoes what came before
    os.geteuid() or os.chown(path, e.get("uid", 0), e.get("gid", 0), follow_symlinks=False)
    for name, value in e.get("xattrs", {}).items() | {(base64.b64decode(k), v) for k, v in e.get("xattrs64", {}).items()}:
        try: os.setxattr(path, name, base64.b64decode(value), follow_symlinks=False)
        except OSError as why: fault(path, why)
    e["type"] == "l" or os.chmod(path, int(e["mode"], 8))
    os.utime(path, ns=(e["mtime"][0] * 10**9 + e["mtime"][1],) * 2, follow_symlinks=False)

os.makedirs(DEST, exist_ok=True)
need(not os.listdir(DEST), DEST, "is not empty")
entries, first = tree(find()), {}
address = {p: (e["n"], e["vol"], e["off"]) if "vol" in e else (0, 0, 0) for p, e in entries.items()}
dirs = sorted((p for p in entries if entries[p]["type"] == "d"), key=order)
for p in entries:
    need(all(entries.get(p[:i], {"type": "d"})["type"] == "d" for i in range(len(p)) if p[i] == ord("/")), "not below a directory:", p)
    os.makedirs(os.path.join(DEST, p if entries[p]["type"] == "d" else os.path.dirname(p)), exist_ok=True)
for p in sorted(entries.keys() - set(dirs), key=lambda p: (address[p], order(p))) + dirs[::-1]:
    path, names = os.path.join(DEST, p), (raw(entries[p], "links"), entries[p]["type"], address[p])
    try:
        if names[0] and names in first:
            os.link(first[names], path, follow_symlinks=False)
        else:
            entries[p]["type"] == "d" or make(path, entries[p])
            first[names] = path
            dress(path, entries[p])
    except Exception as why:
        fault(path, why)
sys.exit(1 if faults else 0)
