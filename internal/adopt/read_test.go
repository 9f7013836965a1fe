package adopt

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/foreign"
)

func options() Options {
	return Options{Zone: time.UTC, Now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), VaultURL: func(_ context.Context, p Place) (string, error) {
		if p.Name == "" {
			return "", failure.Errorf(failure.Usage, "which vault?")
		}
		return fmt.Sprintf("glacier://%s/%s?account=%s", p.Region, p.Name, p.Account), nil
	}}
}

func tool(t *testing.T, name string) Tool {
	t.Helper()
	for _, x := range Tools() {
		if x.Name == name {
			return x
		}
	}
	t.Fatalf("there is no tool %s", name)
	return Tool{}
}

func read(t *testing.T, name string, files ...string) (Found, error) {
	t.Helper()
	paths := slices.Clone(files)
	for i := range paths {
		paths[i] = filepath.Join("testdata", paths[i])
	}
	return tool(t, name).Read(context.Background(), paths, options())
}

// lines are archives as text: what a list of them would show.
func lines(f Found) []string {
	var out []string
	for _, r := range f.Archives {
		id, _, _ := strings.Cut(r.ID, "-xxxx")
		s := fmt.Sprintf("%s %s name=%q desc=%q size=%d hash=%v", r.Vault, id, r.Name, r.Description, r.Size, !r.TreeHash.IsZero())
		if !r.Created.IsZero() {
			s += " created=" + r.Created.UTC().Format(time.RFC3339Nano)
		}
		if !r.DeletedAt.IsZero() {
			s += " deleted=" + r.DeletedAt.UTC().Format(time.RFC3339Nano)
		}
		out = append(out, s)
	}
	return out
}

