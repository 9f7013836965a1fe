package volume

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/manifest"
)

// fakeCompress writes frames of length, checksum and bytes, runs of zeros
// shortened, so that faults are seen as a real compressor sees them.
type fakeCompress struct {
	chunk  int64 // what Trailer pads to, plus one
	encode func(n int) error
	lie    bool // make frames that decode to something else
	mu     *sync.Mutex
	n      *int
}

func newFakeCompress(chunk int64) fakeCompress {
	return fakeCompress{chunk: chunk, mu: new(sync.Mutex), n: new(int)}
}

func (f fakeCompress) Name() string                            { return "fake" }
func (f fakeCompress) Ext() string                             { return ".fake" }
func (f fakeCompress) NewEncoder() (codec.FrameEncoder, error) { return f, nil }
func (f fakeCompress) NewDecoder() (codec.FrameDecoder, error) { return f, nil }
func (f fakeCompress) Close() error                            { return nil }

func (f fakeCompress) Trailer(frames []codec.Frame, pad bool) ([]byte, error) {
	var n int64 = 3
	for _, f := range frames {
		n += f.Packed
	}
	t := []byte("end")
	if pad {
		for n%f.chunk != 1%f.chunk {
			t = append(t, 'p')
			n++
		}
	}
	return t, nil
}

func (f fakeCompress) EncodeFrame(dst, raw []byte) ([]byte, error) {
	f.mu.Lock()
	n := *f.n
	*f.n++
	f.mu.Unlock()
	if f.encode != nil {
		if err := f.encode(n); err != nil {
			return dst, err
		}
	}
	body := bytes.TrimRight(raw, "\x00")
	sum := crc32.ChecksumIEEE(body)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(raw)))
	dst = binary.BigEndian.AppendUint32(dst, sum)
	if f.lie && len(body) > 0 {
		body = bytes.Clone(body)
		body[len(body)/2]++
		binary.BigEndian.PutUint32(dst[len(dst)-4:], crc32.ChecksumIEEE(body))
	}
	return append(dst, body...), nil
}

func (f fakeCompress) DecodeFrame(dst, frame []byte, rawSize int64) ([]byte, error) {
	if len(frame) < 8 || int64(binary.BigEndian.Uint32(frame)) != rawSize || int64(len(frame)-8) > rawSize ||
		crc32.ChecksumIEEE(frame[8:]) != binary.BigEndian.Uint32(frame[4:]) {
		return dst, fmt.Errorf("%w: fake frame", codec.ErrDamaged)
	}
	dst = append(dst, frame[8:]...)
	return append(dst, make([]byte, rawSize-int64(len(frame)-8))...), nil
}

// fakeCipher is what age is, in small: a header, chunks with a tag each, the
// last one marked. With whole set it is what OpenPGP is: one checksum at the end.
type fakeCipher struct {
	header []byte
	chunk  int64
	whole  bool
	plain  bool // no encryption
	shape  int  // lie about the tag's size by so much
}

func (f fakeCipher) Name() string { return "fakecipher" }
func (f fakeCipher) Ext() string  { return ".fc" }
func (f fakeCipher) Geometry() codec.Geometry {
	if f.plain {
		return codec.Geometry{}
	}
	if f.whole {
		return codec.Geometry{Whole: true}
	}
	return codec.Geometry{Chunk: f.chunk, Tag: 4 + int64(f.shape)}
}

type fakeEncrypt struct {
	fakeCipher
	dst io.Writer
	buf []byte
	n   uint32
	sum uint32
}

