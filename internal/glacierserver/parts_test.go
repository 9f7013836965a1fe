package glacierserver

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const someVault = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// Every name that a store can have has an id, and the id leads back to it, in its vault only.
func TestIDs(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[A-Za-z0-9_-]{138}$`)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z0-9._=-]{1,60}(/[A-Za-z0-9._=-]{1,60}){0,3}`).Draw(t, "name")
		id := wireID(someVault, archiveID, name)
		if !form.MatchString(id) {
			t.Fatalf("id %s", id)
		}
		got, long, err := parseID(someVault, archiveID, id)
		if err != nil || !long && got != name || long && len(name) < 120 {
			t.Fatalf("%q came back as %q, %v, %v", name, got, long, err)
		}
		if _, _, err := parseID("01ARZ3NDEKTSV4RRFFQ69G5FAW", archiveID, id); !errors.Is(err, errBadID) {
			t.Fatal("an id of another vault was taken")
		}
		i := rapid.IntRange(0, len(id)-1).Draw(t, "at")
		other := id[:i] + rapid.StringMatching(`[A-Za-z0-9_-]`).Draw(t, "c") + id[i+1:]
		if _, _, err := parseID(someVault, archiveID, other); other != id && err == nil {
			t.Fatal("a mistyped id was taken")
		}
	})
	up := wireID(someVault, uploadID, someVault)
	if name, _, err := parseID(someVault, uploadID, up); err != nil || name != someVault || len(up) != 92 {
		t.Errorf("upload id %s: %s, %v", up, name, err)
	}
	if _, _, err := parseID(someVault, jobID, up); err == nil {
		t.Error("an upload's id was taken for a job's")
	}
}

func FuzzID(f *testing.F) {
	f.Add(wireID(someVault, archiveID, "a/b"))
	f.Add("-")
	f.Fuzz(func(t *testing.T, id string) {
		name, long, err := parseID(someVault, archiveID, id)
		if err == nil && !long && wireID(someVault, archiveID, name) != id {
			t.Errorf("%q is the id of %q, and is not", id, name)
		}
	})
}

func TestClock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state, file := filepath.Join(dir, "clock.json"), filepath.Join(dir, "clock")
	real := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	start := func(scale float64, file string) *Clock {
		c := &Clock{Scale: scale, File: file, Real: func() time.Time { return real }}
		if err := c.start(state); err != nil {
			t.Fatal(err)
		}
		return c
	}
	shows := func(c *Clock, want string) {
		t.Helper()
		if got, err := c.now(); err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("the clock shows %s, %v, want %s", got.Format(time.RFC3339Nano), err, want)
		}
	}
	c := start(3600, "")
	real = real.Add(time.Minute)
	shows(c, "2026-01-03T12:00:00Z")
	shows(start(3600, ""), "2026-01-03T12:00:00Z") // goes on after a restart
	c = start(0, "")                               // and from there at the real speed
	real = real.Add(time.Minute)
	shows(c, "2026-01-03T12:01:00Z")
	for text, want := range map[string]string{
		"": "2026-01-03T12:01:00Z", " +36h\n": "2026-01-05T00:01:00Z", "-1d": "2026-01-02T12:01:00Z",
		"2030-05-01T00:00:00.5+02:00": "2030-04-30T22:00:00.5Z",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c = start(0, file)
		shows(c, want)
		// While a shell writes the next one the file is empty: time does not jump.
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
		shows(c, want)
	}
	for _, text := range []string{"tomorrow", "+soon"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (&Clock{File: file}).start(state); err == nil {
			t.Errorf("a clock of %q was started", text)
		}
	}
}

func TestParseFault(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"UploadMultipartPart:500:0.1", "uploadarchive:drop:1:3", "*:ThrottlingException:0", "InitiateJob:lose:1", "ListJobs:408:1"} {
		if _, err := ParseFault(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "Upload:500:0.1", "ListJobs:500", "ListJobs:500:2", "ListJobs:500:x", "ListJobs:teapot:1", "ListJobs:500:1:0", "a:b:c:d:e"} {
		if _, err := ParseFault(bad); err == nil {
			t.Errorf("fault %q was taken", bad)
		}
	}
}

// All 33 operations of the API, each once.
func TestOperations(t *testing.T) {
	t.Parallel()
	names := Operations()
	slices.Sort(names)
	if len(names) != 33 || len(slices.Compact(names)) != 33 {
		t.Errorf("%d operations: %v", len(names), names)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		op, want, have string
		there, holds   bool
	}{
		{"NumericLessThan", "365", "364", true, true}, {"NumericLessThan", "365", "365", true, false}, {"NumericLessThan", "365", "", false, false},
		{"NumericLessThanIfExists", "365", "", false, true}, {"NumericGreaterThanEquals", "5", "5", true, true},
		{"StringEquals", "a", "a", true, true}, {"StringNotEquals", "a", "b", true, true}, {"StringNotEquals", "a", "a", true, false},
		{"StringNotEquals", "a", "", false, true}, {"StringLike", "t*e", "true", true, true}, {"StringLike", "", "x", true, false},
		{"Bool", "true", "false", true, false}, {"Null", "true", "", false, true}, {"Null", "true", "x", true, false},
		{"IpAddress", "10.0.0.0/8", "10.1.2.3", true, true}, {"NotIpAddress", "10.0.0.0/8", "10.1.2.3", true, false},
		{"DateLessThan", "2026-01-01T00:00:00Z", "2025-12-31T00:00:00Z", true, true},
	} {
		if got := holds(c.op, values{c.want}, c.have, c.there); got != c.holds {
			t.Errorf("%s %q of %q (%v): %v", c.op, c.want, c.have, c.there, got)
		}
	}
	for pattern, s := range map[string]string{"*": "", "a*": "abc", "a?c": "abc", "*:vaults/x*": "arn:vaults/xyz", "**b": "ab"} {
		if !wild(pattern, s) {
			t.Errorf("%q does not fit %q", s, pattern)
		}
	}
	for pattern, s := range map[string]string{"": "a", "a": "ab", "?": "", "a*b": "abc"} {
		if wild(pattern, s) {
			t.Errorf("%q fits %q", s, pattern)
		}
	}
	const good = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"glacier:DeleteArchive","Resource":"*","Condition":{"NumericLessThan":{"glacier:ArchiveAgeInDays":365}}}]}`
	if _, err := parsePolicy(good); err != nil {
		t.Error(err)
	}
	for old, bad := range map[string]string{
		"NumericLessThan": "NumericSmaller", "glacier:ArchiveAgeInDays": "aws:Weather", "365": `"soon"`, `"Deny"`: `"Maybe"`,
		`"Principal":"*",`: ``, `"Resource":"*",`: `"Unknown":1,`, "DeleteArchive": "s3:Get",
	} {
		if _, err := parsePolicy(strings.Replace(good, old, bad, 1)); err == nil {
			t.Errorf("a policy with %s was taken", bad)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(`{"Statement":{"Effect":"Deny","Principal":{"AWS":["*"]},"NotAction":"glacier:*","Resource":"*"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parsePolicy(text); err == nil && len(p.Statement) == 0 {
			t.Error("a policy without a statement")
		}
	})
}

func TestCSVField(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"a": "a", "a,b": `"a,b"`, `a"b`: `"a\"b"`, `\`: `\`, `\"`: `"\\""`} {
		if got := csvField(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