func TestReads(t *testing.T) {
	mt2 := func(name string, sec int64) string {
		d, _ := foreign.EncodeMT2(name, time.Unix(sec, 0))
		return fmt.Sprintf("%q", d)
	}
	const py = `glacier:///home-backup?account=123456789012 `
	whole := []string{
		py + `p2 name="/home/me/größe" desc="" size=0 hash=true created=2014-02-03T04:05:06Z`,
		py + `p1 name="/home/me/my docs" desc="" size=0 hash=true created=2014-01-02T03:04:05.678901Z`,
	}
	const cmd = `glacier://us-east-1/timemachineJan13?account=123456789012 `
	for _, tt := range []struct {
		tool    string
		files   []string
		want    []string
		notices []string
	}{
		{tool: "btrsend", files: []string{"btrsend.db"}, want: []string{
			`glacier://us-east-1/Backup?account= b2023-01-01 name="" desc="btrsend backup for 2023-01-01 (complete)" size=5000 hash=false created=2023-01-01T00:00:00Z`,
			`glacier://us-east-1/Backup?account= b2023-01-07 name="" desc="btrsend backup for 2023-01-07 (parent = 2023-01-01)" size=300 hash=false created=2023-01-07T00:00:00Z`,
			`glacier://us-east-1/Backup?account= b2023-01-14 name="" desc="btrsend backup for 2023-01-14 (parent = 2023-01-07)" size=400 hash=false created=2023-01-14T00:00:00Z`,
		}},
		{tool: "btrsend", files: []string{"btrsend-empty.db"}},
		{tool: "glacier-backup.py", files: []string{"backup-0.db"}, want: whole},
		{tool: "glacier-backup.py", files: []string{"backup-1.db"}, want: whole},
		{tool: "glacier-backup.py", files: []string{"backup-2.db"}, want: whole},
		{tool: "glacier-backup.py", files: []string{"backup-3.db", "glacier-backup-py.ini"}, want: whole},
		{tool: "glacier-backup.py", files: []string{"glacier-backup-py.ini", "backup-4.db"}, want: whole},
		{tool: "glacier-backup.py", files: []string{"backup-5.db"}, want: whole},
		{tool: "glacier-backup.py", files: []string{"backup-empty.db"}},
		{tool: "glacier-backup.py", files: []string{"backup-python2.db"}, want: []string{py + `y1 name="/home/me/größe" desc="" size=0 hash=true created=2014-01-02T03:04:05.678901Z`}},
		{tool: "glacier-backup.py", files: []string{"backup-half.db"}, want: []string{whole[1], py + `p3 name="old" desc="" size=0 hash=true`}, notices: []string{
			"it does not say when old was backed up", "it does not say in which archive new is"}},
		{tool: "hopkiw", files: []string{"glacier.backups.sqlite3", "hopkiw.conf"}, want: []string{
			`glacier:///backups?account= h1 name="/srv/backups/a.tar.gz" desc="a.tar.gz" size=0 hash=false created=2021-03-19T23:00:00Z`,
			`glacier:///backups?account= h2 name="/srv/backups/dir 1" desc="dir_1.tar" size=0 hash=false created=2021-03-19T23:01:40Z`,
			`glacier:///backups?account= h3 name="/srv/backups/a.tar.gz" desc="a.tar.gz" size=0 hash=false created=2021-03-21T02:48:20Z`,
			`glacier:///backups?account= h4 name="/srv/never" desc="never" size=0 hash=false`,
		}, notices: []string{"glacier.backups.sqlite3: /srv/lost has no archive id"}},
		{tool: "hopkiw", files: []string{"glacier.'quoted'.sqlite3"}, want: []string{`glacier:///quoted?account= q1 name="/srv/q" desc="q" size=0 hash=false created=2021-03-19T23:00:00Z`}},
		{tool: "hopkiw", files: []string{"glacier.released.sqlite3", "hopkiw.conf", "hopkiw.log"}, want: []string{
			`glacier:///backups?account= log1 name="/srv/backups/dir 1" desc="dir_1.tar" size=0 hash=false created=2021-03-20T01:03:06.456Z`}},
		{tool: "mt-aws-glacier", files: []string{"mt.journal", "mt.cfg"}, want: []string{
			`glacier://eu-west-1/photos?account= m1 name="file/a" desc=` + mt2("file/a", 1351924178) + ` size=1234 hash=true created=2012-11-03T06:30:00Z`,
			`glacier://eu-west-1/photos?account= m2 name="директория/файл" desc=` + mt2("директория/файл", 1352124178) + ` size=5 hash=true created=2012-11-03T06:30:01Z`,
			`glacier://eu-west-1/photos?account= m3 name="" desc="" size=6 hash=true created=2012-11-03T06:30:02Z`,
			`glacier://eu-west-1/photos?account= m4 name="gone" desc=` + mt2("gone", 1352124178) + ` size=7 hash=true created=2012-11-03T06:30:04Z deleted=2012-11-03T06:30:05Z`,
			`glacier://eu-west-1/photos?account= m5 name="with a blank" desc="" size=8 hash=true created=2012-11-03T06:30:06Z`,
		}, notices: []string{"mt.journal: its last line, 8, is cut off"}},
		{tool: "glacier-cmd", files: []string{"cmd-job.json", "cmd-search.json", "glacier-cmd.ini"}, want: []string{
			cmd + `c1 name="home/me.tar.bz2" desc="No description." size=4194304 hash=true created=2013-01-01T02:03:04Z`,
			cmd + `c2 name="" desc="a \"quoted\", text" size=12 hash=true created=2013-02-01T02:03:04Z`,
		}, notices: []string{"[SNS:done]: firn vault notify set glacier://us-east-1/a done --subscribe email:me@example.org", "[SNS:done]: firn vault notify set glacier://us-east-1/b done --subscribe email:me@example.org"}},
		{tool: "glacier-cmd", files: []string{"cmd-search.json"}, want: []string{
			cmd + `c1 name="home/me.tar.bz2" desc="No description." size=4194304 hash=true created=2013-01-01T02:03:04Z`}},
	} {
		t.Run(tt.tool+" "+strings.Join(tt.files, " "), func(t *testing.T) {
			f, err := read(t, tt.tool, tt.files...)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, lines(f)); d != "" {
				t.Error(d)
			}
			if len(f.Notices) != len(tt.notices) {
				t.Errorf("notices %q, want %q", f.Notices, tt.notices)
			}
			for i := range min(len(f.Notices), len(tt.notices)) {
				if !strings.HasPrefix(f.Notices[i], tt.notices[i]) {
					t.Errorf("notice %q, want %q", f.Notices[i], tt.notices[i])
				}
			}
		})
	}
}

