package adopt

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firn-backup/firn/internal/failure"
)

// interrupted makes a database of 2,000 uploads whose program was killed while it changed all of them.
func interrupted(t *testing.T) string {
	t.Helper()
	made, left := t.TempDir(), t.TempDir()
	file := filepath.Join(made, "glacier.v.sqlite3")
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=cache_size(2)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, q := range []string{
		`CREATE TABLE uploads (path text, name text, archive_id text, uploaded_date integer)`,
		`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO uploads SELECT '/x/' || i, i, 'id' || i, 1600000000 FROM n`,
		`BEGIN`, `UPDATE uploads SET path = path || '-half-of-what-was-to-be-written'`,
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range []string{"", "-journal"} {
		data, err := os.ReadFile(file + end)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(left, filepath.Base(file)+end), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec(`ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(left, filepath.Base(file))
}

// TestInterrupted: what a program was about to write when it was killed does not count, its files stay as they are, and nothing is left behind.
func TestInterrupted(t *testing.T) {
	scratch := t.TempDir()
	t.Setenv("TMPDIR", scratch)
	file := interrupted(t)
	sums := func() [2][32]byte {
		var all [2][32]byte
		for i, end := range []string{"", "-journal"} {
			data, err := os.ReadFile(file + end)
			if err != nil {
				t.Fatal(err)
			}
			all[i] = sha256.Sum256(data)
		}
		return all
	}
	before := sums()
	rows, err := hopkiwRows(context.Background(), file)
	if err != nil || len(rows) != 2000 || rows[1999].path != "/x/2000" || rows[0].path != "/x/1" {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	if sums() != before {
		t.Error("the files were changed")
	}

	// A journal may name a file that SQLite removes in the end: any file, of whoever wrote it.
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := byte(0)
	for i := range len(victim) {
		sum += victim[i]
	}
	trailer := append([]byte{0, 0, 0, 0}, victim...)
	trailer = append(trailer, 0, 0, byte(len(victim)>>8), byte(len(victim)), 0, 0, 0, sum)
	trailer = append(trailer, superMagic...)
	journal, err := os.OpenFile(file+"-journal", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Write(trailer); err != nil {
		t.Fatal(err)
	}
	if err := journal.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := hopkiwRows(context.Background(), file); failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), "several databases") {
		t.Errorf("a journal that names a file: %v", err)
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestConfigurationFromAPipe: one that a program writes into is read, and one that none does is not waited for.
func TestConfigurationFromAPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadHopkiwConfig(name); failure.KindOf(err) != failure.Usage {
		t.Errorf("nobody writes: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = w.WriteString("[main]\nvault_name=v\n[/x]\nupload_files=yes\n")
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	c, err := ReadHopkiwConfig(fmt.Sprintf("/dev/fd/%d", r.Fd()))
	if err != nil || c.Vault != "v" || len(c.Paths) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}
