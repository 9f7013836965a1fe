package manifest

import (
	"errors"
	"math"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
)

// knownMust says whether this version knows a key.
func knownMust(key string) bool {
	switch strings.TrimSuffix(key, "64") {
	case "firn-manifest", "min-reader", "must", "setid", "set", "label", "host", "snap", "n", "at", "made", "kind", "base",
		"base-manifest", "stream", "point", "point-id", "compress", "encrypt", "paths",
		"volume", "archive", "size", "tree-hash", "leaves", "raw", "raw-sha256", "frames", "header", "tail",
		"path", "type", "mode", "uid", "gid", "user", "group", "mtime", "link", "dev", "links", "xattrs", "torn",
		"vol", "off", "stored", "sparse", "sha256",
		"deleted", "problem", "reason", "totals", "signature":
		return true
	}
	return false
}

// checkVersion says whether this reader can read a manifest with that header.
// Whatever else a newer version changed, these three keys stay as they are.
func checkVersion(line []byte) error {
	s := &scanner{b: line}
	var version, minReader uint64
	var must []string
	for k := s.first(); k != nil; k = s.next() {
		switch string(k) {
		case "firn-manifest":
			version = s.uint(1, math.MaxUint64)
		case "min-reader":
			minReader = s.uint(1, math.MaxUint64)
		case "must":
			for ok := s.elem(true); ok; ok = s.elem(false) {
				must = append(must, s.text(false))
			}
		default:
			s.skip()
		}
	}
	s.end()
	if s.err != nil || version == 0 || minReader == 0 {
		return failure.Errorf(failure.Damaged, "line 1: not a manifest of Firn's")
	}
	if minReader > Version {
		return failure.Errorf(failure.Failed, "the manifest needs a newer Firn: one that reads version %d of the format", minReader)
	}
	for _, k := range must {
		if !knownMust(k) {
			return failure.Errorf(failure.Failed, "the manifest needs a newer Firn: one that understands %q", k)
		}
	}
	return nil
}

func parseHeader(line []byte) (Header, error) {
	s := &scanner{b: line}
	var h Header
	var seen uint32
	for k := s.first(); k != nil; k = s.next() {
		switch string(k) {
		case "firn-manifest":
			s.once(&seen, 1<<0)
			s.uint(1, math.MaxUint64)
		case "min-reader":
			s.once(&seen, 1<<1)
			s.uint(1, math.MaxUint64)
		case "must":
			s.once(&seen, 1<<2)
			for ok := s.elem(true); ok; ok = s.elem(false) {
				h.Must = append(h.Must, s.text(false))
			}
		case "setid":
			s.once(&seen, 1<<3)
			h.SetID = s.text(false)
		case "set", "set64":
			s.once(&seen, 1<<4)
			h.Set = s.text(is64(k))
		case "label", "label64":
			s.once(&seen, 1<<5)
			h.Label = s.text(is64(k))
		case "host", "host64":
			s.once(&seen, 1<<6)
			h.Host = s.text(is64(k))
		case "snap":
			s.once(&seen, 1<<7)
			h.Snap = s.text(false)
		case "n":
			s.once(&seen, 1<<8)
			h.N = s.uint(1, math.MaxUint64)
		case "at":
			s.once(&seen, 1<<9)
			h.At = s.time()
		case "made":
			s.once(&seen, 1<<10)
			h.Made = s.time()
		case "kind":
			s.once(&seen, 1<<11)
			h.Kind = snapshot.Kind(s.text(false))
		case "base":
			s.once(&seen, 1<<12)
			h.Base = s.text(false)
		case "base-manifest":
			s.once(&seen, 1<<13)
			h.BaseHash = s.hash()
		case "stream", "stream64":
			s.once(&seen, 1<<14)
			h.Stream = s.text(is64(k))
		case "point", "point64":
			s.once(&seen, 1<<18)
			h.Point = s.text(is64(k))
		case "point-id", "point-id64":
			s.once(&seen, 1<<19)
			h.PointID = s.text(is64(k))
		case "compress", "compress64":
			s.once(&seen, 1<<15)
			h.Compress = s.text(is64(k))
		case "encrypt", "encrypt64":
			s.once(&seen, 1<<16)
			h.Encrypt = s.text(is64(k))
		case "paths", "paths64":
			s.once(&seen, 1<<17)
			in64 := is64(k)
			for ok := s.elem(true); ok; ok = s.elem(false) {
				h.Paths = append(h.Paths, s.text(in64))
			}
		default:
			s.skip()
		}
	}
	s.end()
	if s.err == nil && (seen&(1<<9) == 0 || seen&(1<<10) == 0) {
		s.err = errors.New("a date is missing")
	}
	return h, s.err
}

func (s *scanner) time() time.Time {
	v := string(s.str())
	if s.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil || !strings.HasSuffix(v, "Z") {
		s.fail("%q is not a time in UTC", v)
	}
	return t.UTC()
}
