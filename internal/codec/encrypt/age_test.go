package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mustrun"
)

// TestMain lets the test binary, linked under such a name, be an age plugin.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "age-plugin-firntest" {
		p, err := plugin.New("firntest")
		if err != nil {
			panic(err)
		}
		// The plugin's data are the passphrase of an ordinary key, told by whoever is there.
		p.HandleRecipient(func(data []byte) (age.Recipient, error) { return age.ParseX25519Recipient(string(data)) })
		p.HandleIdentity(func(data []byte) (age.Identity, error) {
			if answer, err := p.RequestValue("the word", true); err != nil || answer != "please" {
				return nil, errors.New("no word")
			}
			return age.ParseX25519Identity(string(data))
		})
		os.Exit(p.Main())
	}
	os.Exit(m.Run())
}

func newIdentity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func encryptAll(t testing.TB, e codec.Encryptor, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := e.Encrypt(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func decryptAll(d codec.Decryptor, src io.Reader) ([]byte, error) {
	r, err := d.Decrypt(src)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func readAllAt(d codec.Decryptor, src io.ReaderAt, size int64) ([]byte, error) {
	r, plain, err := d.DecryptAt(src, size)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(r, 0, plain))
}

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func agePair(t testing.TB, ids ...*age.X25519Identity) (codec.Encryptor, codec.Decryptor) {
	t.Helper()
	var o EncryptOptions
	for _, id := range ids {
		o.Recipients = append(o.Recipients, id.Recipient().String())
	}
	e, err := NewEncryptor(Age, o)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDecryptor(Age, Keys{Age: []age.Identity{ids[0]}})
	if err != nil {
		t.Fatal(err)
	}
	return e, d
}

func run(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, stderr.Bytes())
	}
	return out
}

func writeFile(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNames(t *testing.T) {
	t.Parallel()
	e, _ := agePair(t, newIdentity(t))
	if e.Name() != "age" || e.Ext() != ".age" || e.Geometry() != (codec.Geometry{Chunk: 65536, Tag: 16}) {
		t.Errorf("%s %s %+v", e.Name(), e.Ext(), e.Geometry())
	}
	n, err := NewEncryptor(None, EncryptOptions{})
	if err != nil || n.Name() != "none" || n.Ext() != "" || n.Geometry() != (codec.Geometry{}) {
		t.Errorf("%v %v", n, err)
	}
	for _, err := range []error{
		func() error { _, err := NewEncryptor("rot13", EncryptOptions{}); return err }(),
		func() error { _, err := NewDecryptor("rot13", Keys{}); return err }(),
		func() error { _, err := NewEncryptor(Age, EncryptOptions{}); return err }(),
		func() error { _, err := NewEncryptor(OpenPGP, EncryptOptions{}); return err }(),
		func() error { _, err := NewEncryptor(None, EncryptOptions{Recipients: []string{"age1x"}}); return err }(),
	} {
		if failure.KindOf(err) != failure.Usage {
			t.Errorf("%v is not failure.Usage", err)
		}
	}
}

func TestNone(t *testing.T) {
	t.Parallel()
	e, _ := NewEncryptor(None, EncryptOptions{})
	d, _ := NewDecryptor(None, Keys{})
	plain := noise(1, 1000)
	if got := encryptAll(t, e, plain); !bytes.Equal(got, plain) {
		t.Error("none changes bytes")
	}
	if got, err := decryptAll(d, bytes.NewReader(plain)); err != nil || !bytes.Equal(got, plain) {
		t.Error(err)
	}
	if got, err := readAllAt(d, bytes.NewReader(plain), 1000); err != nil || !bytes.Equal(got, plain) {
		t.Error(err)
	}
	w, _ := e.Encrypt(io.Discard)
	w.Close()
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("write after close succeeds")
	}
}

// chunkSizes are plaintext sizes around the edges of chunks.
func chunkSizes() []int {
	sizes := []int{0, 1, 100}
	for n := 1; n <= 3; n++ {
		sizes = append(sizes, n*ageChunk-1, n*ageChunk, n*ageChunk+1)
	}
	return sizes
}

