package localdir

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/treehash"
)

// killed is what a step panics with, to end an operation as a kill would.
type killed struct{}

// killAt lets op die at the n-th step that it comes to. It returns whether it did, and the step's name.
func killAt(s *Store, n int, op func()) (at string, died bool) {
	s.step = func(name string) {
		if n--; n < 0 {
			at = name
			panic(killed{})
		}
	}
	defer func() {
		s.step = nil
		if p := recover(); p != nil {
			if _, ok := p.(killed); !ok {
				panic(p)
			}
			died = true
		}
	}()
	op()
	return "", false
}

// checkWhole checks that every archive that exists has its bytes, and that nothing else is seen.
func checkWhole(t *testing.T, s *Store, want map[string][]byte) (there map[string]bool) {
	t.Helper()
	there = map[string]bool{}
	if _, err := s.List(t.Context(), func(a coldstore.Archive) error {
		there[a.ID] = true
		data, err := os.ReadFile(s.archivePath(a.ID))
		if err != nil {
			return err
		}
		if treehash.Sum(data) != a.TreeHash || a.TreeHash != treehash.Sum(want[a.ID]) {
			t.Errorf("archive %s is not what was stored", a.ID)
		}
		return nil
	}); err != nil {
		t.Errorf("List: %v", err)
	}
	return there
}

// A kill at any step of an upload leaves the archive wholly there or not there,
// and the upload, if it was told of, can go on.
func TestKillUpload(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(2*minPart+99, 1)
	want := map[string][]byte{"set/old": data[:10], "set/snap/a": data}
	seen := map[string]bool{}
	for n := 0; ; n++ {
		s := newStoreT(t, Options{})
		storetest.Upload(t, s, coldstore.NewArchive{Name: "set/old"}, minPart, data[:10])
		ctx := t.Context()
		var u coldstore.Upload
		at, died := killAt(s, n, func() {
			var err error
			if u, err = s.CreateUpload(ctx, coldstore.NewArchive{Name: "set/snap/a"}, minPart); err != nil {
				t.Error(err)
			}
			if err := s.PutPart(ctx, u.ID, 0, data[5:99], treehash.Sum(data[5:99])); err != nil { // to be withdrawn
				t.Error(err)
			}
			storetest.PutParts(t, s, u, data)
			if _, err := s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data)); err != nil {
				t.Error(err)
			}
		})
		if !died {
			break
		}
		seen[at] = true
		s = reopen(t, s)
		there := checkWhole(t, s, want)
		if there["set/snap/a"] != (at == "archive made") || !there["set/old"] {
			t.Errorf("killed at %q: archives %v", at, there)
		}
		if u.ID == "" { // nobody was told of it
			if tidied, err := s.Tidy(ctx, time.Hour); err != nil || tidied.Leftovers != 1 {
				t.Errorf("killed at %q: Tidy: %+v, %v", at, tidied, err)
			}
			continue
		}
		if at != "archive made" && at != "data moved" && at != "data in place" {
			storetest.PutParts(t, s, u, data)
		}
		for range 2 {
			a, err := s.CompleteUpload(ctx, u.ID, int64(len(data)), treehash.Sum(data))
			if err != nil || a.ID != "set/snap/a" {
				t.Errorf("killed at %q, then completed: %+v, %v", at, a, err)
			}
			s = reopen(t, s)
		}
		if there := checkWhole(t, s, want); len(there) != 2 {
			t.Errorf("killed at %q, then completed: archives %v", at, there)
		}
	}
	for _, step := range []string{"upload directory made", "upload data made", "old part withdrawn", "part in the cache", "part written",
		"archive directories made", "before the move", "data moved", "data in place", "archive made"} {
		if !seen[step] {
			t.Errorf("no kill at %q", step)
		}
	}
}

// A kill while a part is overwritten with other data: the old one is not claimed any more.
func TestKillOverwrite(t *testing.T) {
	t.Parallel()
	old, data := storetest.Bytes(minPart, 1), storetest.Bytes(minPart, 2)
	for n, want := range []treehash.Hash{{}, {}, {}, treehash.Sum(data)} {
		s := newStoreT(t, Options{})
		u, err := s.CreateUpload(t.Context(), coldstore.NewArchive{Name: "a"}, minPart)
		if err != nil {
			t.Fatal(err)
		}
		storetest.PutParts(t, s, u, old)
		at, _ := killAt(s, n, func() { storetest.PutParts(t, s, u, data) })
		parts, err := reopen(t, s).ListParts(t.Context(), u.ID)
		if err != nil {
			t.Fatal(err)
		}
		var got treehash.Hash
		if len(parts) > 0 {
			got = parts[0].TreeHash
		}
		if got != want {
			t.Errorf("killed at %q: the part that is there has hash %s", at, got)
		}
	}
}

