package glaciervault

import (
	"net/url"
	"strings"

	"github.com/firn-backup/firn/internal/coldstore/awsconn"
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
	u, err := awsconn.ParseURL(Scheme, s)
	if err != nil {
		return l, err
	}
	l.region = u.Host
	if ok := awsconn.Matches(`^[a-z0-9]+(-[a-z0-9]+)+$`, l.region); !ok {
		return location{}, u.Refuse("%q is not a region; write glacier://eu-west-1/VAULT", l.region)
	}
	l.vault = strings.TrimPrefix(u.Path, "/")
	switch ok := len(l.vault) <= 255 && awsconn.Matches(`^[A-Za-z0-9_.-]+$`, l.vault); {
	case l.vault == "" && needVault:
		return location{}, u.Refuse("no vault is named; write glacier://%s/VAULT", l.region)
	case l.vault == "." || l.vault == "..", !ok && l.vault != "":
		return location{}, u.Refuse("%q cannot be a vault's name, which has 1 to 255 of A-Z a-z 0-9 _ - .", l.vault)
	}
	if err := u.Params([]string{"account", "endpoint", "profile", "sns-topic"}, l.set); err != nil {
		return location{}, err
	}
	return l, nil
}

// set takes one parameter. why says what is wrong with the value; empty: nothing.
func (l *location) set(name, v string) (known bool, why string) {
	switch name {
	case "account":
		if l.account = v; !awsconn.Matches(`^[0-9]{12}$`, v) {
			why = "that is not an account's number, which has 12 digits"
		}
	case "endpoint":
		l.endpoint, why = awsconn.ParseEndpoint(v)
	case "profile":
		l.profile, why = awsconn.ParseProfile(v)
	case "sns-topic":
		if l.topic = v; !awsconn.Matches(`^arn:[a-z0-9-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}$`, v) {
			why = "that is not the ARN of a topic, such as arn:aws:sns:eu-west-1:123456789012:TOPIC"
		}
	default:
		return false, ""
	}
	return true, why
}

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
