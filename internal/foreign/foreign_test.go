package foreign_test

import (
	"encoding/base64"
	"path"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/foreign"
)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestDecode(t *testing.T) {
	const fastTime = "2012-08-21T17:08:24Z"
	for _, tt := range []struct {
		name, in string
		want     foreign.Archive
	}{
		{"mt2", "mt2 eyJmaWxlbmFtZSI6ImZpbGUvYSIsIm10aW1lIjoiMjAxMjExMDNUMDYyOTM4WiJ9",
			foreign.Archive{Tool: foreign.MTAWS, Form: "mt2", Name: "file/a", ModTime: time.Unix(1351924178, 0), Size: -1}},
		{"mt2, not ASCII", "mt2 eyJmaWxlbmFtZSI6ItC00LjRgNC10LrRgtC-0YDQuNGPL9GE0LDQudC7IiwibXRpbWUiOiIyMDEyMTEwNVQxNDAyNThaIn0",
			foreign.Archive{Tool: foreign.MTAWS, Form: "mt2", Name: "директория/файл", ModTime: time.Unix(1352124178, 0), Size: -1}},
		{"mt2, the other alphabet, padded, more words", " mt2\t eyJmaWxlbmFtZSI6ItC00LjRgNC10LrRgtC+0YDQuNGPL9GE0LDQudC7IiwibXRpbWUiOiIyMDEyMTEwNVQxNDAyNThaIn0= more",
			foreign.Archive{Tool: foreign.MTAWS, Form: "mt2", Name: "директория/файл", ModTime: time.Unix(1352124178, 0), Size: -1}},
		{"mt2 of Firn's", "mt2 " + base64.RawURLEncoding.EncodeToString([]byte(`{"filename":"a","mtime":"20121103T062938Z","setid":"01J0","set":"s"}`)),
			foreign.Archive{Tool: foreign.Firn, Form: "mt2", Name: "a", ModTime: time.Unix(1351924178, 0), Size: -1}},
		{"mt1", "mt1 eyJmaWxlbmFtZSI6IsOQwq9Bw5DCryIsIm10aW1lIjoiMTk3MDAxMDFUMDAwMjAzWiJ9",
			foreign.Archive{Tool: foreign.MTAWS, Form: "mt1", Name: "ЯAЯ", ModTime: time.Unix(123, 0), Size: -1}},
		{"mt1, long", "mt1 eyJmaWxlbmFtZSI6IsOQwrTDkMK4w5HCgMOQwrXDkMK6w5HCgsOQwr7DkcKAw5DCuMORwo8vw5HChMOQwrDDkMK5w5DCuyIsIm10aW1lIjoiMjAxMjExMDVUMTQwMjU4WiJ9",
			foreign.Archive{Tool: foreign.MTAWS, Form: "mt1", Name: "директория/файл", ModTime: time.Unix(1352124178, 0), Size: -1}},
		{"FastGlacier v4", "<m><v>4</v><p>Z2xhY2llci1kZy5wZGY=</p><lm>20120821T170824Z</lm><ce>1:1:4340ebcf79712dc5e3ef7d50bab98ba5:54687</ce></m>",
			foreign.Archive{Tool: foreign.FastGlacier, Form: "v4", Name: "glacier-dg.pdf", ModTime: at(fastTime), Size: 54687,
				Compressed: true, Encrypted: true, MD5: "4340ebcf79712dc5e3ef7d50bab98ba5"}},
		{"FastGlacier v3, quoted, with line breaks, without Z", "\" <m><v>3</v>\r\n<p>Z2xhY2llci1k\r\nZy5wZGY=</p>\r\n<lm>20120821T170824</lm><ce>0:0:4340ebcf79712dc5e3ef7d50bab98ba5</ce></m> \"",
			foreign.Archive{Tool: foreign.FastGlacier, Form: "v3", Name: "glacier-dg.pdf", ModTime: at(fastTime), Size: -1, MD5: "4340ebcf79712dc5e3ef7d50bab98ba5"}},
		{"FastGlacier v2, by a QNAP", "<m><v>2</v><p>L3NhbXBsZS8xMjM0LnBkZg==</p><lm>20200101T000000Z</lm></m>",
			foreign.Archive{Tool: foreign.FastGlacier, Form: "v2", Name: "/sample/1234.pdf", ModTime: at("2020-01-01T00:00:00Z"), Size: -1}},
		{"FastGlacier v1", "<ArchiveMetadata><Path>UkVOREVSRkFSTTUvQjovb25lL3R3bw==</Path></ArchiveMetadata>",
			foreign.Archive{Tool: foreign.FastGlacier, Form: "v1", Name: "RENDERFARM5/B:/one/two", Size: -1}},
		{"FastGlacier, a directory", "<m><v>4</v><p>YS9iLw==</p><lm>20120821T170824Z</lm></m>",
			foreign.Archive{Tool: foreign.FastGlacier, Form: "v4", Name: "a/b/", ModTime: at(fastTime), Size: -1, Directory: true}},
		{"CloudBerry", `{"Path":"photos/Z+APw-rich 01.jpg","UTCDateModified":"20120821T170824Z","Flags":3}`,
			foreign.Archive{Tool: foreign.CloudBerry, Form: "json", Name: "photos/Zürich 01.jpg", ModTime: at(fastTime), Size: -1, Compressed: true, Encrypted: true}},
		{"CloudBerry, encoded twice", `{\"Path\":\"a+AF8-b +- c\",\"UTCDateModified\":\"20120821T170824Z\",\"Flags\":0}`,
			foreign.Archive{Tool: foreign.CloudBerry, Form: "json", Name: "a_b + c", ModTime: at(fastTime), Size: -1}},
		{"CloudBerry, encoded twice and quoted", `"{\"path\":\"a+AF8-b\",\"Flags\":1}"`,
			foreign.Archive{Tool: foreign.CloudBerry, Form: "json", Name: "a_b", Size: -1, Compressed: true}},
		{"CloudBerry, no UTF-7", `{"Path":"C++/a.c","Flags":0}`, foreign.Archive{Tool: foreign.CloudBerry, Form: "json", Name: "C++/a.c", Size: -1}},
		{"QNAP", `{"path": "/sample/1+1.pdf", "type": "file"}`, foreign.Archive{Tool: foreign.QNAP, Form: "json", Name: "/sample/1+1.pdf", Size: -1}},
		{"glacier-backup.py", "directory:/home/me/my docs date: of birth date:2014-01-02T03:04:05.678901",
			foreign.Archive{Tool: foreign.GlacierBkpPy, Form: "directory", Name: "/home/me/my docs date: of birth", ModTime: at("2014-01-02T03:04:05.678901Z"), Naive: true, Size: -1}},
		{"glacier-backup.py at a whole second", "directory:docs date:2014-01-02T03:04:05",
			foreign.Archive{Tool: foreign.GlacierBkpPy, Form: "directory", Name: "docs", ModTime: at("2014-01-02T03:04:05Z"), Naive: true, Size: -1}},
		{"btrsend, complete", "btrsend backup for 2023-01-01 (complete)",
			foreign.Archive{Tool: foreign.Btrsend, Form: "complete", Name: "btrsend-2023-01-01", ModTime: at("2023-01-01T00:00:00Z"), Size: -1}},
		{"btrsend, incremental", "btrsend backup for 2023-01-07 (parent = 2023-01-01)",
			foreign.Archive{Tool: foreign.Btrsend, Form: "incremental", Name: "btrsend-2023-01-07", ModTime: at("2023-01-07T00:00:00Z"), Size: -1, Parent: "2023-01-01"}},
		{"glacier-rsync", "grsync|/srv/a.tar|123456|1609459200.5|mine | yours",
			foreign.Archive{Tool: foreign.GlacierRsync, Form: "grsync", Name: "/srv/a.tar", ModTime: at("2021-01-01T00:00:00.5Z"), Size: 123456}},
		{"iceshelf", "20230101-123456-00000.tar.bz2.gpg.sig",
			foreign.Archive{Tool: foreign.Iceshelf, Form: "name", Name: "20230101-123456-00000.tar.bz2.gpg.sig", ModTime: at("2023-01-01T12:34:56Z"),
				Naive: true, Size: -1, Encrypted: true, Group: "20230101-123456-00000"}},
		{"bakthat", "photos.2013.20130102030405.tgz.enc",
			foreign.Archive{Tool: foreign.Bakthat, Form: "name", Name: "photos.2013.20130102030405.tgz.enc", ModTime: at("2013-01-02T03:04:05Z"),
				Naive: true, Size: -1, Compressed: true, Encrypted: true}},
		{"git-annex", "SHA256E-s123--084c799c.tar.gz",
			foreign.Archive{Tool: foreign.GitAnnex, Form: "SHA256E", Name: "SHA256E-s123--084c799c.tar.gz", Size: 123}},
		{"git-annex, below a prefix", "old/WORM-s3-m1351924178--a b--c",
			foreign.Archive{Tool: foreign.GitAnnex, Form: "WORM", Name: "old/WORM-s3-m1351924178--a b--c", ModTime: time.Unix(1351924178, 0), Size: 3}},
		{"git-annex, behind a prefix", "pre-SHA256E-s5--0123456789abcdef0123456789abcdef.ext",
			foreign.Archive{Tool: foreign.GitAnnex, Form: "SHA256E", Name: "pre-SHA256E-s5--0123456789abcdef0123456789abcdef.ext", Size: 5}},
		{"git-annex, encrypted and behind a prefix", "annexGPGHMACSHA1--0123456789abcdef0123456789abcdef01234567",
			foreign.Archive{Tool: foreign.GitAnnex, Form: "GPGHMACSHA1", Name: "annexGPGHMACSHA1--0123456789abcdef0123456789abcdef01234567", Size: -1, Encrypted: true}},
		{"git-annex, encrypted", "GPGHMACSHA1--2ba56a31",
			foreign.Archive{Tool: foreign.GitAnnex, Form: "GPGHMACSHA1", Name: "GPGHMACSHA1--2ba56a31", Size: -1, Encrypted: true}},
		{"glacier-cmd", "No description.", foreign.Archive{Tool: foreign.GlacierCmd, Form: "none", Size: -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.ModTime = tt.want.ModTime.UTC()
			got, ok := foreign.Decode(tt.in)
			if d := cmp.Diff(tt.want, got); !ok || d != "" {
				t.Errorf("Decode(%q): %v\n%s", tt.in, ok, d)
			}
		})
	}
}

