package s3glacier

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

// Scheme is that of the vaults' URLs.
const Scheme = "s3"

// location is what a URL names.
type location struct {
	bucket, prefix string
	class          types.StorageClass // of data
	metaClass      types.StorageClass // of manifests and keys
	region         string             // empty: found out
	endpoint       string             // empty: the SDK's
	profile        string
	style          string // "true", "false", or empty: path style at a custom endpoint
	sse            types.ServerSideEncryption
	kmsKey         string
	lock           types.ObjectLockMode
	lockDays       int
	requesterPays  bool
	checksum       string // "crc64nvme" (empty) or "none"
}

const (
	defaultClass     = types.StorageClassDeepArchive
	defaultMetaClass = types.StorageClassStandard
	maxPrefix        = 120 // bytes: with a name of 900 it fits into a key of 1,024
)

// classes that archives can be in.
func classes() []types.StorageClass {
	return []types.StorageClass{
		types.StorageClassDeepArchive, types.StorageClassGlacier, types.StorageClassGlacierIr, types.StorageClassStandardIa,
		types.StorageClassOnezoneIa, types.StorageClassStandard, types.StorageClassIntelligentTiering,
	}
}

// Canonical checks a vault's URL and returns the one form in which it is known:
//
//	s3://BUCKET/PREFIX?class=CLASS&region=REGION&…
//
// All parameters are optional; docs/reference/s3.md has them. failure.Usage, ErrInvalid: it is not one.
func Canonical(s string) (string, error) {
	l, err := parseURL(s, true)
	if err != nil {
		return "", err
	}
	return l.String(), nil
}