// A kill after the data was moved, and before the archive exists: what else can come of that upload.
func TestKillAfterMove(t *testing.T) {
	t.Parallel()
	data, other := storetest.Bytes(1000, 1), storetest.Bytes(1000, 2)
	moved := func(t *testing.T) (*Store, coldstore.Upload) {
		s := newStoreT(t, Options{})
		u, err := s.CreateUpload(t.Context(), coldstore.NewArchive{Name: "set/a"}, minPart)
		if err != nil {
			t.Fatal(err)
		}
		storetest.PutParts(t, s, u, data)
		s.step = func(at string) {
			if at == "data moved" {
				panic(killed{})
			}
		}
		func() {
			defer func() { recover() }()
			s.CompleteUpload(t.Context(), u.ID, 1000, treehash.Sum(data))
			t.Error("not killed")
		}()
		s.step = nil
		return reopen(t, s), u
	}
	t.Run("Open", func(t *testing.T) {
		t.Parallel()
		s, u := moved(t)
		n := 0
		if err := s.ListUploads(t.Context(), func(coldstore.Upload) error { n++; return nil }); err != nil || n != 1 {
			t.Errorf("%d uploads, %v", n, err)
		}
		if parts, err := s.ListParts(t.Context(), u.ID); err != nil || len(parts) != 1 {
			t.Errorf("%v, %v", parts, err)
		}
		storetest.PutParts(t, s, u, data) // the same again
		if err := s.PutPart(t.Context(), u.ID, 0, other, treehash.Sum(other)); !errors.Is(err, coldstore.ErrInvalid) {
			t.Errorf("other data: %v", err)
		}
		if tidied, err := s.Tidy(t.Context(), time.Hour); err != nil || len(tidied.Unexplained) != 0 || tidied.Leftovers+tidied.Uploads != 0 {
			t.Errorf("Tidy: %+v, %v", tidied, err)
		}
		if _, err := s.CompleteUpload(t.Context(), u.ID, 1000, treehash.Sum(data)); err != nil {
			t.Error(err)
		}
	})
	t.Run("Abort", func(t *testing.T) {
		t.Parallel()
		s, u := moved(t)
		if err := s.AbortUpload(t.Context(), u.ID); err != nil {
			t.Fatal(err)
		}
		if got := files(t, s.root); strings.Contains(got, "set") {
			t.Errorf("left: %s", got)
		}
		if _, err := s.CompleteUpload(t.Context(), u.ID, 1000, treehash.Sum(data)); !errors.Is(err, coldstore.ErrNotFound) {
			t.Errorf("CompleteUpload: %v", err)
		}
	})
	t.Run("NameTaken", func(t *testing.T) {
		t.Parallel()
		s, u := moved(t)
		storetest.Upload(t, s, coldstore.NewArchive{Name: "set/a"}, minPart, other)
		if _, err := s.CompleteUpload(t.Context(), u.ID, 1000, treehash.Sum(data)); !errors.Is(err, coldstore.ErrExists) {
			t.Errorf("CompleteUpload: %v", err)
		}
		if _, err := s.ListParts(t.Context(), u.ID); !errors.Is(err, coldstore.ErrNotFound) {
			t.Errorf("ListParts: %v", err)
		}
		if err := s.AbortUpload(t.Context(), u.ID); err != nil {
			t.Error(err)
		}
		checkWhole(t, s, map[string][]byte{"set/a": other})
	})
	t.Run("Damaged", func(t *testing.T) {
		t.Parallel()
		s, u := moved(t)
		if err := os.WriteFile(s.archivePath("set/a"), other, filePerm); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CompleteUpload(t.Context(), u.ID, 1000, treehash.Sum(data)); !errors.Is(err, coldstore.ErrNotFound) {
			t.Errorf("CompleteUpload: %v", err)
		}
		if there := checkWhole(t, s, nil); len(there) != 0 {
			t.Errorf("archives: %v", there)
		}
	})
	t.Run("Tidied", func(t *testing.T) {
		t.Parallel()
		s, _ := moved(t)
		s.o.Now = storetest.NewClock(time.Now().Add(49 * time.Hour)).Now
		if tidied, err := s.Tidy(t.Context(), 48*time.Hour); err != nil || tidied.Uploads != 1 {
			t.Errorf("Tidy: %+v, %v", tidied, err)
		}
		if got := files(t, s.root); strings.Contains(got, "set") {
			t.Errorf("left: %s", got)
		}
	})
}