func TestDecodeNot(t *testing.T) {
	for _, in := range []string{
		"", " ", "holiday.iso", "mt2", "mt2 ", "mt2 !!!", "mt3 eyJmaWxlbmFtZSI6ImZpbGUvYSIsIm10aW1lIjoiMjAxMjExMDNUMDYyOTM4WiJ9",
		"mt2 eyJmaWxlbmFtZSI6ImEifQ",                               // no time
		"mt2 eyJmaWxlbmFtZSI6ImEiLCJtdGltZSI6IjIwMTIifQ",           // not a time
		"mt2 eyJmaWxlbmFtZSI6WyJhIl0sIm10aW1lIjoxfQ", "mt2 bnVsbA", // of other types; null
		"<m>", "<m></m>", "<m><v>4</v><p></p></m>", "<m><p>====</p></m>", "<html>", "<ArchiveMetadata></ArchiveMetadata>",
		"{", "{}", `{"Path":""}`, `{"Path":7}`, `{"size":7}`, "[1]",
		"directory:", "directory:a", "directory: date:2014-01-02T03:04:05", "directory:a date:yesterday",
		"btrsend backup for 2023-01-01", "btrsend backup for 2023-13-01 (complete)", "btrsend backup for 2023-01-01 (parent = x)",
		"btrsend backup for 2023-01-01 (parent = 2022-12-21", "grsync|", "grsync|a|x|1|", "grsync||1|1|", "grsync|a|-1|1|",
		"a--b", "my-file--copy", "preSHA256E-s5--short", "my-FILE--0123456789abcdef0123456789abcdef", "FILE--x", "SHA256E-x12--y", "SHA256E--", "20230101-123456-0000.tar", "20231301-123456-00000.tar", "x.tgz", "x.20131301000000.tgz",
		"mt2 " + strings.Repeat("A", foreign.MaxDescription),
	} {
		if a, ok := foreign.Decode(in); ok {
			t.Errorf("Decode(%q) = %+v", in, a)
		}
		if got := foreign.Name(in); got != in {
			t.Errorf("Name(%q) = %q", in, got)
		}
	}
}

