package glaciervault

import (
	"errors"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

func TestCanonical(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"glacier://eu-west-1/photos":  "glacier://eu-west-1/photos",
		"glacier://us-gov-west-1/a.b": "glacier://us-gov-west-1/a.b",
		"glacier://eu-west-1/photos?profile=me&account=123456789012&endpoint=http%3A%2F%2F127.0.0.1%3A9900%2F": "glacier://eu-west-1/photos?account=123456789012&endpoint=http%3A%2F%2F127.0.0.1%3A9900&profile=me",
		"glacier://eu-west-1/photos?endpoint=https://nas.example":                                              "glacier://eu-west-1/photos?endpoint=https%3A%2F%2Fnas.example",
		"glacier://eu-west-1/p?sns-topic=arn:aws:sns:eu-west-1:123456789012:done":                              "glacier://eu-west-1/p?sns-topic=arn%3Aaws%3Asns%3Aeu-west-1%3A123456789012%3Adone",
	} {
		got, err := Canonical(in)
		if err != nil || got != want {
			t.Errorf("Canonical(%q) = %q, %v", in, got, err)
		}
		if again, err := Canonical(got); err != nil || again != got {
			t.Errorf("Canonical(%q) = %q, %v", got, again, err)
		}
	}
	for _, bad := range []string{
		"", "glacier:", "glacier:eu-west-1/x", "glacier://", "glacier://eu-west-1", "glacier://eu-west-1/", "glacier:///photos", "glacier://here/x",
		"glacier://eu-west-1/a/b", "glacier://eu-west-1/a b", "glacier://eu-west-1/a%2Fb", "glacier://eu-west-1/..", "glacier://eu-west-1/é",
		"glacier://eu-west-1/" + strings.Repeat("x", 256), "glacier://eu-west-1/x#y", "glacier://eu-west-1/x#", "glacier://eu-west-1/x?account=12", "glacier://eu-west-1/x?y=z",
		"glacier://eu-west-1/x?profile=a&profile=b", "glacier://eu-west-1/x?profile=", "glacier://eu-west-1/x?endpoint=ftp://x", "glacier://eu-west-1/x?endpoint=nas", "glacier://eu-west-1/x?sns-topic=done",
		"glacier://eu-west-1:80/x", "s3://eu-west-1/x", "glacier://eu-west-1/%zz", "glacier://eu-west-1/x?endpoint=http://h/?q=1",
	} {
		if got, err := Canonical(bad); err == nil || failure.KindOf(err) != failure.Usage || !errors.Is(err, coldstore.ErrInvalid) {
			t.Errorf("Canonical(%q) = %q, %v", bad, got, err)
		}
	}
	for _, secret := range []string{
		"glacier://AKID:hush@eu-west-1/x", "glacier://hush@eu-west-1/x", "glacier://a:hu%zzsh@eu-west-1/x", "glacier://eu-west-1/x?endpoint=http://me:hush@nas",
	} {
		if _, err := Canonical(secret); err == nil || strings.Contains(err.Error(), "hu") {
			t.Errorf("Canonical(%q): %v", secret, err)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	for _, want := range []token{
		{"job-1", coldstore.Range{}, 1, "-archive"}, {"j", coldstore.Range{Offset: mib, Size: 5}, mib + 5, "a"}, {"j", coldstore.Range{Size: mib}, maxArchive, "a_b"},
	} {
		if got, err := parseToken(want.String()); err != nil || got != want {
			t.Errorf("%s: %+v, %v", want, got, err)
		}
	}
	for _, bad := range []string{
		"", ".", "....", "j.0.0.1", "j.0.0.1.a.b", "j.0.0.0.a", "j.1.0.5.a", "j.-1.1.5.a", "j.0.6.5.a", "j.0.00.5.a", "j.+0.0.5.a", "../x.0.0.5.a", "j.0.0.5.a/b", ".0.0.5.a",
		"j.0.0.99999999999999999999.a", "j.9223372036854775807.9223372036854775807.5.a",
	} {
		if got, err := parseToken(bad); !errors.Is(err, coldstore.ErrExpired) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("glacier://eu-west-1/photos?account=123456789012&endpoint=http://127.0.0.1:9900")
	f.Add("glacier://a:b@eu-west-1/x")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Canonical(s)
		if err != nil {
			return
		}
		if again, err := Canonical(got); err != nil || again != got {
			t.Errorf("%q became %q, and that %q, %v", s, got, again, err)
		}
	})
}

func TestSame(t *testing.T) {
	t.Parallel()
	const url, account = "glacier://eu-west-1/photos", "?account=123456789012"
	for _, tt := range []struct {
		url, vault string
		want       bool
	}{
		{url, url, true},
		{url, url + account, true},
		{url + account, url, false},
		{url + account, url + "?account=210987654321", false},
		{url + account, url + account + "&profile=me", true},
		{url, "glacier://eu-west-1/photo", false},
		{url, "glacier://eu-west-2/photos", false},
		{"glacier://eu-west-1", url, false},
		{url, "dir:/photos", false},
	} {
		if got := Same(tt.url, tt.vault); got != tt.want {
			t.Errorf("Same(%q, %q) = %v", tt.url, tt.vault, got)
		}
	}
}
