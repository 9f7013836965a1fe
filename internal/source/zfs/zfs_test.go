package zfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/source/sourcetest"
)

const set = "01JD9ZK3V7Q4W8X2M5N6P7R8S9"

// standIn makes a zfs of its own for a test, and returns its program and its pool's directory.
func standIn(t testing.TB, change func(string) string) (program, pool string) {
	t.Helper()
	mustrun.Tool(t, "bash")
	text, err := os.ReadFile("testdata/zfs.sh")
	if err != nil {
		t.Fatal(err)
	}
	pool = t.TempDir()
	script := strings.Replace(string(text), "set -eu", "set -eu\nPOOL="+pool, 1)
	if change != nil {
		script = change(script)
	}
	program = filepath.Join(t.TempDir(), "zfs")
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return program, pool
}

// old is a zfs without holds, bookmarks and raw streams.
func old(script string) string {
	script = strings.ReplaceAll(script, `\tbookmark <snapshot|bookmark> <newbookmark>\n`, "")
	return strings.Replace(strings.Replace(script, `\thold [-r] <tag> <snapshot> ...\n`, "", 1), "-DLPbcehnpsVvw", "-RDp", 1)
}

func open(t testing.TB, o Options) *Source {
	t.Helper()
	o.Set = set
	if o.Dataset == "" {
		o.Dataset = "tank/home"
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStandIn(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(string) string{"New": nil, "Old": old} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.StreamSuite(t, func(t testing.TB) sourcetest.StreamBench {
				program, pool := standIn(t, change)
				broken, _ := standIn(t, func(s string) string {
					return strings.Replace(s, "head -c 308 /dev/zero ;;", "exit 1 ;;", 1)
				})
				return sourcetest.StreamBench{
					Stream: open(t, Options{Program: program}), Change: func(testing.TB) {},
					Failing: open(t, Options{Program: broken}),
					Foreign: func(t testing.TB) func() bool {
						f := filepath.Join(pool, "tank_home@firn-other")
						if err := os.WriteFile(f, []byte("7 1600000000\n"), 0o600); err != nil {
							t.Fatal(err)
						}
						return func() bool { _, err := os.Stat(f); return err == nil }
					},
				}
			})
		})
	}
}

// calls are those that change something, or send.
func calls(t *testing.T, pool string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(pool, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(pool, "calls")); err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "get ") {
			list = append(list, line)
		}
	}
	return list
}

