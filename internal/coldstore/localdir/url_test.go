package localdir

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]struct {
		root string
		o    Options
	}{
		"dir:/mnt/nas/vault":            {root: "/mnt/nas/vault"},
		"dir:///mnt/nas/vault/":         {root: "/mnt/nas/vault"},
		"dir:/v?delay=4h":               {"/v", Options{Delay: 4 * time.Hour}},
		"dir:/v?expiry=90s&delay=1h30m": {"/v", Options{Delay: 90 * time.Minute, Expiry: 90 * time.Second}},
		"dir:/v?delay=0":                {root: "/v"},
		"dir:/my%20vault/%23%3F%25":     {root: "/my vault/#?%"},
		"dir:/my vault/ü":               {root: "/my vault/ü"},
		"dir:/a//b/../c":                {root: "/a/c"},
		"DIR:/v":                        {root: "/v"},
	} {
		root, o, err := ParseURL(s)
		if err != nil || root != want.root || o.Delay != want.o.Delay || o.Expiry != want.o.Expiry {
			t.Errorf("ParseURL(%q) = %q, %+v, %v", s, root, o, err)
		}
	}
	for _, s := range []string{
		"", "dir:", "dir:vault", "dir:./v", "dir:~/v", "/v", "dir://host/v", "dir://host", "dir://u@/v", "s3://bucket", "dir:/v#x", "dir:/v%", "dir:/v%00",
		"dir:/v?delay", "dir:/v?delay=", "dir:/v?delay=4", "dir:/v?delay=-4h", "dir:/v?delay=4h&delay=5h", "dir:/v?colour=red",
		"dir:/v?Delay=4h", "dir:/v?expiry=0", "dir:/v?delay=4h;expiry=5h", "dir:/v?delay=%zz", "dir:/v?=4h",
	} {
		_, _, err := ParseURL(s)
		if !errors.Is(err, coldstore.ErrInvalid) || failure.KindOf(err) != failure.Usage || strings.Contains(err.Error(), "\n") {
			t.Errorf("ParseURL(%q): %v", s, err)
		}
	}
}

func TestFormatURL(t *testing.T) {
	t.Parallel()
	if got := FormatURL("/home/me/my vault#1", Options{Delay: 4 * time.Hour}); got != "dir:/home/me/my%20vault%231?delay=4h0m0s" {
		t.Error(got)
	}
	rapid.Check(t, func(t *rapid.T) {
		root := "/" + strings.Join(rapid.SliceOfN(rapid.StringMatching(`[a-z#?%&=+ :;@ü\x01-\x1f"\\]{1,8}`), 0, 3).Draw(t, "elements"), "/")
		o := Options{
			Delay:  time.Duration(rapid.Int64Range(0, 1<<50).Draw(t, "delay")),
			Expiry: time.Duration(rapid.Int64Range(0, 1<<50).Draw(t, "expiry")),
		}
		url := FormatURL(root, o)
		back, p, err := ParseURL(url)
		if err != nil || back != root || p.Delay != o.Delay || p.Expiry != o.Expiry {
			t.Fatalf("%q became %q, which is %q, %+v, %v", root, url, back, p, err)
		}
	})
}
