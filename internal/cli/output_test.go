package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/snapshot"
)

// kinds are all there are.
func kinds() []failure.Kind {
	var all []failure.Kind
	for k := failure.Failed; k <= failure.Interrupted; k++ {
		all = append(all, k)
	}
	return all
}

// The page lists exactly the codes that there are, and the order of several sets.
func TestExitCodesPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "exit-codes.md"))
	if err != nil {
		t.Fatal(err)
	}
	var described []string
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(string(page), -1) {
		described = append(described, m[1])
	}
	want := []string{"0"}
	for _, k := range kinds() {
		want = append(want, fmt.Sprint(exitCode(k)))
	}
	slices.Sort(described)
	slices.Sort(want)
	if !slices.Equal(described, want) {
		t.Errorf("described %v, want %v", described, want)
	}
	order := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(severity())), ", "), "[]")
	if !strings.Contains(string(page), "in this order: "+order) {
		t.Errorf("the page does not say %s", order)
	}
}

func TestWorst(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ a, b, want int }{
		{0, 0, 0}, {0, 75, 75}, {75, 3, 3}, {3, 11, 11}, {11, 1, 1}, {1, 10, 10}, {10, 13, 13}, {13, 12, 12}, {12, 130, 130}, {64, 12, 64}, {0, 64, 64},
	} {
		if got := worst(x.a, x.b); got != x.want {
			t.Errorf("%d and %d: %d", x.a, x.b, got)
		}
		if got := worst(x.b, x.a); got != x.want {
			t.Errorf("%d and %d: %d", x.b, x.a, got)
		}
	}
}

// No text reaches a terminal with anything in it that the terminal would obey.
func TestHarmless(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain ä 日本": "plain ä 日本", "a\nb\tc": `a\nb\tc`, "\x1b[31mred": `\x1b[31mred`, "\xff\xfe": `\xff\xfe`, `back\slash`: `back\\slash`,
		"\u202egnp.exe": `\xe2\x80\xaegnp.exe`, "\u0085": `\xc2\x85`, "\ufffd": "\ufffd",
	} {
		if got := shown(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := clean(`C:\x`); got != `C:\x` {
		t.Errorf("a message without anything hostile was changed: %q", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		in := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		for _, s := range []string{clean(in), shown(in)} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
				t.Fatalf("%q became %q", in, s)
			}
		}
		if back := unescape(shown(in)); back != in {
			t.Fatalf("%q is shown as %q, which is %q", in, shown(in), back)
		}
	})
}

// unescape undoes shown.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'x':
			var c byte
			_, _ = fmt.Sscanf(s[i+1:i+3], "%02x", &c)
			b.WriteByte(c)
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func TestReport(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		err  error
		code int
		text string
	}{
		{nil, 0, ""},
		{errors.New("disk\x1b[2J full"), 1, "firn: error: disk\\x1b[2J full\n"},
		{fmt.Errorf("outer: %w", withHint(failure.Errorf(failure.NotFound, "no %s", "set"), "look %s", "there")), 10, "firn: error: outer: no set\nfirn: hint: look there\n"},
		{errors.New("one\ntwo"), 1, "firn: error: one\nfirn: error: two\n"},
		{failure.Errorf(failure.Partial, "3 problems"), 3, "firn: 3 problems\n"},
		{failure.Errorf(failure.Interrupted, "whatever"), 130, "firn: interrupted\n"},
	} {
		var out, errs bytes.Buffer
		o := &output{stdout: &out, stderr: &errs, quiet: true}
		if code := o.report(x.err); code != x.code || errs.String() != x.text || out.Len() != 0 {
			t.Errorf("%v: code %d, %q", x.err, code, errs.String())
		}
	}
}

type full struct{ n int }

func (f *full) Write(p []byte) (int, error) {
	f.n++
	return 0, errors.New("no space left")
}

