package reader_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/tarstream"
	"github.com/firn-backup/firn/treehash"
)

// The vault is made by hand: with the manifest's writer, and the programs
// zstd, gzip, bzip2, age and gpg. Volumes and frames are far smaller than Firn's.
const (
	volumeSize = 100_000
	frameSize  = 30_000
	setID      = "01JD9ZK3V7Q4W8X2M5N6P7R8S9"
)

type vault struct {
	archives    string
	identity    string // age's
	recipient   string
	key         ed25519.PrivateKey
	compress    string
	encrypt     string
	snaps       []manifest.Header
	hashes      []manifest.Hash
	manifests   []string // files
	firstVolume string   // archive id
	tree        tree
}

// node is an entry and what it must contain.
type node struct {
	e       snapshot.Entry
	data    []byte // of a sparse file: its extents'
	extents []tarstream.Extent
}

type tree map[string]node

// change is one line of a snapshot to be made.
type change struct {
	node
	deleted bool
	meta    bool   // the content is stored already, and so the stream has nothing of it
	linkTo  string // another name of that path's inode
}

func newVault(t *testing.T, compress, encrypt string) *vault {
	t.Helper()
	v := &vault{archives: filepath.Join(t.TempDir(), "archives [1]"), compress: compress, encrypt: encrypt, tree: tree{}}
	v.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	v.identity = filepath.Join(t.TempDir(), "key.txt")
	switch encrypt {
	case "age":
		if out, err := exec.Command("age-keygen", "-o", v.identity).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := exec.Command("age-keygen", "-y", v.identity).Output()
		if err != nil {
			t.Fatal(err)
		}
		v.recipient = strings.TrimSpace(string(out))
	case "openpgp":
		newKeyRing(t)
	}
	return v
}

const keyRingUser = "reader@example.org"

// newKeyRing gives the test, which must not be parallel, a GnuPG of its own with one key.
func newKeyRing(t *testing.T) {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // short: the agent's socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	cmd := exec.Command("gpg", "--batch", "-q", "--passphrase", "", "--quick-gen-key", keyRingUser, "future-default", "default", "never")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// filter runs data through a program.
func filter(t *testing.T, data []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr.Bytes())
	}
	return out
}

func (v *vault) exts() []string {
	return []string{
		map[string]string{"zstd": ".zst", "gzip": ".gz", "bzip2": ".bz2"}[v.compress],
		map[string]string{"age": ".age", "openpgp": ".gpg"}[v.encrypt],
	}
}

// pack compresses raw in frames and encrypts it.
func (v *vault) pack(t *testing.T, raw []byte) ([]byte, []codec.Frame) {
	var packed []byte
	var frames []codec.Frame
	for piece := range slices.Chunk(raw, frameSize) {
		f := piece
		if v.compress != "none" {
			f = filter(t, piece, v.compress, "-c")
		}
		frames = append(frames, codec.Frame{Raw: int64(len(piece)), Packed: int64(len(f))})
		packed = append(packed, f...)
	}
	switch v.encrypt {
	case "age":
		packed = filter(t, packed, "age", "-r", v.recipient)
	case "openpgp":
		packed = filter(t, packed, "gpg", "--batch", "-q", "-e", "-z", "0", "--trust-model", "always", "-r", keyRingUser)
	}
	return packed, frames
}

