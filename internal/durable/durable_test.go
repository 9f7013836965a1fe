package durable

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWriteFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, data := range []string{"one", "", "a longer one"} {
		if err := WriteFile(path, []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); got != data {
			t.Errorf("content %q, want %q", got, data)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := names(t, dir); got != "f" {
		t.Errorf("directory holds %s", got)
	}
}

func TestFailuresLeaveNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "full", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "full"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	err := WriteFile(filepath.Join(dir, "absent", "f"), []byte("x"), 0o600)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("into an absent directory: %v", err)
	}
	if got := names(t, dir); got != "full" {
		t.Errorf("directory holds %s", got)
	}
}

func TestCreateExclusive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	var wg sync.WaitGroup
	var won atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			err := CreateExclusive(path, bytes.Repeat([]byte{byte('a' + i)}, 1000), 0o600)
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d created it", won.Load())
	}
	if got := content(t, path); len(got) != 1000 || strings.Trim(got, got[:1]) != "" {
		t.Errorf("content is mixed: %d bytes", len(got))
	}
	if got := names(t, dir); got != "f" {
		t.Errorf("directory holds %s", got)
	}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	temp, path := filepath.Join(dir, "t"), filepath.Join(dir, "f")
	for i, want := range []error{nil, fs.ErrExist} {
		if err := os.WriteFile(temp, []byte{byte('0' + i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := reserve(temp, path, 0o600); !errors.Is(err, want) {
			t.Errorf("reserve: %v, want %v", err, want)
		}
	}
	if got := content(t, path); got != "0" {
		t.Errorf("content %q", got)
	}
}

func TestRenameAndRemove(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "sub", "b")
	if err := MkdirAll(filepath.Dir(b), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(a, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Rename(a, b); err != nil || content(t, b) != "x" {
		t.Errorf("Rename: %v", err)
	}
	if err := Rename(a, b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Rename of nothing: %v", err)
	}
	if err := Remove(b); err != nil {
		t.Error(err)
	}
	if err := Remove(b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of nothing: %v", err)
	}
}

func TestMkdirAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := MkdirAll(dir+"/a//b/c/", 0o700); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if info, err := os.Stat(dir + "/a/b/c"); err != nil || !info.IsDir() {
		t.Error(err)
	}
	if err := WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/file", "/file/below"} {
		if err := MkdirAll(dir+path, 0o700); err == nil {
			t.Errorf("made %s", path)
		}
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	release, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	var held *LockedError
	if _, err := Lock(path); !errors.As(err, &held) || held.PID != os.Getpid() || held.Path != path {
		t.Fatalf("second Lock: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	release, err = Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	// With the file removed, a new lock must not be the old one.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(release(), other()); err != nil {
		t.Error(err)
	}
	if _, err := Lock(filepath.Join(path, "below")); err == nil {
		t.Error("locked below a file")
	}
}

// A lock dies with its process, kill -9 included, and is not inherited.
func TestLockDies(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	if env := os.Getenv("DURABLE_TEST_LOCK"); env != "" {
		if _, err := Lock(env); err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		grandchild := exec.Command("cat")
		grandchild.Stdin = os.Stdin
		if err := grandchild.Start(); err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString("locked\n")
		select {}
	}
	child := exec.Command(os.Args[0], "-test.run=^TestLockDies$")
	child.Env = append(os.Environ(), "DURABLE_TEST_LOCK="+path)
	stdin, err := child.StdinPipe() // held open: the grandchild lives until the test's end
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 7)
	if _, err := stdout.Read(line); err != nil || string(line) != "locked\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	var held *LockedError
	if _, err := Lock(path); !errors.As(err, &held) || held.PID != child.Process.Pid || !strings.Contains(err.Error(), "process") {
		t.Fatalf("Lock while the child holds it: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Process.Wait()
	release, err := Lock(path)
	if err != nil {
		t.Fatalf("Lock after the child's death: %v", err)
	}
	release()
}

func TestLockFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	ctx := context.Background()
	a, b, c := open(), open(), open()
	for _, f := range []*os.File{a, b} {
		if err := LockFile(ctx, f, Shared); err != nil {
			t.Fatal(err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := LockFile(ended, c, Exclusive); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), path) {
		t.Fatalf("Exclusive beside Shared: %v", err)
	}
	got := make(chan error)
	go func() { got <- LockFile(ctx, c, Exclusive) }()
	a.Close()
	b.Close()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if err := LockFile(ended, open(), Shared); !errors.Is(err, context.Canceled) {
		t.Errorf("Shared beside Exclusive: %v", err)
	}
}

func TestSyncData(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := SyncData(f); err != nil {
		t.Error(err)
	}
	f.Close()
	if err := SyncData(f); err == nil || !strings.Contains(err.Error(), f.Name()) {
		t.Errorf("of a closed file: %v", err)
	}
}
