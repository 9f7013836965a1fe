package manifest

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// text reads a string, or the bytes that one stands for in base64.
func (s *scanner) text(in64 bool) string {
	if in64 {
		return string(s.base64())
	}
	return string(s.str())
}

// skipRest forgets the members that follow a value in an object, which must
// end the line.
func (s *scanner) skipRest() {
	for k := s.next(); k != nil; k = s.next() {
		s.skip()
	}
	s.end()
}

// once fails when the key that bit stands for came before.
func (s *scanner) once(seen *uint32, bit uint32) {
	if *seen&bit != 0 {
		s.fail("a key comes twice")
	}
	*seen |= bit
}

func is64(key []byte) bool { return bytes.HasSuffix(key, []byte("64")) }

// names keeps one copy of strings that come again and again.
type names map[string]string

func (n names) text(s *scanner, in64 bool) string {
	if in64 {
		return s.text(true)
	}
	b := s.str()
	if v, ok := n[string(b)]; ok {
		return v
	}
	v := string(b)
	if len(n) < 4096 && len(v) <= 256 {
		n[v] = v
	}
	return v
}

// parseVolume reads a volume's line; its first key, "volume", is read already.
func parseVolume(s *scanner) (*Volume, error) {
	v := &Volume{N: int(s.int(1, math.MaxInt32))}
	var seen uint32
	for k := s.next(); k != nil; k = s.next() {
		switch string(k) {
		case "volume":
			s.fail("a key comes twice")
		case "archive", "archive64":
			s.once(&seen, 1<<0)
			v.Archive = s.text(is64(k))
		case "size":
			s.once(&seen, 1<<1)
			v.Size = s.int(0, math.MaxInt64)
		case "tree-hash":
			s.once(&seen, 1<<2)
			v.TreeHash = s.hash()
		case "leaves":
			s.once(&seen, 1<<3)
			v.Leaves = s.leaves()
		case "raw":
			s.once(&seen, 1<<4)
			v.Raw = s.int(0, math.MaxInt64)
		case "raw-sha256":
			s.once(&seen, 1<<5)
			h := s.hash()
			v.RawSHA256 = &h
		case "frames":
			s.once(&seen, 1<<6)
			for ok := s.elem(true); ok; ok = s.elem(false) {
				raw, packed := s.pair(1, math.MaxInt64, 1, math.MaxInt64)
				v.Frames = append(v.Frames, codec.Frame{Raw: raw, Packed: packed})
			}
		case "header":
			s.once(&seen, 1<<7)
			v.Header = s.base64()
		case "tail":
			s.once(&seen, 1<<8)
			v.Tail = s.base64()
		default:
			s.skip()
		}
	}
	s.end()
	if s.err == nil && seen&(1<<2) == 0 {
		s.err = errors.New("a volume's tree hash is missing")
	}
	if s.err != nil {
		return nil, s.err
	}
	return v, nil
}

func (s *scanner) leaves() []treehash.Hash {
	b := s.base64()
	if s.err != nil {
		return nil
	}
	if len(b) == 0 || len(b)%32 != 0 {
		s.fail("leaf hashes are not of 32 bytes each")
		return nil
	}
	out := make([]treehash.Hash, len(b)/32)
	for i := range out {
		copy(out[i][:], b[i*32:])
	}
	return out
}

// The keys of an entry, for once and for what must not be missing.
const (
	kPath uint32 = 1 << iota
	kType
	kMode
	kUID
	kGID
	kUser
	kGroup
	kMTime
	kSize
	kLink
	kDev
	kLinks
	kXattrs
	kXattrs64
	kTorn
	kN
	kVol
	kOff
	kStored
	kSparse
	kSHA256

	kMust    = kPath | kType | kMode | kMTime
	kContent = kN | kVol | kOff | kStored | kSparse | kSHA256
	kAddress = kVol | kOff | kSHA256
)

// parseEntry reads an entry's line; its first key, kind, is read already. n is the snapshot's.
func parseEntry(s *scanner, kind string, e *snapshot.Entry, n uint64, names names) error {
	seen := kPath
	e.Path = s.text(kind == "path64")
	c := &e.Content
	for k := s.next(); k != nil; k = s.next() {
		switch string(k) {
		case "path", "path64":
			s.once(&seen, kPath)
			s.skip()
		case "type":
			s.once(&seen, kType)
			e.Type = s.entryType()
		case "mode":
			s.once(&seen, kMode)
			e.Mode = s.mode()
		case "uid":
			s.once(&seen, kUID)
			e.UID = uint32(s.uint(0, math.MaxUint32))
		case "gid":
			s.once(&seen, kGID)
			e.GID = uint32(s.uint(0, math.MaxUint32))
		case "user", "user64":
			s.once(&seen, kUser)
			e.User = names.text(s, is64(k))
		case "group", "group64":
			s.once(&seen, kGroup)
			e.Group = names.text(s, is64(k))
		case "mtime":
			s.once(&seen, kMTime)
			sec, nsec := s.pair(math.MinInt64, math.MaxInt64, 0, 999_999_999)
			e.MTime = snapshot.Time{Sec: sec, Nsec: int32(nsec)}
		case "size":
			s.once(&seen, kSize)
			e.Size = s.int(0, math.MaxInt64)
		case "link", "link64":
			s.once(&seen, kLink)
			e.Link = s.text(is64(k))
		case "dev":
			s.once(&seen, kDev)
			major, minor := s.pair(0, math.MaxUint32, 0, math.MaxUint32)
			e.Major, e.Minor = uint32(major), uint32(minor)
		case "links", "links64":
			s.once(&seen, kLinks)
			e.LinkGroup = s.text(is64(k))
		case "xattrs":
			s.once(&seen, kXattrs)
			e.Xattrs = s.xattrs(e.Xattrs, names, false)
		case "xattrs64":
			s.once(&seen, kXattrs64)
			e.Xattrs = s.xattrs(e.Xattrs, names, true)
		case "torn":
			s.once(&seen, kTorn)
			e.Torn = s.bool()
		case "n":
			s.once(&seen, kN)
			c.N = s.uint(1, math.MaxUint64)
		case "vol":
			s.once(&seen, kVol)
			c.Volume = int(s.int(1, math.MaxInt32))
		case "off":
			s.once(&seen, kOff)
			c.Offset = s.int(0, math.MaxInt64)
		case "stored":
			s.once(&seen, kStored)
			c.Stored = s.int(0, math.MaxInt64)
		case "sparse":
			s.once(&seen, kSparse)
			c.Sparse = s.bool()
		case "sha256":
			s.once(&seen, kSHA256)
			c.SHA256 = s.hash()
		default:
			s.skip()
		}
	}
	s.end()
	return finishEntry(s, e, seen, n)
}

