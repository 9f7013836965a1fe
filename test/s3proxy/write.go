package s3proxy

// This file adds checksums that are compared, and times, to what makes
// objects. The facts are of AWS's guide, "Checking object integrity".

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// nvme is the polynomial of CRC64NVME, reversed as the package crc64 wants it.
const nvme = 0x9a6c9329ac4bc9b5

// checksums are what the server would tell of an object.
type checksums struct {
	algorithm string // CRC64NVME …; empty: none
	value     string // base64
	kind      string // FULL_OBJECT or COMPOSITE
}

func (c checksums) describe(h http.Header) {
	if c.value == "" {
		return
	}
	h.Set("X-Amz-Checksum-"+c.algorithm, c.value)
	h.Set("X-Amz-Checksum-Type", c.kind)
}

// upload is a multipart upload.
type upload struct {
	algorithm, kind string
	created         time.Time
	parts           map[int]part
	completed       bool
}

type part struct {
	size  int64
	crc64 uint64
	sum   string // the one sent, base64; empty: none
	at    time.Time
}

func hashes() map[string]func() hash.Hash {
	return map[string]func() hash.Hash{
		"CRC32":     func() hash.Hash { return crc32.NewIEEE() },
		"CRC32C":    func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
		"CRC64NVME": func() hash.Hash { return crc64.New(crc64.MakeTable(nvme)) },
		"SHA1":      sha1.New,
		"SHA256":    sha256.New,
	}
}

// verify compares the body with what the headers say of it. It answers, and says so, where they differ.
func (x *exchange) verify(body []byte) (sent checksums, answered bool) {
	h := x.r.Header
	payload := h.Get("X-Amz-Content-Sha256")
	if strings.HasPrefix(payload, "STREAMING-") {
		return checksums{}, false // the body is wrapped; the server's part
	}
	if len(payload) == 64 {
		if s := sha256.Sum256(body); hex.EncodeToString(s[:]) != payload {
			x.fail(http.StatusBadRequest, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
			return sent, true
		}
	}
	if want := h.Get("Content-Md5"); want != "" {
		if s := md5.Sum(body); base64.StdEncoding.EncodeToString(s[:]) != want {
			x.fail(http.StatusBadRequest, "BadDigest", "The Content-MD5 you specified did not match what we received.")
			return sent, true
		}
	}
	for name, make := range hashes() {
		want := h.Get("X-Amz-Checksum-" + name)
		if want == "" {
			continue
		}
		sum := make()
		sum.Write(body)
		if base64.StdEncoding.EncodeToString(sum.Sum(nil)) != want {
			x.fail(http.StatusBadRequest, "BadDigest", "The "+name+" you specified did not match the calculated checksum.")
			return sent, true
		}
		sent = checksums{name, want, "FULL_OBJECT"}
	}
	return sent, false
}

func crc(body []byte) uint64 { return crc64.Checksum(body, crc64.MakeTable(nvme)) }

func encode(crc uint64) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, crc))
}

// join is the CRC of a and b one after the other: CRCs are linear, so that of a goes through as many zeros as b has bytes.
func join(a, b uint64, size int64) uint64 {
	zeros := make([]byte, 64<<10)
	table := crc64.MakeTable(nvme)
	a = ^a
	for ; size > 0; size -= int64(len(zeros)) {
		a = crc64.Update(a, table, zeros[:min(size, int64(len(zeros)))])
	}
	return ^a ^ b
}

func (p *Proxy) putObject(x *exchange) error {
	body, err := x.slurp()
	if err != nil {
		return err
	}
	sums, answered := x.verify(body)
	if answered {
		return nil
	}
	if sums.value == "" { // the service makes one of its own
		sums = checksums{"CRC64NVME", encode(crc(body)), "FULL_OBJECT"}
	}
	p.writes.Lock()
	defer p.writes.Unlock()
	return p.pass(x, edit{header: func(status int, h http.Header) {
		if status/100 == 2 {
			p.made(x, &object{sums: sums, version: h.Get("X-Amz-Version-Id")})
			sums.describe(h)
		}
	}})
}

