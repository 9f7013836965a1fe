package encrypt

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/firn-backup/firn/internal/codec"
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
	checkWriter(t, e)
	w, err := e.Encrypt(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Error(err)
	}
}
