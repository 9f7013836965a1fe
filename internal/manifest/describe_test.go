package manifest_test

import (
	"math"
	"path"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDescription(t *testing.T) {
	t.Parallel()
	h := incrementalHeader()
	h.At = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	for part, want := range map[int]string{
		3: "firn/1 set=documents setid=" + setID + " host=nb snap=" + snapID +
			" n=12 at=2026-11-22T02:00:00Z kind=incremental base=" + baseID + " part=3 codec=zstd,age",
		0: "firn/1 set=documents setid=" + setID + " host=nb snap=" + snapID +
			" n=12 at=2026-11-22T02:00:00Z kind=incremental base=" + baseID + " part=manifest codec=zstd,age",
	} {
		d := manifest.Describe(&h, part)
		if got := d.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if back, ok := manifest.ParseDescription(want); !ok || !cmp.Equal(back, d) {
			t.Errorf("%v: %s", ok, cmp.Diff(d, back))
		}
	}
	d := manifest.Description{What: manifest.WhatKey, Codecs: []string{"age"}}
	if got := d.String(); got != "firn/1 part=key codec=age" {
		t.Error(got)
	}
	if back, ok := manifest.ParseDescription("firn/1 part=key new=1 codec=age"); !ok || !cmp.Equal(back, d) {
		t.Error(cmp.Diff(d, back))
	}
	d = manifest.Description{What: manifest.WhatKey, Set: "Grüße, Welt = 100%"}
	if got := d.String(); got != "firn/1 set=Gr%C3%BC%C3%9Fe%2C%20Welt%20%3D%20100%25 part=key" {
		t.Error(got)
	}
}

func TestDescriptionRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := manifest.Description{
			Set: genText(t, "set"), SetID: setID, Host: genText(t, "host"), Snap: snapID, N: rapid.Uint64().Draw(t, "n"),
			Kind: rapid.SampledFrom([]snapshot.Kind{snapshot.Full, snapshot.Incremental}).Draw(t, "kind"), Base: baseID,
			At:     time.Unix(rapid.Int64Range(0, 1<<37).Draw(t, "at"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(),
			What:   rapid.SampledFrom([]string{manifest.WhatVolume, manifest.WhatManifest, manifest.WhatKey}).Draw(t, "what"),
			Codecs: rapid.SliceOfN(rapid.SampledFrom([]string{"zstd", "a,b", "openpgp", "ä"}), 0, 3).Draw(t, "codecs"),
		}
		if len(d.Codecs) == 0 {
			d.Codecs = nil
		}
		if d.What == manifest.WhatVolume {
			d.Part = rapid.IntRange(1, math.MaxInt32).Draw(t, "part")
		}
		if rapid.Bool().Draw(t, "long") {
			d.Set, d.Host = strings.Repeat("€"+d.Set, 200), strings.Repeat(d.Host+"\xff", 300)
		}
		s := d.String()
		if len(s) > manifest.MaxDescription {
			t.Fatalf("%d characters", len(s))
		}
		for _, c := range []byte(s) {
			if c < 0x20 || c > 0x7e {
				t.Fatalf("%q", s)
			}
		}
		back, ok := manifest.ParseDescription(s)
		if !ok {
			t.Fatalf("not parsed: %s", s)
		}
		for _, x := range [][2]*string{{&d.Set, &back.Set}, {&d.Host, &back.Host}} {
			if !strings.HasPrefix(*x[0], *x[1]) || len(*x[1]) < min(100, len(*x[0])) {
				t.Fatalf("%q became %q", *x[0], *x[1])
			}
			if utf8.ValidString(*x[0]) && !utf8.ValidString(*x[1]) {
				t.Fatalf("%q is cut inside a character", *x[1])
			}
			*x[0] = *x[1]
		}
		if diff := cmp.Diff(d, back); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestNotDescriptions(t *testing.T) {
	t.Parallel()
	ids := " setid=" + setID + " snap=" + snapID
	if _, ok := manifest.ParseDescription("firn/1" + ids + " part=1"); !ok {
		t.Fatal("what these are made from is not good")
	}
	for _, s := range []string{
		"", "firn/1", "firn/1 ", "firn/2" + ids + " part=1", "x firn/1" + ids + " part=1", "firn/1" + ids,
		"firn/1" + ids + " part=0", "firn/1" + ids + " part=-1", "firn/1" + ids + " part=", "firn/1" + ids + " part=1x",
		"firn/1" + ids + " part=99999999999", "firn/1" + ids + " part=1 part=2", "firn/1  " + ids + " part=1",
		"firn/1 part=1", "firn/1 setid=x snap=y part=1", "firn/1" + ids + " part=1 set=%", "firn/1" + ids + " part=1 set=%4",
		"firn/1" + ids + " part=1 set=%+4", "firn/1" + ids + " part=1 set=\x80", "firn/1" + ids + " part=1 n=-1",
		"firn/1" + ids + " part=1 at=yesterday", "firn/1" + ids + " part=1 at=2026-11-22T02:00:00+01:00",
		"firn/1" + ids + " part=1 codec=,", "firn/1" + ids + " part=volume",
		"firn/1" + ids + " part=1 set=" + strings.Repeat("a", 1024),
	} {
		if d, ok := manifest.ParseDescription(s); ok {
			t.Errorf("%q: %+v", s, d)
		}
	}
}

func FuzzParseDescription(f *testing.F) {
	h := incrementalHeader()
	f.Add(manifest.Describe(&h, 3).String())
	f.Add("firn/1 part=key set=%F0%9F%98%80 x=1")
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := manifest.ParseDescription(s)
		if !ok {
			return
		}
		again := d.String()
		if len(again) > manifest.MaxDescription {
			t.Fatalf("%d characters", len(again))
		}
		if _, ok := manifest.ParseDescription(again); !ok {
			t.Fatalf("%q became %q", s, again)
		}
	})
}

func TestNames(t *testing.T) {
	t.Parallel()
	h := fullHeader()
	dir := "documents-" + setID + "/" + snapID + "/"
	for got, want := range map[string]string{
		manifest.VolumeName(&h, 3, "01JDB0000000000000000000EF", ".zst", ".age"): dir + "000003-01JDB0000000000000000000EF.tar.zst.age",
		manifest.VolumeName(&h, 1234567, "1", "", ""):                            dir + "1234567-1.tar",
		manifest.ManifestName(&h, "", ".zst", ".age"):                            dir + "manifest.jsonl.zst.age",
		manifest.ManifestName(&h, "2", "", ".gpg"):                               dir + "manifest-2.jsonl.gpg",
		manifest.KeyName("ab/12"):                                                "keys/ab_12.txt.age",
	} {
		if got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	for label, want := range map[string]string{
		"": "set", "...": "set", "--": "set", "日本": "set", "-rf": "rf", "../../etc": "_.._etc", "My Photos (2026)": "My_Photos_2026_", "a/b": "a_b",
		strings.Repeat("x", 100): strings.Repeat("x", 64), ".git": "git",
	} {
		h.Label = label
		if got, _, _ := strings.Cut(manifest.SnapshotDir(&h), "-"+setID); got != want {
			t.Errorf("%q: %s, not %s", label, got, want)
		}
	}
}

func TestNamesAreLegal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := fullHeader()
		h.Label, h.Stream = genText(t, "label"), genText(t, "stream")
		attempt := genText(t, "attempt")
		n := rapid.IntRange(1, math.MaxInt32).Draw(t, "n")
		for i, name := range []string{
			manifest.VolumeName(&h, n, attempt, ".zst", ".age"), manifest.ManifestName(&h, attempt, ".zst"), manifest.KeyName(attempt),
		} {
			if len(name) > 900 || path.Clean(name) != name || strings.HasPrefix(name, "/") || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/") != "" {
				t.Fatalf("%q", name)
			}
			for _, e := range strings.Split(name, "/") {
				if e == "" || strings.HasPrefix(e, ".") || strings.HasPrefix(e, "-") {
					t.Fatalf("%q", name)
				}
			}
			d, ok := manifest.ParseName("prefix/" + name)
			if !ok || d.What != []string{manifest.WhatVolume, manifest.WhatManifest, manifest.WhatKey}[i] {
				t.Fatalf("%q: %+v", name, d)
			}
			if i == 0 && d.Part != n || i < 2 && (d.SetID != setID || d.Snap != snapID) {
				t.Fatalf("%q: %+v", name, d)
			}
		}
	})
}

