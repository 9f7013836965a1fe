package glaciervault

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
)

// Scheme is that of the vaults' URLs.
const Scheme = "glacier"

// location is what a URL names.
type location struct {
	region, vault string
	account       string // 12 digits; empty: that of the credentials
	endpoint      string // empty: the SDK's
	profile       string
	topic         string // ARN of the SNS topic that is told when jobs are done
}

// Canonical checks a vault's URL and returns the one form in which it is known:
//
//	glacier://REGION/VAULT?account=NUMBER&endpoint=URL&profile=NAME&sns-topic=ARN
//
// all parameters being optional. failure.Usage, ErrInvalid: it is not one.
func Canonical(s string) (string, error) {
	l, err := parseURL(s, true)
	if err != nil {
		return "", err
	}
	return l.String(), nil
}

// parseURL reads a URL; needVault says that it must name a vault.
func parseURL(s string, needVault bool) (location, error) {
	var l location
	shown := s
	refuse := func(format string, args ...any) (location, error) {
		return location{}, failure.Wrap(failure.Usage, &coldstore.URLError{URL: shown, Why: fmt.Sprintf(format, args...)})
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil {
		// Whatever stands before an @ may be a secret: it is not repeated.
		if strings.Contains(s, "@") {
			shown = Scheme + "://…"
			return refuse("credentials do not belong in a URL; the AWS SDK finds them (environment, ~/.aws, SSO)")
		}
		return refuse("cannot be read")
	}
	switch {
	case u.Scheme != Scheme || u.Opaque != "":
		return refuse("does not begin with glacier://")
	case u.Fragment != "" || strings.HasSuffix(s, "#"):
		return refuse("there is no place for a #")
	}
	l.region = u.Host
	if ok := matches(`^[a-z0-9]+(-[a-z0-9]+)+$`, l.region); !ok {
		return refuse("%q is not a region; write glacier://eu-west-1/VAULT", l.region)
	}
	l.vault = strings.TrimPrefix(u.Path, "/")
	switch ok := len(l.vault) <= 255 && matches(`^[A-Za-z0-9_.-]+$`, l.vault); {
	case l.vault == "" && needVault:
		return refuse("no vault is named; write glacier://%s/VAULT", l.region)
	case l.vault == "." || l.vault == "..", !ok && l.vault != "":
		return refuse("%q cannot be a vault's name, which has 1 to 255 of A-Z a-z 0-9 _ - .", l.vault)
	}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return refuse("its parameters cannot be read")
	}
	for name, values := range params {
		if len(values) != 1 || values[0] == "" {
			return refuse("parameter %s must be given once, with a value", name)
		}
		v, ok := values[0], true
		switch name {
		case "account":
			ok = matches(`^[0-9]{12}$`, v)
			l.account = v
		case "endpoint":
			e, err := url.Parse(v)
			ok = err == nil && (e.Scheme == "http" || e.Scheme == "https") && e.Host != "" && e.User == nil && e.RawQuery == "" && e.Fragment == ""
			if strings.Contains(v, "@") {
				shown = Scheme + "://" + l.region + "/" + l.vault
			}
			l.endpoint = strings.TrimRight(v, "/")
		case "profile":
			ok = !strings.ContainsAny(v, "\n\r\x00[]")
			l.profile = v
		case "sns-topic":
			ok = matches(`^arn:[a-z0-9-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}$`, v)
			l.topic = v
		default:
			return refuse("unknown parameter %s (known: account, endpoint, profile, sns-topic)", name)
		}
		if !ok {
			return refuse("parameter %s has a value that cannot be one", name)
		}
	}
	return l, nil
}

func matches(pattern, s string) bool { return regexp.MustCompile(pattern).MatchString(s) }

// String is what parseURL reads, in its one form.
func (l location) String() string {
	u := url.URL{Scheme: Scheme, Host: l.region, Path: "/" + l.vault}
	params := url.Values{}
	for _, p := range []struct{ name, value string }{
		{"account", l.account}, {"endpoint", l.endpoint}, {"profile", l.profile}, {"sns-topic", l.topic},
	} {
		if p.value != "" {
			params.Set(p.name, p.value)
		}
	}
	u.RawQuery = params.Encode()
	return u.String()
}

// Region is the region that a vault's URL names; empty where it is not one.
func Region(s string) string {
	l, err := parseURL(s, false)
	if err != nil {
		return ""
	}
	return l.region
}

// IsRegion says whether a URL is that of an account's vaults in a region, and of no single one.
func IsRegion(s string) bool {
	l, err := parseURL(s, false)
	return err == nil && l.vault == ""
}

// InRegion is the URL of a vault of the account and region that a URL names, with all of its parameters.
func InRegion(s, vault string) (string, error) {
	l, err := parseURL(s, false)
	if err != nil {
		return "", err
	}
	l.vault = vault
	return Canonical(l.String())
}

// Within says whether a vault is in the region that a URL names, and has the parameters that it has: those that it
// does not have may be any.
func Within(region, vault string) bool {
	r, rerr := parseURL(region, false)
	v, verr := parseURL(vault, true)
	return rerr == nil && verr == nil && r.covers(v)
}

// Same says whether vault is the one that url names, with the parameters that it has: those that it does not have may be any.
func Same(url, vault string) bool {
	u, uerr := parseURL(url, true)
	v, verr := parseURL(vault, true)
	return uerr == nil && verr == nil && u.vault == v.vault && u.covers(v)
}

func (r location) covers(v location) bool {
	return r.region == v.region &&
		(r.account == "" || r.account == v.account) && (r.endpoint == "" || r.endpoint == v.endpoint) && (r.profile == "" || r.profile == v.profile)
}
