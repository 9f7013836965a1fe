#!/usr/bin/env python3
"""firn-read.py ARCHIVES KEYFILE SET WHEN DEST [SIGNER...]: restores without Firn, written from docs/design/format.md alone.
ARCHIVES: the archives/ directory of a dir: vault. KEYFILE: the key file, "-" where gpg has the keys. SET: a set's name or id. WHEN: a snapshot's
id, its number, "latest", or the beginning of a UTC time ("2026-11-22"). DEST: absent or empty. SIGNER: a public key, ed25519:…, that is trusted
besides those that KEYFILE names. $TMPDIR needs room for some volumes. Exits with 0 if all was restored; what was not is printed."""
import base64, glob, hashlib, json, os, re, stat, subprocess, sys, tempfile
KNOWN = set("""firn-manifest min-reader must setid set label host snap n at made kind base base-manifest stream compress encrypt paths
    volume archive size tree-hash leaves raw raw-sha256 frames header tail path type mode uid gid user group mtime link dev links xattrs
    torn vol off stored sparse sha256 deleted problem reason totals signature""".split())
LINES = {"firn-manifest": "h", "volume": "v", "path": "e", "deleted": "d", "problem": "p", "totals": "t", "signature": "s"}
PROGRAMS = {"age": 'age -d -i "$1"', "gpg": "gpg --batch -qd", "zst": "zstd -dcq", "gz": "gzip -dcq", "bz2": "bzip2 -dcq"}
SUFFIX = {"openpgp": "gpg", "zstd": "zst", "gzip": "gz", "bzip2": "bz2"}
faults, opened, first, sys.tracebacklimit = [], {}, {}, 0
def fault(path, why):
    faults.append(path) or print("firn-read:", os.fsencode(path).decode(errors="backslashreplace"), why, file=sys.stderr)
def need(ok, *why):
    if not ok: raise ValueError(" ".join(map(str, why)))
def raw(record, key):  # a string's bytes, which are in base64 where they are not UTF-8
    return base64.b64decode(record[key + "64"]) if key + "64" in record else record.get(key, "").encode()
def decode(path, *suffixes):  # decrypts, then decompresses: whether that went well, and a file with what came out
    out, programs = tempfile.TemporaryFile(), [PROGRAMS[s] for s in reversed(suffixes) if s in PROGRAMS] or ["cat"]
    with open(path, "rb") as f:
        return not subprocess.run(["bash", "-c", "set -o pipefail; " + "|".join(programs), "", KEYFILE], stdin=f, stdout=out, cwd="/").returncode, out
def tree_hash(path):  # SHA-256 of each MiB, then of each pair of hashes until one is left; an odd one goes up as it is
    with open(path, "rb") as f: level = [hashlib.sha256(b).digest() for b in iter(lambda: f.read(1 << 20), b"")]
    while len(level) > 1: level = [hashlib.sha256(b"".join(level[i:i + 2])).digest() if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]
    return level[0].hex()
def header(path):  # a manifest's header; "bad" says why it must not be believed
    decoded, f = decode(path, *os.path.basename(path).split("."))
    need(decoded, "cannot be decoded")
    data = f.seek(0) or f.read()
    h, cut = json.loads(data[:data.index(b"\n")]), data.rindex(b"\n", 0, -1) + 1
    h |= {"file": f, "hash": hashlib.sha256(data).hexdigest(), "volumes": {}, "bad": "needs a newer reader"}
    if h["min-reader"] > 1 or not KNOWN.issuperset(k.removesuffix("64") for k in h["must"]) or h["stream"] != "tar": return h
    sig = json.loads(data[cut:]).get("signature", {"key": "", "sig": ""})
    if not data.endswith(b"\n") or base64.b64decode(sig["key"]) not in TRUSTED: return h | {"bad": "is not signed by a trusted key"}
    parts = {"text": f"firn-manifest-1\n{hashlib.sha256(data[:cut]).hexdigest()}\n".encode(), "sig": base64.b64decode(sig["sig"]),
             "key": bytes.fromhex("302a300506032b6570032100") + base64.b64decode(sig["key"])}
    with tempfile.TemporaryDirectory() as d:
        for name in parts:
            with open(f"{d}/{name}", "wb") as out: out.write(parts[name])
        openssl = "openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in text -sigfile sig"
        return h | {"bad": subprocess.run(openssl.split(), cwd=d, capture_output=True).returncode and "was changed: its signature does not fit"}
