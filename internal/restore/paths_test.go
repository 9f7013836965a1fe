package restore_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/restore"
	"github.com/firn-backup/firn/internal/restore/restoretest"
)

func TestPathsAndGlobs(t *testing.T) {
	t.Parallel()
	w := restoretest.New(t, "zstd:1", "age", 0)
	w.Fill()
	w.Write("odd/[x]*", []byte("literal"))
	w.Write("odd/x1", []byte("x1"))
	w.Write("odd/sub/deep/y.jpg", []byte("y"))
	w.Write("odd/sub/z.txt", []byte("z"))
	w.Write("odd/\xff\xfe", []byte("bytes"))
	w.Must(os.Chmod(filepath.Join(w.Tree, "odd/sub"), 0o711))
	w.Must(os.Chtimes(filepath.Join(w.Tree, "odd/sub"), time.Unix(5, 0), time.Unix(5, 0)))
	snap := w.Backup()
	for i, c := range []struct {
		paths []string
		want  string // files and links
	}{
		{[]string{"zz-last"}, "zz-last"},
		{[]string{"/zz-last/", "empty"}, "empty zz-last"},
		{[]string{"odd/[x]*"}, "odd/[x]*"},
		{[]string{"odd/[x]?"}, "odd/x1"},
		{[]string{"odd/sub"}, "odd/sub/deep/y.jpg odd/sub/z.txt"},
		{[]string{"**/*.jpg"}, "odd/sub/deep/y.jpg"},
		{[]string{"o*/s*"}, "odd/sub/deep/y.jpg odd/sub/z.txt"},
		{[]string{"odd/{x1,sub/*.txt}"}, "odd/sub/z.txt odd/x1"},
		{[]string{"odd/??"}, "odd/x1 odd/\xff\xfe"},
		{[]string{"d2/linked"}, "d2/linked"},
		{[]string{"d1/small01", "d2/linked"}, "d1/small01 d2/linked"},
		{[]string{"void"}, ""},
		{[]string{"odd", "odd/sub", "odd/x1"}, "odd/[x]* odd/sub/deep/y.jpg odd/sub/z.txt odd/x1 odd/\xff\xfe"},
	} {
		o := w.RestoreOptions(snap, filepath.Join(w.Dir, fmt.Sprintf("to%d", i)))
		for _, p := range c.paths {
			o.Paths = append(o.Paths, w.Tree+"/"+strings.TrimPrefix(p, "/"))
		}
		o.Paths[0] = strings.TrimPrefix(o.Paths[0], "/") // both ways
		if strings.HasPrefix(c.paths[0], "**") {
			o.Paths[0] = c.paths[0]
		}
		if c.want == "" {
			run(t, o)
			continue
		}
		res := run(t, o)
		var got []string
		w.Must(filepath.WalkDir(o.To, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				got = append(got, path[len(o.To)+1:])
			}
			return err
		}))
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q gives %q, want %q", c.paths, got, c.want)
		}
		for _, name := range got {
			a, err := os.ReadFile(filepath.Join(w.Tree, name))
			w.Must(err)
			b, err := os.ReadFile(filepath.Join(o.To, name))
			w.Must(err)
			if string(a) != string(b) {
				t.Errorf("%s differs", name)
			}
		}
		if res.Plan.Archives == 0 {
			t.Errorf("%q: %+v", c.paths, res.Plan)
		}
		if strings.Contains(c.want, "odd/sub/") { // a directory above has its metadata too
			fi, err := os.Stat(filepath.Join(o.To, "odd/sub"))
			w.Must(err)
			if fi.Mode().Perm() != 0o711 || !fi.ModTime().Equal(time.Unix(5, 0)) {
				t.Errorf("%q: odd/sub is %v %v", c.paths, fi.Mode(), fi.ModTime())
			}
		}
	}

	// Without Strip names are whole, and so are directories above.
	o := w.RestoreOptions(snap, filepath.Join(w.Dir, "whole"))
	o.Strip, o.Paths = "", []string{w.Tree + "/d1/small01"}
	run(t, o)
	if _, err := os.Stat(filepath.Join(o.To, w.Tree, "d1/small01")); err != nil {
		t.Error(err)
	}

	for _, paths := range [][]string{{"nowhere"}, {w.Tree + "/zz-last", "no/where"}, {"**/*.none"}, {w.Tree + "/zz"}} {
		o := w.RestoreOptions(snap, filepath.Join(w.Dir, "none"))
		o.Paths = paths
		_, err := restore.Run(ctx, o)
		wantKind(t, err, failure.NotFound)
		nothingAt(t, o.To)
	}
	o = w.RestoreOptions(snap, filepath.Join(w.Dir, "none"))
	o.Paths = []string{"a/[x"}
	_, err := restore.Run(ctx, o)
	wantKind(t, err, failure.Usage)
	o.Paths, o.Strip = nil, w.Tree+"/d1"
	_, err = restore.Run(ctx, o)
	wantKind(t, err, failure.Usage)
	nothingAt(t, o.To)
}
