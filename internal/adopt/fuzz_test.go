package adopt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func FuzzUnpickle(f *testing.F) {
	files, err := filepath.Glob("testdata/backup-*.db")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{"", ".", "N.", "(lp0\nI1\na.", "}(U\x01aK\x01u.", "Vä\\u00e4\\\n.", "S'\\x41\\'\\n'\n.", "\x8a\x02\xff\xff.", "G?\xf0\x00\x00\x00\x00\x00\x00.", "}q\x00h\x00s.", "((((((t.", "]\x94h\x00a.", "0", "R.", "S'", "V\\u12\n.", "S'\\x4'\n."} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = unpickle(data, time.UTC) // it ends, and does not panic
	})
}

func FuzzINI(f *testing.F) {
	for _, s := range []string{"[a]\nb=c\n d\n", "[DEFAULT]\nx=%(x)s\n", "[a]]\n[b\n", "=\n", "[a]\n:b\n", "\ufeff[a]\nb: %%\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		in, err := parseINI(s)
		if err != nil {
			return
		}
		for _, section := range in.sections {
			for _, key := range in.keys[section] {
				v, ok, err := in.value(section, key)
				if err == nil && (!ok || len(v) > 2*maxValue+len(s)) {
					t.Errorf("[%s] %s: %v, %d bytes", section, key, ok, len(v))
				}
			}
		}
	})
}

func FuzzJournal(f *testing.F) {
	data, err := os.ReadFile("testdata/mt.journal")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		version, words, ok := journalLine(line)
		if !ok || words[1] != "CREATED" {
			return
		}
		a, err := journalArchive(version, words)
		if err == nil && (a.ID == "" || a.Size < 0 || a.name == "" || filepath.IsAbs(a.name) || !filepath.IsLocal(a.name) && a.Name != "" && strings.Contains("/"+a.name+"/", "/../")) {
			t.Errorf("%q: %+v", line, a)
		}
	})
}
