package compress

import (
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/firn-backup/firn/internal/codec"
)

// bzip2Codec makes one bzip2 stream of each frame, by a program: there is no
// Go writer that is kept up and fast enough. It is read by the standard library.
type bzip2Codec struct {
	level   int    // block size in units of 100,000 bytes
	program string // path of lbzip2 or bzip2; empty: look when an encoder is made
}

var _ codec.Compressor = (*bzip2Codec)(nil)

func (c *bzip2Codec) Name() string                                { return Bzip2 }
func (c *bzip2Codec) Ext() string                                 { return ".bz2" }
func (c *bzip2Codec) Trailer([]codec.Frame, bool) ([]byte, error) { return nil, nil }
func (c *bzip2Codec) NewDecoder() (codec.FrameDecoder, error)     { return bzip2Decoder{}, nil }

func (c *bzip2Codec) NewEncoder() (codec.FrameEncoder, error) {
	program := c.program
	if program == "" {
		var err error
		if program, err = findBzip2(); err != nil {
			return nil, err
		}
	}
	args := []string{"-z", "-c", "-" + strconv.Itoa(c.level)}
	if filepath.Base(program) == "lbzip2" {
		// The caller runs one encoder a processor.
		args = append(args, "-n", "1")
	}
	return &bzip2Encoder{program, args}, nil
}

func findBzip2() (string, error) {
	for _, name := range []string{"lbzip2", "bzip2"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("compression bzip2 needs the program lbzip2 or bzip2, and neither is installed")
}

type bzip2Encoder struct {
	program string
	args    []string
}

func (e *bzip2Encoder) EncodeFrame(dst, raw []byte) ([]byte, error) {
	cmd := exec.Command(e.program, e.args...)
	// Both programs take default options from these variables.
	cmd.Env = append(cmd.Environ(), "BZIP2=", "BZIP=", "LBZIP2=")
	var talk head
	out := appender{dst}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(raw), &out, &talk
	if err := cmd.Run(); err != nil {
		return dst, fmt.Errorf("%s: %w: %s", filepath.Base(e.program), err, strings.TrimSpace(strings.ToValidUTF8(string(talk), "?")))
	}
	if len(out.b) < len(dst)+bzip2MinStream {
		return dst, fmt.Errorf("%s: wrote only %d bytes", filepath.Base(e.program), len(out.b)-len(dst))
	}
	return out.b, nil
}

func (e *bzip2Encoder) Close() error { return nil }

// head keeps the first 4 KiB of what is written.
type head []byte

func (h *head) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), 4<<10-len(*h))]...)
	return len(p), nil
}

const bzip2MinStream = 14 // bytes: BZh9, the end's magic and checksum

type bzip2Decoder struct{}

func (bzip2Decoder) Close() error { return nil }

// DecodeFrame holds up to 4 MiB of its own besides the raw bytes.
func (bzip2Decoder) DecodeFrame(dst, frame []byte, rawSize int64) ([]byte, error) {
	if rawSize < 0 {
		return dst, errNegativeSize
	}
	start := len(dst)
	dst, err := decodeInto(Bzip2, dst, bzip2.NewReader(bytes.NewReader(frame)), rawSize)
	if err != nil {
		return dst, err
	}
	if at := secondStream(frame); at > 0 {
		return dst[:start], damagedf(Bzip2, "another stream follows at byte %d", at)
	}
	return dst, nil
}

// secondStream tells where a second stream begins in frame, or 0. The standard
// library reads concatenated streams as one, so it is looked for by its magic
// numbers, and what was found counts only if a stream really ends there.
func secondStream(frame []byte) int {
	for at := bzip2MinStream; ; {
		i := bytes.Index(frame[min(at, len(frame)):], []byte("BZh"))
		if i < 0 {
			return 0
		}
		at += i
		if rest := frame[at+3:]; len(rest) >= 7 && rest[0] >= '1' && rest[0] <= '9' &&
			(string(rest[1:7]) == "\x31\x41\x59\x26\x53\x59" || string(rest[1:7]) == "\x17\x72\x45\x38\x50\x90") {
			if _, err := io.Copy(io.Discard, bzip2.NewReader(bytes.NewReader(frame[:at]))); err == nil {
				return at
			}
		}
		at++
	}
}

func newBzip2Reader(src *source) io.ReadCloser {
	return &stream{name: Bzip2, src: src, r: bzip2.NewReader(src)}
}
