package awsconn

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// URL is a vault's URL while it is read. Credentials in one are refused and not repeated.
type URL struct {
	Host, Path string
	params     url.Values
	shown      string
}

// ParseURL reads what the URLs of all vaults of AWS have in common. failure.Usage, coldstore.ErrInvalid: it is none
// of that scheme.
func ParseURL(scheme, s string) (*URL, error) {
	r := &URL{shown: s}
	u, err := url.Parse(s)
	if err != nil || u.User != nil {
		// Whatever stands before an @ may be a secret: it is not repeated.
		if strings.Contains(s, "@") {
			r.shown = scheme + "://…"
			return nil, r.Refuse("credentials do not belong in a URL; the AWS SDK finds them (environment, ~/.aws, SSO)")
		}
		return nil, r.Refuse("cannot be read")
	}
	if strings.Contains(u.RawQuery, "@") || strings.Contains(strings.ToLower(u.RawQuery), "%40") {
		r.shown, _, _ = strings.Cut(s, "?")
	}
	switch {
	case u.Scheme != scheme || u.Opaque != "":
		return nil, r.Refuse("does not begin with %s://", scheme)
	case u.Fragment != "" || strings.HasSuffix(s, "#"):
		return nil, r.Refuse("there is no place for a #")
	}
	r.Host, r.Path = u.Host, u.Path
	if r.params, err = url.ParseQuery(u.RawQuery); err != nil {
		r.shown, _, _ = strings.Cut(s, "?") // nobody knows what is in them
		return nil, r.Refuse("its parameters cannot be read")
	}
	return r, nil
}

// Refuse is the error of a URL that is wrong.
func (u *URL) Refuse(format string, args ...any) error {
	return failure.Wrap(failure.Usage, &coldstore.URLError{URL: u.shown, Why: fmt.Sprintf(format, args...)})
}

// Params calls set for each parameter, by name. known is false where there is no such parameter, and then its
// value is not repeated; why says what is wrong with the value, empty: nothing. known names those there are.
func (u *URL) Params(names []string, set func(name, value string) (known bool, why string)) error {
	for _, name := range slices.Sorted(maps.Keys(u.params)) {
		values := u.params[name]
		if len(values) != 1 || values[0] == "" {
			return u.Refuse("parameter %s must be given once, with a value", name)
		}
		known, why := set(name, values[0])
		if !known {
			u.shown, _, _ = strings.Cut(u.shown, "?") // it may be a secret that somebody has put there
			return u.Refuse("unknown parameter %s (known: %s)", name, strings.Join(names, ", "))
		}
		if why != "" {
			return u.Refuse("parameter %s: %s", name, why)
		}
	}
	return nil
}

// ParseEndpoint reads the value of a parameter endpoint. why says what is wrong with it; empty: nothing.
func ParseEndpoint(v string) (endpoint, why string) {
	e, err := url.Parse(v)
	if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil || e.RawQuery != "" || e.Fragment != "" {
		return "", "that is not http://HOST or https://HOST"
	}
	return strings.TrimRight(v, "/"), ""
}

// ParseProfile reads the value of a parameter profile, as ParseEndpoint does.
func ParseProfile(v string) (profile, why string) {
	if strings.ContainsAny(v, "\n\r\x00[]") {
		return "", "that cannot be a profile's name"
	}
	return v, ""
}

// Matches says whether s matches a regular expression, which must be one.
func Matches(pattern, s string) bool { return regexp.MustCompile(pattern).MatchString(s) }