func (v *vault) store(t *testing.T, name string, b []byte) {
	t.Helper()
	file := filepath.Join(v.archives, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// snapshot stores the changes as one snapshot, and returns the tree as it is then.
func (v *vault) snapshot(t *testing.T, at time.Time, changes ...change) tree {
	t.Helper()
	n := len(v.snaps) + 1
	h := manifest.Header{
		SetID: setID, Set: "documents", Label: "Documents", Host: "nb", Snap: fmt.Sprintf("01JDA000000000000000000%03d", n), N: uint64(n),
		At: at, Made: at.Add(time.Minute), Kind: snapshot.Full, Stream: "tar", Compress: v.compress, Encrypt: v.encrypt, Paths: []string{"/home/me"},
	}
	if n > 1 {
		h.Kind, h.Base, h.BaseHash = snapshot.Incremental, v.snaps[n-2].Snap, v.hashes[n-2]
	}
	slices.SortFunc(changes, func(a, b change) int { return snapshot.ComparePaths(a.e.Path, b.e.Path) })
	stream := v.stream(t, h.N, changes)
	var volumes []*manifest.Volume
	for raw := range slices.Chunk(stream, volumeSize) {
		packed, frames := v.pack(t, raw)
		i := len(volumes) + 1
		name := manifest.VolumeName(&h, i, "01JDB0000000000000000000EF", v.exts()...)
		v.store(t, name, packed)
		v.store(t, manifest.VolumeName(&h, i, "01JDB0000000000000000000AA", v.exts()...), []byte("an attempt that came to nothing"))
		leaves := treehash.Leaves(packed)
		volumes = append(volumes, &manifest.Volume{
			N: i, Archive: name, Size: int64(len(packed)), TreeHash: treehash.Combine(leaves), Leaves: leaves, Raw: int64(len(raw)), Frames: frames,
		})
		if v.firstVolume == "" {
			v.firstVolume = name
		}
	}
	v.putManifest(t, h, volumes, changes)
	now := tree{}
	for p, x := range v.tree {
		now[p] = x
	}
	return now
}

// stream makes the tar stream of the changes, gives their entries content addresses, and brings v.tree up to date.
func (v *vault) stream(t *testing.T, n uint64, changes []change) []byte {
	var stream []byte
	for i := range changes {
		c := &changes[i]
		e := &c.e
		switch {
		case c.deleted:
			delete(v.tree, e.Path)
			continue
		case c.meta:
			old := v.tree[e.Path]
			e.Size, e.Content, c.data, c.extents = old.e.Size, old.e.Content, old.data, old.extents
			v.tree[e.Path] = c.node
			continue
		case c.linkTo != "":
			to := v.tree[c.linkTo]
			e.Size, e.Content, c.data, c.extents = to.e.Size, to.e.Content, to.data, to.extents
			stream = appendHeader(t, stream, e, 0, false, c.linkTo)
			v.tree[e.Path] = c.node
			continue
		}
		stored := c.data
		if c.extents != nil {
			stored = append(tarstream.AppendSparseMap(nil, c.extents, e.Size), c.data...)
		} else {
			e.Size = int64(len(c.data))
		}
		stream = appendHeader(t, stream, e, int64(len(stored)), c.extents != nil, "")
		if len(stored) > 0 {
			e.Content = snapshot.Content{
				N: n, Volume: len(stream)/volumeSize + 1, Offset: int64(len(stream) % volumeSize), Stored: int64(len(stored)),
				Sparse: c.extents != nil, SHA256: sha256.Sum256(stored),
			}
		}
		stream = append(stream, stored...)
		stream = append(stream, make([]byte, tarstream.Padding(int64(len(stored))))...)
		v.tree[e.Path] = c.node
	}
	if len(stream) > 0 {
		stream = append(stream, tarstream.Trailer[:]...)
	}
	return stream
}

func appendHeader(t *testing.T, stream []byte, e *snapshot.Entry, stored int64, sparse bool, linkTo string) []byte {
	t.Helper()
	stream, err := tarstream.AppendHeader(stream, e, stored, sparse, linkTo)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func (v *vault) putManifest(t *testing.T, h manifest.Header, volumes []*manifest.Volume, changes []change) {
	t.Helper()
	var buf bytes.Buffer
	w, err := manifest.NewWriter(&buf, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, vol := range volumes {
		if err := w.Volume(vol); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range changes {
		if c.deleted {
			err = w.Delete(c.e.Path)
		} else {
			err = w.Entry(&c.e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Problem(&snapshot.Problem{Path: "home/me/unreadable", Reason: "permission denied"}); err != nil {
		t.Fatal(err)
	}
	hash, err := w.Close(v.key)
	if err != nil {
		t.Fatal(err)
	}
	packed, _ := v.pack(t, buf.Bytes())
	name := manifest.ManifestName(&h, "", v.exts()...)
	v.store(t, name, packed)
	v.snaps, v.hashes = append(v.snaps, h), append(v.hashes, hash)
	v.manifests = append(v.manifests, filepath.Join(v.archives, name))
}