def choose(found):  # the chain of the snapshot as of WHEN: number -> manifest, the full one first
    ids = {m["setid"] for m in found if not m["bad"] and SET in (m["setid"], os.fsdecode(raw(m, "set")))}
    need(len(ids) == 1, "no set, or several sets, named", SET)
    mine = sorted((m for m in found if m["setid"] in ids), key=lambda m: (m["n"], not m["bad"]))
    chain = [m for m in mine if WHEN in (m["snap"], str(m["n"]), "latest")] or [m for m in mine if m["at"].strip("Z")[:len(WHEN)] <= WHEN if "-" in WHEN]
    chain = [m for m in chain if m["n"] == chain[-1]["n"]]
    need(len({m["snap"] for m in chain if not m["bad"]}) < 2, "several snapshots with one number: say which by its id:", *{m["snap"] for m in chain})
    del chain[:-1]
    need(chain and not chain[0]["bad"], "snapshot", WHEN, chain[0]["bad"] if chain else "is not there")  # an older one is not what was asked for
    while (m := chain[0])["kind"] != "full":
        chain[:0] = [b for b in mine if not b["bad"] and (b["snap"], b["hash"]) == (m["base"], m["base-manifest"]) and b["n"] < m["n"]][:1]
        need(chain[0] is not m, "the base of snapshot", m["n"], "is missing, or not the one that it names")
    return {m["n"]: m for m in chain}
def apply(m, tree, chain):  # turns the tree of the base into that of manifest m
    seen, last, totals = "", b"", m["file"].seek(0) or {}
    for r in map(json.loads, m["file"]):
        kind = next(iter(r)).removesuffix("64")
        seen, totals = seen + LINES.get(kind, "?"), r.get("totals", totals)
        if kind == "volume":
            need(r["volume"] == len(m["volumes"]) + 1 and sum(f[0] for f in r["frames"]) == r["raw"] > 0, "bad volume", r["volume"])
            m["volumes"][r["volume"]] = r
        if kind in ("path", "deleted"):
            p, before, last = raw(r, kind), last, raw(r, kind).replace(b"/", b"\0")
            need(last > before and b"\0" not in p and not {b"", b".", b".."} & set(p.split(b"/")), "bad path, or out of order:", p)
            need(kind == "path" or m["kind"] == "incremental" and tree.pop(p, None), "deletion of what is not in the base:", p)
        if kind == "path":
            tree[p] = r = {"n": m["n"], "size": 0, "stored": r.get("size", 0)} | r
            if "vol" in r:  # a snapshot that is not in the chain is not in the dictionary, and a newer one has no volumes yet
                vols, off = chain[r["n"]]["volumes"], r["off"]
                room = sum(v["raw"] for k, v in vols.items() if k >= r["vol"]) - off
                need(r["vol"] in vols and 0 <= off < vols[r["vol"]]["raw"] and 0 < r["stored"] <= room, "address not within the volumes:", p)
    need(re.fullmatch(r"h[v?]*[ed?]*[p?]*ts", seen), "lines are missing, or out of order")
    need([totals.get(k, 0) for k in ("volumes", "entries", "deleted", "problems")] == [seen.count(k) for k in "vedp"], "wrong totals")
def volume(m, k):  # the raw bytes of a volume, which is kept until a later one is asked for
    if (m["n"], k) not in opened:
        for old in [o for o in opened if o < (m["n"], k)]: opened.pop(old).close()
        v, path = m["volumes"][k], os.path.join(ARCHIVES, os.fsdecode(raw(m["volumes"][k], "archive")))
        there = path if os.path.isfile(path) else os.devnull
        good = os.path.getsize(there) == v["size"] and tree_hash(there) == v["tree-hash"]
        decoded, opened[m["n"], k] = decode(there, *(SUFFIX.get(c, c) for c in (m["compress"], m["encrypt"])))
        good and decoded or fault(path, "is missing or damaged")
    return opened[m["n"], k]
def content(e, m):  # a regular file's stored bytes, checked
    out, sha, k, off, left = tempfile.TemporaryFile(), hashlib.sha256(), e.get("vol"), e.get("off"), "vol" in e and e["stored"]
    while left:
        data = volume(m, k).seek(off) * 0 or volume(m, k).read(min(left, 1 << 20, m["volumes"][k]["raw"] - off))
        need(data, "is in an archive that is damaged")
        left, off = left - out.write(data), sha.update(data) or off + len(data)
        k, off = (k, off) if off < m["volumes"][k]["raw"] else (k + 1, 0)
    need("vol" not in e or sha.hexdigest() == e["sha256"], "is damaged")
    return out.seek(0) or out