func wantCalls(t *testing.T, pool string, want ...string) {
	t.Helper()
	got := calls(t, pool)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("called\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What is called, in which order, of a zfs that can all.
func TestCalls(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		o                      Options
		r, flags, how          string
		hold, bookmark, noHold bool
		change                 func(string) string
	}{
		{o: Options{}, how: "-i ", hold: true, bookmark: true},
		{o: Options{Raw: true}, flags: "-w ", how: "-i ", hold: true, bookmark: true},
		{o: Options{Intermediates: true}, how: "-I ", hold: true, bookmark: true},
		{o: Options{Recursive: true, Raw: true}, r: "-r ", flags: "-R -w ", how: "-i ", hold: true},
		{o: Options{}, how: "-i ", change: old},
	} {
		program, pool := standIn(t, x.change)
		x.o.Program = program
		s := open(t, x.o)
		ctx := t.Context()
		a, err := s.Make(ctx, time.Date(2026, 11, 1, 2, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		tag := "firn:" + set
		if !strings.HasPrefix(a.Name, "tank/home@firn-"+set+"-2026-11-01T02.00.00Z-") {
			t.Errorf("%s", a.Name)
		}
		want := []string{"snapshot " + x.r + a.Name}
		if x.hold {
			want = append(want, "hold "+x.r+tag+" "+a.Name)
		}
		wantCalls(t, pool, want...)
		b := a
		if err := s.Keep(ctx, a); err != nil {
			t.Error(err)
		}
		mark := strings.Replace(a.Name, "@", "#", 1)
		if x.bookmark {
			wantCalls(t, pool, fmt.Sprintf("bookmark %s %s", a.Name, mark))
		}
		r, err := s.Open(ctx, a, &b)
		if err != nil {
			t.Fatal(err)
		}
		r.Read(make([]byte, 1))
		r.Close()
		if got := calls(t, pool); got[len(got)-1] != "send "+x.flags+x.how+a.Name+" "+a.Name {
			t.Errorf("%v", got)
		}
		if err := s.Release(ctx, a); err != nil {
			t.Error(err)
		}
		want = nil
		if x.hold {
			want = append(want, "release "+x.r+tag+" "+a.Name)
		}
		wantCalls(t, pool, append(want, "destroy "+x.r+a.Name)...)
		if !x.bookmark {
			continue
		}
		// The snapshot is gone, and the bookmark is what the next incremental builds on.
		points, err := s.Points(ctx)
		if err != nil || len(points) != 1 || !points[0].BaseOnly || points[0].ID != a.ID || points[0].Name != mark {
			t.Fatalf("%+v, %v", points, err)
		}
		calls(t, pool)
		c, err := s.Make(ctx, time.Date(2026, 11, 2, 2, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		if r, err = s.Open(ctx, c, &points[0]); err != nil {
			t.Fatal(err)
		}
		r.Read(make([]byte, 1))
		r.Close()
		if got := calls(t, pool); got[len(got)-1] != "send "+x.flags+"-i "+mark+" "+c.Name { // never -I
			t.Errorf("%v", got)
		}
		if err := s.Release(ctx, points[0]); err != nil {
			t.Error(err)
		}
		wantCalls(t, pool, "destroy "+mark)
	}
}

// Others' snapshots are held while they are sent, kept as bookmarks, let go, and never destroyed.
func TestExisting(t *testing.T) {
	t.Parallel()
	program, pool := standIn(t, nil)
	for i, name := range []string{"autosnap_1_daily", "autosnap_2_daily", "autosnap_3_hourly", "firn-" + set + "-x", "byhand"} {
		text := fmt.Sprintf("%d 170000000%d\n", i+1, i)
		if err := os.WriteFile(filepath.Join(pool, "tank_home@"+name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, Options{Program: program, Existing: true, Match: []string{"autosnap_*_daily", "zrepl_*"}})
	p, err := s.Make(t.Context(), time.Now())
	if err != nil || p.Name != "tank/home@autosnap_2_daily" || p.Own || p.ID != "2" {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := s.Keep(t.Context(), p); err != nil {
		t.Error(err)
	}
	if err := s.Release(t.Context(), p); err != nil {
		t.Error(err)
	}
	tag := "firn:" + set
	got := calls(t, pool)
	want := []string{"hold " + tag + " " + p.Name, "bookmark " + p.Name + " tank/home#firn-" + set + "-autosnap_2_daily",
		"release " + tag + " " + p.Name, "release " + tag + " " + p.Name}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("called\n%s", strings.Join(got, "\n"))
	}
	none := open(t, Options{Program: program, Existing: true, Match: []string{"nothing*"}})
	if _, err := none.Make(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "there is no snapshot to send") {
		t.Errorf("%v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "-r", "tank@x", "tank#x", "/tank", "tank/", "tank;rm", "tank\n", "tank%x"} {
		if _, err := New(Options{Dataset: name}); err == nil {
			t.Errorf("%q is the name of a dataset", name)
		}
	}
	program, _ := standIn(t, old)
	s := open(t, Options{Program: program, Raw: true})
	p, err := s.Make(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), p, nil); err == nil || !strings.Contains(err.Error(), "send -w") {
		t.Errorf("%v", err)
	}
	p.Name = "other/home@x"
	if err := s.Release(t.Context(), p); err == nil {
		t.Error("another dataset's snapshot was released")
	}
}
