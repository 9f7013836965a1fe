package s3proxy

// This file adds to a server that keeps storage classes what it lacks of
// them. The facts are of AWS's API reference: RestoreObject, HeadObject,
// GetObject, ListObjectsV2 and the guide's page on restoring archived objects.

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Names of storage classes and tiers.
const (
	glacier     = "GLACIER"
	deepArchive = "DEEP_ARCHIVE"

	expedited = "Expedited"
	standard  = "Standard"
	bulk      = "Bulk"
)

// ServiceDelay is how long restores take at most, by the service's documentation.
func ServiceDelay(class, tier string) time.Duration {
	switch {
	case tier == expedited:
		return 5 * time.Minute
	case class == deepArchive && tier == bulk:
		return 48 * time.Hour
	case class == deepArchive || tier == bulk:
		return 12 * time.Hour
	}
	return 5 * time.Hour
}

// object is what the proxy knows of one, beside what the server does.
type object struct {
	class   string // empty: not asked yet
	version string // of the newest, where there are versions
	created time.Time
	sums    checksums
	restore *restore
}

// restore is one temporary copy that was asked for.
type restore struct {
	days           int
	tier           string
	ready, expires time.Time
}

// state says whether a restore is going on, or its copy there.
func (o *object) state(now time.Time) (ongoing, there bool) {
	if o.restore == nil || !now.Before(o.restore.expires) {
		return false, false
	}
	return now.Before(o.restore.ready), !now.Before(o.restore.ready)
}

// expiry is the midnight (UTC) after so many days.
func expiry(from time.Time, days int) time.Time {
	at := from.Add(time.Duration(days) * 24 * time.Hour)
	midnight := at.Truncate(24 * time.Hour)
	if midnight.Before(at) {
		midnight = midnight.Add(24 * time.Hour)
	}
	return midnight
}

func archived(class string) bool { return class == glacier || class == deepArchive }

func (p *Proxy) serveClasses(x *exchange) error {
	switch x.call.Operation {
	case "RestoreObject":
		return p.restoreObject(x)
	case "GetObject", "CopyObject":
		return p.getObject(x)
	case "HeadObject":
		o, err := p.known(x)
		if err != nil {
			return err
		}
		return p.pass(x, edit{header: func(status int, h http.Header) { p.describe(o, x.r, status, h) }})
	case "ListObjectsV2", "ListObjects":
		return p.pass(x, edit{body: func(status int, body []byte) []byte { return p.listed(x, status, body) }})
	case "PutObject":
		return p.putObject(x)
	case "CreateMultipartUpload":
		return p.createUpload(x)
	case "UploadPart":
		return p.uploadPart(x)
	case "CompleteMultipartUpload":
		return p.completeUpload(x)
	case "ListParts", "ListMultipartUploads":
		return p.pass(x, edit{body: func(status int, body []byte) []byte { return p.listedUploads(x, status, body) }})
	case "DeleteObject":
		return p.pass(x, edit{header: func(status int, _ http.Header) {
			if status/100 == 2 {
				p.forgetObject(x.call.Bucket, x.call.Key)
			}
		}})
	}
	return p.pass(x, edit{})
}

func (p *Proxy) forgetObject(bucket, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.objects, bucket+"/"+key)
}