def enter(p):  # goes step by step into the directory of p, which may be longer than a call allows, and gives p's last element
    os.chdir(ROOT)
    for part in p.split(b"/")[:-1]:
        os.chdir(os.path.isdir(part) and part or os.mkdir(part) or part)
    return os.path.basename(p)
def make(p, e, m, inode):
    if e.get("links") and inode in first:
        name, there = enter(first[inode]), os.open(".", os.O_RDONLY)
        return os.link(name, enter(p), src_dir_fd=there, follow_symlinks=False), os.close(there)
    data, name = content(e, m) if e["type"] == "f" else None, enter(p)
    if e["type"] == "d": return os.mkdir(name)
    elif e["type"] == "l": os.symlink(raw(e, "link"), name)
    elif e["type"] != "f": os.mknod(name, {"p": stat.S_IFIFO, "c": stat.S_IFCHR, "b": stat.S_IFBLK}[e["type"]], os.makedev(*e.get("dev", (0, 0))))
    else:
        extents = [(int(data.readline()), int(data.readline())) for _ in range(int(data.readline()))] if e.get("sparse") else [(0, e["size"])]
        data.seek(-data.tell() % 512, 1)
        with open(name, "xb") as out:
            for off, size in extents:
                for at in range(off, off + size, 1 << 20): out.seek(at), out.write(data.read(min(off + size - at, 1 << 20)))
            out.truncate(e["size"])
    first[inode] = dress(p, e) or p
def dress(p, e):  # all but the content, in an order in which nothing undoes what came before
    name = enter(p)
    os.geteuid() or os.chown(name, e.get("uid", 0), e.get("gid", 0), follow_symlinks=False)
    for x, value in e.get("xattrs", {}).items() | {(base64.b64decode(k), v) for k, v in e.get("xattrs64", {}).items()}:
        try: os.setxattr(name, x, base64.b64decode(value), follow_symlinks=False)
        except OSError as why: fault(p, why)
    e["type"] == "l" or os.chmod(name, int(e["mode"], 8))
    os.utime(name, ns=(e["mtime"][0] * 10**9 + e["mtime"][1],) * 2, follow_symlinks=False)

ARCHIVES, KEYFILE, SET, WHEN, DEST, *SIGNERS = (os.path.abspath(a) if i in (0, 1) and a != "-" else a for i, a in enumerate(sys.argv[1:]))
keys = b"" if KEYFILE == "-" else open(KEYFILE, "rb").read()
if keys.startswith((b"age-encryption.org/", b"-----BEGIN AGE")):  # asks for the passphrase, once
    keys, fd = subprocess.run(["age", "-d", KEYFILE], stdout=subprocess.PIPE, check=True).stdout, os.memfd_create("key")
    KEYFILE = f"/proc/{os.getpid()}/fd/{os.write(fd, keys) and fd}"
found = re.findall(r"^(?:# firn-signing-key: )?ed25519:([\w-]{43})$", "\n".join([keys.decode(errors="replace"), *SIGNERS]), re.M)
TRUSTED, found, tree = {base64.urlsafe_b64decode(k + "=") for k in found}, [], {}
for path in sorted(glob.glob(glob.escape(ARCHIVES) + "/*/*/manifest*")):
    try: found.append(header(path))
    except Exception as why: fault(path, why)
chain = choose(found)
faults = [path for path in faults if f"-{chain[max(chain)]['setid']}/" in path]  # what cannot be read of other sets is no fault here
for m in chain.values(): apply(m, tree, chain)
os.makedirs(DEST, exist_ok=True)
need(not os.listdir(DEST), DEST, "is not empty")
ROOT, places = os.open(DEST, os.O_RDONLY), {p: (e["type"] != "d" and e["n"], e.get("vol", 0), e.get("off", 0)) for p, e in tree.items()}
for p in sorted(tree, key=lambda p: (places[p], p.replace(b"/", b"\0"))):  # directories first, then in the order of what is stored
    e, above = tree[p], (p[:i] for i in range(len(p)) if p[i] == ord("/"))
    try:
        need(all(tree.get(a, {"type": "d"})["type"] == "d" for a in above), "is below what is not a directory")
        make(p, e, chain[e["n"]], (raw(e, "links"), e["type"], places[p] if "vol" in e else None))
    except Exception as why: fault(p, why)
for p in sorted((p for p in tree if tree[p]["type"] == "d"), reverse=True):
    try: dress(p, tree[p])
    except Exception as why: fault(p, why)
sys.exit(1 if faults else 0)