// made remembers an object that is there now.
func (p *Proxy) made(x *exchange, o *object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.created = p.now().Truncate(time.Second)
	p.objects[x.call.Bucket+"/"+x.call.Key] = o
}

var uploadID = regexp.MustCompile(`<UploadId>(.*?)</UploadId>`)

func (p *Proxy) createUpload(x *exchange) error {
	u := &upload{algorithm: x.r.Header.Get("X-Amz-Checksum-Algorithm"), kind: x.r.Header.Get("X-Amz-Checksum-Type"), parts: map[int]part{}}
	switch full := u.kind == "FULL_OBJECT"; {
	case u.algorithm == "" && u.kind != "":
		x.fail(http.StatusBadRequest, "InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		return nil
	case full && strings.HasPrefix(u.algorithm, "SHA"), u.kind == "COMPOSITE" && u.algorithm == "CRC64NVME":
		x.fail(http.StatusBadRequest, "InvalidRequest", fmt.Sprintf("The %s checksum type cannot be used with the %s checksum algorithm.", u.kind, u.algorithm))
		return nil
	case u.kind == "" && u.algorithm == "CRC64NVME":
		u.kind = "FULL_OBJECT"
	case u.kind == "" && u.algorithm != "":
		u.kind = "COMPOSITE"
	}
	return p.pass(x, edit{
		header: func(_ int, h http.Header) {
			if u.algorithm != "" {
				h.Set("X-Amz-Checksum-Algorithm", u.algorithm)
				h.Set("X-Amz-Checksum-Type", u.kind)
			}
		},
		body: func(status int, body []byte) []byte {
			if m := uploadID.FindSubmatch(body); m != nil && status == http.StatusOK {
				p.mu.Lock()
				defer p.mu.Unlock()
				u.created = p.now()
				p.uploads[string(m[1])] = u
			}
			return body
		}})
}

func (p *Proxy) upload(x *exchange) *upload {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.uploads[x.r.URL.Query().Get("uploadId")]
}

func (p *Proxy) uploadPart(x *exchange) error {
	u := p.upload(x)
	body, err := x.slurp()
	if err != nil {
		return err
	}
	sums, answered := x.verify(body)
	if answered {
		return nil
	}
	if u != nil && u.algorithm != "" && sums.algorithm != "" && sums.algorithm != u.algorithm {
		x.fail(http.StatusBadRequest, "InvalidRequest", fmt.Sprintf("Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", u.algorithm, sums.algorithm))
		return nil
	}
	n, _ := strconv.Atoi(x.r.URL.Query().Get("partNumber"))
	return p.pass(x, edit{header: func(status int, h http.Header) {
		if status/100 != 2 || u == nil {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		u.parts[n] = part{size: int64(len(body)), crc64: crc(body), sum: sums.value, at: p.now()}
		if sums.value != "" {
			h.Set("X-Amz-Checksum-"+sums.algorithm, sums.value)
		}
	}})
}

// completion is the body of CompleteMultipartUpload.
type completion struct {
	Part []struct {
		PartNumber        int
		ChecksumCRC64NVME string
	}
}

func (p *Proxy) completeUpload(x *exchange) error {
	p.writes.Lock()
	defer p.writes.Unlock()
	u := p.upload(x)
	body, err := x.slurp()
	if err != nil {
		return err
	}
	if u == nil {
		return p.pass(x, edit{})
	}
	if u.completed && p.o.CompleteOnce {
		x.fail(http.StatusNotFound, "NoSuchUpload", "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.")
		return nil
	}
	sums, answered := p.whole(x, u, body)
	if answered {
		return nil
	}
	return p.pass(x, edit{body: func(status int, body []byte) []byte {
		if status != http.StatusOK {
			return body
		}
		if !u.completed {
			p.made(x, &object{sums: sums, version: x.w.Header().Get("X-Amz-Version-Id")})
			u.completed = true
		}
		if sums.value == "" {
			return body
		}
		end := max(bytes.LastIndex(body, []byte("</")), 0)
		s := fmt.Sprintf("<Checksum%s>%s</Checksum%[1]s><ChecksumType>%[3]s</ChecksumType>", sums.algorithm, sums.value, sums.kind)
		return slices.Insert(body, end, []byte(s)...)
	}})
}

// whole compares size and checksum of the whole with what the client says, and answers where they differ.
func (p *Proxy) whole(x *exchange, u *upload, body []byte) (sums checksums, answered bool) {
	var c completion
	if xml.Unmarshal(body, &c) != nil {
		return sums, false // the server knows what to say
	}
	p.mu.Lock()
	var size int64
	var sum uint64
	for i, q := range c.Part {
		part, ok := u.parts[q.PartNumber]
		if ok && q.ChecksumCRC64NVME != "" && q.ChecksumCRC64NVME != encode(part.crc64) {
			ok = false
		}
		if !ok {
			p.mu.Unlock()
			x.fail(http.StatusBadRequest, "InvalidPart", "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.")
			return sums, true
		}
		if size += part.size; i == 0 {
			sum = part.crc64
		} else {
			sum = join(sum, part.crc64, part.size)
		}
	}
	p.mu.Unlock()
	if want := x.r.Header.Get("X-Amz-Mp-Object-Size"); want != "" && want != fmt.Sprint(size) {
		x.fail(http.StatusBadRequest, "InvalidRequest", fmt.Sprintf("The provided 'x-amz-mp-object-size' header value %s does not match what was computed: %d", want, size))
		return sums, true
	}
	if want := x.r.Header.Get("X-Amz-Checksum-Crc64nvme"); want != "" && want != encode(sum) {
		x.fail(http.StatusBadRequest, "BadDigest", "The CRC64NVME you specified did not match the calculated checksum.")
		return sums, true
	}
	if u.algorithm == "" || u.algorithm == "CRC64NVME" {
		sums = checksums{"CRC64NVME", encode(sum), "FULL_OBJECT"}
	}
	return sums, false
}

var (
	uploads    = regexp.MustCompile(`(?s)<Upload>.*?</Upload>`)
	initiated  = regexp.MustCompile(`<Initiated>.*?</Initiated>`)
	parts      = regexp.MustCompile(`(?s)<Part>.*?</Part>`)
	partNumber = regexp.MustCompile(`<PartNumber>(\d+)</PartNumber>`)
	partSums   = regexp.MustCompile(`<Checksum[A-Z0-9]+>.*?</Checksum[A-Z0-9]+>`)
)

// listedUploads rewrites times and checksums in the lists of uploads and parts.
func (p *Proxy) listedUploads(x *exchange, status int, body []byte) []byte {
	if status != http.StatusOK {
		return body
	}
	if x.call.Operation == "ListMultipartUploads" {
		return uploads.ReplaceAllFunc(body, func(c []byte) []byte {
			m := uploadID.FindSubmatch(c)
			if m == nil {
				return c
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			u := p.uploads[string(m[1])]
			if u == nil {
				return c
			}
			return initiated.ReplaceAll(c, []byte("<Initiated>"+u.created.Format(isoTime)+"</Initiated>"))
		})
	}
	u := p.upload(x)
	if u == nil {
		return body
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return parts.ReplaceAllFunc(body, func(c []byte) []byte {
		m := partNumber.FindSubmatch(c)
		if m == nil {
			return c
		}
		n, _ := strconv.Atoi(string(m[1])) // digits
		q, ok := u.parts[n]
		if !ok {
			return c
		}
		c = modified.ReplaceAll(c, []byte("<LastModified>"+q.at.Format(isoTime)+"</LastModified>"))
		if q.sum != "" && slices.Contains([]string{"CRC64NVME", "SHA256"}, u.algorithm) {
			c = partSums.ReplaceAll(c, nil)
			c = bytes.Replace(c, []byte("</Part>"), []byte(fmt.Sprintf("<Checksum%s>%s</Checksum%[1]s></Part>", u.algorithm, q.sum)), 1)
		}
		return c
	})
}