func TestEncodeMT2(t *testing.T) {
	got, ok := foreign.EncodeMT2("photos/2012/IMG_0001.JPG", time.Unix(1345568904, 999).In(time.FixedZone("", 7200)))
	if want := "mt2 eyJmaWxlbmFtZSI6InBob3Rvcy8yMDEyL0lNR18wMDAxLkpQRyIsIm10aW1lIjoiMjAxMjA4MjFUMTcwODI0WiJ9"; !ok || got != want {
		t.Errorf("%q %v, want %q", got, ok, want)
	}
	now := time.Unix(1345568904, 0)
	for _, name := range []string{"", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\nb", "a\x00", "a\tb", "a\x7f", "a\xff", strings.Repeat("a", 760)} {
		if got, ok := foreign.EncodeMT2(name, now); ok {
			t.Errorf("EncodeMT2(%q) = %q", name, got)
		}
	}
	for _, when := range []time.Time{{}, time.Date(999, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if got, ok := foreign.EncodeMT2("a", when); ok {
			t.Errorf("EncodeMT2 of %v = %q", when, got)
		}
	}
	if got, ok := foreign.EncodeMT2(strings.Repeat("a", 720), now); !ok || len(got) > 1024 {
		t.Errorf("a long name: %d %v", len(got), ok)
	}
}

func TestMT2RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		when := time.Unix(rapid.Int64Range(-30_610_224_000, 253_402_300_799).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds"))
		s, ok := foreign.EncodeMT2(name, when)
		if !ok {
			return
		}
		for i := range len(s) {
			if s[i] < 0x20 || s[i] > 0x7e {
				t.Fatalf("%q is not printable ASCII", s)
			}
		}
		a, ok := foreign.Decode(s)
		if !ok || a.Name != name || a.ModTime.Unix() != when.Unix() || len(s) > 1024 {
			t.Fatalf("%q: %+v %v", s, a, ok)
		}
	})
}