func TestGroupArchives(t *testing.T) {
	t.Parallel()
	h := fullHeader()
	h2 := incrementalHeader()
	h2.Snap, h2.N, h2.Set = "01JE00000000000000000000AB", 13, "renamed"
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	a := func(id, desc string, created time.Time) coldstore.Archive {
		return coldstore.Archive{ID: id, Description: desc, Created: created}
	}
	v := func(h *manifest.Header, part int) string { return manifest.Describe(h, part).String() }
	l := manifest.GroupArchives([]coldstore.Archive{
		a("9", v(&h2, 1), day(3)), a("foreign", "holiday pictures", day(1)), a("3", v(&h, 2), day(1)), a("1", v(&h, 1), day(1)),
		a("4", v(&h, 2), day(2)), a("m", v(&h, 0), day(1)), a("k", "firn/1 part=key", day(1)), a("x", "firn/1 part=future", day(1)),
		a(manifest.ManifestName(&h2, "", ".zst", ".age"), "", day(3)),
	})
	if len(l.Sets) != 1 || l.Sets[0].Set != "renamed" || l.Sets[0].Host != "nb" || len(l.Keys) != 1 || len(l.Foreign) != 2 {
		t.Fatalf("%+v", l)
	}
	s := l.Sets[0].Snapshots
	if len(s) != 2 || s[0].N != 12 || s[1].N != 13 || s[1].Base != baseID {
		t.Fatalf("%+v", s)
	}
	if len(s[0].Manifests) != 1 || len(s[0].Volumes) != 3 || s[0].Volumes[1].ID != "4" || len(s[1].Manifests) != 1 {
		t.Fatalf("%+v", s)
	}
}
