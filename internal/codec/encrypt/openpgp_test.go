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
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mustrun"
)

// gpgHome is a keyring of its own for the oracle.
type gpgHome struct {
	t   testing.TB
	dir string
}

func newGPGHome(t testing.TB) *gpgHome {
	t.Helper()
	mustrun.Tool(t, "gpg", "gpgconf")
	dir, err := os.MkdirTemp("/tmp", "g") // short: the agent's socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", dir, "--kill", "all").Run()
		os.RemoveAll(dir)
	})
	return &gpgHome{t, dir}
}

func (g *gpgHome) run(in []byte, args ...string) []byte {
	g.t.Helper()
	return run(g.t, in, append([]string{"gpg", "--homedir", g.dir, "--batch", "--no-tty", "--quiet", "--trust-model", "always"}, args...)...)
}

// generate makes a key; lines are those of gpg's batch key generation.
func (g *gpgHome) generate(lines ...string) {
	g.t.Helper()
	var before []string
	if strings.HasPrefix(lines[0], "--") {
		before = strings.Fields(lines[0])
		lines = lines[1:]
	}
	if !strings.Contains(strings.Join(lines, "\n"), "Passphrase") {
		lines = append([]string{"%no-protection"}, lines...)
	}
	text := strings.Join(lines, "\n") + "\n%commit\n"
	g.run([]byte(text), append(before, "--gen-key")...)
}

const (
	genRSA = "Key-Type: RSA\nKey-Length: 3072\nSubkey-Type: RSA\nSubkey-Length: 3072"
	genCV  = "Key-Type: EDDSA\nKey-Curve: ed25519\nSubkey-Type: ECDH\nSubkey-Curve: cv25519"
)

func (g *gpgHome) file(name string, args ...string) string {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	return writeFile(g.t, path, string(g.run(nil, args...)))
}

func (g *gpgHome) decryptor(files ...string) codec.Decryptor {
	g.t.Helper()
	d, err := NewDecryptor(OpenPGP, Keys{OpenPGPFiles: files, GPGHome: g.dir})
	if err != nil {
		g.t.Fatal(err)
	}
	return d
}

func TestGPG(t *testing.T) {
	t.Parallel()
	g := newGPGHome(t)
	g.generate(genRSA, "Name-Email: rsa@example.org", "Expire-Date: 0")
	g.generate(genCV, "Name-Email: cv@example.org", "Expire-Date: 0")
	g.generate(genCV, "Name-Email: locked@example.org", "Expire-Date: 0", "Passphrase: open sesame")
	g.generate("Key-Type: EDDSA\nKey-Curve: ed25519", "Name-Email: sign@example.org", "Expire-Date: 0")
	g.generate("--faked-system-time 20200101T000000", genCV, "Name-Email: old@example.org", "Expire-Date: 1d")
	g.generate(genCV, "Name-Email: gone@example.org", "Expire-Date: 0")
	g.revoke("gone@example.org")
	g.generate(genCV, "Name-Email: twice@example.org", "Expire-Date: 0")
	g.generate(genCV, "Name-Email: twice@example.org", "Expire-Date: 0")
	g.generate(genCV, "Name-Email: renewed@example.org", "Expire-Date: 0")
	g.generate("--faked-system-time 20200101T000000", genCV, "Name-Email: renewed@example.org", "Expire-Date: 1d")

	for _, name := range []string{"rsa", "cv"} {
		t.Run(name, func(t *testing.T) { testGPGKey(t, &gpgHome{t, g.dir}, name+"@example.org") })
	}
	t.Run("several", func(t *testing.T) { testGPGSeveral(t, &gpgHome{t, g.dir}) })
	t.Run("passphrase", func(t *testing.T) { testGPGPassphrase(t, &gpgHome{t, g.dir}) })
	t.Run("unusable keys", func(t *testing.T) { testGPGUnusable(t, &gpgHome{t, g.dir}) })
	t.Run("expired and revoked keys decrypt", func(t *testing.T) { testGPGOldKeys(t, &gpgHome{t, g.dir}) })
	t.Run("damage", func(t *testing.T) { testGPGDamage(t, &gpgHome{t, g.dir}) })
	t.Run("unprotected", func(t *testing.T) { testGPGUnprotected(t, &gpgHome{t, g.dir}) })
	t.Run("process", func(t *testing.T) { testGPGProcess(t, &gpgHome{t, g.dir}) })
}