// TestHeader: the header is what Encrypt has written when it returns, what
// HeaderSize finds in any beginning that holds it, and what arithmetic says.
func TestHeader(t *testing.T) {
	t.Parallel()
	pq, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	many := make([]string, 0, 20)
	for range 20 {
		many = append(many, newIdentity(t).Recipient().String())
	}
	for _, recipients := range [][]string{many[:1], many, {pq.Recipient().String()}} {
		e, err := NewEncryptor(Age, EncryptOptions{Recipients: recipients})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w, err := e.Encrypt(&out)
		if err != nil {
			t.Fatal(err)
		}
		header := out.Len()
		plain := noise(2, 2*ageChunk+1)
		w.Write(plain)
		w.Close()
		whole := out.Bytes()
		if want := len(whole) - len(plain) - 3*ageTag; header != want {
			t.Fatalf("%d bytes when Encrypt returns, header of %d", header, want)
		}
		for _, n := range []int{header, header + 1, len(whole)} {
			if got, err := HeaderSize(Age, whole[:n]); err != nil || got != header {
				t.Fatalf("prefix of %d: %d, %v; want %d", n, got, err, header)
			}
		}
		for n := range header - ageNonce {
			if got, err := HeaderSize(Age, whole[:n]); err != io.ErrUnexpectedEOF {
				t.Fatalf("prefix of %d of %d: %d, %v", n, header, got, err)
			}
		}
	}
	for _, bad := range []string{"hello\n", "age-encryption.org/v2\n", "age-encryption.org/v1\nxx\n", "age-encryption.org/v1\n--- x\n", "PK"} {
		if n, err := HeaderSize(Age, []byte(bad)); !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%q: %d, %v", bad, n, err)
		}
	}
	for _, name := range []string{OpenPGP, None} {
		if n, err := HeaderSize(name, []byte("anything")); n != 0 || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

// strictReaderAt fails on every byte outside what is allowed.
type strictReaderAt struct {
	b       []byte
	allowed [][2]int64 // start and end
	reads   int
}

var errForbidden = errors.New("read of a byte that is not at hand")

func (r *strictReaderAt) ReadAt(p []byte, off int64) (int, error) {
	r.reads++
	for i := range p {
		at := off + int64(i)
		if at >= int64(len(r.b)) || !slices.ContainsFunc(r.allowed, func(a [2]int64) bool { return a[0] <= at && at < a[1] }) {
			return i, fmt.Errorf("%w: %d", errForbidden, at)
		}
		p[i] = r.b[at]
	}
	return len(p), nil
}

// TestReadsNoMore: header, last chunk and the chunks asked for suffice.
func TestReadsNoMore(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	e, d := agePair(t, id, newIdentity(t), newIdentity(t))
	pq, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	pqe, err := NewEncryptor(Age, EncryptOptions{Recipients: []string{pq.Recipient().String()}})
	if err != nil {
		t.Fatal(err)
	}
	pqd, err := NewDecryptor(Age, Keys{Age: []age.Identity{pq}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		e codec.Encryptor
		d codec.Decryptor
	}{{e, d}, {pqe, pqd}} {
		plain := noise(3, 9*ageChunk+1)
		whole := encryptAll(t, c.e, plain)
		header, err := HeaderSize(Age, whole)
		if err != nil {
			t.Fatal(err)
		}
		size := int64(len(whole))
		base := [][2]int64{{0, int64(header)}, {size - 17, size}}
		rapid.Check(t, func(rt *rapid.T) {
			off := rapid.Int64Range(0, int64(len(plain)-1)).Draw(rt, "off")
			n := rapid.Int64Range(1, int64(len(plain))-off).Draw(rt, "size")
			start, length := c.e.Geometry().CipherRange(int64(header), off, n)
			src := &strictReaderAt{b: whole, allowed: append(base[:2:2], [2]int64{start, start + length})}
			r, plainSize, err := c.d.DecryptAt(src, size)
			if err != nil || plainSize != int64(len(plain)) {
				rt.Fatalf("open: %d, %v", plainSize, err)
			}
			if most := header/50 + 3; src.reads > most {
				rt.Fatalf("%d reads to open with a header of %d", src.reads, header)
			}
			got := make([]byte, n)
			if m, err := r.ReadAt(got, off); m != int(n) || err != nil || !bytes.Equal(got, plain[off:off+n]) {
				rt.Fatalf("[%d, +%d): %d, %v", off, n, m, err)
			}
		})
		// Without the last chunk it fails with the source's error.
		src := &strictReaderAt{b: whole, allowed: [][2]int64{{0, int64(header)}, {int64(header), size - 17}}}
		if _, _, err := c.d.DecryptAt(src, size); !errors.Is(err, errForbidden) || errors.Is(err, codec.ErrDamaged) {
			t.Errorf("without last chunk: %v", err)
		}
	}
}

// TestReaderAt: what io.ReaderAt promises, at the edges and concurrently.
func TestReaderAt(t *testing.T) {
	t.Parallel()
	e, d := agePair(t, newIdentity(t))
	for _, size := range chunkSizes() {
		plain := noise(uint64(size), size)
		whole := encryptAll(t, e, plain)
		r, n, err := d.DecryptAt(bytes.NewReader(whole), int64(len(whole)))
		if err != nil || n != int64(size) {
			t.Fatalf("%d bytes: %d, %v", size, n, err)
		}
		if size <= 100 { // it reads byte by byte, and each costs a chunk
			if err := iotest.TestReader(io.NewSectionReader(r, 0, n), plain); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		if got, err := decryptAll(d, iotest.HalfReader(bytes.NewReader(whole))); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes, in short reads: %v", size, err)
		}
		buf := make([]byte, 10)
		for _, off := range []int64{n, n + 1, n + 1<<40} {
			if m, err := r.ReadAt(buf, off); m != 0 || err != io.EOF {
				t.Errorf("%d bytes, read at %d: %d, %v", size, off, m, err)
			}
		}
		if _, err := r.ReadAt(buf, -1); err == nil || err == io.EOF {
			t.Errorf("read at -1: %v", err)
		}
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(g), 7))
				for range 20 {
					off := rng.IntN(size + 1)
					p := make([]byte, rng.IntN(size-off+1))
					if m, err := r.ReadAt(p, int64(off)); m != len(p) || err != nil && err != io.EOF || !bytes.Equal(p, plain[off:off+m]) {
						t.Errorf("[%d, +%d): %d, %v", off, len(p), m, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

// TestTruncated: no cut at or around a chunk's edge, or anywhere in the
// header, goes unseen.
func TestTruncated(t *testing.T) {
	t.Parallel()
	e, d := agePair(t, newIdentity(t))
	for _, size := range chunkSizes() {
		whole := encryptAll(t, e, noise(9, size))
		header, err := HeaderSize(Age, whole)
		if err != nil {
			t.Fatal(err)
		}
		var cuts []int
		for n := range header + 20 {
			cuts = append(cuts, n)
		}
		for at := header; at <= len(whole)+ageChunk; at += ageChunk + ageTag {
			cuts = append(cuts, at-1, at, at+1, at+ageTag-1, at+ageTag, at+ageTag+1)
		}
		cuts = append(cuts, len(whole)-1, len(whole)-ageTag, len(whole)-ageTag-1)
		for _, cut := range cuts {
			if cut < 0 || cut >= len(whole) {
				continue
			}
			if _, err := decryptAll(d, bytes.NewReader(whole[:cut])); !errors.Is(err, codec.ErrDamaged) {
				t.Fatalf("%d bytes cut at %d of %d, stream: %v", size, cut, len(whole), err)
			}
			if _, err := readAllAt(d, bytes.NewReader(whole[:cut]), int64(cut)); !errors.Is(err, codec.ErrDamaged) {
				t.Fatalf("%d bytes cut at %d of %d, ReaderAt: %v", size, cut, len(whole), err)
			}
			// The store has less than the catalog says.
			if _, err := readAllAt(d, bytes.NewReader(whole[:cut]), int64(len(whole))); !errors.Is(err, codec.ErrDamaged) {
				t.Fatalf("%d bytes cut at %d of %d, full size: %v", size, cut, len(whole), err)
			}
		}
		for _, extra := range []int{1, 16, 17, ageChunk + ageTag} {
			long := append(whole[:len(whole):len(whole)], make([]byte, extra)...)
			if _, err := decryptAll(d, bytes.NewReader(long)); !errors.Is(err, codec.ErrDamaged) {
				t.Errorf("%d bytes and %d more, stream: %v", size, extra, err)
			}
			if _, err := readAllAt(d, bytes.NewReader(long), int64(len(long))); !errors.Is(err, codec.ErrDamaged) {
				t.Errorf("%d bytes and %d more, ReaderAt: %v", size, extra, err)
			}
		}
	}
}

// TestFlippedBits: every bit of a short ciphertext, and a bit in many places of a
// long one. A header whose stanza is changed cannot be told from one for
// somebody else, so there both errors are right.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	e, d := agePair(t, newIdentity(t))
	check := func(whole, plain []byte, header, bit int) {
		whole[bit/8] ^= 1 << (bit % 8)
		for way, read := range map[string]func() ([]byte, error){
			"stream":   func() ([]byte, error) { return decryptAll(d, bytes.NewReader(whole)) },
			"ReaderAt": func() ([]byte, error) { return readAllAt(d, bytes.NewReader(whole), int64(len(whole))) },
		} {
			got, err := read()
			ok := errors.Is(err, codec.ErrDamaged) || bit/8 < header && errors.Is(err, codec.ErrNoKey)
			if !ok || !bytes.HasPrefix(plain, got) {
				t.Fatalf("bit %d of byte %d of %d (header %d), %s: %v", bit%8, bit/8, len(whole), header, way, err)
			}
		}
		whole[bit/8] ^= 1 << (bit % 8)
	}
	short := noise(4, 10)
	whole := encryptAll(t, e, short)
	header, _ := HeaderSize(Age, whole)
	for bit := range 8 * len(whole) {
		check(whole, short, header, bit)
	}
	long := noise(5, 2*ageChunk+1)
	whole = encryptAll(t, e, long)
	r := rand.New(rand.NewPCG(6, 6))
	for range 100 {
		check(whole, long, header, 8*header+r.IntN(8*(len(whole)-header)))
	}
}

// TestSourceErrors: a broken line is not a damaged volume.
func TestSourceErrors(t *testing.T) {
	t.Parallel()
	e, d := agePair(t, newIdentity(t))
	whole := encryptAll(t, e, noise(7, 2*ageChunk+1))
	header, _ := HeaderSize(Age, whole)
	broken := errors.New("line is broken")
	for _, cut := range []int{0, 5, 60, header - 5, header, header + 1, header + ageChunk + ageTag, len(whole) - 17, len(whole)} {
		for _, cause := range []error{broken, io.ErrUnexpectedEOF} {
			_, err := decryptAll(d, io.MultiReader(bytes.NewReader(whole[:cut]), iotest.ErrReader(cause)))
			if !errors.Is(err, cause) || errors.Is(err, codec.ErrDamaged) || errors.Is(err, codec.ErrNoKey) {
				t.Errorf("stream broken at %d: %v", cut, err)
			}
		}
		if cut == len(whole) {
			continue
		}
		src := &strictReaderAt{b: whole, allowed: [][2]int64{{0, int64(cut)}}}
		_, err := readAllAt(d, src, int64(len(whole)))
		if !errors.Is(err, errForbidden) || errors.Is(err, codec.ErrDamaged) || errors.Is(err, codec.ErrNoKey) {
			t.Errorf("ReaderAt broken at %d: %v", cut, err)
		}
	}
	// In the middle, when all else can be read.
	src := &strictReaderAt{b: whole, allowed: [][2]int64{{0, int64(header) + 10}, {int64(len(whole)) - 17, int64(len(whole))}}}
	r, _, err := d.DecryptAt(src, int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(make([]byte, 10), 0); !errors.Is(err, errForbidden) || errors.Is(err, codec.ErrDamaged) {
		t.Errorf("chunk: %v", err)
	}
}

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	e, _ := agePair(t, newIdentity(t))
	full := errors.New("disk is full")
	for _, room := range []int{0, 10, 300, 100_000} {
		w, err := e.Encrypt(&limitedWriter{room, full})
		if err == nil {
			_, err = w.Write(noise(8, 300_000))
			if cerr := w.Close(); err == nil {
				err = cerr
			}
		}
		if !errors.Is(err, full) {
			t.Errorf("room for %d: %v", room, err)
		}
	}
}

type limitedWriter struct {
	room int
	err  error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.room {
		return w.room, w.err
	}
	w.room -= len(p)
	return len(p), nil
}

func TestNoKey(t *testing.T) {
	t.Parallel()
	e, _ := agePair(t, newIdentity(t))
	whole := encryptAll(t, e, []byte("x"))
	for _, ids := range [][]age.Identity{nil, {newIdentity(t)}, {newIdentity(t), newIdentity(t)}} {
		d, err := NewDecryptor(Age, Keys{Age: ids})
		if err != nil {
			t.Fatal(err)
		}
		for way, err := range map[string]error{
			"stream":   func() error { _, err := decryptAll(d, bytes.NewReader(whole)); return err }(),
			"ReaderAt": func() error { _, err := readAllAt(d, bytes.NewReader(whole), int64(len(whole))); return err }(),
		} {
			if !errors.Is(err, codec.ErrNoKey) || errors.Is(err, codec.ErrDamaged) {
				t.Errorf("%d identities, %s: %v", len(ids), way, err)
			}
		}
	}
}

func TestHostileHeader(t *testing.T) {
	t.Parallel()
	_, d := agePair(t, newIdentity(t))
	long := "age-encryption.org/v1\n-> X25519 " + strings.Repeat("a", 3<<20)
	lines := "age-encryption.org/v1\n" + strings.Repeat("-> x\n\n", 1<<19)
	for name, text := range map[string]string{"endless line": long, "endless stanzas": lines, "empty": "", "text": "hello, world\nhello, world\n" + strings.Repeat("x", 200)} {
		if _, err := decryptAll(d, strings.NewReader(text)); !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%s, stream: %v", name, err)
		}
		if _, err := readAllAt(d, strings.NewReader(text), int64(len(text))); !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%s, ReaderAt: %v", name, err)
		}
		if _, err := HeaderSize(Age, []byte(text)); err == nil {
			t.Errorf("%s: has a header", name)
		}
	}
}

func FuzzAgeHeader(f *testing.F) {
	e, d := agePair(f, newIdentity(f), newIdentity(f))
	whole := encryptAll(f, e, []byte("hello"))
	f.Add(whole)
	f.Add(whole[:100])
	f.Add([]byte("age-encryption.org/v1\n-> a\n\n--- \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		stream, serr := decryptAll(d, bytes.NewReader(b))
		at, aerr := readAllAt(d, bytes.NewReader(b), int64(len(b)))
		if (serr == nil) != (aerr == nil) || serr == nil && !bytes.Equal(stream, at) {
			t.Fatalf("stream: %v, ReaderAt: %v", serr, aerr)
		}
		for _, err := range []error{serr, aerr} {
			if err != nil && !errors.Is(err, codec.ErrDamaged) && !errors.Is(err, codec.ErrNoKey) {
				t.Fatal(err)
			}
		}
		if serr == nil {
			if _, err := HeaderSize(Age, b); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestAgeProgram: Debian's age reads ours and we read its, for all native and
// SSH recipients at once.
func TestAgeProgram(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "age", "ssh-keygen")
	dir := t.TempDir()
	native := []*age.X25519Identity{newIdentity(t), newIdentity(t)}
	var keys []string // identity files
	var recipients strings.Builder
	fmt.Fprintln(&recipients, "# everybody")
	for i, id := range native {
		keys = append(keys, writeFile(t, filepath.Join(dir, fmt.Sprint("native", i)), "# key\n"+id.String()+"\n"))
		fmt.Fprintln(&recipients, id.Recipient())
	}
	for _, kind := range []string{"ed25519", "rsa"} {
		path := filepath.Join(dir, kind)
		run(t, nil, "ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path)
		public, err := os.ReadFile(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, path)
		recipients.Write(public)
	}
	file := writeFile(t, filepath.Join(dir, "recipients"), recipients.String())
	e, err := NewEncryptor(Age, EncryptOptions{RecipientFiles: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range chunkSizes() {
		plain := noise(uint64(size), size)
		ours := encryptAll(t, e, plain)
		theirs := run(t, plain, "age", "-R", file)
		for _, key := range keys {
			if got := run(t, ours, "age", "-d", "-i", key); !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, age -d -i %s differs", size, key)
			}
			ids, err := ParseIdentityFile(key, nil)
			if err != nil {
				t.Fatal(err)
			}
			d, err := NewDecryptor(Age, Keys{Age: ids})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := decryptAll(d, bytes.NewReader(theirs)); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, %s, stream: %v", size, key, err)
			}
			if got, err := readAllAt(d, bytes.NewReader(theirs), int64(len(theirs))); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, %s, ReaderAt: %v", size, key, err)
			}
			if r := ids[0].(*Identity).Recipient(); !strings.Contains(recipients.String(), r) || r == "" {
				t.Errorf("%s: recipient %q", key, r)
			}
		}
	}
}

func TestPlugin(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "age-plugin-firntest")); err != nil {
		t.Fatal(err)
	}
	id := newIdentity(t)
	recipient := plugin.EncodeRecipient("firntest", []byte(id.Recipient().String()))
	identity := plugin.EncodeIdentity("firntest", []byte(id.String()))

	e, err := NewEncryptor(Age, EncryptOptions{Recipients: []string{recipient}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Encrypt(io.Discard); err == nil || !strings.Contains(err.Error(), "age-plugin-firntest") {
		t.Errorf("missing plugin: %v", err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	whole := encryptAll(t, e, []byte("hello"))

	file := writeFile(t, filepath.Join(bin, "id"), identity+"\n")
	for word, ok := range map[string]bool{"please": true, "now": false} {
		ids, err := ParseIdentityFile(file, func(prompt string) ([]byte, error) {
			if !strings.Contains(prompt, "the word") {
				t.Errorf("prompt %q", prompt)
			}
			return []byte(word), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		d, err := NewDecryptor(Age, Keys{Age: ids})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 3 { // asked one at a time
			wg.Go(func() {
				got, err := decryptAll(d, bytes.NewReader(whole))
				if ok && (err != nil || string(got) != "hello") {
					t.Errorf("%q, %v", got, err)
				}
				if !ok && !errors.Is(err, codec.ErrNoKey) {
					t.Errorf("refused: %v", err)
				}
			})
		}
		wg.Wait()
	}
	t.Setenv("PATH", "/nowhere")
	ids, err := ParseIdentityFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := NewDecryptor(Age, Keys{Age: ids})
	if _, err := decryptAll(d, bytes.NewReader(whole)); !errors.Is(err, codec.ErrNoKey) || !strings.Contains(err.Error(), "age-plugin-firntest") {
		t.Errorf("missing plugin: %v", err)
	}
	// A native identity that fits is tried first, and nothing is run.
	d, _ = NewDecryptor(Age, Keys{Age: append(ids, id)})
	if got, err := decryptAll(d, bytes.NewReader(whole)); err != nil || string(got) != "hello" {
		t.Errorf("native identity beside a missing plugin: %v", err)
	}
}

func BenchmarkAge(b *testing.B) {
	e, d := agePair(b, newIdentity(b))
	plain := noise(10, 16<<20)
	whole := encryptAll(b, e, plain)
	b.Run("encrypt", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			w, err := e.Encrypt(io.Discard)
			if err != nil {
				b.Fatal(err)
			}
			w.Write(plain)
			w.Close()
		}
	})
	b.Run("decrypt", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			r, err := d.Decrypt(bytes.NewReader(whole))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decryptAt 4 MiB", func(b *testing.B) {
		r, _, err := d.DecryptAt(bytes.NewReader(whole), int64(len(whole)))
		if err != nil {
			b.Fatal(err)
		}
		p := make([]byte, 4<<20)
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			if _, err := r.ReadAt(p, 1234567); err != nil {
				b.Fatal(err)
			}
		}
	})
}