// A kill at any step of a deletion leaves the archive whole or gone; it never comes back.
func TestKillDelete(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(1000, 1)
	for n := 0; ; n++ {
		tidyFirst := n%2 == 0
		s := newStoreT(t, Options{})
		ctx := t.Context()
		u, err := s.CreateUpload(ctx, coldstore.NewArchive{Name: "set/a"}, minPart)
		if err != nil {
			t.Fatal(err)
		}
		storetest.PutParts(t, s, u, data)
		if _, err := s.CompleteUpload(ctx, u.ID, 1000, treehash.Sum(data)); err != nil {
			t.Fatal(err)
		}
		at, died := killAt(s, n/2, func() {
			if err := s.Delete(ctx, "set/a"); err != nil {
				t.Error(err)
			}
		})
		if !died {
			if n < 8 {
				t.Errorf("only %d steps", n/2)
			}
			break
		}
		s = reopen(t, s)
		there := checkWhole(t, s, map[string][]byte{"set/a": data})
		if _, err := s.CompleteUpload(ctx, u.ID, 1000, treehash.Sum(data)); (err == nil) != there["set/a"] {
			t.Errorf("killed at %q, then completed again: %v", at, err)
		}
		if err := s.Delete(ctx, "set/a"); err != nil && !errors.Is(err, coldstore.ErrNotFound) {
			t.Errorf("killed at %q, then again: %v", at, err)
		}
		if tidyFirst {
			tidied, err := s.Tidy(ctx, time.Hour)
			if err != nil || len(tidied.Unexplained) != 0 {
				t.Errorf("killed at %q: Tidy: %+v, %v", at, tidied, err)
			}
			if got := files(t, s.root); strings.Contains(got, "set") || strings.Contains(got, "deleting/") {
				t.Errorf("killed at %q: left: %s", at, got)
			}
		}
		storetest.Upload(t, s, coldstore.NewArchive{Name: "set/a"}, minPart, data[:50])
		checkWhole(t, s, map[string][]byte{"set/a": data[:50]})
	}
}

// files are all files below root but marker and README, with their paths.
func files(t *testing.T, root string) string {
	t.Helper()
	var all []string
	if err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err == nil && !d.IsDir() && rel != markerName && rel != readmeName {
			all = append(all, rel)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// A process that is killed with -9 while it stores archives in several goroutines: whatever it was
// told is stored is there, and what is there is whole.
func TestKill9(t *testing.T) {
	t.Parallel()
	if root := os.Getenv("LOCALDIR_TEST_CHILD"); root != "" {
		killMe(t, root)
		return
	}
	root := newStoreT(t, Options{}).root
	rounds := 6
	if os.Getenv("FIRN_SOAK") == "1" {
		rounds = 300
	}
	stored, total := map[string]bool{}, 0
	for round := range rounds {
		child := exec.Command(os.Args[0], "-test.run=^TestKill9$")
		child.Env = append(os.Environ(), "LOCALDIR_TEST_CHILD="+root, fmt.Sprintf("LOCALDIR_TEST_ROUND=%d", round))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for after := rand.IntN(30); after >= 0 && lines.Scan(); after-- {
			if id, is := strings.CutPrefix(lines.Text(), "stored "); is {
				stored[id] = true
			}
		}
		child.Process.Kill()
		for lines.Scan() { // what it had said before it died
			if id, is := strings.CutPrefix(lines.Text(), "stored "); is {
				stored[id] = true
			}
		}
		child.Wait()
		s, err := Open(root, Options{})
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		if _, err := s.List(t.Context(), func(a coldstore.Archive) error {
			there[a.ID] = true
			data, err := os.ReadFile(s.archivePath(a.ID))
			if err != nil || treehash.Sum(data) != a.TreeHash {
				t.Errorf("archive %s is not whole: %v", a.ID, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		total += len(stored)
		for id := range stored {
			if !there[id] {
				t.Errorf("archive %s was stored, and is lost", id)
			}
		}
		clear(stored)
		for id := range there { // so that the next round does not check them again
			if round%10 == 9 {
				if err := s.Delete(t.Context(), id); err != nil {
					t.Error(err)
				}
			} else {
				stored[id] = true
			}
		}
	}
	if total == 0 {
		t.Error("nothing was stored at all")
	}
	s, err := Open(root, Options{Now: func() time.Time { return time.Now().Add(50 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if tidied, err := s.Tidy(t.Context(), time.Hour); err != nil || len(tidied.Unexplained) != 0 {
		t.Errorf("Tidy: %+v, %v", tidied, err)
	}
	if got := files(t, root); strings.Contains(got, "uploads/") || strings.Contains(got, "deleting/") || strings.Contains(got, "~") {
		t.Errorf("left: %s", got)
	}
}

// killMe stores and deletes archives until it is killed, and says so.
func killMe(t *testing.T, root string) {
	s, err := Open(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	data := storetest.Bytes(2*minPart+10, 7)
	for worker := range 3 {
		go func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("set/%s-%d/%d", os.Getenv("LOCALDIR_TEST_ROUND"), worker, n)
				a := storetest.Upload(t, s, coldstore.NewArchive{Name: id}, minPart, data[:1+(n*700_001)%len(data)])
				if n%4 == 3 {
					if err := s.Delete(t.Context(), a.ID); err != nil {
						t.Error(err)
					}
					fmt.Println("deleted " + a.ID)
				} else {
					fmt.Println("stored " + a.ID)
				}
			}
		}()
	}
	select {}
}