func (g *gpgHome) revoke(who string) {
	g.t.Helper()
	list := string(g.run(nil, "--with-colons", "--list-keys", who))
	print := regexp.MustCompile(`(?m)^fpr:+([0-9A-F]{40}):`).FindStringSubmatch(list)[1]
	b, err := os.ReadFile(filepath.Join(g.dir, "openpgp-revocs.d", print+".rev"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.run(bytes.Replace(b, []byte(":-----BEGIN"), []byte("-----BEGIN"), 1), "--import")
}

// testGPGKey: both ways, with the key from the keyring and from files, through
// the library and through gpg.
func testGPGKey(t *testing.T, g *gpgHome, who string) {
	fromRing, err := NewEncryptor(OpenPGP, EncryptOptions{Recipients: []string{who}, GPGHome: g.dir})
	if err != nil {
		t.Fatal(err)
	}
	print := regexp.MustCompile(`(?m)^fpr:+([0-9A-F]{40}):`).FindStringSubmatch(string(g.run(nil, "--with-colons", "--list-keys", who)))[1]
	encryptors := []codec.Encryptor{fromRing}
	for _, o := range []EncryptOptions{
		{Recipients: []string{print}},
		{Recipients: []string{"0x" + print[24:]}},
		{RecipientFiles: []string{g.file("armored", "--armor", "--export", who)}},
		{RecipientFiles: []string{g.file("binary", "--export", who)}},
		{RecipientFiles: []string{g.file("secret", "--armor", "--export-secret-keys", who)}},
	} {
		o.GPGHome = g.dir
		e, err := NewEncryptor(OpenPGP, o)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		encryptors = append(encryptors, e)
	}
	if e := fromRing; e.Name() != "openpgp" || e.Ext() != ".gpg" || e.Geometry() != (codec.Geometry{Whole: true}) {
		t.Errorf("%s %s %+v", e.Name(), e.Ext(), e.Geometry())
	}
	decryptors := map[string]codec.Decryptor{
		"gpg":     g.decryptor(),
		"armored": g.decryptor(g.file("armored.sec", "--armor", "--export-secret-keys", who)),
		"binary":  g.decryptor(g.file("binary.sec", "--export-secret-keys", who)),
	}
	for i, size := range []int{0, 1, 513, 65536, 3_000_000} {
		plain := noise(uint64(size), size)
		ours := encryptAll(t, encryptors[i%len(encryptors)], plain)
		if got := g.run(ours, "--decrypt"); !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: gpg -d differs", size)
		}
		if list := string(g.run(ours, "--list-packets")); !strings.Contains(list, "mdc_method: 2") || strings.Contains(list, "compressed packet") {
			t.Errorf("%d bytes: packets\n%s", size, list)
		}
		messages := map[string][]byte{
			"ours": ours, "gpg's": g.run(plain, "-e", "-r", who), "gpg's, uncompressed": g.run(plain, "-e", "-z", "0", "-r", who),
			"gpg's, signed": g.run(plain, "-se", "-r", who, "-u", "sign@example.org"),
		}
		for from, message := range messages {
			for by, d := range decryptors {
				if got, err := decryptAll(d, bytes.NewReader(message)); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%d bytes, %s, by %s: %v", size, from, by, err)
				}
				if _, _, err := d.DecryptAt(bytes.NewReader(message), int64(len(message))); !errors.Is(err, codec.ErrNotSeekable) {
					t.Errorf("DecryptAt: %v", err)
				}
			}
		}
	}
}

