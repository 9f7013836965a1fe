package localdir

import (
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// Scheme is that of the vault's URLs.
const Scheme = "dir"

// ParseURL reads dir:/path?delay=4h&expiry=24h: an absolute path, percent-encoded
// as in every URL, and optionally how long retrievals take and stay readable. What it does not
// know it refuses, with ErrInvalid. Options.Now is left nil.
func ParseURL(s string) (root string, o Options, err error) {
	refuse := func(why string) (string, Options, error) {
		return "", Options{}, failure.Wrap(failure.Usage, &coldstore.URLError{URL: s, Why: why})
	}
	if strings.Contains(s, "#") {
		return refuse("a # in the path must be written %23")
	}
	u, err := url.Parse(s)
	if err != nil {
		return refuse("cannot be read (a % in the path must be written %25)")
	}
	switch {
	case u.Scheme != Scheme:
		return refuse("does not begin with dir:")
	case u.Host != "" || u.User != nil:
		return refuse("a directory has no host: write dir:/path")
	case u.Opaque != "" || !strings.HasPrefix(u.Path, "/"):
		return refuse("the path is not absolute: write dir:/path")
	case strings.ContainsRune(u.Path, 0):
		return refuse("a path holds no zero byte")
	}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return refuse("its parameters cannot be read")
	}
	for name, values := range params {
		if len(values) != 1 {
			return refuse("parameter " + name + " is given more than once")
		}
		d, err := time.ParseDuration(values[0])
		if err != nil || d < 0 {
			return refuse("parameter " + name + " is no duration such as 4h or 90s")
		}
		switch name {
		case "delay":
			o.Delay = d
		case "expiry":
			if d == 0 {
				return refuse("an expiry of 0 would leave nothing readable")
			}
			o.Expiry = d
		default:
			return refuse("unknown parameter " + name + " (known: delay, expiry)")
		}
	}
	return filepath.Clean(u.Path), o, nil
}

// FormatURL is what ParseURL reads.
func FormatURL(root string, o Options) string {
	u := url.URL{Scheme: Scheme, OmitHost: true, Path: root}
	params := url.Values{}
	if o.Delay > 0 {
		params.Set("delay", o.Delay.String())
	}
	if o.Expiry > 0 {
		params.Set("expiry", o.Expiry.String())
	}
	u.RawQuery = params.Encode()
	return u.String()
}