func (f fakeCipher) Encrypt(dst io.Writer) (io.WriteCloser, error) {
	if f.plain {
		return nopCloser{dst}, nil
	}
	if _, err := dst.Write(f.header); err != nil {
		return nil, err
	}
	return &fakeEncrypt{fakeCipher: f, dst: dst}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func (e *fakeEncrypt) Write(p []byte) (int, error) {
	if e.whole {
		e.sum = crc32.Update(e.sum, crc32.IEEETable, p)
		return e.dst.Write(p)
	}
	n := len(p)
	for len(p) > 0 {
		if int64(len(e.buf)) == e.chunk {
			if err := e.flush(0); err != nil {
				return 0, err
			}
		}
		k := min(len(p), int(e.chunk)-len(e.buf))
		e.buf = append(e.buf, p[:k]...)
		p = p[k:]
	}
	return n, nil
}

func tag(chunk []byte, n, last uint32) uint32 { return crc32.ChecksumIEEE(chunk) ^ n<<1 ^ last }

func (e *fakeEncrypt) flush(last uint32) error {
	t := tag(e.buf, e.n, last)
	_, err := e.dst.Write(binary.BigEndian.AppendUint32(e.buf, t))
	e.n++
	e.buf = e.buf[:0]
	return err
}

func (e *fakeEncrypt) Close() error {
	if e.whole {
		_, err := e.dst.Write(binary.BigEndian.AppendUint32(nil, e.sum))
		return err
	}
	return e.flush(1)
}

func (f fakeCipher) Decrypt(src io.Reader) (io.Reader, error) {
	if f.plain {
		return src, nil
	}
	all, err := io.ReadAll(src)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(all, f.header) {
		return nil, codec.ErrNoKey
	}
	all = all[len(f.header):]
	if f.whole {
		if len(all) < 4 {
			return nil, codec.ErrDamaged
		}
		body, sum := all[:len(all)-4], all[len(all)-4:]
		if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(sum) {
			return io.MultiReader(bytes.NewReader(body), failReader{fmt.Errorf("%w: checksum", codec.ErrDamaged)}), nil
		}
		return bytes.NewReader(body), nil
	}
	// A chunk at a time, until one is damaged.
	d := &fakeDecrypt{fakeCipher: f, src: bytes.NewReader(append(bytes.Clone(f.header), all...)), size: int64(len(all) + len(f.header))}
	var plain []byte
	for i := int64(0); i < (int64(len(all))+f.chunk+3)/(f.chunk+4); i++ {
		b, err := d.open(i)
		if err != nil {
			return io.MultiReader(bytes.NewReader(plain), failReader{err}), nil
		}
		plain = append(plain, b...)
	}
	return bytes.NewReader(plain), nil
}

type failReader struct{ err error }

func (f failReader) Read([]byte) (int, error) { return 0, f.err }

type fakeDecrypt struct {
	fakeCipher
	src  io.ReaderAt
	size int64
}

func (f fakeCipher) DecryptAt(src io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	if f.plain {
		return src, size, nil
	}
	if f.whole {
		return nil, 0, codec.ErrNotSeekable
	}
	h := make([]byte, len(f.header))
	if _, err := src.ReadAt(h, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	if !bytes.Equal(h, f.header) {
		return nil, 0, codec.ErrNoKey
	}
	d := &fakeDecrypt{fakeCipher: f, src: src, size: size}
	body := size - int64(len(f.header))
	chunks := (body + f.chunk + 3) / (f.chunk + 4)
	if _, err := d.open(chunks - 1); err != nil {
		return nil, 0, err
	}
	return d, body - 4*chunks, nil
}

func (d *fakeDecrypt) open(i int64) ([]byte, error) {
	off := int64(len(d.header)) + i*(d.chunk+4)
	b := make([]byte, min(d.chunk+4, d.size-off))
	if n, err := d.src.ReadAt(b, off); n < len(b) {
		return nil, err
	}
	var last uint32
	if off+int64(len(b)) == d.size {
		last = 1
	}
	body := b[:len(b)-4]
	if tag(body, uint32(i), last) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil, fmt.Errorf("%w: chunk %d", codec.ErrDamaged, i)
	}
	return body, nil
}

func (d *fakeDecrypt) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		at := off + int64(n)
		if int64(len(d.header))+at/d.chunk*(d.chunk+4) >= d.size {
			return n, io.EOF
		}
		b, err := d.open(at / d.chunk)
		if err != nil {
			return n, err
		}
		if at%d.chunk >= int64(len(b)) {
			return n, io.EOF
		}
		n += copy(p[n:], b[at%d.chunk:])
	}
	return n, nil
}

// store keeps finished volumes, and fails or blocks where told.
type store struct {
	mu      sync.Mutex
	volumes []*stored
	aborted int
	events  []string
	fail    func(op string, n int) error // "open", "write", "finish"
	block   string                       // the operation that waits until its context is done
	blocked chan struct{}                // closed when it waits
}

type stored struct {
	v    *manifest.Volume
	data []byte
}

type fakeSink struct {
	s   *store
	ctx context.Context
	n   int
	bytes.Buffer
}

func (s *store) op(ctx context.Context, op string, n int) error {
	s.mu.Lock()
	if op != "write" {
		s.events = append(s.events, fmt.Sprintf("%s %d", op, n))
	}
	block := s.block == op
	s.mu.Unlock()
	if block {
		close(s.blocked)
		<-ctx.Done()
		return ctx.Err()
	}
	if s.fail != nil {
		return s.fail(op, n)
	}
	return nil
}

func (s *store) open(ctx context.Context, n int) (Sink, error) {
	if err := s.op(ctx, "open", n); err != nil {
		return nil, err
	}
	return &fakeSink{s: s, ctx: ctx, n: n}, nil
}

func (f *fakeSink) Write(p []byte) (int, error) {
	if err := f.s.op(f.ctx, "write", f.n); err != nil {
		return 0, err
	}
	return f.Buffer.Write(p)
}

func (f *fakeSink) Finish(ctx context.Context, v *manifest.Volume) error {
	if err := f.s.op(ctx, "finish", f.n); err != nil {
		return err
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.volumes = append(f.s.volumes, &stored{v, f.Bytes()})
	return nil
}

func (f *fakeSink) Abort(ctx context.Context) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if ctx.Err() != nil {
		panic("abort with a context that is done")
	}
	f.s.aborted++
	return nil
}