// parseURL reads a URL; needBucket says that it must name a bucket.
func parseURL(s string, needBucket bool) (location, error) {
	l := location{class: defaultClass, metaClass: defaultMetaClass}
	u, err := awsconn.ParseURL(Scheme, s)
	if err != nil {
		return location{}, err
	}
	l.bucket = u.Host
	l.prefix = strings.Trim(u.Path, "/")
	switch {
	case l.bucket == "" && (needBucket || l.prefix != ""):
		return location{}, u.Refuse("no bucket is named; write s3://BUCKET/PREFIX?class=DEEP_ARCHIVE")
	case l.bucket != "" && !awsconn.Matches(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`, l.bucket):
		return location{}, u.Refuse("%q cannot be a bucket's name, which has 3 to 63 of a-z 0-9 . -", l.bucket)
	case l.prefix != "" && (len(l.prefix) > maxPrefix || !validName(l.prefix)):
		return location{}, u.Refuse("prefix %q is not made of A-Z a-z 0-9 . _ = - and single slashes, %d bytes at most", l.prefix, maxPrefix)
	}
	if err := u.Params(parameters(), l.set); err != nil {
		return location{}, err
	}
	switch {
	case l.kmsKey != "" && l.sse != types.ServerSideEncryptionAwsKms && l.sse != types.ServerSideEncryptionAwsKmsDsse:
		return location{}, u.Refuse("kms-key goes with sse=aws:kms")
	case (l.lock == "") != (l.lockDays == 0):
		return location{}, u.Refuse("lock and lock-days go together: lock=GOVERNANCE&lock-days=180")
	}
	return l, nil
}

func parameters() []string {
	return []string{"class", "manifest-class", "region", "endpoint", "profile", "path-style", "sse", "kms-key", "lock", "lock-days", "requester-pays", "checksum"}
}

// set takes one parameter. why says what is wrong with the value; empty: nothing.
func (l *location) set(name, v string) (known bool, why string) {
	switch name {
	case "class":
		l.class, why = parseClass(v)
	case "manifest-class":
		l.metaClass, why = parseClass(v)
	case "region":
		l.region, why = v, unless(awsconn.Matches(`^[a-z0-9]+(-[a-z0-9]+)*$`, v), "that is not a region, such as eu-west-1")
	case "endpoint":
		l.endpoint, why = awsconn.ParseEndpoint(v)
	case "profile":
		l.profile, why = awsconn.ParseProfile(v)
	case "path-style":
		l.style, why = v, unless(v == "true" || v == "false", "true or false")
	case "sse":
		switch v {
		case "AES256":
			l.sse = types.ServerSideEncryptionAes256
		case "aws:kms":
			l.sse = types.ServerSideEncryptionAwsKms
		case "aws:kms:dsse":
			l.sse = types.ServerSideEncryptionAwsKmsDsse
		default:
			why = "AES256, aws:kms or aws:kms:dsse"
		}
	case "kms-key":
		l.kmsKey, why = v, unless(awsconn.Matches(`^[A-Za-z0-9:/_-]{1,512}$`, v), "that cannot be the name of a key")
	case "lock":
		l.lock = types.ObjectLockMode(strings.ToUpper(v))
		why = unless(slices.Contains(l.lock.Values(), l.lock), "GOVERNANCE or COMPLIANCE")
	case "lock-days":
		n, err := strconv.Atoi(v)
		l.lockDays, why = n, unless(err == nil && n >= 1 && n <= 36500, "a number of days, 1 to 36500")
	case "requester-pays":
		l.requesterPays, why = v == "true", unless(v == "true" || v == "false", "true or false")
	case "checksum":
		l.checksum, why = v, unless(v == "crc64nvme" || v == "none", "crc64nvme or none")
	default:
		return false, ""
	}
	return true, why
}

func unless(ok bool, why string) string {
	if ok {
		return ""
	}
	return why
}

func parseClass(v string) (types.StorageClass, string) {
	c := types.StorageClass(strings.ToUpper(v))
	if slices.Contains(classes(), c) {
		return c, ""
	}
	var names []string
	for _, known := range classes() {
		names = append(names, string(known))
	}
	return c, fmt.Sprintf("there is no class %q (known: %s)", v, strings.Join(names, ", "))
}

// String is what parseURL reads, in its one form. The class is always told.
func (l location) String() string {
	u := url.URL{Scheme: Scheme, Host: l.bucket}
	if l.prefix != "" {
		u.Path = "/" + l.prefix
	}
	params := url.Values{}
	set := func(name, value, unless string) {
		if value != unless {
			params.Set(name, value)
		}
	}
	set("class", string(l.class), "")
	set("manifest-class", string(l.metaClass), string(defaultMetaClass))
	set("region", l.region, "")
	set("endpoint", l.endpoint, "")
	set("profile", l.profile, "")
	set("path-style", l.style, "")
	set("sse", string(l.sse), "")
	set("kms-key", l.kmsKey, "")
	set("lock", string(l.lock), "")
	set("lock-days", strconv.Itoa(l.lockDays), "0")
	set("requester-pays", strconv.FormatBool(l.requesterPays), "false")
	set("checksum", l.checksum, "")
	if l.checksum == "crc64nvme" {
		params.Del("checksum")
	}
	u.RawQuery = params.Encode()
	return u.String()
}

// where names the vault for people.
func (l location) where() string {
	if l.prefix == "" {
		return "bucket " + l.bucket
	}
	return "bucket " + l.bucket + ", prefix " + l.prefix
}

// root is what all keys of the vault begin with.
func (l location) root() string {
	if l.prefix == "" {
		return ""
	}
	return l.prefix + "/"
}

// minDays is the minimum storage duration of all that the vault stores: manifests have one too, where their class is another.
func (l location) minDays() int {
	return max(traitsOf(l.class).MinDays, traitsOf(l.metaClass).MinDays)
}

// Keeps is what the Traits of a vault's store say of how long archives stay, from its URL alone; zero where that is none.
func Keeps(s string) (minDays, lockDays int) {
	l, err := parseURL(s, true)
	if err != nil {
		return 0, 0
	}
	return l.minDays(), l.lockDays
}

// retain is until when what is stored at a time is locked; zero: it is not.
func (l location) retain(now time.Time) *time.Time {
	if l.lockDays == 0 {
		return nil
	}
	t := now.UTC().AddDate(0, 0, l.lockDays).Truncate(time.Second)
	return &t
}

// validName says whether a name, or a prefix, can be part of a key: see coldstore.NewArchive.
func validName(name string) bool {
	if name == "" || len(name) > 900 {
		return false
	}
	for e := range strings.SplitSeq(name, "/") {
		if e == "" || e == "." || e == ".." || len(e) > 240 {
			return false
		}
		for i := range len(e) {
			c := e[i]
			if !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '=' || c == '-') {
				return false
			}
		}
	}
	return true
}

// Place is the class and the region that a vault's URL names; empty where it names none.
func Place(s string) (class, region string) {
	l, err := parseURL(s, false)
	if err != nil {
		return "", ""
	}
	return string(l.class), l.region
}
