package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
)

func testGPGPassphrase(t *testing.T, g *gpgHome) {
	sec := g.file("locked.sec", "--armor", "--pinentry-mode", "loopback", "--passphrase", "open sesame", "--export-secret-keys", "locked@example.org")
	e, err := NewEncryptor(OpenPGP, EncryptOptions{Recipients: []string{"locked@example.org"}, GPGHome: g.dir})
	if err != nil {
		t.Fatal(err)
	}
	message := encryptAll(t, e, []byte("hello"))
	asked := 0
	d, err := NewDecryptor(OpenPGP, Keys{OpenPGPFiles: []string{sec}, Passphrase: func(prompt string) ([]byte, error) {
		asked++
		return []byte("open sesame"), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := decryptAll(d, bytes.NewReader(message)); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	for _, ask := range []func(string) ([]byte, error){nil, answer("wrong"), func(string) ([]byte, error) { return nil, errors.New("nobody") }} {
		d, err := NewDecryptor(OpenPGP, Keys{OpenPGPFiles: []string{sec}, Passphrase: ask})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decryptAll(d, bytes.NewReader(message)); !errors.Is(err, codec.ErrNoKey) {
			t.Errorf("without the passphrase: %v", err)
		}
	}
	symmetric := g.run([]byte("hello"), "-c", "--pinentry-mode", "loopback", "--passphrase", "x")
	if _, err := decryptAll(d, bytes.NewReader(symmetric)); !errors.Is(err, codec.ErrNoKey) {
		t.Errorf("encrypted by a passphrase: %v", err)
	}
}

func testGPGUnusable(t *testing.T, g *gpgHome) {
	for who, want := range map[string]string{
		"old@example.org": "has expired", "gone@example.org": "is revoked", "sign@example.org": "cannot be encrypted to",
		"twice@example.org": "means 2 keys", "nobody@example.org": "has no key", "example.org": "", "--version": "has no key", "": "",
	} {
		o := EncryptOptions{Recipients: []string{who}, GPGHome: g.dir}
		if _, err := NewEncryptor(OpenPGP, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", who, err)
		} else if failure.KindOf(err) != failure.Usage && who != "" {
			t.Errorf("%s: %v is not failure.Usage", who, err)
		}
		if want == "" || strings.HasPrefix(want, "has no") || strings.HasPrefix(want, "means") {
			continue
		}
		o = EncryptOptions{RecipientFiles: []string{g.file("unusable", "--armor", "--export", who)}}
		if _, err := NewEncryptor(OpenPGP, o); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), who) {
			t.Errorf("file of %s: %v", who, err)
		}
	}
	// Of two keys with an address, the one that has not expired is meant.
	if _, err := NewEncryptor(OpenPGP, EncryptOptions{Recipients: []string{"renewed@example.org"}, GPGHome: g.dir}); err != nil {
		t.Errorf("renewed: %v", err)
	}
	// The clock decides.
	then := func() time.Time { return time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC) }
	if _, err := NewEncryptor(OpenPGP, EncryptOptions{Recipients: []string{"old@example.org"}, GPGHome: g.dir, Now: then}); err != nil {
		t.Errorf("old key in its time: %v", err)
	}
	for _, path := range []string{writeFile(t, filepath.Join(g.dir, "garbage"), "garbage"), writeFile(t, filepath.Join(g.dir, "empty"), "")} {
		if _, err := NewEncryptor(OpenPGP, EncryptOptions{RecipientFiles: []string{path}}); !errors.Is(err, codec.ErrDamaged) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := NewEncryptor(OpenPGP, EncryptOptions{RecipientFiles: []string{"/nowhere/key"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := NewEncryptor(OpenPGP, EncryptOptions{Recipients: []string{"x"}, GPG: "/nowhere/gpg"}); err == nil {
		t.Error("no gpg")
	}
}

// testGPGOldKeys: what was encrypted while a key was good can be read for ever.
func testGPGOldKeys(t *testing.T, g *gpgHome) {
	then := func() time.Time { return time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC) }
	e, err := NewEncryptor(OpenPGP, EncryptOptions{Recipients: []string{"old@example.org"}, GPGHome: g.dir, Now: then})
	if err != nil {
		t.Fatal(err)
	}
	message := encryptAll(t, e, []byte("hello"))
	for by, d := range map[string]codec.Decryptor{"gpg": g.decryptor(), "library": g.decryptor(g.file("old.sec", "--export-secret-keys", "old@example.org"))} {
		if got, err := decryptAll(d, bytes.NewReader(message)); err != nil || string(got) != "hello" {
			t.Errorf("expired, %s: %q, %v", by, got, err)
		}
	}
	// Encrypted before it was revoked: written here past the check.
	ring, err := readKeyRing(g.file("gone.pub", "--export", "gone@example.org"))
	if err != nil {
		t.Fatal(err)
	}
	message = encryptAll(t, &pgpEncryptor{[]*packet.PublicKey{ring[0].Subkeys[0].PublicKey}, pgpConfig(time.Now)}, []byte("hello"))
	for by, d := range map[string]codec.Decryptor{"gpg": g.decryptor(), "library": g.decryptor(g.file("gone.sec", "--export-secret-keys", "gone@example.org"))} {
		if got, err := decryptAll(d, bytes.NewReader(message)); err != nil || string(got) != "hello" {
			t.Errorf("revoked, %s: %q, %v", by, got, err)
		}
	}
}

// testGPGDamage: flipped bits, cuts and additions anywhere are errors, and a
// broken line is another one.
func testGPGDamage(t *testing.T, g *gpgHome) {
	e, err := NewEncryptor(OpenPGP, EncryptOptions{Recipients: []string{"cv@example.org"}, GPGHome: g.dir})
	if err != nil {
		t.Fatal(err)
	}
	library, program := g.decryptor(g.file("damage.sec", "--export-secret-keys", "cv@example.org")), g.decryptor()
	short, long := noise(1, 40), noise(2, 200_000)
	r := rand.New(rand.NewPCG(3, 3))

	message := encryptAll(t, e, short)
	flip := func(d codec.Decryptor, b, plain []byte, bit int) {
		b = bytes.Clone(b)
		b[bit/8] ^= 1 << (bit % 8)
		got, err := decryptAll(d, bytes.NewReader(b))
		if err == nil && bytes.Equal(got, plain) && bit/8 < 120 {
			return // bits of the session key packet that mean nothing, such as an old style length
		}
		if !errors.Is(err, codec.ErrDamaged) && !errors.Is(err, codec.ErrNoKey) {
			t.Errorf("%T: bit %d of byte %d of %d: %v", d, bit%8, bit/8, len(b), err)
		}
		if errors.Is(err, codec.ErrNoKey) && bit/8 > 120 {
			t.Errorf("%T: bit %d of byte %d of %d is not a matter of keys: %v", d, bit%8, bit/8, len(b), err)
		}
	}
	for bit := range 8 * len(message) {
		flip(library, message, short, bit)
	}
	for range 12 {
		flip(program, message, short, r.IntN(8*len(message)))
	}
	message = encryptAll(t, e, long)
	for range 60 {
		flip(library, message, long, r.IntN(8*len(message)))
	}
	for range 6 {
		flip(program, message, long, r.IntN(8*len(message)))
	}

	broken := errors.New("line is broken")
	for _, d := range []codec.Decryptor{library, program} {
		cuts := []int{0, 1, 50, 150, len(message) / 2, 65536, 2 * 65536, len(message) - 23, len(message) - 22, len(message) - 21, len(message) - 1}
		for _, cut := range cuts {
			if _, err := decryptAll(d, bytes.NewReader(message[:cut])); !errors.Is(err, codec.ErrDamaged) {
				t.Errorf("%T: cut at %d: %v", d, cut, err)
			}
			_, err := decryptAll(d, io.MultiReader(bytes.NewReader(message[:cut]), iotest.ErrReader(broken)))
			if !errors.Is(err, broken) || errors.Is(err, codec.ErrDamaged) || errors.Is(err, codec.ErrNoKey) {
				t.Errorf("%T: line broken at %d: %v", d, cut, err)
			}
		}
		for _, extra := range [][]byte{{0}, []byte("garbage"), message, make([]byte, 1000)} {
			got, err := decryptAll(d, bytes.NewReader(append(bytes.Clone(message), extra...)))
			if err == nil && !bytes.Equal(got, long) {
				t.Errorf("%T: %d bytes more change the plaintext", d, len(extra))
			}
			if d == library && !errors.Is(err, codec.ErrDamaged) {
				t.Errorf("%T: %d bytes more: %v", d, len(extra), err)
			}
		}
		if _, err := decryptAll(d, strings.NewReader("this is no message at all, and no OpenPGP either")); !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%T: garbage: %v", d, err)
		}
	}
}

// testGPGUnprotected: what was not encrypted, or has no checksum, is refused.
func testGPGUnprotected(t *testing.T, g *gpgHome) {
	library, program := g.decryptor(g.file("un.sec", "--export-secret-keys", "cv@example.org")), g.decryptor()
	signed := g.run([]byte("hello"), "-s", "-u", "sign@example.org")
	stored := g.run([]byte("hello"), "--store")
	for _, message := range [][]byte{signed, stored} {
		for _, d := range []codec.Decryptor{library, program} {
			if _, err := decryptAll(d, bytes.NewReader(message)); !errors.Is(err, codec.ErrDamaged) || !strings.Contains(err.Error(), "not encrypted") {
				t.Errorf("%T: %v", d, err)
			}
		}
	}
	// The old packet without checksum: made of a protected one's session key.
	ring, err := readKeyRing(g.file("un.pub", "--export", "cv@example.org"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := encryptionKey(ring[0], pgpConfig(time.Now))
	if err != nil {
		t.Fatal(err)
	}
	var old bytes.Buffer
	session := noise(4, 32)
	if err := packet.SerializeEncryptedKeyAEADwithHiddenOption(&old, key, packet.CipherAES256, false, session, false, nil); err != nil {
		t.Fatal(err)
	}
	old.Write(append([]byte{0xc0 | 9, 40}, noise(5, 40)...))
	for _, d := range []codec.Decryptor{library, program} {
		if _, err := decryptAll(d, bytes.NewReader(old.Bytes())); !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%T, no checksum: %v", d, err)
		}
	}
}

// testGPGProcess: the program does not outlive its reader.
func testGPGProcess(t *testing.T, g *gpgHome) {
	e, err := NewEncryptor(OpenPGP, EncryptOptions{Recipients: []string{"cv@example.org"}, GPGHome: g.dir})
	if err != nil {
		t.Fatal(err)
	}
	message := encryptAll(t, e, noise(6, 3_000_000))
	start := func() (io.Reader, *os.Process) {
		r, err := g.decryptor().Decrypt(bytes.NewReader(message))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		return r, r.(*gpgReader).p.cmd.Process
	}
	r, p := start()
	if err := r.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read after close: %v", err)
	}
	if err := p.Signal(syscall.Signal(0)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the program runs after Close: %v", err)
	}
	r, p = start()
	runtime.KeepAlive(r)
	r = nil // dropped in the middle
	for deadline := time.Now().Add(30 * time.Second); !errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone); runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("the program outlives its reader")
		}
	}
}

func TestGPGTalk(t *testing.T) {
	t.Parallel()
	var talk gpgTalk
	for _, s := range []string{"[GNUPG:] DECRYPTION_", "OKAY\ngpg: hel", "lo\n\n", strings.Repeat("x", 100_000), "\n[GNUPG:] NO_SECKEY ABC\n"} {
		fmt.Fprint(&talk, s)
	}
	if !talk.said("DECRYPTION_OKAY") || !talk.said("NO_SECKEY") || talk.said("ABC") || talk.text() != ": gpg: hello" {
		t.Errorf("%v %q", talk.status, talk.text())
	}
}
