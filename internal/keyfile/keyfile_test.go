package keyfile

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/mustrun"
)

var testTime = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)

const testFactor = 8 // scrypt's, for speed

func newKey(t testing.TB) *Key {
	t.Helper()
	k, err := New(testTime, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func secretsOf(k *Key) []string {
	all := append([]string{}, k.in().lines...)
	if k.in().signer != nil {
		all = append(all, bech32Encode(seedPrefix, k.in().signer.Seed()))
	}
	return all
}

func same(t testing.TB, got, want *Key) {
	t.Helper()
	if fmt.Sprint(got.in().lines) != fmt.Sprint(want.in().lines) || !got.Signer().Equal(want.Signer()) || got.Recipient() != want.Recipient() ||
		!got.Created().Equal(want.Created()) || got.SigningKey() != want.SigningKey() || len(got.Identities()) != len(want.Identities()) {
		t.Errorf("%v is not %v", got, want)
	}
}

func pass(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s), nil } }

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func encryptTo(t testing.TB, recipient string) []byte {
	t.Helper()
	r, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("hello"))
	w.Close()
	return out.Bytes()
}

func TestNew(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	if !strings.HasPrefix(k.Recipient(), "age1") || !strings.HasPrefix(k.SigningKey(), "ed25519:") || len(k.Identities()) != 1 ||
		len(k.Recipients()) != 1 || !k.Created().Equal(testTime) || k.Wrapped() || k.WrappedText() != "" {
		t.Errorf("%v", k)
	}
	r, err := age.Decrypt(bytes.NewReader(encryptTo(t, k.Recipient())), k.Identities()...)
	if err != nil || r == nil {
		t.Error(err)
	}
	pub, err := ParseSigningKey(k.SigningKey())
	if err != nil || !ed25519.Verify(pub, []byte("m"), ed25519.Sign(k.Signer(), []byte("m"))) {
		t.Error(err)
	}
	if _, err := New(testTime, strings.NewReader("too little")); err == nil {
		t.Error("a key of too little randomness")
	}
	if a, b := newKey(t), newKey(t); a.Recipient() == b.Recipient() || a.SigningKey() == b.SigningKey() {
		t.Error("two keys are the same")
	}
	n, err := k.WithNewSigner(nil)
	if err != nil || n.SigningKey() == k.SigningKey() || n.Recipient() != k.Recipient() {
		t.Errorf("%v %v", n, err)
	}
}

func TestParseSigningKey(t *testing.T) {
	t.Parallel()
	good := newKey(t).SigningKey()
	for _, bad := range []string{"", "x", good[1:], good[:len(good)-1], good + "A", good + "=", good + "\n", good[:8] + "=" + good[9:], good[:len(good)-1] + "B",
		strings.Replace(good, "ed25519", "ED25519", 1), newKey(t).Recipient(), "ed25519:"} {
		if _, err := ParseSigningKey(bad); failure.KindOf(err) != failure.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSaveLoad(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "firn")
	path := filepath.Join(dir, "key.txt")
	k := newKey(t)
	if _, err := Load(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := k.Save(path, nil); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]fs.FileMode{path: 0o600, dir: 0o700, filepath.Dir(dir): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", p, info.Mode(), err)
		}
	}
	got, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, k)
	if got.Warning != "" || got.Wrapped() {
		t.Errorf("%q", got.Warning)
	}
	before, _ := os.ReadFile(path)
	for _, p := range [][]byte{nil, []byte("x")} {
		if err := newKey(t).SaveWith(path, SaveOptions{Passphrase: p, WorkFactor: testFactor}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("second save: %v", err)
		}
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the key was overwritten")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if got, err = Load(path, nil); err != nil || !strings.Contains(got.Warning, path) || !strings.Contains(got.Warning, "0640") {
		t.Errorf("%q, %v", got.Warning, err)
	}
	if err := (&Key{}).Save(filepath.Join(dir, "empty"), nil); err == nil {
		t.Error("an empty key is saved")
	}
	if err := k.Save(filepath.Join(dir, "nopass"), []byte{}); failure.KindOf(err) != failure.Usage {
		t.Errorf("empty passphrase: %v", err)
	}
}

