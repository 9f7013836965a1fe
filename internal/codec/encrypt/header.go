package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	ageIntro     = "age-encryption.org/v1\n"
	ageNonce     = 16 // bytes between the header's last line and the first chunk
	ageFooter    = 48 // bytes of the last line: "--- ", 43 of base64, newline
	ageMaxHeader = 2 << 20

	// The least that can follow a whole stanza.
	ageRest = ageFooter + ageNonce
)

// headerScan finds the end of an age header in bytes that come bit by bit. It
// checks only what it needs to; the library parses the header afterwards.
type headerScan struct {
	buf   []byte
	line  int // where in buf the current line begins
	state int
}

const (
	inIntro   = iota
	inStanza  // at the first stanza's first line
	inBody    // in a stanza's body
	inNext    // at a stanza's first line, or at the footer
	afterLast // past the footer: only the nonce is left
)

// more tells how many bytes must still come: at least so many are left, so that
// whoever reads just as many never reads past the header. 0: the header is whole,
// and size is its length. The error wraps codec.ErrDamaged.
func (s *headerScan) more() (need int, size int, err error) {
	for s.state != afterLast {
		i := bytes.IndexByte(s.buf[s.line:], '\n')
		if i < 0 {
			break
		}
		if err := s.endLine(s.buf[s.line : s.line+i+1]); err != nil {
			return 0, 0, err
		}
		s.line += i + 1
	}
	if s.state == afterLast {
		size := s.line + ageNonce
		return max(0, size-len(s.buf)), size, nil
	}
	if len(s.buf) > ageMaxHeader {
		return 0, 0, damaged(Age, errors.New("header of more than 2 MiB"))
	}
	return s.least(s.buf[s.line:]), 0, nil
}

func (s *headerScan) endLine(line []byte) error {
	switch s.state {
	case inIntro:
		if string(line) != ageIntro {
			return damaged(Age, errors.New("not an age file"))
		}
		s.state = inStanza
	case inBody:
		if len(line) <= 64 { // a stanza's body ends with a line that is not full
			s.state = inNext
		}
	case inStanza, inNext:
		switch {
		case bytes.HasPrefix(line, []byte("-> ")):
			s.state = inBody
		case s.state == inNext && bytes.HasPrefix(line, []byte("--- ")) && len(line) == ageFooter:
			s.state = afterLast
		default:
			return damaged(Age, fmt.Errorf("malformed header line of %d bytes", len(line)))
		}
	}
	return nil
}

// least is how many bytes follow part, an unfinished line, at the very least.
func (s *headerScan) least(part []byte) int {
	const stanza = len("-> x\n") + len("\n") + ageRest
	switch s.state {
	case inIntro:
		return max(1, len(ageIntro)-len(part)) + stanza
	case inBody:
		return len("\n") + ageRest
	case inStanza:
		return max(2, stanza-ageRest-len(part)) + ageRest
	}
	if bytes.HasPrefix(part, []byte("->")) {
		return len("\n\n") + ageRest
	}
	return max(1, ageFooter-len(part)) + ageNonce
}

func ageHeaderSize(prefix []byte) (int, error) {
	s := headerScan{buf: prefix}
	need, size, err := s.more()
	switch {
	case err != nil:
		return 0, err
	case size > 0:
		return size, nil
	case need > 0 && len(prefix) < len(ageIntro) && !bytes.HasPrefix([]byte(ageIntro), prefix):
		return 0, damaged(Age, errors.New("not an age file"))
	}
	return 0, io.ErrUnexpectedEOF
}

// readHeader reads the header of a ciphertext of size bytes, and not one byte
// more. An error of src is a *srcError.
func readHeader(src io.ReaderAt, size int64) ([]byte, error) {
	var s headerScan
	for {
		need, whole, err := s.more()
		if err != nil {
			return nil, err
		}
		if whole > 0 && need == 0 {
			return s.buf, nil
		}
		at := len(s.buf)
		if int64(at+need) > size {
			return nil, damaged(Age, io.ErrUnexpectedEOF)
		}
		s.buf = append(s.buf, make([]byte, need)...)
		if n, err := src.ReadAt(s.buf[at:], int64(at)); n < need {
			if err == nil || err == io.EOF {
				return nil, damaged(Age, io.ErrUnexpectedEOF)
			}
			return nil, &srcError{err}
		}
	}
}