// What cannot be written to stdout is a failure, and is tried once.
func TestStdoutFull(t *testing.T) {
	t.Parallel()
	f := &full{}
	var errs bytes.Buffer
	code := Run(t.Context(), Env{
		Args: []string{"version"}, Stdout: f, Stderr: &errs, Stdin: strings.NewReader(""), Now: time.Now,
		LookupEnv: func(string) (string, bool) { return "", false },
	})
	if code != 1 || !strings.Contains(errs.String(), "no space left") || f.n != 1 {
		t.Errorf("code %d, %q, %d writes", code, errs.String(), f.n)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	o := &output{stdout: &out, stderr: &errs, json: true}
	m := progress.New(func() time.Time { return time.Unix(0, 0) })
	tell, stop := o.watch("docs", m)
	tell(progress.Event{Kind: progress.Began, Set: "docs", Snapshot: "01J", Text: "full"})
	tell(progress.Event{Kind: progress.File, Path: "home/a", Text: "new", Bytes: 7}) // not without --verbose
	tell(progress.Event{Kind: progress.Problem, Path: "home/\xff", Text: "permission denied"})
	tell(progress.Event{Kind: progress.Archive, Archive: "x/y", N: 0, Bytes: 9, Text: "stored"})
	stop()
	stop()
	want := `{"event":"began","set":"docs","snapshot":"01J","text":"full"}
{"event":"problem","path64":"aG9tZS//","text":"permission denied"}
{"event":"archive","archive":"x/y","volume":0,"size":9,"action":"stored"}
`
	if out.String() != want || errs.Len() != 0 {
		t.Errorf("%s%s", out.String(), errs.String())
	}
	out.Reset()
	o.json, o.verbose = false, true
	tell, stop = o.watch("docs", m)
	tell(progress.Event{Kind: progress.File, Path: "home/a", Text: "new", Bytes: 7})
	tell(progress.Event{Kind: progress.Problem, Path: "home/\xff", Text: "permission denied"})
	stop()
	if out.Len() != 0 || errs.String() != "new       home/a (7 B)\nfirn: warning: home/\\xff: permission denied\n" {
		t.Errorf("%q", errs.String())
	}
	m.SetTotals(100, 2)
	m.AddBytes(50)
	e := progressEvent("docs", m.Report())
	if *e.TotalBytes != 100 || *e.Bytes != 50 || e.ETA != nil {
		t.Errorf("%+v", e)
	}
}

// Every field of an event is on the page.
func TestJSONPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "json.md"))
	if err != nil {
		t.Fatal(err)
	}
	for heading, v := range map[string]any{
		"## Events": jsonEvent{}, "## Snapshots": jsonSnapshot{}, "## Entries": jsonEntry{}, "## Found": jsonFound{},
		"## Differences": jsonDiff{}, "## Runs": jsonRun{}, "## Vaults": jsonVault{}, "## Syncs": jsonSync{}, "## Emptyings": jsonEmpty{}, "## Jobs": jsonJob{},
		"## Keys": jsonKey{}, "## Plans": jsonPlan{}, "## Status": jsonStatus{}, "## Prunings": jsonPrune{},
	} {
		_, text, ok := strings.Cut(string(page), heading+"\n")
		if !ok {
			t.Errorf("the page has no %q", heading)
			continue
		}
		text, _, _ = strings.Cut(text, "\n## ")
		for _, f := range jsonFields(v) {
			if !strings.Contains(text, "`"+f+"`") {
				t.Errorf("%s does not describe %s", heading, f)
			}
		}
	}
}

func TestBarText(t *testing.T) {
	t.Parallel()
	r := progress.Report{Bytes: 50 << 20, Files: 1234, TotalsKnown: true, TotalBytes: 100 << 20, TotalFiles: 2000, Rate: 1 << 20, ETA: 50 * time.Second}
	got := barText("docs\x1b", r, 125)
	if want := `docs\x1b   50%  50.0 MiB of 100 MiB  1,234 of 2,000 files  1.00 MiB/s  0:50 left  [====================                    ]`; got != want {
		t.Errorf("%q", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		r.TotalsKnown = rapid.Bool().Draw(t, "known")
		width := rapid.IntRange(0, 200).Draw(t, "width")
		if s := barText("documents", r, width); len([]rune(s)) > width {
			t.Fatalf("%d columns of %d: %q", len([]rune(s)), width, s)
		}
	})
}

