package encrypt

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mustrun"
)

func answer(s string) func(string) ([]byte, error) {
	return func(string) ([]byte, error) { return []byte(s), nil }
}

func TestWrap(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	text := []byte("# key\n" + id.String() + "\n")
	wrapped, err := Wrap(text, []byte("open sesame"), 8)
	if err != nil {
		t.Fatal(err)
	}
	if !IsWrapped(wrapped) || IsWrapped(text) || bytes.Contains(wrapped, []byte("SECRET")) {
		t.Fatalf("%s", wrapped)
	}
	if plain, err := Unwrap(wrapped, []byte("open sesame")); err != nil || !bytes.Equal(plain, text) {
		t.Errorf("%q, %v", plain, err)
	}
	for _, wrong := range []string{"open sesame ", "x", ""} {
		if _, err := Unwrap(wrapped, []byte(wrong)); !errors.Is(err, codec.ErrNoKey) || errors.Is(err, codec.ErrDamaged) {
			t.Errorf("passphrase %q: %v", wrong, err)
		}
	}
	for _, n := range []int{40, len(wrapped) / 2, len(wrapped) - 10} {
		if _, err := Unwrap(wrapped[:n], []byte("open sesame")); !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if _, err := Wrap(text, nil, 8); err == nil {
		t.Error("an empty passphrase wraps")
	}
	// What costs a gigabyte and more to open is refused.
	costly := bytes.Replace(mustBinary(t, text, "p", 8), []byte(" 8\n"), []byte(" 25\n"), 1)
	if _, err := Unwrap(costly, []byte("p")); !errors.Is(err, codec.ErrDamaged) {
		t.Errorf("work factor 25: %v", err)
	}
	// Encrypted to a key, it is no identity file under a passphrase.
	e, _ := agePair(t, id)
	if _, err := Unwrap(encryptAll(t, e, text), []byte("p")); !errors.Is(err, codec.ErrNoKey) || !strings.Contains(err.Error(), "not encrypted by a passphrase") {
		t.Errorf("encrypted to a key: %v", err)
	}
	binary := mustBinary(t, text, "p", 8)
	armored, err := Armor(binary)
	if err != nil || !isArmored(armored) {
		t.Fatal(err)
	}
	if plain, err := Unwrap(armored, []byte("p")); err != nil || !bytes.Equal(plain, text) {
		t.Error(err)
	}
}

func mustBinary(t *testing.T, text []byte, pass string, factor int) []byte {
	t.Helper()
	r, err := age.NewScryptRecipient(pass)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(factor)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(text)
	w.Close()
	return out.Bytes()
}

func TestParseIdentityFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := newIdentity(t), newIdentity(t)
	pq, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	lines := fmt.Sprintf("# created\n%s\n\n  %s\r\n%s", a, pq, b)
	want := []string{a.Recipient().String(), pq.Recipient().String(), b.Recipient().String()}
	for name, text := range map[string][]byte{
		"plain":   []byte(lines),
		"binary":  mustBinary(t, []byte(lines), "pass", 8),
		"armored": func() []byte { w, _ := Wrap([]byte(lines), []byte("pass"), 8); return w }(),
	} {
		path := writeFile(t, filepath.Join(dir, name), string(text))
		ids, err := ParseIdentityFile(path, answer("pass"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, id := range ids {
			got = append(got, id.(*Identity).Recipient())
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		if name == "plain" {
			continue
		}
		for _, ask := range []func(string) ([]byte, error){nil, answer("wrong"), func(string) ([]byte, error) { return nil, errors.New("nobody") }} {
			if _, err := ParseIdentityFile(path, ask); !errors.Is(err, codec.ErrNoKey) {
				t.Errorf("%s without the passphrase: %v", name, err)
			}
		}
	}
	if _, err := ParseIdentityFile(filepath.Join(dir, "missing"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	secret := a.String()
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing\n", "recipient": a.Recipient().String(), "garbage": "\x00\xff\n",
		"cut": secret[:len(secret)-1], "mistyped": strings.Replace(secret, secret[30:31], "B", 1), "pem": "-----BEGIN RSA PRIVATE KEY-----\nxx\n",
		"plugin": "AGE-PLUGIN-X-1QQQQ", "pq": "AGE-SECRET-KEY-PQ-1QQQ",
	} {
		_, err := ParseIdentityFile(writeFile(t, filepath.Join(dir, name), text), nil)
		if !errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), secret[20:40]) {
			t.Errorf("%s: the error repeats the secret", name)
		}
	}
}

func TestIdentityDoesNotPrint(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	ids, err := ParseIdentities([]byte(id.String()), IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "id", ids[0], "ids", ids)
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d", ids[0], ids[0], ids[0], ids[0], ids[0], ids[0], ids[0]) + fmt.Sprintf("%v %+v %#v", ids, ids, ids) + log.String()
	if strings.Contains(all, "SECRET") || strings.Contains(all, id.String()[20:]) {
		t.Errorf("%s", all)
	}
}

// TestSSHPassphrase: keys under a passphrase, in the new form and in the old
// one, which does not say whose key it is.
func TestSSHPassphrase(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "ssh-keygen")
	for _, args := range [][]string{{"-t", "ed25519"}, {"-t", "rsa", "-b", "2048"}, {"-t", "rsa", "-b", "2048", "-m", "PEM"}} {
		path := filepath.Join(t.TempDir(), "key")
		run(t, nil, append([]string{"ssh-keygen", "-q", "-N", "secret word", "-f", path}, args...)...)
		public, err := os.ReadFile(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEncryptor(Age, EncryptOptions{Recipients: []string{string(public)}})
		if err != nil {
			t.Fatal(err)
		}
		whole := encryptAll(t, e, []byte("hello"))
		open := func(ask func(string) ([]byte, error)) error {
			ids, err := ParseIdentityFile(path, ask)
			if err != nil {
				return err
			}
			d, err := NewDecryptor(Age, Keys{Age: ids})
			if err != nil {
				return err
			}
			got, err := decryptAll(d, bytes.NewReader(whole))
			if err == nil && string(got) != "hello" {
				t.Errorf("%v: %q", args, got)
			}
			return err
		}
		if err := open(answer("secret word")); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		for _, ask := range []func(string) ([]byte, error){nil, answer("wrong")} {
			if err := open(ask); !errors.Is(err, codec.ErrNoKey) {
				t.Errorf("%v without the passphrase: %v", args, err)
			}
		}
	}
}

func TestBadRecipients(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	id := newIdentity(t)
	pq, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	good := id.Recipient().String()
	for name, list := range map[string][]string{
		"none": nil, "empty": {""}, "private": {id.String()}, "lower private": {strings.ToLower(id.String())}, "passphrase": {"correct horse"},
		"cut": {good[:len(good)-1]}, "mistyped": {good[:20] + "b" + good[21:]}, "ssh": {"ssh-ed25519 AAAA"}, "ecdsa": {"ssh-ecdsa AAAA x"},
		"pq and classic": {pq.Recipient().String(), good}, "plugin": {"age1x1qqqq"}, "second": {good, "x"},
		"pem": {"-----BEGIN OPENSSH PRIVATE KEY-----"}, "scrypt": {"scrypt"},
	} {
		_, err := NewEncryptor(Age, EncryptOptions{Recipients: list})
		if failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(strings.ToUpper(err.Error()), "SECRET-KEY-1") || strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: the error repeats it: %v", name, err)
		}
		if len(list) == 0 {
			continue
		}
		path := writeFile(t, filepath.Join(dir, name), strings.Join(list, "\n"))
		if _, err := NewEncryptor(Age, EncryptOptions{RecipientFiles: []string{path}}); err == nil {
			t.Errorf("%s: a file is taken", name)
		}
	}
	if _, err := NewEncryptor(Age, EncryptOptions{RecipientFiles: []string{filepath.Join(dir, "missing")}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	// The same one twice is once.
	e, err := NewEncryptor(Age, EncryptOptions{Recipients: []string{good, good}})
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(encryptAll(t, e, nil), []byte("-> X25519 ")); n != 1 {
		t.Errorf("%d stanzas", n)
	}
}

// TestAgeOpensWrapped: the program takes what Wrap wrote. It asks on a terminal
// only, so the reverse (see TestWrap) uses the library both ways.
func TestWrapIsRandom(t *testing.T) {
	t.Parallel()
	text := make([]byte, 100)
	rand.Read(text)
	a, err := Wrap(text, []byte("p"), 2)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Wrap(text, []byte("p"), 2)
	if err != nil || bytes.Equal(a, b) {
		t.Error("wrapped twice the same", err)
	}
}
