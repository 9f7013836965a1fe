package app

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/codec/encrypt"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/keyfile"
	"github.com/firn-backup/firn/internal/manifest"
)

func testKey(t *testing.T) *keyfile.Key {
	t.Helper()
	k, err := keyfile.New(newHome(t).now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *home) noticing(notices *[]string) *App {
	h.t.Helper()
	o := h.options()
	o.Notice = func(s string) { *notices = append(*notices, s) }
	o.Warn = o.Notice
	a, err := New(o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = a.Close() })
	return a
}

// The key is made once, and it is said to keep it until somebody says that it is kept.
func TestEnsureKey(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	var notices []string
	a := h.noticing(&notices)
	k, err := a.EnsureKey(&config.Set{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := a.EnsureKey(&config.Set{})
	if err != nil || again.SigningKey() != k.SigningKey() {
		t.Fatalf("%v, %v", again, err)
	}
	if len(notices) != 2 || !strings.Contains(notices[1], "KEEP THE KEY") { // once a process
		t.Errorf("%q", notices)
	}
	if strings.Contains(strings.Join(notices, ""), "SECRET") {
		t.Error("a secret was told")
	}
	if err := a.MarkKept(k); err != nil {
		t.Fatal(err)
	}
	notices = nil
	if _, err := a.EnsureKey(&config.Set{}); err != nil || len(notices) != 0 {
		t.Errorf("%q, %v", notices, err)
	}
	// Another key is not kept because the last one was.
	if err := os.Remove(a.Paths.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := a.EnsureKey(&config.Set{}); err != nil || len(notices) != 2 {
		t.Errorf("%q, %v", notices, err)
	}
	if err := os.Chmod(a.Paths.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	notices = nil
	if _, err := a.EnsureKey(&config.Set{}); err != nil || !strings.Contains(strings.Join(notices, "\n"), "other users") {
		t.Errorf("%q, %v", notices, err)
	}
}

// A plain age identity reads, and makes no backups.
func TestKeyWithoutSeed(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	a := h.open()
	k := testKey(t)
	if err := k.Save(filepath.Join(h.dir, "full.txt"), nil); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(h.dir, "full.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "AGE-SECRET-KEY-") {
			h.write(".config/firn/key.txt", line)
		}
	}
	if _, err := a.EnsureKey(&config.Set{}); failure.KindOf(err) != failure.NoKey || !strings.Contains(err.Error(), "signing seed") {
		t.Error(err)
	}
	if got, err := a.LoadKey(); err != nil || got.Recipient() != k.Recipient() {
		t.Errorf("%v, %v", got, err)
	}
}

// sealed is text encrypted to a key.
func sealed(t *testing.T, k *keyfile.Key, text string) []byte {
	t.Helper()
	e, err := encrypt.NewEncryptor(encrypt.Age, encrypt.EncryptOptions{Recipients: k.Recipients()})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := e.Encrypt(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func opened(a *App, files []string, data []byte) (string, error) {
	d, g, err := a.Codecs(files).Decryptor(encrypt.Age)
	if err != nil {
		return "", err
	}
	if g.Chunk != 64<<10 {
		return "", errors.New("wrong geometry")
	}
	r, err := d.Decrypt(bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

// Everything at hand is tried: the key file, the config's identities, further files.
func TestCodecs(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.write(".config/firn/config.toml", "identities = [\"second.txt\"]\n")
	first, second, third, fourth := testKey(t), testKey(t), testKey(t), testKey(t)
	a := h.open()
	for file, k := range map[string]*keyfile.Key{a.Paths.Key: first, h.dir + "/.config/firn/second.txt": second, h.dir + "/third.txt": third} {
		if err := k.Save(file, nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, k := range map[string]*keyfile.Key{"key file": first, "config": second, "flag": third} {
		if got, err := opened(a, []string{"third.txt"}, sealed(t, k, name)); err != nil || got != name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := opened(a, nil, sealed(t, third, "x")); !errors.Is(err, codec.ErrNoKey) {
		t.Error(err)
	}
	if _, err := opened(a, []string{"third.txt"}, sealed(t, fourth, "x")); !errors.Is(err, codec.ErrNoKey) {
		t.Error(err)
	}
	if _, err := opened(a, []string{"nothere.txt"}, sealed(t, first, "x")); failure.KindOf(err) != failure.NoKey {
		t.Error(err)
	}
	// Without encryption no key is looked for, and without any key age says ErrNoKey.
	if _, _, err := a.Codecs([]string{"nothere.txt"}).Decryptor(encrypt.None); err != nil {
		t.Error(err)
	}
	b := newHome(t).open()
	if _, err := opened(b, nil, sealed(t, first, "x")); !errors.Is(err, codec.ErrNoKey) {
		t.Error(err)
	}
	if _, _, err := b.Codecs(nil).Decryptor("rot13"); failure.KindOf(err) != failure.Usage {
		t.Error(err)
	}
}

func TestIsOpenPGP(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	for name, x := range map[string]struct {
		text string
		want bool
	}{
		"armored": {"Comment\n-----BEGIN PGP PRIVATE KEY BLOCK-----\n", true}, "binary": {"\x95\x01", true},
		"age": {"AGE-SECRET-KEY-1", false}, "ssh": {"-----BEGIN OPENSSH PRIVATE KEY-----\n", false}, "empty": {"", false},
	} {
		if got, err := isOpenPGP(h.write(name, x.text)); err != nil || got != x.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestSigners(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	own, conf, told := testKey(t), testKey(t), testKey(t)
	h.write(".config/firn/config.toml", "signers = [\""+conf.SigningKey()+"\"]\n")
	a := h.open()
	names := func() string {
		t.Helper()
		all, err := a.Signers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, k := range all {
			s = append(s, keyfile.FormatSigningKey(k))
		}
		return strings.Join(s, " ")
	}
	if got := names(); got != conf.SigningKey() {
		t.Error(got)
	}
	if err := own.Save(a.Paths.Key, nil); err != nil {
		t.Fatal(err)
	}
	db, err := a.Catalog(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Trust(t.Context(), told.Signer().Public().(ed25519.PublicKey), "x"); err != nil {
		t.Fatal(err)
	}
	if got := names(); got != own.SigningKey()+" "+conf.SigningKey()+" "+told.SigningKey() {
		t.Error(got)
	}
}

// A set encrypts to its recipients, and to the key file's where it names none.
func TestEncryptor(t *testing.T) {
	t.Parallel()
	a := newHome(t).open()
	own, other := testKey(t), testKey(t)
	for _, x := range []struct {
		set  config.Set
		name string
		ids  *keyfile.Key
	}{
		{config.Set{}, "age", own},
		{config.Set{Encrypt: "age", Recipients: other.Recipients()}, "age", other},
		{config.Set{Encrypt: "none"}, "none", nil},
	} {
		e, err := a.Encryptor(&x.set, own)
		if err != nil || e.Name() != x.name {
			t.Fatalf("%+v: %v", x.set, err)
		}
		if x.ids == nil {
			continue
		}
		var b bytes.Buffer
		w, err := e.Encrypt(&b)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		d, err := encrypt.NewDecryptor("age", encrypt.Keys{Age: x.ids.Identities()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Decrypt(&b); err != nil {
			t.Errorf("%+v: %v", x.set, err)
		}
	}
	if _, err := a.Encryptor(&config.Set{Recipients: []string{"nobody"}}, own); failure.KindOf(err) != failure.Usage {
		t.Error(err)
	}
}

// A copy of the key file goes to the vault once, and only under its passphrase.
func TestStoreKey(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	a := h.open()
	url := a.DefaultVaultURL()
	store, err := a.OpenStore(t.Context(), url, true)
	if err != nil {
		t.Fatal(err)
	}
	archives := func() (all []coldstore.Archive) {
		t.Helper()
		if _, err := store.List(t.Context(), func(x coldstore.Archive) error { all = append(all, x); return nil }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	clear := testKey(t)
	if err := a.StoreKey(t.Context(), store, url, clear); err != nil || len(archives()) != 0 {
		t.Fatalf("a key in the clear was stored: %v, %v", archives(), err)
	}
	k := testKey(t)
	pass := []byte("correct horse")
	if err := k.SaveWith(a.Paths.Key, keyfile.SaveOptions{Passphrase: pass, WorkFactor: 10}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.StoreKey(t.Context(), store, url, k); err != nil {
			t.Fatal(err)
		}
	}
	// What remembers it is lost: the vault has it already, and that is no failure.
	if err := os.RemoveAll(a.Paths.State); err != nil {
		t.Fatal(err)
	}
	if err := a.StoreKey(t.Context(), store, url, k); err != nil {
		t.Fatal(err)
	}
	all := archives()
	if len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	if d, ok := manifest.ParseDescription(all[0].Description); !ok || d.What != manifest.WhatKey {
		t.Errorf("%q", all[0].Description)
	}
	r, err := store.RequestRetrieval(t.Context(), all[0].ID, coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rc, err := store.OpenRetrieved(t.Context(), r, 0, all[0].Size)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	text, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	back := h.write("back.txt", string(text))
	got, err := keyfile.Load(back, func() ([]byte, error) { return pass, nil })
	if err != nil || got.Recipient() != k.Recipient() || got.SigningKey() != k.SigningKey() {
		t.Errorf("%v, %v", got, err)
	}
}

func TestPassphrase(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	h.env["FIRN_PASSPHRASE_FILE"] = h.write("pass", "from file\r\nsecond line\n")
	a := h.open()
	if p, err := a.passphrase("x"); err != nil || string(p) != "from file" {
		t.Errorf("%q, %v", p, err)
	}
	delete(h.env, "FIRN_PASSPHRASE_FILE")
	h.env["FIRN_PASSPHRASE_COMMAND"] = "echo from command; echo more"
	if p, err := a.passphrase("x"); err != nil || string(p) != "from command" {
		t.Errorf("%q, %v", p, err)
	}
	for _, bad := range []string{"true", "exit 3"} {
		h.env["FIRN_PASSPHRASE_COMMAND"] = bad
		if p, err := a.passphrase("x"); err == nil {
			t.Errorf("%s: %q", bad, p)
		}
	}
	delete(h.env, "FIRN_PASSPHRASE_COMMAND")
	if _, err := a.passphrase("x"); !errors.Is(err, keyfile.ErrLocked) {
		t.Error(err)
	}
	if _, err := a.NewPassphrase(); failure.KindOf(err) != failure.Usage {
		t.Error(err)
	}
	answers := []string{"one", "one", "one", "two", "", ""}
	a.o.Ask = func(string) ([]byte, error) {
		next := answers[0]
		answers = answers[1:]
		return []byte(next), nil
	}
	if p, err := a.NewPassphrase(); err != nil || string(p) != "one" {
		t.Errorf("%q, %v", p, err)
	}
	for range 2 { // they differ; they are empty
		if _, err := a.NewPassphrase(); failure.KindOf(err) != failure.Usage {
			t.Error(err)
		}
	}
}
