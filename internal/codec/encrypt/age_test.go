package encrypt

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
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