// TestSNSCommands: each section of glacier-cmd's becomes the commands that do the same.
func TestSNSCommands(t *testing.T) {
	in, err := parseINI("[SNS]\nvaults = a\n[SNS:one]\nmethod=email,me@x;https,https://x/?a=b&c ;sqs,arn:aws:sqs:r:1:q\n[SNS:two]\nmethod=https,https://me:pa55@x/\nvaults=a, b,\n")
	if err != nil {
		t.Fatal(err)
	}
	for section, want := range map[string][]string{
		"SNS":     {"firn vault notify set glacier://eu-west-1/a aws-glacier-notifications"},
		"SNS:one": {"firn vault notify set glacier://eu-west-1 one --subscribe email:me@x --subscribe 'https:https://x/?a=b&c' --subscribe sqs:arn:aws:sqs:r:1:q"},
		"SNS:two": {"firn vault notify set glacier://eu-west-1/a two --subscribe 'https:…'", "firn vault notify set glacier://eu-west-1/b two --subscribe 'https:…'"},
	} {
		if d := cmp.Diff(want, snsCommands(in, section, "eu-west-1")); d != "" {
			t.Errorf("%s: %s", section, d)
		}
	}
}

// TestConfigurationAlone: glacier-backup.py's says nothing of directories, which is told.
func TestConfigurationAlone(t *testing.T) {
	f, err := read(t, "glacier-backup.py", "glacier-backup-py.ini")
	if err != nil || len(f.Notices) != 1 || !strings.Contains(f.Notices[0], "give backup.db too") {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestSNSSections: [SNS] counts where there is no section of a topic.
func TestSNSSections(t *testing.T) {
	for text, want := range map[string][]string{
		"[aws]\n[SNS]\ntopic=t\nvaults=a\n":            {"[SNS]: firn vault notify set glacier://REGION/a t"},
		"[aws]\n[SNS]\ntopic=t\n[SNS:one]\nvaults=a\n": {"[SNS:one]: firn vault notify set glacier://REGION/a one"},
	} {
		file := filepath.Join(t.TempDir(), "conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := tool(t, "glacier-cmd").Read(context.Background(), []string{file}, options())
		if d := cmp.Diff(want, f.Notices); d != "" || err != nil {
			t.Errorf("%q: %v\n%s", text, err, d)
		}
	}
}

// TestFaultyBtrsend: the states that its bugs leave are named, and all archives taken over.
func TestFaultyBtrsend(t *testing.T) {
	f, err := read(t, "btrsend", "btrsend-faulty.db")
	if err != nil || len(f.Archives) != 5 {
		t.Fatalf("%d archives, %v", len(f.Archives), err)
	}
	all := strings.Join(f.Notices, "\n")
	for _, want := range []string{"2023-06-01 builds on 2023-02-21, which was deleted", "2023-06-14 has 0 bytes", "2 archives of 2023-06-21"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing of %q in\n%s", want, all)
		}
	}
}

// TestReadsNot: what cannot be taken over is refused, by what is wrong.
func TestReadsNot(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(garbage, []byte("\x00\xff garbage\nmore"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		tool string
		file string
		kind failure.Kind
		text string
	}{
		{"glacier-backup.py", "testdata/backup-evil.db", failure.Damaged, `it names "posix.system", which is not carried out`},
		{"glacier-backup.py", "testdata/backup-cut.db", failure.Damaged, "it ends too early"},
		{"glacier-backup.py", "testdata/backup-zone.db", failure.Damaged, "datetime.timezone"},
		{"glacier-backup.py", empty, failure.Damaged, "is empty"},
		{"glacier-backup.py", "testdata/glacier-cmd.ini", failure.Usage, "there is no section [default]"},
		{"btrsend", "testdata/btrsend-nodate.db", failure.Damaged, `has the date "yesterday"`},
		{"btrsend", "testdata/glacier.backups.sqlite3", failure.Usage, "there is no table btrsend"},
		{"btrsend", garbage, failure.Usage, ""},
		{"btrsend", filepath.Join(dir, "nothing"), failure.NotFound, "there is no file"},
		{"hopkiw", "testdata/btrsend.db", failure.Usage, "not a database of hopkiw"},
		{"hopkiw", "testdata/glacier-backup-py.ini", failure.Usage, ""},
		{"hopkiw", garbage, failure.Usage, "line 1"},
		{"hopkiw", empty, failure.Damaged, "is empty"},
		{"mt-aws-glacier", "testdata/mt-hostile.journal", failure.Damaged, "is not a relative path"},
		{"mt-aws-glacier", "testdata/mt.cfg", failure.Usage, "none of the files is a journal"},
		{"mt-aws-glacier", "testdata/mt.journal", failure.Usage, "which vault?"},
		{"mt-aws-glacier", garbage, failure.Usage, "neither a journal nor a configuration"},
		{"glacier-cmd", "testdata/cmd-inventory.json", failure.Usage, "which vault?"},
		{"glacier-cmd", "testdata/cmd-inventory.csv", failure.Usage, "which vault?"},
		{"glacier-cmd", "testdata/btrsend.db", failure.Usage, "nothing that glacier-cmd prints"},
		{"glacier-cmd", "testdata/hopkiw.conf", failure.Usage, "neither [aws] nor [glacier]"},
		{"glacier-cmd", garbage, failure.Usage, "line 1"},
	} {
		t.Run(tt.tool+" "+filepath.Base(tt.file), func(t *testing.T) {
			_, err := tool(t, tt.tool).Read(context.Background(), []string{tt.file}, options())
			if err == nil || failure.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v, of kind %v; want %v with %q", err, failure.KindOf(err), tt.kind, tt.text)
			}
		})
	}
	if _, err := os.Stat("/tmp/firn-was-here"); err == nil {
		t.Error("a pickle was executed")
	}
}

// TestHopkiwLeftovers: the released version of hopkiw's leaves a database of no bytes, users begin its log with none, and SQLite keeps files beside a
// database: a * names them all.
func TestHopkiwLeftovers(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	db, log := file("glacier.v.sqlite3", ""), file("glacier_backup.log", "")
	f, err := tool(t, "hopkiw").Read(context.Background(), []string{db, log}, options())
	if err != nil || len(f.Archives) != 0 || len(f.Notices) != 1 || !strings.Contains(f.Notices[0], "is empty, as the released version leaves it") {
		t.Errorf("%+v, %v", f, err)
	}
	file("glacier_backup.log", "2021-05-01 01:02:03,456 - g - INFO - Starting backup for path /x\n2021-05-01 01:02:04,456 - g - INFO - upload u is complete, archive id is A\n")
	f, err = tool(t, "hopkiw").Read(context.Background(), []string{db, log}, options())
	if err != nil || len(f.Archives) != 1 || f.Archives[0].ID != "A" || len(f.Notices) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := tool(t, "hopkiw").Read(context.Background(), []string{file("glacier_backup.conf", "")}, options()); failure.KindOf(err) != failure.Damaged {
		t.Errorf("an empty configuration: %v", err)
	}
	all := []string{"a.db", "a.db-shm", "a.db-wal", "b-wal", "a.db-journal"}
	if got := withoutCompanions(all); !slices.Equal(got, []string{"a.db", "b-wal"}) {
		t.Errorf("%q", got)
	}
}

// TestNoSecrets: nothing of a configuration's keys gets into what is told.
func TestNoSecrets(t *testing.T) {
	f, err := read(t, "glacier-cmd", "glacier-cmd.ini", "cmd-search.json")
	text := fmt.Sprint(f, err)
	g, err := read(t, "mt-aws-glacier", "mt.journal", "mt.cfg")
	text += fmt.Sprint(g, err)
	for _, secret := range []string{"never", "AKIDEXAMPLE"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is told", secret)
		}
	}
}

func TestHopkiwConfig(t *testing.T) {
	c, err := ReadHopkiwConfig("testdata/hopkiw.conf")
	if err != nil {
		t.Fatal(err)
	}
	want := &HopkiwConfig{File: "testdata/hopkiw.conf", Vault: "backups", Paths: []HopkiwPath{
		{Path: "/srv/backups", Exclude: []string{"tmp_"}, Files: true, Dirs: true},
		{Path: "/srv/dir", Self: true, IfChanged: true},
	}}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	for text, why := range map[string]string{
		"[main]\nvault_name=a%b\n":              "% must be followed",
		"[main]\nvault_name=a\nvault_name=b\n":  "is there twice",
		"[/a]\nupload_files=maybe\n":            "neither yes nor no",
		"[a]\nupload_files=yes\n":               "not an absolute path",
		"[/a]\n[/a]\n":                          "is there twice",
		"upload_files=yes\n":                    "line 1",
		"":                                      "is empty",
		"[main]\nvault_name=%(vault_name)s\n":   "without end",
		"[main]\nvault_name=%(nothing)s\n":      "stands for nothing",
		"[DEFAULT]\nupload_files=yes\n":         "neither [main] nor paths",
		"[/a]\nexclude\n":                       "line 2",
		"[main]\nvault_name=%(a)s\na=%(b)s%\n":  "stands for nothing",
		"[/a]\nupload_if_changed='perhaps'\n\n": "neither yes nor no",
		"[/a]\nexclude=\n  x\n  y\n":            "several lines",
		"[/a\xff]\nupload_files=yes\n":          "not UTF-8",
	} {
		file := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := ReadHopkiwConfig(file); text != "" && (err == nil || !strings.Contains(err.Error(), why)) {
			t.Errorf("%q: %+v, %v; want %q", text, c, err, why)
		}
	}
}

// TestINI: as Python's ConfigParser reads it.
func TestINI(t *testing.T) {
	f, err := parseINI("; c\n[DEFAULT]\nx = 1\n[a b]\nKey : v=w\n  more\n\n\n# c\n  # not more\n  still\nother=%(key)s %% %(X)s\r\n[c]\nkey = '%'\nempty =\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range [][3]string{{"a b", "key", "v=w\nmore\nstill"}, {"a b", "other", "v=w\nmore\nstill % 1"}, {"a b", "x", "1"}, {"c", "empty", ""}} {
		if v, ok, err := f.value(tt[0], tt[1]); err != nil || !ok || v != tt[2] {
			t.Errorf("[%s] %s = %q %v %v, want %q", tt[0], tt[1], v, ok, err, tt[2])
		}
	}
	if _, ok := f.get("nothing", "x"); ok {
		t.Error("a section that is not there has values")
	}
	// Values that double one another must not fill the memory.
	var b strings.Builder
	b.WriteString("[a]\nk0 = " + strings.Repeat("x", 1000) + "\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&b, "k%d = %s\n", i, strings.Repeat(fmt.Sprintf("%%(k%d)s", i-1), 100))
	}
	if f, err = parseINI(b.String()); err != nil {
		t.Fatal(err)
	}
	if v, _, err := f.value("a", "k9"); err == nil {
		t.Errorf("a value of %d bytes", len(v))
	}
}