func TestModeText(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]snapshot.Entry{
		"-rw-r--r--": {Type: snapshot.File, Mode: 0o644}, "drwxr-xr-x": {Type: snapshot.Dir, Mode: 0o755}, "drwxrwxrwt": {Type: snapshot.Dir, Mode: 0o1777},
		"-rwsr-xr-x": {Type: snapshot.File, Mode: 0o4755}, "-rwSr--r--": {Type: snapshot.File, Mode: 0o4644}, "lrwxrwxrwx": {Type: snapshot.Symlink, Mode: 0o777},
		"p---------": {Type: snapshot.Fifo}, "crw--w--w-": {Type: snapshot.CharDev, Mode: 0o622}, "d---rws--T": {Type: snapshot.Dir, Mode: 0o3070},
	} {
		if got := modeText(&e); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	base := snapshot.Entry{Path: "a", Type: snapshot.File, Size: 3, Mode: 0o644, Content: snapshot.Content{N: 1, Stored: 3, SHA256: [32]byte{1}}}
	with := func(f func(*snapshot.Entry)) *snapshot.Entry {
		e := base
		f(&e)
		return &e
	}
	for name, x := range map[string]struct {
		a, b *snapshot.Entry
		want difference
	}{
		"nothing":         {&base, with(func(*snapshot.Entry) {}), same},
		"stored anew":     {&base, with(func(e *snapshot.Entry) { e.Content.N, e.Content.Volume = 7, 3 }), same},
		"inode":           {&base, with(func(e *snapshot.Entry) { e.Ino, e.CTime.Sec, e.LinkGroup = 9, 9, "x" }), same},
		"new":             {nil, &base, added},
		"gone":            {&base, nil, removed},
		"content":         {&base, with(func(e *snapshot.Entry) { e.Content.SHA256[0] = 2 }), content},
		"size":            {&base, with(func(e *snapshot.Entry) { e.Size = 4 }), content},
		"emptied":         {&base, with(func(e *snapshot.Entry) { e.Content = snapshot.Content{} }), content},
		"mode":            {&base, with(func(e *snapshot.Entry) { e.Mode = 0o600 }), metadata},
		"xattr":           {&base, with(func(e *snapshot.Entry) { e.Xattrs = []snapshot.Xattr{{Name: "user.x"}} }), metadata},
		"mtime":           {&base, with(func(e *snapshot.Entry) { e.MTime.Nsec = 1 }), metadata},
		"became a folder": {&base, with(func(e *snapshot.Entry) { e.Type = snapshot.Dir }), retyped},
		"link target": {with(func(e *snapshot.Entry) { e.Type, e.Link = snapshot.Symlink, "a" }),
			with(func(e *snapshot.Entry) { e.Type, e.Link = snapshot.Symlink, "b" }), content},
	} {
		if got := compare(x.a, x.b); got != x.want {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
}

func TestMatcher(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		pattern, path string
		fold, want    bool
	}{
		{"letter*", "home/me/letter.odt", false, true}, {"letter", "home/me/letter.odt", false, false}, {"*.odt", "a/b.odt", false, true},
		{"home/*/x", "home/me/x", false, true}, {"/home/*/x", "home/me/x", false, true}, {"home/*", "home/me/x", false, false},
		{"**/x", "home/me/x", false, true}, {"**/x", "x", false, true}, {"LETTER*", "letter", false, false}, {"LETTER*", "letter", true, true},
		{"*.{jpg,png}", "a/b.png", false, true}, {`a\*b`, "x/a*b", false, true}, {"[!a]", "b", false, true}, {"\xff*", "d/\xffx", false, true},
	} {
		m, err := matcher(x.pattern, x.fold)
		if err != nil || m(x.path) != x.want {
			t.Errorf("%q of %q: want %v, %v", x.pattern, x.path, x.want, err)
		}
	}
	for _, bad := range []string{"", "/", "[a", "{a"} {
		if _, err := matcher(bad, false); failure.KindOf(err) != failure.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestTablesSayNothingToATerminal(t *testing.T) {
	t.Parallel()
	tab := newTable("ID", ">SIZE")
	tab.row("id\x1b[2J\u202e", "1 B")
	if got, want := tab.rows[1][0], `id\x1b[2J\xe2\x80\xae`; got != want {
		t.Errorf("the cell is %q, want %q", got, want)
	}
}