func TestWrapped(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key.txt")
	k := newKey(t)
	if err := k.SaveWith(path, SaveOptions{Passphrase: []byte("open sesame"), WorkFactor: testFactor}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || !k.Wrapped() || k.WrappedText() != string(b) || !strings.HasPrefix(string(b), "-----BEGIN AGE ENCRYPTED FILE-----") {
		t.Fatalf("%v %s", err, b)
	}
	writer, err := os.ReadFile(WriterPath(path))
	if err != nil || bytes.Contains(writer, []byte("AGE-SECRET")) {
		t.Fatalf("%v %s", err, writer)
	}
	if info, _ := os.Stat(WriterPath(path)); info.Mode().Perm() != 0o600 {
		t.Errorf("writer file %v", info.Mode())
	}
	got, err := Load(path, pass("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, k)
	if !got.Wrapped() || got.WrappedText() != string(b) {
		t.Error("not wrapped")
	}
	_, err = Load(path, pass("wrong"))
	if failure.KindOf(err) != failure.NoKey || !strings.Contains(err.Error(), "wrong passphrase") || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) {
		t.Errorf("wrong passphrase: %v", err)
	}
	stop := errors.New("interrupted")
	if _, err := Load(path, func() ([]byte, error) { return nil, stop }); !errors.Is(err, stop) || failure.KindOf(err) != failure.NoKey {
		t.Errorf("no answer: %v", err)
	}
	for _, ask := range []func() ([]byte, error){nil, func() ([]byte, error) { return nil, ErrLocked }} {
		got, err = Load(path, ask)
		if err != nil || len(got.Identities()) != 0 || !got.Signer().Equal(k.Signer()) || got.Recipient() != k.Recipient() || got.WrappedText() != string(b) {
			t.Fatalf("unattended: %v, %v", got, err)
		}
		if err := got.Save(path+"2", nil); failure.KindOf(err) != failure.NoKey {
			t.Errorf("locked key saved: %v", err)
		}
	}
	// The wrapped copy alone, as it lies in the vault, gives everything back.
	alone := write(t, filepath.Join(t.TempDir(), "key"), got.WrappedText())
	if got, err = Load(alone, pass("open sesame")); err != nil {
		t.Fatal(err)
	}
	same(t, got, k)
	if _, err := Load(alone, nil); failure.KindOf(err) != failure.NoKey {
		t.Errorf("unattended without writer file: %v", err)
	}
	if err := got.SaveWriter(WriterPath(alone)); err != nil {
		t.Error(err)
	}
	if got, err := Load(alone, nil); err != nil || !got.Signer().Equal(k.Signer()) {
		t.Error(err)
	}
	// A second save fails before it touches anything.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := k.SaveWith(path, SaveOptions{Passphrase: []byte("x"), WorkFactor: testFactor}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a writer file: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a key without its writer file was left")
	}
}

func TestWriterFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := newKey(t)
	beside, direct := filepath.Join(dir, "a", "key.txt"), filepath.Join(dir, "b", "key.txt")
	if err := errors.Join(k.SaveWriter(WriterPath(beside)), k.SaveWriter(direct)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{beside, direct} {
		got, err := Load(path, nil)
		if err != nil || len(got.Identities()) != 0 || !got.Signer().Equal(k.Signer()) || got.Recipient() != k.Recipient() || got.Wrapped() {
			t.Errorf("%v %v", got, err)
		}
	}
	got, err := Load(direct, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Save(filepath.Join(dir, "copy"), nil); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "copy")); !strings.HasPrefix(string(b), "# firn-writer-file") {
		t.Errorf("%s", b)
	}
}

