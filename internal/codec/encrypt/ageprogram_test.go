package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/mustrun"
)

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