func testGPGSeveral(t *testing.T, g *gpgHome) {
	e, err := NewEncryptor(OpenPGP, EncryptOptions{Recipients: []string{"rsa@example.org", "cv@example.org"}, GPGHome: g.dir})
	if err != nil {
		t.Fatal(err)
	}
	plain := noise(1, 100_000)
	message := encryptAll(t, e, plain)
	for _, who := range []string{"rsa", "cv"} {
		d := g.decryptor(g.file(who+".sec", "--export-secret-keys", who+"@example.org"))
		var done []chan error
		for range 4 {
			c := make(chan error, 1)
			done = append(done, c)
			go func() {
				got, err := decryptAll(d, bytes.NewReader(message))
				if err == nil && !bytes.Equal(got, plain) {
					err = errors.New("differs")
				}
				c <- err
			}()
		}
		for _, c := range done {
			if err := <-c; err != nil {
				t.Errorf("%s: %v", who, err)
			}
		}
	}
	// A key that it is not for, in a file and in a keyring.
	d := g.decryptor(g.file("sign.sec", "--export-secret-keys", "sign@example.org"))
	if _, err := decryptAll(d, bytes.NewReader(message)); !errors.Is(err, codec.ErrNoKey) {
		t.Errorf("foreign key file: %v", err)
	}
	other := newGPGHome(t)
	if _, err := decryptAll(other.decryptor(), bytes.NewReader(message)); !errors.Is(err, codec.ErrNoKey) {
		t.Errorf("foreign keyring: %v", err)
	}
	if _, err := NewDecryptor(OpenPGP, Keys{OpenPGPFiles: []string{g.file("pub", "--export", "cv@example.org")}}); !errors.Is(err, codec.ErrNoKey) {
		t.Errorf("public key file: %v", err)
	}
	if _, err := NewDecryptor(OpenPGP, Keys{GPG: "/nowhere/gpg"}); !errors.Is(err, codec.ErrNoKey) {
		t.Errorf("no gpg: %v", err)
	}
}

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

// TestSEIPDv2Key: a key that advertises the new packet still gets the old one,
// which all versions of GnuPG read.
func TestSEIPDv2Key(t *testing.T) {
	t.Parallel()
	config := &packet.Config{AEADConfig: &packet.AEADConfig{}, Algorithm: packet.PubKeyAlgoEdDSA}
	entity, err := openpgp.NewEntity("new", "", "new@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	if sig, _ := entity.PrimarySelfSignature(time.Now(), config); sig == nil || !sig.SEIPDv2 {
		t.Fatal("the key does not advertise it")
	}
	var pub, sec bytes.Buffer
	if err := errors.Join(entity.Serialize(&pub), entity.SerializePrivate(&sec, config)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	e, err := NewEncryptor(OpenPGP, EncryptOptions{RecipientFiles: []string{writeFile(t, filepath.Join(dir, "pub"), pub.String())}})
	if err != nil {
		t.Fatal(err)
	}
	message := encryptAll(t, e, []byte("hello"))
	packets := packet.NewReader(bytes.NewReader(message))
	for {
		p, err := packets.Next()
		if err != nil {
			t.Fatal(err)
		}
		if se, ok := p.(*packet.SymmetricallyEncrypted); ok {
			if se.Version != 1 || !se.IntegrityProtected {
				t.Errorf("packet of version %d", se.Version)
			}
			break
		}
	}
	d, err := NewDecryptor(OpenPGP, Keys{OpenPGPFiles: []string{writeFile(t, filepath.Join(dir, "sec"), sec.String())}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decryptAll(d, bytes.NewReader(message)); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}

	// Keys of version 6 are refused: GnuPG 2.2 knows none.
	config.V6Keys, config.Algorithm = true, packet.PubKeyAlgoEd25519
	entity, err = openpgp.NewEntity("six", "", "six@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	pub.Reset()
	if err := entity.Serialize(&pub); err != nil {
		t.Fatal(err)
	}
	_, err = NewEncryptor(OpenPGP, EncryptOptions{RecipientFiles: []string{writeFile(t, filepath.Join(dir, "six"), pub.String())}})
	if err == nil || !strings.Contains(err.Error(), "version 6") {
		t.Errorf("version 6: %v", err)
	}
}

func TestPGPWriter(t *testing.T) {
	t.Parallel()
	config := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}
	entity, err := openpgp.NewEntity("x", "", "x@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	key, err := encryptionKey(entity, pgpConfig(time.Now))
	if err != nil {
		t.Fatal(err)
	}
	e := &pgpEncryptor{[]*packet.PublicKey{key}, pgpConfig(time.Now)}
	full := errors.New("disk is full")
	for _, room := range []int{0, 10, 120, 100_000} {
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
	w, err := e.Encrypt(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("write after close succeeds")
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