func TestForeignFiles(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "ssh-keygen", "age-keygen")
	dir := t.TempDir()
	out, err := exec.Command("age-keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	a, b := newKey(t), newKey(t)
	pluginID := plugin.EncodeIdentity("yubikey", []byte{1, 2, 3})
	pluginRecipient := plugin.EncodeRecipient("yubikey", []byte{4, 5, 6})
	for name, c := range map[string]struct {
		text       string
		ids        int
		recipients string
	}{
		"age-keygen": {string(out), 1, strings.TrimSpace(strings.Split(strings.Split(string(out), "public key: ")[1], "\n")[0])},
		"bare":       {a.in().lines[0], 1, a.Recipient()},
		"several":    {a.in().lines[0] + "\r\n# and\n\n" + b.in().lines[0] + "\n", 2, a.Recipient() + " " + b.Recipient()},
		"plugin":     {"#       Serial: 1\n#    Recipient: " + pluginRecipient + "\n" + pluginID + "\n", 1, pluginRecipient},
	} {
		k, err := Load(write(t, filepath.Join(dir, name), c.text), nil)
		if err != nil || len(k.Identities()) != c.ids || strings.Join(k.Recipients(), " ") != c.recipients || k.Signer() != nil || k.SigningKey() != "" {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
	for _, phrase := range []string{"", "secret word"} {
		path := filepath.Join(dir, "ssh"+phrase)
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-f", path).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		k, err := Load(path, pass(phrase))
		if err != nil || len(k.Identities()) != 1 || !strings.HasPrefix(k.Recipient(), "ssh-ed25519 ") || k.Signer() != nil {
			t.Errorf("ssh: %v, %v", k, err)
		}
		if err := k.Save(filepath.Join(dir, "copy"), nil); err == nil {
			t.Error("an SSH key is saved")
		}
	}
	if _, err := Load(filepath.Join(dir, "sshsecret word"), nil); failure.KindOf(err) != failure.NoKey {
		t.Errorf("ssh without its passphrase: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k, other := newKey(t), newKey(t)
	text := k.in().text()
	var wrapped string
	{
		c := *k
		if err := c.SaveWith(filepath.Join(dir, "w"), SaveOptions{Passphrase: []byte("p"), WorkFactor: testFactor}); err != nil {
			t.Fatal(err)
		}
		wrapped = c.WrappedText()
	}
	identity, seed := secretsOf(k)[0], secretsOf(k)[1]
	cases := map[string]string{
		"empty": "", "garbage": "\x00\xff\xfe", "comments only": "# nothing\n", "too long": strings.Repeat("#\n", 1<<20),
		"future format": strings.Replace(text, "file: 1", "file: 2", 1),
		"foreign seed":  strings.Replace(text, seed, secretsOf(other)[1], 1), "foreign identity": strings.Replace(text, identity, secretsOf(other)[0], 1),
		"two seeds": text + "# firn-signing-seed: " + secretsOf(other)[1] + "\n", "mistyped seed": strings.Replace(text, seed[30:], "Q"+seed[31:], 1),
		"wrapped, cut": wrapped[:len(wrapped)/2], "wrapped, no end": strings.TrimSuffix(wrapped, "-----END AGE ENCRYPTED FILE-----\n"),
		"wrapped, changed": wrapped[:len(wrapped)-60] + "AAAA" + wrapped[len(wrapped)-56:],
		"recipient":        k.Recipient() + "\n",
	}
	for cut := 25; cut < len(text)-1; cut += 7 {
		cases[fmt.Sprint("cut at ", cut)] = text[:cut]
	}
	for name, text := range cases {
		if name == "mistyped seed" && seed[30] == 'Q' {
			continue
		}
		_, err := Load(write(t, filepath.Join(dir, "key"), text), pass("p"))
		if failure.KindOf(err) != failure.Damaged {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if msg := err.Error(); strings.Contains(msg, "\n") || strings.Contains(msg, identity[20:40]) || strings.Contains(msg, seed[20:40]) || !strings.Contains(msg, dir) {
			t.Errorf("%s: %s", name, msg)
		}
	}
}

// TestDoesNotPrint: no verb, encoder or logger shows a secret, however the key
// is wrapped.
func TestDoesNotPrint(t *testing.T) {
	t.Parallel()
	k := newKey(t)
	if err := k.SaveWith(filepath.Join(t.TempDir(), "k"), SaveOptions{Passphrase: []byte("p"), WorkFactor: testFactor}); err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Public  Key
		private Key
		pointer *Key
		any     any
	}
	h := holder{*k, *k, k, k}
	var all strings.Builder
	for _, v := range []any{k, *k, h, &h, []*Key{k}, []Key{*k}, map[string]Key{"k": *k}, k.Identities(), k.Identities()[0]} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
			fmt.Fprintf(&all, verb+"\n", v)
		}
	}
	log := slog.New(slog.NewJSONHandler(&all, nil))
	log.Info("x", "k", k, "v", *k, "h", h, "ids", k.Identities())
	slog.New(slog.NewTextHandler(&all, nil)).Info("x", "k", k, "v", *k, "h", h, "ids", k.Identities())
	b, err := json.Marshal(map[string]any{"k": k, "v": *k, "h": h.Public})
	if err != nil {
		t.Error(err)
	}
	all.Write(b)
	text := strings.ToUpper(all.String())
	for _, secret := range secretsOf(k) {
		if strings.Contains(text, secret[24:]) || strings.Contains(text, secret) {
			t.Errorf("a secret is printed: %s", all.String())
		}
	}
	for _, raw := range []string{fmt.Sprint([]byte(k.in().signer.Seed())[:6]), fmt.Sprintf("%x", k.in().signer.Seed()), "SECRET-KEY", "SIGNING-SEED"} {
		if strings.Contains(text, strings.ToUpper(strings.Trim(raw, "[]"))) {
			t.Errorf("%s is printed", raw)
		}
	}
	if !strings.Contains(all.String(), k.Recipient()) {
		t.Error("not even the recipient is printed")
	}
}

// TestAgeProgram: plain age takes the file, and asks for its passphrase.
func TestAgeProgram(t *testing.T) {
	t.Parallel()
	mustrun.Tool(t, "age", "script")
	dir := t.TempDir()
	k := newKey(t)
	plain, wrapped, volume := filepath.Join(dir, "key.txt"), filepath.Join(dir, "wrapped.txt"), filepath.Join(dir, "v.age")
	if err := k.Save(plain, nil); err != nil {
		t.Fatal(err)
	}
	if err := k.SaveWith(wrapped, SaveOptions{Passphrase: []byte("open sesame"), WorkFactor: testFactor}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(volume, encryptTo(t, k.Recipient()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("age", "-d", "-i", plain, volume).CombinedOutput()
	if err != nil || string(out) != "hello" {
		t.Errorf("%s, %v", out, err)
	}
	if out, err = exec.Command("age-keygen", "-y", plain).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != k.Recipient() {
		t.Errorf("age-keygen -y: %s, %v", out, err)
	}
	// age asks on a terminal only.
	result := filepath.Join(dir, "out")
	cmd := exec.Command("script", "-qec", fmt.Sprintf("age -d -i %s -o %s %s", wrapped, result, volume), "/dev/null")
	cmd.Stdin = strings.NewReader("open sesame\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if b, err := os.ReadFile(result); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestPropertyText(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		random := rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(rt, "random")
		at := time.Unix(rapid.Int64Range(0, 1<<33).Draw(rt, "at"), 0)
		k, err := New(at, bytes.NewReader(random))
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(k.Signer().Seed(), random[32:]) {
			rt.Fatal("the seed is not what was random")
		}
		n++
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(path, []byte(k.in().text()), 0o600); err != nil {
			rt.Fatal(err)
		}
		got, err := Load(path, nil)
		if err != nil {
			rt.Fatal(err)
		}
		same(t, got, k)
		if got, err = ParsePaper(k.Paper()); err != nil {
			rt.Fatal(err)
		}
		same(t, got, k)
	})
}

func FuzzLoad(f *testing.F) {
	k := newKey(f)
	f.Add(k.in().text())
	f.Add(k.in().writerText())
	f.Add(k.Paper())
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parse("f", []byte(text), nil)
		if err != nil {
			if !errors.Is(err, codec.ErrDamaged) && strings.Contains(err.Error(), "AGE-SECRET-KEY-1") {
				t.Fatal(err)
			}
		} else if len(s.ids) > 0 && !s.ssh {
			again, err := parse("g", []byte(s.text()), nil)
			if err != nil && s.signer != nil && len(s.recipients) > 0 {
				t.Fatal(err)
			}
			if err == nil && len(again.ids) != len(s.ids) {
				t.Fatal("identities are lost")
			}
		}
		Import(text)
	})
}
