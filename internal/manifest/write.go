package manifest

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/firn-backup/firn/internal/snapshot"
)

// stages of a manifest, in the order of its lines.
type stage int

const (
	inVolumes stage = iota
	inEntries
	inProblems
	inTotals
	inSignature
	atEnd
)

// Writer writes one manifest: the header on creation, then volumes in order,
// then entries and deletions together in path order, then problems, then Close.
// It refuses what a Reader would refuse, and after its first error everything.
// Memory is bounded by the longest line. Not safe for concurrent use.
type Writer struct {
	w     *bufio.Writer
	hash  hash.Hash
	line  []byte
	st    state
	stage stage
	err   error
}

// NewWriter begins a manifest. Close flushes it to w and does not close w.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	if err := checkHeader(&h); err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	for _, k := range h.Must {
		if !knownMust(k) {
			return nil, fmt.Errorf("write manifest: must-understand key %q is not known", k)
		}
	}
	mw := &Writer{w: bufio.NewWriterSize(w, 256<<10), hash: sha256.New(), st: newState(&h)}
	mw.line = appendHeader(mw.line[:0], &h)
	if err := mw.flushLine(); err != nil {
		return nil, err
	}
	return mw, nil
}

// Volume writes a volume's line. Leaves may be nil.
func (w *Writer) Volume(v *Volume) error {
	if err := w.enter(inVolumes, func() error { return w.st.volume(v) }); err != nil {
		return err
	}
	w.line = appendVolume(w.line[:0], v)
	return w.flushLine()
}

// Entry writes an entry's line. Content.N is written unless it is the
// header's. CTime, Dev and Ino are not written, nor is the address of no bytes.
func (w *Writer) Entry(e *snapshot.Entry) error {
	if err := w.enter(inEntries, func() error { return w.st.entry(e) }); err != nil {
		return err
	}
	w.line = appendEntry(w.line[:0], e, w.st.n)
	return w.flushLine()
}

// Delete writes that path, which the base snapshot's tree has, is no longer
// there. Every path that went has its own line, those below a directory too.
func (w *Writer) Delete(path string) error {
	if err := w.enter(inEntries, func() error { return w.st.deleted(path) }); err != nil {
		return err
	}
	w.line = append(appendText(append(w.line[:0], '{'), "deleted", path), '}')
	return w.flushLine()
}

// Problem writes a problem's line.
func (w *Writer) Problem(p *snapshot.Problem) error {
	if err := w.enter(inProblems, func() error { return w.st.problem(p) }); err != nil {
		return err
	}
	w.line = appendText(append(w.line[:0], '{'), "problem", p.Path)
	w.line = append(appendText(w.line, "reason", p.Reason), '}')
	return w.flushLine()
}

// Close writes totals and signature, and returns the manifest's hash.
// It does not close the underlying writer.
func (w *Writer) Close(key ed25519.PrivateKey) (Hash, error) {
	if len(key) != ed25519.PrivateKeySize {
		return Hash{}, errors.New("write manifest: no signing key")
	}
	if err := w.enter(inTotals, func() error { return nil }); err != nil {
		return Hash{}, err
	}
	w.line = appendTotals(w.line[:0], w.st.totals)
	if err := w.flushLine(); err != nil {
		return Hash{}, err
	}
	w.stage = atEnd
	sig := ed25519.Sign(key, signedText(w.hash.Sum(nil)))
	w.line = append(w.line[:0], `{"signature":{`...)
	w.line = appendBase64(appendKey(w.line, "key"), key.Public().(ed25519.PublicKey))
	w.line = appendBase64(appendKey(w.line, "sig"), sig)
	w.line = append(w.line, '}', '}')
	if err := w.flushLine(); err != nil {
		return Hash{}, err
	}
	if err := w.w.Flush(); err != nil {
		w.err = fmt.Errorf("write manifest: %w", err)
		return Hash{}, w.err
	}
	return Hash(w.hash.Sum(nil)), nil
}