// finishEntry fills in what an entry leaves out, and sees that nothing else is missing.
func finishEntry(s *scanner, e *snapshot.Entry, seen uint32, n uint64) error {
	c := &e.Content
	switch {
	case s.err != nil:
		return s.err
	case seen&kMust != kMust:
		return errors.New("type, mode or mtime of an entry is missing")
	case seen&kDev == 0 && (e.Type == snapshot.CharDev || e.Type == snapshot.BlkDev):
		return errors.New("a device without its numbers")
	case seen&kContent != 0 && seen&kAddress != kAddress:
		return errors.New("a content address is not complete")
	}
	if seen&kContent != 0 {
		if seen&kN == 0 {
			c.N = n
		}
		if seen&kStored == 0 {
			c.Stored = e.Size
		}
	}
	if !slices.IsSortedFunc(e.Xattrs, compareXattrs) {
		slices.SortFunc(e.Xattrs, compareXattrs)
	}
	return nil
}

func compareXattrs(a, b snapshot.Xattr) int { return strings.Compare(a.Name, b.Name) }

func (s *scanner) entryType() snapshot.Type {
	v := s.str()
	if s.err == nil && len(v) != 1 {
		s.fail("a type is one letter")
	}
	if s.err != nil {
		return 0
	}
	return snapshot.Type(v[0])
}

// mode reads four octal digits in a string.
func (s *scanner) mode() uint32 {
	v := s.str()
	if s.err != nil {
		return 0
	}
	var m uint32
	for _, c := range v {
		if c < '0' || c > '7' || len(v) != 4 {
			s.fail("a mode is four octal digits")
			return 0
		}
		m = m<<3 | uint32(c-'0')
	}
	if len(v) != 4 {
		s.fail("a mode is four octal digits")
	}
	return m
}

func (s *scanner) xattrs(out []snapshot.Xattr, names names, in64 bool) []snapshot.Xattr {
	for k := s.first(); k != nil; k = s.next() {
		var name string
		if in64 {
			name = string(s.decode64(k))
		} else if v, ok := names[string(k)]; ok {
			name = v
		} else {
			name = string(k)
			if len(names) < 4096 {
				names[name] = name
			}
		}
		out = append(out, snapshot.Xattr{Name: name, Value: string(s.base64())})
	}
	return out
}

// parseProblem reads a problem's line; its first key, kind, is read already.
func parseProblem(s *scanner, kind string) (*snapshot.Problem, error) {
	p := &snapshot.Problem{Path: s.text(kind == "problem64")}
	var seen uint32
	for k := s.next(); k != nil; k = s.next() {
		switch string(k) {
		case "reason", "reason64":
			s.once(&seen, 1)
			p.Reason = s.text(is64(k))
		default:
			s.skip()
		}
	}
	s.end()
	return p, s.err
}

func parseTotals(s *scanner) (t Totals, err error) {
	var seen uint32
	for k := s.first(); k != nil; k = s.next() {
		switch string(k) {
		case "volumes":
			s.once(&seen, 1)
			t.Volumes = int(s.int(0, math.MaxInt32))
		case "entries":
			s.once(&seen, 2)
			t.Entries = s.int(0, math.MaxInt64)
		case "deleted":
			s.once(&seen, 4)
			t.Deleted = s.int(0, math.MaxInt64)
		case "problems":
			s.once(&seen, 8)
			t.Problems = s.int(0, math.MaxInt64)
		default:
			s.skip()
		}
	}
	s.skipRest()
	return t, s.err
}

func parseSignature(s *scanner) (key ed25519.PublicKey, sig []byte, err error) {
	var seen uint32
	for k := s.first(); k != nil; k = s.next() {
		switch string(k) {
		case "key":
			s.once(&seen, 1)
			key = s.base64()
		case "sig":
			s.once(&seen, 2)
			sig = s.base64()
		default:
			s.skip()
		}
	}
	s.skipRest()
	if s.err == nil && (len(key) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize) {
		s.fail("not a signature of Ed25519")
	}
	return key, sig, s.err
}