func TestSafeName(t *testing.T) {
	for in, want := range map[string]string{
		"a/b": "a/b", "/a//b/": "a/b", "../../etc/passwd": "etc/passwd", `C:\Users\me\a.txt`: "Users/me/a.txt", `\\nas\share\a`: "nas/share/a",
		`..\..\a`: "a", "RENDERFARM5/B:/one/two": "RENDERFARM5/one/two", "a\x00b\nc": "a_b_c", "..": "", "": "", "/": "", `a/b\c`: `a/b\c`,
	} {
		if got := foreign.SafeName(in); got != want {
			t.Errorf("SafeName(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"mt2 eyJmaWxlbmFtZSI6ImZpbGUvYSIsIm10aW1lIjoiMjAxMjExMDNUMDYyOTM4WiJ9", "mt1 eyJmaWxlbmFtZSI6IsOQwq9Bw5DCryIsIm10aW1lIjoiMTk3MDAxMDFUMDAwMjAzWiJ9",
		"<m><v>4</v><p>Z2xhY2llci1kZy5wZGY=</p><lm>20120821T170824Z</lm><ce>1:1:4340ebcf79712dc5e3ef7d50bab98ba5:54687</ce></m>",
		"<m><ce>", "<m><p>YQ", `{"Path":"a+AF8-b","Flags":1e99}`, `{\"Path\":\"+2ADYAA-\"}`, "directory:a date:2014-01-02T03:04:05",
		"btrsend backup for 2023-01-07 (parent = 2023-01-01)", "grsync|a|1|1e400|", "grsync|a|1|NaN|x", "SHA256E-s9223372036854775807-m99999999999--a",
		"20230101-123456-00000.tar", "a.20130102030405.tgz", `"`, `""`, "'<'",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, ok := foreign.Decode(s)
		if ok && (a.Tool == "" || a.Form == "" || a.Name == "" && a.Tool != foreign.GlacierCmd || len(a.Name) > 3*foreign.MaxDescription) {
			t.Errorf("Decode(%q) = %+v", s, a)
		}
		if !ok && a != (foreign.Archive{}) {
			t.Errorf("Decode(%q) = %+v, and false", s, a)
		}
		if ok && !a.ModTime.IsZero() && (a.ModTime.Year() < -5000 || a.ModTime.Year() > 9999) {
			t.Errorf("Decode(%q): in the year %d", s, a.ModTime.Year())
		}
		safe := foreign.SafeName(a.Name)
		if safe != "" && (path.IsAbs(safe) || path.Clean(safe) != safe || safe == ".." || strings.HasPrefix(safe, "../") || strings.ContainsRune(safe, 0)) {
			t.Errorf("SafeName(%q) = %q", a.Name, safe)
		}
		if ok && a.Form == "mt2" && utf8.ValidString(a.Name) {
			if again, ok := foreign.EncodeMT2(a.Name, a.ModTime); ok {
				if b, ok := foreign.Decode(again); !ok || b.Name != a.Name || !b.ModTime.Equal(a.ModTime) {
					t.Errorf("%q again: %+v, not %+v", s, b, a)
				}
			}
		}
	})
}