// known is what the proxy knows of the object that a request is for; nil: there is none.
func (p *Proxy) known(x *exchange) (*object, error) {
	name := x.call.Bucket + "/" + x.call.Key
	if x.call.Operation == "CopyObject" {
		name, _ = url.PathUnescape(strings.TrimPrefix(x.r.Header.Get("X-Amz-Copy-Source"), "/"))
		name, _, _ = strings.Cut(name, "?")
	}
	version := x.r.URL.Query().Get("versionId")
	p.mu.Lock()
	o := p.objects[name]
	p.mu.Unlock()
	if o != nil && o.class != "" && (version == "" || version == o.version) {
		return o, nil
	}
	u := p.o.Upstream + (&url.URL{Path: "/" + name}).EscapedPath()
	if version != "" {
		name += "?" + version
		u += "?versionId=" + url.QueryEscape(version)
	}
	r, err := http.NewRequestWithContext(x.r.Context(), http.MethodHead, u, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", x.r.Header.Get("Authorization")) // the server that has classes verifies no signatures
	resp, err := p.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.objects[name] == nil {
		p.objects[name] = &object{}
	}
	o = p.objects[name]
	if o.class = resp.Header.Get("X-Amz-Storage-Class"); o.class == "" {
		o.class = "STANDARD"
	}
	return o, nil
}

// restoreRequest is the body of RestoreObject.
type restoreRequest struct {
	Days  *int
	Tier  string `xml:"GlacierJobParameters>Tier"`
	Tier2 string `xml:"Tier"`
}

func (p *Proxy) restoreObject(x *exchange) error {
	body, err := x.slurp()
	if err != nil {
		return err
	}
	var q restoreRequest
	if xml.Unmarshal(body, &q) != nil || q.Days == nil {
		x.fail(http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
		return nil
	}
	if q.Tier == "" {
		q.Tier = standard
	}
	o, err := p.known(x)
	if err != nil {
		return err
	}
	delay := map[string]int{expedited: 1, standard: 2, bulk: 3}
	switch {
	case o == nil:
		return p.pass(x, edit{}) // the server knows best what is wrong
	case delay[q.Tier] == 0:
		x.fail(http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
		return nil
	case *q.Days < 1:
		x.fail(http.StatusBadRequest, "InvalidArgument", "restoration days should be at least 1", "ArgumentName", "Days")
		return nil
	case !archived(o.class):
		x.fail(http.StatusForbidden, "InvalidObjectState", "Restore is not allowed for the object's current storage class", "StorageClass", o.class)
		return nil
	case o.class == deepArchive && q.Tier == expedited:
		x.fail(http.StatusBadRequest, "InvalidArgument", "Retrieval option is not supported by this storage class")
		return nil
	}
	p.mu.Lock()
	now := p.now()
	ongoing, there := o.state(now)
	faster := ongoing && delay[q.Tier] < delay[o.restore.tier] && *q.Days == o.restore.days
	p.mu.Unlock()
	if ongoing && !faster {
		x.fail(http.StatusConflict, "RestoreAlreadyInProgress", "Object restore is already in progress")
		return nil
	}
	answer := http.StatusAccepted
	if there {
		answer = http.StatusOK
	}
	return p.pass(x, edit{status: answer, header: func(status int, _ http.Header) {
		if status/100 != 2 {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if there {
			o.restore.days, o.restore.expires = *q.Days, expiry(now, *q.Days)
			return
		}
		ready := now.Add(p.o.Delay(o.class, q.Tier))
		if faster && o.restore.ready.Before(ready) {
			ready = o.restore.ready
		}
		o.restore = &restore{days: *q.Days, tier: q.Tier, ready: ready, expires: expiry(now, *q.Days)}
	}})
}

func (p *Proxy) getObject(x *exchange) error {
	o, err := p.known(x)
	if err != nil {
		return err
	}
	if o == nil {
		return p.pass(x, edit{})
	}
	p.mu.Lock()
	_, there := o.state(p.now())
	p.mu.Unlock()
	if archived(o.class) && !there {
		code := "InvalidObjectState"
		if x.call.Operation == "CopyObject" {
			code = "ObjectNotInActiveTierError"
		}
		x.fail(http.StatusForbidden, code, "The operation is not valid for the object's storage class", "StorageClass", o.class)
		return nil
	}
	if x.call.Operation == "CopyObject" {
		p.forgetObject(x.call.Bucket, x.call.Key)
		return p.pass(x, edit{})
	}
	return p.pass(x, edit{header: func(status int, h http.Header) { p.describe(o, x.r, status, h) }})
}

// describe rewrites the headers of one object.
func (p *Proxy) describe(o *object, r *http.Request, status int, h http.Header) {
	if o == nil || status/100 != 2 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h.Del("X-Amz-Restore")
	if !o.created.IsZero() {
		h.Set("Last-Modified", o.created.Format(http.TimeFormat))
	}
	switch ongoing, there := o.state(p.now()); {
	case ongoing:
		h.Set("X-Amz-Restore", `ongoing-request="true"`)
	case there:
		h.Set("X-Amz-Restore", fmt.Sprintf(`ongoing-request="false", expiry-date=%q`, o.restore.expires.Format(http.TimeFormat)))
	}
	if r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" && r.Header.Get("Range") == "" {
		for name := range h {
			if strings.HasPrefix(name, "X-Amz-Checksum-") {
				h.Del(name)
			}
		}
		o.sums.describe(h)
	}
}

var (
	contents     = regexp.MustCompile(`(?s)<Contents>.*?</Contents>`)
	keyElement   = regexp.MustCompile(`(?s)<Key>(.*?)</Key>`)
	modified     = regexp.MustCompile(`<LastModified>.*?</LastModified>`)
	restoreState = regexp.MustCompile(`(?s)<RestoreStatus>.*?</RestoreStatus>`)
)

const isoTime = "2006-01-02T15:04:05.000Z"

// listed rewrites a listing: times, and how restores stand where that was asked for.
func (p *Proxy) listed(x *exchange, status int, body []byte) []byte {
	if status != http.StatusOK {
		return body
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	wanted := strings.Contains(x.r.Header.Get("X-Amz-Optional-Object-Attributes"), "RestoreStatus") && !p.o.NoRestoreStatus
	encoded := x.r.URL.Query().Get("encoding-type") == "url"
	return contents.ReplaceAllFunc(body, func(c []byte) []byte {
		m := keyElement.FindSubmatch(c)
		if m == nil {
			return c
		}
		key := html.UnescapeString(string(m[1]))
		if encoded {
			if k, err := url.QueryUnescape(key); err == nil {
				key = k
			}
		}
		o := p.objects[x.call.Bucket+"/"+key]
		c = restoreState.ReplaceAll(c, nil)
		if o == nil {
			return c
		}
		if !o.created.IsZero() {
			c = modified.ReplaceAll(c, []byte("<LastModified>"+o.created.Format(isoTime)+"</LastModified>"))
		}
		ongoing, there := o.state(now)
		if !wanted || !ongoing && !there {
			return c
		}
		s := fmt.Sprintf("<RestoreStatus><IsRestoreInProgress>%t</IsRestoreInProgress>", ongoing)
		if there {
			s += "<RestoreExpiryDate>" + o.restore.expires.Format(isoTime) + "</RestoreExpiryDate>"
		}
		return bytes.Replace(c, []byte("</Contents>"), []byte(s+"</RestoreStatus></Contents>"), 1)
	})
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // into memory
	return b.String()
}