// enter checks that a line of that stage may come now, and what check says.
func (w *Writer) enter(s stage, check func() error) error {
	if w.err != nil {
		return w.err
	}
	if s < w.stage {
		w.err = errors.New("write manifest: lines out of order")
		return w.err
	}
	w.stage = s
	if err := check(); err != nil {
		w.err = fmt.Errorf("write manifest: %w", err)
	}
	return w.err
}

func (w *Writer) flushLine() error {
	w.line = append(w.line, '\n')
	if len(w.line) > MaxLine {
		w.err = fmt.Errorf("write manifest: a line of %d bytes, after path %q, is too long", len(w.line), w.st.path)
		return w.err
	}
	w.hash.Write(w.line)
	if _, err := w.w.Write(w.line); err != nil {
		w.err = fmt.Errorf("write manifest: %w", err)
	}
	return w.err
}

// signedText is what a signature signs: short ASCII, so that every program
// that knows Ed25519 can check it, with the manifest's hash in it.
func signedText(sum []byte) []byte {
	b := append([]byte(nil), "firn-manifest-1\n"...)
	return append(hex.AppendEncode(b, sum), '\n')
}

func appendHeader(b []byte, h *Header) []byte {
	b = append(b, '{')
	b = appendInt(b, "firn-manifest", Version)
	b = appendInt(b, "min-reader", MinReader)
	b = append(appendKey(b, "must"), '[')
	for i, k := range h.Must {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, k)
	}
	b = append(b, ']')
	b = appendText(b, "setid", h.SetID)
	b = appendOptText(b, "set", h.Set)
	b = appendOptText(b, "label", h.Label)
	b = appendOptText(b, "host", h.Host)
	b = appendText(b, "snap", h.Snap)
	b = strconv.AppendUint(appendKey(b, "n"), h.N, 10)
	b = appendTime(b, "at", h.At)
	b = appendTime(b, "made", h.Made)
	b = appendText(b, "kind", string(h.Kind))
	if h.Kind == snapshot.Incremental {
		b = appendText(b, "base", h.Base)
		b = appendHex(appendKey(b, "base-manifest"), h.BaseHash[:])
	}
	b = appendText(b, "stream", h.Stream)
	b = appendOptText(b, "point", h.Point)
	b = appendOptText(b, "point-id", h.PointID)
	b = appendText(b, "compress", h.Compress)
	b = appendText(b, "encrypt", h.Encrypt)
	return append(appendPaths(b, h.Paths), '}')
}

// appendPaths appends the list as "paths", or all of it as "paths64" when one
// of them is not UTF-8.
func appendPaths(b []byte, paths []string) []byte {
	if len(paths) == 0 {
		return b
	}
	bytes := slices.ContainsFunc(paths, func(p string) bool { return !utf8.ValidString(p) })
	if bytes {
		b = appendKey(b, "paths64")
	} else {
		b = appendKey(b, "paths")
	}
	b = append(b, '[')
	for i, p := range paths {
		if i > 0 {
			b = append(b, ',')
		}
		if bytes {
			b = appendBase64(b, []byte(p))
		} else {
			b = appendString(b, p)
		}
	}
	return append(b, ']')
}

