package plain_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/plain"
)

// TestNamesPlain: what can be a description is one, as it is.
func TestNamesPlain(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", "a", "SHA256E-s3--084c799c.tar.gz", "WORM-s2-m1795358967--na,239ve,32,252n", "URL--http&c%%example.com%a b", "100%",
		"50% off", "a%20b", "%", "%%", "%2", "%41", "a%2525", "%C3%a9", "firn/1 set=my%20docs", "%25", "a%25b", "a b  c",
	} {
		if got := plain.Describe(name); got != name || plain.NameOf(name) != name {
			t.Errorf("%q becomes %q, which stands for %q", name, got, plain.NameOf(got))
		}
	}
}

func TestNamesEscaped(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"SHA256E-s2--43.ü": "SHA256E-s2--43.%C3%BC", "e.웅": "e.%EC%9B%85", "\xff": "%FF", "ü%41": "%C3%BC%2541",
		"%C3%BC": "%25C3%25BC", "%25C3%25BC": "%2525C3%2525BC", " ": "%20", "   ": "%20%20%20", " a b ": "%20a b%20", "%20": "%2520", "\x7f": "%7F",
	} {
		if got := plain.Describe(name); got != want || plain.NameOf(got) != name {
			t.Errorf("%q becomes %q, want %q, and that stands for %q", name, got, want, plain.NameOf(got))
		}
	}
}

func names() *rapid.Generator[string] {
	piece := rapid.SampledFrom([]string{"%", "2", "5", "0", "C3", "BC", "%25", "%20", "%C3", " ", "ü", "\x00", "\xff", "a", "~"})
	return rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces"), "") })
}

func TestNamesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := names().Draw(t, "name")
		d := plain.Describe(name)
		if got := plain.NameOf(d); got != name {
			t.Fatalf("%q becomes %q, which stands for %q", name, d, got)
		}
		if err := plain.CheckDescription(d); err != nil || d != strings.TrimSpace(d) {
			t.Fatalf("%q becomes %q: %v", name, d, err)
		}
		// Every description stands for one name, also those of other programs: two never for the same.
		foreign := strings.Map(func(r rune) rune {
			if r < 0x20 || r > 0x7e {
				return '%'
			}
			return r
		}, strings.TrimSpace(names().Draw(t, "foreign")))
		if n := plain.NameOf(foreign); plain.Describe(n) != foreign {
			t.Fatalf("description %q stands for %q, which becomes %q", foreign, n, plain.Describe(n))
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "%25C3", "ü", " x ", "%%%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if d := plain.Describe(name); plain.NameOf(d) != name || strings.ContainsFunc(d, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			t.Errorf("%q becomes %q", name, d)
		}
	})
}
