package s3glacier

import (
	"errors"
	"hash/crc64"
	"strings"
	"testing"

	"github.com/minio/crc64nvme"
	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/treehash"
)

func TestURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"s3://bucket":                       "s3://bucket?class=DEEP_ARCHIVE",
		"s3://bucket/":                      "s3://bucket?class=DEEP_ARCHIVE",
		"s3://bucket/a/b/?class=glacier_ir": "s3://bucket/a/b?class=GLACIER_IR",
		"s3://my.bucket/p?region=eu-west-1&class=GLACIER&manifest-class=STANDARD_IA": "s3://my.bucket/p?class=GLACIER&manifest-class=STANDARD_IA&region=eu-west-1",
		"s3://bucket?endpoint=https://minio.example:9000/&path-style=true":           "s3://bucket?class=DEEP_ARCHIVE&endpoint=https%3A%2F%2Fminio.example%3A9000&path-style=true",
		"s3://bucket?sse=aws:kms&kms-key=alias/firn&requester-pays=true":             "s3://bucket?class=DEEP_ARCHIVE&kms-key=alias%2Ffirn&requester-pays=true&sse=aws%3Akms",
		"s3://bucket?lock=governance&lock-days=180&checksum=crc64nvme":               "s3://bucket?class=DEEP_ARCHIVE&lock=GOVERNANCE&lock-days=180",
		"s3://bucket?profile=backup&checksum=none&requester-pays=false":              "s3://bucket?checksum=none&class=DEEP_ARCHIVE&profile=backup",
	} {
		got, err := Canonical(in)
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
		if again, err := Canonical(got); err != nil || again != got {
			t.Errorf("%s is not the one form: %s, %v", got, again, err)
		}
	}
	for in, want := range map[string]string{
		"s3:bucket": "s3://", "s3://": "no bucket", "s3://B": "bucket's name", "s3://a": "bucket's name", "s3://user:secret@bucket": "credentials",
		"s3://bucket/a//b": "prefix", "s3://bucket/a/../b": "prefix", "s3://bucket/a%20b": "prefix", "s3://bucket#x": "#",
		"s3://bucket?class=ICE": "no class", "s3://bucket?class=": "with a value", "s3://bucket?class=GLACIER&class=GLACIER": "given once",
		"s3://bucket?endpoint=x": "http://HOST", "s3://bucket?endpoint=http://u:secret@h": "http://HOST", "s3://bucket?lock=GOVERNANCE": "go together",
		"s3://bucket?lock-days=3": "go together", "s3://bucket?lock=x&lock-days=3": "GOVERNANCE", "s3://bucket?lock=GOVERNANCE&lock-days=0": "number of days",
		"s3://bucket?kms-key=x": "sse=aws:kms", "s3://bucket?sse=x": "AES256", "s3://bucket?color=red": "unknown parameter color", "s3://bucket?checksum=md5": "crc64nvme or none",
		"s3://bucket?requester-pays=yes": "true or false", "s3://bucket?region=EU": "region", "s3://bucket/" + strings.Repeat("x/", 70) + "x": "prefix",
	} {
		_, err := Canonical(in)
		if err == nil || !strings.Contains(err.Error(), want) || failure.KindOf(err) != failure.Usage || !errors.Is(err, coldstore.ErrInvalid) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v; want %s", in, err, want)
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{"s3://bucket/p?class=GLACIER", "s3://b", "s3://bucket?endpoint=http://h:1&path-style=true", "s3://bucket?lock=GOVERNANCE&lock-days=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		one, err := Canonical(s)
		if err != nil {
			return
		}
		if again, err := Canonical(one); err != nil || again != one {
			t.Errorf("%q became %q, and that %q, %v", s, one, again, err)
		}
	})
}

func TestCRC(t *testing.T) {
	t.Parallel()
	if got := crc64.Checksum([]byte("123456789"), crc64.MakeTable(polyNVME)); got != 0xae8b14860a799888 || crc64nvme.Checksum([]byte("123456789")) != got {
		t.Errorf("the checksum of 123456789 is %x", got) // from the catalogue of CRCs (CRC-64/NVME)
	}
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "a")
		b := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "b")
		want := crc64nvme.Checksum(append(append([]byte(nil), a...), b...))
		if got := combineCRC(crc64nvme.Checksum(a), crc64nvme.Checksum(b), int64(len(b))); got != want {
			t.Errorf("%x, want %x", got, want)
		}
	})
}

// Parts that grow lie without gaps, are found by their offsets, and have together the hash of the whole.
func TestGrowth(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const every = 8 // allows of three doublings, as 1,024 does of ten
		tr := coldstore.Traits{GrowEvery: every, MaxPart: rapid.SampledFrom([]int64{1, 2, 8}).Draw(t, "most") << 20}
		n := rapid.IntRange(1, 5*every).Draw(t, "parts")
		var leaves, parts []treehash.Hash
		end := int64(0)
		for i := range n {
			off, size := tr.PartAt(1<<20, i)
			if at, ok := tr.PartIndex(1<<20, off); off != end || at != i || !ok {
				t.Fatalf("part %d is at %d, after %d; found as %d, %v", i, off, end, at, ok)
			}
			if _, ok := tr.PartIndex(1<<20, off+1); ok {
				t.Fatalf("a part begins after %d", off)
			}
			end += size
			var own []treehash.Hash
			for range size >> 20 {
				own = append(own, treehash.Sum([]byte{byte(len(leaves) + len(own)), byte(i)}))
			}
			if i == n-1 {
				own = own[:rapid.IntRange(1, len(own)).Draw(t, "last")]
			}
			leaves, parts = append(leaves, own...), append(parts, treehash.Combine(own))
		}
		if combineParts(parts, tr, 1<<20) != treehash.Combine(leaves) {
			t.Errorf("%d parts, %d leaves", n, len(leaves))
		}
	})
	// Sixteen MiB at first are enough for any archive.
	if most, _ := growth().PartAt(16<<20, maxParts); most < maxArchive {
		t.Errorf("%d parts hold %d bytes", maxParts, most)
	}
	if most, size := growth().PartAt(16<<20, 6*growEvery); most != 63<<34 || size != 1<<30 {
		t.Errorf("%d, %d", most, size)
	}
}

func TestParseRestore(t *testing.T) {
	t.Parallel()
	for h, want := range map[string]string{
		"":                       "false false 0001-01-01",
		`ongoing-request="true"`: "true true 0001-01-01",
		`ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`: "true false 2012-12-21",
		`ongoing-request="false", expiry-date="Fri, 1 Dec 2012 00:00:00 GMT"`:  "true false 2012-12-01",
		`ongoing-request="false", expiry-date="soon"`:                          "true false 0001-01-01",
	} {
		r := parseRestore(h)
		if got := strings.Join([]string{boolText(r.told), boolText(r.running), r.until.Format("2006-01-02")}, " "); got != want {
			t.Errorf("%s: %s, want %s", h, got, want)
		}
	}
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