func appendTime(b []byte, key string, t time.Time) []byte {
	b = append(appendKey(b, key), '"')
	b = t.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

func appendVolume(b []byte, v *Volume) []byte {
	b = append(b, '{')
	b = appendInt(b, "volume", int64(v.N))
	b = appendText(b, "archive", v.Archive)
	b = appendInt(b, "size", v.Size)
	b = appendHex(appendKey(b, "tree-hash"), v.TreeHash[:])
	if len(v.Leaves) > 0 && len(v.Leaves) <= maxLeaves {
		all := make([]byte, 0, len(v.Leaves)*32)
		for i := range v.Leaves {
			all = append(all, v.Leaves[i][:]...)
		}
		b = appendBase64(appendKey(b, "leaves"), all)
	}
	b = appendInt(b, "raw", v.Raw)
	if v.RawSHA256 != nil {
		b = appendHex(appendKey(b, "raw-sha256"), v.RawSHA256[:])
	}
	b = append(appendKey(b, "frames"), '[')
	for i, f := range v.Frames {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = strconv.AppendInt(b, f.Raw, 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, f.Packed, 10)
		b = append(b, ']')
	}
	b = append(b, ']')
	if len(v.Header) > 0 {
		b = appendBase64(appendKey(b, "header"), v.Header)
	}
	if len(v.Tail) > 0 {
		b = appendBase64(appendKey(b, "tail"), v.Tail)
	}
	return append(b, '}')
}

func appendEntry(b []byte, e *snapshot.Entry, n uint64) []byte {
	b = append(b, '{')
	b = appendText(b, "path", e.Path)
	b = append(appendKey(b, "type"), '"', byte(e.Type), '"')
	b = append(appendKey(b, "mode"), '"', '0'+byte(e.Mode>>9), '0'+byte(e.Mode>>6&7), '0'+byte(e.Mode>>3&7), '0'+byte(e.Mode&7), '"')
	b = appendOptInt(b, "uid", int64(e.UID))
	b = appendOptInt(b, "gid", int64(e.GID))
	b = appendOptText(b, "user", e.User)
	b = appendOptText(b, "group", e.Group)
	b = appendPair(b, "mtime", e.MTime.Sec, int64(e.MTime.Nsec))
	b = appendOptInt(b, "size", e.Size)
	b = appendOptText(b, "link", e.Link)
	if e.Type == snapshot.CharDev || e.Type == snapshot.BlkDev {
		b = appendPair(b, "dev", int64(e.Major), int64(e.Minor))
	}
	b = appendOptText(b, "links", e.LinkGroup)
	if len(e.Xattrs) > 0 {
		b = appendXattrs(b, e.Xattrs)
	}
	if e.Torn {
		b = append(appendKey(b, "torn"), "true"...)
	}
	if c := &e.Content; !c.IsZero() && c.Stored > 0 {
		if c.N != n {
			b = strconv.AppendUint(appendKey(b, "n"), c.N, 10)
		}
		b = appendInt(b, "vol", int64(c.Volume))
		b = appendInt(b, "off", c.Offset)
		if c.Stored != e.Size {
			b = appendInt(b, "stored", c.Stored)
		}
		if c.Sparse {
			b = append(appendKey(b, "sparse"), "true"...)
		}
		b = appendHex(appendKey(b, "sha256"), c.SHA256[:])
	}
	return append(b, '}')
}

// appendXattrs writes the attributes in up to two objects: those whose names are UTF-8, and the others.
func appendXattrs(b []byte, xattrs []snapshot.Xattr) []byte {
	for _, odd := range []bool{false, true} {
		opened := false
		for _, x := range xattrs {
			if utf8.ValidString(x.Name) == odd {
				continue
			}
			switch {
			case opened:
				b = append(b, ',')
			case odd:
				b = append(appendKey(b, "xattrs64"), '{')
			default:
				b = append(appendKey(b, "xattrs"), '{')
			}
			opened = true
			if odd {
				b = appendBase64(b, []byte(x.Name))
			} else {
				b = appendString(b, x.Name)
			}
			b = append(b, ':')
			b = appendBase64(b, []byte(x.Value))
		}
		if opened {
			b = append(b, '}')
		}
	}
	return b
}

func appendTotals(b []byte, t Totals) []byte {
	b = append(b, `{"totals":{`...)
	b = appendInt(b, "volumes", int64(t.Volumes))
	b = appendInt(b, "entries", t.Entries)
	b = appendInt(b, "deleted", t.Deleted)
	b = appendInt(b, "problems", t.Problems)
	return append(b, '}', '}')
}
